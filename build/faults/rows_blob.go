package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// Faults of Blob Storage.
var blobRows = []*row{
	{
		name: "blob-sigkill", fault: "SIGKILL at random", source: "blob", hosts: both, ci: true,
		script: func(r *run) {
			h := r.host(r.startBlob())
			r.outputDown(true)
			h.start()
			kills := r.either(10, 6)
			f := r.feedBlob(60_000, time.Duration(kills)*2*time.Second)
			h.crashes(kills, 300*time.Millisecond, 3*time.Second)
			r.outputDown(false)
			r.finish(f)
		},
	},
	{
		name: "blob-sigterm", fault: "SIGTERM under load, blobs growing", source: "blob", hosts: both,
		script: func(r *run) {
			r.sigterms(r.host(r.startBlob()), r.either(10, 5), r.toBlob)
		},
	},
	{
		name: "both-sigkill", fault: "SIGKILL at random, one instance with both sources and a tag a table", source: "hub and blob", hosts: both,
		script: func(r *run) {
			h := r.host(merge(r.startHub(4), r.startBlob()).with("tag_pattern", "defender.*"))
			h.start()
			kills := r.either(10, 6)
			f := r.feedBlob(30_000, time.Duration(kills)*2*time.Second)
			g := r.feedHub(30_000, time.Duration(kills)*2*time.Second)
			h.crashes(kills, 300*time.Millisecond, 3*time.Second)
			r.finish(f, g)
		},
	},
	{
		name: "both-repeats", fault: "repeats: drop, 3 % of all records delivered again through either source: three clean stops, then SIGKILL at random", source: "hub and blob", hosts: both,
		script: func(r *run) {
			r.repeatsDropped(merge(r.startHub(4), r.startBlob()), r.toHub(hubName), r.toBlob)
		},
	},
	{
		name: "blob-repeats", fault: "repeats: drop, 3 % of all records delivered again: two clean stops, then SIGKILL at random", source: "blob", hosts: both,
		script: func(r *run) { r.repeatsDropped(r.startBlob(), r.toBlob) },
	},
	{
		name: "blob-state-copied", fault: "a second host started with a copy of the state file of one that runs: it reads on from there, too", source: "blob", hosts: both,
		script: func(r *run) {
			s := r.startBlob()
			h := r.host(s)
			h.start()
			r.feedBlob(20_000, 2*time.Second).wait(r)
			r.drain()
			r.sleep(2 * time.Second) // nothing moves, so nothing is written
			r.copyFile(s["db"], r.dir+"/2.db")
			other := r.host(s.with("db", r.dir+"/2.db"))
			other.start()
			const after = 20_000
			r.feedBlob(after, 4*time.Second).wait(r)
			r.until(time.Minute, "both hosts to have read all that came after the copy", func() bool {
				return r.ledger.complete() && r.ledger.count().duplicates >= after
			})
			r.finish()
			if c := r.ledger.count(); c.duplicates > after+c.again {
				r.failf("%d events came twice, but only %d were written after the copy", c.duplicates, after)
			}
		},
	},
	{
		name: "blob-state-older", fault: "the state file put back to an older one: what was read since is read again", source: "blob", hosts: both,
		script: func(r *run) {
			s := r.startBlob()
			h := r.host(s)
			read := func(events int) {
				h.start()
				r.feedBlob(events, time.Second).wait(r)
				r.drain()
				h.stop()
			}
			read(20_000)
			r.copyFile(s["db"], r.dir+"/old.db")
			const since = 10_000
			read(since)
			r.copyFile(r.dir+"/old.db", s["db"])
			if err := r.toBlob(20_000); err != nil {
				r.fatalf("%v", err)
			}
			h.again()
			r.finish()
			// A chunk of events that are read again may have the bytes of the first one. It counts
			// as one that Fluent Bit delivered twice.
			if c := r.ledger.count(); c.duplicates < since || c.duplicates-c.again > since {
				r.failf("%d events came twice, %d of them in chunks of the same bytes; want the %d that were read since the older file", c.duplicates, c.again, since)
			}
		},
	},
	{
		name: "blob-array", fault: "SIGKILL in the middle of an envelope of 200 MB, which then is written again with more", source: "blob", hosts: cHost,
		script: func(r *run) {
			const limit = 64 << 20
			h := r.host(r.startBlob().with("memory_limit", fmt.Sprint(limit)).with("device_info", "off"))
			h.flags = []string{"-slow", "30"} // so that it is under way for a while
			text := r.gen.envelopeOf(200 << 20)
			name := blobName(time.Now())
			r.blob.Put(blobContainer, name, text)
			total := r.ledger.count().in
			h.start()
			kills := r.either(5, 3)
			for range kills {
				out := r.ledger.count().distinct
				r.until(time.Minute, "more of the envelope", func() bool { return r.ledger.count().distinct > out+total/20 })
				r.sleep(r.between(0, 1500*time.Millisecond))
				h.crash()
				if at := r.ledger.count().distinct; at >= total {
					r.fatalf("all %d events were out when the SIGKILL came: the row shows nothing", total)
				}
				h.again()
			}
			r.drain()
			// It only grew: the new part is read, and nothing else comes again.
			before := r.ledger.count()
			more := r.gen.envelopeOf(1 << 20)
			grown := append(text[:len(text)-len("]}")], ',')
			r.blob.Put(blobContainer, name, append(grown, more[len(`{"records":[`):]...))
			r.drain()
			if after := r.ledger.count(); after.duplicates != before.duplicates {
				r.failf("%d events were added, and %d others came out again", after.in-before.in, after.duplicates-before.duplicates)
			}
			r.finish()
			peak := h.peak().private
			r.notef("%d times, %d MB beside mapped files", kills, peak>>20)
			if peak > limit+beside {
				r.failf("the process took %d MB, more than memory_limit (%d MB) and the %d MB that are allowed for the host", peak>>20, limit>>20, beside>>20)
			}
		},
	},
	{
		name: "blob-grown", fault: "blobs grow after their hour, up to a day later", source: "blob", hosts: cHost,
		script: func(r *run) {
			r.startBlob()
			now := time.Now()
			grow := func(events int) error {
				for hour := range 25 {
					if err := r.toBlobNamed(blobName(now.Add(-time.Duration(hour)*time.Hour)), max(1, events/25)); err != nil {
						return err
					}
				}
				return nil
			}
			if err := grow(5_000); err != nil {
				r.fatalf("%v", err)
			}
			h := r.host(r.blobSection())
			h.start()
			r.finish(r.feed(40_000, 10*time.Second, grow))
		},
	},
	{
		name: "blob-replaced", fault: "blob deleted and written anew while its events wait for the host, then SIGKILL", source: "blob", hosts: cHost,
		excuse: "of the old blob, which were not handed over when the SIGKILL came",
		script: func(r *run) {
			h := r.host(r.startBlob())
			h.flags = []string{"-refuse-between", "0,8", "-slow", "500"}
			name := blobName(time.Now())
			if err := r.toBlobNamed(name, 10_000); err != nil {
				r.fatalf("%v", err)
			}
			old := r.ledger.count().in
			h.start()
			r.sleep(5 * time.Second) // all of it is in the plugin, which is refused
			r.blob.Delete(blobContainer, name)
			if err := r.toBlobNamed(name, 20_000); err != nil { // longer, so that an old position means a place in it
				r.fatalf("%v", err)
			}
			// Now the old events are handed over, and their marks must not be stored as positions
			// in the new blob. The kill comes after a commit (every 5 s), and before a mark of the
			// new blob could cover up the work of the commit.
			r.until(2*time.Minute, "the old events to come out", func() bool { return r.ledger.count().distinct > 0 })
			r.sleep(6500 * time.Millisecond)
			if out := r.ledger.count().distinct; out >= old {
				r.fatalf("all %d old events are out already: the row shows nothing", old)
			}
			h.crash()
			var gone []int
			for n := range old {
				gone = append(gone, n)
			}
			r.ledger.excuse(gone)
			h.flags = nil
			h.again()
			r.finish()
		},
	},
	{
		name: "blob-deleted", fault: "blobs deleted after they were read, others while they are", source: "blob", hosts: cHost,
		excuse: "deleted before they were read",
		script: func(r *run) {
			h := r.host(r.startBlob())
			h.start()
			now := time.Now()
			for n := range 10 {
				name := blobName(now.Add(-time.Duration(n) * time.Hour))
				first := r.ledger.count().in
				if err := r.toBlobNamed(name, 2_000); err != nil {
					r.fatalf("%v", err)
				}
				if n%2 == 0 {
					r.drain()
				} else {
					r.sleep(r.between(0, 1500*time.Millisecond))
				}
				r.blob.Delete(blobContainer, name)
				r.sleep(1500 * time.Millisecond)
				var numbers []int
				for i := first; i < r.ledger.count().in; i++ {
					numbers = append(numbers, i)
				}
				if got := r.ledger.excuse(numbers); n%2 == 0 && got > 0 {
					r.fatalf("%d events of a blob were not read in time: the row shows nothing", got)
				}
			}
			if err := r.toBlobNamed(blobName(now), 2_000); err != nil {
				r.fatalf("%v", err)
			}
			r.finish()
		},
	},
	{
		name: "blob-503", fault: "storage answers 503 for a minute", source: "blob", hosts: both,
		script: func(r *run) {
			h := r.host(r.startBlob())
			h.start()
			f := r.feedBlob(40_000, 20*time.Second)
			r.sleep(3 * time.Second)
			r.blob.SetFault(func(fakeblob.Request) *fakeblob.Fault {
				return &fakeblob.Fault{Status: 503, Code: "ServerBusy", RetryAfter: "3"}
			})
			r.sleep(time.Minute)
			r.blob.SetFault(nil)
			r.ledger.heal()
			r.finish(f)
			if n := strings.Count(h.log(), "retrying"); n > 10 {
				r.failf("the log says %d times that it retries: once a state is enough", n)
			}
		},
	},
	{
		name: "blob-cut", fault: "connections cut in mid-read, a third of all answers", source: "blob", hosts: cHost, ci: true,
		script: func(r *run) {
			h := r.host(r.startBlob())
			draw := r.draw()
			r.blob.SetFault(func(q fakeblob.Request) *fakeblob.Fault {
				switch draw(9) {
				case 0:
					return &fakeblob.Fault{Status: 503, Code: "ServerBusy"}
				case 1, 2:
					if q.Op == fakeblob.GetBlob {
						return &fakeblob.Fault{CutAfter: 1 + draw(200_000)}
					}
				case 3:
					if q.Op == fakeblob.ListBlobs {
						return &fakeblob.Fault{EmptyPage: true}
					}
				}
				return nil
			})
			h.start()
			f := r.feedBlob(40_000, 8*time.Second)
			f.wait(r)
			r.blob.SetFault(nil)
			r.ledger.heal()
			r.finish()
		},
	},
}

// repeatsDropped has 3 % of all records delivered again, through any of the sources, to a host that
// drops repeats. It is stopped and killed meanwhile.
func (r *run) repeatsDropped(s section, puts ...func(events int) error) {
	r.gen.repeats = 3
	h := r.host(s.with("repeats", "drop"))
	if !r.real {
		h.flags = []string{"-slow", "20"} // so that batches always wait when the SIGKILL comes
	}
	h.start()
	// Without a crash, and one source after the other, nothing comes twice: not even events that
	// came before a clean stop.
	fed := 0
	for _, put := range append(puts[:1:1], puts...) {
		r.feed(4000, 0, put).wait(r)
		fed += 4000
		r.drain()
		h.stop()
		h.again()
	}
	if c := r.ledger.count(); c.duplicates > 0 {
		r.failf("%d of %d records came out twice without a crash", c.duplicates, fed)
	}
	kills := r.either(10, 6)
	var feeds []*feed
	for _, put := range puts {
		feeds = append(feeds, r.feed(30_000, time.Duration(kills)*2*time.Second, put))
		fed += 30_000
	}
	h.crashes(kills, 300*time.Millisecond, 3*time.Second)
	r.finish(feeds...)
	c := r.ledger.count()
	r.notef("%d of %d records had come before", fed-c.in, fed)
	if c.in == fed {
		r.failf("no record was delivered again: the row shows nothing")
	}
	// Events handed over since the last write of the marks, and pairs that came through both
	// sources at the same moment. For Fluent Bit this is not a bound: events that it had on disk
	// when it was killed, it delivers by itself.
	if most := kills * 1000; c.duplicates > most && !r.real {
		r.failf("%d duplicates, want %d at most for %d kills", c.duplicates, most, kills)
	}
}

// blobSection is a section that reads the account from its beginning, with a state file.
func (r *run) blobSection() section {
	return section{
		"blob.connection_string": r.account,
		"blob.containers":        blobContainer,
		"blob.start":             "earliest",
		"blob.poll_interval":     "1s",
		"db":                     filepath.Join(r.dir, "state.db"),
	}
}
