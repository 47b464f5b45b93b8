package blob_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// fill makes an hour's blob for each of the last n hours.
func fill(s *fakeblob.Server, n int, text []byte) {
	hour := time.Now().UTC().Truncate(time.Hour)
	for i := range n {
		at := hour.Add(-time.Duration(i) * time.Hour)
		s.Append(table, pt1h(at), nil)
		if i < 10 || i%100 == 0 {
			s.Append(table, pt1h(at), text)
		}
		s.Age(table, pt1h(at), at, at.Add(62*time.Minute))
	}
}

// polls groups the list calls of a container by poll: each lists the current day once, and folders
// before it.
type polls struct {
	mu    sync.Mutex
	calls []int
	today bool // the last poll has listed the current day
}

func (p *polls) saw(r fakeblob.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	today := r.Prefix == tenant+time.Now().UTC().Format("y=2006/m=01/d=02/") && r.Marker == ""
	if len(p.calls) == 0 || p.today && (today || r.HTTP.URL.Query().Get("delimiter") != "") {
		p.calls, p.today = append(p.calls, 0), false
	}
	p.today = p.today || today
	p.calls[len(p.calls)-1]++
}

func (p *polls) list() []int { p.mu.Lock(); defer p.mu.Unlock(); return append([]int(nil), p.calls...) }

// A poll costs the same however many blobs there are, and so does memory.
func TestListCalls(t *testing.T) {
	few, many := 12_000, 40_000
	if raceDetector {
		few, many = 3_000, 6_000 // or they take minutes to list
	}
	for _, c := range []struct {
		blobs  int
		latest bool
	}{{1_200, true}, {few, false}, {many, true}} {
		t.Run(fmt.Sprint(c.blobs, " latest ", c.latest), func(t *testing.T) { listCalls(t, c.blobs, c.latest) })
	}
}

func listCalls(t *testing.T, blobs int, latest bool) {
	a := newFake(t)
	fill(a.fake, blobs, []byte("{\"a\":1}\r\n"))
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var seen polls
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.ListBlobs {
			seen.saw(r)
		}
		return nil
	})
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Start = input.Start{Latest: latest}
	r := start(t, cfg, state)
	pages := (blobs + 4999) / 5000
	peak := uint64(0)
	r.until("the first sweep, and ten polls after it", func() bool {
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
		return a.fake.Lists(table) > pages && len(seen.list()) > pages+20
	})
	calls := seen.list()
	first := 1
	if !latest {
		first = len(calls) - 12 // before, it is sweeping for what there is to read, as fast as it can
	}
	for i, n := range calls[first:] {
		if n > 3 {
			t.Errorf("poll %d made %d list calls", first+i+1, n)
		}
	}
	if peak > 150<<20 {
		t.Errorf("heap of %d MB", peak>>20)
	}
	t.Logf("%d blobs: first poll and sweep %d list calls, then %v; peak heap %d MB, of which %d MB are the fake's blobs", blobs, calls[0], calls[1:min(len(calls), 40)], peak>>20, before.HeapInuse>>20)
	if open := r.src.Stats().Containers[table].Open; latest && open > 73 {
		t.Errorf("%d blobs are followed, of 48 hours and the rest of their days", open)
	}
	n := r.count()
	a.append(t, table, pt1h(time.Now()), "{\"new\":1}\r\n")
	r.until("a fresh event", func() bool { return r.count() > n })
}

// An account of many tenants has more blobs of these days than are held in memory. All are read,
// new bytes of those that grow are read, replaced ones are read again, and nothing twice.
func TestMoreBlobsThanAreHeld(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	const tenants, hours, idle, active, page = 20, 24, 30, 90, 25
	a.fake.SetPageSize(page)
	first := time.Now().UTC().Truncate(time.Hour).Add(-hours * time.Hour)
	var names []string
	for i := range tenants {
		for h := range hours {
			names = append(names, fmt.Sprintf("tenantId=00000000-0000-0000-0000-%012d/", i)+pt1h(first.Add(time.Duration(h) * time.Hour))[len(tenant):])
		}
	}
	path := statePath(t)
	state := openState(t, path)
	defer func() { _ = state.Close() }()
	cfg := a.config()
	r := start(t, cfg, state)
	r.src.SetMost(idle, active)
	peak := 0
	want := func(n int) {
		t.Helper()
		r.until(fmt.Sprintf("%d messages", n), func() bool {
			peak = max(peak, r.src.Stats().Containers[table].Open)
			return r.count() >= n
		})
		r.quiet(n)
	}
	for _, name := range names {
		a.fake.Append(table, name, []byte("{\"a\":1}\r\n"))
	}
	want(len(names))
	// Reads wait until all have grown: a fast reader would never have more than it can hold.
	gate := make(chan struct{})
	a.fake.SetFault(func(q fakeblob.Request) *fakeblob.Fault {
		if q.Op == fakeblob.GetBlob {
			<-gate
		}
		return nil
	})
	for _, name := range names {
		a.fake.Append(table, name, []byte("{\"b\":2}\r\n"))
	}
	r.says("too many blobs have something to read")
	close(gate)
	want(2 * len(names))
	r.until("blobs with nothing to read to be let go of", func() bool { return r.src.Stats().Containers[table].Open <= idle })
	a.delete(t, table, names[7])
	a.fake.Append(table, names[7], []byte("{\"c\":3}\r\n"))
	want(2*len(names) + 1)
	if most := active + page; peak > most { // a page of names is taken as a whole
		t.Errorf("%d blobs were followed at a time, want %d at most", peak, most)
	}
	st := r.src.Stats()
	if st.Replaced != 1 {
		t.Errorf("%d blobs are said to be replaced, want 1", st.Replaced)
	}
	if n := int(st.Blobs); n > 2*len(names)+1 { // not at every poll
		t.Errorf("blobs were taken up %d times, want once for each time that there was something to read", n)
	}
	r.stop()
	r = start(t, cfg, state)
	r.src.SetMost(idle, active)
	r.quiet(0)
	a.fake.Append(table, names[100], []byte("{\"d\":4}\r\n"))
	r.want(1)
}

// Blobs that are being read while their container is deleted are counted out as well.
func TestDeletedContainerIsCountedOut(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	cfg := a.config()
	cfg.Containers = []string{"insights-*"}
	gate := make(chan struct{})
	a.fake.SetFault(func(q fakeblob.Request) *fakeblob.Fault {
		if q.Op == fakeblob.GetBlob {
			<-gate
		}
		return nil
	})
	r := start(t, cfg, nil)
	for i := range 8 {
		a.fake.Append(table, pt1h(time.Now().Add(-time.Duration(i)*time.Hour)), []byte("{}\r\n"))
	}
	r.until("blobs to be read", func() bool { return r.src.Stats().Reads >= int64(cfg.Workers) })
	r.until("all to be followed", func() bool { return r.src.Active() == 8 })
	a.fake.DeleteContainer(table)
	r.until("the container to be gone", func() bool { return len(r.src.Stats().Containers) == 0 })
	close(gate)
	r.until("no blob to be counted", func() bool { return r.src.Active() == 0 })
}

// A backlog is read whole, in bounded memory, and fresh blobs do not wait for it.
func TestBacklog(t *testing.T) {
	a := newFake(t)
	const blobs = 4000
	fill(a.fake, blobs, []byte("{\"a\":1}\r\n"))
	a.fake.SetPageSize(500)
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.want(10 + blobs/100 - 1)
	r.until("positions of old blobs to be dropped", func() bool {
		n := 0
		err := state.Each("blob", table+"/", func(_, _ []byte) error { n++; return nil })
		return err == nil && n <= 32
	})
	r.stop()
	r = start(t, a.config(), state) // and those that were dropped are not read again
	time.Sleep(500 * time.Millisecond)
	r.quiet(0)
}

// A sweep is over only when what it found is safe: old blobs that were read and not committed are
// read again.
func TestSweepWaitsUntilSafe(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	const blobs = 120
	hour := time.Now().UTC().Truncate(time.Hour).Add(-60 * 24 * time.Hour)
	for i := range blobs {
		at := hour.Add(-time.Duration(i) * time.Hour)
		a.fake.Append(table, pt1h(at), []byte("{}\r\n"))
		a.fake.Age(table, pt1h(at), at, at.Add(62*time.Minute))
	}
	a.fake.SetPageSize(20)
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.mu.Lock()
	r.hold = true
	r.mu.Unlock()
	r.until("all to be read", func() bool { return r.count() >= blobs })
	lists := r.src.Stats().Lists
	r.until("some polls more", func() bool { return r.src.Stats().Lists > lists+10 })
	r.stop()
	r = start(t, a.config(), state)
	r.want(blobs)
	r.until("the sweep to end", func() bool {
		v, err := state.Get("blob", "#sweep/"+table)
		return err == nil && len(v) > 0 && v[0] != '0'
	})
	r.stop()
	r = start(t, a.config(), state)
	r.quiet(0)
}

// A worker that shares its blobs soon makes the list calls of one that does not, and holds no more:
// of 120,000 blobs it knows the positions of some days. Before that, shards that come while a sweep
// is under way get one of their own.
func TestSharedScale(t *testing.T) {
	blobs := 120_000
	if raceDetector {
		blobs = 6_000
	}
	pages := (blobs + 4999) / 5000
	const some = 20                    // polls
	const usual = 2*some + some/10 + 2 // list calls of these: two days each, and the folders at every tenth
	var heap [2]uint64
	for i, shared := range []bool{false, true} {
		a := newFake(t, sharedContainer)
		fill(a.fake, blobs, []byte("{\"a\":1}\r\n"))
		cfg := a.config()
		cfg.PollInterval = 100 * time.Millisecond
		cfg.Start = input.Start{Latest: true}
		state := openState(t, statePath(t))
		if shared {
			cfg.Shared, cfg.Shards = sharedContainer, 32
		}
		var seen polls
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Op == fakeblob.ListBlobs && r.Container == table {
				seen.saw(r)
			}
			return nil
		})
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := start(t, cfg, state)
		if shared {
			r.until("all shards", func() bool { return r.src.Stats().Shared.Owned == 32 })
		}
		looks := a.fake.Lists(sharedContainer) // at each of them shards may have come
		a.fake.Append(table, pt1h(time.Now()), []byte("{\"new\":1}\r\n"))
		all, latest := 0, 0
		for n := pages + some; ; n += some {
			r.until("the first sweeps, and some polls after them", func() bool { return len(seen.list()) > n })
			calls := seen.list()[:n]
			all, latest = sum(calls), sum(calls[n-some:])
			if latest <= usual {
				if sweeps := all - n*usual/some; sweeps > (looks+2)*pages {
					t.Errorf("%d list calls for sweeps of %d pages, where shards came at %d looks", sweeps, pages, looks)
				}
				break
			}
			if n > 40*pages {
				t.Fatalf("still %d list calls in %d polls, want %d at most", latest, some, usual)
			}
		}
		var now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&now)
		heap[i] = now.HeapAlloc - min(now.HeapAlloc, before.HeapAlloc)
		r.stop()
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
		a.fake.Close()
		t.Logf("%d blobs, shared %v: %d list calls, in %d polls at last %d; %d kB held", blobs, shared, all, some, latest, heap[i]>>10)
	}
	if heap[1] > heap[0]+8<<20 {
		t.Errorf("%d kB are held, without sharing %d", heap[1]>>10, heap[0]>>10)
	}
}

func sum(list []int) (n int) {
	for _, k := range list {
		n += k
	}
	return n
}
