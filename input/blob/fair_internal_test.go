package blob

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
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
		gaveIn, asked := make(map[int]int), make(map[int]string)
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
				seen[i].coming = all[i].leaving && asked[i] == me
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
				all[h.n].leaving, asked[h.n], moved = true, me, true
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

// Workers that look at their own times come to a fair share within a minute, in 99 of 100 draws. A
// shard that was given up is no longer without an owner than from one look to the next.
func TestFairSoon(t *testing.T) {
	for _, c := range []struct {
		name  string
		owner func(rng *rand.Rand, n int) int // before; below 0 for none
		young bool                            // all but the first have just started
	}{
		{"nine join one", func(*rand.Rand, int) int { return 0 }, true},
		{"ten start", func(*rand.Rand, int) int { return -1 }, true},
		{"one joins nine", func(_ *rand.Rand, n int) int { return n % 9 }, false},
		{"after deaths", func(rng *rand.Rand, _ int) int { return rng.IntN(8) - 3 }, false},
	} {
		var took, free []float64
		for seed := range uint64(fairDraws()) {
			s := newFairRun(rand.New(rand.NewPCG(seed, 2)), c.owner, c.young)
			for s.at < 600 && !s.settled() {
				s.step()
			}
			took, free = append(took, s.moved), append(free, s.longest)
		}
		slices.Sort(took)
		slices.Sort(free)
		last := len(took) - 1
		t.Logf("%s: fair after %.0f s at the median, %.0f s for 99 %%, %.0f s at most; a shard was nobody's for %.1f s at most",
			c.name, took[last/2], took[last*99/100], took[last], free[last])
		if took[last*99/100] > 60 || free[last*99/100] > 10 {
			t.Errorf("%s: want a minute at most, and 10 s without an owner", c.name)
		}
	}
}

// fairDraws is how often TestFairSoon draws; DEFENDER_FAIR_DRAWS is another number.
func fairDraws() int {
	if n, err := strconv.Atoi(os.Getenv("DEFENDER_FAIR_DRAWS")); err == nil {
		return n
	}
	return 100
}

// fairRun is 32 shards and 10 workers in time that is computed, with leases of a minute.
type fairRun struct {
	rng            *rand.Rand
	young          bool
	all            []owned
	gave           [32]struct{ by, at, due float64 } // by whom and when it was given up; when it will be
	asked          [10]map[int]bool
	next           [10]float64 // look
	at             float64
	moved, longest float64 // the last change; the longest that a shard was nobody's after it was given up
}

func newFairRun(rng *rand.Rand, owner func(rng *rand.Rand, n int) int, young bool) *fairRun {
	s := &fairRun{rng: rng, young: young, all: make([]owned, 32)}
	for n := range s.all {
		s.all[n].n, s.gave[n].by = n, -1
		if k := owner(rng, n); k >= 0 {
			s.all[n].owner = fairName(k)
		}
	}
	for k := range s.next {
		s.next[k], s.asked[k] = rng.Float64()*10, make(map[int]bool)
	}
	return s
}

func fairName(k int) string { return fmt.Sprint("worker", k) }

// settled tells whether each has its share, and nothing has moved for some looks.
func (s *fairRun) settled() bool {
	has := make(map[string]int)
	for _, h := range s.all {
		if has[h.owner]++; h.owner == "" || h.leaving || has[h.owner] > 4 {
			return false
		}
	}
	for k := range s.next {
		if has[fairName(k)] < 3 {
			return false
		}
	}
	return s.at > s.moved+40
}

// step is the next look of a worker.
func (s *fairRun) step() {
	k := slices.Index(s.next[:], slices.Min(s.next[:]))
	me := fairName(k)
	s.at = s.next[k]
	for n := range s.all { // what was given up until now
		if g := &s.gave[n]; g.due > 0 && g.due <= s.at {
			fmt.Sscanf(s.all[n].owner, "worker%f", &g.by)
			g.at, s.moved, g.due = g.due, max(s.moved, g.due), 0
			s.all[n].owner, s.all[n].leaving = "", false
		}
	}
	seen := slices.Clone(s.all)
	for n := range seen {
		o, g := &seen[n], &s.gave[n]
		if o.owner == me && o.leaving && g.due == 0 {
			g.due = s.at + 2*s.rng.Float64() // once the host has taken what is on its way
		}
		if o.coming = s.asked[k][n] && o.leaving; !o.coming {
			delete(s.asked[k], n)
		}
		if o.owner == "" && g.by == float64(k) && s.at < g.at+30 {
			o.owner, o.leaving = nobody, true
		}
	}
	claim, ask := fair(seen, me)
	for _, o := range claim {
		if g := &s.gave[o.n]; g.by >= 0 {
			s.longest = max(s.longest, s.at-g.at)
		}
		s.all[o.n].owner, s.moved = me, s.at
	}
	for _, o := range ask {
		s.all[o.n].leaving, s.asked[k][o.n], s.moved = true, true, s.at
	}
	pause := 10 - s.rng.Float64()
	if len(s.asked[k]) > 0 || s.young && k > 0 && s.at < 60 {
		pause /= 10
	}
	s.next[k] += pause
}
