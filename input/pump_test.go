package input_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// hub is a source of numbered messages in one lane that remembers what was committed, as a broker
// does.
type hub struct {
	mu        sync.Mutex
	messages  int64
	committed int64
	commits   int
	failures  int // commits still to refuse
	opens     int
	closed    int
	gives     bool          // the lane is given away when Fetch ends
	fetch     func(n int64) // called before message n is returned; may panic
	keep      func(marks []input.Mark)
}

type tenure struct {
	*hub
	term uint64
	next int64
}

func (h *hub) open(context.Context) (input.Source, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opens++
	return &tenure{hub: h, term: input.NewTerm(), next: h.committed}, nil
}

func (s *tenure) Name() string { return "hub" }

func (s *tenure) Fetch(ctx context.Context) ([]input.Message, error) {
	if s.next == s.messages {
		<-ctx.Done()
		if s.gives {
			s.mu.Lock()
			s.term = 0
			s.mu.Unlock()
		}
		return nil, ctx.Err()
	}
	if s.fetch != nil {
		s.fetch(s.next)
	}
	n := s.next
	s.next++
	return []input.Message{{
		Mark: input.Mark{Lane: "hub/0", Term: s.term, Next: s.next}, Offset: n, Body: fmt.Appendf(nil, "%d,", n),
	}}, nil
}

func (s *tenure) Keep(_ context.Context, marks []input.Mark) error {
	if s.keep != nil {
		s.keep(marks)
	}
	return nil
}

func (s *tenure) Commit(_ context.Context, marks []input.Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	if s.keep != nil {
		s.keep(marks)
	}
	if s.failures > 0 {
		s.failures--
		return errors.New("broker is busy")
	}
	for _, m := range marks {
		if m.Term == s.term {
			s.committed = m.Next
		}
	}
	return nil
}

func (s *tenure) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func copyBodies(_ context.Context, dst *input.Batch, messages []input.Message) {
	for _, m := range messages {
		dst.Append("", m.Body)
	}
}

// drain is the host: it takes what is there and returns the bytes, in order.
func drain(o *input.Outbox) string {
	var got bytes.Buffer
	for b := o.Take(); b != nil; b = o.Take() {
		for c := b.Next(); c != nil; c = b.Next() {
			got.Write(c.Data)
			b.Taken()
		}
		o.Done(b)
	}
	return got.String()
}

func numbers(n int64) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "%d,", i)
	}
	return s.String()
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func TestPumpCommitsOnlyWhatTheHostTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 1000}
		o := input.NewOutbox(100 * 700)
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(io.Discard)}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })

		time.Sleep(time.Minute) // the host takes nothing
		synctest.Wait()
		if h.commits != 0 {
			t.Fatalf("%d commits of what nobody took", h.commits)
		}
		if o.Bytes() > 100*700 {
			t.Fatalf("outbox holds %d bytes", o.Bytes())
		}
		var got strings.Builder
		for got.Len() < len(numbers(1000)) {
			got.WriteString(drain(o))
			time.Sleep(time.Second)
		}
		if got.String() != numbers(1000) {
			t.Fatal("messages are missing, repeated or out of order")
		}
		cancel()
		run.Wait()
		if h.committed != 1000 || h.closed != 1 {
			t.Fatalf("committed %d of 1000 at the end, closed %d times", h.committed, h.closed)
		}
	})
}

func TestPumpCommitsWhatIsSafeWhenItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 10}
		o := input.NewOutbox(1 << 20)
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(io.Discard), CommitEvery: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		for range 4 {
			b := o.Take()
			for b.Next() != nil {
				b.Taken()
			}
			o.Done(b)
		}
		o.Close()
		cancel()
		run.Wait()
		if h.committed != 4 {
			t.Fatalf("committed %d, want the 4 that the host took of 10", h.committed)
		}
	})
}

// A host that is killed every few seconds must not begin at the same place each time.
func TestPumpCommitsSoonAfterItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 10}
		o := input.NewOutbox(1 << 20)
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(io.Discard)}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		drain(o)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		h.mu.Lock()
		committed := h.committed
		h.mu.Unlock()
		if committed != 10 {
			t.Errorf("committed %d after a second, want 10", committed)
		}
		cancel()
		run.Wait()
	})
}

// In a consumer group the end of one member is a rebalance for the others. The broker refuses
// commits for a moment, and a source that ends gives its lanes away.
func TestPumpCommitsInARebalanceAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 10, failures: 2, gives: true}
		o := input.NewOutbox(1 << 20)
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(io.Discard), CommitEvery: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		drain(o)
		o.Close()
		cancel()
		run.Wait()
		if h.committed != 10 {
			t.Fatalf("committed %d, want 10", h.committed)
		}
	})
}

func TestPumpGivesUpACommitAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 10, failures: 1e9}
		o := input.NewOutbox(1 << 20)
		var log bytes.Buffer
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(&log), CommitEvery: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		drain(o)
		started := time.Now()
		cancel()
		run.Wait()
		if took := time.Since(started); took > 10*time.Second {
			t.Errorf("the end took %v", took)
		}
		if n := strings.Count(log.String(), "gave up"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, log.String())
		}
	})
}

// The devices and ids of a message are stored before its position is, for any way in which the
// process is killed.
func TestPumpStoresBeforeItCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 1000}
		var mu sync.Mutex
		learned, stored, checked := int64(0), int64(0), 0
		h.keep = func(marks []input.Mark) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range marks {
				if checked++; m.Next > stored {
					t.Errorf("position %d is written, and what was learned up to %d", m.Next, stored)
				}
			}
		}
		o := input.NewOutbox(1 << 20)
		p := input.Pump{Open: h.open, Outbox: o, Log: logTo(io.Discard), Store: func() { mu.Lock(); stored = learned; mu.Unlock() },
			Transform: func(ctx context.Context, dst *input.Batch, messages []input.Message) {
				mu.Lock()
				learned = messages[len(messages)-1].Mark.Next
				mu.Unlock()
				copyBodies(ctx, dst, messages)
				time.Sleep(10 * time.Millisecond)
			}}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		for range 100 {
			drain(o)
			time.Sleep(100 * time.Millisecond)
		}
		drain(o)
		cancel()
		run.Wait()
		if h.committed < 900 || checked < 40 {
			t.Errorf("committed %d, %d positions written", h.committed, checked)
		}
	})
}

func TestPumpTriesACommitAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 10, failures: 3}
		o := input.NewOutbox(1 << 20)
		var log bytes.Buffer
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(&log)}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		drain(o)
		time.Sleep(time.Minute)
		synctest.Wait()
		if h.committed != 10 || h.commits != 4 {
			t.Errorf("committed %d in %d commits, want 10 in 4", h.committed, h.commits)
		}
		cancel()
		run.Wait()
		if n := strings.Count(log.String(), "broker is busy"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, log.String())
		}
	})
}

func TestPumpStartsAgainAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 20}
		panics := 2
		h.fetch = func(n int64) {
			if n == 10 && panics > 0 {
				panics--
				panic("source fell over")
			}
		}
		o := input.NewOutbox(1 << 20)
		var log bytes.Buffer
		p := input.Pump{Open: h.open, Transform: copyBodies, Outbox: o, Log: logTo(&log)}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		var got string
		for range 60 {
			got += drain(o)
			time.Sleep(time.Second)
		}
		cancel()
		run.Wait()
		if h.committed != 20 || h.opens != 3 || h.closed != 3 {
			t.Errorf("committed %d, opened %d, closed %d; want 20, 3, 3", h.committed, h.opens, h.closed)
		}
		for i := range 20 {
			if !strings.Contains(","+got, fmt.Sprintf(",%d,", i)) {
				t.Errorf("message %d is missing", i)
			}
		}
		if n := strings.Count(log.String(), "source fell over"); n != 2 {
			t.Errorf("said %d times, want 2", n)
		}
	})
}

// A transform that is cut short by the end of ctx has perhaps left records out: its batch must not
// be handed over.
func TestPumpDropsABatchThatWasCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 1}
		o := input.NewOutbox(1 << 20)
		p := input.Pump{Open: h.open, Outbox: o, Log: logTo(io.Discard),
			Transform: func(ctx context.Context, _ *input.Batch, _ []input.Message) { <-ctx.Done() }}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		synctest.Wait()
		cancel()
		run.Wait()
		if o.Batches() != 0 || h.committed != 0 {
			t.Errorf("%d batches, committed %d", o.Batches(), h.committed)
		}
	})
}

func TestNewTermIsNew(t *testing.T) {
	a, b := input.NewTerm(), input.NewTerm()
	if a == b || b < a {
		t.Errorf("terms %d, %d", a, b)
	}
}

func TestBackoff(t *testing.T) {
	b := input.Backoff{First: time.Second, Max: 8 * time.Second}
	for _, want := range []time.Duration{1, 2, 4, 8, 8, 8} {
		if d := b.Next(); d < want*time.Second/2 || d > want*time.Second {
			t.Errorf("waits %v, want %v to %v", d, want*time.Second/2, want*time.Second)
		}
	}
	b.Reset()
	if d := b.Next(); d > time.Second {
		t.Errorf("waits %v after a success", d)
	}
}

// The events of one message may be many times its size. They do not wait for its end: no more of
// them are held than the outbox may hold and a part. A part is not safe without the rest.
func TestEventsOfOneMessageAreQueuedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events, size, limit = 64, 1 << 20, 8 << 20
		h := &hub{messages: 2}
		o := input.NewOutbox(limit)
		made := 0
		p := input.Pump{Open: h.open, Outbox: o, Log: logTo(io.Discard), CommitEvery: time.Hour,
			Transform: func(_ context.Context, dst *input.Batch, messages []input.Message) {
				for range messages {
					for range events {
						made++
						dst.Append("", bytes.Repeat([]byte{byte(made)}, size))
					}
				}
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		for taken := 0; taken < events; {
			synctest.Wait()
			if held := made - taken; held > (limit+2*4<<20)/size {
				t.Fatalf("%d events of %d are held", held, events)
			}
			if marks := o.Safe("hub"); len(marks) > 0 {
				t.Fatalf("%v is safe after %d of %d events", marks, taken, events)
			}
			b := o.Take()
			for c := b.Next(); c != nil; c = b.Next() {
				for at := 0; at < len(c.Data); at += size {
					if taken++; c.Data[at] != byte(taken) {
						t.Fatalf("event %d comes as the %d.", c.Data[at], taken)
					}
				}
				b.Taken()
			}
			o.Done(b)
		}
		synctest.Wait()
		// The mark comes with the last part, which may hold no event.
		for b := o.Take(); b != nil && b.Next() == nil; b = o.Take() {
			o.Done(b)
			synctest.Wait()
		}
		if marks := o.Safe("hub"); len(marks) != 1 || marks[0].Next != 1 {
			t.Errorf("%v is safe at the end of the first message", marks)
		}
		cancel()
		<-ended
		if h.committed > 1 {
			t.Errorf("%d is committed, with half of the second message queued", h.committed)
		}
	})
}

// WhenPut comes once the batch is in the outbox. A batch that is given up, because there is no room
// or its transform panics, is not queued.
func TestPumpSaysWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{messages: 3}
		o := input.NewOutbox(1)
		var filled, queued, panics int
		p := input.Pump{Open: h.open, Outbox: o, Log: logTo(io.Discard)}
		p.Transform = func(ctx context.Context, dst *input.Batch, messages []input.Message) {
			copyBodies(ctx, dst, messages)
			dst.WhenPut(func() {
				queued++
				if n := o.Batches(); n == 0 {
					t.Error("said to be queued, and is not there")
				}
			})
			if filled++; filled == 2 {
				panics++
				panic("in the middle of a batch")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { p.Run(ctx) })
		time.Sleep(time.Minute) // the outbox has room for one batch
		synctest.Wait()
		if queued != 1 || panics != 1 || filled < 3 {
			t.Errorf("%d batches filled, %d panics, %d queued, while there is room for one", filled, panics, queued)
		}
		cancel()
		o.Close()
		run.Wait()
		if queued != 1 {
			t.Errorf("%d batches said to be queued when the outbox closes, want 1", queued)
		}
	})
}
