package device

import (
	"hash/maphash"
	"math"
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// recents has the alerts of the last day for each device that has had one. It is used under the
// lock of Memory, bounded in bytes, and the device whose last alert is longest ago gives way.
type recents struct {
	cache *simplelru.LRU[string, []recent]
	seed  maphash.Seed
	bytes int64
	limit int64
}

// A recent is an alert, by a hash of its id.
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
	recentOverhead = 200
	recentBytes    = 32
	day            = int64(24 * 3600 * 1e9)
)

func newRecents(limit int64) *recents {
	r := &recents{seed: maphash.MakeSeed(), limit: limit}
	r.cache, _ = simplelru.NewLRU[string, []recent](math.MaxInt, nil)
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
	r.add(key, recent{at, at, maphash.Bytes(r.seed, alert), s})
}

func (r *recents) add(key string, a recent) {
	list, known := r.cache.Get(key) // key may point into a buffer
	for i := range list {
		if list[i].alert == a.alert {
			list[i].first, list[i].last = min(list[i].first, a.first), max(list[i].last, a.last)
			list[i].severity = max(list[i].severity, a.severity)
			return
		}
	}
	before := cap(list)
	if len(list) == maxRecent {
		oldest := 0
		for i := range list {
			if list[i].last < list[oldest].last {
				oldest = i
			}
		}
		if list[oldest].last >= a.last {
			return
		}
		list[oldest] = a
	} else {
		list = append(list, a)
	}
	if !known {
		key = strings.Clone(key)
		r.bytes += recentOverhead + int64(len(key))
	}
	r.bytes += recentBytes * int64(cap(list)-before)
	r.cache.Add(key, list) // a known one stays under the key that it has
	for r.bytes > r.limit && r.cache.Len() > 1 {
		old, gone, _ := r.cache.RemoveOldest()
		r.bytes -= recentOverhead + int64(len(old)) + recentBytes*int64(cap(gone))
	}
}

// move gives the alerts of a device to the one that it was merged into.
func (r *recents) move(from, to string) {
	list, ok := r.cache.Peek(from)
	if !ok || from == to {
		return
	}
	r.cache.Remove(from)
	r.bytes -= recentOverhead + int64(len(from)) + recentBytes*int64(cap(list))
	for _, a := range list {
		r.add(to, a)
	}
}

// count is how many alerts a device had in the 24 hours up to a time, and the highest severity
// among them. An alert counts from its first evidence to its last.
func (r *recents) count(key string, at int64) (n int, highest severity) {
	list, _ := r.cache.Peek(key)
	for _, a := range list {
		if a.first <= at && a.last > at-day {
			n++
			highest = max(highest, a.severity)
		}
	}
	return n, highest
}
