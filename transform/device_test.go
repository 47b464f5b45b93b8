package transform_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
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

// settled is a Config.Keep that keeps no mark back.
func settled(string) func() { return func() {} }

func withDevices(cfg device.Config) (*transform.Transformer, *device.Memory) {
	d := device.New(cfg)
	return transform.New(transform.Config{EventID: true, Devices: d, Keep: settled}), d
}

// recordOf makes a record of a table. properties alternate names and values; of two with one name
// the later counts.
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

// deviceOf returns the fields of an event that reports and evidence have added, without their
// prefix.
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
	// And each in a call of its own: the device first, then the rows.
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
	cfg.Tables = []string{"alertinfo", "Behavior*"}
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
