package repeats

const (
	// mostNoted bounds the ids of one batch, to half a megabyte. A batch with more records lets the
	// repeats of the rest pass.
	mostNoted = 32 << 10

	// fewNoted is how many ids a batch has room for at first, and keeps for the next.
	fewNoted = 2 << 10
)

// Watch looks the records of one transformer up, batch after batch. It knows the ids of its own
// batch at once. Others know them when the caller adds them to the Memory, once the batch is
// queued. A batch that was given up is read again, and must not look like a repeat then.
//
//	Begin --> Expect, Seen, Note, Expect, Seen, Note ... --> the batch is queued --> Memory.Add(IDs)
//	  ^                                 \--> it was given up    \
//	  +-----------------------------------------<----------------+
type Watch struct {
	memory *Memory
	ids    []ID
	batch  []uint32 // where in ids, plus one, by the hash of memory; 0 for none; half of it at least is 0. A power of two long
}

// NewWatch returns a Watch.
func (m *Memory) NewWatch() *Watch {
	return &Watch{memory: m, ids: make([]ID, 0, fewNoted), batch: make([]uint32, 2*fewNoted)}
}

// Begin starts a batch, which knows nothing of the last one.
func (w *Watch) Begin() {
	if len(w.batch) > 2*fewNoted {
		w.ids, w.batch = make([]ID, 0, fewNoted), make([]uint32, 2*fewNoted)
		return
	}
	if len(w.ids) > 0 {
		clear(w.batch)
		w.ids = w.ids[:0]
	}
}

// place returns where id, with the hash h, is in batch, or where it would go.
func (w *Watch) place(id *ID, h uint64) *uint32 {
	for mask := uint64(len(w.batch) - 1); ; h++ {
		p := &w.batch[h&mask]
		if *p == 0 || w.ids[*p-1] == *id {
			return p
		}
	}
}

// Expect says that Seen will be asked for id, after some other work.
func (w *Watch) Expect(id *ID) {
	prefetch(&w.memory.tags[w.memory.bucket(w.memory.hash(id))])
}

// Seen tells whether a record with this id came before, in this batch or in one that was queued.
func (w *Watch) Seen(id *ID) bool {
	h := w.memory.hash(id)
	return *w.place(id, h) != 0 || w.memory.hasHash(id, h)
}

// Note adds the id of a record of this batch that was not seen.
func (w *Watch) Note(id *ID) {
	if len(w.ids) == mostNoted {
		return
	}
	if len(w.ids) == len(w.batch)/2 {
		w.batch = make([]uint32, 2*len(w.batch))
		for i := range w.ids {
			*w.place(&w.ids[i], w.memory.hash(&w.ids[i])) = uint32(i + 1)
		}
	}
	p := w.place(id, w.memory.hash(id))
	w.ids = append(w.ids, *id)
	*p = uint32(len(w.ids))
}

// IDs are those that were noted since Begin. They are valid until the next Begin.
func (w *Watch) IDs() []ID { return w.ids }
