package transform_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// What an attacker may do who writes into the events of a tenant, or into the stream itself.

// kept returns by how many bytes the heap has grown after f, which returns what must not be
// collected.
func kept(f func() any) int64 {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	held := f()
	grown := heap() - before
	runtime.KeepAlive(held)
	return grown
}

// allocated returns how many bytes were allocated in f: more than it needed at any time.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// Whatever is remembered of names is bounded in bytes: a megabyte of a name is not remembered.
func TestLongNamesAreNotKept(t *testing.T) {
	long := strings.Repeat("n", 1<<20)
	for name, record := range map[string]func(i int) string{
		"category": func(i int) string {
			return fmt.Sprintf(`{"category":"AdvancedHunting-%d%s","properties":{"A":1}}`, i, long)
		},
		"tenant": func(i int) string {
			return fmt.Sprintf(`{"tenantId":"%d%s","category":"AdvancedHunting-DeviceInfo","properties":{"DeviceId":"aa%04d","DeviceName":"x"}}`, i, long, i)
		},
		"column": func(i int) string {
			return fmt.Sprintf(`{"tenantId":"%s","category":"AdvancedHunting-DeviceInfo","properties":{"DeviceId":"aa%04d","%d%s":"x"}}`, aTenant, i, i, long)
		},
		"device":    func(i int) string { return deviceInfo(fmt.Sprint(i) + long) },
		"alert":     func(i int) string { return recordOf("AlertInfo", "AlertId", fmt.Sprint(i)+long, "Title", "x") },
		"reference": func(i int) string { return hunting(`"AdditionalFields":{"A":{"$id":"` + fmt.Sprint(i) + long + `"}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaults()
			cfg.Fields = []string{"*"}
			grown := kept(func() any {
				tr, _ := withDevices(cfg)
				for i := range 40 {
					tr.Append(t.Context(), []transform.Payload{{Body: []byte(record(i))}}, func(string, []byte) {})
				}
				return tr
			})
			if grown > 8<<20 {
				t.Errorf("%d MB are kept after 40 records with 1 MB each", grown>>20)
			}
		})
	}
}

// Tenants that were invented do not use up the places for tenants, nor more than their share of the
// memory.
func TestInventedTenantsGiveWay(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 1 << 20
	tr, d := withDevices(cfg)
	of := func(tenant, record string) string { return strings.ReplaceAll(record, aTenant, tenant) }
	grown := kept(func() any {
		for i := range 10_000 {
			invented := fmt.Sprintf("invented-%d", i)
			run(t, tr, of(invented, deviceInfo(ws1, "DeviceName", invented)), of(invented, recordOf("AlertInfo", "AlertId", "da1", "Title", invented)))
		}
		return d
	})
	if s := d.Stats(); s.Bytes+s.AlertBytes > cfg.CacheBytes || grown > 2*cfg.CacheBytes {
		t.Errorf("%d and %d of %d bytes are counted, %d are kept", s.Bytes, s.AlertBytes, cfg.CacheBytes, grown)
	}
	run(t, tr, deviceInfo(ws1))
	e := run(t, tr, row("da1", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))
	wantDevice(t, e[0], "status", "hit", "OSPlatform", "Windows11", "DeviceName", "ws-a1.corp.example")
	if title := e[0].m["Title"]; title != nil {
		t.Errorf("another tenant's title: %v", title)
	}
	// And without anything that could be kept of them.
	for i := range 5_000 {
		run(t, tr, of(fmt.Sprintf("other-%d", i), row("", "File", `{}`)))
	}
	wantDevice(t, run(t, tr, row("da1", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0], "status", "hit", "OSPlatform", "Windows11")
}

// The columns that the user asked for keep their places, however many others are invented.
func TestInventedColumnsGiveWay(t *testing.T) {
	cfg := defaults()
	cfg.Fields = []string{"*", "NewColumn"}
	tr, _ := withDevices(cfg)
	for i := range 3000 {
		run(t, tr, recordOf("DeviceInfo", "DeviceId", ws2, fmt.Sprintf("Junk%d", i), "x", "match", "forged", "status", "forged", "age_s", "forged", "url", "forged"))
	}
	run(t, tr, deviceInfo(ws1, "NewColumn", "matters"))
	wantDevice(t, run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0], "NewColumn", "matters", "status", "hit", "match", "evidence")
	e := run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws2+`"}}`))
	wantDevice(t, e[0], "status", "hit", "match", "evidence")
	for name, v := range e[0].m {
		if v == "forged" {
			t.Errorf("a report has set %s", name)
		}
	}
}

// A record of more values than there is memory for is passed on raw and whole, and costs no more
// than that.
func TestTooManyValues(t *testing.T) {
	const size = 4 << 20 / slower
	repeat := func(head, unit, tail string) string {
		return `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":{` + head + strings.Repeat(unit, size/len(unit)) + tail + `}}`
	}
	numbered := func(head, format, tail string) string {
		var b strings.Builder
		for b.Len() < size {
			fmt.Fprintf(&b, format, b.Len())
		}
		return `{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-X","properties":{` + head + b.String() + tail + `}}`
	}
	for name, bad := range map[string]string{
		"numbers":         repeat(`"A":[`, `0,`, `0]`),
		"lists":           repeat(`"A":[`, `[],`, `0]`),
		"deep":            `{"category":"AdvancedHunting-X","properties":{"A":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2) + `}}`,
		"keys in objects": numbered(`"A":[`, `{"%x":1},`, `0]`),
		"keys":            numbered(`"A":{`, `"%x":1,`, `"a":1}`),
		"columns":         numbered(``, `"c%x":1,`, `"a":1`),
		"records inside":  repeat(`"A":[`, `{"category":"AdvancedHunting-Forged","properties":{"a":1}},`, `0]`),
		"list inside":     repeat(`"records":[`, `{"category":"AdvancedHunting-Forged","properties":{"a":1}},`, `0]`),
	} {
		t.Run(name, func(t *testing.T) {
			tr := transform.New(transform.Config{EventID: true, Memory: 1 << 20 / slower})
			body := []byte(`{"records":[` + good(1) + `,` + bad + `,` + good(2) + `]}`)
			var raw strings.Builder
			raw.Grow(len(bad))
			emitted := 0
			tables := make(map[string]int)
			took := allocated(func() {
				tr.Append(t.Context(), []transform.Payload{{Body: body, Lane: "hub/0"}}, func(table string, b []byte) {
					tables[table]++
					emitted += len(b)
					if e, err := decodeEvent(b); err != nil {
						t.Error(err)
					} else if text, ok := e.m["unreadable_raw"].(string); ok {
						raw.WriteString(text)
					}
				})
			})
			if raw.String() != bad {
				t.Errorf("%d bytes came out raw, want %d", raw.Len(), len(bad))
			}
			if tables["AlertInfo"] != 2 || tables["Forged"] != 0 || len(tables) != 2 {
				t.Errorf("tables %v", tables)
			}
			if emitted > 2*len(body) || took > 5*size {
				t.Errorf("%d bytes became %d, and %d were allocated", len(body), emitted, took)
			}
		})
	}
	// JSON in a string, opened, counts as well: its column goes out as text.
	text := `{"A":[` + strings.Repeat("0,", size/2) + `0]}`
	e := one(t, transform.Config{Memory: 1 << 20 / slower}, hunting(`"ActionType":"x","RawEventData":`+inString(text)))
	if e.m["ActionType"] != "x" || e.m["RawEventData_raw"] != text {
		t.Errorf("table %s, columns %v", e.table, slices.Collect(maps.Keys(e.m)))
	}
	// An envelope whose list is not its first member keeps its records.
	var records []string
	for i := range 20_000 {
		records = append(records, good(i))
	}
	events := run(t, transform.New(transform.Config{Memory: 1 << 20}), `{"x":1,"records":[`+strings.Join(records, ",")+`]}`)
	if n := len(goods(events)); n != len(records) {
		t.Errorf("%d of %d records of an envelope", n, len(records))
	}
}

// leaves flattens an event to paths and values.
func leaves(out map[string]any, path string, v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			leaves(out, path+"/"+k, in)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
	return out
}

// Nothing of a record comes out under a name of ours, in any format. A record with such members has
// unchanged all that it has without them, and no more fields of ours.
func TestNamesOfOursAreNotForged(t *testing.T) {
	own := []string{"table", "tenant_id", "exported_at", "received_at", "event_id", "operation_name", "tenant_name", "category", "repaired_text",
		"unreadable_reason", "unreadable_raw", "unreadable_encoding", "unreadable_lane", "unreadable_offset", "unreadable_at", "unreadable_part", "unreadable_parts", "unreadable_new",
		"splunk_sourcetype", "alert_url", "event", "host", "device", "tags", "message", "raw", "body"}
	forged := make(map[string]any)
	for _, name := range own {
		forged[name] = "evil"
	}
	forged["DeviceInfo"] = map[string]any{"DeviceId": "evil", "DeviceName": "evil", "status": "evil", "match": "evil", "OSPlatform": "evil", "RiskScore": "evil", "New": "evil"}
	forged["DeviceInfo.Site"] = "evil"
	text, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	inside := string(text[1 : len(text)-1])
	beside := strings.Replace(inside, `"category":"evil",`, "", 1) // there it is the category
	// Where the text of the record itself goes.
	whole := []string{"/raw", "/message", "/event_id", "/event/hash", "/event/id", "/event/original", "/metadata/uid"}
	const plain = `"AlertId":"da1","EntityType":"Machine","DeviceId":"` + ws1 + `"`
	for _, format := range transform.Formats() {
		for _, known := range []bool{true, false} {
			for name, bodies := range map[string][2]string{
				"columns": {`{"time":"` + noon + `","category":"AdvancedHunting-AlertEvidence","properties":{` + plain + `}}`, `{"time":"` + noon + `","category":"AdvancedHunting-AlertEvidence","properties":{` + inside + `,` + plain + `}}`},
				"members": {`{"time":"` + noon + `","tenantId":"` + aTenant + `","category":"AdvancedHunting-AlertEvidence","properties":{` + plain + `}}`,
					`{` + beside + `,"time":"` + noon + `","tenantId":"` + aTenant + `","category":"AdvancedHunting-AlertEvidence","properties":{` + plain + `}}`},
				"another product": {`{"time":"` + noon + `","SystemAlertId":"x"}`, `{"time":"` + noon + `",` + beside + `,"SystemAlertId":"x"}`},
			} {
				f := func(body string) map[string]any {
					tr := transform.New(transform.Config{EventID: true, Format: format, Devices: device.New(defaults())})
					transform.SetNow(tr, func() time.Time { return time.Unix(1_780_000_000, 0) })
					if known {
						run(t, tr, deviceInfo(ws1), strings.ReplaceAll(deviceInfo(ws1), aTenant, ""))
					}
					return leaves(make(map[string]any), "", run(t, tr, body)[0].m)
				}
				honest, hostile := f(bodies[0]), f(bodies[1])
				for path, want := range honest {
					if !slices.Contains(whole, path) && hostile[path] != want {
						t.Errorf("%s, %s: %s is %v, without the forged members %v", format, name, path, hostile[path], want)
					}
				}
				for path, v := range hostile {
					first := strings.Split(strings.TrimPrefix(path, "/"), "/")[0]
					ours := first == "table" || first == "event_id" || first == "repaired_text" || strings.HasPrefix(first, "unreadable_") ||
						format == "flat" && (strings.HasPrefix(first, "DeviceInfo.") || first == "alert_url" || slices.Contains(own[:10], first)) ||
						format == "splunk" && (first == "DeviceInfo" || first == "splunk_sourcetype" || first == "body")
					if ours && v == "evil" && !strings.HasSuffix(first, "_2") {
						t.Errorf("%s, %s: the content has set %s", format, name, path)
					}
				}
			}
		}
	}
	// A prefix that begins names of columns, too, keeps nothing of those.
	tr := transform.New(transform.Config{Devices: device.New(defaults()), DevicePrefix: "Device"})
	e := run(t, tr, hunting(`"DeviceType":"x","DeviceName":"y","DeviceDeviceName":"evil","Devicestatus":"evil","Deviceage_s":"evil"`))[0]
	if e.m["DeviceType"] != "x" || e.m["DeviceName"] != "y" || e.m["DeviceDeviceName"] != nil || e.m["Devicestatus"] != nil || e.m["Deviceage_s"] != nil {
		t.Errorf("%v", e)
	}
}

// A record whose members make its event too large keeps its columns where they can be searched.
func TestLargeObjectsDoNotHideTheColumns(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"x":1`)
	for i := range 300 {
		fmt.Fprintf(&b, `,"%d":{"%s":{"z":1`, i, strings.Repeat("k", 480))
		for j := range 60 {
			fmt.Fprintf(&b, `,"%d":1`, j)
		}
		b.WriteString(`}}`)
	}
	b.WriteString(`}`)
	data := b.String()
	var references strings.Builder
	references.WriteString(`{"a":{"$id":"1"`)
	for i := range 3000 {
		fmt.Fprintf(&references, `,"%d":0`, i)
	}
	references.WriteString(`}`)
	for i := range 60 {
		fmt.Fprintf(&references, `,"%s%d":{"$ref":"1"}`, strings.Repeat("k", 400), i)
	}
	references.WriteString(`}`)
	for _, format := range transform.Formats() {
		for name, text := range map[string]string{"members": data, "references": references.String()} {
			for kind, value := range map[string]string{"native": text, "string": inString(text)} {
				tr := transform.New(transform.Config{EventID: true, Format: format, ResolveRefs: true})
				other := strings.NewReplacer(`"$id":"1"`, `"$id":"2"`, `"$ref":"1"`, `"$ref":"2"`).Replace(text)
				events := run(t, tr, `{"time":"`+noon+`","category":"AdvancedHunting-CloudAppEvents","properties":{"ActionType":"Evil","RawEventData":`+value+`,"New":`+other+`}}`)
				if len(events) != 1 || events[0].table != "CloudAppEvents" {
					t.Fatalf("%s, %s, %s: %d events, table %s", format, name, kind, len(events), events[0].table)
				}
				if format != "flat" {
					continue
				}
				e := events[0].m
				if e["table"] != "CloudAppEvents" || e["ActionType"] != "Evil" || e["RawEventData_raw"] != text || e["New_raw"] != other {
					t.Errorf("%s, %s: %v", name, kind, slices.Collect(maps.Keys(e)))
				}
			}
		}
	}
}

// Small payloads do not become giant batches: the events of one call are bounded, too.
func TestGrowthOfACallIsBounded(t *testing.T) {
	var members strings.Builder
	for i := range 200 {
		fmt.Fprintf(&members, `,"%d":0`, i)
	}
	references := `{"` + strings.Repeat("k", 400) + `":{"$id":"1"` + members.String() + `}` + strings.Repeat(`,"`+strings.Repeat("l", 300)+`":{"$ref":"1"}`, 5) + `}`
	record := hunting(`"AdditionalFields":` + references)
	body := []byte(`{"records":[` + strings.Repeat(record+`,`, 400) + good(1) + `]}`)
	const memory = 4 << 20
	tr := transform.New(transform.Config{EventID: true, ResolveRefs: true, Memory: memory})
	for range 2 { // the next call has its own
		emitted, largest, n := 0, 0, 0
		tr.Append(t.Context(), []transform.Payload{{Body: body}}, func(table string, b []byte) {
			if table == transform.Unreadable {
				t.Error("unreadable")
			}
			emitted += len(b)
			largest = max(largest, len(b))
			n++
		})
		if most := 2*len(body) + memory + 401<<10; emitted > most || n != 401 || largest < 8*len(record) {
			t.Errorf("%d bytes became %d, want at most %d; %d events, the largest of %d", len(body), emitted, most, n, largest)
		}
	}
}

// What is known of a device does not make its alerts unreadable.
func TestHugeDeviceDoesNotHideItsAlerts(t *testing.T) {
	cfg := defaults()
	cfg.Fields = []string{"*"}
	cfg.CacheBytes = 64 << 20
	for _, format := range transform.Formats() {
		tr := transform.New(transform.Config{Devices: device.New(cfg), Memory: 4 << 20, Format: format})
		properties := []any{"DeviceId", ws1, "Timestamp", noon}
		for i := range 100 {
			properties = append(properties, fmt.Sprintf("Junk%d", i), strings.Repeat("x", 60_000))
		}
		run(t, tr, recordOf("DeviceInfo", properties...))
		e := run(t, tr, row("da1", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))
		if len(e) != 1 || e[0].table != "AlertEvidence" {
			t.Fatalf("%s: %d events of %s", format, len(e), e[0].table)
		}
		if format == "flat" {
			wantDevice(t, e[0], "DeviceId", ws1, "status", "hit", "match", "evidence", "Junk0", nil)
		}
	}
}

// A report counts as of the time of its export at the latest. A later time in DeviceInfo does not
// keep the next reports out.
func TestFutureReportDoesNotFreezeADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000
		tr, _ := withDevices(defaults())
		report := func(exported, stamp, name string) {
			run(t, tr, fmt.Sprintf(`{"time":"%s","tenantId":"%s","category":"AdvancedHunting-DeviceInfo","properties":{"DeviceId":"%s","Timestamp":"%s","DeviceName":"%s"}}`, exported, aTenant, ws1, stamp, name))
		}
		report("2000-01-01T00:01:00Z", "2000-01-01T23:00:00Z", "frozen")
		report("2000-01-01T00:03:00Z", "2000-01-01T00:02:00Z", "next")
		wantDevice(t, run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0], "DeviceName", "next")
		report("2000-01-01T00:02:30Z", "2000-01-01T00:01:30Z", "late")
		wantDevice(t, run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0], "DeviceName", "next")
	})
}
