package device

import (
	"slices"
	"strings"
)

// A Saved is one device in a snapshot, its recent alerts, or an alert. An empty Groups takes it
// out.
type Saved struct {
	Key    string // tenant/id; alerts/tenant/id; alert/tenant/AlertId
	Groups []byte
}

// Every device that is saved begins with one of these; what begins otherwise is not read.
const (
	savedSeen = 1
	savedUsed = 2 // a record has asked for it

	// savedAlerts begins the recent alerts of a device. Their key begins with alertsKey.
	savedAlerts = 3
	alertsKey   = "alerts/"

	// savedAlert begins an alert. Its key begins with alertKey.
	savedAlert = 4
	alertKey   = "alert/"
)

// One part in waitingShare of the bytes for devices is for the keys of those that are gone and
// still in the snapshot.
const waitingShare = 16

// keyBytes returns the bytes that such a key takes.
func keyBytes(key string) int64 { return int64(len(key)) + 48 }

// Save calls write with up to n devices, recent alerts of devices, and alerts, that have changed
// since they were last saved. It returns whether there are more. The first call begins to take note
// of changes, so it must come before anything is learned that is to be saved. When write returns an
// error the same devices come again. write is called without a lock.
func (m *Memory) Save(n int, write func([]Saved) error) (more bool, err error) {
	m.mu.Lock()
	m.saving, m.recents.saving, m.alerts.saving = true, true, true
	room := n
	n = min(n, len(m.changed))
	taken := m.changed[:n:n]
	m.changed = m.changed[n:]
	saved := make([]Saved, 0, n)
	for _, key := range taken {
		tenant, _ := m.tenants.name(key)
		s := Saved{Key: tenant + "/" + string(appendID(nil, key))}
		if dev, ok := m.cache.peek(key); ok {
			dev.dirty = false
			s.Groups = m.appendSaved(nil, dev)
		} else {
			m.waiting = max(m.waiting-keyBytes(key), 0)
		}
		saved = append(saved, s)
	}
	if more = len(m.changed) > 0; !more {
		m.waiting = 0
	}
	alerts := m.recents.changed[:min(room-n, len(m.recents.changed))]
	m.recents.changed = slices.Clone(m.recents.changed[len(alerts):])
	for _, key := range alerts {
		if tenant, ok := m.tenants.name(key); ok {
			saved = append(saved, Saved{alertsKey + tenant + "/" + string(appendID(nil, key)), m.recents.appendSaved(nil, key)})
		}
	}
	named := m.alerts.changed[:min(room-n-len(alerts), len(m.alerts.changed))]
	m.alerts.changed = slices.Clone(m.alerts.changed[len(named):])
	for _, key := range named {
		if tenant, ok := m.tenants.name(key); ok {
			saved = append(saved, Saved{alertKey + tenant + "/" + key[tenantBytes:], m.alerts.appendSaved(nil, key)})
		}
	}
	more = more || len(m.recents.changed) > 0 || len(m.alerts.changed) > 0
	m.mu.Unlock()
	if len(saved) == 0 {
		return false, nil
	}
	err = write(saved)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range taken {
		dev, ok := m.cache.peek(key)
		switch {
		case err == nil, ok && dev.dirty: // or changed again meanwhile
			m.tenants.leave(key)
			continue
		case ok:
			dev.dirty = true
		default:
			m.waiting += keyBytes(key)
		}
		m.changed = append(m.changed, key)
	}
	for _, key := range alerts {
		switch h, ok := m.recents.cache.Peek(key); {
		case err == nil:
		case ok:
			m.recents.change(key, h)
		case len(m.recents.changed) < maxGone:
			m.recents.changed = append(m.recents.changed, key)
		}
	}
	for _, key := range named {
		switch al, ok := m.alerts.cache.Peek(key); {
		case err == nil:
		case ok:
			m.alerts.change(key, al)
		case len(m.alerts.changed) < maxGone:
			m.alerts.changed = append(m.alerts.changed, key)
		}
	}
	return more || err != nil, err
}

// Changed is how much Save has yet to write.
func (m *Memory) Changed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.changed) + len(m.recents.changed) + len(m.alerts.changed)
}

// appendSaved appends groups for a snapshot: the names of columns that columnNames does not list
// stand before them, because their ids are of this run.
//
//	saved: savedSeen or savedUsed (1), number of names (1), each id (1), length (1), name; then groups
func (m *Memory) appendSaved(dst []byte, dev *device) []byte {
	kind := byte(savedSeen)
	if dev.used {
		kind = savedUsed
	}
	dst = append(dst, kind, 0)
	at := len(dst) - 1
	for w := (walker{rest: dev.groups}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if int(c.id) >= len(columnNames) && c.id != columnFull {
			name := m.fields.names[c.id]
			dst[at]++
			dst = append(append(dst, byte(c.id), byte(len(name))), name...)
		}
	}
	return append(dst, dev.groups...)
}

// Restore takes a device from a snapshot. It reports false if it cannot be read or there is no
// room. The caller should then delete it there. Columns that are no longer wanted are left out.
func (m *Memory) Restore(key string, saved []byte) bool {
	tenantName, id, ok := strings.Cut(key, "/")
	if !ok || len(saved) < 2 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch saved[0] {
	case savedAlert:
		tenantName, id, _ = strings.Cut(id, "/")
		tenant := m.tenants.get([]byte(tenantName))
		return tenant != 0 && m.alerts.restore(tenant, []byte(id), saved[1:])
	case savedAlerts:
		tenantName, id, _ = strings.Cut(id, "/")
		devKey := appendKey(nil, m.tenants.get([]byte(tenantName)), []byte(id))
		return devKey != nil && tenantOf(string(devKey)) != 0 && m.recents.restore(string(devKey), saved[1:])
	case savedSeen, savedUsed:
	default:
		return false
	}
	var names [256]string
	rest := saved[2:]
	for range saved[1] {
		if len(rest) < 2 {
			return false
		}
		end := 2 + int(rest[1]) // may be 256 and more
		if len(rest) < end {
			return false
		}
		names[rest[0]] = string(rest[2:end])
		rest = rest[end:]
	}
	tenant := m.tenants.get([]byte(tenantName))
	if tenant == 0 || len(rest) == 0 || !validGroups(rest) {
		return false
	}
	devKey := appendKey(nil, tenant, []byte(id))
	if devKey == nil {
		return false
	}
	saving := m.saving
	m.saving = false // it is in the snapshot already
	defer func() { m.saving = saving }()
	used := saved[0] == savedUsed
	var columns []column
	var empty []columnID
	stamp := newest(rest)
	flush := func() {
		if len(columns) > 0 || empty != nil {
			m.put(devKey, stamp, columns, empty, used)
		}
		columns, empty = columns[:0], nil
	}
	m.stats.NewestReport = max(m.stats.NewestReport, factsOf(rest).full)
	for w := (walker{rest: rest}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if w.stamp != stamp {
			flush()
			stamp = w.stamp
		}
		switch {
		case c.id == columnFull:
			empty = listedOnly(c.value)
			continue
		case int(c.id) >= len(columnNames) || names[c.id] != "":
			if c.id = m.fields.field([]byte(names[c.id])).id; c.id == columnNone {
				continue
			}
		case !m.stores(c.id):
			continue
		}
		columns = append(columns, c)
	}
	flush()
	if used {
		_, ok = m.use(string(devKey))
	} else {
		_, ok = m.cache.peek(string(devKey))
	}
	return ok
}

// listedOnly are the ids in a value of columnFull without those of another run; never nil.
func listedOnly(value []byte) []columnID {
	kept := make([]columnID, 0, len(value))
	for _, id := range emptyOf(value) {
		if int(id) < len(columnNames) {
			kept = append(kept, columnID(id))
		}
	}
	return kept
}
