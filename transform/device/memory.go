package device

import (
	"context"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Config is what the user chose of device information.
type Config struct {
	Tables       []string      // whose rows get the device
	Fields       []string      // columns of DeviceInfo to add; * for all
	CacheBytes   int64         // for devices and alerts together
	TTL          time.Duration // older information is stale; 0 for never
	Wait         time.Duration // the longest that one Append waits for Lookup; 0 for never
	Separator    string        // between the names of nested objects in lists
	ArraysAsJSON bool          // write lists as JSON text

	// Lookup asks for devices of tenant and blocks until each is answered or ctx ends. What it finds it gives to Learn. It
	// returns the ids whose answer is still to come. nil if there is nobody to ask.
	Lookup func(ctx context.Context, tenant string, ids []string) (pending []string)
}

// Memory is what is known of devices and of recent alerts. All Transformers of an instance share one; it may be used from several
// goroutines.
//
// A device is kept as the encoded values of its columns and when each was said, under its tenant and id, so that a hit is a look-up and
// a copy. What is kept is bounded in bytes, and the least recently used gives way; an update is no use, so that the
// hourly reports of a large tenant do not push out the devices that alerts are about.
type Memory struct {
	cfg    Config
	fields fieldSet
	tables map[string]bool // lower case
	now    func() time.Time

	mu        sync.Mutex // covers all below; never held while waiting
	cache     *simplelru.LRU[string, *device]
	bytes     int64
	limit     int64
	alerts    alerts
	joiners   int               // numbered so far
	informs   map[int]time.Time // when each Joiner last had a record of AlertInfo
	news      chan struct{}     // closed when one has come; nil while nobody waits
	tenants   []string          // a device's key has the tenant's index
	indexOf   map[string]uint16
	learner   *learner
	witnessed int // columns that are kept and evidence tells of
	merger    merger
	key       []byte   // scratch of find
	reportKey []byte   // scratch of report
	changed   []string // keys of devices to write into the next snapshot
	saving    bool     // snapshots are taken
	stats     Stats
	found     [len(statusNames)]int64
	matched   [len(matchNames)]int64
}

// Stats counts since the start.
type Stats struct {
	Devices, Bytes, Alerts, AlertBytes int64 // held now
	Evicted                            int64
	Learned                            int64            // reports of devices merged in
	Status, Match                      map[string]int64 // records, by DeviceInfo.status and DeviceInfo.match
	AlertsFilled                       int64            // rows that got what only AlertInfo says
}

// A device is what is known of it: groups of columns, see merger.
type device struct {
	key    string
	groups []byte
	dirty  bool // its key is in changed
}

const (
	// What golang-lru's list entry, its map slot and the headers take beside key and groups. Measured by BenchmarkMillionDevices.
	overhead    = 184
	maxTenants  = 4096
	maxDeviceID = 256
	maxMerges   = 4 // hops along MergedToDeviceId
	alertShare  = 8 // one part in so many of the bytes is for alerts
)

// New returns an empty memory.
func New(cfg Config) *Memory {
	m := &Memory{cfg: cfg, now: time.Now, indexOf: make(map[string]uint16), informs: make(map[int]time.Time), tables: make(map[string]bool)}
	for _, name := range cfg.Tables {
		m.tables[strings.ToLower(name)] = true
	}
	m.fields = newFields(cfg.Fields)
	for id := columnDeviceName; id <= columnGroup; id++ {
		if m.keeps(id) {
			m.witnessed++
		}
	}
	m.limit = cfg.CacheBytes - cfg.CacheBytes/alertShare
	// Bounded by bytes here and not by number there.
	m.cache, _ = simplelru.NewLRU[string, *device](math.MaxInt, nil)
	m.alerts = newAlerts(cfg.CacheBytes / alertShare)
	m.learner = newLearner(cfg.Separator, cfg.ArraysAsJSON)
	return m
}

// Stats returns a copy of the counts.
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Devices, s.Bytes = int64(m.cache.Len()), m.bytes
	s.Alerts, s.AlertBytes = int64(m.alerts.cache.Len()), m.alerts.bytes
	s.Status, s.Match = make(map[string]int64), make(map[string]int64)
	for i, n := range m.found {
		s.Status[statusNames[i]] = n
	}
	for i, n := range m.matched {
		if matchNames[i] != "" {
			s.Match[matchNames[i]] = n
		}
	}
	return s
}

// tenant returns the index of a tenant, and false when there are too many: tenants come from outside.
func (m *Memory) tenant(name []byte) (uint16, bool) {
	if i, ok := m.indexOf[string(name)]; ok {
		return i, true
	}
	if len(m.tenants) >= maxTenants {
		return 0, false
	}
	i := uint16(len(m.tenants))
	m.tenants = append(m.tenants, string(name))
	m.indexOf[m.tenants[i]] = i
	return i, true
}

// appendKey appends the key of a device: ids are compared in lower case, and hexadecimal ones, which is all that Defender is
// known to give, take half their length. It returns nil for what cannot be an id.
func appendKey(dst []byte, tenant uint16, id []byte) []byte {
	if len(id) == 0 || len(id) > maxDeviceID {
		return nil
	}
	dst = append(dst, byte(tenant>>8), byte(tenant))
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

// appendID appends the id, in lower case, of which key is the key.
func appendID(dst []byte, key string) []byte {
	if key[2] == 'x' {
		for i := 3; i < len(key); i++ {
			const digits = "0123456789abcdef"
			dst = append(dst, digits[key[i]>>4], digits[key[i]&15])
		}
		return dst
	}
	return append(dst, key[3:]...)
}

func (m *Memory) tenantOf(key string) string { return m.tenants[uint16(key[0])<<8|uint16(key[1])] }

// find returns the device of key, or the one that it was merged into if that is known too, and the key that it was found
// under. missing is the key that is worth asking for: of a device that is not known, or "". used makes it recently used.
func (m *Memory) find(key string, used bool) (dev *device, at, missing string) {
	look := m.cache.Peek
	if used {
		look = m.cache.Get
	}
	dev, ok := look(key)
	if !ok {
		return nil, "", key
	}
	at = key
	for range maxMerges {
		to := mergedInto(dev.groups)
		if len(to) == 0 {
			break
		}
		next := appendKey(m.key[:0], uint16(at[0])<<8|uint16(at[1]), to)
		if next == nil {
			break
		}
		m.key = next
		if string(next) == at || string(next) == key {
			break // a circle: what is known of this one will do
		}
		target, ok := look(record.View(next))
		if !ok {
			return dev, at, string(next)
		}
		dev, at = target, target.key
	}
	return dev, at, ""
}

// put merges columns that were said at stamp into the device of key. Without evict a new device is only taken in where there
// is room.
func (m *Memory) put(key []byte, stamp int64, columns []column, evict bool) {
	dev, known := m.cache.Peek(record.View(key))
	var old []byte
	if known {
		old = dev.groups
	}
	merged, changed := m.merger.merge(old, stamp, columns)
	if !changed {
		return
	}
	m.stats.Learned++
	if known && len(merged) <= cap(old) {
		dev.groups = append(old[:0], merged...) // a report like the last one leaves no garbage
		m.change(dev)
		return
	}
	groups := append([]byte(nil), merged...) // whose capacity is what it really takes
	cost := int64(cap(groups)) - int64(cap(old))
	if !known {
		if cost += overhead + int64(len(key)); !evict && m.bytes+cost > m.limit {
			return
		}
		dev = &device{key: string(key)}
		m.cache.Add(dev.key, dev)
	}
	dev.groups = groups
	m.bytes += cost
	m.change(dev)
	for m.bytes > m.limit && m.cache.Len() > 1 {
		m.evict()
	}
}

// change notes that dev is to be written into the next snapshot.
func (m *Memory) change(dev *device) {
	if m.saving && !dev.dirty {
		dev.dirty = true
		m.changed = append(m.changed, dev.key)
	}
}

func (m *Memory) evict() {
	key, dev, ok := m.cache.RemoveOldest()
	if !ok {
		return
	}
	m.bytes -= overhead + int64(len(key)) + int64(cap(dev.groups))
	m.stats.Evicted++
	if m.saving && !dev.dirty && len(m.changed) < maxChanged {
		m.changed = append(m.changed, key) // so that it goes from the snapshot too
	}
}

// Learn takes a report of a device in the form of the properties of a DeviceInfo record, as JSON, which it does not
// keep. With evict, other devices may give way to a new one.
func (m *Memory) Learn(tenant string, properties []byte, evict bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &m.learner.row
	if !r.ReadColumns(&m.learner.scanner, properties) {
		return
	}
	if index, ok := m.tenant([]byte(strings.ToLower(tenant))); ok {
		m.report(r, index, evict)
	}
}
