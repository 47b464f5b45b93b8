package input

import "time"

// HealNow makes a State that was given up try again at its next use.
func HealNow(s *State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = time.Time{}
}

// Before is i as it was when the clock of the machine's life, and that of the wall, showed less.
func (i Instant) Before(boot, wall time.Duration) Instant {
	return Instant{boot: i.boot - boot, wall: i.wall.Add(-wall)}
}

// Take returns the oldest batch that waits, or nil.
func (o *Outbox) Take() *Batch {
	if batches := o.Waiting(nil, 0); len(batches) > 0 {
		return batches[0]
	}
	return nil
}

// Taken says that the host has taken the chunk that Next returned.
func (b *Batch) Taken() { b.Next().taken = true }
