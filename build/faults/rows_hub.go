package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Faults of the Event Hub and of the network before it.
var hubRows = []*row{
	{
		name: "hub-down", fault: "broker down and back, 4 times", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			f := r.feedHub(60_000, 10*time.Second)
			for range 4 {
				r.sleep(r.between(time.Second, 3*time.Second))
				r.withoutFeed(func() {
					r.hub.SetDown(true)
					r.sleep(r.between(2*time.Second, 6*time.Second))
					r.hub.SetDown(false)
					r.ledger.heal()
				})
			}
			r.finish(f)
		},
	},
	{
		name: "hub-cut", fault: "connections cut in mid-fetch, 40 times", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			f := r.feedHub(60_000, 12*time.Second)
			for range 40 {
				r.sleep(r.between(50*time.Millisecond, 500*time.Millisecond))
				r.withoutFeed(r.hub.CutConnections)
				r.ledger.heal()
			}
			r.finish(f)
		},
	},
	{
		name: "hub-throttled", fault: "throttled: four of five fetches come back empty", source: "hub", hosts: cHost,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			n := 0
			r.hub.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				r.hub.KeepControl()
				if n++; n%5 == 0 {
					return nil, nil, false
				}
				return emptyFetch(req, 300), nil, true
			})
			h.start()
			r.finish(r.feedHub(40_000, 10*time.Second))
		},
	},
	{
		name: "hub-idle", fault: "idle connections forgotten by the network after 240 s, the output refusing for longer (time runs 20 times as fast)", source: "hub", hosts: cHost,
		script: func(r *run) {
			r.startHub(4)
			h := r.patchedHost("idle", []patch{{"input/eventhub/source.go", "idleTimeout    = 180 * time.Second", "idleTimeout    = 9 * time.Second"}}, r.hubSection())
			h.flags = []string{"-refuse-between", "2,30"}
			r.hub.SetIdleCut(12 * time.Second)
			h.start()
			f := r.feedHub(60_000, 5*time.Second)
			r.sleep(30 * time.Second)
			r.ledger.heal()
			g := r.feedHub(10_000, 5*time.Second)
			r.finish(f, g)
			r.notef("%d dead connections were used", r.hub.Forgotten())
		},
	},
	{
		name: "hub-credentials", fault: "credentials revoked for 10 s, and renewed", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			f := r.feedHub(60_000, 8*time.Second)
			r.sleep(3 * time.Second)
			r.withoutFeed(func() {
				revoked := r.hub.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, TopLevel: true, Err: kerr.SaslAuthenticationFailed, Count: -1})
				r.hub.CutConnections()
				h.expectLog("sign-in was refused")
				r.sleep(10 * time.Second)
				revoked.Remove()
				r.ledger.heal()
			})
			r.finish(f)
			if n := strings.Count(h.log(), "sign-in was refused"); n > 3 {
				r.failf("the log says %d times that sign-in was refused: once a state is enough", n)
			}
		},
	},
	{
		name: "hub-partitions", fault: "partitions added, 2 to 6", source: "hub", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			h := r.host(r.startHub(2))
			h.start()
			r.feedHub(10_000, 2*time.Second).wait(r)
			r.admin(func(ctx context.Context, a *kadm.Client) error {
				_, err := a.UpdatePartitions(ctx, 6, hubName)
				return err
			})
			r.ledger.heal()
			for p := range int32(6) { // the producer learns of them as late as the plugin, so they are named
				var messages [][]byte
				for range 100 {
					messages = append(messages, r.gen.envelope(perMessage))
				}
				r.produceTo(p, messages)
			}
			r.until(5*time.Minute, "the new partitions to be read", r.ledger.complete)
			r.finish()
		},
	},
	{
		name: "hub-rebalance", fault: "rebalance: a second and a third consumer join and leave every second", source: "hub", hosts: cHost, limit: 8 * time.Minute,
		script: func(r *run) {
			r.startHub(8)
			r.rebalances(24)
		},
	},
	{
		name: "hub-group-vanished", fault: "the group's offsets have vanished, start is latest: the copy decides", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			h := r.host(r.startHub(4).with("eventhub.start", "latest"))
			h.start()
			h.expectLog("partitions assigned")
			r.forgetGroup(h, deleteGroup)
			h.expectLog(copyDecides)
			r.finish()
		},
	},
	{
		name: "hub-retention", fault: "retention deletes the next offset: while stopped, and while running", source: "hub", hosts: cHost,
		excuse: "deleted before they were read",
		script: func(r *run) {
			h := r.host(r.startHub(1)) // one partition, so that an offset tells which events a message has
			r.retentionWhileStopped(h)

			// Now it is running, and the broker gives it nothing for a while.
			held := true
			r.hub.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
				if held {
					r.hub.KeepControl()
					return emptyFetch(req, 100), nil, true
				}
				r.hub.DropControl()
				return nil, nil, false
			})
			r.sleep(time.Second)
			gone := r.retentionTakes(150)
			held = false
			h.expectLog(fmt.Sprintf("messages_lost=%d", gone))
			r.finish()
		},
	},
	{
		name: "hub-poison", fault: "poison messages among good ones", source: "hub", hosts: both, ci: true,
		excuse: "cut off inside, passed on as they are",
		script: func(r *run) {
			r.unnumbered = true
			h := r.host(r.startHub(4))
			h.start()
			for range 20 {
				if err := r.toHub(hubName)(400); err != nil {
					r.fatalf("%v", err)
				}
				for _, p := range r.poison() {
					if err := r.produce(hubName, p); err != nil {
						r.fatalf("%v", err)
					}
				}
			}
			r.finish()
			if c := r.ledger.count(); c.unreadable < 20*6 {
				r.failf("%d unreadable records were passed on, want at least %d", c.unreadable, 20*6)
			}
		},
	},
	{
		name: "hub-anew", fault: "hub deleted and created again while its events wait for the host, then SIGKILL", source: "hub", hosts: cHost,
		script: func(r *run) {
			r.startHub(1)
			h := r.host(r.hubSection())
			h.flags = []string{"-refuse-between", "0,8", "-slow", "150"}
			h.start()
			r.feedHub(10_000, 0).wait(r)
			r.sleep(4 * time.Second) // they are in the plugin
			// Events that the plugin holds are handed over later; those that it has not read are
			// gone with the hub.
			old := r.ledger.count().in
			r.recreateHub()
			r.feedHub(20_000, 0).wait(r)
			// The old events are handed over, and their marks may not count for the new hub: a kill
			// right after.
			r.until(60*time.Second, "the old events to come out", func() bool { return r.ledger.count().distinct >= old })
			r.sleep(6 * time.Second)
			h.crash()
			h.flags = nil
			h.again()
			r.finish()
		},
	},
	{
		name: "hub-replaced", fault: "hub deleted and created again while the host is stopped, and grown past the position that the group still has", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(1))
			h.start()
			r.feedHub(10_000, 0).wait(r)
			r.until(60*time.Second, "the group to commit everything", r.allCommitted)
			h.stop()
			position := r.messages[hubName]
			r.recreateHub()
			r.admin(func(ctx context.Context, a *kadm.Client) error { // Kafka forgets it with the topic
				offsets := make(kadm.Offsets)
				offsets.AddOffset(hubName, 0, position, -1)
				return a.CommitAllOffsets(ctx, group, offsets)
			})
			r.feedHub(30_000, 0).wait(r)
			h.again()
			h.expectLog("hub was created again")
			r.finish()
		},
	},
	{
		name: "hub-sigkill", fault: "SIGKILL 8 times, nobody tells the broker", source: "hub", hosts: both,
		script: func(r *run) { r.unaidedKills(r.host(r.startHub(4))) },
	},
	{
		name: "hub-thrice", fault: "SIGKILL 3 times, 7.5 s apart, nobody tells the broker", source: "hub", hosts: both,
		script: func(r *run) {
			h := r.host(r.startHub(4))
			h.start()
			h.expectLog("partitions assigned")
			f := r.feedHub(30_000, 25*time.Second)
			for range 3 {
				r.sleep(7500 * time.Millisecond)
				h.kill()
				r.recovers(h)
			}
			r.finish(f)
			r.repeatsAreBounded()
		},
	},
	{
		name: "hub-three", fault: "three members, one of them killed 3 times, nobody tells the broker", source: "hub", hosts: both,
		script: func(r *run) { r.threeMembers(r.startHub(6)) },
	},
	{
		name: "hub-state-copied", fault: "a second host started with a copy of the state file of one that runs", source: "hub", hosts: both,
		script: func(r *run) { r.stateCopied(r.startHub(4)) },
	},
	{
		name: "hub-state-newer", fault: "SIGKILL while the group takes no commits: the state file is ahead of it", source: "hub", hosts: both,
		script: func(r *run) { r.stateNewer(r.startHub(4)) },
	},
	{
		name: "hub-state-older", fault: "the state file put back to an older one: the group is ahead of it", source: "hub", hosts: both,
		script: func(r *run) { r.stateOlder(r.startHub(4)) },
	},
	{
		name: "hub-state-replaced", fault: "the same, and the hub deleted and created again meanwhile, grown past the file's position", source: "hub", hosts: cHost,
		script: func(r *run) {
			h := r.host(r.startHub(1))
			position := r.stateAhead(h)
			r.recreateHub()
			r.setGroup(position)
			r.feedHub(60_000, 0).wait(r)
			h.again()
			r.finish()
		},
	},
	{
		name: "hub-set-back", fault: "the group set back to the beginning by hand, to read all again, the state file ahead of it", source: "hub", hosts: both,
		script: func(r *run) { r.groupSetBack(r.startHub(1)) },
	},
}

// recreateHub deletes the hub, of one partition, and creates it again.
func (r *run) recreateHub() {
	r.withoutFeed(func() {
		r.admin(func(ctx context.Context, a *kadm.Client) error {
			if _, err := a.DeleteTopic(ctx, hubName); err != nil {
				return err
			}
			_, err := a.CreateTopic(ctx, 1, 1, nil, hubName)
			return err
		})
		r.messages[hubName] = 0
	})
}

// withoutFeed does f while nothing is put in.
func (r *run) withoutFeed(f func()) {
	r.valve.Lock()
	defer r.valve.Unlock()
	f()
}

// client does f with a client of the broker that has just been made.
func (r *run) client(f func(ctx context.Context, c *kgo.Client) error, options ...kgo.Opt) {
	c, err := kgo.NewClient(append(r.broker.ClientOpts(), options...)...)
	if err != nil {
		r.fatalf("%v", err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	defer cancel()
	if err := f(ctx, c); err != nil {
		r.fatalf("administer the broker: %v", err)
	}
}

func (r *run) admin(f func(ctx context.Context, a *kadm.Client) error) {
	r.client(func(ctx context.Context, c *kgo.Client) error { return f(ctx, kadm.NewClient(c)) })
}

// produceTo puts messages into a partition, by a client that has just been made and so knows of it.
func (r *run) produceTo(partition int32, messages [][]byte) {
	var records []*kgo.Record
	for _, m := range messages {
		records = append(records, &kgo.Record{Topic: hubName, Partition: partition, Value: m})
	}
	r.produceRecords(records)
}

// produceRecords puts messages into the partitions that they name.
func (r *run) produceRecords(records []*kgo.Record) {
	r.client(func(ctx context.Context, c *kgo.Client) error {
		r.messages[hubName] += int64(len(records))
		return c.ProduceSync(ctx, records...).FirstErr()
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
}

// emptyFetch is the answer of Event Hubs to a fetch that it throttles.
func emptyFetch(req kmsg.Request, millis int32) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	resp.ThrottleMillis = millis
	return resp
}

// rebalances has a second and a third consumer join the group and leave it, so many times in all,
// about every second.
func (r *run) rebalances(times int) {
	r.host(r.hubSection()).start()
	f := r.feedHub(60_000, time.Duration(times)*1250*time.Millisecond)
	others := []*host{r.host(r.hubSection().with("db", r.dir+"/2.db")), r.host(r.hubSection().with("db", r.dir+"/3.db"))}
	for n := range times {
		if o := others[n%2]; o.process == nil || !o.running() {
			o.start()
		} else {
			o.stop()
		}
		r.sleep(r.between(500*time.Millisecond, 1500*time.Millisecond))
	}
	r.ledger.heal()
	r.finish(f)
}

const copyDecides = "the copy in the state file decides"

// forgetGroup has the host read some events. While the host is stopped and more come, the group
// forgets its offsets.
func (r *run) forgetGroup(h *host, forget func(ctx context.Context, a *kadm.Client) error) {
	r.feedHub(20_000, 2*time.Second).wait(r)
	r.drain()
	h.stop()
	r.feedHub(20_000, 0).wait(r)
	r.admin(forget)
	h.again()
}

func deleteGroup(ctx context.Context, a *kadm.Client) error {
	_, err := a.DeleteGroup(ctx, group)
	return err
}

// retentionWhileStopped has the host read some events, and retention delete the events that it
// would read next while it is stopped.
func (r *run) retentionWhileStopped(h *host) {
	h.start()
	r.feedHub(10_000, time.Second).wait(r)
	r.drain()
	h.stop()
	gone := r.retentionTakes(100)
	h.again()
	h.expectLog(fmt.Sprintf("messages_lost=%d", gone))
	r.drain()
}

// retentionTakes is retention of events none of which can have been read.
func (r *run) retentionTakes(n int) int {
	numbers := r.retention(n)
	if got := r.ledger.excuse(numbers); got != len(numbers) {
		r.fatalf("%d of %d events came out before retention could delete them: the row shows nothing", len(numbers)-got, len(numbers))
	}
	return n
}

// retention puts 300 messages into the only partition, everything before them having been read, and
// deletes the first n of them. It returns the numbers of their events.
func (r *run) retention(n int) (numbers []int) {
	first, events := r.messages[hubName], r.ledger.count().in
	if err := r.toHub(hubName)(300 * perMessage); err != nil {
		r.fatalf("%v", err)
	}
	r.admin(func(ctx context.Context, a *kadm.Client) error {
		var o kadm.Offsets
		o.AddOffset(hubName, 0, first+int64(n), -1)
		_, err := a.DeleteRecords(ctx, o)
		return err
	})
	for i := range n * perMessage {
		numbers = append(numbers, events+i)
	}
	return numbers
}

// poison is messages that cannot be read, wholly or in part. Their good records are in the ledger.
func (r *run) poison() [][]byte {
	cut := r.gen.envelope(10) // in its last record
	cut = cut[:len(cut)-300]
	r.ledger.excuse([]int{r.ledger.count().in - 1})
	one := r.gen.envelope(10)
	bad := bytes.Replace(one, []byte(`},{"time"`), []byte(`},{"time":nonsense "x"},{"time"`), 1)
	null := append([]byte{0, 0, 0}, r.gen.envelope(0)...)
	return [][]byte{
		cut,
		bad,
		null,
		[]byte(`this is not JSON at all`),
		[]byte(`{"records":[1,"two",null]}`),
		[]byte(strings.Repeat(`[`, 400) + strings.Repeat(`]`, 400)),
		[]byte("{\"records\":[{\"category\":\"AdvancedHunting-DeviceInfo\",\"properties\":\"\xff\xfe not an object\"}]}"),
		[]byte(`{"records":[]}`),
		nil,
	}
}

// unaidedWithin is how soon events must come again from every partition after a SIGKILL, from the
// start of the next host on. It took 29 s while the broker waited for the dead member.
const unaidedWithin = 3 * time.Second

// unaidedKills kills the host 8 times under load, and leaves the broker to believe that it lives.
func (r *run) unaidedKills(h *host) {
	h.start()
	h.expectLog("partitions assigned")
	const times = 8
	f := r.feedHub(60_000, times*4*time.Second)
	for range times {
		r.sleep(r.between(500*time.Millisecond, 4*time.Second))
		h.kill()
		r.recovers(h)
	}
	r.notef("%d times", times)
	r.finish(f)
	r.repeatsAreBounded()
}

// recovers starts a host again that was killed, and waits for a message from each partition that
// was put in after that.
func (r *run) recovers(h *host) {
	var numbers []int
	r.withoutFeed(func() {
		var records []*kgo.Record
		for p := range r.partitions {
			numbers = append(numbers, r.ledger.count().in)
			records = append(records, &kgo.Record{Topic: hubName, Partition: p, Value: r.gen.envelope(1)})
		}
		r.produceRecords(records)
	})
	began := time.Now() // on a busy machine the feed may take its time to pause
	h.again()
	r.until(time.Minute, "events from each partition after a SIGKILL", func() bool {
		return !slices.ContainsFunc(numbers, func(n int) bool { return !r.ledger.isOut(n) })
	})
	took := time.Since(began)
	r.ledger.recovered(took)
	if took > unaidedWithin {
		r.failf("it took %v from the start after a SIGKILL until events came from each partition, want at most %v", took, unaidedWithin)
	}
}

// threeMembers has one of three hosts killed 3 times.
func (r *run) threeMembers(s section) {
	h := r.host(s)
	others := []*host{r.host(s.with("db", r.dir+"/2.db")), r.host(s.with("db", r.dir+"/3.db"))}
	for _, o := range append(others, h) {
		o.start()
	}
	for _, o := range append(others, h) {
		o.expectLog("partitions assigned")
	}
	r.sleep(4 * time.Second)
	f := r.feedHub(60_000, 20*time.Second)
	for range 3 {
		r.sleep(r.between(3*time.Second, 5*time.Second))
		h.kill()
		r.recovers(h)
	}
	r.finish(f)
}

// stateCopied starts a second host with a copy of the state file of one that runs.
func (r *run) stateCopied(s section) {
	h := r.host(s)
	h.start()
	r.feedHub(20_000, 2*time.Second).wait(r)
	r.drain()
	r.sleep(2 * time.Second) // nothing moves, so nothing is written
	r.copyFile(s["db"], r.dir+"/2.db")
	other := r.host(s.with("db", r.dir+"/2.db"))
	other.start()
	f := r.feedHub(60_000, 12*time.Second)
	r.finish(f)
	h.expectLog("the consumer group was lost")
	other.expectLog("it was taken out")
	for _, o := range []*host{h, other} {
		if n := strings.Count(o.log(), "the consumer group was lost"); n > 1 {
			r.failf("%s was thrown out %d times", o.name, n)
		}
	}
}

// stateNewer kills the host when its state file is ahead of the group.
func (r *run) stateNewer(s section) {
	h := r.host(s)
	r.stateAhead(h)
	r.feedHub(10_000, 0).wait(r)
	h.again()
	h.expectLog("the state file is ahead of the consumer group")
	r.finish()
	if c := r.ledger.count(); c.duplicates > c.again {
		r.failf("%d events came twice, though the state file had them all", c.duplicates)
	}
}

// stateOlder puts the state file back to one that the group is ahead of.
func (r *run) stateOlder(s section) {
	h := r.host(s)
	h.start()
	r.feedHub(20_000, time.Second).wait(r)
	r.drain()
	h.stop()
	r.copyFile(s["db"], r.dir+"/old.db")
	h.start()
	r.feedHub(20_000, time.Second).wait(r)
	r.drain()
	h.stop()
	r.copyFile(r.dir+"/old.db", s["db"])
	r.feedHub(20_000, 0).wait(r)
	h.again()
	r.finish()
	if n := r.ledger.count().duplicates; n > 0 {
		r.failf("%d events came twice: the old file won over the group", n)
	}
}

// groupSetBack sets the group back to the beginning by hand, in a hub of one partition.
func (r *run) groupSetBack(s section) {
	h := r.host(s)
	r.stateAhead(h)
	read := r.ledger.count().in
	r.setGroup(0)
	h.again()
	r.until(60*time.Second, "all to be read again", func() bool { return r.ledger.count().duplicates >= read })
	r.finish()
}

// stateAhead has the host read events that the group does not know of as committed, and kills it.
// It returns where the group of the fake stands in the first partition.
func (r *run) stateAhead(h *host) (position int64) {
	h.start()
	r.feedHub(10_000, 0).wait(r)
	r.until(60*time.Second, "the group to commit everything", r.allCommitted)
	if r.hub == nil {
		r.aheadOfKafka(h)
		return 0
	}
	position = r.hub.GroupInfo(group).Commits[hubName][0].Offset
	refused := r.hub.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: hubName, Err: kerr.RebalanceInProgress, Count: -1})
	r.feedHub(20_000, time.Second).wait(r)
	r.drain()
	r.sleep(2 * time.Second) // for the state file
	h.kill()
	refused.Remove()
	return position
}

// aheadOfKafka kills the host between two commits to the group, which come every 5 s. The state
// file is written 5 times a second, and is then ahead.
func (r *run) aheadOfKafka(h *host) {
	for range 10 {
		r.feedHub(2_000, 0).wait(r)
		r.drain()
		r.sleep(600 * time.Millisecond)
		h.kill()
		if !r.allCommitted() {
			return
		}
		h.again()
		h.expectLog("partitions assigned")
	}
	r.fatalf("ten times in a row the group had all that was read: the row shows nothing")
}

// setGroup sets the group's offset of the only partition by hand, for which it must be empty.
func (r *run) setGroup(position int64) {
	r.evict()
	r.admin(func(ctx context.Context, a *kadm.Client) error {
		offsets := make(kadm.Offsets)
		offsets.AddOffset(hubName, 0, position, -1)
		return a.CommitAllOffsets(ctx, group, offsets)
	})
}

func (r *run) copyFile(from, to string) {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		r.fatalf("%v", err)
	}
}
