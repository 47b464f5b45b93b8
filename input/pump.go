package input

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// batchBytes is how much payload goes into one batch. A crash between two appends of a batch
// repeats its first part. So a batch is about as large as the part that a slow host takes in one
// visit.
const batchBytes = 512 << 10

var terms atomic.Uint64

// NewTerm returns a term that no lane of this process has had before. It starts from the clock, so
// that a term of an earlier process cannot be mistaken for one of this.
func NewTerm() uint64 {
	terms.CompareAndSwap(0, uint64(time.Now().UnixNano()))
	return terms.Add(1)
}

// Pump moves one source's messages through the transformer into the outbox, and its safe marks
// back.
type Pump struct {
	// Open makes the source. It is called again, after a pause, when the source has failed or
	// panicked. Messages that were not yet safe are then read again.
	Open func(ctx context.Context) (Source, error)

	// Transform appends the records of messages to dst. It waits for nobody: it keeps a record that
	// has to wait, and reports that with Batch.Keep. It must account for every message: it passes
	// on unreadable text as an unreadable record.
	Transform func(ctx context.Context, dst *Batch, messages []Message)

	// Late blocks until records that Transform has kept need to wait no longer, appends them to dst
	// and settles them with Batch.WhenPut. It runs beside Transform. When ctx ends it forgets the
	// records that it keeps and returns an error; no Transform runs then. nil if Transform keeps
	// nothing.
	Late func(ctx context.Context, dst *Batch) error

	// Store makes durable what Transform has learned from messages. It is called before their marks
	// are kept or committed, from the goroutine that does so, and logs what fails. May be nil.
	Store func()

	Outbox      *Outbox
	CommitEvery time.Duration // 0 for 5 s; the first commits come sooner
	Log         *slog.Logger
}

// Run works until ctx ends, then commits the safe marks and closes the source. It never panics.
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
	defer Catch("open the source", &err)
	src, err := p.Open(ctx)
	if err != nil {
		return err
	}
	p.Outbox.Safe(src.Name()) // marks of an earlier tenure mean nothing to this one

	fetching, endFetch := context.WithCancel(context.WithoutCancel(ctx))
	defer endFetch()
	var committing sync.WaitGroup
	fetched := make(chan struct{})
	c := newCommitter(p, src)
	committing.Go(func() { c.run(ctx, endFetch, fetched) })

	held := newWithheld()
	lating, endLate := context.WithCancel(context.WithoutCancel(ctx))
	defer endLate()
	var late sync.WaitGroup
	var lateErr error
	if p.Late != nil {
		late.Go(func() {
			if lateErr = p.late(ctx, lating, src, held); lateErr != nil && ctx.Err() == nil {
				endFetch() // or marks would be kept back for ever
			}
		})
	}
	err = p.forward(ctx, fetching, src, held)
	endLate()
	late.Wait()
	close(fetched)
	committing.Wait()
	return errors.Join(err, lateErr, closeSource(src))
}

// late queues what Transform has kept, and then the marks that had to wait for it. It returns nil
// when lating ends.
func (p *Pump) late(ctx, lating context.Context, src Source, held *withheld) (err error) {
	defer Catch("wait for devices of "+src.Name(), &err)
	b := &Batch{Source: src.Name(), held: held}
	for {
		b.Reset()
		if err := p.Late(lating, b); err != nil {
			if lating.Err() != nil {
				return nil
			}
			return err
		}
		if err := p.put(ctx, b); err != nil {
			return err
		}
		for marks := held.ready(); len(marks) > 0; marks = held.ready() {
			if err := p.putMarks(ctx, b, marks); err != nil {
				return err
			}
			held.drop(marks)
		}
	}
}

// put queues b, and calls what waits for that.
func (p *Pump) put(ctx context.Context, b *Batch) error {
	if err := p.Outbox.Put(ctx, b); err != nil {
		return err
	}
	for _, f := range b.whenPut {
		f()
	}
	return nil
}

// putMarks queues a batch of nothing but marks.
func (p *Pump) putMarks(ctx context.Context, b *Batch, marks []Mark) error {
	b.Reset()
	b.Marks = append(b.Marks, marks...)
	return p.Outbox.Put(ctx, b)
}

// forward fetches, transforms and queues until something ends it.
func (p *Pump) forward(ctx, fetching context.Context, src Source, held *withheld) (err error) {
	defer Catch("read "+src.Name(), &err)
	b := &Batch{Source: src.Name(), held: held}
	var full error // of a part that could not be queued; later events are dropped
	b.full = func() {
		if full == nil {
			full = p.Outbox.Put(ctx, b)
		}
		b.part()
	}
	for {
		messages, err := src.Fetch(fetching)
		if err != nil {
			return err
		}
		for len(messages) > 0 {
			n, size := 0, 0
			for n < len(messages) && (n == 0 || size < batchBytes && messages[n].Lease == messages[0].Lease) {
				size += len(messages[n].Body)
				n++
			}
			b.Reset()
			b.From(messages[0].Lease)
			held.begin()
			p.Transform(ctx, b, messages[:n])
			if err := ctx.Err(); err != nil {
				return err // a transform that was cut short may have left something out
			}
			if full != nil {
				return full
			}
			for i := range messages[:n] {
				b.Mark(messages[i].Mark)
			}
			var kept []Mark
			b.Marks, kept = held.split(b.Marks)
			if err := p.put(ctx, b); err != nil {
				return err
			}
			if free := held.add(kept); len(free) > 0 {
				if err := p.putMarks(ctx, b, free); err != nil {
					return err
				}
			}
			messages = messages[n:]
		}
	}
}

func closeSource(src Source) (err error) {
	defer Catch("close "+src.Name(), &err)
	return src.Close()
}
