package blob_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// All at once, by chance: requests to the shared container are refused, and answers to writes
// lost. Leases are ended, and blobs of shards deleted, damaged and emptied. Workers come and
// go. The start is the latest. Nothing is lost.
func TestSharedByChance(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	cfg.Start.Latest = true
	seed := rand.Uint64()
	t.Log("seed ", seed)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 6))
	on := false
	statuses := []int{400, 403, 404, 409, 410, 412, 429, 500, 503}
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		k := 100
		if on {
			k = rng.IntN(12)
		}
		status := statuses[rng.IntN(len(statuses))]
		mu.Unlock()
		switch {
		case k == 0:
			w.WriteHeader(status)
		case k == 1 && writes(r):
			do()
			panic(http.ErrAbortHandler)
		case k == 2 && writes(r):
			do()
			w.WriteHeader(status)
		default:
			pass(w, do())
		}
	})
	all := []*member{join(t, cfg), join(t, cfg), join(t, cfg)}
	running := all
	until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned()+all[2].owned() == 16 })
	polled(t, a, all)
	time.Sleep(memberLease) // a shard without a blob is no new one any more
	mu.Lock()
	on = true
	mu.Unlock()
	n := 0
	for k := range 10 {
		n += spread(a, fmt.Sprint("round ", k))
		for i := range 10 { // new ones, too
			a.fake.Append(sharedTables[i%3], fmt.Sprintf("flows/%d-%d.json", k, i), fmt.Appendf(nil, "{\"new %d\":%d}\r\n", k, i))
			n++
		}
		time.Sleep(memberLease / 4)
		mu.Lock()
		shard, what, who := fmt.Sprintf("shard-%03d", rng.IntN(16)), rng.IntN(6), rng.IntN(len(running))
		mu.Unlock()
		switch what {
		case 0:
			a.fake.BreakLease(sharedContainer, shard)
		case 1:
			a.fake.BreakLease(sharedContainer, shard)
			a.fake.Delete(sharedContainer, shard)
		case 2:
			a.fake.BreakLease(sharedContainer, shard)
			a.fake.Put(sharedContainer, shard, []byte("rubbish"))
		case 3:
			a.fake.BreakLease(sharedContainer, shard)
			a.fake.Put(sharedContainer, shard, nil)
		case 4:
			gone := running[who]
			running = append(append([]*member(nil), running[:who]...), running[who+1:]...)
			gone.leave()
			fallthrough
		case 5:
			m := join(t, cfg)
			all, running = append(all, m), append(running, m)
		}
		t.Log("round ", k, ": ", what, " ", shard)
	}
	mu.Lock()
	on = false
	mu.Unlock()
	owned := func() (k int) {
		for _, m := range running {
			k += m.owned()
		}
		return k
	}
	until(t, "all shards", running, func() bool { return owned() == 16 })
	n += spread(a, "last")
	each(t, n, 100*n, all...)
	for _, m := range all {
		if strings.Contains(m.log.String(), "panic") {
			t.Errorf("a panic:\n%s", m.log)
		}
	}
}
