package transform

import (
	"slices"
	"sync/atomic"
)

// delayBounds are the upper bounds of the buckets, in seconds. Most events take minutes. A few take
// days, such as an identity alert that was found later.
var delayBounds = [...]int64{10, 30, 60, 120, 300, 600, 1200, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600}

// DelayBounds are the upper bounds of a Delay's buckets, in seconds, without that of everything.
func DelayBounds() []float64 {
	bounds := make([]float64, len(delayBounds))
	for i, b := range delayBounds {
		bounds[i] = float64(b)
	}
	return bounds
}

// Delay is a histogram of the time from an event to its record.
type Delay struct {
	buckets [len(delayBounds) + 1]uint64
	Seconds float64 // of all together
}

// Add adds the observations of other.
func (d *Delay) Add(other Delay) {
	for i, n := range other.buckets {
		d.buckets[i] += n
	}
	d.Seconds += other.Seconds
}

// Cumulative returns how many observations are at most each bound, and last how many there are.
func (d *Delay) Cumulative() []uint64 {
	c := slices.Clone(d.buckets[:])
	for i := 1; i < len(c); i++ {
		c[i] += c[i-1]
	}
	return c
}

// delay is a Delay that is being counted.
type delay struct {
	buckets [len(delayBounds) + 1]atomic.Uint64
	seconds atomic.Int64
}

// observe counts seconds. They are negative where a device's clock is ahead: that is no delay.
func (d *delay) observe(seconds int64) {
	seconds = max(seconds, 0)
	i := 0
	for i < len(delayBounds) && seconds > delayBounds[i] {
		i++
	}
	d.buckets[i].Add(1)
	d.seconds.Add(seconds)
}

func (d *delay) load() (r Delay) {
	for i := range d.buckets {
		r.buckets[i] = d.buckets[i].Load()
	}
	r.Seconds = float64(d.seconds.Load())
	return r
}
