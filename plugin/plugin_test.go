package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestEventsArriveThroughTheLibrary(t *testing.T) {
	t.Parallel()
	h := startHub(t, 3)
	const n = 3000
	produce(t, h, 0, n)
	r := runHost(t, append(settings(h, "tag_pattern=defender.*"), "-seconds", "20", "-records", fmt.Sprint(n), "-tick", "50")...).ok(t)
	if again := tally(t, r.events, n); again != 0 {
		t.Errorf("%d events came twice", again)
	}
	tags := map[string]int{}
	for _, e := range r.events {
		tags[e.Tag]++
	}
	if want := map[string]int{"defender.AlertInfo": n / 3, "defender.DeviceNetworkEvents": n / 3, "defender.DeviceProcessEvents": n / 3}; fmt.Sprint(tags) != fmt.Sprint(want) {
		t.Errorf("tags: got %v, want %v", tags, want)
	}
	r.logs(t, "starting version")
	r.logs(t, "db is not set")
	r.logs(t, "eventhub.connection_string=[secret]")
	r.logs(t, "events are not kept in files")
	if strings.Count(r.log, "stopped") != 1 {
		t.Errorf("want one line that says stopped:\n%s", r.log)
	}
}
