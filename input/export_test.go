package input

import "time"

// HealNow makes a State that was given up try again at its next use.
func HealNow(s *State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = time.Time{}
}
