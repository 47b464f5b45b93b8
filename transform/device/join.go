package device

import (
	"context"
	"strings"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Status tells how much is known of the device of a record.
type Status uint8

const (
	statusNone    Status = iota // the record has no device
	statusHit                   // known
	statusStale                 // known, but from reports older than device_info.ttl
	statusUnknown               // nothing is known of it, and nobody to ask knows more
	statusPending               // asked for, and the answer is still to come
)

var statusNames = [...]string{"none", "hit", "stale", "unknown", "pending"}

// Role is the part that the records of a table have in finding devices.
type Role uint8

// The roles.
const (
	RoleNone     Role = iota
	RoleReport        // DeviceInfo: says what a device is
	RoleAlert         // AlertInfo: says what an alert is
	RoleEvidence      // AlertEvidence: names the devices of an alert
	RoleBehavior      // BehaviorEntities: names those of a behavior
)

// RoleOf is the role of a table of Advanced Hunting.
func RoleOf(table string) Role {
	switch table {
	case "DeviceInfo":
		return RoleReport
	case "AlertInfo":
		return RoleAlert
	case "AlertEvidence":
		return RoleEvidence
	case "BehaviorEntities":
		return RoleBehavior
	}
	return RoleNone
}

// A Sighting is a device that a record names, or whose place is to be filled.
type Sighting struct {
	tenant  uint32 // 0 if it is none
	key     string // of the device, or ""
	match   Match
	pending bool
	alert   []byte // the AlertId, in the text of the payload
	at      int64  // time of the event, in nanoseconds
	lacks   bool   // an AlertEvidence without a title
}

// A Joiner is the way of one Transformer to the memory. It is not safe for concurrent use.
type Joiner struct {
	memory  *Memory
	scanner *record.Scanner
	number  int
	ctx     context.Context // of the call
	left    time.Duration   // that it may still wait
	text    []byte
	values  []byte // of the device that Describe returned
	device  event.Device
}

// NewJoiner returns a Joiner, which scans with s.
func (m *Memory) NewJoiner(s *record.Scanner) *Joiner {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joiners++
	return &Joiner{memory: m, scanner: s, number: m.joiners}
}

// Wants reports whether the records of a table get a device.
func (j *Joiner) Wants(table string) bool { return j.memory.tables[strings.ToLower(table)] }

// Begin begins a call of Append. What waits in it ends with ctx.
func (j *Joiner) Begin(ctx context.Context) { j.ctx, j.left = ctx, j.memory.cfg.Wait }

// End ends a call of Append.
func (j *Joiner) End() {
	j.ctx = nil
	if cap(j.values) > record.KeepBytes {
		j.values = nil
		clear(j.device.Columns[:cap(j.device.Columns)])
	}
	if cap(j.text) > record.KeepBytes {
		j.text = nil
	}
}

// Observe learns from a record. s, which is nil for a record that gets no device, then points into the
// record's text.
func (j *Joiner) Observe(r *record.Record, role Role, s *Sighting) {
	m := j.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learner.scanner.MaxNodes = j.scanner.MaxNodes
	j.text = r.AppendTenant(j.text[:0])
	tenant := m.tenants.get(j.text)
	if tenant != 0 && role == RoleReport {
		m.report(r, tenant, true)
	}
	if tenant != 0 && role == RoleAlert {
		m.inform(r, tenant)
		m.informs[j.number] = m.now()
		if m.news != nil {
			close(m.news)
			m.news = nil
		}
	}
	if s == nil && role != RoleEvidence && role != RoleBehavior {
		return
	}
	alert := alertID(r)
	h := findHost(j.scanner, r)
	var key []byte
	if tenant != 0 && h.match != matchNone {
		j.text, _ = record.AppendText(j.text[:0], h.id)
		if key = appendKey(m.reportKey[:0], tenant, j.text); key != nil {
			m.reportKey = key
			if al := m.alerts.make(tenant, alert); al != nil {
				m.alerts.names(al, key, h.leading)
			}
			m.witness(r, &h, key)
		}
	}
	if s == nil {
		return
	}
	*s = Sighting{tenant: tenant, alert: alert, at: r.Nanos(m.now().UnixNano())}
	if role == RoleEvidence && len(alert) > 0 {
		n := r.Columns.Find(r.Props, "Title")
		s.lacks = n == 0 || r.Columns.Nothing(n)
	}
	if key != nil {
		s.match = h.match
		if dev, ok := m.cache.Peek(record.View(key)); ok {
			s.key = dev.key
		} else {
			s.key = string(key)
		}
	}
}

// alertID is the AlertId, or for behaviors the BehaviorId, of a row.
func alertID(r *record.Record) []byte {
	for _, name := range [...]string{"AlertId", "BehaviorId"} {
		if n := r.Columns.Find(r.Props, name); n != 0 && r.Columns.Nodes[n].Kind == record.KindString {
			return r.Columns.Inner(n)
		}
	}
	return nil
}

// Resolve gives sightings the device of their alert where they have none, asks for all that are missing,
// once, and waits for the answers, and for the AlertInfo of rows without a title.
func (j *Joiner) Resolve(sightings []*Sighting) {
	j.ask(sightings)
	j.awaitAlerts(sightings)
}

func (j *Joiner) ask(sightings []*Sighting) {
	m := j.memory
	var missing map[string]bool // keys
	m.mu.Lock()
	for _, s := range sightings {
		if s.match == matchNone && s.tenant != 0 {
			if al := m.alerts.get(s.tenant, s.alert); al != nil {
				if key, ok := al.device(); ok {
					s.key, s.match = key, matchAlert
				}
			}
		}
		if s.key == "" || m.cfg.Lookup == nil {
			continue
		}
		if want := m.wanting(s); want != "" && !missing[want] {
			if missing == nil {
				missing = make(map[string]bool)
			}
			missing[strings.Clone(want)] = true
		}
	}
	byTenant := make(map[string][]string)
	for key := range missing {
		if tenant, ok := m.tenants.name(key); ok {
			byTenant[tenant] = append(byTenant[tenant], string(appendID(nil, key)))
		}
	}
	m.mu.Unlock()
	if len(missing) == 0 {
		return
	}

	start := time.Now()
	ctx, cancel := context.WithTimeout(j.ctx, j.left)
	defer cancel()
	pending := make(map[string]bool)
	for tenant, ids := range byTenant {
		for _, id := range m.cfg.Lookup(ctx, tenant, ids) {
			pending[tenant+"/"+strings.ToLower(id)] = true
		}
	}
	j.left -= min(j.left, time.Since(start))
	if len(pending) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range sightings {
		if s.key == "" {
			continue
		}
		if want := m.wanting(s); want != "" {
			tenant, _ := m.tenants.name(want)
			s.pending = pending[tenant+"/"+string(appendID(nil, want))]
		}
	}
}

// awaitAlerts waits for the AlertInfo of rows that do not repeat it, as those before 2023, if another
// Transformer reads AlertInfo, so that it may be about to come. It waits no longer than this call still may.
func (j *Joiner) awaitAlerts(sightings []*Sighting) {
	news := j.news(sightings)
	if news == nil || j.left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(j.ctx, j.left)
	defer cancel()
	start := time.Now()
	for news != nil && ctx.Err() == nil {
		select {
		case <-news:
		case <-ctx.Done():
		}
		news = j.news(sightings)
	}
	j.left -= min(j.left, time.Since(start))
}

// news is closed when another Transformer has had an AlertInfo. It is nil if there is nothing to wait for.
func (j *Joiner) news(sightings []*Sighting) chan struct{} {
	m := j.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	expected := false
	for at, last := range m.informs {
		expected = expected || at != j.number && m.now().Sub(last) < informsFor
	}
	if !expected || !m.lacksAlert(sightings) {
		return nil
	}
	if m.news == nil {
		m.news = make(chan struct{})
	}
	return m.news
}

// informsFor is how long after its last AlertInfo a Transformer is still expected to have another.
const informsFor = 10 * time.Minute

// lacksAlert reports whether a row has no title, and nothing is known of its alert.
func (m *Memory) lacksAlert(sightings []*Sighting) bool {
	for _, s := range sightings {
		if s.tenant == 0 || !s.lacks {
			continue
		}
		if al := m.alerts.get(s.tenant, s.alert); al == nil || al.info == nil {
			return true
		}
	}
	return false
}

// wanting is the key of the device that should be asked for, or "": one of which nothing or too little is known.
func (m *Memory) wanting(s *Sighting) string {
	dev, at, missing := m.find(s.key, true)
	switch {
	case missing != "":
		return missing
	case isEvidence(dev.groups), m.stale(dev, s):
		return at
	}
	return ""
}

// stale reports whether what is known of a device is too old for an event.
func (m *Memory) stale(dev *device, s *Sighting) bool {
	last := newest(dev.groups)
	return m.cfg.TTL > 0 && last > 0 && s.at-last > int64(m.cfg.TTL)
}

// Describe returns what is to be written of the device of a sighting of the record r. It is valid until
// the next.
func (j *Joiner) Describe(r *record.Record, role Role, s *Sighting) *event.Device {
	m, d := j.memory, &j.device
	*d = event.Device{Columns: d.Columns[:0], Alert: d.Alert[:0]}
	j.values = j.values[:0]
	m.mu.Lock()
	defer m.mu.Unlock()
	st := statusNone
	if s.key != "" {
		st = j.describe(s)
		d.Match = matchNames[s.match]
		m.matched[s.match]++
	}
	d.Status = statusNames[st]
	m.found[st]++
	if s.tenant == 0 || role == RoleAlert {
		return d
	}
	if al := m.alerts.get(s.tenant, s.alert); al != nil && al.info != nil {
		j.describeAlert(r, al)
	}
	return d
}

func (j *Joiner) describe(s *Sighting) Status {
	m, d := j.memory, &j.device
	dev, at, _ := m.find(s.key, true)
	if dev == nil {
		at = s.key
	}
	j.text = appendID(j.text[:0], at)
	d.ID = j.text
	if dev == nil {
		if s.pending {
			return statusPending
		}
		return statusUnknown
	}
	j.values = append(j.values, dev.groups...) // the memory's own may change once it is unlocked
	for w := (walker{rest: j.values}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if name := m.fields.names[c.id]; name != "" {
			d.Columns = append(d.Columns, event.Column{Name: name, ID: int(c.id), Value: c.value})
		}
	}
	switch {
	case m.stale(dev, s):
		return statusStale
	case s.pending && isEvidence(dev.groups):
		return statusPending
	}
	return statusHit
}

// describeAlert takes what the row does not say and the AlertInfo of its alert does.
func (j *Joiner) describeAlert(r *record.Record, al *alert) {
	from := len(j.values)
	// A copy of what Columns point into stays where it is: append may move the rest only.
	j.values = append(j.values, al.info...)
	for w := (walker{rest: j.values[from:]}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		name := alertColumns[c.id]
		if n := r.Columns.Find(r.Props, name); n != 0 && !nothingInside(&r.Columns, n) {
			continue
		}
		j.device.Alert = append(j.device.Alert, event.Column{Name: name, ID: int(c.id), Value: c.value})
	}
	if len(j.device.Alert) > 0 {
		j.memory.stats.AlertsFilled++
	}
}

// nothingInside reports whether a column says nothing, also when it does so as JSON in a string.
func nothingInside(tr *record.Tree, n uint32) bool {
	if tr.Nothing(n) {
		return true
	}
	if tr.Nodes[n].Kind != record.KindString {
		return false
	}
	switch string(tr.Inner(n)) {
	case "[]", "{}", "null":
		return true
	}
	return false
}

// Platform returns the OSPlatform, else the OSFamily, of the device that a record's DeviceId names, as far as it is known: it
// asks nobody, waits for nothing and counts nothing. It is valid until the next call of a method.
func (j *Joiner) Platform(r *record.Record) []byte {
	if !r.Lifted {
		return nil
	}
	n := r.Columns.Find(r.Props, "DeviceId")
	if n == 0 || r.Columns.Nodes[n].Kind != record.KindString {
		return nil
	}
	m := j.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	j.text = r.AppendTenant(j.text[:0])
	tenant := m.tenants.byName[string(j.text)]
	if tenant == nil {
		return nil
	}
	j.text, _ = record.AppendText(j.text[:0], r.Columns.Inner(n))
	key := appendKey(m.reportKey[:0], tenant.number, j.text)
	if key == nil {
		return nil
	}
	m.reportKey = key
	dev, _, _ := m.find(record.View(key), false)
	if dev == nil {
		return nil
	}
	j.text = j.text[:0]
	for w := (walker{rest: dev.groups}); ; {
		c, ok := w.next()
		if !ok {
			return j.text
		}
		name := m.fields.names[c.id]
		if name != "OSPlatform" && (name != "OSFamily" || len(j.text) > 0) {
			continue
		}
		if text, _, err := msgp.ReadStringZC(c.value); err == nil {
			j.text = append(j.text[:0], text...)
		}
		if name == "OSPlatform" {
			return j.text
		}
	}
}
