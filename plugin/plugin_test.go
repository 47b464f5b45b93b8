package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// The whole way, with two instances, a hot reload, and then the end. It runs in this process, so
// that the race detector sees it and goroutines can be counted.
func TestAnInstanceLeavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hub: 4}, EntityPath: hub})
	if err != nil {
		t.Fatal(err)
	}
	const n = 4000
	var g generation
	var hosts []*fakeHost
	section := func(db string) uintptr {
		set := map[string]string{"eventhub.connection_string": h.ConnectionString(), "eventhub.brokers": h.Brokers(), "eventhub.ca_file": h.CAFile(),
			"eventhub.start": "earliest", "tag_pattern": "d.*", "db": db}
		f := &fakeHost{}
		hosts = append(hosts, f)
		like := f.host()
		like.get = func(key string) string { return set[key] }
		in, err := newInstance(like)
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(f.log, "\n"))
		}
		return g.add(in)
	}
	taken := func() (bytes int) {
		for _, f := range hosts {
			bytes += f.bytes
		}
		return bytes
	}
	dir := t.TempDir()
	for reload := range 2 {
		a, b := section(filepath.Join(dir, "a.db")), section(filepath.Join(dir, "b.db"))
		produce(t, h, reload*n, n)
		had, deadline := taken(), time.Now().Add(30*time.Second)
		for taken() < had+n*500 { // an event is some 520 bytes
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes have come, of some %d", taken()-had, n*520)
			}
			g.tick(a, time.Now())
			g.tick(b, time.Now())
			time.Sleep(20 * time.Millisecond)
		}
		g.exit()
		g.exit()
	}
	h.Close()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	for _, f := range hosts {
		noSecrets(t, strings.Join(f.log, "\n"))
	}
}

func TestEventsArriveThroughTheLibrary(t *testing.T) {
	t.Parallel()
	h := startHub(t, 3)
	const n = 3000
	produce(t, h, 0, n)
	r := runHostUntil(t, n, "", settings(h, "tag_pattern=defender.*")...).ok(t)
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

// The host shows a number as it came, not as 4.6500000000000004.
func TestHostShowsNumbersAsTheyCame(t *testing.T) {
	h := startHub(t, 1)
	const numbers = `"A":4.65,"B":0.1,"C":1000.0,"D":1e+300,"E":-2.5e-07,"F":123456789.25`
	if err := h.Produce(t.Context(), hub, []byte(`{"category":"AdvancedHunting-X","properties":{`+numbers+`}}`)); err != nil {
		t.Fatal(err)
	}
	r := runHost(t, append([]string{"-seconds", "20", "-records", "1"}, settings(h)...)...).ok(t)
	want := strings.Replace(numbers, "1000.0", "1000", 1)
	if len(r.events) != 1 || !strings.Contains(string(r.events[0].Record), want) {
		t.Errorf("%+v", r.events)
	}
}
