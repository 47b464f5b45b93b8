package blob

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// AccountName is for tests.
var AccountName = accountName

// SetMost sets how many blobs are followed.
func (s *Source) SetMost(idle, active int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxIdle, s.maxActive = idle, active
}

// SetShardMost sets how many bytes a shard's blob may have, before anything is read.
func (s *Source) SetShardMost(bytes int) { s.shared.most.Store(int64(bytes)) }

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

// PackedPositions is the blob of a shard with so many positions of a container.
func PackedPositions(container string, n int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	values := make(map[string]string)
	for i := range n {
		e := entry{form: plain, place: atLine, offset: rng.Int64N(1 << 30), created: 1_700_000_000 + int64(i), modified: 1_700_003_600 + int64(i), head: head{n: headMax}, etag: fmt.Sprintf(`"0x8DE%012X"`, rng.Int64N(1<<48))}
		for k := range headKept {
			e.head.sum[k] = byte(rng.Int())
		}
		values[fmt.Sprintf("%s/flows/%08d.json", container, i)] = e.pack()
	}
	return packAll(values)
}
