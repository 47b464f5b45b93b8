package input

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lease is a worker's right to hand over the events that it reads, where several workers share the
// lanes. It holds for a while, and its giver extends it. Once it was over it is lost for good, also
// when an extension comes after that: another worker may have begun meanwhile. A nil Lease is that
// of lanes which nobody shares, and always holds.
//
// A Lease goes with the events. It is checked right before each append to the host, by clocks that
// run on while this process, or the machine, is stopped.
type Lease struct {
	mu   sync.Mutex
	from Instant // when what holds now began
	d    time.Duration
	lost bool
}

// Instant is a reading of the clocks that a lease goes by.
type Instant struct {
	boot time.Duration // since the machine started, with the time for which it was suspended
	wall time.Time     // without the monotonic reading, which stops with the machine
}

var started = time.Now()

// Now reads the clocks. The lease counts from before the request for it.
func Now() Instant {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		t = unix.NsecToTimespec(int64(time.Since(started)))
	}
	return Instant{boot: time.Duration(t.Nano()), wall: time.Now().Round(0)}
}

// Since is the time from i to now: the longer one by two clocks. A machine may stop without notice,
// such as a virtual machine that is moved: its wall clock is set right later. A wall clock that is
// set ahead costs a lease, and that only repeats events.
func (i Instant) Since() time.Duration {
	now := Now()
	return max(now.boot-i.boot, now.wall.Sub(i.wall))
}

// OnlyLearn is the lease of messages that another worker hands over: they are read for their
// devices only.
var OnlyLearn = NewLease(Now(), math.MaxInt64)

// NewLease returns a lease that holds for d from an instant on.
func NewLease(from Instant, d time.Duration) *Lease { return &Lease{from: from, d: d} }

// Held tells whether the lease still holds. It is lost when it does not.
func (l *Lease) Held() bool { return l.Left() > 0 }

// Left is for how long it still holds without an extension; 0 when it is lost.
func (l *Lease) Left() time.Duration {
	if l == nil {
		return time.Hour
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left()
}

func (l *Lease) left() time.Duration {
	if l.lost {
		return 0
	}
	left := l.d - l.from.Since()
	l.lost = left <= 0
	return max(left, 0)
}

// Extend has the lease hold for d from an instant on. It returns false when it was lost before.
func (l *Lease) Extend(from Instant, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left() == 0 {
		return false
	}
	l.from, l.d = from, d
	return true
}

// Lose ends the lease.
func (l *Lease) Lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
}
