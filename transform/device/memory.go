package device

import (
	"bytes"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is the choices of the user.
type Config struct {
	Tables       []string      // whose rows get the device; patterns may be among them
	Fields       []string      // columns of DeviceInfo to add; * for all
	CacheBytes   int64         // for devices and alerts together
	TTL          time.Duration // older information is stale; 0 for never
	Wait         time.Duration // the longest that a row waits for its device; 0 for never
	ByUser       bool          // rows with an account and no device get the one device that it is logged on to
	Portal       string        // the beginning of links to the portal; "" for none
	Separator    string        // between the names of nested objects in lists
	ArraysAsJSON bool          // write lists as JSON text

	// Ask asks for devices of tenant and does not wait. Answered is called for each of coming; the
	// answer itself goes to Learn before. For left no answer comes within wait; for the other ids
	// there is nothing to learn. nil if there is nobody to ask.
	Ask func(tenant string, ids []string, wait time.Duration) (coming, left []string)
}

// Memory has the known devices and recent alerts. All Transformers of an instance share one. It may
// be used from several goroutines.
//
// A device is kept under its tenant and id, as the encoded values of its columns and the time of
// each. So a hit is a look-up and a copy. Memory is bounded in bytes, and devices that no record
// has asked for give way first. So the hourly reports of a large tenant do not push out the devices
// that alerts are about.
type Memory struct {
	cfg    Config
	fields fieldSet
	now    func() time.Time

	mu         sync.Mutex // covers all below; never held while waiting
	cache      cache
	limit      int64
	alerts     alerts
	recents    *recents
	byName     *nameTable
	byResource *nameTable
	byUser     *nameTable // nil if that is off
	waits      waits
	tenants    *tenants // by the number that the keys of devices and alerts begin with
	learner    *learner
	witnessed  int // columns that are kept and that evidence has
	merger     merger
	key        []byte   // scratch of find
	reportKey  []byte   // scratch of report
	idText     []byte   // scratch of keyOf
	changed    []string // keys of devices to write into the next snapshot
	waiting    int64    // bytes of those in changed whose device is gone
	saving     bool     // snapshots are taken
	stats      Stats
	found      [len(Statuses)]int64
	matched    [len(matchNames)]int64
}

// Stats counts since the start.
type Stats struct {
	Devices, Bytes, Alerts, AlertBytes int64 // held now
	Evicted                            int64
	NewestReport                       int64            // time of the newest full report, in nanoseconds; 0 without one
	Learned                            int64            // reports of devices merged in
	Status, Match                      map[string]int64 // records, by DeviceInfo.status and DeviceInfo.match
	AlertsFilled                       int64            // rows that got columns from AlertInfo
}

// A device: groups of columns, see merger.
type device struct {
	key    string
	groups []byte
	dirty  bool // its key is in changed
	used   bool // in the cache's list of that name

	// Read from groups whenever those change, see digest.
	merged   bool // it says that it was merged into another one
	reported bool // facts.reported
	told     bool // evidence tells nothing of it that is not there
}

const (
	// Bytes of golang-lru's list entry, its map slot and the headers, beside key and groups.
	// Measured by BenchmarkMillionDevices.
	overhead    = 200
	maxDeviceID = 256
	maxMerges   = 16 // hops along MergedToDeviceId
	alertShare  = 8  // one part in so many of the bytes is for alerts
)

// New returns an empty memory.
func New(cfg Config) *Memory {
	m := &Memory{cfg: cfg, now: time.Now, tenants: newTenants(), waits: newWaits()}
	m.fields = newFields(cfg.Fields, cfg.ByUser)
	for id := columnDeviceName; id <= columnGroup; id++ {
		if m.stores(id) {
			m.witnessed++
		}
	}
	m.limit = cfg.CacheBytes - cfg.CacheBytes/alertShare
	m.cache = newCache(m.limit)
	m.alerts = newAlerts(cfg.CacheBytes/alertShare*3/4, m.tenants)
	m.recents = newRecents(cfg.CacheBytes / alertShare / 4)
	m.byName, m.byResource = newNameTable(hostNames), newNameTable(resourceNames)
	if cfg.ByUser {
		m.byUser = newNameTable(userNames)
	}
	m.learner = newLearner(cfg.Separator, cfg.ArraysAsJSON)
	return m
}

// Stats returns a copy of the counts.
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Devices, s.Bytes = int64(m.cache.len()), m.cache.bytes+m.tenants.bytes
	s.Alerts, s.AlertBytes = int64(m.alerts.cache.Len()), m.alerts.bytes+m.recents.bytes
	s.Status, s.Match = make(map[string]int64), make(map[string]int64)
	for i, n := range m.found {
		s.Status[Statuses[i]] = n
	}
	for i, n := range m.matched {
		if matchNames[i] != "" {
			s.Match[matchNames[i]] = n
		}
	}
	return s
}

// Columns returns the names that may be written of a device, without columns that come up later.
func (m *Memory) Columns() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Clone(ourNames)
	for _, name := range m.fields.names {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// appendKey appends the key of a device. Ids are compared in lower case. Hexadecimal ones take half
// their length; all known ids of Defender are such. id is text, its escapes resolved. It returns
// nil for text that is no id.
func appendKey(dst []byte, tenant uint32, id []byte) []byte {
	id = bytes.TrimSpace(id)
	if len(id) > maxDeviceID || isNoID(id) {
		return nil
	}
	dst = appendTenant(dst, tenant)
	packed := len(id)%2 == 0
	for _, c := range id {
		packed = packed && record.HexDigit(c) >= 0
	}
	if packed {
		dst = append(dst, 'x')
		for i := 0; i < len(id); i += 2 {
			dst = append(dst, byte(record.HexDigit(id[i])<<4|record.HexDigit(id[i+1])))
		}
		return dst
	}
	dst = append(dst, 't')
	for _, c := range id {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// isNoID reports whether a text in the place of an id is none: blank, null, none, N/A, -, zeros in
// any form.
func isNoID(text []byte) bool {
	text = bytes.TrimSpace(text)
	if len(text) > 1 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') {
		text = text[2:]
	}
	zeros := true
	for _, c := range text {
		zeros = zeros && (c == '0' || c == '-' || c == '{' || c == '}' || c == ':' || c == '.')
	}
	return zeros || isOneOf(text, "null", "(null)", "none", "n/a", "na", "nil", "undefined", "unknown")
}

// isNoValue reports whether a text in the place of a value is none. It knows fewer words than
// isNoID: an ExposureLevel may be None, and a group of devices may be called NA.
func isNoValue(text []byte) bool {
	if len(text) > len("(null)") && text[0] > ' ' {
		return false // as nearly all
	}
	text = bytes.TrimSpace(text)
	return len(text) == 0 || isOneOf(text, "null", "(null)", "n/a", "-")
}

func isOneOf(text []byte, words ...string) bool {
	for _, word := range words {
		if len(text) == len(word) && sameText(text, []byte(word)) {
			return true
		}
	}
	return false
}

// appendID appends the id of key, in lower case.
func appendID(dst []byte, key string) []byte {
	if key[tenantBytes] == 'x' {
		for i := tenantBytes + 1; i < len(key); i++ {
			const digits = "0123456789abcdef"
			dst = append(dst, digits[key[i]>>4], digits[key[i]&15])
		}
		return dst
	}
	return append(dst, key[tenantBytes+1:]...)
}

// find returns the device of key and the key it was found under. If that device was merged into
// another that is known, it is the other one. missing is the key that is worth asking for: of a
// device that is not known, or "". used makes it recently used.
func (m *Memory) find(key string, used bool) (dev *device, at, missing string) {
	dev, ok := m.look(key, used)
	if !ok {
		return nil, "", key
	}
	if !dev.merged {
		return dev, key, ""
	}
	return m.follow(dev, used)
}

func (m *Memory) look(key string, used bool) (*device, bool) {
	if used {
		return m.use(key)
	}
	return m.cache.peek(key)
}

// follow goes from a device to the one that it was merged into, and on from there. It takes the
// last that has reported, and if none has, the last. Of a circle it takes the one with the newest
// report, wherever the circle was entered.
func (m *Memory) follow(first *device, used bool) (dev *device, at, missing string) {
	var path [maxMerges + 1]*device
	path[0] = first
	n, circle := 1, len(path)
	for last := first; n < len(path) && last.merged; n++ {
		next := appendKey(m.key[:0], tenantOf(last.key), mergedInto(last.groups))
		if next == nil {
			break
		}
		m.key = next
		target, ok := m.look(record.View(next), used)
		if !ok {
			missing = string(next)
			break
		}
		if i := slices.Index(path[:n], target); i >= 0 {
			circle = i
			break
		}
		path[n], last = target, target
	}
	best := 0
	for i, d := range path[1:n] {
		switch other := path[best]; {
		case other.reported && !d.reported:
			continue // nobody has reported that one yet
		case best >= circle && d.reported == other.reported && !d.isNewer(other):
			continue
		}
		best = i + 1
	}
	switch {
	case circle < n:
		missing = ""
	case best+1 < n:
		missing = path[best+1].key
	}
	return path[best], path[best].key, missing
}

// isNewer reports whether the newest report of a device is newer than that of another.
func (d *device) isNewer(other *device) bool {
	a, b := factsOf(d.groups).newest(), factsOf(other.groups).newest()
	return a > b || a == b && d.key > other.key
}

// use returns a device that a record asks for.
func (m *Memory) use(key string) (*device, bool) {
	d, moved := m.cache.use(key)
	if moved {
		m.change(d) // a snapshot has it among those
	}
	return d, d != nil
}

// put merges columns that were said at stamp into the device of key; empty is as in merge. Without
// evict a new device is only taken in where there is room.
func (m *Memory) put(key []byte, stamp int64, columns []column, empty []columnID, evict bool) {
	dev, known := m.cache.peek(record.View(key))
	var old []byte
	if known {
		old = dev.groups
	}
	merged, changed := m.merger.merge(old, stamp, columns, empty)
	if !changed {
		return
	}
	m.stats.Learned++
	if empty != nil {
		m.stats.NewestReport = max(m.stats.NewestReport, stamp)
	}
	if m.waits.asked[string(key)] != nil {
		m.waits.tell()
	}
	renamed := !known || !sameNames(old, merged)
	if known && renamed {
		m.unindex(dev)
	}
	if known && len(merged) <= cap(old) {
		dev.groups = append(old[:0], merged...) // a report like the last one leaves no garbage
		m.digest(dev)
		if renamed {
			m.index(dev)
		}
		m.change(dev)
		return
	}
	groups := append([]byte(nil), merged...) // a copy of exact capacity
	if !known {
		dev = &device{key: string(key), groups: groups}
		if !evict && m.cache.bytes+m.tenants.bytes+dev.bytes() > m.limit {
			return
		}
		m.cache.add(dev)
		m.tenants.refer(dev.key)
	} else {
		m.cache.replace(dev, groups)
	}
	m.digest(dev)
	if renamed {
		m.index(dev)
	}
	m.change(dev)
	for m.cache.bytes+m.tenants.bytes > m.limit && m.cache.len() > 1 {
		m.evict()
	}
}

// digest notes what is asked of a device for every row. Alerts of one that was merged go with it.
func (m *Memory) digest(dev *device) {
	told := 0
	dev.merged, dev.reported = len(mergedInto(dev.groups)) > 0, factsOf(dev.groups).reported
	for w := (walker{rest: dev.groups}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if columnDeviceName <= c.id && c.id <= columnGroup {
			told++
		}
	}
	dev.told = dev.reported && told == m.witnessed
	if dev.merged {
		_, final, _ := m.find(dev.key, false)
		m.recents.move(dev.key, final)
	}
}

// sameNames reports whether a device is found by the same names with other groups.
func sameNames(old, merged []byte) bool {
	a, b := device{groups: old}, device{groups: merged}
	return bytes.Equal(a.value(columnDeviceName), b.value(columnDeviceName)) && bytes.Equal(a.value(columnResource), b.value(columnResource)) &&
		bytes.Equal(a.value(columnUsers), b.value(columnUsers))
}

// value is the value of a column in msgpack, or nil.
func (d *device) value(id columnID) []byte {
	for w := (walker{rest: d.groups}); ; {
		c, ok := w.next()
		if !ok {
			return nil
		}
		if c.id == id {
			return c.value
		}
	}
}

// stampOf is the time of the value of a column, or 0.
func (d *device) stampOf(id columnID) int64 {
	for w := (walker{rest: d.groups}); ; {
		if c, ok := w.next(); !ok || c.id == id {
			return w.stamp
		}
	}
}

// change notes that dev is to be written into the next snapshot.
func (m *Memory) change(dev *device) {
	if m.saving && !dev.dirty {
		dev.dirty = true
		m.note(dev.key)
	}
}

// note keeps a key for the next snapshot.
func (m *Memory) note(key string) {
	m.changed = append(m.changed, key)
	m.tenants.refer(key)
}

func (m *Memory) evict() {
	dev, ok := m.cache.removeOldest()
	if !ok {
		return
	}
	m.unindex(dev)
	m.stats.Evicted++
	// It is to go from the snapshot too. While nobody takes one, some stay in the file until the
	// next start, when they are read and have to find room again.
	if m.saving && (dev.dirty || m.waiting < m.limit/waitingShare) {
		m.waiting += keyBytes(dev.key)
		if !dev.dirty {
			m.note(dev.key)
		}
	}
	m.tenants.leave(dev.key)
}

// Learn takes a report of a device in the form of the properties of a DeviceInfo record, as JSON,
// which it does not keep. With evict, other devices may give way to a new one.
func (m *Memory) Learn(tenant string, properties []byte, evict bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &m.learner.row
	if !r.ReadColumns(&m.learner.scanner, properties) {
		return
	}
	if number := m.tenants.get([]byte(strings.ToLower(tenant))); number != 0 {
		m.report(r, number, evict)
	}
}
