package blob_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Every kind of request to the shared container is refused now and then, with every status. Nothing
// is lost, and when that is over, all is as before.
func TestSharedRefusals(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	seed := rand.Uint64()
	t.Log("seed ", seed)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 5))
	on := true
	answers := []fakeblob.Fault{{Status: 503, Code: "ServerBusy"}, {Status: 500, Code: "InternalError"}, {Status: 412, Code: "ConditionNotMet"}, {Status: 412, Code: "LeaseIdMismatchWithBlobOperation"},
		{Status: 409, Code: "LeaseIsBrokenAndCannotBeRenewed"}, {Status: 409, Code: "ContainerBeingDeleted"}, {Status: 404, Code: "ContainerNotFound"}, {Status: 404, Code: "BlobNotFound"}, {Status: 403, Code: "AuthorizationPermissionMismatch"},
		{Status: 429, Code: "TooManyRequests"}, {Status: 400, Code: "InvalidHeaderValue"}, {Status: 410, Code: ""}}
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		mu.Lock()
		defer mu.Unlock()
		if on && r.Container == sharedContainer && rng.IntN(5) == 0 {
			return &answers[rng.IntN(len(answers))]
		}
		return nil
	})
	all := []*member{join(t, cfg), join(t, cfg), join(t, cfg)}
	n := 0
	for k := range 12 {
		n += spread(a, fmt.Sprint("round ", k))
		time.Sleep(memberLease / 3)
		if k == 4 {
			all[0].leave()
			all = append(all, join(t, cfg))
		}
	}
	mu.Lock()
	on = false
	mu.Unlock()
	until(t, "all shards", all, func() bool { return all[1].owned()+all[2].owned()+all[3].owned() == 16 })
	n += spread(a, "last")
	each(t, n, 12*n, all...)
	for _, m := range all {
		if strings.Contains(m.log.String(), "panic") {
			t.Errorf("a panic:\n%s", m.log)
		}
	}
}

// A list without an end, whose pages do not even say that they are empty.
func TestSharedEndlessList(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	var lists atomic.Int64
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		if r.URL.Query().Get("comp") != "list" {
			pass(w, do())
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><NextMarker>m%d</NextMarker></EnumerationResults>`, lists.Add(1))
	})
	m := join(t, cfg)
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "level=ERROR") })
	before := lists.Load()
	time.Sleep(memberLease)
	if n := lists.Load() - before; n > 2000 {
		t.Errorf("%d lists in %v", n, memberLease)
	}
}

// Positions cannot be written for a while. They are not written again and again meanwhile.
func TestSharedWritesAreSpaced(t *testing.T) {
	t.Parallel()
	const lasts = 4 * memberLease
	a, cfg := newShared(t, lasts)
	m := joinFor(t, cfg, lasts/12)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	each(t, spread(a, "one"), 0, m)
	var writes atomic.Int64
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Container == sharedContainer && r.Op == fakeblob.Change {
			writes.Add(1)
			return &fakeblob.Fault{Status: 503, Code: "ServerBusy"}
		}
		return nil
	})
	spread(a, "two")
	time.Sleep(lasts / 2)
	a.fake.SetFault(nil)
	if n := writes.Load(); n > 16*2*(6+2) {
		t.Errorf("%d writes in %v, with 16 shards and a write each %v", n, lasts/2, lasts/12)
	}
}

// One shard cannot be claimed. The containers are not listed more often because of that.
func TestSharedFailedClaimsCostNoLists(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	cfg.PollInterval = memberLease
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Container == sharedContainer && r.Blob == "shard-003" && r.Op == fakeblob.Lease {
			return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
		}
		return nil
	})
	m := join(t, cfg)
	until(t, "the other shards", []*member{m}, func() bool { return m.owned() == 15 })
	time.Sleep(memberLease)
	before, looks := a.fake.Lists(sharedTables[0]), a.fake.Lists(sharedContainer)
	until(t, "looks", []*member{m}, func() bool { return a.fake.Lists(sharedContainer) > looks+30 })
	// A poll makes up to three lists for each of the 20 tenants, and here there are none yet.
	if n := a.fake.Lists(sharedTables[0]) - before; n > 20 {
		t.Errorf("%d lists of a container while 30 claims failed", n)
	}
	if n := strings.Count(m.log.String(), "claim shards works again"); n > 1 {
		t.Errorf("it works again, the log says %d times", n)
	}
}

// A worker that may break leases and cannot claim does not have the others give shards up for ever.
func TestSharedDisturber(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	good := join(t, cfg)
	until(t, "all shards", []*member{good}, func() bool { return good.owned() == 16 })
	agent := "defender-" + good.log.worker(t)
	var breaks atomic.Int64
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Container == sharedContainer && !strings.HasPrefix(r.Agent, agent) {
			if r.Op == fakeblob.GetBlob {
				return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
			}
			if r.HTTP.Header.Get("x-ms-lease-action") == "break" {
				breaks.Add(1)
			}
		}
		return nil
	})
	bad := join(t, cfg)
	time.Sleep(5 * memberLease)
	if n := breaks.Load(); n > 14 { // 8 before it knows, and one now and then
		t.Errorf("%d shards were asked for in 5 leases", n)
	}
	all := []*member{good, bad}
	each(t, spread(a, "one"), 0, all...)
	a.fake.SetFault(nil)
	fairly(t, all)
}

// The blob of a shard is larger than what a worker reads: something else was put there. It is
// damaged, as any other.
func TestSharedHugeShard(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	a.fake.Put(sharedContainer, "shard-003", make([]byte, 65<<20))
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "positions of shards cannot be read") })
}

// A proxy answers with a Date that is days ahead, for a while. What comes later is read: a blob
// without a position counts as read only when it is old by this machine's clock, too.
func TestSharedDatesAhead(t *testing.T) {
	t.Parallel()
	for _, latest := range []bool{false, true} {
		t.Run(fmt.Sprint("latest ", latest), func(t *testing.T) {
			t.Parallel()
			a, cfg := newShared(t, memberLease)
			cfg.Start.Latest = latest
			var ahead atomic.Int64
			ahead.Store(int64(10 * 24 * time.Hour))
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer := httptest.NewRecorder()
				a.fake.ServeHTTP(answer, r)
				answer.Header().Set("Date", time.Now().Add(time.Duration(ahead.Load())).UTC().Format(http.TimeFormat))
				pass(w, answer)
			}))
			t.Cleanup(s.Close)
			cfg.ConnectionString = input.NewSecret(strings.Replace(a.conn, a.fake.URL(), s.URL+"/fakeaccount", 1))
			m := join(t, cfg)
			until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
			a.fake.Append(sharedTables[0], "flows/one.json", []byte("{\"early\":1}\r\n"))
			polled(t, a, []*member{m})
			ahead.Store(0)
			polled(t, a, []*member{m})
			before := len(came(m))
			a.fake.Append(sharedTables[0], "flows/two.json", []byte("{\"late\":1}\r\n"))
			each(t, before+1, 0, m)
		})
	}
}
