// Package repeats tells records that the service delivers again from those that are new.
//
//	memory.go  Memory: the ids of what a section has handed on, shared by its transformers
//	watch.go   Watch: whether a record is a repeat; the ids of a batch are known when it is queued
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
// The ids are in a ring, in the order in which they came. An index of buckets leads to them, and an
// id can only be in the bucket of its hash. So a look-up costs the same for any content: one cache
// line of the index, and the ring for ids with the same tag. Those are rarely other ids. A full
// bucket forgets its oldest. Ids that were made to collide would only push each other out. Nobody
// can make them: the hash has a key of this process.
//
//	index      16 places, each a tag and a place in the ring   16 places ...
//	ring       id id id id id ...  <- next
type Memory struct {
	key [2]uint64 // of the hash

	mu    sync.Mutex // covers the fields below; held for one look-up, or for adding a batch
	ring  []ID
	next  int // where the next id goes
	index []bucket
	low   uint32 // bits of a place that are the position in the ring, plus one; the others are the tag
}

// bucket: the places of the ids of one hash, the newest first; 0 for none. It is one cache line.
type bucket [16]uint32

const (
	// idsABucket is how many ids there are for each bucket, on average. A bucket has twice as many
	// places. So all but one in a hundred of the oldest ids of the ring are found.
	idsABucket = 8

	bytesAnID = 16 + 64/idsABucket
)

// NewMemory returns a Memory of so many bytes, at most 48 GB. 16 MB hold 699,050 ids.
func NewMemory(size int64) *Memory {
	ids := max(int(size/bytesAnID), idsABucket)
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	return &Memory{
		key:   [2]uint64{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])},
		ring:  make([]ID, ids),
		index: make([]bucket, ids/idsABucket),
		low:   1<<bits.Len(uint(ids)) - 1,
	}
}

func (m *Memory) hash(id *ID) uint64 {
	high, low := bits.Mul64(binary.LittleEndian.Uint64(id[:8])^m.key[0], binary.LittleEndian.Uint64(id[8:])^m.key[1])
	return high ^ low
}

// find returns the bucket of id, and its tag.
func (m *Memory) find(id *ID) (b *bucket, tag uint32) {
	h := m.hash(id)
	at, _ := bits.Mul64(h, uint64(len(m.index)))
	return &m.index[at], uint32(h) &^ m.low
}

func (m *Memory) has(b *bucket, tag uint32, id *ID) bool {
	low := m.low
	for _, place := range b {
		if place&^low != tag {
			continue
		}
		if at := place & low; at > 0 && m.ring[at-1] == *id {
			return true
		}
	}
	return false
}

// Has tells whether id is known.
func (m *Memory) Has(id *ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, tag := m.find(id)
	return m.has(b, tag, id)
}

// Add makes ids known that were not. It does not keep the slice.
func (m *Memory) Add(ids []ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range ids {
		b, tag := m.find(&ids[i])
		m.ring[m.next] = ids[i]
		if m.next++; m.next == len(m.ring) {
			m.next = 0
		}
		copy(b[1:], b[:len(b)-1])
		at := m.next
		if at == 0 {
			at = len(m.ring)
		}
		b[0] = tag | uint32(at)
	}
}

// Forget makes all ids unknown.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.index)
	clear(m.ring)
}
