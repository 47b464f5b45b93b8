package main

import (
	"context"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// A generator tells the story, and enters every record into the ledger.
type generator struct {
	mu     sync.Mutex
	story  *story.Story
	ledger *ledger
	record []byte

	repeats int // of a hundred records, so many repeat one of the last
	recent  [][]byte
	drawn   int
}

func newGenerator(seed uint64, l *ledger) *generator {
	return &generator{story: story.New(story.Options{Seed: seed, AlertEvery: 500}), ledger: l}
}

// next returns a record: a new one, or one that came before, as the service delivers some again.
func (g *generator) next() []byte {
	if g.drawn += 7919; g.repeats > 0 && len(g.recent) > 100 && g.drawn%100 < g.repeats {
		return g.recent[g.drawn%len(g.recent)]
	}
	g.record = g.story.AppendRecord(g.record[:0])
	g.ledger.enter(g.record)
	if g.repeats > 0 {
		const remembered = 3000
		if len(g.recent) < remembered {
			g.recent = append(g.recent, nil)
		}
		at := int(g.story.Number()) % len(g.recent)
		g.recent[at] = append(g.recent[at][:0], g.record...)
	}
	return g.record
}

// envelope returns n records as the body of an Event Hubs message.
func (g *generator) envelope(n int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := []byte(`{"records":[`)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, g.next()...)
	}
	return append(b, `]}`...)
}

// envelopeOf returns as many records as fit into size bytes, as the body of an Event Hubs message.
func (g *generator) envelopeOf(size int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := []byte(`{"records":[`)
	for len(b) < size-4096 {
		if len(b) > 20 {
			b = append(b, ',')
		}
		b = append(b, g.next()...)
	}
	return append(b, `]}`...)
}

// lines returns n records as lines of a blob.
func (g *generator) lines(n int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b []byte
	for range n {
		b = append(append(b, g.next()...), '\r', '\n')
	}
	return b
}

// A feed puts events in at a steady pace, so that there is load when the fault comes.
type feed struct {
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// feed calls put with a number of events, again and again, until there were n within about d. put
// is not called while the run's valve is closed: a fault of the broker must not make the harness
// itself produce twice.
func (r *run) feed(n int, d time.Duration, put func(events int) error) *feed {
	const pace = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(r.ctx)
	f := &feed{stop: cancel, done: make(chan struct{})}
	r.cleanup(func() { cancel(); <-f.done })
	go func() {
		defer close(f.done)
		begin := time.Now()
		for fed := 0; fed < n && ctx.Err() == nil; {
			due := n
			if d > 0 {
				due = min(n, int(float64(n)*float64(time.Since(begin)+pace)/float64(d)))
			}
			// In small helpings, so that the valve can close soon and nothing is generated long
			// before it is put in.
			if events := min(due-fed, 2000); events > 0 {
				r.valve.Lock()
				f.err = put(events)
				r.valve.Unlock()
				if f.err != nil {
					return
				}
				fed += events
				continue
			}
			pause(ctx, pace/2)
		}
	}()
	return f
}

// wait returns when all is fed.
func (f *feed) wait(r *run) {
	<-f.done
	if f.err != nil {
		r.fatalf("put events in: %v", f.err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
