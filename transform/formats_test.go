package transform_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/ocsf"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// idOf is where a format keeps the event_id.
func idOf(format string, e event) string {
	var id any
	switch format {
	case "elastic", "ecs":
		inside, _ := e.m["event"].(map[string]any)
		id = inside["hash"]
	case "ocsf":
		metadata, _ := e.m["metadata"].(map[string]any)
		id = metadata["uid"]
	default:
		id = e.m["event_id"]
	}
	text, _ := id.(string)
	return text
}

// shapes are the formats that this file knows: each keeps the record as Microsoft wrote it.
var shapes = []string{"raw", "splunk", "elastic", "ecs", "ocsf"}

// checkFormats transforms payloads in every format. Each gives as many events, of the same tables
// and times, with the same ids. The host and the destination take them all. So whatever a test
// throws at flat meets the others, too.
func checkFormats(t testing.TB, cfg transform.Config, payloads []transform.Payload) {
	t.Helper()
	now := time.Now()
	clock := func() time.Time { return now }
	f := func(format string) []event {
		cfg.Format = format
		tr := transform.New(cfg)
		transform.SetNow(tr, clock)
		events := transformed(t, tr, payloads)
		if n := tr.Stats().Unreadable()["panic"]; n > 0 {
			t.Fatalf("%s: %d panics", format, n)
		}
		return events
	}
	want := f("flat")
	for _, e := range want { // its flat form is many times its size: another format may well take it
		if strings.Contains(fmt.Sprint(e.m["unreadable_reason"]), "flat form") {
			return
		}
	}
	for _, format := range shapes {
		got := f(format)
		if len(got) != len(want) {
			t.Fatalf("%s: %d events, flat has %d", format, len(got), len(want))
		}
		for i, e := range got {
			if e.table != want[i].table || !e.time.Equal(want[i].time) || idOf(format, e) != idOf("flat", want[i]) {
				t.Fatalf("%s: event %d\n%v\nflat\n%v", format, i, e, want[i])
			}
			if _, twice := e.m["@timestamp"]; format != "raw" && format != "splunk" && twice {
				t.Fatalf("elastic: a second @timestamp: %v", e)
			}
		}
	}
}

// decoded is JSON text as encoding/json reads it, with numbers as they are written.
func decoded(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.200s", err, text)
	}
	return v
}

// plain is a value of an event as decoded has it.
func plain(v any) any {
	switch v := v.(type) {
	case int64:
		return json.Number(fmt.Sprint(v))
	case float64:
		b, _ := json.Marshal(v)
		return json.Number(b)
	case []any:
		l := make([]any, len(v))
		for i := range v {
			l[i] = plain(v[i])
		}
		return l
	case map[string]any:
		m := make(map[string]any)
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	}
	return v
}

// everyTable is an envelope with invented records of every documented table.
func everyTable() string {
	b := []byte(`{"records":[`)
	for r := range ocsf.Records(1, 600) {
		b = append(append(b, r...), ',')
	}
	return string(b[:len(b)-1]) + "]}"
}

// Every record, in each format: raw and elastic have its text, splunk its members as they were, but
// for the nulls that nobody looks at.
func TestShapesKeepTheRecord(t *testing.T) {
	t.Run("envelope", func(t *testing.T) { keepTheRecord(t, string(envelope(100))) })
	t.Run("every table", func(t *testing.T) { keepTheRecord(t, everyTable()) })
}

func keepTheRecord(t *testing.T, body string) {
	records := decoded(t, body).(map[string]any)["records"].([]any)
	for _, f := range []struct{ format, text string }{{"raw", "raw"}, {"elastic", "message"}} {
		events := run(t, transform.New(transform.Config{EventID: true, Format: f.format}), body)
		if len(events) != len(records) {
			t.Fatalf("%s: %d events", f.format, len(events))
		}
		for i, e := range events {
			if got := decoded(t, e.m[f.text].(string)); !reflect.DeepEqual(got, records[i]) {
				t.Fatalf("%s: %v\nwant %v", f.format, got, records[i])
			}
		}
	}
	for _, keep := range []bool{false, true} {
		events := run(t, transform.New(transform.Config{EventID: true, KeepNulls: keep, Format: "splunk"}), body)
		for i, e := range events {
			got := plain(e.m).(map[string]any)
			delete(got, "event_id")
			want := records[i].(map[string]any)
			properties := want["properties"].(map[string]any)
			for name, v := range properties {
				if _, there := got["properties"].(map[string]any)[name]; !keep && v == nil && !there {
					delete(properties, name)
				}
			}
			if got["repaired_text"] != nil {
				continue // and replaces half surrogates
			}
			if got["repaired_text"] != nil {
				continue // and replaces half surrogates
			}
			if id := properties["DeviceId"]; strings.Contains(fmt.Sprint(got), "_2:") || id == nil && got["properties"].(map[string]any)["DeviceId"] != id {
				continue // encoding/json keeps the last of two members with one name
			}
			if !reflect.DeepEqual(texts(got), texts(want)) {
				for name, v := range properties {
					if g := got["properties"].(map[string]any)[name]; !reflect.DeepEqual(g, v) {
						t.Errorf("splunk, keep_nulls %v: %s is %v, want %v", keep, name, g, v)
					}
				}
				t.Fatalf("%d members and %d columns, want %d and %d", len(got), len(got["properties"].(map[string]any)), len(want), len(properties))
			}
		}
		records = decoded(t, body).(map[string]any)["records"].([]any)
	}
}

// texts is v with its numbers as text: what no float64 can hold is text in an event.
func texts(v any) any {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".eE") {
			return strconv.FormatFloat(f, 'g', -1, 64) // 1.50 and 1.5, 1e3 and 1000
		}
		return v.String()
	case []any:
		for i := range v {
			v[i] = texts(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = texts(v[k])
		}
	}
	return v
}

// What raw writes can be read again, in any wrapping, and has the same id.
func TestRawIsReadAgain(t *testing.T) {
	body := string(envelope(50))
	first := run(t, transform.New(transform.Config{EventID: true, Format: "raw"}), body)
	for _, format := range []string{"raw", "flat"} {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		for _, e := range first {
			again := run(t, tr, e.m["raw"].(string))
			if len(again) != 1 || again[0].m["event_id"] != e.m["event_id"] || !again[0].time.Equal(e.time) {
				t.Fatalf("%s: %v\nfrom %v", format, again, e)
			}
		}
	}
}

// What raw writes is read again without a trace of its first way: a device and an alert, unreadable
// text, and records without event_id.
func TestRawEventsAreReadAgain(t *testing.T) {
	evidence := row("da1_1", "File", `{"Host":{"MachineId":"`+ws1+`"}}`, "Title", nil)
	others := []string{`not JSON`, `{"category":"AdvancedHunting-DeviceEvents","properties":{"A":1`, "\xff\xfe\x01", `{"a":1,"raw":"{}"}`}
	for _, prefix := range []string{"DeviceInfo.", "dev_"} {
		for _, id := range []bool{true, false} {
			cfg := transform.Config{EventID: id, Format: "raw", Devices: device.New(defaults()), DevicePrefix: prefix}
			events := run(t, transform.New(cfg), append([]string{deviceInfo(ws1), recordOf("AlertInfo", "AlertId", "da1_1", "Title", "T", "Severity", "High", "Category", "Execution", "AttackTechniques", `["T1"]`), evidence}, others...)...)
			filled := false
			for _, e := range events {
				filled = filled || e.m["Title"] == "T" && e.m[prefix+"DeviceName"] != nil
				b, err := json.Marshal(e.m)
				if err != nil {
					t.Fatal(err)
				}
				again := run(t, transform.New(transform.Config{EventID: id, Format: "raw", DevicePrefix: prefix}), string(b))
				if len(again) != 1 || again[0].table != e.table {
					t.Errorf("event_id %v: %v\nfrom %v", id, again, e)
					continue
				}
				for _, name := range []string{"raw", "event_id", "table", "tenant_id", "unreadable_reason", "unreadable_raw", "unreadable_encoding"} {
					if again[0].m[name] != e.m[name] {
						t.Errorf("%s is %v, was %v", name, again[0].m[name], e.m[name])
					}
				}
			}
			if !filled || len(events) != 3+len(others) {
				t.Errorf("%d events, with alert and device %v", len(events), filled)
			}
		}
	}
	// A raw of somebody else stays.
	e := one(t, transform.Config{Format: "raw"}, `{"table":"t","raw":"{\"a\":1}","other":1}`)
	if e.table != transform.Unknown {
		t.Errorf("%v", e)
	}
}

// splunk: short columns that the add-on reads come first, then other short ones, then long ones by
// length. Nulls stay where the add-on looks at them. Text stays text, and numbers keep their
// digits.
func TestSplunkOrder(t *testing.T) {
	long, longer := strings.Repeat("x", 400), strings.Repeat("y", 4000)
	record := `{"time":"2026-03-04T10:20:31Z","tenantId":"t1","operationName":"Publish","category":"AdvancedHunting-DeviceProcessEvents","Tenant":"DefaultTenant","_TimeReceivedBySvc":"2026-03-04T10:20:30Z","properties":{` +
		`"AdditionalFields":"{\"a\":\"` + longer + `\"}","Other":"o","DeviceName":null,"MD5":null,"SHA256":"s","OtherNull":null,"ProcessCommandLine":"` + long + `","FileName":"a.exe","ReportId":638123456789012345,"Nested":{"a.b":[1,{"c":null}],"d":""},"Timestamp":"2026-03-04T10:18:02Z"}}`
	f := func(cfg transform.Config, want string) {
		t.Helper()
		cfg.EventID, cfg.Format = true, "splunk"
		var b []byte
		transform.New(cfg).Append(t.Context(), []transform.Payload{{Body: []byte(record)}}, func(_ string, e []byte) { b = slices.Clone(e) })
		if got := ordered(t, b); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	const envelope = "time tenantId operationName category Tenant _TimeReceivedBySvc properties{"
	f(transform.Config{}, "event_id "+envelope+"MD5 SHA256 FileName Timestamp Other ReportId Nested{a.b[{c}] d} ProcessCommandLine AdditionalFields}")
	f(transform.Config{KeepNulls: true}, "event_id "+envelope+"DeviceName MD5 SHA256 FileName Timestamp Other OtherNull ReportId Nested{a.b[{c}] d} ProcessCommandLine AdditionalFields}")
	f(transform.Config{SplunkMend: true}, "event_id "+envelope+"tenantId MD5 SHA256 FileName Timestamp Other ReportId Nested{a.b[{c}] d} ProcessCommandLine AdditionalFields}")

	record = strings.Replace(record, `"Other":"o"`, `"AttackTechniques":"[\"T1\"]"`, 1)
	e := one(t, transform.Config{Format: "splunk", SplunkMend: true}, record)
	if got := fmt.Sprint(e.m["body"]); got != `map[properties:map[AttackTechniques:["T1"]]]` {
		t.Errorf("body %s", got)
	}
	if got := e.m["properties"].(map[string]any); got["ReportId"] != int64(638123456789012345) || got["AdditionalFields"] != `{"a":"`+longer+`"}` {
		t.Errorf("%v", got)
	}
}

// ordered lists the keys of an event in their order.
func ordered(t *testing.T, event []byte) string {
	t.Helper()
	d := decoder{b: event[11:]}
	var list func() string
	list = func() string {
		head := d.b[0]
		switch {
		case head == 0xdf || head&0xf0 == 0x80 || head == 0xde:
			n := int(head & 15)
			d.b = d.b[1:]
			if head == 0xdf {
				n64, _ := d.uint(4)
				n = int(n64)
			}
			var keys []string
			for range n {
				k, err := d.value(3, nil)
				if err != nil {
					t.Fatal(err)
				}
				inside := list()
				keys = append(keys, k.(string)+inside)
			}
			return "{" + strings.Join(keys, " ") + "}"
		case head&0xf0 == 0x90:
			n := int(head & 15)
			d.b = d.b[1:]
			var all string
			for range n {
				all += list()
			}
			return "[" + all + "]"
		}
		if _, err := d.value(3, nil); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	text := list()
	return text[1 : len(text)-1]
}

// What is not Advanced Hunting goes to another sourcetype, as it came; so does what cannot be read.
func TestSplunkOtherProducts(t *testing.T) {
	e := one(t, transform.Config{Format: "splunk", EventID: true}, `{"SystemAlertId":"1","event_id":"theirs","splunk_sourcetype":"theirs","DeviceInfo":5,"Entities":[{"$id":"1"}],"TimeGenerated":"2026-03-04T10:18:02Z"}`)
	if e.m["splunk_sourcetype"] != "defender:xdr" || e.m["table"] != "SecurityAlert" || e.m["event_id_2"] != "theirs" || e.m["splunk_sourcetype_2"] != "theirs" ||
		fmt.Sprint(e.m["Entities"]) != "[map[$id:1]]" {
		t.Errorf("%v", e)
	}
	e = one(t, transform.Config{Format: "splunk"}, `not JSON`)
	if e.m["splunk_sourcetype"] != "defender:xdr" || e.m["unreadable_raw"] != "not JSON" {
		t.Errorf("%v", e)
	}
}

// In elastic, text that is no record is a record of a category that the pipeline does not know.
func TestElasticUnreadable(t *testing.T) {
	for _, bad := range []string{"no \"JSON\"\x01 \\ at all", "\xff\xfe", strings.Repeat("long ", 20_000)} {
		var whole string
		events := run(t, transform.New(transform.Config{Format: "elastic", EventID: true}), bad)
		for _, e := range events {
			m := decoded(t, e.m["message"].(string)).(map[string]any)
			p := m["properties"].(map[string]any)
			raw := p["unreadable_raw"].(string)
			if p["unreadable_encoding"] == "base64" {
				b, err := base64.StdEncoding.DecodeString(raw)
				if err != nil {
					t.Fatal(err)
				}
				raw = string(b)
			}
			whole += raw
			if m["category"] != "unreadable" || p["unreadable_lane"] != "hub/0" || !slices.Contains(e.m["tags"].([]any), any("preserve_original_event")) {
				t.Errorf("%v", e)
			}
		}
		if whole != bad {
			t.Errorf("%d bytes came back of %d", len(whole), len(bad))
		}
	}
}

// elastic: the pipeline reads columns of a category in its own letters, and of properties that are
// an object. Where it cannot, the event keeps the record.
func TestElasticIsReadable(t *testing.T) {
	const object = `{"A":1,"B":"\u00e9 \" \\","C":[ 1,{"x":null} ]}`
	whole := func(category, properties string) string {
		return `{ "time":"2026-03-04T10:20:31Z", "category":"` + category + `" ,"properties":` + properties + `, "Tenant":"x"}`
	}
	known := whole("AdvancedHunting-DeviceEvents", object)
	text := strings.NewReplacer("\\", "\\\\", `"`, `\"`).Replace(object)
	for _, f := range []struct {
		record, message string
		keep            bool
	}{
		{known, known, false},
		{whole("AdvancedHunting-DeviceEvents", `"`+text+`"`), known, false},
		{whole("advancedhunting-DEVICEEVENTS", object), known, false},
		{whole("AdvancedHunting\\u002dDeviceEvents ", `"`+text+`"`), known, false},
		{whole("AdvancedHunting-DeviceEvents", `[{"A":1}]`), "", true},
		{whole("AdvancedHunting-DeviceEvents", `"words"`), "", true},
		{whole("AdvancedHunting-DeviceEvents", `null`), "", true},
		{`{"category":"AdvancedHunting-DeviceEvents","A":1}`, "", true},
		{whole("AdvancedHunting-NewTable", `"`+text+`"`), "", true},
		{whole("advancedhunting-NewTable", object), "", true},
	} {
		e := one(t, transform.Config{Format: "elastic"}, f.record)
		if f.message == "" {
			f.message = f.record
		}
		if e.m["message"] != f.message || slices.Contains(e.m["tags"].([]any), any("preserve_original_event")) != f.keep {
			t.Errorf("%s:\n%v\nwant %s, keep %v", f.record, e, f.message, f.keep)
		}
	}
}

// splunk: of two columns with one name, the device or the alert takes the place of the empty one.
// The other is kept.
func TestSplunkKeepsTheSecondOfTwo(t *testing.T) {
	tr := transform.New(transform.Config{Format: "splunk", SplunkFillDevice: true, Devices: device.New(defaults())})
	twice := `{"category":"AdvancedHunting-AlertEvidence","tenantId":"` + aTenant + `","properties":{"Timestamp":"` + noon + `","AlertId":"da1_1","EntityType":"File","AdditionalFields":"{\"Host\":{\"MachineId\":\"` + ws1 + `\"}}",` +
		`"DeviceId":null,"DeviceId":"second id","DeviceName":null,"DeviceName":"second name","Title":null,"Title":"second title"}}`
	events := run(t, tr, deviceInfo(ws1), recordOf("AlertInfo", "AlertId", "da1_1", "Title", "T"), twice)
	properties := events[len(events)-1].m["properties"].(map[string]any)
	for name, want := range map[string]any{"DeviceId": ws1, "DeviceId_2": "second id", "DeviceName": "ws-a1.corp.example", "DeviceName_2": "second name"} {
		if properties[name] != want {
			t.Errorf("%s is %v, want %v", name, properties[name], want)
		}
	}
	if got := fmt.Sprint(properties["Title"], ", ", properties["Title_2"]); got != "second title, T" {
		t.Errorf("titles %s in %v", got, events[len(events)-1])
	}
}

// The device on evidence, in each format, and from hub and blobs alike.
func TestShapesCarryTheDevice(t *testing.T) {
	report := deviceInfo(ws1, "PublicIP", "203.0.113.7")
	evidence := row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`)
	f := func(cfg transform.Config) event {
		t.Helper()
		cfg.Devices, cfg.EventID = device.New(defaults()), true
		tr := transform.New(cfg)
		run(t, tr, report)
		events := run(t, tr, evidence)
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		return events[0]
	}
	if e := f(transform.Config{Format: "raw"}); e.m["DeviceInfo.DeviceName"] != "ws-a1.corp.example" || e.m["DeviceInfo.match"] != "evidence" {
		t.Errorf("raw: %v", e)
	}
	e := f(transform.Config{Format: "splunk", SplunkFillDevice: true})
	info, properties := e.m["DeviceInfo"].(map[string]any), e.m["properties"].(map[string]any)
	if info["DeviceId"] != ws1 || info["OSPlatform"] != "Windows11" || info["match"] != "evidence" || info["status"] != "hit" || info["filled"] != true ||
		properties["DeviceName"] != "ws-a1.corp.example" || properties["DeviceId"] != ws1 {
		t.Errorf("splunk: %v", e)
	}
	e = f(transform.Config{Format: "splunk"})
	if info, properties = e.m["DeviceInfo"].(map[string]any), e.m["properties"].(map[string]any); info["filled"] != nil || properties["DeviceName"] != nil {
		t.Errorf("splunk, not filled: %v", e)
	}
	e = f(transform.Config{Format: "elastic"})
	got, _ := json.Marshal([]any{e.m["host"], e.m["device"], e.m["cloud"]})
	want := `[{"hostname":"ws-a1.corp.example","id":"` + ws1 + `","ip":["203.0.113.7"],"name":"ws-a1.corp.example","os":{"full":"Windows11","name":"Windows11","type":"windows"}},{"id":"` + ws1 + `"},{"instance":{"id":"` + ws1 + `"}}]`
	if string(got) != want {
		t.Errorf("elastic: %s\nwant     %s", got, want)
	}
	own := e.m["m365_defender"].(map[string]any)["device_info"].(map[string]any)
	if own["os_platform"] != "Windows11" || own["device_id"] != ws1 || own["match"] != "evidence" || own["status"] != "hit" {
		t.Errorf("elastic: %v", own)
	}
}

// In splunk the words of the alert that only AlertInfo says stand in their columns, lists as text.
func TestSplunkFillsTheAlert(t *testing.T) {
	tr := transform.New(transform.Config{Format: "splunk", Devices: device.New(defaults())})
	events := run(t, tr, envelopeOf(
		recordOf("AlertInfo", "AlertId", "da1_1", "Title", "T", "Severity", "High", "Category", "Execution", "AttackTechniques", `["PowerShell (T1059.001)","a\"b"]`),
		recordOf("AlertEvidence", "AlertId", "da1_1", "EntityType", "File", "Title", nil)))
	got, _ := json.Marshal(events[len(events)-1].m["properties"])
	want := `{"AlertId":"da1_1","AttackTechniques":"[\"PowerShell (T1059.001)\",\"a\\\"b\"]","Categories":"[\"Execution\"]","EntityType":"File","Severity":"High","Title":"T"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Every format beside flat, over the envelope of BenchmarkTransform.
func BenchmarkShapes(b *testing.B) {
	for _, format := range append([]string{"flat"}, shapes...) {
		b.Run(format, func(b *testing.B) {
			body := envelope(400)
			payloads := []transform.Payload{{Body: body, Lane: "hub/0"}}
			tr := transform.New(transform.Config{EventID: true, Format: format})
			emit := func(string, []byte) {}
			tr.Append(b.Context(), payloads, emit)
			perCPU(b, len(body))
			for b.Loop() {
				tr.Append(b.Context(), payloads, emit)
			}
		})
	}
}

// The speed of ecs as a part of that of flat, over the same envelope, in turns.
func BenchmarkECSInTurns(b *testing.B) {
	ecsInTurns(b, []transform.Payload{{Body: envelope(400), Lane: "hub/0"}})
}

// The same over sparse records: hardly two of them write the same fields.
func BenchmarkECSSparseInTurns(b *testing.B) {
	ecsInTurns(b, sparse(20))
}

// sparse returns envelopes of 400 records. Each record leaves other columns empty, a fifth of them.
func sparse(envelopes int) (payloads []transform.Payload) {
	r := rand.New(rand.NewPCG(1, 2))
	value := regexp.MustCompile(`[a-zA-Z]":"[^"\\]{1,200}"`)
	for range envelopes {
		body := value.ReplaceAllFunc(envelope(400), func(v []byte) []byte {
			if r.IntN(5) > 0 || bytes.HasPrefix(v[3:], []byte(`"Ad`)) || bytes.HasPrefix(v[3:], []byte(`"20`)) { // a category or a time
				return v
			}
			return append(v[:3:3], "null"...)
		})
		payloads = append(payloads, transform.Payload{Body: body, Lane: "hub/0"})
	}
	return payloads
}

func ecsInTurns(b *testing.B, payloads []transform.Payload) {
	work := func(format string) func() {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		run := func() { tr.Append(b.Context(), payloads, func(string, []byte) {}) }
		run()
		return run
	}
	flat, ecs := inTurns(b, func() {}, work("flat"), work("ecs"))
	b.ReportMetric(100*float64(flat)/float64(ecs), "%-of-flat")
}
