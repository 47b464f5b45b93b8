package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// fakeHost is the host of one instance: what it takes, and what it does meanwhile.
type fakeHost struct {
	taken  []string // tag and first byte of each append that was taken
	bytes  int
	during func() bool // called inside an append; false refuses
	log    []string
}

func (f *fakeHost) host() host {
	return host{
		name: "defender.0",
		get:  func(string) string { return "" },
		append: func(tag string, data []byte) bool {
			if f.during != nil && !f.during() {
				return false
			}
			f.taken = append(f.taken, fmt.Sprintf("%s:%c", tag, data[0]))
			f.bytes += len(data)
			return true
		},
		log: func(level slog.Level, line string) { f.log = append(f.log, level.String()+" "+line) },
	}
}

// newTestInstance is an instance without sources: what a pump would do, the test does.
func newTestInstance(f *fakeHost) *instance {
	in := newUnstarted(f.host())
	in.start(config{memory: 256 << 20})
	return in
}

// put queues a batch with a chunk for each item, of size bytes.
func put(t *testing.T, in *instance, next int64, size int, tags ...string) {
	t.Helper()
	b := &input.Batch{Source: "test"}
	for i, tag := range tags {
		b.Append(tag, slices.Concat([]byte{byte('a' + i)}, make([]byte, size-1)))
	}
	b.Mark(input.Mark{Lane: "lane", Term: 1, Next: next})
	if err := in.outbox.Put(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

func safe(in *instance) int64 {
	for _, m := range in.outbox.Safe("test") {
		return m.Next
	}
	return 0
}

func TestARefusedChunkIsTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := true
		f := &fakeHost{}
		f.during = func() bool { return !(len(f.taken) == 1 && refuse) }
		in := newTestInstance(f)
		var g generation
		id := g.add(in)
		defer g.exit()
		put(t, in, 7, 10, "x", "y", "z")

		g.tick(id, time.Now())
		if fmt.Sprint(f.taken) != "[x:a]" || safe(in) != 0 {
			t.Fatalf("after a refusal: taken %v", f.taken)
		}
		refuse = false
		g.tick(id, time.Now())
		if len(f.taken) != 1 {
			t.Fatalf("no pause after a refusal: taken %v", f.taken)
		}
		time.Sleep(15 * time.Second)
		g.tick(id, time.Now())
		if fmt.Sprint(f.taken) != "[x:a y:b z:c]" {
			t.Fatalf("taken %v", f.taken)
		}
		if next := safe(in); next != 7 {
			t.Fatalf("the safe mark is %d", next)
		}
		if n := strings.Count(strings.Join(f.log, "\n"), "takes no events"); n != 1 {
			t.Errorf("%d warnings: %q", n, f.log)
		}
		if !strings.Contains(strings.Join(f.log, "\n"), "takes events again") {
			t.Errorf("log: %q", f.log)
		}
	})
}

func TestATickIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{}
		in := newTestInstance(f)
		var g generation
		id := g.add(in)
		defer g.exit()
		takes := func(d time.Duration) { f.during = func() bool { time.Sleep(d); return true } }
		tick := func(want int, why string) {
			t.Helper()
			f.taken = f.taken[:0]
			g.tick(id, time.Now())
			if len(f.taken) != want {
				t.Errorf("%s: a tick appends %d chunks, want %d", why, len(f.taken), want)
			}
		}
		for i := range 20 {
			put(t, in, int64(i+1), 1<<20, "x", "y", "z")
		}
		takes(2 * time.Millisecond)
		tick(12, "no batch begins after 20 ms, but one that is under way is finished")
		if next := safe(in); next != 4 {
			t.Errorf("safe up to %d, want 4", next)
		}
		tick(0, "the host is left to itself for as long as it was held up")
		time.Sleep(time.Second)
		takes(150 * time.Millisecond) // behind a slow filter
		tick(2, "a batch is broken off after 250 ms")
		time.Sleep(300*time.Millisecond - tickEvery/2 - time.Nanosecond)
		tick(0, "half of the time is the host's")
		time.Sleep(time.Nanosecond)
		tick(1, "the rest of the batch")

		idle, other := newTestInstance(&fakeHost{}), newTestInstance(&fakeHost{})
		g.add(idle) // has nothing to hand over, so it takes no share
		g.add(other)
		put(t, other, 1, 10, "x")
		time.Sleep(time.Second)
		tick(2, "with another section that is busy")
		time.Sleep(3*300*time.Millisecond - tickEvery/2 - time.Nanosecond)
		tick(0, "half of the time is the host's also with two sections")
		time.Sleep(time.Nanosecond)
		tick(1, "with another section that is busy")
	})
}

// Where much waits, the events of a tag are appended together, and no more at once than the host
// takes in a tick.
func TestTagsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{}
		in := newTestInstance(f)
		var g generation
		id := g.add(in)
		defer g.exit()
		next := int64(0)
		fill := func(batches, size int) {
			for range batches {
				next++
				put(t, in, next, size, "x", "y")
			}
		}
		appends := func() int {
			t.Helper()
			f.taken = f.taken[:0]
			for in.outbox.Batches() > 0 {
				g.tick(id, time.Now())
				time.Sleep(time.Second)
			}
			if at := safe(in); at != next {
				t.Errorf("safe up to %d, want %d", at, next)
			}
			return len(f.taken)
		}
		fill(10, 1000)
		if n := appends(); n != 2 {
			t.Errorf("%d appends of 10 small batches with 2 tags, want 2", n)
		}
		for range 10 { // the host is fast: more and more is gathered
			fill(10, 100<<10)
			appends()
		}
		fill(10, 100<<10)
		if n := appends(); n != 8 { // 300 kB each, and the rest
			t.Errorf("%d appends to a fast host, want 8", n)
		}
		f.during = func() bool { time.Sleep(100 * time.Millisecond); return true }
		fill(10, 200<<10)
		appends()
		fill(10, 200<<10)
		if n := appends(); n != 20 {
			t.Errorf("%d appends to a slow host, want 20, batch by batch", n)
		}
	})
}

// With enough events, and as many ticks as in the host, the sections together take up to half of
// the time, and not much less.
func TestHalfOfTheTimeIsTheHosts(t *testing.T) {
	for _, c := range []struct {
		sections, chunks int
		takes            time.Duration
	}{{1, 1, 2 * time.Millisecond}, {1, 3, 2 * time.Millisecond}, {1, 3, 5 * time.Millisecond}, {1, 1, 300 * time.Millisecond}, {3, 2, 3 * time.Millisecond}} {
		t.Run(fmt.Sprintf("%d sections, %d chunks of %v", c.sections, c.chunks, c.takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g generation
				defer g.exit()
				var ids []uintptr
				var spent time.Duration
				tags := slices.Repeat([]string{"x"}, c.chunks)
				for range c.sections {
					f := &fakeHost{}
					in := newTestInstance(f)
					ids = append(ids, g.add(in))
					f.during = func() bool {
						time.Sleep(c.takes)
						spent += c.takes
						for in.outbox.Batches() < 30 {
							put(t, in, 1, 10, tags...)
						}
						return true
					}
					put(t, in, 1, 10, tags...)
				}
				begin := time.Now()
				for next := begin; next.Sub(begin) < 20*time.Second; {
					next = next.Add(tickEvery)
					if d := time.Until(next); d > 0 {
						time.Sleep(d)
					} else {
						next = time.Now() // what was missed is not made up for
					}
					for _, id := range ids {
						g.tick(id, time.Now())
					}
				}
				if share := 100 * spent / time.Since(begin); share < 38 || share > 52 {
					t.Errorf("%d %% of the time is spent in appends", share)
				} else {
					t.Logf("%d %% of the time is spent in appends", share)
				}
			})
		})
	}
}

func TestPauseInsideAnAppendStopsThatInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g generation
		f1, f2 := &fakeHost{}, &fakeHost{}
		f1.during = func() bool { g.pause(); return true } // as the real host: pauses, and takes the chunk
		in1, in2 := newTestInstance(f1), newTestInstance(f2)
		id1, id2 := g.add(in1), g.add(in2)
		defer g.exit()
		put(t, in1, 1, 10, "x", "y")
		put(t, in2, 1, 10, "x", "y")
		g.tick(id1, time.Now())
		g.tick(id2, time.Now())
		g.tick(id1, time.Now())
		if len(f1.taken) != 1 || len(f2.taken) != 2 {
			t.Fatalf("taken %v and %v, want one of the paused instance and all of the other", f1.taken, f2.taken)
		}
		g.resume()
		g.tick(id1, time.Now())
		if len(f1.taken) != 1 {
			t.Fatalf("right after the resume: taken %v", f1.taken)
		}
		time.Sleep(resumeWait)
		g.tick(id1, time.Now())
		if len(f1.taken) != 2 {
			t.Fatalf("after the resume: taken %v", f1.taken)
		}
	})
}

func TestPauseOutsideAnAppendStopsAllInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, again := range []string{"resume", "new instance"} {
			var g generation
			f1, f2 := &fakeHost{}, &fakeHost{}
			in1, in2 := newTestInstance(f1), newTestInstance(f2)
			id1, id2 := g.add(in1), g.add(in2)
			put(t, in1, 1, 10, "x")
			put(t, in2, 1, 10, "x")
			g.pause()
			time.Sleep(5 * time.Second)
			g.tick(id1, time.Now())
			g.tick(id2, time.Now())
			if len(f1.taken)+len(f2.taken) != 0 {
				t.Fatalf("taken %v and %v", f1.taken, f2.taken)
			}
			if again == "resume" {
				g.resume()
			} else {
				g.add(newTestInstance(&fakeHost{}))
			}
			g.tick(id1, time.Now())
			g.tick(id2, time.Now())
			if len(f1.taken) != 1 || len(f2.taken) != 1 {
				t.Fatalf("after a %s: taken %v and %v", again, f1.taken, f2.taken)
			}
			g.exit()
		}
	})
}

func TestExitStopsTheWholeGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g generation
		f := &fakeHost{}
		in := newTestInstance(f)
		id := g.add(in)
		g.add(newTestInstance(&fakeHost{}))
		put(t, in, 1, 10, "x")
		g.exit()
		<-in.stopped
		g.exit()               // that of the second instance
		g.tick(id, time.Now()) // and a late timer
		if len(f.taken) != 0 {
			t.Errorf("taken %v after the exit", f.taken)
		}
		if err := in.outbox.Put(context.Background(), &input.Batch{Source: "test"}); err == nil {
			t.Error("the outbox is still open")
		}
		if next := g.add(newTestInstance(&fakeHost{})); next == id {
			t.Error("an id is used again")
		}
		g.exit()
	})
}

func TestExitWaitsOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g generation
		f := &fakeHost{}
		in := newTestInstance(f)
		stuck := make(chan struct{})
		in.pumps.Go(func() { <-stuck })
		g.add(in)
		g.add(newTestInstance(&fakeHost{}))
		start := time.Now()
		g.exit()
		if took := time.Since(start); took != stopWait {
			t.Errorf("exit took %v, want %v", took, stopWait)
		}
		if !strings.Contains(strings.Join(f.log, "\n"), "did not stop in time") {
			t.Errorf("log: %q", f.log)
		}
		close(stuck)
		<-in.stopped
	})
}

func TestAPanicDuringHandOverIsLoggedAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g generation
		f := &fakeHost{}
		f.during = func() bool { panic("invented") }
		in := newTestInstance(f)
		id := g.add(in)
		defer g.exit()
		put(t, in, 1, 10, "x")
		for range 5 {
			g.tick(id, time.Now())
		}
		if n := strings.Count(strings.Join(f.log, "\n"), "invented"); n != 1 {
			t.Errorf("%d lines about the panic: %q", n, f.log)
		}
		f.during = nil
		g.pause() // must not take the panicked append for one that is under way
		g.resume()
		time.Sleep(time.Second)
		g.tick(id, time.Now())
		if len(f.taken) != 1 {
			t.Errorf("taken %v", f.taken)
		}
	})
}
