package eventhub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

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

// A member that was killed is taken out of the group by the next start of its state file: nobody
// waits for its session to end.
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
	if got := membersIn(t, state); len(got) == 0 || strings.Contains(strings.Join(got, " "), "nobody") {
		t.Errorf("the state file has the members %q", got)
	}
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

// A join without an answer is said, after seconds.
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
	r.log.wait(t, 10*time.Second, "the consumer group does not let us in yet")
	close(hold)
	produce(ctx, t, h, "alerts", numbered(0, 1)...)
	r.fetch(ctx, 1)
	r.log.times(t, 1, "the consumer group does not let us in yet")
}
