package device

import (
	"encoding/binary"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/tinylib/msgp/msgp"
)

// alerts: recent alerts, with the devices that each is about and what AlertInfo said of it. It is
// used under the lock of Memory and bounded in bytes. The least recently used give way.
type alerts struct {
	cache *simplelru.LRU[string, *alert]
	bytes int64
	limit int64
	key   []byte

	tenants *tenants

	unsaved
}

// An alert is one AlertId of a tenant.
type alert struct {
	hosts, leaders hosts
	info           []byte // groups of columns, as of a device; nil if no AlertInfo was seen
	dirty          bool   // its key is in changed
}

// maxHosts is how many devices of an alert are kept. Six show that there are several, and five of
// them can be listed.
const maxHosts = 6

// hosts is a set of devices, by their keys. Among them are hosts of which only the name is known.
type hosts []string

// kindName is the kind of a key that is the name of a host. It is above those of ids, so that names
// give way to ids.
const kindName = 'z'

// appendNameKey appends the key of a host of which only the name is known, or nothing for a name
// that tells none.
func appendNameKey(dst []byte, tenant uint32, name []byte) []byte {
	name = wholeName(name)
	if len(name) > maxDeviceID || isNoName(name) || isAddress(name) {
		return nil
	}
	return append(append(appendTenant(dst, tenant), kindName), lowered(name)...)
}

func isNameKey(key string) bool { return key[tenantBytes] == kindName }

// hasDevice reports whether the id of a host is known.
func (h hosts) hasDevice() bool {
	return slices.ContainsFunc(h, func(key string) bool { return !isNameKey(key) })
}

// add reports how many bytes it took, and whether the set has changed.
func (h *hosts) add(key []byte) (int64, bool) {
	if slices.Contains(*h, record.View(key)) {
		return 0, false
	}
	if len(*h) == maxHosts {
		// The lowest ids stay: the same in any order of arrival.
		last := slices.Index(*h, slices.Max(*h))
		gone := (*h)[last]
		if string(key) >= gone {
			return 0, false
		}
		(*h)[last] = string(key)
		return int64(len(key) - len(gone)), true
	}
	before := cap(*h)
	*h = append(*h, string(key))
	return int64(len(key)) + 16*int64(cap(*h)-before), true
}

func (h hosts) bytes() (n int64) {
	for _, key := range h {
		n += int64(len(key))
	}
	return n + 16*int64(cap(h))
}

// alertOverhead is as overhead.
const (
	alertOverhead = 240
	maxAlertID    = 256
)

func newAlerts(limit int64, ts *tenants) alerts {
	a := alerts{limit: limit, tenants: ts}
	a.cache, _ = simplelru.NewLRU[string, *alert](math.MaxInt, nil)
	return a
}

// keyOf returns the key of an alert, or nil if there is no id or it is too long. It is valid until
// the next.
func (a *alerts) keyOf(tenant uint32, id []byte) []byte {
	if len(id) == 0 || len(id) > maxAlertID {
		return nil
	}
	a.key = append(appendTenant(a.key[:0], tenant), id...)
	return a.key
}

// get returns an alert, or nil.
func (a *alerts) get(tenant uint32, id []byte) *alert {
	key := a.keyOf(tenant, id)
	if key == nil {
		return nil
	}
	al, _ := a.cache.Get(record.View(key))
	return al
}

// make returns an alert, a new one if need be, or nil if it has no id.
func (a *alerts) make(tenant uint32, id []byte) *alert {
	if al := a.get(tenant, id); al != nil {
		return al
	}
	key := a.keyOf(tenant, id)
	if key == nil {
		return nil
	}
	al := &alert{}
	a.cache.Add(string(key), al)
	a.tenants.refer(record.View(key))
	a.grow(alertOverhead + int64(len(key)))
	return al
}

// grow counts bytes and makes room for them.
func (a *alerts) grow(n int64) {
	a.bytes += n
	for a.bytes > a.limit && a.cache.Len() > 1 {
		key, al, _ := a.cache.RemoveOldest()
		a.left(key, al)
	}
}

// left counts a removed alert. It is to go from the snapshot, too.
func (a *alerts) left(key string, al *alert) {
	a.bytes -= alertOverhead + int64(len(key)+cap(al.info)) + al.hosts.bytes() + al.leaders.bytes()
	a.change(key, al)
	a.tenants.leave(key)
}

// change notes that an alert is to be written into the next snapshot.
func (a *alerts) change(key string, al *alert) {
	a.mark(key, &al.dirty, a.cache.Len(), a.cache.Contains)
}

// names notes that evidence of an alert names a device, and whether as the leading one. It reports
// whether that makes a difference.
func (a *alerts) names(al *alert, device []byte, leading bool) (changed bool) {
	n, changed := al.hosts.add(device)
	if leading {
		more, too := al.leaders.add(device)
		n, changed = n+more, changed || too
	}
	if n != 0 {
		a.grow(n)
	}
	return changed
}

// deviceOf returns the key of the one device that an alert is about: the leading host, else the
// only one. Devices that were merged into one are one. If there are several, none is guessed: then
// key is "", and several has their keys. For a row that names its host only devices of that name
// count.
func (m *Memory) deviceOf(al *alert, name string, at int64) (key string, several []string) {
	hosts := al.leaders
	if len(hosts) == 0 || name != "" {
		hosts = al.hosts
	}
	if name == "" {
		return m.oneHost(hosts, at)
	}
	var named []string
	for _, whole := range [...]bool{true, false} {
		for _, key := range hosts {
			if m.isNamed(key, name, whole) {
				named = append(named, key)
			}
		}
		if len(named) > 0 && strings.Contains(name, ".") {
			break // those without a domain are less sure
		}
	}
	return m.oneOf(named)
}

// oneHost returns the one device of an alert, or several. A host of which rows tell the name alone
// is a device of that name; where that is not known, it may be another one.
func (m *Memory) oneHost(hosts hosts, at int64) (key string, several []string) {
	if !slices.ContainsFunc(hosts, isNameKey) {
		return m.oneOf(hosts)
	}
	var devices, names []string
	for _, key := range hosts {
		if isNameKey(key) {
			names = append(names, key)
		} else {
			devices = append(devices, key)
		}
	}
	if key, several = m.oneOf(devices); key != "" {
		several = []string{key}
	}
	strange := false
	for _, other := range names {
		name := other[tenantBytes+1:]
		if slices.ContainsFunc(several, func(key string) bool { return m.isNamed(key, name, false) }) {
			continue
		}
		if key, _ := m.named(tenantOf(other), name, at); key == "" {
			strange = true
		} else if !slices.Contains(several, key) {
			several = append(several, key)
		}
	}
	if len(several) == 1 && !strange {
		return several[0], nil
	}
	slices.Sort(several)
	return "", several[:min(len(several), maxHosts)]
}

// oneOf returns the one device that keys are of, or several. Devices that were merged into one are
// one.
func (m *Memory) oneOf(keys []string) (key string, several []string) {
	several = m.merged(nil, keys)
	if len(several) == 1 {
		return several[0], nil
	}
	slices.Sort(several) // not in the order in which they came
	return "", several
}

// merged appends the keys of the devices that those of keys were merged into, each once.
func (m *Memory) merged(dst, keys []string) []string {
	for _, key := range keys {
		if dev, at, _ := m.find(key, false); dev != nil {
			key = at
		}
		if !slices.Contains(dst, key) {
			dst = append(dst, key)
		}
	}
	return dst
}

// names notes that evidence of an alert names a device, and whether as the leading one.
func (m *Memory) names(tenant uint32, alert, key []byte, leading bool) {
	al := m.alerts.make(tenant, alert)
	if al == nil {
		return
	}
	if len(al.hosts) == maxHosts && !slices.Contains(al.hosts, record.View(key)) {
		// Those that were merged into one take one place.
		m.alerts.grow(-al.hosts.bytes())
		before := al.hosts
		al.hosts = m.merged(before[:0], before)
		clear(before[len(al.hosts):])
		m.alerts.grow(al.hosts.bytes())
	}
	if m.alerts.names(al, key, leading) && m.alerts.saving && !al.dirty {
		m.alerts.change(record.View(m.alerts.keyOf(tenant, alert)), al)
	}
	m.heard(tenant, alert)
}

// severity is that of a row of evidence, else that of the AlertInfo of its alert.
func (m *Memory) severity(r *record.Record, tenant uint32, alert []byte) severity {
	if s := severityOf(stringAt(&r.Columns, r.Props, "Severity")); s > 0 {
		return s
	}
	al := m.alerts.get(tenant, alert)
	if al == nil {
		return 0
	}
	for w := (walker{rest: al.info}); ; {
		c, ok := w.next()
		if !ok {
			return 0
		}
		if c.id == alertSeverity {
			text, _, _ := msgp.ReadStringZC(c.value)
			return severityOf(text)
		}
	}
}

// alertColumns are the columns that AlertEvidence repeats from AlertInfo, in records since 2023.
var alertColumns = [...]string{"Title", "Severity", "ServiceSource", "DetectionSource", "AttackTechniques", "Categories"}

// IsAlertColumn reports whether rows of evidence may get a column of this name from the AlertInfo
// of their alert.
func IsAlertColumn(name string) bool { return slices.Contains(alertColumns[:], name) }

const alertSeverity columnID = 1

// alertCategories is where the one Category of AlertInfo goes: evidence has a list of them.
const alertCategories columnID = 5

// inform takes what AlertInfo says of an alert.
func (m *Memory) inform(r *record.Record, tenant uint32) {
	tr := &r.Columns
	id, _ := alertID(r)
	al := m.alerts.make(tenant, id)
	if al == nil {
		return
	}
	if s := severityOf(stringAt(tr, r.Props, "Severity")); s > 0 {
		at := m.stamp(r)
		for _, key := range al.hosts {
			if isNameKey(key) {
				if key, _ = m.named(tenant, key[tenantBytes+1:], at); key == "" {
					continue
				}
			}
			dev, _ := m.cache.peek(key)
			m.noteAlert([]byte(key), dev, id, at, s)
		}
	}
	l := m.learner
	l.begin()
	for i, name := range alertColumns {
		if n := tr.Find(r.Props, name); n != 0 {
			l.add(columnID(i), record.ClassOf(name), r, n)
		}
	}
	if n := tr.Find(r.Props, "Category"); n != 0 && tr.Nodes[n].Kind == record.KindString {
		l.addList(alertCategories, tr, n)
	}
	merged, changed := m.merger.merge(al.info, m.stamp(r), l.end(), nil)
	if changed {
		before := cap(al.info)
		al.info = append(al.info[:0], merged...)
		m.alerts.grow(int64(cap(al.info) - before))
		m.alerts.change(record.View(m.alerts.keyOf(tenant, id)), al)
	}
	l.release()
}

// noteAlert notes evidence of an alert at a time, on the device that it names. dev is nil if that
// is not known.
func (m *Memory) noteAlert(key []byte, dev *device, alert []byte, at int64, s severity) {
	of := record.View(key)
	if dev != nil && dev.merged {
		if target, final, _ := m.find(of, false); target != nil {
			m.recents.move(of, final)
			of = final
		}
	}
	m.recents.note(of, alert, at, s)
}

// appendSaved appends an alert for a snapshot, and nothing if it is gone.
//
//	saved: savedAlert, number of devices (1), each: 1 for a host, 2 for a leader, 3 for both, 4 for
//	the name of a host (1), length of its id (2, big endian), id; then info
func (a *alerts) appendSaved(dst []byte, key string) []byte {
	al, ok := a.cache.Peek(key)
	if !ok {
		return dst
	}
	al.dirty = false
	dst = append(dst, savedAlert, 0)
	count := len(dst) - 1
	add := func(kind byte, host string) {
		dst[count]++
		from := len(dst)
		dst = appendID(append(dst, kind, 0, 0), host)
		binary.BigEndian.PutUint16(dst[from+1:], uint16(len(dst)-from-3))
	}
	for _, host := range al.hosts {
		kind := byte(1)
		if slices.Contains(al.leaders, host) {
			kind = 3
		} else if isNameKey(host) {
			kind = 4
		}
		add(kind, host)
	}
	for _, host := range al.leaders {
		if !slices.Contains(al.hosts, host) {
			add(2, host)
		}
	}
	return append(dst, al.info...)
}

// restore takes an alert from a snapshot. It reports false if it cannot be read, or there is no
// room.
func (a *alerts) restore(tenant uint32, id, saved []byte) bool {
	if len(saved) == 0 {
		return false
	}
	count, rest := saved[0], saved[1:]
	var kinds []byte
	var devices [][]byte
	for range count {
		if len(rest) < 3 {
			return false
		}
		end := 3 + int(binary.BigEndian.Uint16(rest[1:]))
		if len(rest) < end {
			return false
		}
		device := appendKey(nil, tenant, rest[3:end])
		if rest[0] == 4 {
			device = appendNameKey(nil, tenant, rest[3:end])
		}
		if device == nil {
			return false
		}
		kinds, devices = append(kinds, rest[0]), append(devices, device)
		rest = rest[end:]
	}
	if !validGroups(rest) {
		return false
	}
	for w := (walker{rest: rest}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if int(c.id) >= len(alertColumns) {
			return false
		}
	}
	saving, limit, known := a.saving, a.limit, a.get(tenant, id) != nil
	a.saving, a.limit = false, math.MaxInt64 // it is in the snapshot already, and no other gives way to it
	defer func() { a.saving, a.limit = saving, limit }()
	al := a.make(tenant, id)
	if al == nil {
		return false
	}
	for i, device := range devices {
		var n, more int64
		if kinds[i] != 2 {
			n, _ = al.hosts.add(device)
		}
		if kinds[i]&2 != 0 {
			more, _ = al.leaders.add(device)
		}
		a.grow(n + more)
	}
	if len(rest) > 0 && al.info == nil {
		al.info = slices.Clip(slices.Clone(rest))
		a.grow(int64(cap(al.info)))
	}
	if key := string(a.keyOf(tenant, id)); !known && a.bytes > limit {
		a.cache.Remove(key)
		a.left(key, al)
		return false
	}
	return true
}
