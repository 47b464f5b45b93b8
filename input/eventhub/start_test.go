package eventhub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

const group = eventhub.DefaultGroup

// forgetGroup does to the group what Event Hubs sometimes does.
func forgetGroup(ctx context.Context, t *testing.T, h *fakehub.Hub) {
	t.Helper()
	c, err := kgo.NewClient(h.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, 10*time.Second, func() error {
		r, err := kadm.NewClient(c).DeleteGroup(ctx, group)
		if err == nil {
			err = r.Err
		}
		return err
	})
	if info := h.GroupInfo(group); info != nil {
		t.Fatalf("the group is still there: %+v", info)
	}
}

// recreate deletes the hub alerts, of one partition, and creates it again.
func recreate(t *testing.T, h *fakehub.Hub) {
	t.Helper()
	if err := h.DeleteTopic("alerts"); err != nil {
		t.Fatal(err)
	}
	if err := h.CreateTopic("alerts", 1, nil); err != nil {
		t.Fatal(err)
	}
}

// commitFor sets the group's offset of partition 0 of alerts, while the group has no members.
func commitFor(ctx context.Context, t *testing.T, h *fakehub.Hub, offset int64) {
	t.Helper()
	c, err := kgo.NewClient(h.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	offsets := make(kadm.Offsets)
	offsets.AddOffset("alerts", 0, offset, -1)
	eventually(t, 10*time.Second, func() error { return kadm.NewClient(c).CommitAllOffsets(ctx, group, offsets) })
}

// Without any position eventhub.start decides, and what it decided is kept even when nothing was
// read.
func TestStart(t *testing.T) {
	t.Parallel()
	middle := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		start string
		want  []string // of the messages that are there at the start
	}{
		{"earliest", []string{"old", "at", "new"}},
		{"latest", nil},
		{middle.Format(time.RFC3339), []string{"at", "new"}},
		{middle.Add(time.Hour).Format(time.RFC3339), nil},
	} {
		t.Run(c.start, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			for body, at := range map[string]time.Time{"old": middle.Add(-time.Minute)} {
				if err := h.ProduceRecords(ctx, &kgo.Record{Topic: "alerts", Value: []byte(body), Timestamp: at}); err != nil {
					t.Fatal(err)
				}
			}
			for i, body := range []string{"at", "new"} {
				if err := h.ProduceRecords(ctx, &kgo.Record{Topic: "alerts", Value: []byte(body), Timestamp: middle.Add(time.Duration(i) * time.Minute)}); err != nil {
					t.Fatal(err)
				}
			}
			cfg := readConfig(t, settingsFor(h), "eventhub.start", c.start)
			r := open(t, cfg, nil)
			r.log.wait(t, 10*time.Second, "partitions assigned")
			start := int64(3 - len(c.want))
			if got := h.GroupInfo(group).Commits["alerts"][0]; got.Offset != start || got.LeaderEpoch != -1 {
				t.Errorf("the group has %+v, want offset %d and leader epoch -1", got, start)
			}
			// What comes while nobody reads must come later: the place that "latest" meant is
			// known.
			r.close()
			produce(ctx, t, h, "alerts", []byte("later"))
			r = open(t, cfg, nil)
			same(t, "messages", bodies(r.fetch(ctx, len(c.want)+1)), append(c.want, "later"))
			r.nothing(ctx)
		})
	}
}

// When the group has no offsets the copy in the state file decides; without one, eventhub.start.
func TestGroupOffsetsVanished(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 3}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h), "eventhub.start", "latest")
	state := openState(t)
	r := open(t, cfg, state)
	r.log.wait(t, 10*time.Second, "partitions assigned")
	read, unread := numbered(0, 30), numbered(30, 45)
	produce(ctx, t, h, "alerts", read...)
	r.commit(ctx, r.fetch(ctx, 30))
	r.close()
	produce(ctx, t, h, "alerts", unread...)
	forgetGroup(ctx, t, h)

	r = open(t, cfg, state)
	same(t, "with the copy", bodies(r.fetch(ctx, 15)), texts(unread...))
	r.nothing(ctx)
	r.log.wait(t, time.Second, "the copy in the state file decides")
	if !strings.Contains(r.log.String(), "partitions=3") {
		t.Error("the warning does not say how many partitions")
	}
	r.close()
	if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 10 {
		t.Errorf("the group was not given the copy's position: it has %d, want 10", at)
	}

	forgetGroup(ctx, t, h)
	r = open(t, cfg, nil)
	r.log.wait(t, 10*time.Second, "eventhub.start decides")
	r.nothing(ctx)

	// Where the group has an offset, the copy means nothing, be it behind or ahead.
	r.close()
	produce(ctx, t, h, "alerts", numbered(45, 60)...)
	r = open(t, cfg, nil)
	r.commit(ctx, r.fetch(ctx, 15))
	r.close()
	r = open(t, cfg, state)
	r.nothing(ctx)

	// Another group, or the same in another namespace, has copies of its own.
	r.close()
	forgetGroup(ctx, t, h)
	other := cfg
	other.Namespace = "other.servicebus.windows.net"
	r = open(t, other, state)
	r.log.wait(t, 10*time.Second, "eventhub.start decides")
}

// Offsets that retention has deleted are counted and logged, at the start and while reading.
// Reading continues with the oldest message that is left, never with the newest.
func TestRetention(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"group", "copy"} {
		t.Run("at the start by "+from, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			cfg := readConfig(t, settingsFor(h), "eventhub.start", "latest")
			state := openState(t)
			r := open(t, cfg, state)
			r.log.wait(t, 10*time.Second, "partitions assigned")
			all := numbered(0, 100)
			produce(ctx, t, h, "alerts", all[:20]...)
			r.commit(ctx, r.fetch(ctx, 20))
			r.close()
			produce(ctx, t, h, "alerts", all[20:]...)
			if err := h.DeleteRecords("alerts", 0, 70); err != nil {
				t.Fatal(err)
			}
			if from == "copy" {
				forgetGroup(ctx, t, h)
			}
			r = open(t, cfg, state)
			same(t, "what is left", bodies(r.fetch(ctx, 30)), texts(all[70:]...))
			r.nothing(ctx)
			r.log.times(t, 1, "EVENTS LOST")
			if lost := r.Stats().Lost; lost != 50 || !strings.Contains(r.log.String(), "messages_lost=50") {
				t.Errorf("%d messages are counted as lost, want 50", lost)
			}
		})
	}
	t.Run("while reading", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
		r := open(t, readConfig(t, settingsFor(h)), nil)
		all := numbered(0, 100)
		produce(ctx, t, h, "alerts", all[:20]...)
		r.commit(ctx, r.fetch(ctx, 20))
		release := holdFetches(h)
		h.CutConnections() // a fetch that was waiting would be answered
		produce(ctx, t, h, "alerts", all[20:]...)
		if err := h.DeleteRecords("alerts", 0, 70); err != nil {
			t.Fatal(err)
		}
		release()
		same(t, "what is left", bodies(r.fetch(ctx, 30)), texts(all[70:]...))
		if lost := r.Stats().Lost; lost != 50 {
			t.Errorf("%d messages are counted as lost, want 50", lost)
		}
		r.log.times(t, 1, "EVENTS LOST")
	})
	// Nothing is left, and nothing new has come: that events were lost is known all the same.
	t.Run("all deleted", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
		cfg := readConfig(t, settingsFor(h))
		r := open(t, cfg, nil)
		produce(ctx, t, h, "alerts", numbered(0, 10)...)
		r.commit(ctx, r.fetch(ctx, 10))
		r.close()
		produce(ctx, t, h, "alerts", numbered(10, 15)...)
		if err := h.DeleteRecords("alerts", 0, -1); err != nil {
			t.Fatal(err)
		}
		r = open(t, cfg, nil)
		r.log.wait(t, 10*time.Second, "messages_lost=5")
		produce(ctx, t, h, "alerts", []byte("new"))
		same(t, "new", bodies(r.fetch(ctx, 1)), []string{"new"})
		r.log.times(t, 1, "EVENTS LOST")
	})
}

// A hub that was deleted and created again is read from its beginning.
func TestHubMadeAnew(t *testing.T) {
	t.Parallel()
	for _, while := range []string{"stopped", "reading"} {
		t.Run(while, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			cfg := readConfig(t, settingsFor(h), "eventhub.start", "latest")
			state := openState(t)
			r := open(t, cfg, state)
			r.log.wait(t, 10*time.Second, "partitions assigned")
			produce(ctx, t, h, "alerts", numbered(0, 50)...)
			old := r.fetch(ctx, 50)
			r.commit(ctx, old)
			if while == "stopped" {
				r.close()
			}
			recreate(t, h)
			anew := numbered(100, 110)
			eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", anew...) })
			if while == "stopped" {
				r = open(t, cfg, state)
			}
			ms := r.fetch(ctx, 10)
			same(t, "messages", bodies(ms), texts(anew...))
			r.log.wait(t, time.Second, "hub was created again")

			// A mark of the old hub that comes late means nothing in the new one.
			if err := r.Commit(ctx, newest(old)); err != nil {
				t.Error(err)
			}
			r.commit(ctx, ms)
			if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 10 {
				t.Errorf("the group has offset %d, want 10", at)
			}
		})
	}
}

// A hub may come back under its name and grow past our position before the next fetch. Then it is
// read from its beginning. One that was only out of reach is not.
func TestHubThatComesBack(t *testing.T) {
	t.Parallel()
	for _, anew := range []bool{true, false} {
		t.Run(fmt.Sprintf("anew %v", anew), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			r := open(t, readConfig(t, settingsFor(h)), openState(t))
			produce(ctx, t, h, "alerts", numbered(0, 50)...)
			r.commit(ctx, r.fetch(ctx, 50))
			want := numbered(50, 200)
			// Until all is there every fetch finds the hub missing.
			fault := h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "alerts", Err: kerr.UnknownTopicOrPartition, Count: -1})
			fetched := make(chan []input.Message, 1)
			go func() { fetched <- r.fetch(ctx, len(want)) }()
			eventually(t, 10*time.Second, func() error {
				if fault.Hits() == 0 {
					return errors.New("nothing was fetched")
				}
				return nil
			})
			if anew {
				recreate(t, h)
			}
			eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", want...) })
			fault.Remove()
			var ms []input.Message
			select {
			case ms = <-fetched:
			case <-ctx.Done():
				t.Fatal("not all messages have come")
			}
			same(t, "messages", bodies(ms), texts(want...))
			if got := strings.Contains(r.log.String(), "hub was created again"); got != anew {
				t.Errorf("said that the hub was created again: %v", got)
			}
			r.commit(ctx, ms)
			wantOffset := int64(200)
			if anew {
				wantOffset = 150
			}
			if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != wantOffset {
				t.Errorf("the group has offset %d, want %d", at, wantOffset)
			}
		})
	}
}

// A hub may be made again while nobody reads, and outgrow our position. The message at the offset
// of the last one that was read shows it. One that is still the same is not read twice, wherever
// the position comes from.
func TestHubThatWasReplaced(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"group", "copy", "group, by another instance", "group, retention took the last message"} {
		for _, anew := range []bool{true, false} {
			if anew && strings.Contains(from, "retention") {
				continue // nothing is left to tell
			}
			t.Run(fmt.Sprintf("position of %s, anew %v", from, anew), func(t *testing.T) {
				t.Parallel()
				ctx := testContext(t)
				h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
				cfg := readConfig(t, settingsFor(h))
				state := openState(t)
				r := open(t, cfg, state)
				produce(ctx, t, h, "alerts", numbered(0, 50)...)
				r.commit(ctx, r.fetch(ctx, 50))
				r.close()
				offset := int64(50)
				switch from {
				case "group, by another instance":
					produce(ctx, t, h, "alerts", numbered(50, 60)...)
					r = open(t, cfg, openState(t))
					r.commit(ctx, r.fetch(ctx, 10))
					r.close()
					offset = 60
				case "copy":
					forgetGroup(ctx, t, h)
				case "group, retention took the last message":
					if err := h.DeleteRecords("alerts", 0, 50); err != nil {
						t.Fatal(err)
					}
				}
				position := offset
				if anew {
					recreate(t, h)
					offset = 0
					if from != "copy" {
						commitFor(ctx, t, h, position) // Kafka forgets it with the topic; we cannot know whether Event Hubs does
					}
				}

				// Twice: what is read after the change is known again, too.
				for n := range 2 {
					want := numbered(100+100*n, 200+100*n)
					eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", want...) })
					r = open(t, cfg, state)
					ms := r.fetch(ctx, 100)
					same(t, "messages", bodies(ms), texts(want...))
					r.commit(ctx, ms)
					r.close()
					offset += 100
					if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != offset {
						t.Errorf("the group has offset %d, want %d", at, offset)
					}
					if got, want := strings.Contains(r.log.String(), "hub was created again"), anew && n == 0; got != want {
						t.Errorf("said that the hub was created again: %v", got)
					}
					if strings.Contains(r.log.String(), "EVENTS LOST") {
						t.Error("events are said to be lost")
					}
				}
				r = open(t, cfg, state)
				r.nothing(ctx)
			})
		}
	}
}

// A group that was set back, to read again, is followed, also when the hub is missing for a moment.
// Even then a hub that was made again is noticed.
func TestGroupSetBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ missing, anew bool }{{false, false}, {true, false}, {false, true}} {
		t.Run(fmt.Sprintf("missing %v, anew %v", c.missing, c.anew), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			cfg, state := readConfig(t, settingsFor(h)), openState(t)
			produce(ctx, t, h, "alerts", numbered(0, 100)...)
			r := open(t, cfg, state)
			r.commit(ctx, r.fetch(ctx, 100))
			r.close()
			want := numbered(50, 110)
			if c.anew {
				recreate(t, h)
				want = numbered(200, 310)
				eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", want...) })
			} else {
				produce(ctx, t, h, "alerts", numbered(100, 110)...)
			}
			commitFor(ctx, t, h, 50)
			if c.missing {
				h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "alerts", Err: kerr.UnknownTopicOrPartition, Count: 1})
			}
			r = open(t, cfg, state)
			ms := r.fetch(ctx, len(want))
			same(t, "messages", bodies(ms), texts(want...))
			r.commit(ctx, ms)
			r.nothing(ctx)
		})
	}
}

// The group keeps the offset of the hub before while it takes no commits. A restart must not go on
// there in the new one.
func TestHubMadeAnewAndCommitsRefused(t *testing.T) {
	t.Parallel()
	for _, grown := range []int{40, 100} { // not past the old position, and past it
		t.Run(fmt.Sprint(grown), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			cfg, state := readConfig(t, settingsFor(h)), openState(t)
			produce(ctx, t, h, "alerts", numbered(0, 50)...)
			r := open(t, cfg, state)
			r.commit(ctx, r.fetch(ctx, 50))
			r.close()
			recreate(t, h)
			commitFor(ctx, t, h, 50)
			want := numbered(100, 100+grown)
			eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", want...) })
			fault := h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: "alerts", Err: kerr.RebalanceInProgress, Count: -1})
			r = open(t, cfg, state)
			ms := r.fetch(ctx, grown)
			if err := r.Commit(ctx, newest(ms[:10])); err == nil {
				t.Fatal("the commit was not refused")
			}
			r.close()
			fault.Remove()
			produce(ctx, t, h, "alerts", numbered(100+grown, 200)...)
			r = open(t, cfg, state)
			ms = r.fetch(ctx, 100) // from the beginning, again
			same(t, "messages", bodies(ms), texts(numbered(100, 200)...))
			r.commit(ctx, ms)
			r.close()
			r = open(t, cfg, state)
			r.nothing(ctx)
		})
	}
}

// The copy of a hub that is gone must not decide where its successor is read.
func TestCopyOfAHubMadeAnew(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))
	state := openState(t)
	r := open(t, cfg, state)
	produce(ctx, t, h, "alerts", numbered(0, 50)...)
	r.commit(ctx, r.fetch(ctx, 50))
	r.close()
	recreate(t, h)
	forgetGroup(ctx, t, h)
	eventually(t, 10*time.Second, func() error { return h.Produce(ctx, "alerts", numbered(100, 110)...) })
	r = open(t, cfg, state)
	r.commit(ctx, r.fetch(ctx, 10))
	r.close()
	forgetGroup(ctx, t, h)
	produce(ctx, t, h, "alerts", numbered(110, 170)...)
	r = open(t, cfg, state)
	same(t, "messages", bodies(r.fetch(ctx, 60)), texts(numbered(110, 170)...))
}

// A hub that matches a pattern is found when it comes, and one that does not match is left alone.
func TestPattern(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"insights-logs-advancedhunting-alertinfo": 2, "other": 1, "single": 1}})
	cfg := readConfig(t, settingsFor(h), "eventhub.hubs", "insights-logs-advancedhunting-* single insights.logs*")
	cfg.HubsEvery = 300 * time.Millisecond
	r := open(t, cfg, nil)
	produce(ctx, t, h, "insights-logs-advancedhunting-alertinfo", numbered(0, 10)...)
	produce(ctx, t, h, "single", numbered(10, 15)...)
	produce(ctx, t, h, "other", numbered(50, 60)...)
	same(t, "before", bodies(r.fetch(ctx, 15)), texts(numbered(0, 15)...))
	if err := h.CreateTopic("insights-logs-advancedhunting-deviceinfo", 2, nil); err != nil {
		t.Fatal(err)
	}
	// Not a match, although the pattern is part of it: it is anchored, and its dots are dots.
	if err := h.CreateTopic("x-insights-logs-advancedhunting-deviceinfo", 1, nil); err != nil {
		t.Fatal(err)
	}
	produce(ctx, t, h, "x-insights-logs-advancedhunting-deviceinfo", numbered(50, 60)...)
	produce(ctx, t, h, "insights-logs-advancedhunting-deviceinfo", numbered(20, 30)...)
	same(t, "after", bodies(r.fetch(ctx, 10)), texts(numbered(20, 30)...))
	r.nothing(ctx)
	r.log.times(t, 1, "no hub of the namespace matches the pattern yet")
	r.log.wait(t, 10*time.Second, "insights-logs-advancedhunting-deviceinfo (2)")
}

// A message without a body is a message.
func TestEmptyBodies(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	for _, r := range []*kgo.Record{
		{Topic: "alerts", Value: []byte("a"), Headers: []kgo.RecordHeader{{Key: "x-opt-sequence-number", Value: []byte{0x55, 1}}}},
		{Topic: "alerts", Value: nil, Key: []byte("tombstone")},
		{Topic: "alerts", Value: []byte{}},
		{Topic: "alerts", Value: []byte("b")},
	} {
		if err := h.ProduceRecords(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, readConfig(t, settingsFor(h)), nil)
	ms := r.fetch(ctx, 4)
	checkOrder(t, ms)
	if got := fmt.Sprintf("%q", []string{string(ms[0].Body), string(ms[1].Body), string(ms[2].Body), string(ms[3].Body)}); got != `["a" "" "" "b"]` {
		t.Errorf("bodies are %s", got)
	}
}
