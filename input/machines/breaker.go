package machines

import (
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// breaker stops single look-ups after several failures in a row, so that records do not wait for an
// API that does not answer. It then lets one through after 15 seconds, twice as long after each
// further failure, up to 5 minutes.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time // while open: when one may try
	backoff  input.Backoff
}

const tolerated = 3 // failures in a row

func newBreaker() *breaker {
	return &breaker{backoff: input.Backoff{First: 15 * time.Second, Max: 5 * time.Minute}}
}

// closed tells whether calls go through.
func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures < tolerated
}

// enter tells whether a call may be made now. While the breaker is open it is the one that tries,
// and the next may after probe.
func (b *breaker) enter(probe time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < tolerated {
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
	return b.failures >= tolerated && !time.Now().Before(b.until)
}

// answered closes the breaker.
func (b *breaker) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = 0
	b.backoff.Reset()
}

// failed counts a failure, and tells whether the breaker is open now.
func (b *breaker) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	if b.failures < tolerated {
		return false
	}
	b.until = time.Now().Add(b.backoff.Next())
	return true
}
