package blob

import (
	"slices"
	"time"
)

// queue has the blobs with something to read. Fresh ones come first, so that alerts of this hour do
// not wait for those of last month. Every fourth turn is the backlog's.
type queue struct {
	fresh, old []*tail
	late       []*tail       // that failed, and wait
	pause      time.Time     // nothing is read before: many blobs in a row have failed
	streak     int           // how many
	turn       int           //
	changed    chan struct{} // closed when there is more
	retrying   int           // late blobs that are being read
	failed     bool          // the last of them failed again: then one at a time is enough
}

// ended notes that b's turn is over. s.mu is held.
func (q *queue) ended(b *tail, err error) {
	if !b.retrying {
		return
	}
	b.retrying = false
	q.retrying--
	q.failed = err != nil
	q.signal()
}

func (q *queue) signal() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// add queues b. s.mu is held.
func (s *Source) add(b *tail) {
	if b.queued || b.busy || b.gone {
		return
	}
	b.queued = true
	q := &s.queue
	switch {
	case !b.notBefore.IsZero():
		q.late = append(q.late, b)
	case s.inWindow(b):
		q.fresh = append(q.fresh, b)
	default:
		q.old = append(q.old, b)
	}
	q.signal()
}

// next waits for a blob to read, which is then busy: the caller's alone. It returns nil when the
// source closes.
func (s *Source) next() *tail {
	for {
		s.mu.Lock()
		b, wait := s.queue.pop(time.Now())
		if b != nil {
			b.queued, b.busy = false, true
			s.mu.Unlock()
			return b
		}
		changed := s.queue.changed
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-s.ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if s.ctx.Err() != nil {
			return nil
		}
	}
}

// pop returns the blob whose turn it is, or how long to wait for one.
func (q *queue) pop(now time.Time) (b *tail, wait time.Duration) {
	wait = time.Hour
	if d := q.pause.Sub(now); d > 0 {
		return nil, d
	}
	late, soon := q.ripe(now)
	if soon > 0 {
		wait = soon
	}
	if q.retrying > 0 && q.failed {
		late = -1
	}
	if late >= 0 && q.turn%8 == 7 {
		return q.retry(late), 0
	}
	q.turn++
	first, second := &q.fresh, &q.old
	if q.turn%4 == 0 {
		first, second = second, first
	}
	for _, list := range []*[]*tail{first, second} {
		for len(*list) > 0 {
			b := (*list)[0]
			(*list)[0] = nil
			*list = (*list)[1:]
			if !b.gone && b.shard.reading {
				return b, 0
			}
			b.queued = false
		}
	}
	if late >= 0 {
		return q.retry(late), 0
	}
	return nil, wait
}

// ripe returns which of the late blobs may be tried again, -1 for none, and otherwise how long to
// wait for the first.
func (q *queue) ripe(now time.Time) (i int, wait time.Duration) {
	q.late = slices.DeleteFunc(q.late, func(b *tail) bool {
		over := b.gone || !b.shard.reading
		if over {
			b.queued = false
		}
		return over
	})
	for i, b := range q.late {
		d := b.notBefore.Sub(now)
		if d <= 0 {
			return i, 0
		}
		if wait == 0 || d < wait {
			wait = d
		}
	}
	return -1, wait
}

// retry takes a late blob out.
func (q *queue) retry(i int) *tail {
	b := q.late[i]
	q.late = slices.Delete(q.late, i, i+1)
	b.notBefore, b.retrying = time.Time{}, true
	q.turn++
	q.retrying++
	return b
}
