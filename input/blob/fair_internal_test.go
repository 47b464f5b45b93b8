package blob

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Workers that come and go by chance, and see the same list, come to a fair share: from wherever
// they stand, in a bounded number of looks, and then nobody claims or asks any more.
func TestFair(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		shards, workers := 1+rng.IntN(64), 1+rng.IntN(12)
		all := make([]owned, shards)
		for n := range all {
			all[n].n = n
			if k := rng.IntN(workers + 1); k > 0 && rng.IntN(3) > 0 {
				all[n].owner = fmt.Sprint("worker", rng.IntN(k))
			}
		}
		gave, round := make(map[int]string), 0
		gaveIn := make(map[int]int)
		look := func(me string) (moved bool) {
			for i, h := range all { // asked for before: the owner gives it back
				if h.leaving && h.owner == me {
					all[i].owner, all[i].leaving = "", false
					gave[i], gaveIn[i] = me, round
					moved = true
				}
			}
			seen := append([]owned(nil), all...)
			for i := range seen { // it leaves what it gave back to another for a while
				if seen[i].owner == "" && gave[i] == me && round-gaveIn[i] < 3 {
					seen[i].owner, seen[i].leaving = nobody, true
				}
			}
			claim, ask := fair(seen, me)
			for _, h := range claim {
				if all[h.n].owner != "" {
					t.Fatalf("seed %d: claims shard %d of %s", seed, h.n, all[h.n].owner)
				}
				all[h.n].owner, moved = me, true
			}
			if len(ask) > asksAtOnce {
				t.Fatalf("seed %d: asks for %d", seed, len(ask))
			}
			for _, h := range ask {
				if o := all[h.n]; o.owner == "" || o.owner == me || o.leaving {
					t.Fatalf("seed %d: asks for %+v", seed, o)
				}
				all[h.n].leaving, moved = true, true
			}
			return moved
		}
		quiet := 0
		// Who has none is not seen by the others, and one of them may be faster to claim the shard
		// that it asked for. That takes long only by chance.
		for ; quiet < 4 && round < 40*shards+200; round++ {
			quiet++
			for _, k := range rng.Perm(workers) {
				if look(fmt.Sprint("worker", k)) {
					quiet = 0
				}
			}
		}
		has := make(map[string]int)
		for _, h := range all {
			has[h.owner]++
		}
		if quiet < 4 {
			t.Errorf("seed %d: %d workers do not settle over %d shards: %v", seed, workers, shards, has)
		}
		for k := range workers {
			if n := has[fmt.Sprint("worker", k)]; n < shards/workers || n > (shards+workers-1)/workers {
				t.Errorf("seed %d: worker%d has %d of %d shards, among %d workers: %v", seed, k, n, shards, workers, has)
			}
		}
	}
}
