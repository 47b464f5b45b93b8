package eventhub_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// TestWhoDecides is the table of doc.go: where a start reads on, by what the group and the state
// file say.
func TestWhoDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		group  int64 // where the group stands; the state file says 60, put the group at 50 last and at 55 before it died; -1 for nowhere
		hub    string
		copy   bool
		begins int64
	}{
		{"group where the file put it", 50, "", true, 60},
		{"group where a commit without answer put it", 55, "", true, 60},
		{"group where the file put it, and no proof of the copy", 50, "no proof", true, 50},
		{"group set back by hand", 20, "", true, 20},
		{"group taken on by another instance", 70, "", true, 70},
		{"group further than the file, by another instance", 58, "", true, 58},
		{"group at the copy", 60, "", true, 60},
		{"group without offset", -1, "", true, 60},
		{"no copy", 50, "", false, 50},
		{"neither", -1, "", false, 0},
		{"hub made again", 50, "again", true, 0},
		{"hub made again, and shorter", 50, "shorter", true, 0},
		{"the message that proves the copy is gone", 50, "retention", true, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			cfg, state := readConfig(t, settingsFor(h)), openState(t)
			produce(ctx, t, h, "alerts", numbered(0, 80)...)
			// A life before: it reads 60, and its last word of the group is an unanswered commit.
			r := open(t, cfg, state)
			ms := r.fetch(ctx, 80)
			if err := r.Keep(ctx, newest(ms[:60])); err != nil {
				t.Fatal(err)
			}
			killed := openState(t)
			copyState(t, state, killed)
			r.close()
			key := "localhost/" + group + "/alerts/0"
			if b, err := killed.Get("eventhub", key); err != nil || string(b) != "60" {
				t.Fatalf("the state file has %q (%v)", b, err)
			}
			if err := killed.Write("eventhub", []input.Change{{Key: key + "/group", Value: []byte("50 55")}}); err != nil {
				t.Fatal(err)
			}
			if !c.copy {
				killed = openState(t)
			}
			end := 80
			switch c.hub {
			case "again", "shorter":
				recreate(t, h)
				if c.hub == "shorter" {
					end = 55
				}
				produce(ctx, t, h, "alerts", numbered(100, 100+end)...)
			case "no proof":
				if err := killed.Write("eventhub", []input.Change{{Key: key + "/proof"}}); err != nil {
					t.Fatal(err)
				}
			case "retention":
				if err := h.DeleteRecords("alerts", 0, 60); err != nil {
					t.Fatal(err)
				}
			}
			if c.group < 0 {
				forgetGroup(ctx, t, h)
			} else {
				commitFor(ctx, t, h, c.group)
			}
			r = open(t, cfg, killed)
			ms = r.fetch(ctx, end-int(c.begins))
			if ms[0].Offset != c.begins {
				t.Errorf("it reads on at %d, want %d", ms[0].Offset, c.begins)
			}
			r.commit(ctx, ms)
			if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != int64(end) {
				t.Errorf("the group has %d, want %d", at, end)
			}
			if got, want := strings.Contains(r.log.String(), "the state file is ahead"), c.begins == 60 && c.group >= 50 && c.group < 60 && c.copy; got != want && (c.hub == "" || c.hub == "no proof") {
				t.Errorf("said that the state file is ahead: %v", got)
			}
			r.close()
			if b, err := killed.Get("eventhub", key+"/group"); err != nil || string(b) != fmt.Sprintf("%d %d", end, end) {
				t.Errorf("the state file says that the group is at %q (%v)", b, err)
			}
		})
	}
}

// Keep writes to the state file alone, once for all lanes, and nothing when nothing has moved; a
// kill then repeats nothing of it.
func TestKeep(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 3}, EntityPath: "alerts"})
	cfg, state := readConfig(t, settingsFor(h)), openState(t)
	produce(ctx, t, h, "alerts", numbered(0, 30)...)
	r := open(t, cfg, state)
	ms := r.fetch(ctx, 30)
	if err := r.Keep(ctx, newest(ms)); err != nil {
		t.Fatal(err)
	}
	killed := openState(t)
	copyState(t, state, killed)
	if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 0 {
		t.Errorf("the group has %d, want 0", at)
	}
	produce(ctx, t, h, "alerts", numbered(30, 45)...)
	r2 := open(t, cfg, killed) // which takes the first out of the group
	same(t, "messages", bodies(r2.fetch(ctx, 15)), texts(numbered(30, 45)...))
	r2.log.wait(t, soon, "the state file is ahead of the consumer group")
}
