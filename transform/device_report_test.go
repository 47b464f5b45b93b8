package transform_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// A Machine row's own host data is better than nothing, and worse than any report.
func TestEvidenceFillsWhereNothingBetterIsKnown(t *testing.T) {
	tr, _ := withDevices(defaults())
	rows := evidenceRows("da1_1", ws1)
	run(t, tr, rows["machine"])
	events := run(t, tr, rows["file"])
	wantDevice(t, events[0], "status", "unknown", "DeviceName", "ws-a1.corp.example", "OSFamily", "Windows", "OSVersion", "10.0", "OSPlatform", nil)
	// A report from long before the evidence.
	run(t, tr, recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-03T00:00:00Z", "DeviceName", "renamed.corp.example", "OSVersion", ""))
	events = run(t, tr, rows["machine"], rows["file"])
	wantDevice(t, events[1], "DeviceName", "renamed.corp.example", "OSVersion", "10.0")
}

// Partial reports give the same device in every order.
func TestReportsAreMerged(t *testing.T) {
	reports := []string{
		recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-04T08:00:00Z", "OSPlatform", "Windows10", "OSBuild", 19045, "DeviceName", "old", "MachineGroup", "Finance", "PublicIP", "203.0.113.1", "ExposureLevel", "Low"),
		recordOf("DeviceInfo", "DeviceId", strings.ToUpper(ws1), "Timestamp", "2026-03-04T09:00:00.1Z", "OSPlatform", nil, "OSBuild", nil, "DeviceName", "new", "LoggedOnUsers", "[]", "MachineGroup", ""),
		recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-04T09:00:00.2Z", "OSPlatform", "Windows11", "PublicIP", "203.0.113.2", "LoggedOnUsers", `[{"UserName":"lee"}]`),
		recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-04T09:00:00.2Z", "ExposureLevel", "High"),
		recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-04T09:00:00.2Z", "ExposureLevel", "Medium"),
		row("da1_1", "File", `{"Host":{"MachineId":"`+ws1+`","HostName":"late","OSVersion":"10.0"}}`),
	}
	want := map[string]any{"status": "hit", "match": "evidence", "DeviceId": ws1, "DeviceName": "new", "OSPlatform": "Windows11", "OSBuild": int64(19045), "MachineGroup": "Finance",
		"PublicIP": "203.0.113.2", "ExposureLevel": "Medium", "LoggedOnUsers": []any{map[string]any{"UserName": "lee"}}, "OSVersion": "10.0", "Timestamp": "2026-03-04T09:00:00.2Z"}
	n := 0
	permutations(len(reports), func(order []int) {
		tr, d := withDevices(defaults())
		for _, i := range order {
			run(t, tr, reports[i])
		}
		before := d.Stats().Learned
		for _, i := range order { // and again: the service delivers some twice
			run(t, tr, reports[i])
		}
		e := run(t, tr, reports[len(reports)-1])[0]
		if got := deviceOf(e); !reflect.DeepEqual(got, want) {
			t.Fatalf("order %v:\ngot  %v\nwant %v", order, got, want)
		}
		if after := d.Stats().Learned; after != before {
			t.Fatalf("order %v: what was known already changed the device %d times", order, after-before)
		}
		n++
	})
	if n != 720 {
		t.Errorf("%d orders", n)
	}
}

func permutations(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rec func(k int)
	rec = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rec(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rec(0)
}

func TestMergedDeviceIsFollowed(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("%040x", 0xabc000+i) }
	report := func(i int, to string) string {
		return recordOf("DeviceInfo", "DeviceId", id(i), "Timestamp", "2026-03-04T09:00:00Z", "DeviceName", fmt.Sprintf("ws-%d", i), "MergedToDeviceId", to)
	}
	ask := func(i int) string { return row("", "File", `{"Host":{"MachineId":"`+id(i)+`"}}`) }
	f := func(name string, want int, records ...string) {
		t.Run(name, func(t *testing.T) {
			t.Helper()
			tr, _ := withDevices(defaults())
			events := ofTable(run(t, tr, envelopeOf(append(records, ask(1))...)), "AlertEvidence")
			wantDevice(t, events[0], "status", "hit", "DeviceId", id(want), "DeviceName", fmt.Sprintf("ws-%d", want))
		})
	}
	f("one hop", 2, report(2, ""), report(1, strings.ToUpper(id(2))))
	f("two hops", 3, report(1, id(2)), report(3, ""), report(2, id(3)))
	f("to an unknown one", 1, report(1, id(2)))
	f("into itself", 1, report(1, id(1)))
	f("in a circle", 2, report(1, id(2)), report(2, id(1)))
	f("a longer circle", 5, report(1, id(2)), report(2, id(3)), report(3, id(4)), report(4, id(5)), report(5, id(3)))
	f("not an id", 1, report(1, strings.Repeat("x", 5000)))
}

func TestStale(t *testing.T) {
	at := func(h int) string { return time.Date(2026, 3, 1, h, 0, 0, 0, time.UTC).Format(time.RFC3339) }
	for h, want := range map[int]string{0: "hit", 48: "hit", 49: "stale", 1000: "stale"} {
		tr, _ := withDevices(defaults())
		run(t, tr, recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at(0), "DeviceName", "ws"))
		e := run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`, "Timestamp", at(h)))
		wantDevice(t, e[0], "status", want, "DeviceName", "ws")
	}
}

// A report that says it is from the future must not outdo all that come after it.
func TestReportFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000
		tr, _ := withDevices(defaults())
		name := func() any {
			return deviceOf(run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0])["DeviceName"]
		}
		run(t, tr, recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2037-01-01T00:00:00Z", "DeviceName", "future"))
		run(t, tr, recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2000-01-01T01:00:00Z", "DeviceName", "now"))
		if got := name(); got != "future" {
			t.Errorf("%v", got)
		}
		time.Sleep(26 * time.Hour)
		run(t, tr, recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2000-01-02T01:30:00Z", "DeviceName", "now"))
		if got := name(); got != "now" {
			t.Errorf("a day later: %v", got)
		}
	})
}

// Tables that are left out of the output still tell of devices.
func TestExcludedTablesAreLearnedFrom(t *testing.T) {
	tr := transform.New(transform.Config{Devices: device.New(defaults()), TablesExclude: []string{"DeviceInfo", "AlertInfo"}})
	events := run(t, tr, envelopeOf(evidenceRows("da1_1", ws1)["file"], deviceInfo(ws1), recordOf("AlertInfo", "AlertId", "da1_1", "Title", "T")))
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	wantDevice(t, events[0], "OSPlatform", "Windows11")
	if events[0].m["Title"] != "T" {
		t.Error(events[0].m)
	}
}

func TestTenantsAreApart(t *testing.T) {
	tr, _ := withDevices(defaults())
	other := strings.ReplaceAll(deviceInfo(ws1, "OSPlatform", "Linux"), aTenant, "99999999-0000-4000-8000-000000000009")
	upper := strings.ReplaceAll(deviceInfo(ws1), aTenant, strings.ToUpper(aTenant))
	ask := evidenceRows("da1_1", ws1)["file"]
	run(t, tr, other)
	wantDevice(t, run(t, tr, ask)[0], "OSPlatform", nil)
	run(t, tr, upper)
	wantDevice(t, run(t, tr, ask)[0], "OSPlatform", "Windows11")
}

func TestBadNeighbours(t *testing.T) {
	good := evidenceRows("da1_1", ws1)["file"]
	for _, bad := range []string{`{"broken`, `17`, recordOf("DeviceInfo"), recordOf("DeviceInfo", "", ws2, "DeviceId", ws1) + "," + deviceInfo(ws2), recordOf("DeviceInfo", "DeviceId", 7), recordOf("DeviceInfo", "DeviceId", ""), recordOf("DeviceInfo", "DeviceId", strings.Repeat("a", 10000)),
		recordOf("AlertInfo", "AlertId", []int{1}), recordOf("AlertEvidence", "AlertId", map[string]any{}, "AdditionalFields", `[1,2]`), row(strings.Repeat("x", 100000), "File", `{"Host":[]}`),
		strings.ReplaceAll(deviceInfo(ws2), aTenant, strings.Repeat("t", 100000)), strings.ReplaceAll(deviceInfo(ws1), `"DeviceName"`, `"DeviceName":"twice","DeviceName"`),
		recordOf("DeviceInfo", "DeviceId", ws1, "DeviceName", strings.Repeat("n", 1<<20)), recordOf("AlertEvidence", "DeviceId", "\x00\x01", "AdditionalFields", "\x00"),
		strings.Replace(deviceInfo(ws1), `"Windows11"`, "\"\xff\xfe\"", 1), recordOf("DeviceInfo", "DeviceId", ws1, "LoggedOnUsers", `{"UserName":"no list"}`, "OSBuild", "many")} {
		tr, _ := withDevices(defaults())
		events := run(t, tr, envelopeOf(good, bad, good), good) // run fails on an event that the host could not decode
		n := 0
		for _, e := range events {
			if e.m["EntityType"] == "File" && e.m["AlertId"] == "da1_1" {
				wantDevice(t, e, "DeviceId", ws1, "match", "evidence")
				n++
			}
		}
		if n != 3 {
			t.Errorf("%.80s: %d of 3 good records", bad, n)
		}
	}
}

func TestSeveralTransformersShareDevices(t *testing.T) {
	d := device.New(defaults())
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			tr := transform.New(transform.Config{Devices: d})
			for i := range 200 {
				id := fmt.Sprintf("%040x", i%17+1)
				run(t, tr, envelopeOf(deviceInfo(id, "ReportId", g*1000+i), evidenceRows(fmt.Sprint("da", i%5), id)["process"]))
				d.Learn(aTenant, []byte(`{"DeviceId":"`+id+`","ExposureLevel":"Low"}`), i%2 == 0)
				_, _ = d.Save(5, func([]device.Saved) error { return nil })
				d.Stats()
			}
		})
	}
	all.Wait()
	if s := d.Stats(); s.Devices != 17 || s.Status["hit"] != 800 {
		t.Errorf("%+v", s)
	}
}
