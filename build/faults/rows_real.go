package main

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/kafka"
)

// Faults of real servers, where the fakes could be too kind: in how a group is coordinated, a log
// recovered, a blob kept.
var realRows = []*row{
	{
		name: "kafka-sigkill", fault: "SIGKILL at random; the broker learns of all but the last", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) {
			h := r.host(r.startKafka(4))
			h.start()
			kills := r.either(8, 4)
			f := r.feedHub(40_000, time.Duration(kills)*1200*time.Millisecond)
			h.crashes(kills, 300*time.Millisecond, 1500*time.Millisecond)
			f.wait(r)
			r.drain()
			g := r.feedHub(20_000, 4*time.Second)
			r.sleep(time.Second)
			h.kill()
			h.again()
			r.finish(g)
		},
	},
	{
		name: "kafka-sigkill-unaided", fault: "SIGKILL 8 times, nobody tells the broker", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.unaidedKills(r.host(r.startKafka(4))) },
	},
	{
		name: "kafka-three", fault: "three members, one of them killed 3 times, nobody tells the broker", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.threeMembers(r.startKafka(6)) },
	},
	{
		name: "kafka-state-copied", fault: "a second host started with a copy of the state file of one that runs", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.stateCopied(r.startKafka(4)) },
	},
	{
		name: "kafka-state-newer", fault: "SIGKILL between two commits: the state file is ahead of the group", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.stateNewer(r.startKafka(4)) },
	},
	{
		name: "kafka-state-older", fault: "the state file put back to an older one: the group is ahead of it", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.stateOlder(r.startKafka(4)) },
	},
	{
		name: "kafka-set-back", fault: "the group set back to the beginning by hand, to read all again, the state file ahead of it", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.groupSetBack(r.startKafka(1)) },
	},
	{
		name: "kafka-repeats", fault: "repeats: drop, 3 % of all records delivered again: two clean stops, then SIGKILL at random", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) { r.repeatsDropped(r.startKafka(4), r.toHub(hubName)) },
	},
	{
		name: "kafka-sigterm", fault: "hot reload under load, as often as SIGTERM after it", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) {
			h := r.host(r.startKafka(4))
			h.flags = []string{"-grace", "200"}
			h.start()
			const times = 4
			f := r.feedHub(60_000, 2*times*2*time.Second)
			h.reloads(times, 500*time.Millisecond, 2*time.Second)
			h.restarts(times)
			r.finish(f)
		},
	},
	{
		name: "kafka-rebalance", fault: "rebalance: a second and a third consumer join and leave every second", source: kafkaSource, hosts: cHost, needs: needsKafka,
		script: func(r *run) {
			r.startKafka(8)
			r.rebalances(16)
		},
	},
	{
		name: "kafka-down", fault: "broker ended with SIGTERM, then with SIGKILL, and started again", source: kafkaSource, hosts: both, needs: needsKafka,
		script: func(r *run) {
			h := r.host(r.startKafka(4))
			h.start()
			f := r.feedHub(60_000, 10*time.Second)
			for _, down := range []func(*kafka.Server){(*kafka.Server).Stop, (*kafka.Server).Kill} {
				r.sleep(r.between(2*time.Second, 4*time.Second))
				r.kafkaDown(down, r.between(time.Second, 5*time.Second))
			}
			r.finish(f)
		},
	},
	{
		name: "kafka-offsets-deleted", fault: "the group's offsets deleted, then the group, start is latest: the copy decides", source: kafkaSource, hosts: cHost, needs: needsKafka,
		script: func(r *run) {
			h := r.host(r.startKafka(4).with("eventhub.start", "latest"))
			h.start()
			h.expectLog("partitions assigned")
			for n, forget := range []func(ctx context.Context, a *kadm.Client) error{
				func(ctx context.Context, a *kadm.Client) error {
					var all kadm.TopicsSet
					all.Add(hubName, 0, 1, 2, 3)
					deleted, err := a.DeleteOffsets(ctx, group, all)
					if err != nil {
						return err
					}
					return deleted.Error()
				},
				deleteGroup,
			} {
				r.forgetGroup(h, forget)
				r.until(10*time.Second, "the copy to decide", func() bool { return strings.Count(h.log(), copyDecides) > n })
				r.drain()
			}
			r.finish()
		},
	},
	{
		name: "kafka-retention", fault: "retention deletes the next offset: while stopped, and while running", source: kafkaSource, hosts: cHost, needs: needsKafka,
		excuse: "deleted before they were read",
		script: func(r *run) {
			h := r.host(r.startKafka(1)) // one partition, so that an offset tells which events a message has
			r.retentionWhileStopped(h)

			// Now it is running, and stands still for a while: the answer to its fetch has the
			// first few messages already.
			if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				r.fatalf("%v", err)
			}
			numbers := r.retention(150)
			if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				r.fatalf("%v", err)
			}
			last := r.ledger.count().in - 1
			r.until(2*time.Minute, "what is left to be read", func() bool { return r.ledger.isOut(last) })
			gone := r.ledger.excuse(numbers) / perMessage
			if gone == 0 {
				r.fatalf("all messages were read before they were deleted: the row shows nothing")
			}
			h.expectLog("messages_lost=" + strconv.Itoa(gone))
			r.finish()
		},
	},
	{
		name: "azurite-sigkill", fault: "SIGKILL at random, blobs growing", source: azuriteSource, hosts: both, needs: needsAzurite,
		script: func(r *run) {
			h := r.host(r.startAzurite())
			h.start()
			f := r.feed(60_000, 20*time.Second, r.toBlobs(5))
			h.crashes(4, 3*time.Second, 8*time.Second) // long enough to store positions, every 5 s
			r.finish(f)
		},
	},
	{
		name: "azurite-sigterm", fault: "SIGTERM under load, blobs growing", source: azuriteSource, hosts: both, needs: needsAzurite,
		script: func(r *run) {
			r.sigterms(r.host(r.startAzurite()), r.either(6, 4), r.toBlobs(5))
		},
	},
	{
		name: "azurite-down", fault: "storage stopped and started again over its data, 3 times", source: azuriteSource, hosts: both, needs: needsAzurite,
		script: func(r *run) {
			h := r.host(r.startAzurite())
			h.start()
			f := r.feed(60_000, 12*time.Second, r.toBlobs(5))
			for range 3 {
				r.sleep(r.between(time.Second, 4*time.Second))
				r.azuriteDown(r.between(time.Second, 4*time.Second))
			}
			r.finish(f)
		},
	},
}

// toBlobs lets the blobs of the last so many hours grow in turn.
func (r *run) toBlobs(hours int) func(events int) error {
	n := 0
	return func(events int) error {
		for ; events > 0; events -= 100 {
			n++
			if err := r.toBlobNamed(blobName(time.Now().Add(-time.Duration(n%hours)*time.Hour)), min(events, 100)); err != nil {
				return err
			}
		}
		return nil
	}
}
