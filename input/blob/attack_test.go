package blob_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// hostile is an account whose answers a test may replace: wrap returns whether it has answered.
func hostile(t *testing.T, wrap func(w http.ResponseWriter, r *http.Request) bool) (fake *fakeblob.Server, key, sas blob.Config) {
	t.Helper()
	fake = fakeblob.New()
	fake.CreateContainer(table)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !wrap(w, r) {
			fake.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	url := srv.URL + "/" + fakeblob.Account
	a := &account{conn: "AccountName=" + fakeblob.Account + ";AccountKey=c2VjcmV0LWtleQ==;BlobEndpoint=" + url}
	key, sas = a.config(), a.config()
	sas.Auth, sas.ConnectionString, sas.AccountURL = "sas", input.Secret{}, url
	sas.SAS = input.NewSecret("sv=2024-05-04&sp=rl&se=2100-01-01T00:00:00Z&sig=c2VjcmV0")
	return fake, key, sas
}

func isList(r *http.Request) bool { return r.URL.Query().Get("comp") == "list" }

// A server that answers ranged reads with the whole blob, or another range of it, makes no line
// vanish and none come twice.
func TestRangeIsNotWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(r *http.Request){
		"whole":   func(r *http.Request) { r.Header.Del("x-ms-range") },
		"another": func(r *http.Request) { r.Header.Set("x-ms-range", "bytes=0-99999") },
		"shorter": func(r *http.Request) {
			r.Header.Set("x-ms-range", r.Header.Get("x-ms-range")[:len(r.Header.Get("x-ms-range"))-1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bad atomic.Bool
			fake, cfg, _ := hostile(t, func(_ http.ResponseWriter, r *http.Request) bool {
				if bad.Load() && r.Method == http.MethodGet && !isList(r) {
					spoil(r)
				}
				return false
			})
			text := numbered("a", 0, 80)
			half := len(numbered("a", 0, 40))
			blobName := pt1h(time.Now())
			fake.Append(table, blobName, []byte(text[:half]))
			r := start(t, cfg, nil)
			r.want(40)
			bad.Store(true)
			fake.Append(table, blobName, []byte(text[half:]))
			r.says("is not the range that was asked for")
			if n := r.src.Stats().Retries["not_range"]; n == 0 {
				t.Errorf("stats %+v", r.src.Stats())
			}
			r.quiet(40)
			bad.Store(false)
			r.want(80)
			same(t, r.texts(""), split(text))
		})
	}
}

// No redirect is followed, so neither a signature nor a key reaches where it points to.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s Authorization=%.40q Referer=%q", r.URL, r.Header.Get("Authorization"), r.Header.Get("Referer")))
		http.NotFound(w, r)
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		var reads atomic.Bool // or lists
		fake, key, sas := hostile(t, func(w http.ResponseWriter, r *http.Request) bool {
			if isList(r) == reads.Load() {
				return false
			}
			http.Redirect(w, r, other.URL+"/x", status)
			return true
		})
		fake.Append(table, pt1h(time.Now()), []byte("{}\n"))
		for _, cfg := range []blob.Config{key, sas} {
			r := start(t, cfg, nil)
			r.says("redirects are not followed")
			if strings.Contains(r.log.String(), "sig=") {
				t.Errorf("%d: the signature is in the log:\n%s", status, r.log)
			}
			r.stop()
		}
		reads.Store(true)
		r := start(t, sas, nil)
		r.says("redirects are not followed")
		r.quiet(0)
		r.stop()
		for _, f := range blob.Check(t.Context(), sas) {
			if f.Err == nil || !strings.Contains(f.Err.Error(), "redirects are not followed") {
				t.Errorf("%d: check says %+v", status, f)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, line := range got {
		t.Error("the other server got", line)
	}
}

// Lists and errors without an end are given up after some megabytes, and the source closes at once.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		most   int64
	}{{"list", 200, 32 << 20}, {"error", 500, 16 << 20}, {"redirect", 302, 16 << 20}, {"headers", 0, 16 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var answers, largest atomic.Int64
			_, cfg, _ := hostile(t, func(w http.ResponseWriter, _ *http.Request) bool {
				answers.Add(1)
				filler := bytes.Repeat([]byte("<a/>"), 16<<10)
				sent := int64(0)
				if c.status == 0 {
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return true
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
					for err == nil && sent < 1<<30 {
						var n int
						n, err = fmt.Fprintf(conn, "x-%d: %s\r\n", sent, filler[:4096])
						sent += int64(n)
					}
				} else {
					w.Header().Set("Content-Type", "application/xml")
					w.WriteHeader(c.status)
					_, err := io.WriteString(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>`)
					for err == nil && sent < 1<<30 {
						var n int
						n, err = w.Write(filler)
						sent += int64(n)
					}
				}
				for old := largest.Load(); sent > old && !largest.CompareAndSwap(old, sent); old = largest.Load() {
				}
				return true
			})
			r := start(t, cfg, nil)
			r.says("list container: retrying")
			r.until("a second answer", func() bool { return answers.Load() >= 2 })
			begun := time.Now()
			r.stop()
			if d := time.Since(begun); d > 30*time.Second {
				t.Errorf("Close took %v", d)
			}
			// What a socket's buffers hold comes on top of what was read.
			if n := largest.Load(); n > c.most {
				t.Errorf("%d bytes of an answer were taken, want %d at most", n, c.most)
			}
		})
	}
}

// A listing whose markers go round, or whose pages are empty for ever, is given up, with a
// back-off.
func TestEndlessMarkers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		marker func(n int64) string
		items  string
	}{
		{"same", func(int64) string { return "again" }, ""},
		{"circle of three", func(n int64) string { return fmt.Sprint("m", n%3) }, ""},
		{"circle of three with blobs", func(n int64) string { return fmt.Sprint("m", n%3) },
			`<Blob><Name>a.txt</Name><Properties><Content-Length>5</Content-Length></Properties></Blob>`},
		{"empty pages", func(n int64) string { return fmt.Sprint("m", n) }, ""},
		{"no end", func(n int64) string { return fmt.Sprint("m", n) },
			`<Blob><Name>a.txt</Name><Properties><Content-Length>5</Content-Length></Properties></Blob>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var lists atomic.Int64
			_, cfg, _ := hostile(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !isList(r) {
					return false
				}
				n := lists.Add(1)
				w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				w.Header().Set("Content-Type", "application/xml")
				folder := ""
				if r.URL.Query().Get("delimiter") != "" {
					folder = `<BlobPrefix><Name>tenantId=t/</Name></BlobPrefix>`
				}
				fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>%s%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>`, folder, c.items, c.marker(n))
				return true
			})
			begun := time.Now()
			r := start(t, cfg, nil)
			if c.name != "no end" {
				r.says("the listing has no end")
			}
			r.until("two seconds", func() bool { return time.Since(begun) > 2*time.Second })
			// The first 2,000 may come at once, then it is 200 a second.
			if n := lists.Load(); n > 2000+200*int64(time.Since(begun)/time.Second+1) {
				t.Errorf("%d list calls in %v", n, time.Since(begun))
			}
			if n := lists.Load(); c.name == "same" && n > 50 {
				t.Errorf("%d list calls in %v", n, time.Since(begun))
			}
		})
	}
}

// A server that gives a byte a read is not asked as fast as it answers, and what it gives is read.
func TestOneByteARead(t *testing.T) {
	t.Parallel()
	a := newFake(t, table)
	a.append(t, table, pt1h(time.Now()), numbered("a", 0, 100))
	var bad atomic.Bool
	bad.Store(true)
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob && bad.Load() {
			return &fakeblob.Fault{CutAfter: 1}
		}
		return nil
	})
	begun := time.Now()
	r := start(t, a.config(), nil)
	r.says("read blobs: retrying")
	r.until("two seconds", func() bool { return time.Since(begun) > 2*time.Second })
	if n := a.fake.Count(fakeblob.GetBlob); n > 20*int(time.Since(begun)/time.Second+1) {
		t.Errorf("%d reads in %v", n, time.Since(begun))
	}
	bad.Store(false)
	r.want(100)
	same(t, r.texts(""), split(numbered("a", 0, 100)))
}
