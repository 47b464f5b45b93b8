package input_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// take appends every chunk of the oldest batch, as the host's thread does, and returns it.
func take(t *testing.T, o *input.Outbox) *input.Batch {
	t.Helper()
	b := o.Take()
	if b == nil {
		t.Fatal("nothing to take")
	}
	for b.Next() != nil {
		b.Taken()
	}
	o.Done(b)
	return b
}

func put(t *testing.T, o *input.Outbox, source string, size int, m input.Mark) {
	t.Helper()
	b := &input.Batch{Source: source}
	b.Append("", bytes.Repeat([]byte{'x'}, size))
	b.Mark(m)
	if err := o.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestMarksAreSafeOnlyWhenEveryChunkWasTaken(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	b := &input.Batch{Source: "s"}
	b.Append("a", []byte("1"))
	b.Append("b", []byte("2"))
	b.Mark(input.Mark{Lane: "hub/0", Term: 1, Next: 7})
	if err := o.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := o.Safe("s"); got != nil {
		t.Fatalf("safe before anything was taken: %v", got)
	}
	b = o.Take()
	b.Taken()
	if got := o.Safe("s"); got != nil {
		t.Fatalf("safe after one chunk of two: %v", got)
	}
	// A refusal ends the tick here; the next one continues with the second chunk, not the first.
	b = o.Take()
	if c := b.Next(); c.Tag != "b" || string(c.Data) != "2" {
		t.Fatalf("goes on with %q %q, want the chunk that was refused", c.Tag, c.Data)
	}
	b.Taken()
	o.Done(b)
	if got := o.Safe("s"); len(got) != 1 || got[0] != (input.Mark{Lane: "hub/0", Term: 1, Next: 7}) {
		t.Fatalf("safe: %v", got)
	}
	if got := o.Safe("s"); got != nil {
		t.Fatalf("the same marks twice: %v", got)
	}
}

func TestDoneTooEarlyIsABug(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	put(t, o, "s", 1, input.Mark{Lane: "l"})
	defer func() {
		if recover() == nil {
			t.Error("Done with a chunk that was not taken must panic")
		}
	}()
	o.Done(o.Take())
}

func TestSafeKeepsSourcesApartAndTheNewestMark(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	put(t, o, "a", 1, input.Mark{Lane: "l", Term: 1, Next: 5})
	put(t, o, "b", 1, input.Mark{Lane: "l", Term: 1, Next: 99})
	put(t, o, "a", 1, input.Mark{Lane: "l", Term: 2, Next: 3})
	put(t, o, "a", 1, input.Mark{Lane: "l", Term: 1, Next: 9}) // stale: its lane has had a newer term
	for range 4 {
		take(t, o)
	}
	if got := o.Safe("a"); len(got) != 1 || got[0].Term != 2 || got[0].Next != 3 {
		t.Errorf("a: %v", got)
	}
	if got := o.Safe("b"); len(got) != 1 || got[0].Next != 99 {
		t.Errorf("b: %v", got)
	}
}

func TestPutWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := input.NewOutbox(5000)
		put(t, o, "s", 10_000, input.Mark{Lane: "l", Next: 1}) // larger than the limit, but alone
		second := make(chan error, 1)
		go func() {
			b := &input.Batch{Source: "s"}
			b.Append("", []byte("x"))
			second <- o.Put(t.Context(), b)
		}()
		synctest.Wait()
		select {
		case err := <-second:
			t.Fatalf("Put did not wait: %v", err)
		default:
		}
		take(t, o)
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		if o.Batches() != 1 {
			t.Fatalf("%d batches wait, want 1", o.Batches())
		}

		// Waiting ends with the context, and at Close.
		wait := func(ctx context.Context, want error, end func()) {
			t.Helper()
			result := make(chan error, 1)
			go func() {
				b := &input.Batch{Source: "s"}
				b.Append("", bytes.Repeat([]byte{'x'}, 8000))
				result <- o.Put(ctx, b)
			}()
			synctest.Wait()
			end()
			if err := <-result; !errors.Is(err, want) {
				t.Errorf("Put: %v, want %v", err, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, context.Canceled, cancel)
		wait(t.Context(), input.ErrClosed, o.Close)
		if o.Take() != nil {
			t.Error("Take after Close")
		}
	})
}

func TestBatchesWithoutEventsAreBoundedToo(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	for ; n < 1_000_000; n++ {
		b := &input.Batch{Source: "s"}
		b.Mark(input.Mark{Lane: "l", Next: int64(n)})
		done := t.Context()
		if o.Bytes() > 1<<20-1024 {
			done = ctx // the next one must wait; this context has ended, so Put returns instead
		}
		if o.Put(done, b) != nil {
			break
		}
	}
	if n == 1_000_000 {
		t.Fatal("a million batches of nothing were queued")
	}
}

func TestBatchCutsChunksByTagAndSize(t *testing.T) {
	o := input.NewOutbox(64 << 20)
	own := &input.Batch{Source: "s"}
	for round := range 3 { // later rounds reuse the first one's buffers
		b := own
		b.Reset()
		var want [3]bytes.Buffer
		for i := range 9000 {
			tag := i % 3
			event := fmt.Appendf(nil, "<%d:%d:%0300d>", round, tag, i)
			want[tag].Write(event)
			b.Append(fmt.Sprint(tag), event)
		}
		if err := o.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Reset() // what is queued is a copy
		for range 100 {
			b.Append("x", bytes.Repeat([]byte{'y'}, 20_000))
		}
		var got [3]bytes.Buffer
		records := 0
		b = o.Take()
		for c := b.Next(); c != nil; c = b.Next() {
			if len(c.Data) > input.ChunkBytes || cap(c.Data) > len(c.Data)+len(c.Data)/8 {
				t.Errorf("chunk of %d bytes in %d", len(c.Data), cap(c.Data))
			}
			got[c.Tag[0]-'0'].Write(c.Data)
			records += c.Records
			b.Taken()
		}
		o.Done(b)
		if records != 9000 {
			t.Errorf("round %d: %d records", round, records)
		}
		for tag := range 3 {
			if !bytes.Equal(got[tag].Bytes(), want[tag].Bytes()) {
				t.Errorf("round %d: tag %d: events differ", round, tag)
			}
		}
	}
}

// A batch is filled, queued and handed over, while thirty more wait: what the pump does with each 2
// MB.
func BenchmarkBatchAppend(b *testing.B) {
	o := input.NewOutbox(128 << 20)
	event := bytes.Repeat([]byte{'x'}, 2000)
	tags := []string{"defender.AlertEvidence", "defender.DeviceEvents", "defender.DeviceInfo", "defender.EmailEvents"}
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	batch := &input.Batch{Source: "s"}
	for i := 0; b.Loop(); i++ {
		batch.Append(tags[i%len(tags)], event)
		if batch.Bytes() > 2<<20 {
			_ = o.Put(context.Background(), batch)
			batch.Reset()
			if o.Batches() > 30 {
				done := o.Take()
				for done.Next() != nil {
					done.Taken()
				}
				o.Done(done)
			}
		}
	}
}

// Ids of events are safe when the marks of their batch are, and not before.
func TestIDsAreSafeWithTheirBatch(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	for n := range 3 {
		b := &input.Batch{Source: "s", IDs: []input.ID{{byte(n + 1)}, {byte(n + 11)}}}
		b.Append("", []byte("event"))
		if err := o.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.IDs[0] = input.ID{99} // the caller's again
	}
	if got := o.SafeIDs(); len(got) > 0 {
		t.Fatalf("safe before the host took anything: %v", got)
	}
	take(t, o)
	take(t, o)
	want := []input.ID{{1}, {11}, {2}, {12}}
	if got := o.SafeIDs(); !slices.Equal(got, want) {
		t.Errorf("safe: %v, want %v", got, want)
	}
	if got := o.SafeIDs(); len(got) > 0 {
		t.Errorf("the same ids twice: %v", got)
	}
	o.Close() // what the host has not taken never becomes safe
	if got := o.SafeIDs(); len(got) > 0 {
		t.Errorf("safe although nobody took them: %v", got)
	}
}

func TestSafeIDsAreBounded(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	const all, batch = 100_000, 1000
	for n := 0; n < all; n += batch {
		b := &input.Batch{Source: "s"}
		for i := range batch {
			b.IDs = append(b.IDs, input.ID{byte((n + i) >> 16), byte((n + i) >> 8), byte(n + i)})
		}
		if b.Bytes() < 16*batch {
			t.Fatal("ids do not count against the outbox")
		}
		if err := o.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		take(t, o)
	}
	got := o.SafeIDs()
	if len(got) > 1<<16 {
		t.Errorf("%d ids wait", len(got))
	}
	if last := got[len(got)-1]; last != (input.ID{(all - 1) >> 16, (all - 1) >> 8 & 0xff, (all - 1) & 0xff}) {
		t.Errorf("the newest is %v", last)
	}
}

// A second copy that is dropped leaves its mark. One queue for all sources is why that mark moves
// only when the first copy is safe: a crash before then reads both again.
func TestMarkOfADroppedRepeatWaitsForTheFirstCopy(t *testing.T) {
	o := input.NewOutbox(1 << 20)
	put(t, o, "eventhub", 10, input.Mark{Lane: "hub/0", Term: 1, Next: 1}) // the first copy
	repeat := &input.Batch{Source: "blob"}                                 // of which nothing is left
	repeat.Mark(input.Mark{Lane: "blob", Term: 1, Next: 100})
	if err := o.Put(t.Context(), repeat); err != nil {
		t.Fatal(err)
	}
	b := o.Take()
	if b.Source != "eventhub" || len(o.Safe("blob")) > 0 {
		t.Fatalf("first comes %s, and the repeat's mark is safe: %v", b.Source, o.Safe("blob"))
	}
	b.Taken()
	o.Done(b)
	if len(o.Safe("eventhub")) != 1 || len(o.Safe("blob")) > 0 {
		t.Fatal("a mark moved out of order")
	}
	take(t, o)
	if got := o.Safe("blob"); len(got) != 1 {
		t.Errorf("the repeat's mark is not safe at the end: %v", got)
	}
}
