package blob_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// What workers ask of the service in a day, by what it bills apart, is what the guide says: 18
// tables that all grow, polls of a minute. Time runs 50 times as fast here. So this is a
// measurement for a machine that does nothing else: a busy one is late. TestSharedScale counts
// lists anywhere.
func TestRequestsADay(t *testing.T) {
	if os.Getenv("BLOB_SHARED_COSTS") == "" {
		t.Skip("a measurement, half a minute on an idle machine: set BLOB_SHARED_COSTS")
	}
	const faster, tables = 50, 18
	text, err := os.ReadFile("../../examples/blobs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{"list", "write", "read", "lease"}
	var lists []int
	for _, workers := range []int{1, 3, 10} {
		lease := time.Minute / faster
		a := newFake(t, sharedContainer)
		a.fake.SetLeases(lease)
		cfg := a.sharedConfig(lease)
		cfg.Shards = 32
		cfg.PollInterval = time.Minute / faster
		cfg.WarmUp, cfg.Warm = 3*time.Hour, func(container string) bool { return strings.HasSuffix(container, "-00") }
		name := func(i int) string { return fmt.Sprintf("insights-logs-advancedhunting-%02d", i) }
		stop := make(chan struct{})
		var growing sync.WaitGroup
		growing.Go(func() {
			for n := 0; ; n++ {
				for i := range tables {
					a.fake.Append(name(i), pt1h(time.Now()), fmt.Appendf(nil, "{\"n\":%d}\r\n", n))
				}
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Second / faster):
				}
			}
		})
		var members []*member
		for range workers {
			members = append(members, joinFor(t, cfg, 5*time.Second/faster))
		}
		until(t, "a fair share", members, func() bool {
			sum, least := 0, 32
			for _, m := range members {
				sum += m.owned()
				least = min(least, m.owned())
			}
			return sum == 32 && least >= 32/workers
		})
		var mu sync.Mutex
		counts := make(map[string]int)
		a.fake.SetAnswered(func(r fakeblob.Request, _ int) {
			kind := "write"
			switch r.Op {
			case fakeblob.ListBlobs, fakeblob.ListContainers:
				kind = "list"
			case fakeblob.GetBlob, fakeblob.GetProperties:
				kind = "read"
			case fakeblob.Lease:
				kind = "lease"
			}
			mu.Lock()
			counts[kind]++
			mu.Unlock()
		})
		const lasts = 12 * time.Second // 10 minutes, as many polls
		time.Sleep(lasts)
		a.fake.SetAnswered(nil)
		close(stop)
		growing.Wait()
		for _, m := range members {
			m.leave()
		}
		mu.Lock()
		got := ""
		for _, kind := range kinds {
			n := int(float64(counts[kind]) * 86400 / (lasts.Seconds() * faster))
			got += fmt.Sprintf(" %d", n)
			if kind == "list" {
				lists = append(lists, n)
			}
			said := sentence(string(text), workers, kind)
			if said == 0 || float64(n) > 1.35*said || float64(n) < said/2 { // a busy machine is late
				t.Errorf("%d workers make %d %s requests a day, and the guide says %v", workers, n, kind, said)
			}
		}
		mu.Unlock()
		t.Logf("%d workers: %s%s", workers, strings.Join(kinds, ", "), got)
	}
	// Each worker would list all if they did not divide the days.
	if lists[2] > 3*lists[0] {
		t.Errorf("ten workers make %d list calls a day, one makes %d", lists[2], lists[0])
	}
}

// sentence reads a number of the guide's table: | workers | list | write | read | lease |
func sentence(guide string, workers int, kind string) float64 {
	_, rest, _ := strings.Cut(guide, fmt.Sprintf("\n| %d | ", workers))
	row, _, _ := strings.Cut(rest, "\n")
	for i, k := range []string{"list", "write", "read", "lease"} {
		if cells := strings.Split(row, "|"); k == kind && i < len(cells) {
			n, _ := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(cells[i]), ",", ""), 64)
			return n
		}
	}
	return 0
}
