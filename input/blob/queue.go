package blob

import (
	"time"
)

// queue is the blobs that have something to read: fresh ones first, so that alerts of this hour do not wait for those of last
// month, but every fourth turn is the backlog's.
type queue struct {
	fresh, old []*blobState
	late       []*blobState  // that failed, and wait
	pause      time.Time     // nobody reads before: many blobs in a row have failed
	streak     int           // how many
	turn       int           //
	changed    chan struct{} // closed when there is more
}

// add queues b. s.mu is held.
func (s *Source) add(b *blobState) {
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
	close(q.changed)
	q.changed = make(chan struct{})
}

// next waits for a blob to read, which is then busy: the caller's alone. It returns nil when the source closes.
func (s *Source) next() *blobState {
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
func (q *queue) pop(now time.Time) (b *blobState, wait time.Duration) {
	wait = time.Hour
	if d := q.pause.Sub(now); d > 0 {
		return nil, d
	}
	if len(q.late) > 0 {
		still := q.late[:0]
		for _, b := range q.late {
			if d := b.notBefore.Sub(now); d > 0 && !b.gone {
				wait = min(wait, d)
				still = append(still, b)
				continue
			}
			b.notBefore = time.Time{}
			q.fresh = append(q.fresh, b)
		}
		clear(q.late[len(still):])
		q.late = still
	}
	q.turn++
	first, second := &q.fresh, &q.old
	if q.turn%4 == 0 {
		first, second = second, first
	}
	for _, list := range []*[]*blobState{first, second} {
		for len(*list) > 0 {
			b := (*list)[0]
			(*list)[0] = nil
			*list = (*list)[1:]
			if !b.gone {
				return b, 0
			}
			b.queued = false
		}
	}
	return nil, wait
}
