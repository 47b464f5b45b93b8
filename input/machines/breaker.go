package machines

import (
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// breaker stops single look-ups after several in a row that have failed, or that took longer than
// rows wait. So nobody waits for an API that does not answer in time. It then lets one through
// after 15 seconds, twice as long after each further failure, up to 5 minutes.
type breaker struct {
	mu       sync.Mutex
	failures int
	slow     int
	until    time.Time // while open: when one may try
	backoff  input.Backoff
}

const tolerated = 3 // failures in a row, or slow answers

func newBreaker() *breaker {
	return &breaker{backoff: input.Backoff{First: 15 * time.Second, Max: 5 * time.Minute}}
}

// open tells whether calls are stopped.
func (b *breaker) open() bool { return b.failures >= tolerated || b.slow >= tolerated }

// closed tells whether calls go through.
func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.open()
}

// enter tells whether a call may be made now. While the breaker is open it is the one that tries,
// and the next may after probe.
func (b *breaker) enter(probe time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open() {
		return true
	}
	now := time.Now()
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(probe)
	return true
}

// due tells whether the breaker is open and one may try.
func (b *breaker) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open() && !time.Now().Before(b.until)
}

// answered ends a row of failures.
func (b *breaker) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = 0
	if !b.open() {
		b.backoff.Reset()
	}
}

// inTime ends a row of slow answers.
func (b *breaker) inTime() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = 0
}

// failed counts a failure, and tells whether the breaker is open now.
func (b *breaker) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	return b.trip()
}

// tooSlow counts a slow answer, and tells whether the breaker is open now.
func (b *breaker) tooSlow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow++
	return b.trip()
}

func (b *breaker) trip() bool {
	if b.open() {
		b.until = time.Now().Add(b.backoff.Next())
	}
	return b.open()
}
