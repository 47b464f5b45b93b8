package input

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the wait between attempts: First, then twice as long each time, up to Max. Each wait
// is drawn from its upper half: clients that failed together must not come back together. The zero
// value waits 1 to 30 seconds.
type Backoff struct {
	First, Max time.Duration
	next       time.Duration
}

// Next is how long to wait now.
func (b *Backoff) Next() time.Duration {
	first, limit := b.First, b.Max
	if first <= 0 {
		first = time.Second
	}
	if limit <= 0 {
		limit = 30 * time.Second
	}
	if b.next < first {
		b.next = first
	}
	d := b.next
	b.next = min(2*b.next, limit)
	return d/2 + rand.N(d/2+1)
}

// Reset makes the next wait the first again, after a success.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for d, or until ctx ends, whose error it then returns.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
