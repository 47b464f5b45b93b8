package blob

// warmUp finds out when the recent blobs of the containers that Config.Warm names have been read.
// Everything but the channel is under Source.mu.
//
// Nobody is called under that lock. Whoever brings the last blob to its end closes over, and Fetch
// calls Config.Warmed: all messages that were returned before have been worked on then.
type warmUp struct {
	on      bool           // it is to be found out, and is not yet
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

// listedFar notes that a container is listed as far back as the warm-up goes, or is not there.
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

// isFar tells whether a poll that has ended has listed that far. A container of another layout is
// listed by its sweep, and so is what lies before the look-back window.
func (c *container) isFar() bool {
	if c.s.full() {
		return false
	}
	p := c.sweeper.pass
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

// warmed lets go of a blob that was read as far as it is known, and of one that is not read. No
// worker has it, so Fetch has all that was read of it. s.mu is held.
func (s *Source) warmed(b *tail) {
	if s.warm.blobs[b] && !s.due(b) {
		delete(s.warm.blobs, b)
		s.warm.look()
	}
}

// warmWait is what Fetch waits for beside messages: nil once Config.Warmed was called.
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
