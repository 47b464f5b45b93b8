package web_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T) *http.Client {
	t.Helper()
	c, err := web.NewClient("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// No redirect of any code is followed, whether it leads to another host, another port or the same
// one.
func TestNoRedirect(t *testing.T) {
	var reached atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer evil.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/same" {
			reached.Add(1)
			return
		}
		code := map[string]int{"/301": 301, "/302": 302, "/303": 303, "/307": 307, "/308": 308}[r.URL.Path]
		http.Redirect(w, r, r.URL.Query().Get("to"), code)
	}))
	defer srv.Close()
	guarded := web.Guard(client(t), web.AtMost(1<<10))
	defer guarded.CloseIdleConnections()
	for _, path := range []string{"/301", "/302", "/303", "/307", "/308"} {
		for _, to := range []string{evil.URL + "/x?sig=SIGNATURE", srv.URL + "/same", "/same"} {
			at := srv.URL + path + "?to=" + url.QueryEscape(to)
			req, _ := http.NewRequest(http.MethodPost, at, bytes.NewReader([]byte("client_secret=x")))
			_, err := guarded.Do(req)
			var redirect *web.RedirectError
			if !errors.As(err, &redirect) || redirect.Status == 0 || bytes.Contains([]byte(redirect.Error()), []byte("SIGNATURE")) {
				t.Errorf("%s to %s: %v", path, to, err)
			}
			resp, err := client(t).Post(at, "text/plain", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode < 300 {
				t.Errorf("%s to %s: a client without a guard answers %s", path, to, resp.Status)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// A body ends with an error just after the limit, also where it is packed, or where its length is
// told.
func TestBound(t *testing.T) {
	const limit = 10_000
	length := make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := <-length
		if r.URL.Path == "/told" {
			w.Header().Set("Content-Length", "10001")
			w.WriteHeader(http.StatusInternalServerError)
		}
		for n != 0 {
			k := min(n, 1000)
			if n < 0 {
				k = 1000 // without end
			}
			if _, err := w.Write(bytes.Repeat([]byte(" "), k)); err != nil {
				return
			}
			n -= k
		}
	}))
	defer srv.Close()
	guarded := web.Guard(client(t), web.AtMost(limit))
	defer guarded.CloseIdleConnections()
	f := func(path string, send, want int, long bool) {
		t.Helper()
		length <- send
		n := 0
		resp, err := guarded.Get(srv.URL + path)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			n = len(body)
			_ = resp.Body.Close()
		}
		var e *web.LengthError
		if n != want || errors.As(err, &e) != long || !long && err != nil {
			t.Errorf("%s, %d bytes: read %d, %v; want %d", path, send, n, err, want)
		}
	}
	f("/", 0, 0, false)
	f("/", limit-1, limit-1, false)
	f("/", limit, limit, false)
	f("/", limit+1, limit, true)
	f("/", -1, limit, true)
	f("/told", limit+1, 0, true)
}

// A proxy would fetch the token of its own machine.
func TestMetadataServiceHasNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example:3128")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "")
	proxy := client(t).Transport.(*http.Transport).Proxy
	f := func(at string, want bool) {
		t.Helper()
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		p, err := proxy(&http.Request{URL: u})
		if err != nil || (p != nil) != want {
			t.Errorf("%s: %v, %v", at, p, err)
		}
	}
	f("https://login.microsoftonline.com/", true)
	f("http://host.example/", true)
	f("http://169.254.169.254/metadata/identity/oauth2/token", false)
	f("http://169.254.169.254:80/", false)
	f("http://169.254.129.3:8081/msi/token", false) // App Service and Functions
	f("http://[fe80::1]/", false)
	f("http://127.0.0.1/", false)
}
