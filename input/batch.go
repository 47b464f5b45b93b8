package input

import "slices"

// ChunkBytes is the size at which a chunk is cut. An append to the host carries about this much. It
// is so small that a refusal or a slow filter costs little, and so large that the call itself costs
// nothing beside it. A single larger record makes a larger chunk.
const ChunkBytes = 1 << 20

// partBytes is when a batch is queued before its last message is through. Events may be a hundred
// times as large as their message: each value of [1,1,1] becomes an unreadable event.
const partBytes = 4 << 20

// Chunk is a run of whole events for one tag: what one append hands to the host.
type Chunk struct {
	Tag     string // empty for the section's own
	Data    []byte // msgpack events, one after the other
	Records int
	lease   *Lease // that must hold when it is handed over
	taken   bool   // by the host, out of turn: see Gather
}

// ID is the id of an event. This package does not know how it is made.
type ID = [16]byte

// Batch holds the events of some messages of one source. Its marks are safe when the host has taken
// all of it. A Pump fills one again and again. The Outbox keeps copies, which have no spare room.
type Batch struct {
	Source string
	Chunks []Chunk
	Marks  []Mark
	IDs    []ID // of some of its events, for Outbox.SafeIDs; may be empty

	lease   *Lease         // of the events that are appended now
	leases  []*Lease       // of all appended events, with the parts that were queued before
	open    map[string]int // of a batch that is filled: tag -> index of its last chunk, until that is full
	held    *withheld      // of its pump
	whenPut []func()       // to be called when it has been put
	taken   int            // of a queued batch: so many chunks from the first on are the host's, or lost
	bytes   int64

	// full takes the events out of the batch when they are partBytes or more; nil: nobody does.
	// That part has no marks, so it is read again until the rest of its message is safe.
	full func()
}

// Append copies one event to the chunk of its tag.
func (b *Batch) Append(tag string, event []byte) {
	i, ok := b.open[tag]
	if !ok || len(b.Chunks[i].Data)+len(event) > ChunkBytes {
		i = len(b.Chunks)
		if i < cap(b.Chunks) {
			b.Chunks = b.Chunks[:i+1] // with the buffer of a chunk that was here before
			b.Chunks[i].Data = b.Chunks[i].Data[:0]
		} else {
			b.Chunks = append(b.Chunks, Chunk{})
		}
		b.Chunks[i].Tag = tag
		b.Chunks[i].Records = 0
		b.Chunks[i].lease = b.lease
		if b.open == nil {
			b.open = make(map[string]int)
		}
		b.open[tag] = i
	}
	c := &b.Chunks[i]
	c.Data = append(c.Data, event...)
	c.Records++
	if b.bytes += int64(len(event)); b.bytes >= partBytes && b.full != nil {
		b.full()
	}
}

// From sets the lease under which the following events may be handed over.
func (b *Batch) From(l *Lease) {
	if l == b.lease {
		return
	}
	b.lease = l
	clear(b.open)
	if l != nil && !slices.Contains(b.leases, l) {
		b.leases = append(b.leases, l)
	}
}

// FromLane is From for a row of a lane that Keep was told of.
func (b *Batch) FromLane(lane string) {
	if b.held != nil {
		b.From(b.held.lease(lane))
	}
}

// Mark adds the mark of a message. The marks of a lane come in order, so the last one counts.
func (b *Batch) Mark(m Mark) {
	if n := len(b.Marks); n > 0 && b.Marks[n-1].Lane == m.Lane && b.Marks[n-1].Term == m.Term {
		b.Marks[n-1] = m
		return
	}
	b.Marks = append(b.Marks, m)
}

// Keep notes that a row of a lane is not in b: it waits in the Transform, and Late appends it.
// Marks of the lane are kept back until then. The result goes to WhenPut of that batch.
func (b *Batch) Keep(lane string) (settle func()) {
	if b.held == nil {
		return func() {}
	}
	return b.held.keep(lane, b.lease)
}

// WhenPut has f called when the outbox has b, from the goroutine that put it. A batch that is given
// up is not put: its messages are read again.
func (b *Batch) WhenPut(f func()) { b.whenPut = append(b.whenPut, f) }

// Bytes is the size of b in the outbox: its events and ids, and a little for itself and each mark.
// So batches without any event (of excluded tables) are bounded, too.
func (b *Batch) Bytes() int64 {
	return b.bytes + 512 + 128*int64(len(b.Marks)) + int64(len(b.IDs)*len(ID{}))
}

// Next is the first chunk that the host has not taken, or nil when there is none left. It passes
// over chunks whose lease is lost: they are another worker's. So it is called right before each
// append.
func (b *Batch) Next() *Chunk {
	for ; b.taken < len(b.Chunks); b.taken++ {
		if c := &b.Chunks[b.taken]; !c.taken && c.lease.Held() {
			return c
		}
	}
	return nil
}

// leased tells whether all leases of b hold, so that no chunk was passed over.
func (b *Batch) leased() bool {
	for _, l := range b.leases {
		if !l.Held() {
			return false
		}
	}
	return true
}

// spareBytes is how much of its buffers a batch keeps for the next use.
const spareBytes = 8 << 20

// Reset empties b for another use, which begins with the buffers of this one unless something
// unusual has made them large.
func (b *Batch) Reset() {
	spare := 0
	for _, c := range b.Chunks[:cap(b.Chunks)] {
		spare += cap(c.Data)
	}
	if spare > spareBytes {
		b.Chunks = nil
	}
	b.bytes = 0
	b.Chunks, b.Marks, b.IDs = b.Chunks[:0], b.Marks[:0], b.IDs[:0]
	clear(b.whenPut)
	b.whenPut = b.whenPut[:0]
	clear(b.open)
	b.lease, b.leases = nil, nil
}

// part empties b after a part of it was queued, for the next events.
func (b *Batch) part() {
	lease, leases := b.lease, b.leases
	b.Reset()
	b.lease, b.leases = lease, leases
}

// clone returns a copy that shares nothing with b.
func (b *Batch) clone() *Batch {
	c := &Batch{Source: b.Source, Chunks: slices.Clone(b.Chunks), Marks: slices.Clone(b.Marks), IDs: slices.Clone(b.IDs), leases: b.leases, bytes: b.bytes}
	for i := range c.Chunks {
		c.Chunks[i].Data = append([]byte(nil), c.Chunks[i].Data...)
	}
	return c
}
