package device

import "strings"

// A Saved is one device in a snapshot. An empty Groups takes the device out.
type Saved struct {
	Key    string // tenant/id
	Groups []byte
}

// snapshotVersion begins every device that is saved; what begins otherwise is not read.
const snapshotVersion = 1

// maxChanged bounds the keys that wait for a snapshot which nobody takes. Beyond it, evicted devices stay in the file until
// the next start, when they are read and have to find room again.
const maxChanged = 1 << 20

// Save calls write with up to n devices that have changed since they were last saved, and returns whether there are more. The
// first call begins to take note of changes, so it must come before anything is learned that is to be saved. When
// write returns an error the same devices come again. write is called without a lock.
func (m *Memory) Save(n int, write func([]Saved) error) (more bool, err error) {
	m.mu.Lock()
	m.saving = true
	n = min(n, len(m.changed))
	taken := m.changed[:n:n]
	m.changed = m.changed[n:]
	saved := make([]Saved, 0, n)
	for _, key := range taken {
		s := Saved{Key: m.tenantOf(key) + "/" + string(appendID(nil, key))}
		if dev, ok := m.cache.Peek(key); ok {
			dev.dirty = false
			s.Groups = m.appendSaved(nil, dev.groups)
		}
		saved = append(saved, s)
	}
	more = len(m.changed) > 0
	m.mu.Unlock()
	if len(saved) == 0 {
		return false, nil
	}
	if err := write(saved); err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, key := range taken {
			dev, ok := m.cache.Peek(key)
			if ok && dev.dirty {
				continue // changed again meanwhile
			}
			if ok {
				dev.dirty = true
			}
			m.changed = append(m.changed, key)
		}
		return true, err
	}
	return more, nil
}

// appendSaved appends groups for a snapshot: the names of columns that columnNames does not list stand before them, because their ids
// are of this run.
//
//	saved: version (1), number of names (1), each id (1), length (1), name; then groups
func (m *Memory) appendSaved(dst, groups []byte) []byte {
	dst = append(dst, snapshotVersion, 0)
	at := len(dst) - 1
	for w := (walker{rest: groups}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if int(c.id) >= len(columnNames) {
			name := m.fields.names[c.id]
			dst[at]++
			dst = append(append(dst, byte(c.id), byte(len(name))), name...)
		}
	}
	return append(dst, groups...)
}

// Restore takes a device from a snapshot, and reports false if it cannot be read or there is no room: it should then be
// deleted there. Columns that are no longer wanted are left out.
func (m *Memory) Restore(key string, saved []byte) bool {
	tenantName, id, ok := strings.Cut(key, "/")
	if !ok || len(saved) < 2 || saved[0] != snapshotVersion {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var names [256]string
	rest := saved[2:]
	for range saved[1] {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false
		}
		names[rest[0]] = string(rest[2 : 2+rest[1]])
		rest = rest[2+rest[1]:]
	}
	tenant, ok := m.tenant([]byte(tenantName))
	if !ok || len(rest) == 0 || !validGroups(rest) {
		return false
	}
	devKey := appendKey(nil, tenant, []byte(id))
	if devKey == nil {
		return false
	}
	saving := m.saving
	m.saving = false // it is in the snapshot as it is
	defer func() { m.saving = saving }()
	var columns []column
	stamp := newest(rest)
	flush := func() {
		if len(columns) > 0 {
			m.put(devKey, stamp, columns, false)
		}
		columns = columns[:0]
	}
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
		case int(c.id) >= len(columnNames):
			if c.id = m.fields.field([]byte(names[c.id])).id; c.id == columnNone {
				continue
			}
		case c.id != columnMergedTo && m.fields.names[c.id] == "":
			continue
		}
		columns = append(columns, c)
	}
	flush()
	_, ok = m.cache.Peek(string(devKey))
	return ok
}
