package machines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = "0d5c1c9e-8a2b-4f5e-9a41-6f1e5f3c7b10"

// fakeAPI is the machines API: a list of devices, and what goes wrong.
type fakeAPI struct {
	devices  []string // ids
	pageMax  int      // devices a page, when less than $top
	byLink   bool     // pages name the next one
	linkTo   string   // the host that they name it on
	merged   map[string]string
	tokens   map[string]bool                                          // those it takes; nil for every one
	trouble  func(n int, w http.ResponseWriter, r *http.Request) bool // has answered
	mu       sync.Mutex
	calls    []time.Time
	lookups  map[string]int
	lists    int
	hostSeen []string
}

func (f *fakeAPI) machine(id string) string {
	merged := "null"
	if to := f.merged[id]; to != "" {
		merged = `"` + to + `"`
	}
	return `{"id":"` + id + `","mergedIntoMachineId":` + merged + `,"computerDnsName":"host-` + id[:8] + `.corp.example","lastSeen":"2026-03-02T08:15:30.1234567Z",` +
		`"osPlatform":"Windows11","osVersion":null,"version":"23H2","osBuild":22631,"osArchitecture":"64-bit","agentVersion":"10.8760.22621.4391",` +
		`"lastIpAddress":"10.1.2.3","lastExternalIpAddress":"203.0.113.9","healthStatus":"Active","deviceValue":"High","rbacGroupId":7,` +
		`"rbacGroupName":"Finance","riskScore":"Medium","exposureLevel":"Low","isAadJoined":true,"aadDeviceId":"6a1f0f3e-2b7e-4b55-9c0f-0d8f3f3b7a21",` +
		`"machineTags":["vip","floor 2"],"onboardingstatus":"Onboarded","isExcluded":false,"exclusionReason":null,"managedBy":"Intune",` +
		`"ipAddresses":[{"ipAddress":"10.1.2.3","macAddress":null}],` +
		`"vmMetadata":{"vmId":"vm-1","cloudProvider":"Azure","resourceId":"/subscriptions/s/vm-1","subscriptionId":"s"}}`
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.calls)
	f.calls = append(f.calls, time.Now())
	f.hostSeen = append(f.hostSeen, r.Host)
	f.mu.Unlock()
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if bearer == "" || f.tokens != nil && !f.tokens[bearer] {
		http.Error(w, `{"error":{"code":"Unauthorized","message":"Token expired"}}`, http.StatusUnauthorized)
		return
	}
	if f.trouble != nil && f.trouble(n, w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if id, ok := strings.CutPrefix(r.URL.Path, "/api/machines/"); ok {
		f.mu.Lock()
		if f.lookups == nil {
			f.lookups = make(map[string]int)
		}
		f.lookups[id]++
		f.mu.Unlock()
		if !slices.Contains(f.devices, id) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"error":{"code":"ResourceNotFound","message":"Machine %s was not found","target":"x"}}`, id)
			return
		}
		_, _ = w.Write([]byte(f.machine(id)))
		return
	}
	if r.URL.Path != "/api/machines" {
		http.NotFound(w, r)
		return
	}
	top, _ := strconv.Atoi(r.URL.Query().Get("$top"))
	skip, _ := strconv.Atoi(r.URL.Query().Get("$skip"))
	if skip >= len(f.devices) {
		http.Error(w, `{"error":{"code":"ResourceNotFound"}}`, http.StatusNotFound)
		return
	}
	end := min(skip+top, len(f.devices))
	if f.pageMax > 0 {
		end = min(end, skip+f.pageMax)
	}
	var page bytes.Buffer
	page.WriteString(`{"@odata.context":"https://api.example/$metadata#Machines","value":[`)
	for i, id := range f.devices[skip:end] {
		if i > 0 {
			page.WriteByte(',')
		}
		page.WriteString(f.machine(id))
	}
	page.WriteByte(']')
	if f.byLink && end < min(skip+top, len(f.devices)) {
		host := f.linkTo
		if host == "" {
			host = "http://" + r.Host
		}
		fmt.Fprintf(&page, `,"@odata.nextLink":"%s/api/machines?$top=%d&$skip=%d"`, host, top-(end-skip), end)
	}
	page.WriteByte('}')
	f.mu.Lock()
	f.lists++
	f.mu.Unlock()
	_, _ = w.Write(page.Bytes())
}

func (f *fakeAPI) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeAPI) asked(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lookups[id]
}

// inMemory carries requests to a handler without a network, so that synctest's clock can run.
type inMemory struct{ h http.Handler }

func (t inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	type answer struct{ resp *http.Response }
	done := make(chan answer, 1)
	go func() {
		w := httptest.NewRecorder()
		t.h.ServeHTTP(w, r)
		done <- answer{w.Result()}
	}()
	select {
	case a := <-done:
		return a.resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// fakeCredential gives tokens "t1", "t2"...; as every credential, it keeps one.
type fakeCredential struct {
	token string
	err   error
}

func (c *fakeCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if o.Scopes[0] != places["commercial"].scope {
		return azcore.AccessToken{}, errors.New("wrong scope " + o.Scopes[0])
	}
	return azcore.AccessToken{Token: c.token, ExpiresOn: time.Now().Add(time.Hour)}, c.err
}

// learned is what a client has said.
type learned struct {
	mu    sync.Mutex
	infos map[string]string
	asked map[string]bool
}

func (l *learned) learn(of string, info []byte, asked bool) {
	_, id, ok := bytes.Cut(info, []byte(`"DeviceId":"`))
	if i := bytes.IndexByte(id, '"'); ok && i > 0 && of == tenant {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.infos == nil {
			l.infos, l.asked = make(map[string]string), make(map[string]bool)
		}
		l.infos[string(id[:i])] = string(info)
		l.asked[string(id[:i])] = asked
		return
	}
	panic(fmt.Sprintf("learn %s %s", of, info))
}

func (l *learned) get(id string) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var m map[string]any
	_ = json.Unmarshal([]byte(l.infos[id]), &m)
	return m
}

func (l *learned) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.infos)
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type rig struct {
	*Client
	learned learned
	log     syncBuffer
	creds   int // credentials made
}

// open starts a client of h. With a nil server it goes through memory.
func open(t *testing.T, cfg Config, h http.Handler, srv *httptest.Server, cred func(n int) azcore.TokenCredential) *rig {
	t.Helper()
	r := &rig{}
	cfg.Tenant, cfg.Scope = tenant, places["commercial"].scope
	base := "http://api.example"
	hc := &http.Client{Transport: inMemory{h}}
	if srv != nil {
		base, hc = srv.URL, srv.Client()
	}
	hc = web.Guard(hc, web.AtMost(pageLimit))
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	newCredential := func() (azcore.TokenCredential, error) {
		mu.Lock()
		defer mu.Unlock()
		r.creds++
		if cred != nil {
			return cred(r.creds), nil
		}
		return &fakeCredential{token: fmt.Sprintf("t%d", r.creds)}, nil
	}
	r.Client, err = start(cfg, u, hc, newCredential, r.learned.learn, slog.New(slog.NewTextHandler(&r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Lookup asks and waits until everything has been answered or ctx ends. It returns the ids without
// an answer.
func (r *rig) Lookup(ctx context.Context, tenant string, ids []string) []string {
	return lookUp(r.Client, ctx, tenant, ids)
}

func lookUp(c *Client, ctx context.Context, tenant string, ids []string) []string {
	wait := time.Hour
	if at, ok := ctx.Deadline(); ok {
		wait = time.Until(at)
	}
	type answer struct {
		id string
		ok bool
	}
	answers := make(chan answer, len(ids))
	coming, pending := c.Ask(tenant, ids, wait, func(id string, answered bool) { answers <- answer{id, answered} })
	for len(coming) > 0 {
		select {
		case a := <-answers:
			coming = slices.DeleteFunc(coming, func(id string) bool { return id == a.id })
			if !a.ok {
				pending = append(pending, a.id)
			}
		case <-ctx.Done():
			return append(pending, coming...)
		case <-c.ctx.Done():
			return append(pending, coming...)
		}
	}
	return pending
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%08x%032x", i+1, i*7919)
	}
	return out
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("never: " + what)
}

func TestListPages(t *testing.T) {
	tests := []struct {
		name  string
		n     int
		api   *fakeAPI
		lists int // pages
	}{
		{"none", 0, &fakeAPI{}, 0},
		{"one page", 17, &fakeAPI{}, 1},
		{"exactly a page", pageSize, &fakeAPI{}, 1}, // and a second, which is 404
		{"by $skip", 20_000, &fakeAPI{}, 2},
		{"by link", 25, &fakeAPI{pageMax: 10, byLink: true}, 3},
		{"by link, as many as $top, then by $skip", 10_500, &fakeAPI{pageMax: 4000, byLink: true}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.api
			f.devices = ids(tt.n)
			c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
			defer c.Close()
			// The line comes after the count.
			eventually(t, "a whole list", func() bool { return c.Stats().Lists == 1 && strings.Contains(c.log.String(), "\n") })
			if got := c.learned.count(); got != tt.n {
				t.Errorf("%d of %d devices", got, tt.n)
			}
			if f.lists != tt.lists {
				t.Errorf("%d pages, want %d", f.lists, tt.lists)
			}
			for id, asked := range c.learned.asked {
				if asked {
					t.Fatalf("%s was listed and not asked for", id)
				}
			}
			if s := c.log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, fmt.Sprintf("devices=%d", tt.n)) {
				t.Errorf("log: %s", s)
			}
		})
	}
}

func TestListAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{devices: ids(3)}
		c := open(t, Config{Refresh: 6 * time.Hour}, f, nil, nil)
		defer c.Close()
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if n := c.Stats().Lists; n != 5 {
			t.Errorf("%d lists in 25 hours, want 5", n)
		}
	})
}

// A token must not travel to where an answer points.
func TestTokenStaysOnHost(t *testing.T) {
	thief := &fakeAPI{devices: ids(1)}
	elsewhere := serve(t, thief)
	t.Run("link", func(t *testing.T) {
		f := &fakeAPI{devices: ids(25), pageMax: 10, byLink: true, linkTo: elsewhere.URL}
		c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
		defer c.Close()
		eventually(t, "said", func() bool { return strings.Contains(c.log.String(), "leads to another host") })
	})
	t.Run("redirect", func(t *testing.T) {
		f := &fakeAPI{trouble: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}}
		c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
		defer c.Close()
		eventually(t, "said", func() bool {
			return strings.Contains(c.log.String(), "which is not followed, since the credential would go along; check device_info.api.url")
		})
		if p := c.Lookup(within(t, 5*time.Second), tenant, ids(1)); len(p) != 1 {
			t.Errorf("pending %v", p)
		}
	})
	if thief.count() != 0 {
		t.Errorf("the other host was called %d times", thief.count())
	}
}

// Pages without a device that point to each other for ever.
func TestLinksInACircle(t *testing.T) {
	f := &fakeAPI{}
	var srv *httptest.Server
	f.trouble = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprintf(w, `{"value":[],"@odata.nextLink":"%s/api/machines?$skiptoken=%d"}`, srv.URL, n%3)
		return true
	}
	srv = serve(t, f)
	c := open(t, Config{Refresh: time.Hour}, f, srv, nil)
	defer c.Close()
	eventually(t, "said", func() bool { return strings.Contains(c.log.String(), "is one that was followed before") })
	if n := f.count(); n != 4 {
		t.Errorf("%d calls", n)
	}
}

// A machine that takes all of a page: a text without end, one column again and again, tags without
// end.
func TestMachineWithoutEnd(t *testing.T) {
	for what, parts := range map[string][2]string{
		"text":    {"", strings.Repeat("x", 1<<10)},
		"columns": {"", `","osPlatform":"` + strings.Repeat("y", 1<<10)},
		"tags":    {`","machineTags":["a`, strings.Repeat(`","a`, 256)},
	} {
		f := &fakeAPI{}
		var sent atomic.Int64
		f.trouble = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, `{"value":[{"id":"`+ids(1)[0]+`","osPlatform":"`+parts[0])
			for sent.Store(0); sent.Load() < 64<<20; {
				n, err := io.WriteString(w, parts[1])
				if err != nil {
					return true
				}
				sent.Add(int64(n))
			}
			return true
		}
		c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
		eventually(t, what+": said", func() bool { return strings.Contains(c.log.String(), "a device in it is longer than 1 MB") })
		c.Close()
		if n := sent.Load(); n >= 64<<20 {
			t.Errorf("%s: all of %d bytes were read", what, n)
		}
	}
}

func TestListThatRepeats(t *testing.T) {
	devices := ids(pageSize)
	f := &fakeAPI{}
	f.trouble = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		all := &fakeAPI{devices: devices}
		r.URL.RawQuery = "$top=10000" // deaf to $skip
		all.ServeHTTP(w, r)
		return true
	}
	c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
	defer c.Close()
	eventually(t, "said", func() bool { return strings.Contains(c.log.String(), "the same page comes again") })
	if n := f.count(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestLookup(t *testing.T) {
	f := &fakeAPI{devices: ids(3)}
	c := open(t, Config{}, f, serve(t, f), nil)
	defer c.Close()
	ask := []string{strings.ToUpper(f.devices[0]), f.devices[1], "ffff000000000000000000000000000000000000"}
	for range 3 { // the second and third time it is known that all have been answered
		if p := c.Lookup(within(t, 10*time.Second), strings.ToUpper(tenant), ask); len(p) != 0 {
			t.Fatalf("pending %v", p)
		}
	}
	if n := c.learned.count(); n != 2 {
		t.Errorf("%d devices", n)
	}
	for _, id := range ask {
		if n := f.asked(strings.ToLower(id)); n != 1 {
			t.Errorf("%s was asked for %d times", id, n)
		}
	}
	if s := c.Stats(); s.Found != 2 || s.Unknown != 1 || s.Failed != 0 || s.Calls[200] != 2 || s.Calls[404] != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	if p := c.Lookup(within(t, time.Second), "11111111-2222-3333-4444-555555555555", f.devices[2:]); len(p) != 0 || f.asked(f.devices[2]) != 0 {
		t.Error("a device of another tenant was asked for")
	}
	if p := c.Lookup(within(t, time.Second), tenant, []string{"../users", "", "a/b", "a?b", strings.Repeat("a", 200), "é"}); len(p) != 0 || f.count() != 3 {
		t.Error("an id that cannot be one was asked for")
	}
	if c.log.String() != "" {
		t.Error(c.log.String())
	}
}

func TestUnknownIsAskedForAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{}
		c := open(t, Config{}, f, nil, nil)
		defer c.Close()
		for range 21 { // 20 minutes
			if p := c.Lookup(within(t, 2*time.Second), tenant, ids(1)); len(p) != 0 {
				t.Fatal(p)
			}
			time.Sleep(time.Minute)
		}
		if n := f.asked(ids(1)[0]); n != 3 {
			t.Errorf("asked %d times in 20 minutes, want 3", n)
		}
	})
}

func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{devices: ids(6), trouble: func(int, http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }}
		c := open(t, Config{}, f, nil, nil)
		defer c.Close()
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				if p := c.Lookup(within(t, 5*time.Second), tenant, f.devices); len(p) != 0 {
					t.Errorf("pending %v", p)
				}
			})
		}
		start := time.Now()
		callers.Wait()
		if n := f.count(); n != 6 {
			t.Errorf("%d calls for 6 devices", n)
		}
		if took := time.Since(start); took != 2*time.Second { // 6 look-ups, 4 at once
			t.Errorf("took %v", took)
		}
	})
}

func TestMergedDeviceIsFollowed(t *testing.T) {
	d := ids(4)
	f := &fakeAPI{devices: d, merged: map[string]string{d[0]: d[1], d[1]: strings.ToUpper(d[2]), d[2]: d[0], d[3]: "ffff"}}
	c := open(t, Config{}, f, serve(t, f), nil)
	defer c.Close()
	if p := c.Lookup(within(t, 5*time.Second), tenant, []string{d[0], d[3]}); len(p) != 0 {
		t.Fatal(p)
	}
	for _, id := range d {
		if c.learned.get(id) == nil {
			t.Errorf("%s is not known", id)
		}
		if n := f.asked(id); n != 1 {
			t.Errorf("%s asked for %d times", id, n)
		}
	}
	if s := c.Stats(); s.Found != 2 {
		t.Errorf("%+v", s)
	}
}

func TestFreshTokenAfter401(t *testing.T) {
	f := &fakeAPI{devices: ids(1), tokens: map[string]bool{"t2": true}}
	c := open(t, Config{}, f, serve(t, f), nil)
	defer c.Close()
	if p := c.Lookup(within(t, 5*time.Second), tenant, ids(1)); len(p) != 0 || c.learned.count() != 1 {
		t.Fatalf("pending %v", p)
	}
	if c.creds != 2 {
		t.Errorf("%d credentials", c.creds)
	}
	if s := c.Stats(); s.Calls[401] != 1 || s.Calls[200] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTokenThatIsNeverTaken(t *testing.T) {
	f := &fakeAPI{devices: ids(1), tokens: map[string]bool{}}
	c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
	defer c.Close()
	eventually(t, "said", func() bool { return strings.Contains(c.log.String(), "401 Unauthorized, with a fresh token too") })
	if s := c.Stats(); s.Calls[401] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{devices: ids(3), trouble: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 0 {
				return false
			}
			w.Header().Set("Retry-After", "37")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}}
		c := open(t, Config{}, f, nil, nil)
		defer c.Close()
		start := time.Now()
		if p := c.Lookup(within(t, 2*time.Second), tenant, f.devices[:1]); len(p) != 1 || time.Since(start) != 2*time.Second {
			t.Errorf("pending %v after %v", p, time.Since(start))
		}
		// Waiting is known to be of no use: the next one does not wait.
		start = time.Now()
		if p := c.Lookup(within(t, 2*time.Second), tenant, f.devices); len(p) != 3 || time.Since(start) != 0 {
			t.Errorf("pending %v after %v", p, time.Since(start))
		}
		time.Sleep(34 * time.Second)
		synctest.Wait()
		if n := f.count(); n != 1 {
			t.Errorf("%d calls before Retry-After was over", n)
		}
		time.Sleep(2 * time.Second)
		if p := c.Lookup(within(t, 2*time.Second), tenant, f.devices); len(p) != 0 || c.learned.count() != 3 {
			t.Errorf("pending %v", p)
		}
		if c.log.String() != "" {
			t.Error(c.log.String())
		}
	})
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{"": time.Minute, "soon": time.Minute, "5": 5 * time.Second, " 5 ": 5 * time.Second, "0": time.Second, "-3": time.Second,
		"999999999": time.Hour, "Sun, 01 Mar 2026 12:00:20 GMT": 20 * time.Second, "Sun, 01 Mar 2026 11:00:00 GMT": time.Second} {
		if got := retryAfter(v, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

// An API that fails, hangs or talks nonsense costs the enrichment and nothing else, is said once,
// and is tried again.
func TestAPIThatDoesNotWork(t *testing.T) {
	say := func(code int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	long := `{"id":"` + ids(1)[0] + `","computerDnsName":"` + strings.Repeat("a", 2<<20) + `"}`
	tests := []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		want   string // in the log
	}{
		{"500", say(500, "<html>"), "500 Internal Server Error"},
		{"503 with a message", say(503, `{"error":{"message":"busy"}}`), `503 Service Unavailable (\"busy\")`},
		{"403", say(403, ""), "grant the application the permission Machine.Read.All"},
		{"hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer within 10s"},
		{"garbage", say(200, "\x00\x01not JSON"), "it is not a JSON object"},
		{"empty", say(200, ""), "it is not a JSON object"},
		{"bad JSON", say(200, `{"id":"x",,}`), "read the answer: "},
		{"cut short", say(200, `{"id":"`+ids(1)[0]+`","computerDnsName":"ho`), "it was cut short"},
		{"another device", say(200, `{"id":"ffff"}`), "about another device"},
		{"no id", say(200, `{"value":[]}`), "it has no device id"},
		{"too long", say(200, long), "it is longer than 1 MB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var works bool
				var mu sync.Mutex
				f := &fakeAPI{devices: ids(60), trouble: func(_ int, w http.ResponseWriter, r *http.Request) bool {
					mu.Lock()
					ok := works
					mu.Unlock()
					if !ok {
						tt.answer(w, r)
					}
					return !ok
				}}
				c := open(t, Config{}, f, nil, nil)
				defer c.Close()
				var waited time.Duration
				for i := range 30 { // payloads, each with a device that is missing, one a second
					start := time.Now()
					if p := c.Lookup(within(t, 2*time.Second), tenant, f.devices[i:i+1]); len(p) != 1 {
						t.Fatalf("pending %v", p)
					}
					if d := time.Since(start); d > 2*time.Second {
						t.Fatalf("waited %v", d)
					} else {
						waited += d
					}
					time.Sleep(time.Second)
				}
				if limit := 14 * time.Second; waited > limit {
					t.Errorf("30 payloads waited %v in all, more than %v", waited, limit)
				}
				if n := f.count(); n > 10 {
					t.Errorf("%d calls", n)
				}
				mu.Lock()
				works = true
				mu.Unlock()
				time.Sleep(5 * time.Minute)
				for i := 30; i < 60; i++ {
					c.Lookup(within(t, 2*time.Second), tenant, f.devices[i:i+1])
					time.Sleep(time.Second)
				}
				if n := c.learned.count(); n < 28 {
					t.Errorf("%d devices of 30 after it worked again", n)
				}
				log := c.log.String()
				if strings.Count(log, "does not work") != 1 || strings.Count(log, "works again") != 1 || !strings.Contains(log, tt.want) {
					t.Errorf("want %q once in the log:\n%s", tt.want, log)
				}
				if strings.Contains(log, "aaaaaaaaaa") {
					t.Error("the answer's content is in the log")
				}
			})
		})
	}
}

// The same over a real connection, for what HTTP itself does to a body that is cut or never comes.
func TestConnectionThatBreaks(t *testing.T) {
	devices := ids(500)
	broken := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "5000000")
		_, _ = w.Write([]byte(`{"value":[{"id":"` + devices[7] + `","osPlatform":"Linux"},{"id":"` + devices[8] + `","osPla`))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	f := &fakeAPI{devices: devices, trouble: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			broken(w)
		}
		return false
	}}
	srv := httptest.NewUnstartedServer(f)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	defer srv.Close()
	c := open(t, Config{Refresh: time.Hour}, f, srv, nil)
	defer c.Close()
	eventually(t, "said", func() bool { return strings.Contains(c.log.String(), "it was cut short") })
	if c.learned.get(devices[7]) == nil || c.learned.get(devices[8]) != nil {
		t.Error("the whole device before the cut is known, and the one that was cut is not")
	}
	srv.CloseClientConnections()
	if p := c.Lookup(within(t, 5*time.Second), tenant, devices[20:21]); len(p) != 0 {
		t.Error("look-ups do not work beside a list that failed")
	}
}

func TestListGoesOnWhereItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{devices: ids(100), pageMax: 10, byLink: true}
		f.trouble = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n >= 3 && n < 6 {
				w.WriteHeader(502)
				return true
			}
			return false
		}
		c := open(t, Config{Refresh: 6 * time.Hour}, f, nil, nil)
		defer c.Close()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := c.Stats(); s.Lists != 1 || s.Listed != 100 || s.Calls[200] != 10 || s.Calls[502] != 3 {
			t.Errorf("%+v", s)
		}
		if log := c.log.String(); strings.Count(log, "does not work") != 1 || strings.Count(log, "works again") != 1 {
			t.Error(log)
		}
	})
}

func TestCloseEndsWhatHangs(t *testing.T) {
	f := &fakeAPI{trouble: func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }}
	c := open(t, Config{Refresh: time.Hour}, f, serve(t, f), nil)
	returned := make(chan []string)
	go func() { returned <- c.Lookup(context.Background(), tenant, ids(9)) }()
	eventually(t, "hangs", func() bool { return f.count() == 1+workers })
	start := time.Now()
	c.Close()
	if p := <-returned; len(p) != 9 {
		t.Errorf("pending %v", p)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if p := c.Lookup(context.Background(), tenant, ids(10)[9:]); len(p) != 1 {
		t.Error("a closed client asks")
	}
	if log := c.log.String(); log != "" {
		t.Error(log)
	}
}

// checkWindows fails if any window of a minute or an hour holds more calls than the API allows.
func checkWindows(t *testing.T, calls []time.Time) {
	t.Helper()
	for _, w := range []struct {
		length time.Duration
		most   int
	}{{time.Minute, 100}, {time.Hour, 1500}} {
		for i := range calls {
			if j := i + w.most; j < len(calls) && calls[j].Sub(calls[i]) <= w.length {
				t.Fatalf("%d calls within %v, from %v on", w.most+1, calls[j].Sub(calls[i]), calls[i])
			}
		}
	}
}

// A flood of unknown devices and lists of many pages beside it, for three simulated hours.
func TestQuotaIsNeverExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAPI{devices: ids(900), pageMax: 10, byLink: true} // 90 pages a list
		c := open(t, Config{Refresh: 30 * time.Minute}, f, nil, nil)
		defer c.Close()
		start := time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		var callers sync.WaitGroup
		for g := range 3 {
			callers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					missing := make([]string, 5)
					for k := range missing {
						missing[k] = fmt.Sprintf("dead%04x%08x%04x", g, i, k)
					}
					once, done := context.WithTimeout(ctx, 2*time.Second)
					c.Lookup(once, tenant, missing)
					done()
					time.Sleep(700 * time.Millisecond)
				}
			})
		}
		time.Sleep(3 * time.Hour)
		cancel()
		callers.Wait()
		synctest.Wait()
		f.mu.Lock()
		calls := slices.Clone(f.calls)
		f.mu.Unlock()
		checkWindows(t, calls)
		if n := len(calls); n < 4000 {
			t.Errorf("only %d calls in %v of 4,500 that are allowed", n, time.Since(start))
		}
		if s := c.Stats(); s.Lists < 5 || s.Unknown < 2500 {
			t.Errorf("one kind of call starved the other: %+v", s)
		}
		if log := c.log.String(); strings.Contains(log, "does not work") {
			t.Error(log)
		}
	})
}

// Callers that take whatever they get.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		var mu sync.Mutex
		var calls []time.Time
		byKind := map[quota]int{}
		ctx, cancel := context.WithTimeout(context.Background(), 150*time.Minute)
		defer cancel()
		var callers sync.WaitGroup
		for i := range 12 {
			q := forLookup
			if i%4 == 0 {
				q = forPage
			}
			callers.Go(func() {
				for l.wait(ctx, q) == nil {
					mu.Lock()
					calls = append(calls, time.Now())
					byKind[q]++
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		checkWindows(t, calls)
		if len(calls) < 2*1500 {
			t.Errorf("%d calls in two and a half hours", len(calls))
		}
		if byKind[forPage] < 300 || byKind[forLookup] < 1000 {
			t.Errorf("%v", byKind)
		}
	})
}

func TestFields(t *testing.T) {
	f := &fakeAPI{devices: ids(1)}
	c := open(t, Config{}, f, serve(t, f), nil)
	defer c.Close()
	c.Lookup(within(t, 5*time.Second), tenant, f.devices)
	got, err := json.Marshal(c.learned.get(f.devices[0]))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"AadDeviceId":"6a1f0f3e-2b7e-4b55-9c0f-0d8f3f3b7a21","AssetValue":"High","AzureResourceId":"/subscriptions/s/vm-1","AzureVmId":"vm-1",` +
		`"AzureVmSubscriptionId":"s","ClientVersion":"10.8760.22621.4391","CloudPlatforms":"Azure","DeviceId":"` + f.devices[0] + `",` +
		`"DeviceManualTags":"[\"vip\",\"floor 2\"]","DeviceName":"host-00000001.corp.example","ExposureLevel":"Low","IsAzureADJoined":true,"IsExcluded":false,` +
		`"LastIPAddress":"10.1.2.3","MachineGroup":"Finance","ManagedBy":"Intune","MergedToDeviceId":"","OSArchitecture":"64-bit","OSBuild":22631,"OSPlatform":"Windows11",` +
		`"OSVersionInfo":"23H2","OnboardingStatus":"Onboarded","PublicIP":"203.0.113.9","RiskScore":"Medium","SensorHealthState":"Active",` +
		`"Timestamp":"2026-03-02T08:15:30.1234567Z"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func text(s string) *bounded { return &bounded{r: strings.NewReader(s), limit: 1 << 20} }

func TestOddMachines(t *testing.T) {
	tests := []struct{ in, want string }{
		{`{"ID":"A","OSPLATFORM":"Linux"}`, `{"DeviceId":"A","OSPlatform":"Linux"}`},
		{`{"id":"a","osBuild":"22631","version":22,"isAadJoined":"yes"}`, `{"DeviceId":"a","OSBuild":"22631","OSVersionInfo":22,"IsAzureADJoined":"yes"}`},
		{`{"id":"a","computerDnsName":{"x":[1]},"osPlatform":["y"],"vmMetadata":"none","machineTags":"t"}`, `{"DeviceId":"a"}`},
		{`{"id":"a","machineTags":[null,"",1,{"x":1}],"riskScore":null}`, `{"DeviceId":"a","DeviceManualTags":"[]"}`},
		{`{"id":"a","mergedIntoMachineId":null,"machineTags":null}`, `{"DeviceId":"a","MergedToDeviceId":""}`},
		{`{"id":"a","mergedIntoMachineId":["b"]}`, `{"DeviceId":"a"}`},
		{`{"id":"a","machineTags":["say \"hi\""],"computerDnsName":"a\u0000\"\\b"}`, `{"DeviceId":"a","DeviceManualTags":"[\"say \\\"hi\\\"\"]","DeviceName":"a\u0000\"\\b"}`},
		{"{\"id\":\"a\",\"computerDnsName\":\"\xff\"}", `{"DeviceId":"a","DeviceName":"` + "\uFFFD" + `"}`},
	}
	for _, tt := range tests {
		m, err := newReader(text(tt.in)).one()
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		} else if string(m.info) != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.in, m.info, tt.want)
		}
	}
	n, _, err := newReader(text(`{"value":[1,null,{"id":""},{"id":"b"}]}`)).page(func(m machine) {
		if m.id != "b" {
			t.Errorf("%+v", m)
		}
	})
	if n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func FuzzReader(f *testing.F) {
	one := (&fakeAPI{}).machine(ids(1)[0])
	f.Add([]byte(one))
	f.Add([]byte(`{"value":[` + one + `],"@odata.nextLink":"https://x/"}`))
	f.Add([]byte(`{"value":[{"id":"a","machineTags":[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(m machine) {
			var v map[string]any
			if err := json.Unmarshal(m.info, &v); err != nil {
				t.Fatalf("%v in %s", err, m.info)
			}
			if v["DeviceId"] == nil {
				t.Fatalf("no id in %s", m.info)
			}
		}
		if m, err := newReader(text(string(b))).one(); err == nil {
			check(m)
		}
		_, _, _ = newReader(text(string(b))).page(check)
	})
}

// An API that answers in 9 s. After a few look-ups nobody waits for it. Its answers are learned all
// the same, and when it is quick again rows wait for it again.
func TestSlowAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		slow.Store(true)
		f := &fakeAPI{devices: ids(60), trouble: func(int, http.ResponseWriter, *http.Request) bool {
			if slow.Load() {
				time.Sleep(9 * time.Second)
			}
			return false
		}}
		c := open(t, Config{Wait: 2 * time.Second}, f, nil, nil)
		defer c.Close()
		waited := time.Duration(0)
		look := func(i int) (pending int) {
			start := time.Now()
			pending = len(c.Lookup(within(t, 2*time.Second), tenant, f.devices[i:i+1]))
			waited += time.Since(start)
			time.Sleep(500 * time.Millisecond)
			return pending
		}
		for i := range 20 {
			if look(i) != 1 {
				t.Error("it has answered in time")
			}
		}
		if waited > 10*time.Second {
			t.Errorf("20 rows have waited %v in all", waited)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := c.learned.count(); n < 3 {
			t.Errorf("%d devices are known of those that were answered late", n)
		}
		slow.Store(false)
		for i := 20; i < 30; i++ {
			look(i)
			time.Sleep(time.Minute)
		}
		if look(40) != 0 {
			t.Error("a look-up does not wait for an API that is quick again")
		}
		if log := c.log.String(); strings.Count(log, "does not work") != 1 || strings.Count(log, "works again") != 1 || !strings.Contains(log, "device_info.wait") {
			t.Error(log)
		}
	})
}
