package input

import (
	"context"
	"log/slog"
	"time"
)

const (
	// commitWait is the most that one commit may take, and all those at the end together.
	commitWait = 10 * time.Second

	// A commit at the end that fails is tried again for a while. The end of another instance may
	// cause a rebalance, which refuses commits for a moment, and no later commit makes up for this
	// one.
	lastTries = 3 * time.Second
	lastPause = 250 * time.Millisecond

	// keepEvery is how often marks are written to this machine's disk. A slow disk makes it rarer.
	keepEvery = 200 * time.Millisecond
)

// committer takes marks from the outbox, where they are safe, to their source. It has one
// goroutine.
//
//	while ctx lasts        keep, keep, keep ...    write what became safe since to this machine's disk
//	                       tick, tick ...          and commit it, more rarely
//	ctx ends               last(false)             commit first, while every lane is still ours:
//	                       endFetch()              a Fetch that ends may give lanes away, and drop their marks
//	Fetch has returned     last(true)              commit what the host took meanwhile
//
// Each of them first stores the devices and ids learned from the messages. A process that is killed
// in between reads a message again, and never has a position behind a report that it has forgotten.
type committer struct {
	source   Source
	store    func()
	outbox   *Outbox
	every    time.Duration
	log      *slog.Logger
	troubles *Troubles

	pending Marks     // safe, and not committed
	ends    time.Time // when the last commits have to be over; zero before the first of them
}

func newCommitter(p *Pump, src Source) *committer {
	c := &committer{source: src, outbox: p.Outbox, every: p.CommitEvery, log: p.Log, troubles: NewTroubles(p.Log), pending: make(Marks), store: p.Store}
	if c.store == nil {
		c.store = func() {}
	}
	if c.every <= 0 {
		c.every = 5 * time.Second
	}
	return c
}

// run commits until fetched is closed. When ctx ends, it calls endFetch.
func (c *committer) run(ctx context.Context, endFetch func(), fetched <-chan struct{}) {
	// The first commits come sooner, so that a host that dies again and again, and soon, still
	// makes progress.
	wait := min(time.Second, c.every)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	keep := time.NewTimer(keepEvery)
	defer keep.Stop()
	ended := ctx.Done()
	for {
		select {
		case <-keep.C:
			c.keep()
			keep.Reset(keepEvery)
		case <-timer.C:
			// It does not use ctx: a commit that is under way when ctx ends should arrive.
			short, cancel := context.WithTimeout(context.Background(), commitWait)
			_ = c.tick(short)
			cancel()
			wait = min(2*wait, c.every)
			timer.Reset(wait)
		case <-ended:
			ended = nil
			c.last(false)
			endFetch()
		case <-fetched:
			c.last(true)
			return
		}
	}
}

// keep has the source write what became safe since the last call. Commit tries the marks that it
// cannot write.
func (c *committer) keep() {
	marks := c.outbox.Safe(c.source.Name())
	if len(marks) == 0 {
		return
	}
	for _, m := range marks {
		c.pending.Set(m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitWait)
	defer cancel()
	err := func() (err error) {
		defer Catch("keep positions", &err)
		c.store()
		return c.source.Keep(ctx, marks)
	}()
	if err != nil {
		c.log.Debug("keep positions: left to the next commit", "error", err)
	}
}

// tick commits the safe marks. Those that the source refuses stay pending.
func (c *committer) tick(ctx context.Context) error {
	for _, m := range c.outbox.Safe(c.source.Name()) {
		c.pending.Set(m)
	}
	if len(c.pending) == 0 {
		return nil
	}
	marks := make([]Mark, 0, len(c.pending))
	for _, m := range c.pending {
		marks = append(marks, m)
	}
	if err := c.commit(ctx, marks); err != nil {
		c.troubles.Begin("commit of positions", "", "commit", slog.LevelWarn,
			"commit positions: retrying; a restart before that works repeats events", "error", err, "lanes", len(marks))
		return err
	}
	clear(c.pending)
	c.troubles.End("commit of positions", "")
	return nil
}

func (c *committer) commit(ctx context.Context, marks []Mark) (err error) {
	defer Catch("commit positions", &err)
	c.store()
	return c.source.Commit(ctx, marks)
}

// last commits at the end, again and again within lastTries. All calls together take at most
// commitWait. final: no call comes after this one.
func (c *committer) last(final bool) {
	started := time.Now()
	if c.ends.IsZero() {
		c.ends = started.Add(commitWait)
	}
	ctx, cancel := context.WithDeadline(context.Background(), c.ends)
	defer cancel()
	for ctx.Err() == nil {
		err := c.tick(ctx)
		if err == nil {
			return
		}
		if time.Since(started) >= lastTries || Sleep(ctx, lastPause) != nil {
			if final {
				c.log.Warn("commit positions: gave up at the end of this section; its next start repeats events", "error", err)
			}
			return
		}
	}
}
