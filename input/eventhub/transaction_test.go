package eventhub_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

// transact produces messages to partition 0 of hub in one transaction, and commits it or not.
func transact(ctx context.Context, t *testing.T, opts []kgo.Opt, hub string, commit bool, messages ...[]byte) {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.TransactionalID("test-"+hub), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := c.ProduceSync(ctx, &kgo.Record{Topic: hub, Value: m}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
}

// readTransactions makes sure that r returns what was committed, and that nothing is left behind
// the markers.
func readTransactions(ctx context.Context, t *testing.T, opts []kgo.Opt, hub string, open func() *reader, committed func() int64) {
	t.Helper()
	lag := func(r *reader) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			if l := r.Stats().Lanes; len(l) != 1 || l[0].Lag != 0 || l[0].Behind != 0 {
				return fmt.Errorf("all is read: %+v", l)
			}
			return nil
		})
	}
	transact(ctx, t, opts, hub, false, []byte("aborted-0"), []byte("aborted-1"))
	transact(ctx, t, opts, hub, true, []byte("one"), []byte("two"))
	transact(ctx, t, opts, hub, false, []byte("aborted-2"))
	transact(ctx, t, opts, hub, true, []byte("three"))
	transact(ctx, t, opts, hub, false, []byte("aborted-3"))
	const end = 7 + 5 // messages and markers

	r := open()
	m := join(ctx, r, true)
	eventually(t, 15*time.Second, func() error {
		if n := len(m.messages()); n != 3 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	lag(r)
	same(t, "messages", bodies(m.messages()), []string{"one", "two", "three"})
	eventually(t, 10*time.Second, func() error {
		if at := committed(); at != end {
			return fmt.Errorf("the group has %d, want %d", at, end)
		}
		return nil
	})
	m.stop()
	r.close()

	// Markers alone, after a start.
	r = open()
	m = join(ctx, r, true)
	m.waitLanes(1)
	transact(ctx, t, opts, hub, false, []byte("aborted-4"))
	transact(ctx, t, opts, hub, true, []byte("four"))
	transact(ctx, t, opts, hub, false, []byte("aborted-5"))
	eventually(t, 10*time.Second, func() error {
		if n := len(m.messages()); n != 1 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	lag(r)
	m.stop()
	same(t, "messages", bodies(m.messages()), []string{"four"})
}

// Only what a transaction has committed is read, and no lag is left behind its marker.
func TestTransactions(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg, state := readConfig(t, settingsFor(h)), openState(t)
	readTransactions(ctx, t, h.ClientOpts(), "alerts", func() *reader { return open(t, cfg, state) },
		func() int64 { return h.GroupInfo(group).Commits["alerts"][0].Offset })
}

// The check says how much this group has left to read, and the figures how many partitions are
// ours.
func TestCheckAndFiguresOfTheGroup(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))
	cfg.HubsEvery = 200 * time.Millisecond
	check := func(want string) {
		t.Helper()
		findings := eventhub.Check(ctx, cfg)
		if got := findings[len(findings)-1].String(); got != "hub alerts: ok, 2 partitions, "+want {
			t.Errorf("the check says %q, want %q", got, want)
		}
	}
	produce(ctx, t, h, "alerts", numbered(0, 10)...)
	check("10 messages written so far, none read by group fluent-bit-defender: eventhub.start earliest decides")
	r := open(t, cfg, nil)
	r.commit(ctx, r.fetch(ctx, 10))
	check("10 messages written so far, 0 left for group fluent-bit-defender")
	produce(ctx, t, h, "alerts", numbered(10, 14)...)
	check("14 messages written so far, 4 left for group fluent-bit-defender")
	if err := h.DeleteRecords("alerts", 0, -1); err != nil {
		t.Fatal(err)
	}
	check("14 messages written so far, 2 left for group fluent-bit-defender")
	eventually(t, 10*time.Second, func() error {
		if st := r.Stats().Hubs; len(st) != 1 || st[0] != (eventhub.HubStats{Hub: "alerts", Partitions: 2, Assigned: 2}) {
			return fmt.Errorf("the figures say %+v", st)
		}
		return nil
	})
}
