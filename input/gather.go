package input

// gatherBytes is how much an append should carry where so much waits. The host's work for an append
// is then small beside that for its bytes.
const gatherBytes = 256 << 10

// Gather puts the waiting events of one tag together, from several batches. With a tag for each
// table a batch has some twenty chunks, most of them small. An append of such a chunk costs the
// host more than its bytes do. While little waits there is one batch, and nothing to be put
// together.
//
// The order of events within a tag stays as it is. Marks become safe batch by batch, each when all
// of its chunks are taken. So a crash repeats no more than what the host has taken of the batches
// that were gathered from. Only the host's thread touches a Gather.
type Gather struct {
	Tag  string
	Data []byte // for one append; valid until the next call

	buf    []byte
	chunks []*Chunk // what Data is made of
}

// From gathers what the host should be given next of batches, the oldest first, and returns false
// when nothing of them is left. It passes over chunks whose lease is lost. So it is called right
// before each append.
func (g *Gather) From(batches []*Batch) bool {
	g.chunks = g.chunks[:0]
	for i, b := range batches {
		c := b.Next()
		if c == nil {
			continue
		}
		g.Tag, g.Data = c.Tag, c.Data
		g.chunks = append(g.chunks, c)
		if len(c.Data) < gatherBytes {
			g.more(batches[i:])
		}
		return true
	}
	return false
}

// more adds chunks of the same tag to the first one, which is of the first batch.
func (g *Gather) more(batches []*Batch) {
	for _, b := range batches {
		for i := b.taken; i < len(b.Chunks); i++ {
			c := &b.Chunks[i]
			if c.taken || c == g.chunks[0] || c.Tag != g.Tag || !c.lease.Held() {
				continue
			}
			if len(g.Data)+len(c.Data) > ChunkBytes {
				return
			}
			if len(g.chunks) == 1 {
				g.buf = append(g.buf[:0], g.Data...)
			}
			g.buf = append(g.buf, c.Data...)
			g.chunks = append(g.chunks, c)
			if g.Data = g.buf; len(g.Data) >= gatherBytes {
				return
			}
		}
	}
}

// Taken says that the host has taken Data: its append returned 0.
func (g *Gather) Taken() {
	for _, c := range g.chunks {
		c.taken = true
	}
	clear(g.chunks)
}

// Waiting appends the oldest batches to dst: one if there is any, and more while all together have
// at most so many bytes. Each stays where it is until Done. Called from the host's thread; it waits
// for nothing but the lock.
func (o *Outbox) Waiting(dst []*Batch, most int64) []*Batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return dst
	}
	for i, b := range o.queue {
		if most -= b.Bytes(); i > 0 && most < 0 {
			break
		}
		dst = append(dst, b)
	}
	return dst
}
