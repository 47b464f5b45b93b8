package input_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// putTags queues a batch with one event for each tag.
func putTags(t *testing.T, o *input.Outbox, next int64, lease *input.Lease, size int, tags ...string) {
	t.Helper()
	b := &input.Batch{Source: "s"}
	b.From(lease)
	for _, tag := range tags {
		b.Append(tag, append(fmt.Appendf(nil, "%s%d,", tag, next), bytes.Repeat([]byte{'.'}, size)...))
	}
	b.Mark(input.Mark{Lane: "l", Next: next})
	if err := o.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// handed is what one append carries.
type handed struct{ tag, data string }

// giveAll gathers from what waits until nothing is left, as the host's thread does.
func giveAll(o *input.Outbox, most int64, refuse func() bool) (all []handed) {
	var g input.Gather
	left := o.Waiting(nil, most)
	for len(left) > 0 {
		if left[0].Next() == nil {
			o.Done(left[0])
			left = left[1:]
			continue
		}
		if !g.From(left) {
			continue
		}
		if refuse() {
			return all
		}
		all = append(all, handed{g.Tag, string(g.Data)})
		g.Taken()
	}
	return all
}

func never() bool { return false }

// Where batches wait, an append carries what all of them have for a tag. Where one does, it carries
// that.
func TestGatherPutsTagsTogether(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	putTags(t, o, 1, nil, 0, "a", "b")
	if got, want := giveAll(o, 1<<20, never), []handed{{"a", "a1,"}, {"b", "b1,"}}; !slices.Equal(got, want) {
		t.Errorf("of one batch %q, want %q", got, want)
	}
	putTags(t, o, 2, nil, 0, "a", "b")
	putTags(t, o, 3, nil, 0, "b")
	putTags(t, o, 4, nil, 0, "c", "a")
	if got, want := giveAll(o, 1<<20, never), []handed{{"a", "a2,a4,"}, {"b", "b2,b3,"}, {"c", "c4,"}}; !slices.Equal(got, want) {
		t.Errorf("of three batches %q, want %q", got, want)
	}
	if got := o.Safe("s"); len(got) != 1 || got[0].Next != 4 {
		t.Errorf("safe: %v", got)
	}
	if n := o.Batches(); n > 0 {
		t.Errorf("%d batches are left", n)
	}
}

// No more batches are gathered from than is asked for, and one in any case. No append is larger
// than a chunk may be, and one that is large enough is left as it is.
func TestGatherIsBounded(t *testing.T) {
	o := input.NewOutbox(64 << 20)
	for n := range int64(8) {
		putTags(t, o, n, nil, 100<<10, "a", "b")
	}
	if n := len(o.Waiting(nil, 1)); n != 1 {
		t.Errorf("gathers from %d batches, want 1", n)
	}
	if n := len(o.Waiting(nil, 650<<10)); n != 3 {
		t.Errorf("gathers from %d batches of 200 kB, want 3", n)
	}
	for _, h := range giveAll(o, 64<<20, never) {
		if len(h.data) > 400<<10 {
			t.Errorf("an append of %d bytes", len(h.data))
		}
	}
	putTags(t, o, 8, nil, 600<<10, "a")
	putTags(t, o, 9, nil, 900<<10, "a")
	putTags(t, o, 10, nil, 0, "a")
	if got := giveAll(o, 64<<20, never); len(got) != 3 {
		t.Errorf("%d appends of 600 kB, 900 kB and a little, want 3", len(got))
	}
	putTags(t, o, 11, nil, 200<<10, "a")
	putTags(t, o, 12, nil, 900<<10, "a")
	putTags(t, o, 13, nil, 0, "a")
	if got := giveAll(o, 64<<20, never); len(got) != 3 || len(got[0].data) > 210<<10 {
		t.Errorf("%d appends of 200 kB, 900 kB and a little, want 3: what follows may not overtake", len(got))
	}
}

// A chunk whose lease is lost is not handed over, wherever it waits.
func TestGatherPassesOverLostLeases(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	lost := input.NewLease(input.Now(), -time.Second)
	putTags(t, o, 1, nil, 0, "a")
	putTags(t, o, 2, lost, 0, "a", "b")
	putTags(t, o, 3, nil, 0, "a", "c")
	if got, want := giveAll(o, 1<<20, never), []handed{{"a", "a1,a3,"}, {"c", "c3,"}}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whatever is refused, and however batches come: each event is handed over once, in the order of
// its tag, and a mark is safe only when all before it is handed over.
func TestGatherLosesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		o := input.NewOutbox(64 << 20)
		want, got := map[string][]byte{}, map[string][]byte{}
		refuse := func() bool { return rnd.IntN(4) == 0 }
		queued, safe := int64(0), int64(0)
		ends := map[int64]map[string]int{} // mark -> length of each tag's events up to it
		for round := 0; queued < 40 || o.Batches() > 0; round++ {
			for range rnd.IntN(4) {
				if queued++; queued > 40 {
					break
				}
				var tags []string
				for range 1 + rnd.IntN(4) {
					tags = append(tags, string(rune('a'+rnd.IntN(3))))
				}
				size := 0
				if rnd.IntN(5) == 0 {
					size = 200 << 10
				}
				putTags(t, o, queued, nil, size, tags...)
				ends[queued] = map[string]int{}
				for _, tag := range tags {
					want[tag] = append(fmt.Appendf(want[tag], "%s%d,", tag, queued), bytes.Repeat([]byte{'.'}, size)...)
				}
				for tag, events := range want {
					ends[queued][tag] = len(events)
				}
			}
			for _, h := range giveAll(o, int64(rnd.IntN(2<<20)), refuse) {
				got[h.tag] = append(got[h.tag], h.data...)
			}
			for _, m := range o.Safe("s") {
				safe = m.Next
				for tag, n := range ends[safe] {
					if len(got[tag]) < n {
						t.Fatalf("seed %d: mark %d is safe, but of tag %s only %d bytes of %d are handed over", seed, safe, tag, len(got[tag]), n)
					}
				}
			}
		}
		for tag := range want {
			if !bytes.Equal(got[tag], want[tag]) {
				t.Fatalf("seed %d: tag %s has %d bytes, want %d, or another order", seed, tag, len(got[tag]), len(want[tag]))
			}
		}
	}
}

func TestGatherAllocatesNothing(t *testing.T) {
	o := input.NewOutbox(64 << 20)
	for n := range int64(8) {
		putTags(t, o, n, nil, 10<<10, "a", "b", "c")
	}
	var g input.Gather
	batches := o.Waiting(nil, 64<<20)
	g.From(batches)
	if n := testing.AllocsPerRun(100, func() { g.From(batches); batches = o.Waiting(batches[:0], 64<<20) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
