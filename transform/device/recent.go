package device

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// recents has the alerts of the last day for each device that has had one. It is used under the
// lock of Memory, bounded in bytes, and the device whose last alert is longest ago gives way.
type recents struct {
	cache *simplelru.LRU[string, *history]
	bytes int64
	limit int64
	unsaved
}

// A history is the alerts of one device.
type history struct {
	list  []recent
	dirty bool // its key is in changed
}

// A recent is an alert, by a hash of its id, which is the same in every run.
type recent struct {
	first    int64 // oldest evidence, in nanoseconds
	last     int64 // newest evidence
	alert    uint64
	severity severity
}

type severity uint8

// severities are Defender's, the lowest first. The first means none.
var severities = [...]string{"", "Informational", "Low", "Medium", "High"}

const (
	maxRecent      = 64 // alerts of one device; more are counted as so many
	recentOverhead = 240
	recentBytes    = 32
	maxGone        = 4096 // keys of removed devices in changed; then they are forgotten
	day            = int64(24 * 3600 * 1e9)
)

func newRecents(limit int64) *recents {
	r := &recents{limit: limit}
	r.cache, _ = simplelru.NewLRU[string, *history](math.MaxInt, nil)
	return r
}

func severityOf(text []byte) severity {
	for i, word := range severities {
		if i > 0 && sameText(text, []byte(word)) {
			return severity(i)
		}
	}
	return 0
}

// note takes evidence of an alert on a device.
func (r *recents) note(key string, alert []byte, at int64, s severity) {
	if len(alert) == 0 {
		return
	}
	r.add(key, recent{at, at, hashOf(alert), s})
}

// hashOf is FNV-1a. maphash has another seed in each run, and snapshots hold hashes.
func hashOf(alert []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range alert {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func (r *recents) add(key string, a recent) {
	h, known := r.cache.Get(key) // key may point into a buffer
	if !known {
		key = strings.Clone(key)
		h = new(history)
		r.bytes += recentOverhead + int64(len(key))
		r.cache.Add(key, h)
	}
	before := cap(h.list)
	if h.add(a) {
		r.change(key, h)
	}
	r.bytes += recentBytes * int64(cap(h.list)-before)
	for r.bytes > r.limit && r.cache.Len() > 1 {
		key, h, _ := r.cache.RemoveOldest()
		r.left(key, h)
	}
}

// add takes an alert, and reports whether that makes a difference.
func (h *history) add(a recent) bool {
	oldest := 0
	for i := range h.list {
		b := &h.list[i]
		if b.alert == a.alert {
			before := *b
			b.first, b.last, b.severity = min(b.first, a.first), max(b.last, a.last), max(b.severity, a.severity)
			return *b != before
		}
		if b.last < h.list[oldest].last {
			oldest = i
		}
	}
	switch {
	case len(h.list) < maxRecent:
		h.list = append(h.list, a)
	case h.list[oldest].last >= a.last:
		return false
	default:
		h.list[oldest] = a
	}
	return true
}

// change notes that the alerts of a device are to be written into the next snapshot.
func (r *recents) change(key string, h *history) {
	r.mark(key, &h.dirty, r.cache.Len(), r.cache.Contains)
}

// unsaved: what is to be written into the next snapshot beside devices.
type unsaved struct {
	saving  bool     // changes are noted
	changed []string // keys
}

// mark notes a key, unless dirty says that it is noted. n keys are kept, and kept tells which. Of
// those that gave way some are forgotten here: they go when they are read at the next start and
// have no room.
func (u *unsaved) mark(key string, dirty *bool, n int, kept func(key string) bool) {
	if !u.saving || *dirty {
		return
	}
	if len(u.changed) >= n+maxGone {
		u.changed = onlyKept(u.changed, kept)
	}
	*dirty = true
	u.changed = append(u.changed, strings.Clone(key))
}

// onlyKept leaves the keys that are still kept, each once. One that has come and gone and come
// again is there twice.
func onlyKept(keys []string, kept func(key string) bool) []string {
	keys = slices.DeleteFunc(keys, func(key string) bool { return !kept(key) })
	slices.Sort(keys)
	return slices.Compact(keys)
}

// left counts a removed device. It is to go from the snapshot, too. What is forgotten here goes
// when it is read at the next start and has no room.
func (r *recents) left(key string, h *history) {
	r.bytes -= recentOverhead + int64(len(key)) + recentBytes*int64(cap(h.list))
	r.change(key, h)
}

// move gives the alerts of a device to the one that it was merged into.
func (r *recents) move(from, to string) {
	if from == to {
		return
	}
	h, ok := r.cache.Peek(from)
	if !ok {
		return
	}
	r.cache.Remove(from)
	r.left(from, h)
	for _, a := range h.list {
		r.add(to, a)
	}
}

// count is how many alerts a device had in the 24 hours up to a time, and the highest severity
// among them. An alert counts from its first evidence to its last.
func (r *recents) count(key string, at int64) (n int, highest severity) {
	h, ok := r.cache.Peek(key)
	if !ok {
		return 0, 0
	}
	for _, a := range h.list {
		if a.first <= at && a.last > at-day {
			n++
			highest = max(highest, a.severity)
		}
	}
	return n, highest
}

// savedRecent is the size of an alert in a snapshot: first, last and hash (8 bytes each, big
// endian), severity (1).
const savedRecent = 25

// appendSaved appends the alerts of a device for a snapshot, and nothing if it is gone.
func (r *recents) appendSaved(dst []byte, key string) []byte {
	h, ok := r.cache.Peek(key)
	if !ok {
		return dst
	}
	h.dirty = false
	dst = append(dst, savedAlerts)
	for _, a := range h.list {
		for _, n := range [...]uint64{uint64(a.first), uint64(a.last), a.alert} {
			dst = binary.BigEndian.AppendUint64(dst, n)
		}
		dst = append(dst, byte(a.severity))
	}
	return dst
}

// restore takes the alerts of a device from a snapshot. It reports false if they cannot be read, or
// there is no room.
func (r *recents) restore(key string, saved []byte) bool {
	if len(saved) == 0 || len(saved)%savedRecent != 0 || len(saved) > maxRecent*savedRecent {
		return false
	}
	saving, limit, known := r.saving, r.limit, r.cache.Contains(key)
	r.saving, r.limit = false, math.MaxInt64 // it is in the snapshot already, and no other gives way to it
	defer func() { r.saving, r.limit = saving, limit }()
	for ; len(saved) > 0; saved = saved[savedRecent:] {
		n := func(at int) uint64 { return binary.BigEndian.Uint64(saved[at:]) }
		r.add(key, recent{int64(n(0)), int64(n(8)), n(16), min(severity(saved[24]), severity(len(severities)-1))})
	}
	if h, _ := r.cache.Peek(key); !known && r.bytes > limit {
		r.cache.Remove(key)
		r.left(key, h)
		return false
	}
	return true
}
