package blob

import "slices"

// SetMost sets how many blobs are followed.
func (s *Source) SetMost(idle, active int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxIdle, s.maxActive = idle, active
}

// ShardOf is the number of the shard that a blob falls to.
func (s *Source) ShardOf(container, name string) int { return s.shardOf(container, name).n }

// ShardsRead are the numbers of the shards that are read.
func (s *Source) ShardsRead() (numbers []int) {
	for h := range s.readNow() {
		numbers = append(numbers, h.n)
	}
	slices.Sort(numbers)
	return numbers
}

// Active is how many blobs are counted as followed.
func (s *Source) Active() int { s.mu.Lock(); defer s.mu.Unlock(); return s.active }
