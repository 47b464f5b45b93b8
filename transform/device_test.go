package transform_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

const (
	aTenant = "0a1b2c3d-0000-4000-8000-000000000001"
	ws1     = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a101"
	ws2     = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b202"
	noon    = "2026-03-04T12:00:00.1234567Z"
)

// defaults are near those of the settings.
func defaults() device.Config {
	return device.Config{Tables: []string{"AlertEvidence"}, CacheBytes: 8 << 20, TTL: 48 * time.Hour,
		Fields: strings.Fields("DeviceName OSPlatform OSVersion OSVersionInfo OSBuild OSFamily MachineGroup LoggedOnUsers ExposureLevel PublicIP Timestamp")}
}

func withDevices(cfg device.Config) (*transform.Transformer, *device.Memory) {
	d := device.New(cfg)
	return transform.New(transform.Config{EventID: true, Devices: d}), d
}

// recordOf makes a record of a table; properties alternate names and values, and of two with one name the later counts.
func recordOf(table string, properties ...any) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"time":"%s","tenantId":"%s","category":"AdvancedHunting-%s","properties":{`, noon, aTenant, table)
	comma := ""
	for i := 0; i < len(properties); i += 2 {
		again := false
		for j := i + 2; j < len(properties); j += 2 {
			again = again || properties[j] == properties[i]
		}
		if again {
			continue
		}
		v, err := json.Marshal(properties[i+1])
		if err != nil {
			panic(err)
		}
		b.WriteString(comma)
		comma = ","
		fmt.Fprintf(&b, `%q:%s`, properties[i], v)
	}
	return b.String() + `}}`
}

func deviceInfo(id string, properties ...any) string {
	return recordOf("DeviceInfo", append([]any{"DeviceId", id, "Timestamp", "2026-03-04T11:30:00Z", "DeviceName", "ws-" + id[:2] + ".corp.example",
		"OSPlatform", "Windows11", "OSBuild", 22631, "MachineGroup", "Finance",
		"LoggedOnUsers", `[{"UserName":"kim","DomainName":"CORP","Sid":"S-1-5-21-1"}]`}, properties...)...)
}

func hostOf(id string, leading bool) string {
	return fmt.Sprintf(`{"$id":"3","HostName":"WS-%s","DnsDomain":"corp.example","OSFamily":"Windows","OSVersion":"10.0","Type":"host","LeadingHost":%v,"MachineId":"%s"}`,
		id[:2], leading, id)
}

func row(alert, entity, additional string, properties ...any) string {
	return recordOf("AlertEvidence", append([]any{"Timestamp", noon, "AlertId", alert, "EntityType", entity, "DeviceId", nil, "AdditionalFields", additional}, properties...)...)
}

// evidenceRows are the rows of one alert about device id; only the Machine row has a DeviceId.
func evidenceRows(alert, id string) map[string]string {
	return map[string]string{
		"machine": row(alert, "Machine", hostOf(id, true), "DeviceId", id, "DeviceName", "ws-"+id[:2]+".corp.example"),
		"file":    row(alert, "File", `{"Name":"a.exe","Host":`+hostOf(id, true)+`}`),
		"user":    row(alert, "User", `{"Name":"kim","Host":`+hostOf(id, true)+`}`),
		"process": row(alert, "Process", `{"ProcessId":"8","ImageFile":{"$id":"2","Name":"a.exe","Host":`+hostOf(id, true)+`},"Account":{"$id":"7","Host":{"$ref":"3"}},"Host":{"$ref":"3"}}`),
		"ref":     row(alert, "Process", `{"ProcessId":"9","Host":{"$ref":"3"},"Account":{"$id":"7","Host":`+hostOf(id, true)+`}}`),
		"ip":      row(alert, "Ip", `{"Address":"203.0.113.9","Type":"ip"}`),
	}
}

func envelopeOf(records ...string) string { return `{"records":[` + strings.Join(records, ",") + `]}` }

// beside are the fields of a device that no report has. Tests of reports leave them out.
var beside = map[string]bool{"age_s": true, "alerts_24h": true, "alerts_24h_severity": true}

// deviceOf returns the fields of an event that reports and evidence have added, without their prefix.
func deviceOf(e event) map[string]any {
	m := make(map[string]any)
	for k, v := range e.m {
		if name, ok := strings.CutPrefix(k, "DeviceInfo."); ok && !beside[name] {
			m[name] = v
		}
	}
	return m
}

func ofTable(events []event, table string) (out []event) {
	for _, e := range events {
		if e.table == table {
			out = append(out, e)
		}
	}
	return out
}

func wantDevice(t *testing.T, e event, want ...any) {
	t.Helper()
	got := make(map[string]any)
	for k, v := range e.m {
		if name, ok := strings.CutPrefix(k, "DeviceInfo."); ok {
			got[name] = v
		}
	}
	for i := 0; i < len(want); i += 2 {
		if !reflect.DeepEqual(got[want[i].(string)], want[i+1]) {
			t.Errorf("%v row: DeviceInfo.%s is %v (%T), want %v\nall: %v", e.m["EntityType"], want[i], got[want[i].(string)], got[want[i].(string)], want[i+1], got)
		}
	}
}

func TestEveryRowOfAnAlertCarriesTheDevice(t *testing.T) {
	rows := evidenceRows("da1_1", ws1)
	all := append(slices.Sorted(maps.Values(rows)), deviceInfo(strings.ToUpper(ws1)))
	check := func(t *testing.T, events []event) {
		t.Helper()
		evidence := ofTable(events, "AlertEvidence")
		if len(evidence) != len(rows) {
			t.Fatalf("%d rows of %d", len(evidence), len(rows))
		}
		for _, e := range evidence {
			match := "evidence"
			switch e.m["EntityType"] {
			case "Machine":
				match = "row"
			case "Ip":
				match = "alert"
			}
			wantDevice(t, e, "status", "hit", "match", match, "DeviceId", ws1, "DeviceName", "ws-A1.corp.example", "OSPlatform", "Windows11", "OSBuild", int64(22631),
				"MachineGroup", "Finance", "OSVersion", "10.0", "OSFamily", "Windows", "Timestamp", "2026-03-04T11:30:00Z",
				"LoggedOnUsers", []any{map[string]any{"UserName": "kim", "DomainName": "CORP", "Sid": "S-1-5-21-1"}})
		}
	}
	for i := range 50 { // in any order, in one envelope and each in a message of its own, the device among them
		order := slices.Clone(all)
		rand.New(rand.NewPCG(uint64(i), 1)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		one, _ := withDevices(defaults())
		check(t, run(t, one, envelopeOf(order...)))
		each, _ := withDevices(defaults())
		check(t, run(t, each, order...))
	}
	// And each in a call of its own, where what comes later cannot be known: the device first, then the rows.
	var events []event
	tr, _ := withDevices(defaults())
	for _, r := range append([]string{deviceInfo(strings.ToUpper(ws1)), rows["machine"]}, slices.Sorted(maps.Values(rows))[:]...) {
		if r != rows["machine"] || len(events) < 2 {
			events = append(events, run(t, tr, r)...)
		}
	}
	check(t, events)
}

func TestWhichDevice(t *testing.T) {
	f := func(name string, records []string, i int, want ...any) {
		t.Run(name, func(t *testing.T) {
			t.Helper()
			tr, _ := withDevices(defaults())
			events := ofTable(run(t, tr, envelopeOf(append(records, deviceInfo(ws1), deviceInfo(ws2))...)), "AlertEvidence")
			wantDevice(t, events[i], want...)
		})
	}
	ip := row("da1_1", "Ip", `{"Address":"203.0.113.9"}`)
	on := func(id string, leading bool) string { return row("da1_1", "File", `{"Host":`+hostOf(id, leading)+`}`) }
	f("nothing names one", []string{ip}, 0, "status", "none", "match", nil, "DeviceId", nil)
	f("no AdditionalFields", []string{row("", "Ip", "")}, 0, "status", "none")
	f("AdditionalFields that are cut", []string{row("x", "File", `{"Host":{"MachineId":"`+ws1+`","Na`)}, 0, "status", "none")
	f("one device of the alert", []string{ip, on(ws1, false), on(ws1, false)}, 0, "status", "hit", "match", "alert", "DeviceId", ws1)
	f("two devices: no guess", []string{ip, on(ws1, false), on(ws2, false)}, 0, "status", "none", "match", "several")
	f("two devices, one leads", []string{ip, on(ws1, false), on(ws2, true), on(ws1, false)}, 0, "status", "hit", "match", "alert", "DeviceId", ws2)
	f("two devices, both lead: no guess", []string{ip, on(ws1, true), on(ws2, true)}, 0, "status", "none")
	f("the row's own host before the alert's", []string{on(ws1, false), on(ws2, true)}, 0, "match", "evidence", "DeviceId", ws1)
	f("the row's DeviceId before its host", []string{row("a", "File", `{"Host":`+hostOf(ws1, true)+`}`, "DeviceId", ws2)}, 0, "match", "row", "DeviceId", ws2, "OSFamily", nil)
	f("another alert's device is not taken", []string{ip, row("da2_1", "File", `{"Host":`+hostOf(ws1, true)+`}`)}, 0, "status", "none")
	f("an entity of an unknown kind", []string{row("a", "Gizmo", `{"Inner":[{"Thing":`+hostOf(ws2, false)+`}]}`)}, 0, "match", "evidence", "DeviceId", ws2)
	f("an unknown kind with two hosts", []string{row("a", "Gizmo", `{"Inner":[`+hostOf(ws2, false)+`,`+hostOf(ws1, false)+`]}`)}, 0, "status", "none")
	f("a reference to nothing", []string{row("a", "Process", `{"Host":{"$ref":"9"},"ImageFile":{"Host":{"$ref":"3"}}}`)}, 0, "status", "none")
	f("an empty MachineId", []string{row("a", "File", `{"Host":{"MachineId":""}}`)}, 0, "status", "none")
	f("no device info", []string{row("a", "File", `{"Host":{"MachineId":"cc03"}}`)}, 0, "status", "unknown", "match", "evidence", "DeviceId", "cc03", "DeviceName", nil)
	f("native AdditionalFields", []string{recordOf("AlertEvidence", "AlertId", "a", "AdditionalFields", map[string]any{"Host": map[string]any{"MachineId": ws1}})}, 0,
		"status", "hit", "match", "evidence", "DeviceId", ws1)
	f("an id that is not hexadecimal", []string{row("a", "File", `{"Host":{"MachineId":"Odd-\"id\"/é"}}`)}, 0, "DeviceId", `odd-"id"/é`, "status", "unknown")
}

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

func TestFieldsAndPrefix(t *testing.T) {
	report := deviceInfo(ws1, "MergedToDeviceId", "", "AdditionalFields", `{"a":1}`, "NewColumn", 5, "Nested", map[string]any{"x": 1}, "IsTransient", "0", "DeviceDynamicTags", `["a"]`)
	ask := row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`)
	const prefix = "host_"
	f := func(cfg device.Config, want map[string]any) {
		t.Helper()
		d := device.New(cfg)
		tr := transform.New(transform.Config{Devices: d, DevicePrefix: prefix})
		run(t, tr, report)
		got := run(t, tr, ask)[0].m
		for k := range got {
			if !strings.HasPrefix(k, prefix) || beside[strings.TrimPrefix(k, prefix)] {
				delete(got, k)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	cfg := defaults()
	cfg.Fields = []string{"devicename", "NewColumn"}
	f(cfg, map[string]any{"host_DeviceId": ws1, "host_match": "evidence", "host_status": "hit", "host_DeviceName": "ws-a1.corp.example", "host_NewColumn": int64(5)})
	cfg.Fields = nil
	f(cfg, map[string]any{"host_DeviceId": ws1, "host_match": "evidence", "host_status": "hit"})
	cfg.Fields = []string{"*"}
	f(cfg, map[string]any{"host_DeviceId": ws1, "host_match": "evidence", "host_status": "hit", "host_DeviceName": "ws-a1.corp.example", "host_OSPlatform": "Windows11",
		"host_OSBuild": int64(22631), "host_MachineGroup": "Finance", "host_Timestamp": "2026-03-04T11:30:00Z",
		"host_LoggedOnUsers":    []any{map[string]any{"UserName": "kim", "DomainName": "CORP", "Sid": "S-1-5-21-1"}},
		"host_AdditionalFields": `{"a":1}`, "host_NewColumn": int64(5), "host_Nested": `{"x":1}`, "host_IsTransient": false, "host_DeviceDynamicTags": []any{"a"}, "host_Tags": []any{"a"}})
}

func TestTables(t *testing.T) {
	cfg := defaults()
	cfg.Tables = []string{"alertinfo", "BehaviorEntities"}
	tr, _ := withDevices(cfg)
	events := run(t, tr, envelopeOf(
		recordOf("AlertInfo", "AlertId", "da1_1", "Title", "T"),
		evidenceRows("da1_1", ws1)["file"],
		recordOf("BehaviorEntities", "BehaviorId", "b1", "DeviceId", ws1),
		recordOf("DeviceEvents", "DeviceId", ws1),
		deviceInfo(ws1)))
	for _, e := range events {
		got := deviceOf(e)
		switch e.table {
		case "AlertInfo":
			wantDevice(t, e, "match", "alert", "DeviceId", ws1, "OSPlatform", "Windows11", "status", "hit")
		case "BehaviorEntities":
			wantDevice(t, e, "match", "row", "DeviceId", ws1, "OSPlatform", "Windows11", "status", "hit")
		default:
			if len(got) != 0 {
				t.Errorf("%s: %v", e.table, got)
			}
		}
	}
	if len(events) != 5 {
		t.Errorf("%d events", len(events))
	}
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

// Evidence from before 2023 does not say what AlertInfo says.
func TestAlertOnItsEvidence(t *testing.T) {
	info := recordOf("AlertInfo", "AlertId", "da1_1", "Timestamp", noon, "Title", "[SOC] Odd", "Category", "Execution", "Severity", "High", "ServiceSource", "Microsoft Defender for Endpoint",
		"DetectionSource", "EDR", "AttackTechniques", `["PowerShell (T1059.001)"]`)
	bare := row("da1_1", "Ip", `{"Address":"203.0.113.9"}`)
	full := row("da1_1", "Ip", `{}`, "Title", "Own", "Severity", "Low", "Categories", `["Impact"]`, "AttackTechniques", "", "DetectionSource", nil, "ServiceSource", "Own source")
	for name, bodies := range map[string][]string{"before": {info, bare, full}, "after, in one call": {bare, full, info}} {
		tr, d := withDevices(defaults())
		events := ofTable(run(t, tr, bodies...), "AlertEvidence")
		for i, want := range []map[string]any{
			{"Title": "[SOC] Odd", "Severity": "High", "ServiceSource": "Microsoft Defender for Endpoint", "DetectionSource": "EDR", "Categories": []any{"Execution"}, "AttackTechniques": []any{"PowerShell (T1059.001)"}},
			{"Title": "Own", "Severity": "Low", "ServiceSource": "Own source", "DetectionSource": "EDR", "Categories": []any{"Impact"}, "AttackTechniques": []any{"PowerShell (T1059.001)"}},
		} {
			for k, v := range want {
				if !reflect.DeepEqual(events[i].m[k], v) {
					t.Errorf("%s: row %d: %s is %v, want %v", name, i, k, events[i].m[k], v)
				}
			}
		}
		if n := d.Stats().AlertsFilled; n != 2 {
			t.Errorf("%d rows filled", n)
		}
	}
	tr, _ := withDevices(defaults())
	if e := run(t, tr, info, row("da2_1", "Ip", `{}`)); e[1].m["Title"] != nil {
		t.Error("another alert's title")
	}
}

// AlertInfo may come a little later, through another source.
func TestAlertInfoIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaults()
		cfg.Wait = 2 * time.Second
		a, d := withDevices(cfg)
		b := transform.New(transform.Config{Devices: d})
		info := func(alert string) string { return recordOf("AlertInfo", "AlertId", alert, "Title", "T") }
		f := func(r string, wait time.Duration, title any) {
			t.Helper()
			start := time.Now()
			e := run(t, a, r)[0]
			if took := time.Since(start); took != wait || e.m["Title"] != title {
				t.Errorf("waited %v, want %v; title %v, want %v", took, wait, e.m["Title"], title)
			}
		}
		run(t, a, info("da0_1"))
		f(row("da1_1", "Ip", `{}`), 0, nil) // nobody else reads AlertInfo
		run(t, b, info("da0_1"))
		f(row("da1_1", "Ip", `{}`, "Title", "Own"), 0, "Own")
		f(row("da0_1", "Ip", `{}`), 0, "T")
		go func() {
			time.Sleep(500 * time.Millisecond)
			run(t, b, info("da9_1"))
			time.Sleep(500 * time.Millisecond)
			run(t, b, info("da1_1"))
		}()
		f(row("da1_1", "Ip", `{}`), time.Second, "T")
		f(row("da2_1", "Ip", `{}`), 2*time.Second, nil)
		time.Sleep(time.Hour)
		f(row("da2_1", "Ip", `{}`), 0, nil)
	})
}

// lookup is somebody to ask.
type lookup struct {
	mu      sync.Mutex
	calls   [][]string
	answer  func(ctx context.Context, tenant string, ids []string) []string
	devices *device.Memory
}

func (l *lookup) ask(ctx context.Context, tenant string, ids []string) []string {
	l.mu.Lock()
	l.calls = append(l.calls, ids)
	l.mu.Unlock()
	return l.answer(ctx, tenant, ids)
}

func withLookup(cfg device.Config, answer func(l *lookup, ctx context.Context, ids []string) []string) (*transform.Transformer, *lookup) {
	l := &lookup{}
	l.answer = func(ctx context.Context, tenant string, ids []string) []string {
		if tenant != aTenant {
			panic(tenant)
		}
		return answer(l, ctx, ids)
	}
	cfg.Lookup = l.ask
	tr, d := withDevices(cfg)
	l.devices = d
	return tr, l
}

func TestMissesAreAskedForAtOnce(t *testing.T) {
	found := func(l *lookup, _ context.Context, ids []string) []string {
		for _, id := range ids {
			if id != ws2 {
				l.devices.Learn(strings.ToUpper(aTenant), []byte(`{"DeviceId":"`+strings.ToUpper(id)+`","Timestamp":"2026-03-04T11:00:00Z","OSPlatform":"Linux","OSBuild":"77"}`), true)
			}
		}
		return nil
	}
	cfg := defaults()
	cfg.Wait = 2 * time.Second
	tr, l := withLookup(cfg, found)
	a, b := evidenceRows("da1_1", ws1), evidenceRows("da2_1", ws2)
	events := run(t, tr, envelopeOf(a["file"], b["file"], a["ip"]), a["process"], b["user"])
	if len(l.calls) != 1 || !reflect.DeepEqual(slices.Sorted(slices.Values(l.calls[0])), []string{ws1, ws2}) {
		t.Fatalf("asked %v", l.calls)
	}
	for _, e := range events {
		if deviceOf(e)["DeviceId"] == ws1 {
			wantDevice(t, e, "status", "hit", "OSPlatform", "Linux", "OSBuild", int64(77), "DeviceName", "WS-a1.corp.example")
		} else {
			// The API does not know it; the evidence tells a little.
			wantDevice(t, e, "status", "unknown", "OSPlatform", nil, "DeviceName", "WS-b2.corp.example")
		}
	}
	run(t, tr, a["file"])
	if len(l.calls) != 1 {
		t.Errorf("asked again for what is known: %v", l.calls[1:])
	}
	// What is known from this very call is not asked for.
	run(t, tr, envelopeOf(evidenceRows("da3_1", strings.Repeat("c3", 20))["file"], deviceInfo(strings.Repeat("c3", 20))))
	if len(l.calls) != 1 {
		t.Errorf("asked for what the payload tells: %v", l.calls[1:])
	}
}

func TestStaleAndMergedAreAskedFor(t *testing.T) {
	cfg := defaults()
	cfg.Wait = time.Second
	tr, l := withLookup(cfg, func(_ *lookup, _ context.Context, ids []string) []string { return ids })
	old := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-02-01T00:00:00Z", "DeviceName", "ws")
	wantDevice(t, run(t, tr, old, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[1], "status", "stale", "DeviceName", "ws")
	merged := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", noon, "MergedToDeviceId", strings.ToUpper(ws2))
	wantDevice(t, run(t, tr, merged, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[1], "status", "hit", "DeviceName", "ws", "DeviceId", ws1)
	if want := [][]string{{ws1}, {ws2}}; !reflect.DeepEqual(l.calls, want) {
		t.Errorf("asked for %v, want %v", l.calls, want)
	}
}

// However slow the answer, a call waits once, and the records go on.
func TestOneWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, 300 * time.Millisecond, 2 * time.Second} {
			cfg := defaults()
			cfg.Wait = wait
			tr, _ := withLookup(cfg, func(_ *lookup, ctx context.Context, ids []string) []string { <-ctx.Done(); return ids })
			start := time.Now()
			var bodies []string
			for i := range 40 {
				bodies = append(bodies, envelopeOf(row("", "File", fmt.Sprintf(`{"Host":{"MachineId":"%040x"}}`, i+1)), `{"not closed":`), evidenceRows(fmt.Sprint("da", i), fmt.Sprintf("%038xff", i))["machine"])
			}
			events := run(t, tr, bodies...)
			if took := time.Since(start); took != wait {
				t.Errorf("waited %v, want %v", took, wait)
			}
			evidence := ofTable(events, "AlertEvidence")
			if len(evidence) != 80 {
				t.Fatalf("%d rows", len(evidence))
			}
			for _, e := range evidence {
				wantDevice(t, e, "status", "pending")
			}
		}
		// And less when the caller has had enough.
		cfg := defaults()
		cfg.Wait = time.Hour
		tr, _ := withLookup(cfg, func(_ *lookup, ctx context.Context, ids []string) []string { <-ctx.Done(); return ids })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start, n := time.Now(), 0
		tr.Append(ctx, []transform.Payload{{Body: []byte(evidenceRows("da", ws1)["ref"])}}, func(string, []byte) { n++ })
		if took := time.Since(start); took != time.Second || n != 1 {
			t.Errorf("%v, %d records", took, n)
		}
	})
}

func TestLookupThatPanics(t *testing.T) {
	tr, _ := withLookup(defaults(), func(*lookup, context.Context, []string) []string { panic("bug") })
	wantDevice(t, run(t, tr, evidenceRows("da", ws1)["file"])[0], "match", "evidence")
}

// A payload of more alerts than may be held at once: all arrive, with one wait.
func TestManyAlertsInOneCall(t *testing.T) {
	cfg := defaults()
	cfg.Wait = time.Second
	tr, l := withLookup(cfg, func(l *lookup, _ context.Context, ids []string) []string { return ids })
	var records []string
	for i := range 700 {
		records = append(records, row(fmt.Sprint("da", i), "File", `{"Host":`+hostOf(fmt.Sprintf("%040x", i), true)+`,"Pad":[`+strings.Repeat(`1,`, 2000)+`1]}`))
	}
	if n := len(run(t, tr, envelopeOf(records...))); n != 700 {
		t.Errorf("%d records", n)
	}
	if n := len(l.calls); n < 2 {
		t.Errorf("%d calls: the rows were all held at once", n)
	}
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

func TestCacheIsBoundedInBytes(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 256 << 10
	tr, d := withDevices(cfg)
	id := func(i int) string { return fmt.Sprintf("%040x", i+1) }
	hot := row("hot", "File", `{"Host":{"MachineId":"`+id(3)+`"}}`)
	for i := range 4000 {
		run(t, tr, deviceInfo(id(i)))
		if i%200 == 3 { // device 3 is looked at, and so it stays
			if got := deviceOf(run(t, tr, hot)[0])["OSPlatform"]; got != "Windows11" {
				t.Fatalf("after %d devices: %v", i, got)
			}
		}
		run(t, tr, recordOf("AlertInfo", "AlertId", id(i), "Title", strings.Repeat("t", 100)))
	}
	s := d.Stats()
	if s.Bytes+s.AlertBytes > cfg.CacheBytes || s.Devices < 300 || s.Alerts < 50 || s.Evicted < 3000 {
		t.Errorf("%+v", s)
	}
	// A list does not push out what is there.
	before := d.Stats()
	for i := range 1000 {
		d.Learn(aTenant, []byte(`{"DeviceId":"`+id(i+50_000)+`","DeviceName":"listed"}`), false)
	}
	if after := d.Stats(); after.Evicted != before.Evicted {
		t.Errorf("%+v", after)
	}
}

// After a restart the first alert has its device, with nobody to ask and no report.
func TestSnapshot(t *testing.T) {
	cfg := defaults()
	cfg.Fields = append(cfg.Fields, "BrandNew")
	tr, d := withDevices(cfg)
	file := make(map[string][]byte)
	write := func(saved []device.Saved) error {
		for _, s := range saved {
			if s.Groups == nil {
				delete(file, s.Key)
			} else {
				file[s.Key] = s.Groups
			}
		}
		return nil
	}
	save := func() (n int) {
		t.Helper()
		for {
			more, err := d.Save(3, write)
			if err != nil {
				t.Fatal(err)
			}
			if n++; !more {
				return n
			}
		}
	}
	save()
	odd := "Odd id/ü"
	run(t, tr, deviceInfo(ws1, "BrandNew", "x", "MergedToDeviceId", ws2), deviceInfo(ws2, "OSPlatform", "macOS", "BrandNew", 5), deviceInfo(odd))
	for i := range 20 {
		run(t, tr, deviceInfo(fmt.Sprintf("%040x", i+1)))
	}
	failed := fmt.Errorf("disk full")
	if _, err := d.Save(3, func([]device.Saved) error { return failed }); err != failed {
		t.Errorf("%v", err)
	}
	if n := save(); n != 8 || len(file) != 23 {
		t.Errorf("%d writes of 3, %d devices in the file", n, len(file))
	}
	if n := save(); n != 1 {
		t.Errorf("%d writes with no change", n)
	}
	run(t, tr, deviceInfo(ws2, "OSPlatform", "macOS"))
	if more, _ := d.Save(10, func([]device.Saved) error { t.Error("a report that changes nothing is written"); return nil }); more {
		t.Error("more")
	}

	restart := func(cfg device.Config) (*transform.Transformer, *device.Memory) {
		tr, d := withDevices(cfg)
		for k, v := range file {
			if !d.Restore(k, v) {
				t.Errorf("%s cannot be read", k)
			}
		}
		return tr, d
	}
	tr2, d2 := restart(cfg)
	for _, id := range []string{ws1, odd} {
		r := row("first", "File", `{"Host":{"MachineId":"`+id+`"}}`)
		before, after := deviceOf(run(t, tr, r)[0]), deviceOf(run(t, tr2, r)[0])
		if before["status"] != "hit" || !reflect.DeepEqual(before, after) {
			t.Errorf("before %v\nafter  %v", before, after)
		}
	}
	if got := deviceOf(run(t, tr2, row("first", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0]); got["DeviceId"] != ws2 || got["BrandNew"] != int64(5) {
		t.Errorf("%v", got)
	}
	if more, _ := d2.Save(100, func(s []device.Saved) error {
		t.Errorf("%d devices are written that were just read", len(s))
		return nil
	}); more {
		t.Error("more")
	}
	// With other settings: fewer columns.
	cfg.Fields = []string{"OSPlatform"}
	tr3, _ := restart(cfg)
	if got := deviceOf(run(t, tr3, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0]); !reflect.DeepEqual(got, map[string]any{"DeviceId": ws2, "match": "evidence", "status": "hit", "OSPlatform": "macOS"}) {
		t.Errorf("%v", got)
	}
	// A file that is damaged.
	for k, v := range file {
		for i := range len(v) {
			_, d := withDevices(cfg)
			d.Restore(k, v[:i])
			w := bytes.Clone(v)
			w[i] ^= 0xff
			d.Restore(k, w)
			d.Stats()
		}
		break
	}
	_, d4 := withDevices(cfg)
	for k, v := range map[string][]byte{"no slash": {1, 0}, "t/": file[aTenant+"/"+ws1], aTenant + "/" + ws1: {2, 0, 1}, aTenant + "/" + ws2: nil} {
		if d4.Restore(k, v) {
			t.Errorf("%q is taken", k)
		}
	}
}

// Devices that had to give way go from the file too.
func TestSnapshotForgetsTheEvicted(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 64 << 10
	tr, d := withDevices(cfg)
	file := make(map[string]bool)
	save := func() {
		for more := true; more; {
			more, _ = d.Save(50, func(saved []device.Saved) error {
				for _, s := range saved {
					if s.Groups == nil {
						delete(file, s.Key)
					} else {
						file[s.Key] = true
					}
				}
				return nil
			})
		}
	}
	save()
	for i := range 2000 {
		run(t, tr, deviceInfo(fmt.Sprintf("%040x", i+1)))
		if i%37 == 0 {
			save()
		}
	}
	save()
	if s := d.Stats(); int64(len(file)) != s.Devices {
		t.Errorf("%d in the file, %d in the cache", len(file), s.Devices)
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

const samples = "../../shared/samples"

func TestSampleAlert(t *testing.T) {
	body, err := os.ReadFile(filepath.Join(samples, "derived/eventhub_spaced_same_alert_batch.json"))
	if err != nil {
		t.Skip("the samples are not here; TestEveryRowOfAnAlertCarriesTheDevice does the same with invented ones")
	}
	var batch struct{ Records []json.RawMessage }
	if err := json.Unmarshal(body, &batch); err != nil {
		t.Fatal(err)
	}
	var machine struct {
		Properties struct{ DeviceID, DeviceName string }
		TenantID   string
	}
	order := make([]string, len(batch.Records))
	for i, r := range batch.Records {
		order[i] = string(r)
	}
	if err := json.Unmarshal(batch.Records[0], &machine); err != nil || machine.Properties.DeviceID == "" {
		t.Fatalf("%v: the first is not the Machine row", err)
	}
	report := strings.ReplaceAll(deviceInfo(machine.Properties.DeviceID, "Timestamp", "2026-01-13T09:00:00Z", "DeviceName", "invented.corp.example"), aTenant, machine.TenantID)
	check := func(events []event) {
		t.Helper()
		evidence := ofTable(events, "AlertEvidence")
		if len(evidence) != 4 {
			t.Fatalf("%d rows", len(evidence))
		}
		for _, e := range evidence {
			wantDevice(t, e, "status", "hit", "DeviceId", machine.Properties.DeviceID, "OSPlatform", "Windows11", "MachineGroup", "Finance")
		}
	}
	last := append(slices.Clone(order[1:]), order[0])
	for _, records := range [][]string{order, last} {
		for _, bodies := range [][]string{{envelopeOf(records...), report}, append(slices.Clone(records), report)} {
			tr, _ := withDevices(defaults())
			check(run(t, tr, bodies...))
		}
		// Without any report the Machine row tells the name, and each row is in a call of its own.
		tr, _ := withDevices(defaults())
		var events []event
		for _, r := range append([]string{order[0]}, records...) {
			events = append(events, run(t, tr, r)...)
		}
		for _, e := range events[1:] {
			wantDevice(t, e, "status", "unknown", "DeviceId", machine.Properties.DeviceID, "DeviceName", machine.Properties.DeviceName)
		}
	}
}

func TestSampleEvidence(t *testing.T) {
	lines, err := os.ReadFile(filepath.Join(samples, "sekoia/ndjson/AlertEvidence.ndjson"))
	if err != nil {
		t.Skip("the samples are not here; TestWhichDevice does the same with invented ones")
	}
	tr, d := withDevices(defaults())
	events := run(t, tr, string(lines)) // to see whom they name
	ids := make(map[string]string)
	for _, e := range events {
		if id, ok := e.m["DeviceInfo.DeviceId"].(string); ok {
			ids[id] = e.m["tenant_id"].(string)
		}
	}
	for id, tenant := range ids {
		run(t, tr, strings.ReplaceAll(deviceInfo(id, "Timestamp", "2026-01-13T09:00:00Z"), aTenant, tenant))
	}
	hits, none := 0, 0
	for _, e := range run(t, tr, string(lines)) {
		switch deviceOf(e)["status"] {
		case "none":
			none++
		default:
			hits++
			id := e.m["DeviceInfo.DeviceId"].(string)
			wantDevice(t, e, "status", "hit", "DeviceName", "ws-"+id[:2]+".corp.example", "OSPlatform", "Windows11", "OSBuild", int64(22631), "MachineGroup", "Finance")
		}
	}
	if len(events) != 13 || hits != 9 || none != 4 || len(ids) != 3 {
		t.Errorf("%d rows, %d with a device, %d without, %d devices; %+v", len(events), hits, none, len(ids), d.Stats())
	}
}
