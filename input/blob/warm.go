package blob

// warmUp finds out when the recent blobs of the containers that Config.Warm names have been read.
// Everything but the channel is under Source.mu.
//
// No callback runs under that lock. The goroutine that brings the last blob to its end closes over,
// and Fetch calls Config.Warmed. All messages that were returned before have been worked on then.
type warmUp struct {
	on      bool           // the warm-up is awaited, and not over yet
	finding bool           // the containers of patterns are still looked for
	listing int            // containers that are not listed as far back yet
	blobs   map[*tail]bool // blobs that were listed with something to read
	over    chan struct{}  // closed when it is
}

func newWarmUp(on bool) warmUp {
	return warmUp{on: on, finding: true, blobs: make(map[*tail]bool), over: make(chan struct{})}
}

// look ends the warm-up when nothing is missing. s.mu is held.
func (w *warmUp) look() {
	if w.on && !w.finding && w.listing == 0 && len(w.blobs) == 0 {
		w.on = false
		close(w.over)
	}
}

// found notes that the containers of all patterns are known.
func (s *Source) found() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warm.finding = false
	s.warm.look()
}

// listedFar notes that a container is listed as far back as the warm-up goes, or does not exist.
func (c *container) listedFar() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.warming {
		c.warming = false
		s.warm.listing--
		s.warm.look()
	}
}

// isFar reports whether a poll that has ended has listed that far. The sweep lists containers of
// another layout, and blobs from before the look-back window.
func (c *container) isFar() bool {
	if c.s.full() {
		return false
	}
	p := c.sweeper.pass
	if c.learnt != nil {
		return true // only the owner of a shard sweeps, and the days of the window are listed
	}
	return !c.others && c.s.cfg.WarmUp <= c.s.cfg.Lookback || p != nil && p.ended
}

// recent tells whether a blob belongs to the warm-up.
func (s *Source) recent(modified int64) bool {
	return modified >= s.account.now().Add(-s.cfg.WarmUp).Unix()
}

// warms notes a blob that was listed with something to read. s.mu is held.
func (s *Source) warms(b *tail) {
	if b.c.warming && s.recent(b.modified) && (b.busy || s.due(b)) {
		s.warm.blobs[b] = true
	}
}

// warmed lets go of a blob that was read to its known end, and of one that is not read. No worker
// has it, so Fetch has all of its messages. s.mu is held.
func (s *Source) warmed(b *tail) {
	if s.warm.blobs[b] && !s.due(b) {
		delete(s.warm.blobs, b)
		s.warm.look()
	}
}

// warmWait is the channel that Fetch waits for beside messages: nil once Config.Warmed was called.
func (s *Source) warmWait() <-chan struct{} {
	if s.cfg.Warmed == nil || s.warmTold {
		return nil
	}
	return s.warm.over
}

// tellWarm calls Config.Warmed, once, from Fetch and without a lock.
func (s *Source) tellWarm() {
	s.warmTold = true
	s.cfg.Warmed()
}
