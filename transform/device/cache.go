package device

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A cache keeps devices in two lists, each in the order of its last use. Devices that records have
// asked for are in used, and all others in seen. Room is made in seen first. So a flood of reports
// takes the place of other reports, and not of the devices that alerts were about.
//
// golang-lru's 2Q cache does the same for a number of entries; here the bound is in bytes.
type cache struct {
	seen, used *simplelru.LRU[string, *device]
	bytes      int64 // of all devices
	usedBytes  int64 // of those in used
	usedLimit  int64 // the oldest of used go back to seen beyond that
}

// usedShare is the part of the bytes that devices of records may keep from reports, in quarters.
const usedShare = 3

func newCache(limit int64) cache {
	c := cache{usedLimit: limit / 4 * usedShare}
	// Bounded by bytes here and not by number there.
	c.seen, _ = simplelru.NewLRU[string, *device](math.MaxInt, nil)
	c.used, _ = simplelru.NewLRU[string, *device](math.MaxInt, nil)
	return c
}

func (c *cache) len() int { return c.seen.Len() + c.used.Len() }

// peek returns a device and changes nothing. key may point into a buffer.
func (c *cache) peek(key string) (*device, bool) {
	if d, ok := c.seen.Peek(key); ok {
		return d, true
	}
	return c.used.Peek(key)
}

// use returns a device that a record asks for. moved: it was not among those before.
func (c *cache) use(key string) (d *device, moved bool) {
	if d, ok := c.used.Get(key); ok {
		return d, false
	}
	d, ok := c.seen.Peek(key)
	if !ok {
		return nil, false
	}
	c.seen.Remove(d.key)
	c.used.Add(d.key, d)
	d.used = true
	c.usedBytes += d.bytes()
	c.settle()
	return d, true
}

// add takes a new device in.
func (c *cache) add(d *device) {
	c.seen.Add(d.key, d)
	c.bytes += d.bytes()
}

// replace gives a device other groups.
func (c *cache) replace(d *device, groups []byte) {
	grown := int64(cap(groups)) - int64(cap(d.groups))
	d.groups = groups
	c.bytes += grown
	if d.used {
		c.usedBytes += grown
		c.settle()
	}
}

// settle moves the oldest of used back while they take more than their share.
func (c *cache) settle() {
	for c.usedBytes > c.usedLimit && c.used.Len() > 1 {
		_, d, _ := c.used.RemoveOldest()
		d.used = false
		c.usedBytes -= d.bytes()
		c.seen.Add(d.key, d)
	}
}

// removeOldest takes the device out that gives way next.
func (c *cache) removeOldest() (*device, bool) {
	_, d, ok := c.seen.RemoveOldest()
	if !ok {
		if _, d, ok = c.used.RemoveOldest(); ok {
			c.usedBytes -= d.bytes()
		}
	}
	if ok {
		c.bytes -= d.bytes()
	}
	return d, ok
}

// bytes is the memory that a device takes.
func (d *device) bytes() int64 { return overhead + int64(len(d.key)) + int64(cap(d.groups)) }
