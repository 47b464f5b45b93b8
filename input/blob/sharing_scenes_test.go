package blob_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
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
	until(t, "looks", []*member{m}, func() bool { return a.fake.Lists(sharedContainer) > looks+15 })
	// A poll makes up to three lists for each of the 20 tenants, and here there are none yet.
	if n := a.fake.Lists(sharedTables[0]) - before; n > 10 {
		t.Errorf("%d lists of a container while 15 claims failed", n)
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

// Workers begin at the same time in a new container, with other numbers of shards. One of both
// numbers holds, and all blobs are read once.
func TestSharedNumbersOfShardsAtOnce(t *testing.T) {
	t.Parallel()
	for k := range 4 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			a, cfg := newShared(t, memberLease)
			var mu sync.Mutex
			begun := make(chan struct{})
			first := make(map[string]bool)
			a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault { // both look before either claims
				if r.Container != sharedContainer || r.Op == fakeblob.ListBlobs {
					return nil
				}
				mu.Lock()
				if agent, _, _ := strings.Cut(r.Agent, " "); !first[agent] {
					if first[agent] = true; len(first) == 2 {
						close(begun)
					}
				}
				mu.Unlock()
				select {
				case <-begun:
				case <-time.After(time.Minute):
				}
				return nil
			})
			other := cfg
			other.Shards = 24
			all := []*member{join(t, cfg), join(t, other)}
			until(t, "one to have all", all, func() bool {
				return all[0].owned() == 16 && all[1].owned() == 0 || all[0].owned() == 0 && all[1].owned() == 24
			})
			until(t, "an error", all, func() bool {
				return strings.Contains(all[0].log.String()+all[1].log.String(), "blob.shards is")
			})
			each(t, spread(a, "one"), 0, all...)
		})
	}
}

// A worker is cloned while it runs: two of the same name have the same leases. One of both goes on
// with a shard.
func TestSharedClone(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 4*memberLease)
	var mu sync.Mutex
	clone := false
	ids := make(map[string]bool)
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		both := clone && r.Method == http.MethodPut && r.Header.Get("If-Match") != "" && !ids[path.Base(r.URL.Path)]
		if both {
			ids[path.Base(r.URL.Path)] = true
		}
		mu.Unlock()
		if both { // the clone has written before, what it had read
			old := r.Header.Get("x-ms-meta-write")
			r.Header.Set("x-ms-meta-write", "of-the-clone")
			do()
			r.Header.Set("x-ms-meta-write", old)
		}
		pass(w, do())
	})
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	each(t, spread(a, "one"), 0, m)
	mu.Lock()
	clone = true
	mu.Unlock()
	spread(a, "two")
	until(t, "the shards that the clone goes on with to be lost", []*member{m}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ids) > 4 && m.src.Stats().Shared.Lost >= int64(len(ids))
	})
}

// What the service refuses to a worker is named as it is.
func TestSharedReasons(t *testing.T) {
	t.Parallel()
	sas := func(a *account, cfg blob.Config, ends time.Time) blob.Config {
		cfg.Auth, cfg.SAS, cfg.AccountURL = "sas", input.NewSecret("sv=1&se="+ends.UTC().Format(time.RFC3339)+"&sig=x"), a.fake.URL()
		cfg.ConnectionString = input.NewSecret("")
		return cfg
	}
	refuse := func(a *account, op fakeblob.Op) {
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Op == op {
				return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
			}
			return nil
		})
	}
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		a, cfg := newShared(t, memberLease)
		m := join(t, sas(a, cfg, time.Now().Add(-time.Hour)))
		until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "look at the other workers") })
		_, line, _ := strings.Cut(m.log.String(), "look at the other workers")
		if line, _, _ = strings.Cut(line, "\n"); !strings.Contains(line, "signature expired at") {
			t.Errorf("the log says %q", line)
		}
	})
	t.Run("renew", func(t *testing.T) {
		t.Parallel()
		a, cfg := newShared(t, memberLease)
		m := join(t, sas(a, cfg, time.Now().Add(time.Hour)))
		until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
		refuse(a, fakeblob.Lease)
		until(t, "the leases to be lost", []*member{m}, func() bool { return strings.Contains(m.log.String(), "lost shards") })
		_, line, _ := strings.Cut(m.log.String(), "lost shards")
		if line, _, _ = strings.Cut(line, "\n"); !strings.Contains(line, "sp=rwdl") {
			t.Errorf("the log says %q", line)
		}
	})
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		a, cfg := newShared(t, 4*memberLease)
		m := join(t, sas(a, cfg, time.Now().Add(time.Hour)))
		until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
		refuse(a, fakeblob.Change)
		spread(a, "one")
		until(t, "a refused commit", []*member{m}, func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.refused != nil })
		if text := m.refused.Error(); !strings.Contains(text, "sp=rwdl") {
			t.Errorf("the error is %s", text)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		a, cfg := newShared(t, memberLease)
		m := join(t, cfg)
		until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
		a.fake.Delete(sharedContainer, "shard-003")
		until(t, "a lease to be lost", []*member{m}, func() bool { return strings.Contains(m.log.String(), "lost shards") })
		if strings.Contains(m.log.String(), "az storage container create") {
			t.Errorf("the container is there, and the log says:\n%s", m.log)
		}
	})
}

// The check finds that blobs of the shared container may not be read, and leaves nothing behind
// when leases are refused.
func TestCheckSharedRights(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 0)
	cfg.Containers = sharedTables[:1]
	for refused, want := range map[fakeblob.Op]string{fakeblob.GetBlob: "read: 403", fakeblob.Lease: "lease: 403"} {
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Container == sharedContainer && r.Op == refused {
				return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
			}
			return nil
		})
		all := blob.Check(t.Context(), cfg)
		if f := all[len(all)-1]; f.Err == nil || !strings.Contains(f.String(), want) {
			t.Errorf("%v, want %s", f, want)
		}
	}
	a.fake.SetFault(nil)
	page, err := a.client.ServiceClient().NewContainerClient(sharedContainer).NewListBlobsFlatPager(nil).NextPage(t.Context())
	if err != nil || len(page.Segment.BlobItems) > 0 {
		t.Errorf("the check leaves %d blobs behind: %v", len(page.Segment.BlobItems), err)
	}
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

// The last worker of other containers has ended, and others begin together. Nobody takes a shard
// that is being claimed for one of the last worker.
func TestSharedSuccessors(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, time.Minute)
	old, slow := cfg, cfg
	old.Containers = sharedTables[:1]
	m := join(t, old)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	m.leave()
	through(t, a, &slow, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		if r.Header.Get("If-Match") != "" {
			time.Sleep(2 * time.Second)
		}
		pass(w, do())
	})
	all := []*member{join(t, slow)}
	until(t, "a claim", all, func() bool { return a.fake.LeaseState(sharedContainer, "shard-003") == "leased" })
	all = append(all, join(t, cfg))
	until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned() == 16 })
	for _, m := range all {
		if strings.Contains(m.log.String(), "level=ERROR") {
			t.Errorf("an error:\n%s", m.log)
		}
	}
}

// A shard has more positions than a worker could read again. What is written can be read, what is
// read goes on, and the next owner loses nothing.
func TestSharedTooManyPositions(t *testing.T) {
	t.Parallel()
	const most, blobs = 1 << 10, 150
	a, cfg := newShared(t, memberLease)
	m := joinWith(t, cfg, 0, func(src *blob.Source) { src.SetShardMost(most) })
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	flow := func(i int, text string) {
		a.fake.Append(sharedTables[0], fmt.Sprintf("flows/%04d.json", i), fmt.Appendf(nil, "{\"%s\":%d}\r\n", text, i))
	}
	for i := range blobs {
		flow(i, "one")
	}
	each(t, blobs, 0, m)
	for i := range blobs {
		flow(i, "two")
	}
	each(t, 2*blobs, 0, m)
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "too many positions") })
	m.leave()
	next := joinWith(t, cfg, 0, func(src *blob.Source) { src.SetShardMost(most) })
	all := []*member{m, next}
	until(t, "all shards", []*member{next}, func() bool { return next.owned() == 16 })
	for i := range blobs {
		flow(i, "three")
	}
	each(t, 3*blobs, 2*blobs, all...)
	if strings.Contains(next.log.String(), "cannot be read") {
		t.Errorf("what was written cannot be read:\n%s", next.log)
	}
	if k := len(came(next)); k >= 3*blobs {
		t.Errorf("all of the %d events came again", k)
	}
}

// Two workers make the blob of a shard at the same time, and one has its lease already: the service
// answers the other one that a lease is missing. That is no error.
func TestSharedMadeByAnother(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	late := cfg
	begun, claimed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	through(t, a, &late, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		switch {
		case r.URL.Query().Get("comp") == "list":
			answer := do()
			once.Do(func() { close(begun); <-claimed })
			pass(w, answer)
		case r.Header.Get("If-None-Match") == "*" && a.fake.LeaseState(sharedContainer, path.Base(r.URL.Path)) == "leased":
			w.Header().Set("x-ms-error-code", "LeaseIdMissing")
			w.WriteHeader(http.StatusPreconditionFailed)
		default:
			pass(w, do())
		}
	})
	all := []*member{join(t, late)}
	<-begun
	all = append(all, join(t, cfg))
	until(t, "all shards", all, func() bool { return all[1].owned() == 16 })
	close(claimed)
	fairly(t, all)
	if strings.Contains(all[0].log.String(), "level=ERROR") {
		t.Errorf("an error:\n%s", all[0].log)
	}
}

// Blobs of shards are deleted, and a worker claims them that has never seen an owner. The start is
// the latest. What came since the first worker began is not lost: the other blobs tell when.
func TestSharedDeletedForNewWorker(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	cfg.Start.Latest = true
	spread(a, "before")
	first := join(t, cfg)
	until(t, "all shards", []*member{first}, func() bool { return first.owned() == 16 })
	time.Sleep(memberLease) // a shard without a blob is no new one any more
	first.leave()
	for i := range 15 {
		a.fake.Delete(sharedContainer, fmt.Sprintf("shard-%03d", i))
	}
	n := spread(a, "after")
	second := join(t, cfg)
	until(t, "all events", []*member{second}, func() bool {
		got := 0
		for text := range came(second) {
			if strings.Contains(text, "after") {
				got++
			}
		}
		return got == n
	})
	second.log.says(t, "positions of shards cannot be read")
}
