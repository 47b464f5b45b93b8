package blob_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// sasOf is the account reached by a signature that is valid until end.
func sasOf(a *account, end time.Time) blob.Config {
	cfg := a.config()
	cfg.Auth, cfg.ConnectionString = "sas", input.Secret{}
	cfg.AccountURL = a.fake.URL()
	cfg.SAS = input.NewSecret("sv=2024-05-04&sp=rl&se=" + end.UTC().Format(time.RFC3339) + "&sig=c2VjcmV0")
	return cfg
}

func TestConnectionCutInMidBody(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	text := numbered("a", 0, 2000)
	a.append(t, table, pt1h(time.Now()), text)
	var offsets sync.Map
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob {
			offsets.Store(r.Offset, true)
			return &fakeblob.Fault{CutAfter: 30_000}
		}
		return nil
	})
	r := start(t, a.config(), nil)
	r.want(2000)
	same(t, r.texts(""), split(text))
	for _, at := range []int64{30_000, 60_000} { // each continues where the one before was cut
		if _, ok := offsets.Load(at); !ok {
			t.Errorf("no read began at %d", at)
		}
	}
	if r.src.Stats().Retries["network"] < 3 {
		t.Errorf("stats %+v", r.src.Stats())
	}
}

// A blob that grows between its listing and its reading answers 412: it is looked at again, not
// given up.
func TestGrowsWhileRead(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	name := pt1h(time.Now())
	a.append(t, table, name, numbered("a", 0, 10))
	var n atomic.Int64
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if k := n.Load(); r.Op == fakeblob.GetBlob && k < 20 {
			n.Add(1)
			a.fake.Append(table, name, []byte(numbered("a", int(10+k), 1)))
		}
		return nil
	})
	r := start(t, a.config(), nil)
	r.want(30)
	same(t, r.texts(""), split(numbered("a", 0, 30)))
	if r.src.Stats().Retries["changed"] == 0 {
		t.Error("nothing was answered with 412")
	}
}

func TestNothingThere(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 10))
	var n atomic.Int64
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && n.Add(1) <= 3 {
			return &fakeblob.Fault{Status: 416, Code: "InvalidRange"}
		}
		return nil
	})
	r := start(t, a.config(), nil)
	r.want(10)
}

func TestDeletedInMidRead(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	name, other := pt1h(time.Now()), pt1h(time.Now().Add(-time.Hour))
	a.append(t, table, name, numbered("a", 0, 60_000)) // more than one piece
	a.append(t, table, other, numbered("b", 0, 10))
	var before atomic.Int64 // how many bytes were read when it was deleted
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && r.Blob == name && r.Offset > 0 {
			before.CompareAndSwap(0, r.Offset+1) // reading continues one byte before
			a.fake.Delete(table, name)
		}
		return nil
	})
	r := start(t, a.config(), nil)
	r.says("deleted before it was read to its end")
	r.until("the other blob", func() bool { return len(r.texts(table+"/"+other)) == 10 })
	want := split(numbered("a", 0, 60_000)[:before.Load()])
	r.until("what was read before", func() bool { return len(r.texts(table+"/"+name)) >= len(want) })
	same(t, r.texts(table+"/"+name), want)
}

func TestThrottled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   string
		op     fakeblob.Op
	}{{503, "ServerBusy", fakeblob.GetBlob}, {429, "TooManyRequests", fakeblob.GetBlob}, {503, "ServerBusy", fakeblob.ListBlobs}} {
		t.Run(fmt.Sprint(c.status, " ", c.op), func(t *testing.T) {
			t.Parallel()
			a := newFake(t, table)
			for h := range 6 {
				a.append(t, table, pt1h(time.Now().Add(-time.Duration(h)*time.Hour)), numbered("a", h, 2))
			}
			var until atomic.Int64
			var early, asked atomic.Int64
			until.Store(time.Now().Add(1500 * time.Millisecond).UnixNano())
			last := sync.Map{}
			a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
				if r.Op != c.op || time.Now().UnixNano() > until.Load() {
					return nil
				}
				asked.Add(1)
				if at, ok := last.Swap(r.Blob, time.Now()); ok && time.Since(at.(time.Time)) < 990*time.Millisecond {
					early.Add(1)
				}
				return &fakeblob.Fault{Status: c.status, Code: c.code, RetryAfter: "1"}
			})
			r := start(t, a.config(), nil)
			r.want(12)
			r.says("works again")
			if asked.Load() == 0 || early.Load() > 0 {
				t.Errorf("asked %d times, %d of them before Retry-After was over", asked.Load(), early.Load())
			}
			if n := strings.Count(r.log.String(), "throttling"); n != 1 {
				t.Errorf("said %d times:\n%s", n, r.log)
			}
			if r.src.Stats().Retries["throttled"] == 0 {
				t.Errorf("stats %+v", r.src.Stats())
			}
		})
	}
}

// One blob that always fails neither stops the others nor is forgotten, and the log is not filled
// with it.
func TestOneBlobFails(t *testing.T) {
	t.Parallel()
	a := newFake(t, table, "folder")
	bad := pt1h(time.Now())
	for h := range 20 {
		a.append(t, table, pt1h(time.Now().Add(-time.Duration(h)*time.Hour)), numbered("a", h, 2))
	}
	a.append(t, "folder", "bad.json", numbered("c", 0, 2))
	var works atomic.Bool
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && (r.Blob == bad || r.Blob == "bad.json") && !works.Load() {
			return &fakeblob.Fault{Status: 409, Code: "BlobUsesCustomerSpecifiedEncryption"}
		}
		return nil
	})
	state := openState(t, statePath(t))
	defer state.Close()
	cfg := a.config()
	cfg.Containers = []string{table, "folder"}
	r := start(t, cfg, state)
	r.want(38)
	a.append(t, "folder", "new.json", numbered("d", 0, 3)) // found by a sweep, which the bad one must not hold up
	r.want(41)
	said := func() int { return strings.Count(r.log.String(), "BlobUsesCustomerSpecifiedEncryption") }
	r.until("both containers to be said", func() bool { return said() >= 2 })
	r.quiet(41)
	if n := said(); n != 2 {
		t.Errorf("said %d times for two containers:\n%s", n, r.log)
	}
	r.stop()
	works.Store(true)
	r = start(t, cfg, state)
	r.want(4)
}

// entra is a sign-in endpoint and a storage account behind TLS with an authority of their own.
func entra(t *testing.T, fake *fakeblob.Server) (cfg blob.Config) {
	t.Helper()
	const tenant = "11111111-1111-1111-1111-111111111111"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base := "https://" + r.Host + "/" + tenant
		switch r.URL.Path {
		case "/" + tenant + "/v2.0/.well-known/openid-configuration":
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]string{
				"token_endpoint": base + "/token", "authorization_endpoint": base + "/authorize", "issuer": base + "/v2.0"})
		case "/" + tenant + "/token":
			_ = r.ParseForm()
			w.Header().Set("Content-Type", "application/json")
			if r.Form.Get("client_secret") != "right-one" || r.Form.Get("scope") == "" {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
				return
			}
			fmt.Fprint(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"a-token"}`)
		default:
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") && r.Header.Get("Authorization") != "Bearer a-token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fake.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	set := map[string]string{
		"blob.auth": "client_secret", "blob.account_url": srv.URL + "/" + fakeblob.Account, "blob.containers": table, "blob.start": "earliest",
		"azure.tenant_id": tenant, "azure.client_id": "app", "azure.client_secret": "right-one", "azure.authority_host": srv.URL + "/", "azure.ca_file": ca,
	}
	s := input.NewSettings(func(k string) string { return set[k] }, append(append([]input.Setting(nil), blob.Settings...), signin.Settings...))
	id := signin.Read(s)
	cfg, _ = blob.ReadConfig(s, id)
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.HTTP.CloseIdleConnections)
	cfg.PollInterval = 20 * time.Millisecond
	return cfg
}

func TestEntra(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 5))
	r := start(t, entra(t, a.fake), nil)
	r.want(5)
}

func TestEntraWrongSecret(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	cfg := entra(t, a.fake)
	cfg.SignIn.Secret = input.NewSecret("wrong-one")
	r := start(t, cfg, nil)
	r.says("the client secret is wrong")
	if strings.Contains(r.log.String(), "wrong-one") {
		t.Error("the secret is in the log")
	}
}

// Listing works with roles that do not let read: the log names the one that is missing.
func TestRoleIsMissing(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	for h := range 9 {
		a.append(t, table, pt1h(time.Now().Add(-time.Duration(h)*time.Hour)), numbered("a", 0, 5))
	}
	var granted atomic.Bool
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && !granted.Load() {
			return &fakeblob.Fault{Status: 403, Code: "AuthorizationPermissionMismatch"}
		}
		return nil
	})
	r := start(t, entra(t, a.fake), nil)
	r.says("grant the identity the role Storage Blob Data Reader")
	time.Sleep(200 * time.Millisecond)
	if n := strings.Count(r.log.String(), "Storage Blob Data Reader"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
	granted.Store(true)
	r.want(45)
	r.says("works again")
}

func TestExpiredSAS(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 5))
	cfg := sasOf(a, time.Now().Add(-time.Hour))
	r := start(t, cfg, nil)
	r.says("the shared access signature expired at 20")
	if strings.Contains(r.log.String(), "c2VjcmV0") {
		t.Errorf("the signature is in the log:\n%s", r.log)
	}
	good := start(t, sasOf(a, time.Now().Add(time.Hour)), nil)
	good.want(5)
}

// The name of an account that does not answer is logged, the signature in the URL is not.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	cfg := sasOf(a, time.Now().Add(time.Hour))
	a.fake.Close()
	r := start(t, cfg, nil)
	r.says("check the account's name, network and proxy")
	if strings.Contains(r.log.String(), "sig=") || strings.Contains(r.log.String(), "c2VjcmV0") {
		t.Errorf("the signature is in the log:\n%s", r.log)
	}
}

// Folders are named, and blobs stamped, by the service's clock. Ours may be an hour, or days, off.
func TestClockIsOff(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-time.Hour, time.Hour, -100 * time.Hour, 100 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			a := newFake(t)
			server := time.Now().Add(off)
			a.fake.SetClock(func() time.Time { return time.Now().Add(off) })
			a.fake.Append(table, pt1h(server), []byte(numbered("before", 0, 5)))
			cfg := sasOf(a, server.Add(time.Hour))
			cfg.Start = input.Start{Latest: true}
			state := openState(t, statePath(t))
			defer state.Close()
			r := start(t, cfg, state)
			r.until("three polls", func() bool { return r.src.Stats().Lists > 9 })
			a.fake.Append(table, pt1h(server), []byte(numbered("after", 0, 5)))
			time.Sleep(1100 * time.Millisecond) // creation times have whole seconds
			a.fake.Append(table, pt1h(server.Add(-time.Hour)), []byte(numbered("after", 0, 2)))
			r.want(7)
		})
	}
	t.Run("shared key", func(t *testing.T) { // which the service refuses
		t.Parallel()
		a := newFake(t, table)
		a.fake.SetClock(func() time.Time { return time.Now().Add(time.Hour) })
		r := start(t, a.config(), nil)
		r.says("this machine's clock differs from the service's by -1h0m0s")
	})
}

// The last line of a blob waits for its newline until an hour after the hour, and the last change,
// are over.
func TestTail(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	hour := time.Now().UTC().Truncate(time.Hour)
	var clock atomic.Int64
	set := func(at time.Time) { clock.Store(at.UnixNano()) }
	set(hour.Add(50 * time.Minute))
	a.fake.SetClock(func() time.Time { return time.Unix(0, clock.Load()) })
	name := pt1h(hour)
	a.fake.Append(table, name, []byte("{\"a\":1}\r\n{\"a\":2"))
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, sasOf(a, hour.Add(24*time.Hour)), state)
	r.want(1)
	set(hour.Add(119 * time.Minute))
	r.quiet(1)
	set(hour.Add(121 * time.Minute))
	r.want(2)
	same(t, r.texts(""), []string{`{"a":1}`, `{"a":2`})
	// Later still it grows: what comes is a line of its own.
	a.fake.Append(table, name, []byte("\r\n{\"a\":3}\r\n{\"a\":"))
	r.want(3)
	set(hour.Add(240 * time.Minute))
	r.want(4)
	r.stop()
	a.fake.Append(table, name, []byte("4}\r\n{\"a\":5}\r\n"))
	r = start(t, sasOf(a, hour.Add(24*time.Hour)), state)
	r.want(2)
	same(t, r.texts(""), []string{`4}`, `{"a":5}`})
}

func TestEmptyPages(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	for i := range 25 {
		a.fake.Append("folder", fmt.Sprintf("%02d.json", i), []byte("{}\n"))
		a.fake.Append(table, pt1h(time.Now().Add(-time.Duration(i)*time.Hour)), []byte("{}\n"))
	}
	a.fake.SetPageSize(2)
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault { return &fakeblob.Fault{EmptyPage: true} })
	cfg := a.config()
	cfg.Containers = []string{table, "folder"}
	r := start(t, cfg, nil)
	r.want(50)
}

// Block blobs that are written again keep their creation time: their head tells, or nothing new is
// read.
func TestBlockBlobWrittenAnew(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	made := time.Now().Add(-time.Minute)
	name := "a.ndjson"
	put := func(text string) {
		a.fake.Put("folder", name, []byte(text))
		a.fake.Age("folder", name, made, time.Now())
	}
	put(numbered("a", 0, 10))
	cfg := a.config()
	cfg.Containers = []string{"folder"}
	r := start(t, cfg, nil)
	r.want(10)
	put(numbered("a", 0, 13)) // the same and more
	r.want(13)
	put(numbered("b", 0, 20)) // another, and longer
	r.want(33)
	same(t, r.texts("")[13:], split(numbered("b", 0, 20)))
}

// Nobody fetches: what is asked of the service stays within FetchBytes.
func TestFetchBytesBound(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	text := []byte(numbered("a", 0, 8000)) // 1 MB
	for h := range 20 {
		a.fake.Append(table, pt1h(time.Now().Add(-time.Duration(h)*time.Hour)), text)
	}
	var asked atomic.Int64
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob {
			var from, to int64
			if _, err := fmt.Sscanf(r.HTTP.Header.Get("x-ms-range"), "bytes=%d-%d", &from, &to); err != nil {
				t.Error(err)
			}
			asked.Add(to - from + 1)
		}
		return nil
	})
	cfg := a.config()
	cfg.FetchBytes, cfg.Workers = 4<<20, 8
	src, err := blob.Open(t.Context(), cfg, nil, (&logs{}).logger())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for end := time.Now().Add(time.Minute); asked.Load() == 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond)
	if n := asked.Load(); n == 0 || n > cfg.FetchBytes {
		t.Errorf("%d bytes were asked for while nobody fetched, of %d", n, cfg.FetchBytes)
	}
	for lines := 0; lines < 20*8000; {
		messages, err := src.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lines += len(messages)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	r := start(t, a.config(), nil)
	r.stop()
	if r.err == nil {
		t.Error("Fetch returned no error")
	}
}

// The disk is full: nothing is committed, nothing is lost, and it continues when there is room.
func TestDiskFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	a := newFake(t)
	path := statePath(t)
	state := openState(t, path)
	defer state.Close()
	for h := range 100 {
		a.fake.Append(table, pt1h(time.Now().Add(-time.Duration(h%48)*time.Hour)), []byte(numbered("a", h, 2)))
		a.fake.Append(fmt.Sprintf("c%03d", h), pt1h(time.Now()), []byte("{}\n"))
	}
	cfg := a.config()
	cfg.Containers = []string{"c*"}
	r := start(t, cfg, state)
	r.want(100)
	r.stop()
	full(t)
	cfg.Containers = []string{table}
	r = start(t, cfg, state)
	r.until("an error of Commit or of the log", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err != nil || strings.Contains(r.log.String(), "state file")
	})
	room(t)
	r.until("all lines", func() bool { return len(r.texts("")) >= 200 })
	r.stop()
	again := start(t, cfg, state) // what was not committed comes again
	time.Sleep(200 * time.Millisecond)
	a.fake.Append(table, pt1h(time.Now()), []byte("{\"last\":1}\n"))
	again.until("the last line", func() bool { return strings.Contains(strings.Join(again.texts(""), ""), "last") })
	again.stop()
	once := start(t, cfg, state)
	once.quiet(0)
}

// full lets no file of this process be written to behind its first two pages. A state file keeps
// all of its data there. A higher limit would leave room for pages that are free.
func full(t *testing.T) {
	limit := syscall.Rlimit{Cur: 2 * uint64(os.Getpagesize()), Max: ^uint64(0)}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { room(t) })
}

func room(t *testing.T) {
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: ^uint64(0), Max: ^uint64(0)}); err != nil {
		t.Fatal(err)
	}
}

func TestStateFileDamagedOrLocked(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	a.fake.Append(table, pt1h(time.Now()), []byte(numbered("a", 0, 10)))
	path := statePath(t)
	state := openState(t, path)
	r := start(t, a.config(), state)
	r.want(10)
	r.stop()
	if _, err := input.OpenState(path, r.log.logger()); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text[:8192] {
		text[i] ^= 0x5a
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var said logs
	state, err = input.OpenState(path, said.logger())
	if err != nil || !strings.Contains(said.String(), "state file is damaged") {
		t.Fatalf("%v, %s", err, &said)
	}
	defer state.Close()
	r = start(t, a.config(), state)
	r.want(10)
}

// A position that cannot be read costs a repetition, not the blob.
func TestStoredPositionDamaged(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	a.fake.Append(table, pt1h(time.Now()), []byte(numbered("a", 0, 10)))
	state := openState(t, statePath(t))
	defer state.Close()
	if err := state.Write("blob", []input.Change{{Key: table + "/" + pt1h(time.Now()), Value: []byte("1 n -5 x")}}); err != nil {
		t.Fatal(err)
	}
	r := start(t, a.config(), state)
	r.want(10)
	r.says("stored position")
}

// A blob that was made later is another one, also when it begins with the same bytes. Continuing
// would leave out the bytes that differ further down.
func TestReplacedBySameHead(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	name := pt1h(time.Now())
	text := numbered("a", 0, 40)
	a.fake.Append(table, name, []byte(text))
	a.fake.Age(table, name, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	r := start(t, a.config(), nil)
	r.want(40)
	a.fake.Delete(table, name)
	a.fake.Append(table, name, []byte(strings.Replace(text, `"a":39`, `"b":39`, 1)+numbered("a", 40, 1)))
	r.want(81)
}

// A mark of a blob that has been replaced since must not move the new one.
func TestCommitOfReplacedBlob(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	name := pt1h(time.Now())
	a.fake.Append(table, name, []byte(numbered("old", 0, 20)))
	state := openState(t, statePath(t))
	defer state.Close()
	r := start(t, a.config(), state)
	r.mu.Lock()
	r.hold = true
	r.mu.Unlock()
	r.want(20)
	stale := r.all()[19].Mark
	a.fake.Delete(table, name)
	a.fake.Append(table, name, []byte(numbered("new", 0, 60)))
	r.want(80)
	if err := r.src.Commit(t.Context(), []input.Mark{stale}); err != nil {
		t.Fatal(err)
	}
	r.stop() // nothing of the new one was committed, so all of it comes again
	r = start(t, a.config(), state)
	r.want(60)
}

// A listing that was under way while the blob was asked itself shows less than is known: the blob
// has not shrunk.
func TestListingIsOvertaken(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	name := pt1h(time.Now())
	a.fake.Append(table, name, []byte(numbered("a", 0, 10)))
	listing, read := make(chan struct{}), make(chan struct{})
	var lists, reads atomic.Int64
	a.fake.SetLate(func(r fakeblob.Request) {
		// The second listing of the day has been answered and is on its way when the blob grows and
		// is read.
		if r.Op == fakeblob.ListBlobs && r.Prefix != "" && strings.HasPrefix(name, r.Prefix) && lists.Add(1) == 2 {
			close(listing)
			<-read
		}
	})
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && reads.Add(1) == 1 {
			<-listing
			a.fake.Append(table, name, []byte(numbered("a", 10, 10))) // 412, and it is looked at again
		}
		return nil
	})
	r := start(t, a.config(), nil)
	r.until("all lines", func() bool { return r.count() >= 20 })
	close(read)
	r.quiet(20)
	if r.src.Stats().Replaced > 0 {
		t.Error("taken for another blob")
	}
}
