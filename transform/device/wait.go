package device

import (
	"strings"
	"time"
)

// alertWait is the longest that a row waits for another row of its alert, which may come in another
// message or from another partition.
const alertWait = time.Second

// waits: what rows wait for. It is used under the lock of Memory.
type waits struct {
	asked  map[string]*question // by the key of the device, until its answer has come
	alerts map[string]int       // how many rows wait for an alert, by its key
	warm   time.Time            // the latest end of a warm-up; zero when none is under way
	news   chan struct{}        // closed when something came that a row may wait for; nil while nobody looks
}

// A question is a device that somebody was asked for.
type question struct {
	over     bool // there is an answer, or none will come soon
	answered bool
}

func newWaits() waits {
	return waits{asked: make(map[string]*question), alerts: make(map[string]int)}
}

// tell wakes those that wait.
func (w *waits) tell() {
	if w.news != nil {
		close(w.news)
		w.news = nil
	}
}

// WarmUp has rows wait for reports from before the first start, which are being read: until
// WarmedUp, and no longer than most.
func (m *Memory) WarmUp(most time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waits.warm = time.Now().Add(most)
}

// WarmedUp ends the wait of WarmUp.
func (m *Memory) WarmedUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waits.warm = time.Time{}
	m.waits.tell()
}

// warms reports whether a row waits for the warm-up: one with a device, or a way to find one. The
// known report of that device may not be its newest, and the one device of a name may be one of
// two.
func (m *Memory) warms(s *Sighting, now time.Time) bool {
	return now.Before(m.waits.warm) && (s.key != "" || len(s.several) > 0 || s.name != "" || s.resource != "" || s.account != user{})
}

// Answered ends a question that Ask has taken. answered is false if there is no answer, and none
// will come soon. The answer itself has been learned before.
func (m *Memory) Answered(tenantName, id string, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenants.byName[strings.ToLower(tenantName)]
	if t == nil {
		return
	}
	key := string(appendKey(nil, t.number, []byte(id)))
	if q := m.waits.asked[key]; q != nil {
		q.over, q.answered = true, answered
		delete(m.waits.asked, key)
		m.waits.tell()
	}
}

// News is closed when something has come that a row may wait for.
func (m *Memory) News() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waits.news == nil {
		m.waits.news = make(chan struct{})
	}
	return m.waits.news
}

// Waits reports whether the row of a sighting has to wait, as of the last Resolve. It returns the
// latest time at which to look at it again.
func (s *Sighting) Waits() (bool, time.Time) { return !s.until.IsZero(), s.until }

// Keep makes a sighting independent of the record's text.
func (s *Sighting) Keep() { s.alert = append([]byte(nil), s.alert...) }

// Drop ends the wait of a sighting.
func (j *Joiner) Drop(s *Sighting) {
	j.memory.mu.Lock()
	defer j.memory.mu.Unlock()
	j.memory.await(s, false)
	s.until = time.Time{}
}

// Resolve finds the devices of sightings and asks for the missing ones, all at once. Rows may then
// have to wait: for the warm-up, for an answer, or for another row of their alert. Call it again
// for those, whenever there are News and when their time is over.
func (j *Joiner) Resolve(sightings []*Sighting) {
	m := j.memory
	now := time.Now()
	missing, byTenant, keys, asked := m.missing(sightings, now)
	if len(missing) == 0 {
		return
	}
	coming := make(map[string]bool)
	unanswered := make(map[string]bool)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for key, q := range asked {
			if !coming[key] && !q.over {
				q.over, q.answered = true, !unanswered[key]
				delete(m.waits.asked, key)
			}
			for _, s := range missing[key] {
				s.question = q
				m.resolve(s, now)
			}
		}
	}()
	for tenant, ids := range byTenant {
		there, left := m.cfg.Ask(tenant, ids, m.cfg.Wait)
		for _, id := range there {
			coming[keys[tenant+"/"+strings.ToLower(id)]] = true
		}
		for _, id := range left {
			unanswered[keys[tenant+"/"+strings.ToLower(id)]] = true
		}
	}
}

// missing resolves sightings. It returns the sightings whose device is to be asked for, by its key.
// It also returns the ids by tenant, the keys by tenant and id, and the questions by key.
func (m *Memory) missing(sightings []*Sighting, now time.Time) (missing map[string][]*Sighting, byTenant map[string][]string, keys map[string]string, asked map[string]*question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range sightings {
		if s.since.IsZero() {
			s.since = now
		}
		m.resolve(s, now)
		if s.wants != "" && s.question == nil && m.cfg.Ask != nil {
			if missing == nil {
				missing = make(map[string][]*Sighting)
			}
			missing[strings.Clone(s.wants)] = append(missing[s.wants], s)
		}
	}
	if len(missing) == 0 {
		return nil, nil, nil, nil
	}
	byTenant, keys, asked = make(map[string][]string), make(map[string]string), make(map[string]*question)
	for key := range missing {
		tenant, ok := m.tenants.name(key)
		if !ok {
			continue
		}
		id := string(appendID(nil, key))
		byTenant[tenant] = append(byTenant[tenant], id)
		keys[tenant+"/"+id] = key
		// Before it is asked: the answer may come before Ask returns.
		if m.waits.asked[key] == nil {
			m.waits.asked[key] = &question{}
		}
		asked[key] = m.waits.asked[key]
	}
	return missing, byTenant, keys, asked
}

// resolve finds the device of a sighting among the known ones, and the answer or alert that it
// still has to wait for.
func (m *Memory) resolve(s *Sighting, now time.Time) {
	s.wants, s.until = "", time.Time{}
	if s.tenant == 0 {
		return
	}
	if !s.own {
		s.key, s.match, s.several = "", matchNone, nil
		m.guess(s)
	}
	wait := func(limit time.Time) {
		if now.Before(limit) && (s.until.IsZero() || limit.Before(s.until)) {
			s.until = limit
		}
	}
	if m.warms(s, now) {
		// The API is not asked for devices that are about to be read, and the other waits begin
		// afterwards.
		s.warms = true
		m.await(s, false)
		wait(m.waits.warm)
		return
	}
	if s.warms {
		s.warms, s.since = false, now
	}
	if s.key != "" && m.cfg.Ask != nil {
		s.wants = m.wanting(s)
	}
	if s.wants != "" && s.question != nil && !s.question.over {
		wait(s.since.Add(m.cfg.Wait))
	}
	limit := s.since.Add(min(m.cfg.Wait, alertWait))
	awaits := now.Before(limit) && m.lacksAlert(s)
	if m.await(s, awaits); awaits {
		wait(limit)
	}
}

// lacksAlert reports whether another row of its alert may tell the device or the title of a row.
func (m *Memory) lacksAlert(s *Sighting) bool {
	if len(s.alert) == 0 || len(s.alert) > maxAlertID {
		return false
	}
	hostless := !s.own && s.match != matchName && s.match != matchAlert && len(s.hosts) == 0
	if !hostless && !s.lacks {
		return false
	}
	al := m.alerts.get(s.tenant, s.alert)
	return hostless && (al == nil || !al.hosts.hasDevice()) || s.lacks && (al == nil || al.info == nil)
}

// await notes that the row of a sighting waits for its alert, or no longer does.
func (m *Memory) await(s *Sighting, waits bool) {
	if waits == (s.awaits != "") {
		return
	}
	if waits {
		s.awaits = string(m.alerts.keyOf(s.tenant, s.alert))
		m.waits.alerts[s.awaits]++
		return
	}
	if m.waits.alerts[s.awaits]--; m.waits.alerts[s.awaits] == 0 {
		delete(m.waits.alerts, s.awaits)
	}
	s.awaits = ""
}

// heard wakes the rows that wait for an alert: a row of it has come.
func (m *Memory) heard(tenant uint32, alert []byte) {
	if len(m.waits.alerts) == 0 {
		return
	}
	if key := m.alerts.keyOf(tenant, alert); key != nil && m.waits.alerts[string(key)] > 0 {
		m.waits.tell()
	}
}
