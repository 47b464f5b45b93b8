package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Faults of the host: it ends, pauses, refuses, is slow, reloads, or has no room.
var hostRows = []*row{
	{
		name: "sigkill", fault: "SIGKILL at random", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			r.outputDown(true)
			h.start()
			kills := r.either(20, 10)
			f := r.feedHub(60_000, time.Duration(kills)*900*time.Millisecond)
			h.crashes(kills, 300*time.Millisecond, 1500*time.Millisecond)
			r.outputDown(false)
			r.finish(f)
			r.repeatsAreBounded()
		},
	},
	{
		name: "sigkill-handover", fault: "SIGKILL within 0-300 ms of a hand-over", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			r.outputDown(true)
			h.start()
			kills := r.either(20, 10)
			f := r.feedHub(60_000, time.Duration(kills)*900*time.Millisecond)
			for range kills {
				var mark string
				h.stored(&mark)
				for end := time.Now().Add(15 * time.Second); !h.stored(&mark) && time.Now().Before(end); {
					r.sleep(2 * time.Millisecond)
				}
				r.sleep(r.between(0, 300*time.Millisecond))
				h.crash()
				h.again()
			}
			r.notef("%d times", kills)
			r.outputDown(false)
			r.finish(f)
		},
	},
	{
		name: "sigterm", fault: "SIGTERM under load", source: "hub", hosts: both,
		script: func(r *run) {
			r.sigterms(r.host(r.startHub(4)), r.either(10, 5), r.toHub(hubName))
		},
	},
	{
		name: "output-down", fault: "output down for 2 minutes, then back", source: "hub", hosts: fluentBit,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			f := r.feedHub(60_000, 2*time.Minute)
			r.sleep(2 * time.Second)
			r.outputDown(true)
			r.sleep(2 * time.Minute)
			r.outputDown(false)
			r.ledger.heal()
			r.finish(f)
		},
	},
	{
		name: "output-down-paused", fault: "output down until the input is over its limit, paused and resumed", source: "hub", hosts: fluentBit,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.service = "  storage.max_chunks_up: 8\n"
			h.start()
			f := r.feedHub(60_000, 20*time.Second)
			for range 4 {
				r.sleep(2 * time.Second)
				r.outputDown(true)
				r.sleep(5 * time.Second)
				r.outputDown(false)
				r.ledger.heal()
			}
			r.finish(f)
			if n := strings.Count(h.log(), "pausing") + strings.Count(h.log(), "paused"); n == 0 {
				r.failf("the input was never paused: the row shows nothing")
			}
		},
	},
	{
		name: "pauses", fault: "input paused and resumed, again and again, inside appends and between", source: "hub", hosts: cHost, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.flags = []string{"-pause-every", "7", "-pause-ms", "300", "-pause-outside", "900"}
			h.start()
			r.finish(r.feedHub(20_000, 8*time.Second))
		},
	},
	{
		name: "refusals", fault: "30 % of the appends refused at random, then SIGKILL", source: "hub", hosts: cHost, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.flags = []string{"-refuse", "0.3", "-seed", fmt.Sprint(r.rnd.IntN(1 << 20))}
			h.start()
			f := r.feedHub(10_000, 3*time.Second)
			r.sleep(8 * time.Second) // long enough for positions to be committed
			h.crash()
			h.again()
			r.finish(f)
		},
	},
	{
		name: "refused-long", fault: "every append refused for 20 s", source: "hub", hosts: cHost,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.flags = []string{"-refuse-between", "3,23"}
			h.start()
			f := r.feedHub(60_000, 15*time.Second)
			r.sleep(23 * time.Second)
			r.ledger.heal()
			r.finish(f)
		},
	},
	{
		name: "disk-full", fault: "disk full under the storage path (40 MB), output down meanwhile", source: "hub", hosts: fluentBit, needs: unshare,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.disk = &disk{dir: h.storage(), options: "size=40m"}
			r.outputDown(true)
			h.start()
			f := r.feedHub(80_000, 10*time.Second)
			r.sleep(30 * time.Second)
			h.expectLog("takes no events at the moment")
			r.outputDown(false)
			r.ledger.heal()
			r.finish(f)
		},
	},
	{
		name: "slow-filter", fault: "a slow filter", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.flags = []string{"-slow", "150"}
			h.filters = `    - name: lua
      match: "*"
      call: slow
      code: |
        function slow(tag, time, record)
          local till = os.clock() + 0.0004
          while os.clock() < till do end
          return 0, time, record
        end
`
			h.start()
			f := r.feedHub(30_000, 5*time.Second)
			r.sleep(6 * time.Second)
			h.stop() // in the middle of it
			h.again()
			r.finish(f)
		},
	},
	{
		name: "limit", fault: "two instances, one over its limit (the other continues)", source: "2 hubs", hosts: both,
		script: func(r *run) {
			const other = hubName + "-other"
			r.startHub(2, hubName, other)
			limited, free := r.hubSection(), r.hubSection().with("eventhub.hubs", other).with("db", r.dir+"/other.db").with("eventhub.group", "free")
			h := r.host(limited, free)
			// In the C host it is over its limit again and again, in Fluent Bit for as long as its
			// output is down.
			h.flags = []string{"-only", "0", "-pause-every", "10", "-pause-ms", "4000"}
			var down *sink
			if r.real {
				down = r.newSink()
				h.limits = []string{"500k"}
				h.outputs = []output{{h.sections[0]["tag"], down}, {h.sections[1]["tag"], r.sink()}}
				if err := down.setDown(true); err != nil {
					r.fatalf("%v", err)
				}
			}
			h.start()
			f := r.feedHub(8_000, 4*time.Second)
			g := r.feed(40_000, 10*time.Second, r.toHub(other))
			g.wait(r)
			r.until(time.Minute, "the instance within its limit to go on", func() bool { return r.ledger.count().distinct >= 40_000 })
			if r.real {
				h.expectLog("paused (mem buf overlimit")
				if c := r.ledger.count(); c.distinct > 40_000 {
					r.failf("%d events came out while the limited instance could deliver none: the row shows nothing", c.distinct)
				}
				if err := down.setDown(false); err != nil {
					r.fatalf("%v", err)
				}
				r.ledger.heal()
			}
			r.finish(f)
		},
	},
	{
		name: "reload", fault: "hot reload under load, two instances", source: "hub", hosts: both, limit: 15 * time.Minute,
		script: func(r *run) {
			r.startHub(4)
			h := r.host(r.hubSection(), r.hubSection().with("db", r.dir+"/other.db"))
			h.flags = []string{"-grace", "200"}
			h.start()
			reloads := r.either(50, 50)
			f := r.feedHub(100_000, time.Duration(reloads)*2*time.Second)
			h.reloads(reloads, 200*time.Millisecond, time.Second)
			r.notef("%d times", reloads)
			r.finish(f)
		},
	},
	{
		name: "reload-output-down", fault: "hot reload while the output is down", source: "hub", hosts: fluentBit,
		script: func(r *run) {
			r.startHub(4)
			h := r.host(r.hubSection(), r.hubSection().with("db", r.dir+"/other.db"))
			h.start()
			f := r.feedHub(40_000, 10*time.Second)
			r.sleep(3 * time.Second)
			r.outputDown(true)
			r.sleep(2 * time.Second)
			h.reload()
			r.sleep(20 * time.Second)
			r.outputDown(false)
			r.ledger.heal()
			h.awaitReload(1)
			r.finish(f)
		},
	},
	{
		// The kernel gives a signal to a process to whichever thread it likes, mostly the first.
		// This row gives it to each of them.
		//
		// Fluent Bit answers SIGCONT with a dump of its chunks. Its first thread reads them without
		// a lock, while its engine changes them (src/flb_dump.c, 5.1.1). One such dump ended it.
		// It dumps once a second at most, so one second of signals risks few of them.
		name: "signals", fault: "hot reload, then SIGCONT to every thread, again and again", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			f := r.feedHub(60_000, 15*time.Second)
			r.sleep(time.Second)
			h.reload()
			h.awaitReload(1)
			storm := 12 * time.Second
			if r.real {
				storm = time.Second
			}
			for end := time.Now().Add(storm); time.Now().Before(end); {
				h.signalThreads(syscall.SIGCONT)
				r.sleep(r.between(0, 20*time.Millisecond))
			}
			r.finish(f)
		},
	},
	{
		name: "memory-storage", fault: "SIGTERM with memory storage, output down", source: "hub", hosts: fluentBit,
		loses: "what Fluent Bit holds in memory ends with it; the plugin warns of it at start",
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.memoryStorage = true
			h.start()
			f := r.feedHub(20_000, 4*time.Second)
			r.sleep(time.Second)
			r.outputDown(true)
			r.sleep(6 * time.Second)
			h.stop()
			r.outputDown(false)
			h.again()
			h.expectLog("events are not kept in files")
			f.wait(r)
			r.until(2*time.Minute, "the group to have read everything", r.allCommitted)
			r.sleep(3 * time.Second)
			r.finishNow()
		},
	},
}

// either returns how often something is repeated: on the C host, and on Fluent Bit, which starts
// and ends more slowly. It is less often in a short run.
func (r *run) either(c, fluentBit int) int {
	n := c
	if r.real {
		n = fluentBit
	}
	if r.opt.short {
		n = max(2, n/4)
	}
	return n
}

// crashes kills the host and starts it again, so many times, each after a while.
func (h *host) crashes(times int, least, most time.Duration) {
	for range times {
		h.r.sleep(h.r.between(least, most))
		h.crash()
		h.again()
	}
	h.r.notef("%d times", times)
}

// restarts does the same with SIGTERM.
func (h *host) restarts(times int) {
	for range times {
		h.r.sleep(h.r.between(500*time.Millisecond, 2*time.Second))
		h.stop()
		h.again()
	}
	h.r.notef("%d times", times)
}

// sigterms ends the host with SIGTERM and starts it again, so many times, while put has events put
// in.
func (r *run) sigterms(h *host, times int, put func(events int) error) {
	h.start()
	f := r.feed(60_000, time.Duration(times)*2500*time.Millisecond, put)
	h.restarts(times)
	r.finish(f)
}

// reloads has the host reload, so many times, each after a while.
func (h *host) reloads(times int, least, most time.Duration) {
	for n := range times {
		h.r.sleep(h.r.between(least, most))
		h.reload()
		h.awaitReload(n + 1)
	}
}

// signalThreads sends a signal to every thread of the host.
func (h *host) signalThreads(signal syscall.Signal) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", h.pid()))
	for _, t := range threads {
		if id, e := strconv.Atoi(t.Name()); e == nil {
			_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(h.pid()), uintptr(id), uintptr(signal)) // it may have ended
		}
	}
	if err != nil || !h.running() {
		h.r.fatalf("%s ended: %v; the end of its log:\n%s", h.name, err, h.lastLog(20))
	}
}

// outputDown takes the server away that Fluent Bit delivers to, or gives it back. The C host
// delivers nowhere.
func (r *run) outputDown(down bool) {
	if r.real {
		if err := r.sink().setDown(down); err != nil {
			r.fatalf("%v", err)
		}
	}
}

// awaitReload waits until the nth hot reload is complete. A server that ends meanwhile may leave a
// request without an answer, as that of Fluent Bit 4.1 does.
func (h *host) awaitReload(n int) {
	client := http.Client{Timeout: 2 * time.Second}
	h.r.until(90*time.Second, fmt.Sprintf("reload %d of %s", n, h.name), func() bool {
		if !h.running() {
			h.r.fatalf("%s ended in a reload; the end of its log:\n%s", h.name, h.lastLog(20))
		}
		if !h.real { // each generation logs the start of each section
			return strings.Count(h.log(), "starting version") >= (n+1)*len(h.sections)
		}
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v2/reload", h.httpPort))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var b [256]byte
		k, _ := resp.Body.Read(b[:])
		return strings.Contains(string(b[:k]), fmt.Sprintf(`"hot_reload_count":%d`, n))
	})
}
