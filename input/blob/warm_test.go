package blob_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

const devicesTable = "insights-logs-advancedhunting-deviceinfo"

// warming starts a source of the start latest whose containers of devices are warmed up. told is
// how often it said that it is over, and seen how many messages of devices had come then.
func warming(t *testing.T, cfg blob.Config, state *input.State) (r *reader, told, seen *atomic.Int64) {
	t.Helper()
	cfg.Start = input.Start{Latest: true}
	return warmingFrom(t, cfg, state)
}

// warmingFrom does so with the start of cfg.
func warmingFrom(t *testing.T, cfg blob.Config, state *input.State) (r *reader, told, seen *atomic.Int64) {
	t.Helper()
	told, seen = new(atomic.Int64), new(atomic.Int64)
	var opened atomic.Pointer[reader]
	cfg.WarmUp = 3 * time.Hour
	cfg.Warm = func(container string) bool { return strings.HasSuffix(container, "-deviceinfo") }
	cfg.Warmed = func() {
		for opened.Load() == nil { // Fetch may begin before start returns
			time.Sleep(time.Millisecond)
		}
		r := opened.Load()
		r.src.Stats() // takes the lock of the source: it must not be held here
		n := 0
		for _, m := range r.all() {
			if c, _, _ := strings.Cut(m.Mark.Lane, "/"); strings.HasSuffix(c, "-deviceinfo") {
				n++
			}
		}
		seen.Store(int64(n))
		told.Add(1)
	}
	r = start(t, cfg, state)
	opened.Store(r)
	return r, told, seen
}

func wantWarm(t *testing.T, r *reader, told, seen *atomic.Int64, want int) {
	t.Helper()
	r.until("the end of the warm-up", func() bool { return told.Load() > 0 })
	if n := seen.Load(); n != int64(want) {
		t.Errorf("%d messages of devices had come, want %d\n%s", n, want, r.log)
	}
	r.until("some polls", func() bool { return r.src.Stats().Lists > 20 })
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// The end of the warm-up is reported once, when all recent reports have come, in any layout and
// beside any other tables.
func TestWarmUpIsTold(t *testing.T) {
	t.Parallel()
	patterns := func(cfg blob.Config) blob.Config {
		cfg.Containers = []string{"insights-logs-advancedhunting-*"}
		return cfg
	}
	now := time.Now()
	other := strings.Replace(pt1h(now), tenant, "tenantId=00000000-0000-0000-0000-0000000000bb/", 1)

	t.Run("large blobs of two tenants", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, table, devicesTable)
		a.append(t, table, pt1h(now), numbered("alert", 0, 20_000))
		a.append(t, devicesTable, pt1h(now), numbered("device", 0, 30_000))
		a.append(t, devicesTable, other, numbered("device", 0, 20_000)+`{"open":`)
		old := pt1h(now.Add(-5 * time.Hour))
		a.append(t, devicesTable, old, numbered("old", 0, 5))
		a.fake.Age(devicesTable, old, now.Add(-5*time.Hour), now.Add(-4*time.Hour))
		cfg := patterns(a.config())
		cfg.FetchBytes = 2 << 20
		r, told, seen := warming(t, cfg, nil)
		wantWarm(t, r, told, seen, 50_000)
	})
	t.Run("no container of devices", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, table)
		r, told, seen := warming(t, patterns(a.config()), nil)
		wantWarm(t, r, told, seen, 0)
	})
	t.Run("no container at all", func(t *testing.T) {
		t.Parallel()
		r, told, seen := warming(t, patterns(newFake(t).config()), nil)
		r.until("the end of the warm-up", func() bool { return told.Load() == 1 && seen.Load() == 0 })
	})
	t.Run("a named container that is missing", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, table)
		cfg := a.config()
		cfg.Containers = []string{table, devicesTable}
		r, told, seen := warming(t, cfg, nil)
		r.until("the end of the warm-up", func() bool { return told.Load() == 1 && seen.Load() == 0 })
	})
	t.Run("another layout", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, devicesTable)
		for i := range 12 {
			a.append(t, devicesTable, fmt.Sprintf("flat-%d.json", i), numbered("device", 10*i, 10))
		}
		a.fake.SetPageSize(1)
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Op == fakeblob.ListBlobs {
				time.Sleep(10 * time.Millisecond) // its pages are listed in several polls
			}
			return nil
		})
		r, told, seen := warming(t, patterns(a.config()), nil)
		wantWarm(t, r, told, seen, 120)
	})
	t.Run("two patterns", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, "a-deviceinfo", "b-deviceinfo")
		a.append(t, "a-deviceinfo", pt1h(now), numbered("device", 0, 10))
		a.append(t, "b-deviceinfo", pt1h(now), numbered("device", 0, 10))
		cfg := a.config()
		cfg.Containers = []string{"a-*", "b-*"}
		var first atomic.Bool // the first container is listed and read, and nothing is told
		a.fake.SetFault(func(req fakeblob.Request) *fakeblob.Fault {
			for end := time.Now().Add(10 * time.Second); req.Op == fakeblob.ListContainers && req.Prefix == "b-" && !first.Load() && time.Now().Before(end); {
				first.Store(a.fake.Lists("a-deviceinfo") > 10)
				time.Sleep(time.Millisecond)
			}
			return nil
		})
		r, told, seen := warming(t, cfg, nil)
		wantWarm(t, r, told, seen, 20)
	})
	t.Run("gzip", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, devicesTable)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(numbered("device", 0, 40_000)))
		_ = z.Close()
		a.put(t, devicesTable, path.Dir(pt1h(now))+"/PT1H.json.gz", b.String())
		cfg := patterns(a.config())
		cfg.FetchBytes = 4 << 20
		r, told, seen := warming(t, cfg, nil)
		wantWarm(t, r, told, seen, 40_000)
	})
	t.Run("a blob that is deleted meanwhile", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, devicesTable)
		a.append(t, devicesTable, pt1h(now), numbered("device", 0, 10))
		a.append(t, devicesTable, other, numbered("device", 0, 10))
		a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
			if r.Op == fakeblob.GetBlob && r.Blob == other {
				a.fake.Delete(devicesTable, other)
			}
			return nil
		})
		r, told, seen := warming(t, patterns(a.config()), nil)
		wantWarm(t, r, told, seen, 10)
	})
	t.Run("a restart", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, devicesTable)
		a.append(t, devicesTable, pt1h(now), numbered("device", 0, 10))
		state := openState(t, statePath(t))
		defer state.Close()
		r, told, seen := warming(t, patterns(a.config()), state)
		wantWarm(t, r, told, seen, 10)
		r.until("the position", func() bool { return r.src.Stats().Containers[devicesTable].Behind == 0 })
		r.stop()
		r, told, seen = warming(t, patterns(a.config()), state)
		wantWarm(t, r, told, seen, 0)
		r.stop()
	})
}

// A blob that grows without end is not waited for without end.
func TestWarmUpOfABlobThatGrows(t *testing.T) {
	t.Parallel()
	a := newFake(t, devicesTable)
	name := pt1h(time.Now())
	a.append(t, devicesTable, name, numbered("device", 0, 100))
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob {
			a.fake.Append(devicesTable, name, []byte(numbered("more", 0, 10)))
		}
		return nil
	})
	cfg := a.config()
	cfg.Containers = []string{devicesTable}
	r, told, seen := warming(t, cfg, nil)
	r.until("the end of the warm-up", func() bool { return told.Load() == 1 })
	if n := seen.Load(); n < 100 {
		t.Errorf("%d messages had come", n)
	}
}

// While an account cannot be listed or read the warm-up is not over. It is as soon as that works.
func TestWarmUpOfAnAccountThatFails(t *testing.T) {
	t.Parallel()
	for op, status := range map[fakeblob.Op]int{fakeblob.ListContainers: http.StatusForbidden, fakeblob.ListBlobs: http.StatusServiceUnavailable, fakeblob.GetBlob: http.StatusForbidden} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			a := newFake(t, table, devicesTable)
			a.append(t, devicesTable, pt1h(time.Now()), numbered("device", 0, 10))
			var asked atomic.Int64
			var works atomic.Bool
			a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
				if r.Op != op || works.Load() {
					return nil
				}
				asked.Add(1)
				return &fakeblob.Fault{Status: status, Code: "ServerBusy"}
			})
			cfg := a.config()
			cfg.Containers = []string{"insights-logs-advancedhunting-*"}
			r, told, seen := warming(t, cfg, nil)
			r.until("a second try", func() bool { return asked.Load() >= 2 })
			if n := told.Load(); n > 0 {
				t.Errorf("told although nothing could be read")
			}
			works.Store(true)
			wantWarm(t, r, told, seen, 10)
		})
	}
}

// With the start earliest all blobs are read, and only the recent ones are waited for.
func TestWarmUpFromTheBeginning(t *testing.T) {
	t.Parallel()
	a := newFake(t, devicesTable)
	now := time.Now()
	old := pt1h(now.Add(-7 * time.Hour))
	a.append(t, devicesTable, old, numbered("old", 0, 10))
	a.fake.Age(devicesTable, old, now.Add(-7*time.Hour), now.Add(-6*time.Hour))
	a.append(t, devicesTable, pt1h(now), numbered("device", 0, 10))
	var told *atomic.Int64
	var ready atomic.Bool
	a.fake.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		for end := time.Now().Add(10 * time.Second); r.Op == fakeblob.GetBlob && r.Blob == old && time.Now().Before(end); time.Sleep(time.Millisecond) {
			if ready.Load() && told.Load() > 0 {
				break
			}
		}
		return nil
	})
	cfg := a.config()
	cfg.Containers = []string{devicesTable}
	r, over, seen := warmingFrom(t, cfg, nil)
	told = over
	ready.Store(true)
	wantWarm(t, r, told, seen, 10)
	r.want(20)
}
