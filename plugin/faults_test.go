package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

func TestHostsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	for _, c := range []struct{ name, flags, says string }{
		{"threaded", "-threaded", `set "threaded: off" (in a classic configuration "threaded off") in this section`},
		{"before 4.1", "-old", "needs 4.1 or later"},
		{"without the function", "-missing flb_input_log_append", "does not export flb_input_log_append"},
		{"without timers", "-missing flb_sched_timer_cb_create", "does not export flb_sched_timer_cb_create"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runHost(t, append(strings.Fields(c.flags), append(settings(h), "-seconds", "5")...)...)
			if r.code != 1 {
				t.Errorf("exit status %d, want 1:\n%s", r.code, r.log)
			}
			r.logs(t, c.says)
			if n := strings.Count(r.log, "[input:defender"); n != 1 {
				t.Errorf("%d lines, want one:\n%s", n, r.log)
			}
		})
	}
}

func TestAHostThatMakesNoTimer(t *testing.T) {
	t.Parallel()
	r := runHost(t, append(settings(startHub(t, 1)), "-seconds", "5", "-no-timers")...)
	if r.code != 1 {
		t.Errorf("exit status %d, want 1", r.code)
	}
	r.logs(t, "start a timer: Fluent Bit would not make one")
	r.logs(t, "] stopped") // what had been started
}

func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	r := runHost(t, "-seconds", "5",
		"-set", "eventhub.connection_string=Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=aW52ZW50ZWQtc2VjcmV0LWtleQ==",
		"-set", "eventhub.hubs=defender",
		"-set", "memory_limit=lots",
		"-set", "keep_nulls=maybe",
		"-set", "tag_pattern=defender",
		"-set", "eventhub.start=latset",
		"-set", "eventhub.conection_string=x",
		"-set", "tables_excluded=DeviceEvents",
		"-set", "db=/nowhere/at/all/state.db",
	)
	if r.code != 1 {
		t.Errorf("exit status %d, want 1", r.code)
	}
	for _, says := range []string{
		`memory_limit "lots": is not a size`,
		`keep_nulls "maybe": is neither on nor off`,
		`tag_pattern "defender": needs one *`,
		`eventhub.start "latset"`,
		`eventhub.conection_string: there is no such setting; did you mean eventhub.connection_string?`,
		`tables_excluded: there is no such setting; did you mean tables_exclude?`,
	} {
		r.logs(t, says)
	}
	if strings.Contains(r.log, "aW52ZW50ZWQ") {
		t.Errorf("the log shows the key:\n%s", r.log)
	}
	for _, line := range strings.Split(r.log, "\n") {
		if strings.Contains(line, "[input:defender") && !strings.Contains(line, "[error]") {
			t.Errorf("not an error: %s", line)
		}
	}
	runHost(t, "-seconds", "5").logs(t, "no source is configured")
}

func TestAFailingSectionStopsThoseBeforeIt(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	dir := t.TempDir()
	r := runHost(t, append(append(settings(h, "db="+dir+"/a.db"), "-instance"), append(settings(h, "db="+dir+"/nowhere/b.db"), "-seconds", "5")...)...)
	if r.code != 1 {
		t.Errorf("exit status %d, want 1", r.code)
	}
	r.logs(t, "the directory "+dir+"/nowhere does not exist")
	r.logs(t, "defender.0] stopped")
}

// In all of these nothing may be lost, and nothing may come twice: the host is never killed.
func TestNothingIsLostOrRepeated(t *testing.T) {
	t.Parallel()
	build(t) // before there is anything to read
	const n = 20_000
	for _, c := range []struct{ name, flags string }{
		{"refusals at random", "-refuse 0.2 -seed 3"},
		{"every third append refused", "-refuse-every 3"},
		{"refused for two seconds", "-refuse-between 0,2"},
		{"over its limit again and again", "-pause-every 2 -pause-ms 100"},
		{"paused from outside", "-pause-outside 300 -pause-ms 200"},
		{"paused from outside and inside, and refused", "-pause-outside 300 -pause-every 3 -refuse 0.1 -pause-ms 150 -seed 5"},
		{"a slow filter", "-slow 60"},
		{"hot reload", "-reload-every 2000 -grace 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := startHub(t, 4)
			db := "db=" + filepath.Join(t.TempDir(), "state.db")
			feed(t, h, n, 1000, 250*time.Millisecond)
			r := runHostUntil(t, n, "", append(settings(h, "tag_pattern=defender.*", db), strings.Fields(c.flags)...)...).ok(t)
			again := tally(t, r.events, n)
			if c.name == "hot reload" {
				// Usually none. On a busy machine an append can be so slow that a batch is broken
				// off, and begins again in the next generation. It has 780 of these events at most.
				again -= 1000 * strings.Count(r.log, "] stopped")
			}
			if again > 0 {
				t.Errorf("%d events came twice\n%s", again, r.log)
			}
		})
	}
}

func TestAnInstanceOverItsLimitDoesNotHoldUpTheOther(t *testing.T) {
	t.Parallel()
	var hubs []*fakehub.Hub
	var args []string
	const n = 3000
	for i := range 2 {
		h := startHub(t, 2)
		hubs = append(hubs, h)
		if i > 0 {
			args = append(args, "-instance")
		}
		args = append(args, settings(h, fmt.Sprintf("tag=section%d", i))...)
	}
	feed(t, hubs[1], n, 100, 200*time.Millisecond)
	produce(t, hubs[0], 0, n)
	// The first section is over its limit from its first append on; the pause stops the host's
	// timer of the second.
	r := runHostUntil(t, n, "section1", append(args, "-only", "0", "-pause-every", "1", "-pause-ms", "600000")...).ok(t)
	var second []event
	for _, e := range r.events {
		if e.Tag == "section1" {
			second = append(second, e)
		}
	}
	if again := tally(t, second, n); again > 0 {
		t.Errorf("%d events came twice", again)
	}
	if len(r.events)-len(second) == n {
		t.Error("the first section was never over its limit")
	}
}

func TestHotReloadOfTwoSections(t *testing.T) {
	t.Parallel()
	h := startHub(t, 4)
	const n = 20_000
	dir := t.TempDir()
	build(t) // before there is anything to read
	feed(t, h, n, 500, 300*time.Millisecond)
	// Both in one group: they share the partitions, and each reload is a rebalance too, which takes
	// seconds on a busy machine.
	args := append(append(settings(h, "db="+dir+"/a.db"), "-instance"), settings(h, "db="+dir+"/b.db")...)
	r := runHostUntil(t, n, "", append(args, "-reload-every", "4000", "-grace", "300")...).ok(t)
	again := tally(t, r.events, n)
	t.Logf("%d events, %d of them came twice; %s", n, again, r.log[strings.LastIndex(r.log, "host: "):])
	if !strings.Contains(r.log, "generations") {
		t.Error("no reload took place")
	}
	// Usually none. On a busy machine a reload may fall into the rebalance of the one before. Then
	// the events since the last commit come again: at most those of a second or two.
	if generations := 1 + strings.Count(r.log, "defender.0] stopped"); again > 3000*generations {
		t.Errorf("%d events came twice, in %d generations", again, generations)
	}
}

// forgetMembers removes from the group who was killed: otherwise each start waits 30 s until the
// broker misses them.
func forgetMembers(t *testing.T, h *fakehub.Hub) {
	t.Helper()
	client, err := kgo.NewClient(h.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	groups, err := kadm.NewClient(client).DescribeGroups(ctx, eventhub.DefaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = eventhub.DefaultGroup
	for _, m := range groups[eventhub.DefaultGroup].Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		leave.Members = append(leave.Members, member)
	}
	if len(leave.Members) == 0 {
		return
	}
	if _, err := leave.RequestWith(ctx, client); err != nil {
		t.Fatal(err)
	}
}

// What a host has stored before it is killed, and what comes again after that, make up the whole.
func TestKilledTwentyTimesUnderLoad(t *testing.T) {
	t.Parallel()
	_, dumper := build(t)
	h := startHub(t, 4)
	dir := t.TempDir()
	const kills, n = 20, 40_000
	sent := feed(t, h, n, 500, 400*time.Millisecond)
	flags := append(settings(h, "tag_pattern=defender.*", "db="+dir+"/state.db"), "-quiet", "-storage", dir+"/storage")
	dump := func() []event {
		cmd := exec.Command(dumper, "-dump", dir+"/storage")
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		return parseEvents(t, out, nil)
	}
	for i := range kills {
		killed := startHost(t, nil, flags...)
		wait := time.Duration(300+rand.N(900)) * time.Millisecond
		if i%5 == 4 {
			wait += 5 * time.Second // long enough for a commit
		}
		time.Sleep(wait)
		killed.kill()
		forgetMembers(t, h)
	}
	last := startHost(t, nil, flags...)
	<-sent
	var events []event
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		events = dump()
		seen := make(map[int]bool, n)
		for _, e := range events {
			seen[e.Seq] = true
		}
		if len(seen) == n {
			break
		}
	}
	last.end(t)
	again := tally(t, events, n)
	t.Logf("killed %d times: %d events sent, %d stored more than once", kills, n, again)
}
