package blob_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// middle is what stands between workers and the account: it gets each request to the shared
// container, and do, which has the account answer it. It may do so more than once.
type middle func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder)

// through has the workers of cfg reach the account through m.
func through(t *testing.T, a *account, cfg *blob.Config, m middle) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/fakeaccount/"+sharedContainer) {
			a.fake.ServeHTTP(w, r)
			return
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		m(w, r, func() *httptest.ResponseRecorder {
			again := r.Clone(r.Context())
			again.Body = io.NopCloser(bytes.NewReader(text))
			answer := httptest.NewRecorder()
			a.fake.ServeHTTP(answer, again)
			return answer
		})
	}))
	t.Cleanup(s.Close)
	cfg.ConnectionString = input.NewSecret(strings.Replace(a.conn, a.fake.URL(), s.URL+"/fakeaccount", 1))
}

// pass answers w as the account did.
func pass(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func writes(r *http.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodDelete }

// fairly waits until two workers have half of the shards each.
func fairly(t *testing.T, all []*member) {
	t.Helper()
	until(t, "half each", all, func() bool { return all[0].owned() == 8 && all[1].owned() == 8 })
}

// tenRounds checks that events come once, ten times over, and that no lease is lost meanwhile.
func tenRounds(t *testing.T, a *account, all []*member) {
	t.Helper()
	n := 0
	for k := range 10 {
		n += spread(a, fmt.Sprint("round ", k))
		each(t, n, 0, all...)
	}
	for _, m := range all {
		if lost := m.src.Stats().Shared.Lost; lost > 0 {
			t.Errorf("%d leases count as lost", lost)
		}
	}
}

// A proxy sends each write twice, and answers with what came the second time: 412, for the first
// was applied, with the ETag that the worker knows.
func TestSharedRepeatedWrites(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 3*memberLease)
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		if writes(r) {
			do()
		}
		pass(w, do())
	})
	all := []*member{join(t, cfg), join(t, cfg)}
	fairly(t, all)
	tenRounds(t, a, all)
}

// A third of the answers to writes are lost on their way: the writes were applied.
func TestSharedLostAnswers(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 3*memberLease)
	var mu sync.Mutex
	seed := rand.Uint64()
	t.Log("seed ", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		cut := writes(r) && rng.IntN(3) == 0
		mu.Unlock()
		answer := do()
		if cut {
			panic(http.ErrAbortHandler)
		}
		pass(w, answer)
	})
	all := []*member{join(t, cfg), join(t, cfg)}
	until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned() == 16 })
	tenRounds(t, a, all)
}

// The answer to a claim is lost on its way. The shard is somebody's at once, and not only when the
// lease has run out that nobody knows of.
func TestSharedLostClaim(t *testing.T) {
	t.Parallel()
	const lasts = time.Minute
	a, cfg := newShared(t, lasts)
	var mu sync.Mutex
	cut := 0
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		answer := do()
		mu.Lock()
		lose := r.Header.Get("x-ms-lease-action") == "acquire" && cut < 4
		if lose {
			cut++
		}
		mu.Unlock()
		if lose {
			panic(http.ErrAbortHandler)
		}
		pass(w, answer)
	})
	begun := time.Now()
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	if took := time.Since(begun); took > lasts/2 {
		t.Errorf("all shards are claimed after %v, with leases of %v", took, lasts)
	}
}

// Something answers for the account that is not the account: all is well, it says. Nobody hands
// over anything that may be another's because of it.
func TestSharedFalseAnswers(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	var mu sync.Mutex
	between := false
	honest := cfg
	through(t, a, &cfg, func(w http.ResponseWriter, _ *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		lies := between
		mu.Unlock()
		if lies {
			_, _ = io.WriteString(w, "<html>Welcome! Please sign in.</html>")
			return
		}
		pass(w, do())
	})
	first := join(t, cfg)
	all := []*member{first}
	until(t, "all shards", all, func() bool { return first.owned() == 16 })
	n := spread(a, "one")
	each(t, n, 0, all...)
	mu.Lock()
	between = true
	mu.Unlock()
	second := join(t, honest)
	all = append(all, second)
	until(t, "the other to have all", all, func() bool { return second.owned() == 16 })
	if k := first.owned(); k > 0 {
		t.Errorf("the first still reads %d shards", k)
	}
	again := n // whose positions were perhaps not written before
	n += spread(a, "two")
	each(t, n, again, all...)
}

// Something between drops headers that it does not know, such as ETag. That is an error, and no
// panic.
func TestSharedWithoutETags(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	var mu sync.Mutex
	drop := true
	through(t, a, &cfg, func(w http.ResponseWriter, _ *http.Request, do func() *httptest.ResponseRecorder) {
		answer := do()
		mu.Lock()
		if drop {
			answer.Header().Del("ETag")
		}
		mu.Unlock()
		pass(w, answer)
	})
	m := join(t, cfg)
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "ETag") })
	if m.owned() > 0 || strings.Contains(m.log.String(), "panic") {
		t.Errorf("%d shards are read\n%s", m.owned(), m.log)
	}
	mu.Lock()
	drop = false
	mu.Unlock()
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	mu.Lock()
	drop = true
	mu.Unlock()
	n := spread(a, "one")
	time.Sleep(memberLease / 2) // some writes
	mu.Lock()
	drop = false
	mu.Unlock()
	n += spread(a, "two")
	until(t, "all events", []*member{m}, func() bool { return len(came(m)) == n })
	if strings.Contains(m.log.String(), "panic") {
		t.Errorf("a panic:\n%s", m.log)
	}
}

// The account takes connections and says nothing. Workers end nevertheless.
func TestSharedStopWithoutAnswers(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	hang := make(chan struct{})
	var mu sync.Mutex
	silent := false
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		wait := silent
		mu.Unlock()
		if wait {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return
		}
		pass(w, do())
	})
	defer close(hang)
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	each(t, spread(a, "one"), 0, m)
	mu.Lock()
	silent = true
	mu.Unlock()
	spread(a, "two")
	time.Sleep(memberLease / 5)
	begun := time.Now()
	m.leave()
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("a worker ended after %v", took)
	}
}

// Requests are sent once more by somebody, up to two leases later.
func TestSharedLateRepeats(t *testing.T) {
	t.Parallel()
	const lease = 3 * memberLease // so that none ends on a slow machine
	a, cfg := newShared(t, lease)
	var mu sync.Mutex
	seed := rand.Uint64()
	t.Log("seed ", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	var later sync.WaitGroup
	over, stop := false, make(chan struct{})
	through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		mu.Lock()
		again, wait := writes(r) && rng.IntN(3) == 0, time.Duration(rng.Int64N(int64(2*lease)))
		mu.Unlock()
		pass(w, do())
		mu.Lock()
		defer mu.Unlock()
		if again && !over {
			later.Go(func() {
				select {
				case <-stop:
				case <-time.After(wait):
					do()
				}
			})
		}
	})
	all := []*member{join(t, cfg), join(t, cfg)}
	until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned() == 16 })
	n := 0
	for k := range 8 {
		n += spread(a, fmt.Sprint("round ", k))
		time.Sleep(lease / 4)
		if k == 3 {
			all = append(all, join(t, cfg))
		}
		if k == 5 {
			all[0].leave()
		}
	}
	each(t, n, 0, all...)
	mu.Lock()
	over = true // a request may still be under way
	mu.Unlock()
	close(stop)
	later.Wait()
}

// A shard of very many blobs can be claimed, too: all that are not filed by day are in one.
func TestSharedLargeShard(t *testing.T) {
	if raceDetector {
		t.Skip("packing takes a minute")
	}
	t.Parallel()
	a, cfg := newShared(t, 8*memberLease)
	packed := blob.PackedPositions(sharedTables[0], 340_000)
	a.fake.Put(sharedContainer, "shard-003", packed)
	m := join(t, cfg)
	until(t, fmt.Sprintf("all shards, one of %d bytes", len(packed)), []*member{m}, func() bool { return m.owned() == 16 })
	if strings.Contains(m.log.String(), "level=ERROR") {
		t.Errorf("an error:\n%s", m.log)
	}
}

// The container is deleted and made again, and a new worker, which knows no positions, is there
// before those that do.
func TestSharedAnewForNewWorker(t *testing.T) {
	t.Parallel()
	const lasts = 3 * memberLease // so that nobody is late on a machine that is busy
	a, cfg := newShared(t, lasts)
	cfg.Start.Latest = true
	all := []*member{join(t, cfg), join(t, cfg)}
	fairly(t, all)
	polled(t, a, all)
	n := spread(a, "one")
	each(t, n, 0, all...)
	for _, m := range all {
		m.hold.Store(true) // their host takes nothing just now
	}
	n += spread(a, "two")
	a.fake.DeleteContainer(sharedContainer)
	time.Sleep(lasts)
	a.fake.CreateContainer(sharedContainer)
	third := join(t, cfg)
	until(t, "the new worker to have shards", all, func() bool { return third.owned() > 0 })
	for _, m := range all {
		m.hold.Store(false)
	}
	all = append(all, third)
	until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned()+third.owned() == 16 })
	n += spread(a, "three")
	each(t, n, n, all...)
}

// Workers that read other blobs have one shared container: those of another account with the same
// containers, or other containers. Each would own shards that it reads nothing of, and nobody does.
func TestSharedByOthers(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	b := newFake(t, sharedTables...)
	place := strings.NewReplacer("/otheraccount", "/fakeaccount")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = place.Replace(r.URL.Path)
		b.fake.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	elsewhere, others := cfg, cfg
	elsewhere.SharedURL, elsewhere.Auth, elsewhere.AccountURL = a.fake.URL(), "sas", s.URL+"/otheraccount"
	elsewhere.SAS, elsewhere.ConnectionString = input.NewSecret("sv=1&se="+time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)+"&sig=x"), input.NewSecret("")
	others.Containers = sharedTables[:1]

	first := join(t, cfg)
	until(t, "all shards", []*member{first}, func() bool { return first.owned() == 16 })
	n := spread(a, "one")
	spread(b, "elsewhere")
	second, third := join(t, elsewhere), join(t, others)
	all := []*member{first, second, third}
	until(t, "errors", all, func() bool {
		return strings.Contains(second.log.String(), "account fakeaccount in this container, and those of otheraccount") &&
			strings.Contains(third.log.String(), "other blob.containers")
	})
	if all := blob.Check(t.Context(), others); !strings.Contains(all[len(all)-1].String(), "other blob.containers") {
		t.Errorf("the check says %v", all)
	}
	each(t, n, 0, first)
	if second.owned()+third.owned() > 0 {
		t.Errorf("they read %d and %d shards", second.owned(), third.owned())
	}
	first.leave() // both others find the shards free, and may claim some at the same time
	until(t, "one of the others to have all", all, func() bool { return second.owned() == 16 || third.owned() == 16 })
	until(t, "the other to have none", all, func() bool { return second.owned() == 0 || third.owned() == 0 })
}

// Addresses of one account name it alike.
func TestAccountNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://contoso.blob.core.windows.net/":             "contoso",
		"https://Contoso.privatelink.blob.core.windows.net/": "contoso",
		"https://contoso.z12.blob.storage.azure.net/":        "contoso",
		"http://127.0.0.1:10000/devstoreaccount1":            "devstoreaccount1",
		"http://[::1]:10000/devstoreaccount1/":               "devstoreaccount1",
	} {
		u, err := url.Parse(text)
		if got := blob.AccountName(u); err != nil || got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// A worker is told that it has got leases that are another's, or that were never prolonged. Nothing
// is lost, and what comes twice is what was under way.
func TestSharedFalseLeases(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"acquire", "renew"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			a, cfg := newShared(t, memberLease)
			honest := cfg
			through(t, a, &cfg, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
				h := r.Header
				if h.Get("x-ms-lease-action") != action || action == "acquire" && a.fake.LeaseState(sharedContainer, path.Base(r.URL.Path)) != "leased" {
					pass(w, do())
					return
				}
				w.Header().Set("ETag", `"0x1"`)
				w.Header().Set("x-ms-lease-id", h.Get("x-ms-lease-id")+h.Get("x-ms-proposed-lease-id"))
				w.WriteHeader(map[string]int{"acquire": http.StatusCreated, "renew": http.StatusOK}[action])
			})
			all := []*member{join(t, honest), join(t, cfg)}
			until(t, "all shards", all, func() bool { return all[0].owned()+all[1].owned() >= 16 })
			n := 0
			for k := range 8 {
				n += spread(a, fmt.Sprint("round ", k))
				time.Sleep(memberLease / 3)
			}
			each(t, n, n/4, all...)
		})
	}
}

// The answers to those that give leases back are late. Nobody takes these leases for lost: nothing
// is set back, so that ids of repeats are kept.
func TestSharedSlowRelease(t *testing.T) {
	t.Parallel()
	const lease = 3 * memberLease // so that none ends on a slow machine
	a, cfg := newShared(t, lease)
	slow := cfg
	through(t, a, &slow, func(w http.ResponseWriter, r *http.Request, do func() *httptest.ResponseRecorder) {
		answer := do()
		if r.Header.Get("x-ms-lease-action") == "release" {
			time.Sleep(lease / 2)
		}
		pass(w, answer)
	})
	all := []*member{join(t, slow)}
	until(t, "all shards", all, func() bool { return all[0].owned() == 16 })
	n := spread(a, "one")
	each(t, n, 0, all...)
	all = append(all, join(t, cfg))
	fairly(t, all)
	time.Sleep(lease / 3) // two looks
	n += spread(a, "two")
	each(t, n, 0, all...)
	all[0].mu.Lock()
	defer all[0].mu.Unlock()
	if all[0].backs > 0 {
		t.Errorf("events are set back %d times", all[0].backs)
	}
}

// Somebody has taken the leases of some shards for ever, and nobody reads these. It is said.
func TestSharedLeasedForEver(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	m.leave()
	shard := a.client.ServiceClient().NewContainerClient(sharedContainer).NewBlobClient("shard-003")
	l, err := lease.NewBlobClient(shard, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AcquireLease(t.Context(), -1, nil); err != nil {
		t.Fatal(err)
	}
	m = join(t, cfg)
	until(t, "the others", []*member{m}, func() bool { return m.owned() == 15 })
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "shard-003 is leased for ever") })
	m.leave()
	other := cfg // the last worker of that shard has read more
	other.Containers = sharedTables[:1]
	m = join(t, other)
	until(t, "the others with other containers", []*member{m}, func() bool { return m.owned() == 15 })
	until(t, "an error", []*member{m}, func() bool { return strings.Contains(m.log.String(), "shard-003 is leased for ever") })
	m.leave()
	m = join(t, cfg)
	if _, err := l.ReleaseLease(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	until(t, "all shards again", []*member{m}, func() bool { return m.owned() == 16 })
}

// The shared container has blobs that no worker has made, with names like those of shards.
func TestSharedStrangeNames(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	names := []string{"shard--1", "shard-3", "shard-+04", "shard-005.bak", "shard-", "shard-999999999999999999999", "shard-0006"}
	for _, name := range names {
		a.fake.Put(sharedContainer, name, []byte("x"))
	}
	client := a.client.ServiceClient().NewContainerClient(sharedContainer).NewBlockBlobClient("shard-007.copy")
	other := "8"
	if _, err := client.Upload(t.Context(), body{bytes.NewReader(nil)}, &blockblob.UploadOptions{Metadata: map[string]*string{"shards": &other}}); err != nil {
		t.Fatal(err)
	}
	client = a.client.ServiceClient().NewContainerClient(sharedContainer).NewBlockBlobClient("shard-1000") // beyond all numbers
	if _, err := client.Upload(t.Context(), body{bytes.NewReader(nil)}, &blockblob.UploadOptions{Metadata: map[string]*string{"shards": &other}}); err != nil {
		t.Fatal(err)
	}
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	each(t, spread(a, "one"), 0, m)
	if strings.Contains(m.log.String(), "level=ERROR") {
		t.Errorf("errors:\n%s", m.log)
	}
}

// The container is gone before the worker has looked at it again since its claims. It knows the
// positions all the same.
func TestSharedGoneAfterClaims(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, 4*memberLease)
	cfg.Start.Latest, cfg.PollInterval = true, 20*time.Millisecond
	m := join(t, cfg)
	until(t, "all shards", []*member{m}, func() bool { return m.owned() == 16 })
	gone := make(chan struct{})
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.ListBlobs && r.Container == sharedContainer {
			<-gone // the next look
		}
		return nil
	})
	polled(t, a, []*member{m})
	m.hold.Store(true)
	n := spread(a, "one")
	a.fake.DeleteContainer(sharedContainer)
	close(gone)
	until(t, "the leases to be lost", []*member{m}, func() bool { return m.src.Stats().Shared.Lost == 16 })
	a.fake.CreateContainer(sharedContainer)
	m.hold.Store(false)
	n += spread(a, "two")
	each(t, n, 0, m)
}

// The container is deleted and made again. The worker that had a shard last writes its positions,
// and not one that had it some time ago.
func TestSharedGonePositionsAreTheLast(t *testing.T) {
	t.Parallel()
	a, cfg := newShared(t, memberLease)
	all := []*member{join(t, cfg)}
	until(t, "all shards", all, func() bool { return all[0].owned() == 16 })
	n := spread(a, "one")
	each(t, n, 0, all...)
	all = append(all, join(t, cfg))
	fairly(t, all)
	n += spread(a, "two")
	each(t, n, 0, all...)
	a.fake.DeleteContainer(sharedContainer)
	until(t, "the leases to be lost", all, func() bool { return all[0].owned()+all[1].owned() == 0 })
	a.fake.CreateContainer(sharedContainer)
	fairly(t, all)
	n += spread(a, "three")
	each(t, n, 0, all...)
}
