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

// batchBytes is how much payload goes into one batch. A crash between two appends of a batch repeats what was appended
// of it, so it is not larger than it needs to be to fill chunks when every table has a tag of its own.
const batchBytes = 2 << 20

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
	CommitEvery time.Duration // 0 for 5 s
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

	var committer sync.WaitGroup
	stop := make(chan struct{})
	committer.Go(func() { p.commit(src, stop) })
	err = p.forward(ctx, src)
	close(stop)
	committer.Wait()
	return errors.Join(err, closeSource(src))
}

// forward fetches, transforms and queues until something ends it.
func (p *Pump) forward(ctx context.Context, src Source) (err error) {
	defer catch(&err)
	for {
		messages, err := src.Fetch(ctx)
		if err != nil {
			return err
		}
		for len(messages) > 0 {
			n, size := 0, 0
			for n < len(messages) && (n == 0 || size < batchBytes) {
				size += len(messages[n].Body)
				n++
			}
			b := p.Outbox.Batch(src.Name())
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

// commit hands safe marks to the source on a timer, and once more at the end.
func (p *Pump) commit(src Source, stop <-chan struct{}) {
	every := p.CommitEvery
	if every <= 0 {
		every = 5 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	pending := make(Marks)
	failing := false
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-stop:
			last = true
		}
		for _, m := range p.Outbox.Safe(src.Name()) {
			pending.Set(m)
		}
		if len(pending) == 0 {
			continue
		}
		marks := make([]Mark, 0, len(pending))
		for _, m := range pending {
			marks = append(marks, m)
		}
		// Not the pump's context: the last commit comes after that has ended. A shutdown waits no longer than this.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := commitMarks(ctx, src, marks)
		cancel()
		if err != nil {
			if !failing || last {
				p.Log.Warn("commit positions: will be tried again; a restart meanwhile repeats events", "error", err, "lanes", len(marks))
			}
			failing = true
			continue
		}
		if failing {
			p.Log.Info("commit positions: works again")
		}
		failing = false
		clear(pending)
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
