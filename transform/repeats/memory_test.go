package repeats

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"testing"
)

// id returns the nth id, as a hash makes them.
func id(n int) ID {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	return ID(sum[:16])
}

func list(from, to int) (ids []ID) {
	for n := from; n < to; n++ {
		ids = append(ids, id(n))
	}
	return ids
}

// All ids of the ring are known, but for one in a hundred of the oldest.
func TestMemoryForgetsTheOldest(t *testing.T) {
	const shrunk = 16 // a sixteenth of 16 MB, and of the ids
	m := NewMemory(16 << 20 / shrunk)
	const all = 3_000_000 / shrunk
	m.Add(list(0, all))
	for _, c := range []struct {
		age         int
		least, most float64
	}{
		{1, 1, 1}, {100_000, 1, 1}, {300_000, 0.999, 1}, {600_000, 0.98, 1}, {700_000, 0, 0}, {2_500_000, 0, 0},
	} {
		const around = 2000
		known, looked := 0, 0
		for n := max(all-c.age/shrunk-around, 0); n < all-c.age/shrunk; n++ {
			looked++
			if at := id(n); m.Has(&at) {
				known++
			}
		}
		if share := float64(known) / float64(looked); share < c.least || share > c.most {
			t.Errorf("of the ids that are %d old, %.4f are known; want %v to %v", c.age, share, c.least, c.most)
		}
	}
	if at := id(all); m.Has(&at) {
		t.Error("an id that was never added is known")
	}
	m.Forget()
	for _, at := range list(all-1000, all) {
		if m.Has(&at) {
			t.Fatal("an id is known after Forget")
		}
	}
}

// Ids that differ in one bit are different ids, also those that somebody has made alike on purpose.
func TestMemoryTellsAlmostEqualIDs(t *testing.T) {
	m := NewMemory(1 << 20)
	one := id(1)
	m.Add([]ID{one})
	for bit := range 128 {
		other := one
		other[bit/8] ^= 1 << (bit % 8)
		if m.Has(&other) {
			t.Errorf("bit %d makes no difference", bit)
		}
	}
	// Half of each id is the same, and still they spread over the buckets.
	ids := make([]ID, 4000)
	for i := range ids {
		binary.LittleEndian.PutUint64(ids[i][8:], uint64(i))
	}
	m.Add(ids)
	for i := 1; i < len(ids); i++ { // the first is zero, which stands for none
		if !m.Has(&ids[i]) {
			t.Errorf("%x is not known", ids[i])
		}
	}
}

func TestMemoryIsShared(t *testing.T) {
	m := NewMemory(1 << 20)
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for n := range 1000 {
				at := id(n)
				m.Has(&at)
				m.Add([]ID{id(g*1000 + n)})
			}
		})
	}
	group.Wait()
	for _, at := range list(0, 4000) {
		if !m.Has(&at) {
			t.Fatal("an id was lost")
		}
	}
}

func TestWatchKnowsItsBatchAndWhatWasQueued(t *testing.T) {
	m := NewMemory(1 << 20)
	one, other := m.NewWatch(), m.NewWatch()
	a, b := id(1), id(2)
	one.Begin()
	if one.Seen(&a) {
		t.Error("seen before it came")
	}
	one.Note(&a)
	if !one.Seen(&a) {
		t.Error("not seen in its own batch")
	}
	if other.Begin(); other.Seen(&a) {
		t.Error("known to others before its batch was queued")
	}
	one.Begin() // it was given up
	if one.Seen(&a) {
		t.Error("still known after its batch was given up")
	}
	one.Note(&a)
	one.Note(&b)
	m.Add(one.IDs())
	if !other.Seen(&a) || !other.Seen(&b) {
		t.Error("not known after its batch was queued")
	}
}

// A batch of any number of records is bounded, and leaves nothing behind.
func TestWatchIsBounded(t *testing.T) {
	m := NewMemory(1 << 20)
	w := m.NewWatch()
	for _, n := range []int{3 * mostNoted, 100, fewNoted, fewNoted + 1} {
		w.Begin()
		ids := list(0, n)
		for i := range ids {
			w.Note(&ids[i])
		}
		if got := len(w.IDs()); got != min(n, mostNoted) {
			t.Errorf("%d ids noted of %d", got, n)
		}
		w.Begin()
		for i := range ids {
			if w.Seen(&ids[i]) {
				t.Fatalf("of %d ids, one outlived its batch", n)
			}
		}
	}
}

func BenchmarkSeenAndNote(b *testing.B) {
	m := NewMemory(16 << 20)
	ids := list(0, 2_000_000)
	m.Add(ids[:1_000_000])
	w := m.NewWatch()
	w.Begin()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if n++; n%400 == 0 {
			m.Add(w.IDs())
			w.Begin()
		}
		if at := &ids[n%len(ids)]; !w.Seen(at) {
			w.Note(at)
		}
	}
}
