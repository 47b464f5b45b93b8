package transform

import (
	"context"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// DeviceConfig is what the user chose of device information.
type DeviceConfig struct {
	Tables       []string      // whose rows get the device
	Fields       []string      // columns of DeviceInfo to add; * for all
	Prefix       string        // of the names of added fields
	CacheBytes   int64         // for devices and alerts together
	TTL          time.Duration // older information is stale; 0 for never
	Wait         time.Duration // the longest that one Append waits for Lookup; 0 for never
	ArraysAsJSON bool          // as in Config

	// Lookup asks for devices of tenant and blocks until each is answered or ctx ends. What it finds it gives to Learn. It
	// returns the ids whose answer is still to come. nil if there is nobody to ask.
	Lookup func(ctx context.Context, tenant string, ids []string) (pending []string)
}

// Devices is what is known of devices and of recent alerts. All Transformers of an instance share one; it may be used from several
// goroutines.
//
// A device is kept as the encoded values of its columns and when each was said, under its tenant and id, so that a hit is a look-up and
// a copy. What is kept is bounded in bytes, and the least recently used gives way; an update is no use, so that the
// hourly reports of a large tenant do not push out the devices that alerts are about.
type Devices struct {
	cfg    DeviceConfig
	fields deviceFields
	tables map[string]bool // lower case
	now    func() time.Time

	mu        sync.Mutex // covers all below; never held while waiting
	cache     *simplelru.LRU[string, *device]
	bytes     int64
	limit     int64
	alerts    alerts
	informs   map[*enricher]time.Time // when each last had a record of AlertInfo
	news      chan struct{}           // closed when one has come; nil while nobody waits
	tenants   []string                // a device's key has the tenant's index
	indexOf   map[string]uint16
	learner   *learner
	witnessed int // columns that are kept and evidence tells of
	merger    merger
	key       []byte   // scratch of find
	reportKey []byte   // scratch of report
	changed   []string // keys of devices to write into the next snapshot
	saving    bool     // snapshots are taken
	stats     DeviceStats
	found     [len(deviceStatuses)]int64
	matched   [len(deviceMatches)]int64
}

// DeviceStats counts since the start.
type DeviceStats struct {
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
	deviceOverhead = 184
	maxTenants     = 4096
	maxDeviceID    = 256
	maxMerges      = 4 // hops along MergedToDeviceId
	alertShare     = 8 // one part in so many of the bytes is for alerts
)

// NewDevices returns an empty memory.
func NewDevices(cfg DeviceConfig) *Devices {
	d := &Devices{cfg: cfg, now: time.Now, indexOf: make(map[string]uint16), informs: make(map[*enricher]time.Time), tables: make(map[string]bool)}
	for _, name := range cfg.Tables {
		d.tables[strings.ToLower(name)] = true
	}
	d.fields = newDeviceFields(cfg.Fields)
	for id := columnDeviceName; id <= columnGroup; id++ {
		if d.keeps(id) {
			d.witnessed++
		}
	}
	d.limit = cfg.CacheBytes - cfg.CacheBytes/alertShare
	// Bounded by bytes here and not by number there.
	d.cache, _ = simplelru.NewLRU[string, *device](math.MaxInt, nil)
	d.alerts = newAlerts(cfg.CacheBytes / alertShare)
	d.learner = newLearner(cfg.ArraysAsJSON)
	return d
}

// Stats returns a copy of the counts.
func (d *Devices) Stats() DeviceStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Devices, s.Bytes = int64(d.cache.Len()), d.bytes
	s.Alerts, s.AlertBytes = int64(d.alerts.cache.Len()), d.alerts.bytes
	s.Status, s.Match = make(map[string]int64), make(map[string]int64)
	for i, n := range d.found {
		s.Status[deviceStatuses[i]] = n
	}
	for i, n := range d.matched {
		if deviceMatches[i] != "" {
			s.Match[deviceMatches[i]] = n
		}
	}
	return s
}

// tenant returns the index of a tenant, and false when there are too many: tenants come from outside.
func (d *Devices) tenant(name []byte) (uint16, bool) {
	if i, ok := d.indexOf[string(name)]; ok {
		return i, true
	}
	if len(d.tenants) >= maxTenants {
		return 0, false
	}
	i := uint16(len(d.tenants))
	d.tenants = append(d.tenants, string(name))
	d.indexOf[d.tenants[i]] = i
	return i, true
}

// appendDeviceKey appends the key of a device: ids are compared in lower case, and hexadecimal ones, which is all that Defender is
// known to give, take half their length. It returns nil for what cannot be an id.
func appendDeviceKey(dst []byte, tenant uint16, id []byte) []byte {
	if len(id) == 0 || len(id) > maxDeviceID {
		return nil
	}
	dst = append(dst, byte(tenant>>8), byte(tenant))
	packed := len(id)%2 == 0
	for _, c := range id {
		packed = packed && hexDigit(c) >= 0
	}
	if packed {
		dst = append(dst, 'x')
		for i := 0; i < len(id); i += 2 {
			dst = append(dst, byte(hexDigit(id[i])<<4|hexDigit(id[i+1])))
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

// appendDeviceID appends the id, in lower case, of which key is the key.
func appendDeviceID(dst []byte, key string) []byte {
	if key[2] == 'x' {
		for i := 3; i < len(key); i++ {
			const digits = "0123456789abcdef"
			dst = append(dst, digits[key[i]>>4], digits[key[i]&15])
		}
		return dst
	}
	return append(dst, key[3:]...)
}

func (d *Devices) tenantOf(key string) string { return d.tenants[uint16(key[0])<<8|uint16(key[1])] }

// find returns the device of key, or the one that it was merged into if that is known too, and the key that it was found
// under. missing is the key that is worth asking for: of a device that is not known, or "". used makes it recently used.
func (d *Devices) find(key string, used bool) (dev *device, at, missing string) {
	look := d.cache.Peek
	if used {
		look = d.cache.Get
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
		next := appendDeviceKey(d.key[:0], uint16(at[0])<<8|uint16(at[1]), to)
		if next == nil {
			break
		}
		d.key = next
		if string(next) == at || string(next) == key {
			break // a circle: what is known of this one will do
		}
		target, ok := look(view(next))
		if !ok {
			return dev, at, string(next)
		}
		dev, at = target, target.key
	}
	return dev, at, ""
}

// put merges columns that were said at stamp into the device of key. Without evict a new device is only taken in where there
// is room.
func (d *Devices) put(key []byte, stamp int64, columns []column, evict bool) {
	dev, known := d.cache.Peek(view(key))
	var old []byte
	if known {
		old = dev.groups
	}
	merged, changed := d.merger.merge(old, stamp, columns)
	if !changed {
		return
	}
	d.stats.Learned++
	if known && len(merged) <= cap(old) {
		dev.groups = append(old[:0], merged...) // a report like the last one leaves no garbage
		d.change(dev)
		return
	}
	groups := append([]byte(nil), merged...) // whose capacity is what it really takes
	cost := int64(cap(groups)) - int64(cap(old))
	if !known {
		if cost += deviceOverhead + int64(len(key)); !evict && d.bytes+cost > d.limit {
			return
		}
		dev = &device{key: string(key)}
		d.cache.Add(dev.key, dev)
	}
	dev.groups = groups
	d.bytes += cost
	d.change(dev)
	for d.bytes > d.limit && d.cache.Len() > 1 {
		d.evict()
	}
}

// change notes that dev is to be written into the next snapshot.
func (d *Devices) change(dev *device) {
	if d.saving && !dev.dirty {
		dev.dirty = true
		d.changed = append(d.changed, dev.key)
	}
}

func (d *Devices) evict() {
	key, dev, ok := d.cache.RemoveOldest()
	if !ok {
		return
	}
	d.bytes -= deviceOverhead + int64(len(key)) + int64(cap(dev.groups))
	d.stats.Evicted++
	if d.saving && !dev.dirty && len(d.changed) < maxChanged {
		d.changed = append(d.changed, key) // so that it goes from the snapshot too
	}
}

// Learn takes a report of a device in the form of the properties of a DeviceInfo record, as JSON, which it does not
// keep. With evict, other devices may give way to a new one.
func (d *Devices) Learn(tenant string, properties []byte, evict bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.learner.parse(properties)
	if r == nil {
		return
	}
	if index, ok := d.tenant([]byte(strings.ToLower(tenant))); ok {
		d.report(r, index, evict)
	}
}
