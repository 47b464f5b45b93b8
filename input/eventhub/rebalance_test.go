package eventhub_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// member is a reader that fetches all the time, and commits what it fetched after a while, as a
// pump would.
type member struct {
	*reader
	stop func()

	mu sync.Mutex
	ms []input.Message
}

func join(ctx context.Context, r *reader, commits bool) *member {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{reader: r}
	var working sync.WaitGroup
	m.stop = func() { cancel(); working.Wait() }
	r.t.Cleanup(m.stop)
	fetched := make(chan struct{})
	working.Go(func() {
		defer close(fetched)
		for {
			ms, err := r.Fetch(ctx)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.ms = append(m.ms, ms...) // the bodies are franz-go's, which does not use them again
			m.mu.Unlock()
		}
	})
	working.Go(func() {
		for last := false; !last; {
			if last = input.Sleep(ctx, 100*time.Millisecond) != nil; last {
				<-fetched // or what Fetch returns last is not committed
			}
			if !commits {
				continue
			}
			m.mu.Lock()
			marks := newest(m.ms)
			m.mu.Unlock()
			if err := r.Commit(context.WithoutCancel(ctx), marks); err != nil {
				r.log.Write(fmt.Appendf(nil, "commit: %v\n", err))
			}
		}
	})
	return m
}

func (m *member) messages() []input.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ms)
}

// waitLanes waits until the reader has n lanes.
func (r *reader) waitLanes(n int) {
	r.t.Helper()
	eventually(r.t, 15*time.Second, func() error {
		if got := len(r.Stats().Lanes); got != n {
			return fmt.Errorf("%d lanes, want %d", got, n)
		}
		return nil
	})
}

// Consumers that come and go while messages flow read every message, each lane in order, and none
// twice. Before a partition is given away, the messages read of it are committed.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 6}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))

	const total = 3000
	produced := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < total && err == nil; i += 10 {
			err = h.Produce(ctx, "alerts", numbered(i, i+10)...)
			time.Sleep(15 * time.Millisecond)
		}
		produced <- err
	}()

	a := join(ctx, open(t, cfg, nil), true)
	a.waitLanes(6)
	b := join(ctx, open(t, cfg, nil), true)
	a.waitLanes(3)
	b.waitLanes(3)
	c := join(ctx, open(t, cfg, nil), true)
	c.waitLanes(2)
	b.stop()
	b.close()
	a.waitLanes(3)
	c.waitLanes(3)
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	members := []*member{a, b, c}
	all := func() (ms []input.Message) {
		for _, m := range members {
			ms = append(ms, m.messages()...)
		}
		return ms
	}
	eventually(t, 10*time.Second, func() error {
		if n := len(all()); n < total {
			return fmt.Errorf("%d of %d messages have come", n, total)
		}
		return nil
	})
	for _, m := range members {
		checkOrder(t, m.messages())
	}
	same(t, "all messages", bodies(all()), texts(numbered(0, total)...))
	if n := a.Stats().Rebalances; n < 2 {
		t.Errorf("a counts %d rebalances", n)
	}
	a.log.wait(t, time.Second, "with_events_to_be_repeated=0")
}

// A mark of a partition that was given away is dropped. So is one of an earlier term of a partition
// that came back. Neither may change its owner's commits.
func TestStaleMarks(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))
	state := openState(t)
	produce(ctx, t, h, "alerts", numbered(0, 20)...)
	ra := open(t, cfg, state)
	ra.SetDrain(50 * time.Millisecond)
	old := slices.Clone(ra.fetch(ctx, 20)) // 10 of each partition, none safe yet
	a := join(ctx, ra, false)

	rb := open(t, cfg, nil)
	b := join(ctx, rb, false)
	b.waitLanes(1)
	a.waitLanes(1)
	theirs := b.Stats().Lanes[0].Partition
	lane := fmt.Sprintf("alerts/%d", theirs)
	// The new owner reads it again, because nothing was committed. It is further on than the old
	// owner's mark.
	eventually(t, 10*time.Second, func() error {
		if n := len(b.messages()); n < 10 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	committed := func() int64 { return h.GroupInfo(group).Commits["alerts"][theirs].Offset }
	if err := b.Commit(ctx, newest(b.messages())); err != nil {
		t.Fatal(err)
	}
	if committed() != 10 {
		t.Fatalf("the group has %d, want 10", committed())
	}
	early := input.Mark{Lane: lane, Term: termOf(old, lane), Next: 4}
	if err := a.Commit(ctx, []input.Mark{early}); err != nil {
		t.Fatal(err)
	}
	if committed() != 10 {
		t.Errorf("a late mark set the new owner back to %d", committed())
	}
	if got := a.Stats().Stale; got != 1 {
		t.Errorf("%d stale marks are counted, want 1", got)
	}

	// The partition comes back: a has a new term. Its old mark would be ahead of the messages that
	// it has read in this term, and still counts for nothing.
	b.stop()
	b.close()
	a.waitLanes(2)
	late := input.Mark{Lane: lane, Term: termOf(old, lane), Next: 999}
	if err := a.Commit(ctx, []input.Mark{late}); err != nil {
		t.Fatal(err)
	}
	if committed() != 10 {
		t.Errorf("a mark of an earlier term moved the group to %d", committed())
	}
	if copied, err := state.Get("eventhub", "localhost/"+group+"/"+lane); err != nil || string(copied) != "10" {
		t.Errorf("a mark of an earlier term moved the copy to %s (%v)", copied, err)
	}
}

func termOf(ms []input.Message, lane string) uint64 {
	for _, m := range ms {
		if m.Mark.Lane == lane {
			return m.Mark.Term
		}
	}
	return 0
}

// A commit that has found a partition to be ours is over before the partition is given away.
func TestGiveWaitsForCommit(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	r := open(t, readConfig(t, settingsFor(h)), nil)
	produce(ctx, t, h, "alerts", numbered(0, 10)...)
	ms := r.fetch(ctx, 10)

	arrived, answer := make(chan struct{}), make(chan struct{})
	h.ControlKey(kmsg.OffsetCommit.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		h.DropControl()
		close(arrived)
		h.SleepControl(func() { <-answer })
		return nil, nil, false
	})
	committed, given := make(chan error, 1), make(chan struct{})
	go func() { committed <- r.Commit(ctx, newest(ms)) }()
	<-arrived
	go func() {
		r.Give(map[string][]int32{"alerts": {0}})
		close(given)
	}()
	select {
	case <-given:
		t.Error("the partition was given away while its offset was being committed")
	case <-time.After(300 * time.Millisecond):
	}
	close(answer)
	if err := <-committed; err != nil {
		t.Error(err)
	}
	<-given
	if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 10 {
		t.Errorf("the group has %d, want 10", at)
	}
	if err := r.Commit(ctx, newest(ms)); err != nil || r.Stats().Stale != 1 {
		t.Errorf("a mark after that: %v, %d stale marks", err, r.Stats().Stale)
	}
}

// A commit that fails is tried again; the copy in the state file moves meanwhile, because the marks
// are safe.
func TestCommitFails(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, EntityPath: "alerts"})
	state := openState(t)
	r := open(t, readConfig(t, settingsFor(h)), state)
	r.log.wait(t, 10*time.Second, "partitions assigned")
	produce(ctx, t, h, "alerts", numbered(0, 20)...)
	ms := r.fetch(ctx, 20)

	fault := h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: "alerts", Partitions: []int32{1}, Err: kerr.RebalanceInProgress, Count: -1})
	err := r.Commit(ctx, newest(ms))
	if err == nil || !strings.Contains(err.Error(), "commit offsets of group") {
		t.Errorf("the commit says %v", err)
	}
	at := func(p int32) int64 { return h.GroupInfo(group).Commits["alerts"][p].Offset }
	if at(0) != 10 || at(1) != 0 {
		t.Errorf("the group has %d and %d, want 10 and 0", at(0), at(1))
	}
	for _, p := range []string{"0", "1"} {
		if b, err := state.Get("eventhub", "localhost/"+group+"/alerts/"+p); err != nil || string(b) != "10" {
			t.Errorf("the copy of partition %s is %s (%v), want 10", p, b, err)
		}
	}
	fault.Remove()
	// Without new marks: what failed is remembered.
	if err := r.Commit(ctx, nil); err != nil {
		t.Error(err)
	}
	if at(1) != 10 {
		t.Errorf("the group has %d, want 10", at(1))
	}
	if n := r.Stats().Retries["commit"]; n != 1 {
		t.Errorf("%d failed commits are counted, want 1", n)
	}
}

// A state file that cannot be written does not keep the group from moving. It is logged once.
func TestCopyFails(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	state := openState(t)
	r := open(t, readConfig(t, settingsFor(h)), state)
	produce(ctx, t, h, "alerts", numbered(0, 10)...)
	ms := r.fetch(ctx, 10)
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if err := r.Commit(ctx, []input.Mark{m.Mark}); err != nil {
			t.Errorf("commit: %v", err)
		}
	}
	if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 10 {
		t.Errorf("the group has %d, want 10", at)
	}
	r.log.times(t, 1, "the copy of offsets in the state file cannot be written")
}
