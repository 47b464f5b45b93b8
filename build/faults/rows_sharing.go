package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// Faults of several workers that share a storage account. Leases last a minute, so these rows take
// minutes: the shards of a worker that died are taken over within 75 seconds.
var sharingRows = []*row{
	{
		name: "blob-shared", fault: "three workers share the blobs: one is killed, one ended with SIGTERM, one suspended for 90 s, one added", source: "blob", hosts: both, limit: 12 * time.Minute,
		script: func(r *run) {
			workers := r.startWorkers(3)
			f := r.feed(120_000, 4*time.Minute, r.toTenants())
			r.sleep(r.between(5*time.Second, 15*time.Second))
			workers[0].kill()
			r.sleep(r.between(5*time.Second, 15*time.Second))
			suspended := workers[1]
			if err := suspended.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				r.fatalf("%v", err)
			}
			stopped := time.Now()
			r.sleep(r.between(5*time.Second, 15*time.Second))
			added := r.host(r.sharedSection())
			added.start()
			r.sleep(r.between(5*time.Second, 15*time.Second))
			workers[2].stop()
			r.sleep(time.Until(stopped.Add(90 * time.Second)))
			if err := suspended.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				r.fatalf("%v", err)
			}
			suspended.expectLog("lost shards")
			workers[0].again()
			r.finish(f)
			if n := strings.Count(added.log(), "claimed shards"); n == 0 {
				r.failf("the worker that was added has claimed nothing")
			}
			r.repeatsAreOfUnwritten()
		},
	},
	{
		name: "blob-shared-503", fault: "two workers share the blobs; storage answers 503 for a minute", source: "blob", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			workers := r.startWorkers(2)
			f := r.feed(40_000, 40*time.Second, r.toTenants())
			r.sleep(5 * time.Second)
			r.blob.SetFault(func(fakeblob.Request) *fakeblob.Fault {
				return &fakeblob.Fault{Status: 503, Code: "ServerBusy", RetryAfter: "3"}
			})
			r.sleep(time.Minute)
			r.blob.SetFault(nil)
			r.ledger.heal()
			r.finish(f)
			for _, h := range workers {
				if n := strings.Count(h.log(), "retrying"); n > 20 {
					r.failf("the log says %d times that it retries: once a state is enough", n)
				}
			}
		},
	},
	{
		name: "blob-shared-deleted", fault: "two workers share the blobs; the container of their positions is deleted, and made again half a minute later", source: "blob", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			workers := r.startWorkers(2)
			f := r.feed(60_000, time.Minute, r.toTenants())
			r.sleep(10 * time.Second)
			r.blob.DeleteContainer(sharedContainer)
			r.sleep(30 * time.Second)
			r.blob.CreateContainer(sharedContainer)
			r.ledger.heal()
			r.finish(f)
			if !strings.Contains(workers[0].log()+workers[1].log(), "its positions are gone") {
				r.failf("the log does not say that positions are gone")
			}
		},
	},
	{
		name: "blob-shared-broken", fault: "two workers share the blobs; somebody breaks the leases of all shards, 3 times", source: "blob", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			r.startWorkers(2)
			f := r.feed(60_000, time.Minute, r.toTenants())
			for range 3 {
				r.sleep(r.between(5*time.Second, 15*time.Second))
				for n := range 32 {
					r.blob.BreakLease(sharedContainer, fmt.Sprintf("shard-%03d", n))
				}
			}
			r.ledger.heal()
			r.finish(f)
		},
	},
	{
		name: "blob-shared-damaged", fault: "two workers share the blobs; the blobs of their positions are overwritten with rubbish while they are stopped", source: "blob", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			workers := r.startWorkers(2)
			f := r.feed(20_000, 10*time.Second, r.toTenants())
			f.wait(r)
			r.drain()
			for _, h := range workers {
				h.stop()
			}
			for n := range 32 {
				r.blob.Put(sharedContainer, fmt.Sprintf("shard-%03d", n), []byte("rubbish"))
			}
			f = r.feed(20_000, 10*time.Second, r.toTenants())
			for _, h := range workers {
				h.again()
			}
			r.finish(f)
			workers[0].expectLog("its positions are damaged")
		},
	},
	{
		name: "blob-shared-clock", fault: "two workers share the blobs; the clock of the storage is an hour ahead of theirs, and then an hour behind", source: "blob", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			workers := r.startWorkers(2)
			f := r.feed(60_000, 2*time.Minute, r.toTenants())
			r.blob.SetClock(func() time.Time { return time.Now().Add(time.Hour) })
			r.sleep(70 * time.Second) // longer than a lease
			r.blob.SetClock(func() time.Time { return time.Now().Add(-time.Hour) })
			r.sleep(70 * time.Second)
			r.finish(f)
			for _, h := range workers {
				if strings.Contains(h.log(), "lost shards") {
					r.failf("%s: leases were lost to a clock", h.name)
				}
			}
			if c := r.ledger.count(); c.duplicates > 0 {
				r.failf("%d events came again", c.duplicates)
			}
		},
	},
}

const sharedContainer = "defender-workers"

// startWorkers starts so many hosts that share an account, and waits until they have claimed
// shards.
func (r *run) startWorkers(n int) (workers []*host) {
	r.startBlob()
	r.blob.CreateContainer(sharedContainer)
	// A signature, since a key does not allow for a clock that is an hour off.
	r.account = "BlobEndpoint=" + r.blob.URL() + ";SharedAccessSignature=sv=1&se=" + time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339) + "&sig=invented"
	for range n {
		h := r.host(r.sharedSection())
		h.start()
		workers = append(workers, h)
	}
	for _, h := range workers {
		r.until(2*time.Minute, h.name+" to claim shards", func() bool { return strings.Contains(h.log(), "claimed shards") })
	}
	return workers
}

// sharedSection is a section without any state of its own.
func (r *run) sharedSection() section {
	s := r.blobSection().with("blob.shared", sharedContainer)
	delete(s, "db")
	return s
}

// toTenants lets the blobs of this hour of some tenants grow in turn: they fall to several shards.
func (r *run) toTenants() func(events int) error {
	n := 0
	return func(events int) error {
		for ; events > 0; events -= 100 {
			n++
			name := strings.Replace(blobName(time.Now()), "-0d1e2f3a4b5c/", fmt.Sprintf("-0d1e2f3a4b%02d/", n%24), 1)
			if err := r.toBlobNamed(name, min(events, 100)); err != nil {
				return err
			}
		}
		return nil
	}
}

// repeatsAreOfUnwritten fails the row when more came again than two workers can have handed over
// between two writes: positions are written every 5 s, and when a worker begins sooner.
func (r *run) repeatsAreOfUnwritten() {
	const aSecond, between = 120_000 / (4 * 60), 6 // events, seconds
	got, most := r.ledger.count().duplicates, 2*aSecond*between
	r.notef("%d could have come again", most)
	if got > most {
		r.failf("%d duplicates, and two workers that end unawares hand over %d between two writes", got, most)
	}
}
