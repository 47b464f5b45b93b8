package blob

// SetMost sets how many blobs are followed.
func (s *Source) SetMost(idle, active int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxIdle, s.maxActive = idle, active
}

// Active is how many blobs are counted as followed.
func (s *Source) Active() int { s.mu.Lock(); defer s.mu.Unlock(); return s.active }
