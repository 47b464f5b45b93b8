package blob

import (
	"math/rand/v2"
	"slices"
)

// asksAtOnce is how many shards a worker asks for at a time. Several workers that start together
// would else ask for the same share each.
const asksAtOnce = 2

// owned is the state of a shard in the shared container.
type owned struct {
	n       int
	owner   string // the holder of the lease; "" for none
	leaving bool   // the owner was asked for it
	coming  bool   // to me: I have asked for it, or it was mine and something of it is on its way
	first   bool   // its blob is gone, and me knows its positions: better me than another
}

// fair returns which shards me should claim, and which of others it should ask for, so that each
// worker comes to its share. Azure's own event processors do the same: free shards come first, then
// some of a worker that has too many. Workers do not talk to each other: all see the same, but for
// what comes to each. What another has asked for may come to anyone; a worker that counted on it
// would not ask, and might have none for long.
func fair(all []owned, me string) (claim, ask []owned) {
	has := map[string]int{me: 0}
	var free []owned
	coming := 0
	for _, h := range all {
		switch {
		case h.owner == "":
			free = append(free, h)
		case h.coming:
			coming++
		case !h.leaving:
			has[h.owner]++
		}
	}
	least, over := len(all)/len(has), len(all)%len(has)
	want := least - has[me]
	if want <= 0 {
		want = 0
		if above := 0; has[me] == least {
			for _, n := range has {
				if n > least {
					above++
				}
			}
			if above < over {
				want = 1
			}
		}
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	slices.SortStableFunc(free, func(a, b owned) int {
		switch {
		case a.first && !b.first:
			return -1
		case b.first && !a.first:
			return 1
		}
		return 0
	})
	claim = free[:min(want, len(free))]
	for missing := min(want-len(claim)-coming, asksAtOnce); missing > 0; missing-- {
		most, mine := "", has[me]+len(claim)+len(ask)+coming
		for owner, n := range has {
			if owner != me && n > mine+1 && (most == "" || n > has[most]) {
				most = owner
			}
		}
		theirs := slices.DeleteFunc(slices.Clone(all), func(h owned) bool { return h.owner != most || h.leaving || slices.Contains(ask, h) })
		if most == "" || len(theirs) == 0 {
			break
		}
		ask = append(ask, theirs[rand.IntN(len(theirs))])
		has[most]--
	}
	return claim, ask
}
