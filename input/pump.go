package input

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// batchBytes is how much payload goes into one batch. A crash or an exit between two appends of a batch repeats what was appended
// of it, so it is about what a slow host takes in one visit.
const batchBytes = 512 << 10

var terms atomic.Uint64

// NewTerm returns a term that no lane of this process has had before. It starts from the clock, so that a term of
// an earlier process cannot be mistaken for one of this.
func NewTerm() uint64 {
	terms.CompareAndSwap(0, uint64(time.Now().UnixNano()))
	return terms.Add(1)
}

// Pump moves one source's messages through the transformer into the outbox, and its safe marks back.
type Pump struct {
	// Open makes the source. It is called again, after a pause, when the source has failed or panicked: what was not
	// yet safe is then read again.
	Open func(ctx context.Context) (Source, error)

	// Transform appends the records of messages to dst. It may block as long as device_info.wait.
	// It must account for every message: what cannot be read goes on as an unreadable record.
	Transform func(ctx context.Context, dst *Batch, messages []Message)

	Outbox      *Outbox
	CommitEvery time.Duration // 0 for 5 s; the first commits come sooner
	Log         *slog.Logger
}

// Run works until ctx ends, then commits what is safe and closes the source. It never panics.
func (p *Pump) Run(ctx context.Context) {
	var wait Backoff
	for ctx.Err() == nil {
		started := time.Now()
		err := p.tenure(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			wait.Reset()
		}
		d := wait.Next()
		p.Log.Error("source stopped; it starts again from its last safe position", "error", err, "in", d.Round(time.Millisecond))
		_ = Sleep(ctx, d)
	}
}

// tenure is the life of one Source.
func (p *Pump) tenure(ctx context.Context) (err error) {
	defer catch(&err)
	src, err := p.Open(ctx)
	if err != nil {
		return err
	}
	p.Outbox.Safe(src.Name()) // marks of an earlier tenure mean nothing to this one

	// When ctx ends, what is safe is committed first and Fetch is ended after that: a source that ends, or that gives lanes
	// away at that moment, would have to drop their marks.
	fetching, endFetch := context.WithCancel(context.WithoutCancel(ctx))
	defer endFetch()
	var committer sync.WaitGroup
	stop := make(chan struct{})
	committer.Go(func() { p.commit(ctx, src, stop, endFetch) })
	err = p.forward(ctx, fetching, src)
	close(stop)
	committer.Wait()
	return errors.Join(err, closeSource(src))
}

// forward fetches, transforms and queues until something ends it.
func (p *Pump) forward(ctx, fetching context.Context, src Source) (err error) {
	defer catch(&err)
	b := &Batch{Source: src.Name()}
	for {
		messages, err := src.Fetch(fetching)
		if err != nil {
			return err
		}
		for len(messages) > 0 {
			n, size := 0, 0
			for n < len(messages) && (n == 0 || size < batchBytes) {
				size += len(messages[n].Body)
				n++
			}
			b.Reset()
			p.Transform(ctx, b, messages[:n])
			if err := ctx.Err(); err != nil {
				return err // a transform that was cut short may have left something out
			}
			for i := range messages[:n] {
				b.Mark(messages[i].Mark)
			}
			if err := p.Outbox.Put(ctx, b); err != nil {
				return err
			}
			messages = messages[n:]
		}
	}
}

const (
	// commitWait is the most that one commit may take, and all those at the end together.
	commitWait = 10 * time.Second

	// A commit at the end that fails is tried again for a while: a rebalance, which the end of another instance may cause,
	// refuses commits for a moment, and nobody comes after this one.
	lastTries = 3 * time.Second
	lastPause = 250 * time.Millisecond
)

// commit hands safe marks to the source on a timer, and at the end: when ctx ends, after which it calls endFetch, and at stop.
func (p *Pump) commit(ctx context.Context, src Source, stop <-chan struct{}, endFetch func()) {
	every := p.CommitEvery
	if every <= 0 {
		every = 5 * time.Second
	}
	// The first commits come sooner, so that a host that dies again and again, and soon, still gets on.
	wait := min(time.Second, every)
	tick := time.NewTimer(wait)
	defer tick.Stop()
	pending := make(Marks)
	failing := false
	once := func(ctx context.Context) error {
		for _, m := range p.Outbox.Safe(src.Name()) {
			pending.Set(m)
		}
		if len(pending) == 0 {
			return nil
		}
		marks := make([]Mark, 0, len(pending))
		for _, m := range pending {
			marks = append(marks, m)
		}
		err := commitMarks(ctx, src, marks)
		switch {
		case err == nil:
			clear(pending)
			if failing {
				p.Log.Info("commit positions: works again")
			}
		case !failing:
			p.Log.Warn("commit positions: will be tried again; a restart meanwhile repeats events", "error", err, "lanes", len(marks))
		}
		failing = err != nil
		return err
	}

	// Not the pump's context: the last commits come after that has ended.
	ends := time.Time{}
	atEnd := func(final bool) {
		if ends.IsZero() {
			ends = time.Now().Add(commitWait)
		}
		last, cancel := context.WithDeadline(context.Background(), ends)
		defer cancel()
		started := time.Now()
		for last.Err() == nil {
			err := once(last)
			if err == nil {
				return
			}
			if time.Since(started) >= lastTries || Sleep(last, lastPause) != nil {
				if final {
					p.Log.Warn("commit positions: given up at the end; the next start repeats events", "error", err)
				}
				return
			}
		}
	}
	ended := ctx.Done()
	for {
		select {
		case <-tick.C:
			short, cancel := context.WithTimeout(context.Background(), commitWait)
			_ = once(short)
			cancel()
			wait = min(2*wait, every)
			tick.Reset(wait)
		case <-ended:
			ended = nil
			atEnd(false)
			endFetch()
		case <-stop:
			atEnd(true)
			return
		}
	}
}

func commitMarks(ctx context.Context, src Source, marks []Mark) (err error) {
	defer catch(&err)
	return src.Commit(ctx, marks)
}

func closeSource(src Source) (err error) {
	defer catch(&err)
	return src.Close()
}

// catch turns a panic into an error that carries its stack: a panic in one source must neither end the host nor the
// other sources.
func catch(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
	}
}
