package eventhub_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// copyMembers puts into to what from has of members and offsets, as a copy of the file has.
func copyState(t *testing.T, from, to *input.State) {
	t.Helper()
	var changes []input.Change
	err := from.Each("eventhub", "", func(k, v []byte) error {
		changes = append(changes, input.Change{Key: string(k), Value: append([]byte(nil), v...)})
		return nil
	})
	if err == nil {
		err = to.Write("eventhub", changes)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const membersKey = "localhost/" + group + "/members"

func membersIn(t *testing.T, state *input.State) []string {
	t.Helper()
	b, err := state.Get("eventhub", membersKey)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// The next start with a state file takes the killed member out of the group: nobody waits for its
// session to end.
func TestDeadMemberLeaves(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 6}, EntityPath: "alerts"})
			cfg := readConfig(t, settingsFor(h))
			var alive []*member
			for range n - 1 {
				alive = append(alive, join(ctx, open(t, cfg, nil), true))
			}
			state, killed := openState(t), openState(t)
			dead := join(ctx, open(t, cfg, killed), true)
			for _, m := range append(alive, dead) {
				m.waitLanes(6 / n)
			}
			if got := membersIn(t, killed); len(got) == 0 {
				t.Fatal("the state file does not have the member's id")
			}
			// What a kill leaves behind: the state file as it is, and a member that the broker
			// believes in. It must not come back while the test looks, as it would after an
			// UNKNOWN_MEMBER_ID.
			copyState(t, killed, state)
			dead.stop()
			h.ControlKey(kmsg.Heartbeat.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				h.KeepControl()
				if id := req.(*kmsg.HeartbeatRequest).MemberID; !strings.Contains(strings.Join(membersIn(t, killed), " "), id) {
					return nil, nil, false
				}
				return req.ResponseKind(), nil, true
			})
			started := time.Now()
			again := open(t, cfg, state)
			again.waitLanes(6 / n)
			produce(ctx, t, h, "alerts", numbered(0, 60)...)
			again.fetch(ctx, 1)
			if d := time.Since(started); d > 20*time.Second { // a session lasts 30 s
				t.Errorf("the first message came after %v", d)
			}
			again.log.wait(t, time.Second, "it was taken out, so that nobody waits for it")
		})
	}
}

// The dead member leaves once we have asked to join. If a group is without members, Kafka waits 3 s
// before it lets the first one in. It forgets a group whose last member left while ours had an id
// and had not come back with it. Until the broker has taken it out, its id is kept.
func TestDeadMemberLeavesAfterJoin(t *testing.T) {
	t.Parallel()
	for version, want := range map[int16]string{6: "join join leave", 3: "join leave"} { // 3 says no id before it lets us in
		t.Run(fmt.Sprint("JoinGroup ", version), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			v := kversion.Stable()
			v.SetMaxKeyVersion(kmsg.JoinGroup.Int16(), version)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts", Kfake: []kfake.Opt{kfake.MaxVersions(v)}})
			cfg, killed, state := readConfig(t, settingsFor(h)), openState(t), openState(t)
			dead := join(ctx, open(t, cfg, killed), true)
			dead.waitLanes(1)
			copyState(t, killed, state)
			dead.stop()
			id := membersIn(t, killed)[0]
			var mu sync.Mutex
			var asked []string
			h.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
				h.KeepControl()
				mu.Lock()
				defer mu.Unlock()
				switch r := req.(type) {
				case *kmsg.JoinGroupRequest:
					if r.MemberID != id {
						asked = append(asked, "join")
					}
				case *kmsg.LeaveGroupRequest:
					if r.MemberID != id && (len(r.Members) == 0 || r.Members[0].MemberID != id) {
						break // ours, at the end
					}
					if slices.Contains(asked, "leave") {
						break // of the dead one itself, when the test ends
					}
					asked = append(asked, "leave")
					if ids := membersIn(t, state); len(ids) == 0 || ids[0] != id {
						t.Error("the state file has forgotten the dead member before it has left")
					}
				case *kmsg.HeartbeatRequest:
					if r.MemberID == id {
						return req.ResponseKind(), nil, true
					}
				}
				return nil, nil, false
			})
			open(t, cfg, state).waitLanes(1)
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(asked, " "); !strings.HasPrefix(got, want) {
				t.Errorf("the broker was asked for %s, want %s", got, want)
			}
		})
	}
}

// Members hear soon that the group waits for them: nobody who comes back waits for long.
func TestHeartbeatsComeOften(t *testing.T) {
	t.Parallel()
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	at := make(chan time.Time, 100)
	h.ControlKey(kmsg.Heartbeat.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		at <- time.Now()
		return nil, nil, false
	})
	open(t, readConfig(t, settingsFor(h)), nil).waitLanes(1)
	last := <-at
	for range 10 { // a machine that is busy may space some of them further
		now := <-at
		if now.Sub(last) < 1500*time.Millisecond {
			return
		}
		last = now
	}
	t.Error("ten heartbeats in a row came more than 1.5 s apart")
}

// A member that leaves in good order leaves nothing behind; ids that nobody knows cost nothing.
func TestMembersInStateFile(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg, state := readConfig(t, settingsFor(h)), openState(t)
	if err := state.Write("eventhub", []input.Change{{Key: membersKey, Value: []byte("nobody-1 nobody-2 \x00\xff")}}); err != nil {
		t.Fatal(err)
	}
	produce(ctx, t, h, "alerts", numbered(0, 3)...)
	r := open(t, cfg, state)
	r.fetch(ctx, 3)
	eventually(t, 15*time.Second, func() error {
		if got := membersIn(t, state); len(got) == 0 || strings.Contains(strings.Join(got, " "), "nobody") {
			return fmt.Errorf("the state file has the members %q", got)
		}
		return nil
	})
	r.close()
	if got := membersIn(t, state); len(got) != 0 {
		t.Errorf("after leaving, the state file has the members %q", got)
	}
}

// Two instances with copies of one state file throw each other out once, and not again.
func TestCopiedStateFile(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 4}, EntityPath: "alerts"})
	cfg, mine := readConfig(t, settingsFor(h)), openState(t)
	a := join(ctx, open(t, cfg, mine), true)
	a.waitLanes(4)
	theirs := openState(t)
	copyState(t, mine, theirs)
	b := join(ctx, open(t, cfg, theirs), true)
	b.log.wait(t, 5*time.Second, "it was taken out")
	a.waitLanes(2)
	b.waitLanes(2)
	a.log.wait(t, 5*time.Second, "the consumer group was lost")
	produce(ctx, t, h, "alerts", numbered(0, 40)...)
	eventually(t, 15*time.Second, func() error {
		if n := len(a.messages()) + len(b.messages()); n < 40 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	for _, id := range membersIn(t, mine)[1:] {
		if strings.Contains(strings.Join(membersIn(t, theirs), " "), id) {
			t.Error("both state files have the same member")
		}
	}
	a.log.times(t, 1, "the consumer group was lost")
	b.log.times(t, 0, "the consumer group was lost")
}

// A join without an answer is logged after seconds.
func TestJoinWithoutAnswer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	hold := make(chan struct{})
	held := false
	h.ControlKey(kmsg.JoinGroup.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		if r := req.(*kmsg.JoinGroupRequest); r.RebalanceTimeoutMillis != 15_000 {
			t.Errorf("the broker may wait %d ms for members that are gone", r.RebalanceTimeoutMillis)
		}
		if !held {
			held = true
			h.SleepControl(func() { <-hold })
		}
		return nil, nil, false
	})
	r := open(t, readConfig(t, settingsFor(h)), nil)
	r.log.wait(t, 10*time.Second, "wait for the consumer group: the broker lets us in once")
	close(hold)
	produce(ctx, t, h, "alerts", numbered(0, 1)...)
	r.fetch(ctx, 1)
	r.log.times(t, 1, "wait for the consumer group: the broker lets us in once")
}
