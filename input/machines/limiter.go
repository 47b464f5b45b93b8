package machines

import (
	"context"
	"sync"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// The API allows 100 calls in a minute and 1,500 in an hour to one application
// (learn.microsoft.com/defender-endpoint/api/get-machines, "rate limitations"). Nobody says when a
// minute of the service begins, so the limiter keeps both limits in every window of that length. A
// call arrives later than it was sent, so the windows are a little longer than the real ones.
const (
	perMinute = 100
	perHour   = 1500
	minute    = time.Minute + 2*time.Second
	hour      = time.Hour + 30*time.Second
)

// quota is the count of all calls in a window up to which a kind of call is made. The rest is for
// the other kind. So a list of many pages does not keep an alert waiting for its device. And a
// flood of unknown devices does not hold up the list.
type quota struct{ minute, hour int }

var (
	forLookup = quota{perMinute, perHour - 200}
	forPage   = quota{perMinute / 2, perHour}
)

// limiter says when the next call may be made. A token bucket would allow twice the number in a
// window that straddles a refill; this remembers when the last calls were made.
type limiter struct {
	mu    sync.Mutex
	calls [perHour]time.Time // a ring of the last calls
	n     int                // calls ever made; the last is at n-1
	pause time.Time          // the service said: not before

	waited time.Duration // by all calls together
}

// ago is when the k-th last call was made, or the zero time.
func (l *limiter) ago(k int) time.Time {
	if k > l.n {
		return time.Time{}
	}
	return l.calls[(l.n-k)%perHour]
}

// delay is how long it takes until a call of q may be made, if nobody else makes one.
func (l *limiter) delay(q quota, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delayLocked(q, now)
}

func (l *limiter) delayLocked(q quota, now time.Time) time.Duration {
	d := l.pause.Sub(now)
	if at := l.ago(q.minute); !at.IsZero() {
		d = max(d, at.Add(minute).Sub(now))
	}
	if at := l.ago(q.hour); !at.IsZero() {
		d = max(d, at.Add(hour).Sub(now))
	}
	return max(d, 0)
}

// wait takes the next call, as soon as one of q may be made, or returns the error of ctx.
func (l *limiter) wait(ctx context.Context, q quota) error {
	for {
		now := time.Now()
		l.mu.Lock()
		d := l.delayLocked(q, now)
		if d == 0 {
			l.calls[l.n%perHour] = now
			l.n++
		}
		l.mu.Unlock()
		if d == 0 {
			return ctx.Err()
		}
		err := input.Sleep(ctx, d)
		l.mu.Lock()
		l.waited += time.Since(now)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// hold lets nobody call before now + d.
func (l *limiter) hold(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := time.Now().Add(d); t.After(l.pause) {
		l.pause = t
	}
}
