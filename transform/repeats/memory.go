// Package repeats tells records that the service delivers again from those that are new.
//
//	memory.go          Memory: the ids of what a section has handed on, shared by its transformers
//	watch.go           Watch: whether a record is a repeat; the ids of a batch are known when it is queued
//	prefetch.go        what has the processor fetch a bucket while a record is written
//	prefetch_amd64.s   on x86
//	prefetch_arm64.s   on arm64
//	prefetch_none.go   anywhere else: it waits for the bucket
//
// The ids themselves are made in record/id.go, and kept over a restart by plugin/repeats.go.
package repeats

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync"
)

// ID is an event_id as bytes: the first half of a SHA-256 of the record. It is kept whole. For a
// shorter fingerprint, somebody could look for a second event that has the same one, and so hide an
// event.
type ID = [16]byte

// Memory holds the newest ids within a fixed number of bytes. Its methods may be called at the same
// time.
//
// The ids are in a ring, in the order in which they came. A table of buckets leads to them, and an
// id can only be in the bucket of its hash. So a look-up costs the same for any content. For a new
// id it reads the tags of its bucket, which are half a cache line. All tags together are small
// enough for the caches. One look-up in eight finds its tag by chance, and reads a place too. A
// full bucket forgets its oldest. Ids that were made to collide would only push each other out.
// Nobody can make them: the hash has a key of this process.
//
//	tags       31 bytes of hashes and the number of the oldest    31 bytes ...
//	places     31 places in the ring, with more of the hash       31 places ...
//	ring       id id id id id ...  <- next
type Memory struct {
	key [2]uint64 // of the hash

	mu     sync.Mutex // covers the fields below; held for one look-up, or for adding a batch
	ring   []ID
	next   int // where the next id goes
	tags   []tags
	places [][slots + 1]uint32 // 0 for none; the last one of each is not used
	low    uint32              // bits of a place that are the position in the ring, plus one; the others are of the hash
}

// tags: a byte of the hash of each id of a bucket, and in the highest byte the slot that is written
// next.
type tags [4]uint64

const (
	slots = 31 // of a bucket

	// idsABucket is how many ids there are for each bucket, on average. A bucket has half as many
	// slots again. So all but one in a hundred of the oldest ids of the ring are found.
	idsABucket = 20

	bytesAnID = 16 + (32+4*(slots+1))/idsABucket
)

// NewMemory returns a Memory of so many bytes, at most 48 GB. 16 MB hold 699,050 ids.
func NewMemory(size int64) *Memory {
	ids := max(int(size/bytesAnID), idsABucket)
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	return &Memory{
		key:    [2]uint64{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])},
		ring:   make([]ID, ids),
		tags:   make([]tags, ids/idsABucket),
		places: make([][slots + 1]uint32, ids/idsABucket),
		low:    1<<bits.Len(uint(ids)) - 1,
	}
}

func (m *Memory) hash(id *ID) uint64 {
	high, low := bits.Mul64(binary.LittleEndian.Uint64(id[:8])^m.key[0], binary.LittleEndian.Uint64(id[8:])^m.key[1])
	return high ^ low
}

// bucket returns the number of the bucket of a hash. The rest of the hash is in tag and place.
func (m *Memory) bucket(h uint64) uint64 {
	at, _ := bits.Mul64(h, uint64(len(m.tags)))
	return at
}

const (
	eachByte = 0x0101010101010101
	highBits = 0x8080808080808080
)

// has tells whether id is known. mu is held.
func (m *Memory) has(id *ID, h uint64) bool {
	at := m.bucket(h)
	row, tag := &m.tags[at], (h&0xff)*eachByte
	for i, word := range row {
		word ^= tag
		// A bit for each byte that is zero now, and perhaps for some above one.
		for found := (word - eachByte) &^ word & highBits; found != 0; found &= found - 1 {
			place := m.places[at][i*8+bits.TrailingZeros64(found)/8]
			if n := place & m.low; n > 0 && place&^m.low == uint32(h>>8)&^m.low && m.ring[n-1] == *id {
				return true
			}
		}
	}
	return false
}

// add makes id known. mu is held.
func (m *Memory) add(id *ID, h uint64) {
	m.ring[m.next] = *id
	if m.next++; m.next == len(m.ring) {
		m.next = 0
	}
	n := m.next
	if n == 0 {
		n = len(m.ring)
	}
	at := m.bucket(h)
	row := &m.tags[at]
	slot := row[3] >> 56 % (slots + 1)
	row[slot/8] = row[slot/8]&^(0xff<<(slot%8*8)) | (h&0xff)<<(slot%8*8)
	row[3] = row[3]&^(0xff<<56) | (slot+1)%slots<<56
	m.places[at][slot] = uint32(h>>8)&^m.low | uint32(n)
}

// Has tells whether id is known.
func (m *Memory) Has(id *ID) bool { return m.hasHash(id, m.hash(id)) }

func (m *Memory) hasHash(id *ID, h uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.has(id, h)
}

// Add makes ids known that were not. It does not keep the slice.
func (m *Memory) Add(ids []ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range ids {
		m.add(&ids[i], m.hash(&ids[i]))
	}
}

// AddNew makes ids known, and calls again with the number of each that was known already. One
// look-up does not wait for the other, so many at once cost little. It does not keep the slice.
func (m *Memory) AddNew(ids []ID, again func(n int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range ids {
		if h := m.hash(&ids[i]); m.has(&ids[i], h) {
			again(i)
		} else {
			m.add(&ids[i], h)
		}
	}
}

// Forget makes all ids unknown.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.tags)
	clear(m.places)
	clear(m.ring)
}
