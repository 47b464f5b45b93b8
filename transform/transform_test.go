package transform_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// run transforms bodies in one call and returns their events.
func run(t testing.TB, tr *transform.Transformer, bodies ...string) []event {
	t.Helper()
	payloads := make([]transform.Payload, len(bodies))
	for i, b := range bodies {
		payloads[i] = transform.Payload{Body: []byte(b), Lane: "hub/0", Offset: int64(i)}
	}
	return runPayloads(t, tr, payloads)
}

func runPayloads(t testing.TB, tr *transform.Transformer, payloads []transform.Payload) []event {
	t.Helper()
	if cfg := transform.ConfigOf(tr); cfg.Devices == nil && cfg.Format == "flat" {
		checkFormats(t, cfg, payloads)
	}
	return transformed(t, tr, payloads)
}

func transformed(t testing.TB, tr *transform.Transformer, payloads []transform.Payload) []event {
	t.Helper()
	var events []event
	emit := func(table string, b []byte) {
		e, err := decodeEvent(b)
		if err != nil {
			t.Fatalf("event of %q: %v\n% x", table, err, b[:min(len(b), 200)])
		}
		e.table = table
		events = append(events, e)
	}
	tr.Append(t.Context(), payloads, emit)
	for tr.Waiting() > 0 {
		if err := tr.Late(t.Context(), emit, func(settle func()) { settle() }); err != nil {
			t.Fatal(err)
		}
	}
	return events
}

// one transforms a single record with default settings.
func one(t testing.TB, cfg transform.Config, body string) event {
	t.Helper()
	events := run(t, transform.New(cfg), body)
	if len(events) != 1 {
		t.Fatalf("%d events from %s: %v", len(events), body, events)
	}
	return events[0]
}

func TestEventTime(t *testing.T) {
	f := func(envelope, columns, want string) {
		t.Helper()
		tr := transform.New(transform.Config{})
		e := run(t, tr, `{`+envelope+`"category":"AdvancedHunting-X","properties":{"A":1`+columns+`}}`)[0]
		got := e.time.Format(time.RFC3339Nano)
		if want == "now" {
			if time.Since(e.time).Abs() > time.Minute || tr.Stats().TimeNow.Load() != 1 {
				t.Errorf("%s %s: %s, want now", envelope, columns, got)
			}
		} else if got != want {
			t.Errorf("%s %s: %s, want %s", envelope, columns, got, want)
		}
	}
	const envelope = `"time":"2026-03-04T10:20:31.1234567Z",`
	stamp := func(s string) string { return `,"Timestamp":"` + s + `"` }
	f(envelope, stamp("2026-03-04T10:18:02Z"), "2026-03-04T10:18:02Z")
	for n := 1; n <= 9; n++ {
		digits := "123456789"[:n]
		f(envelope, stamp("2026-03-04T10:18:02."+digits+"Z"), "2026-03-04T10:18:02."+digits+"Z")
	}
	f(envelope, stamp("2026-03-04T10:18:02.1234567899999Z"), "2026-03-04T10:18:02.123456789Z")
	f(envelope, stamp("2026-03-04T10:18:02.5"), "2026-03-04T10:18:02.5Z")
	f(envelope, stamp("2026-03-04 10:18:02.726000000"), "2026-03-04T10:18:02.726Z")
	f(envelope, stamp("2026-03-04T10:18:02+02:30"), "2026-03-04T07:48:02Z")
	f(envelope, stamp("2026-03-04T10:18:02-02:30"), "2026-03-04T12:48:02Z")
	for _, s := range []string{`"2026-03-04T10:18:02 UTC"`, `"2026-03-04T10:18:02+0000"`, `"2026-03-04T11:18:02+0100"`, `"3/4/2026 10:18:02 AM"`, `"03/04/2026 10:18:02"`, `"3/4/2026 10:18:02 AM +00:00"`, `"04/Mar/2026:10:18:02 +0000"`, `"04/Mar/2026:11:18:02 +0100"`, `"04/Mar/2026:10:18:02"`,
		`1772619482`, `"1772619482"`, `1772619482000`, `"1772619482000000"`, `"/Date(1772619482000)/"`, `"\/Date(1772619482000+0100)\/"`} {
		f(envelope, `,"Timestamp":`+s, "2026-03-04T10:18:02Z")
	}
	f(envelope, stamp("3/4/2026 12:18:02 AM"), "2026-03-04T00:18:02Z")
	f(envelope, stamp("3/4/2026 1:18:02 PM"), "2026-03-04T13:18:02Z")
	f(envelope, `,"Timestamp":1772619482123`, "2026-03-04T10:18:02.123Z")
	f(envelope, stamp("2024-02-29T23:59:59Z"), "2024-02-29T23:59:59Z")
	f(envelope, stamp("1970-01-01T00:00:00Z"), "1970-01-01T00:00:00Z")
	f(envelope, stamp("2038-01-18T23:59:59.9999999Z"), "2038-01-18T23:59:59.9999999Z")

	// What an event time cannot hold, or is no time, gives way to the envelope's.
	for _, s := range []string{"0001-01-01T00:00:00", "9999-12-31T23:59:59.9999999Z", "2038-01-19T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+01:00", "2025-02-29T00:00:00Z",
		"2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-03-04T24:00:00Z", "2026-03-04T10:60:00Z", "2026-03-04", "2026-03-04T10:18:02.Z", "not a time", "13/04/2026 10:18:02", "3/4/2026 13:18:02 PM", "12345", "01/Oct/2026", "32/Oct/2026:10:18:02 +0000", "01/ctN/2026:10:18:02 +0000", "01/Oct/2026 10:18:02 +0000", "/Date(x)/", "99999999999999999999", ""} {
		f(envelope, stamp(s), "2026-03-04T10:20:31.1234567Z")
	}
	f(envelope, "", "2026-03-04T10:20:31.1234567Z")
	f(envelope, `,"Timestamp":5`, "2026-03-04T10:20:31.1234567Z")
	f(`"time":"0001-01-01T00:00:00",`, stamp("9999-01-01T00:00:00Z"), "now")
	f("", "", "now")

	// The column itself stays as it was.
	e := one(t, transform.Config{}, `{"category":"AdvancedHunting-X","properties":{"Timestamp":"9999-01-01T00:00:00Z"}}`)
	if e.m["Timestamp"] != "9999-01-01T00:00:00Z" {
		t.Errorf("Timestamp is %v", e.m["Timestamp"])
	}
	e = one(t, transform.Config{}, `{"VendorName":"M","AlertType":"x","TimeGenerated":"bad","StartTimeUtc":"2026-03-04T10:18:02Z"}`)
	if got := e.time.Format(time.RFC3339); got != "2026-03-04T10:18:02Z" {
		t.Errorf("time %s, want StartTimeUtc", got)
	}
}

func TestEventID(t *testing.T) {
	cfg := transform.Config{EventID: true}
	id := func(body string) string {
		t.Helper()
		s, _ := one(t, cfg, body).m["event_id"].(string)
		if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
			t.Fatalf("event_id %q", s)
		}
		return s
	}
	columns := `{"Timestamp":"2026-03-04T10:18:02Z","A":"x y\" {","B":[1,{"C":null}],"D":{}}`
	spaced := " {\t\"Timestamp\" : \"2026-03-04T10:18:02Z\" ,\r\n\"A\":  \"x y\\\" {\",\"B\":[ 1 , { \"C\":null } ],\"D\":{ } } "
	base := id(`{"time":"2026-03-04T10:20:31Z","tenantId":"t1","category":"AdvancedHunting-X","properties":` + columns + `}`)
	sum := sha256.Sum256([]byte("t1\x00X\x00" + columns))
	if want := hex.EncodeToString(sum[:16]); base != want {
		t.Errorf("event_id %s, want %s", base, want)
	}
	for name, body := range map[string]string{
		"delivered again":   `{"time":"2026-03-04T10:29:59Z","tenantId":"t1","category":"AdvancedHunting-X","_TimeReceivedBySvc":"2026-03-04T10:20:32Z","properties":` + columns + `,"Tenant":"DefaultTenant"}`,
		"spaced":            `{ "time" : "2026-03-04T10:20:31Z", "tenantId": "t1", "category": "AdvancedHunting-X", "properties": ` + spaced + `}`,
		"in an envelope":    `{"records":[{"time":"2026-03-04T10:20:31Z","tenantId":"t1","category":"AdvancedHunting-X","properties":` + columns + `}]}`,
		"properties string": `{"tenantId":"t1","category":"AdvancedHunting-X","properties":` + inString(spaced) + `}`,
	} {
		if got := id(body); got != base {
			t.Errorf("%s: event_id %s, want the same %s", name, got, base)
		}
	}
	for name, body := range map[string]string{
		"another tenant": `{"tenantId":"t2","category":"AdvancedHunting-X","properties":` + columns + `}`,
		"another table":  `{"tenantId":"t1","category":"AdvancedHunting-Y","properties":` + columns + `}`,
		"a blank more":   `{"tenantId":"t1","category":"AdvancedHunting-X","properties":` + strings.Replace(columns, "x y", "x  y", 1) + `}`,
	} {
		if got := id(body); got == base {
			t.Errorf("%s: the same event_id", name)
		}
	}
	// Records without columns: all but the two times.
	other := id(`{"time":"1","VendorName":"M","AlertType":"x","N":[1, 2]}`)
	if got := id(`{"time":"2","_TimeReceivedBySvc":"3","VendorName":"M", "AlertType":"x","N":[1,2]}`); got != other {
		t.Error("another product's record delivered again has another event_id")
	}
	if got := id(`{"time":"1","VendorName":"M","AlertType":"x","N":[1,3]}`); got == other {
		t.Error("another product's records share an event_id")
	}
	if _, ok := one(t, transform.Config{}, good(1)).m["event_id"]; ok {
		t.Error("event_id though it is off")
	}
}

func TestFilter(t *testing.T) {
	f := func(tables, exclude []string, want string, excluded uint64) {
		t.Helper()
		tr := transform.New(transform.Config{Tables: tables, TablesExclude: exclude})
		body := `{"records":[`
		for _, name := range []string{"AlertInfo", "AlertEvidence", "DeviceInfo", "DeviceEvents"} {
			body += `{"category":"AdvancedHunting-` + name + `","properties":{"A":1}},`
		}
		events := run(t, tr, body+`5,{"VendorName":"M","AlertType":"x"}]}`)
		var got []string
		for _, e := range events {
			got = append(got, e.table)
		}
		if s := strings.Join(got, " "); s != want || tr.Stats().Excluded.Load() != excluded {
			t.Errorf("%v %v: %s (%d excluded), want %s (%d)", tables, exclude, s, tr.Stats().Excluded.Load(), want, excluded)
		}
	}
	f(nil, nil, "AlertInfo AlertEvidence DeviceInfo DeviceEvents unreadable SecurityAlert", 0)
	f([]string{"alertinfo"}, nil, "AlertInfo unreadable", 4)
	f([]string{"Device*", "SECURITYALERT"}, nil, "DeviceInfo DeviceEvents unreadable SecurityAlert", 2)
	f([]string{"*"}, []string{"*info"}, "AlertEvidence DeviceEvents unreadable SecurityAlert", 2)
	f([]string{"*e*v*"}, []string{"device*"}, "AlertEvidence unreadable", 4)
	f(nil, []string{"*"}, "unreadable", 5)
	f(nil, []string{"unreadable"}, "AlertInfo AlertEvidence DeviceInfo DeviceEvents unreadable SecurityAlert", 0)
}

// A column that may hold JSON in a string gives the same record when it comes native.
func TestStringOrNative(t *testing.T) {
	f := func(column, value string) {
		t.Helper()
		for _, cfg := range []transform.Config{{}, {KeepNulls: true}, {ResolveRefs: true}, {Separator: "__"}} {
			native := one(t, cfg, hunting(`"`+column+`":`+value))
			opened := one(t, cfg, hunting(`"`+column+`":`+inString(value)))
			if !reflect.DeepEqual(native.m, opened.m) || !slices.Equal(native.keys, opened.keys) {
				t.Errorf("%s %s: native %v, in a string %v", column, value, native.m, opened.m)
			}
		}
	}
	for _, column := range []string{"AdditionalFields", "AuthenticationDetails", "ConfidenceLevel", "DetectionMethods", "RawEventData"} {
		f(column, `{"A":"x","B":{"C":1,"D":[{"E":true}]},"F":"\u00e9\"\\","G":null,"H":{"$id":"1","I":1},"J":{"$ref":"1"}}`)
		f(column, `{}`)
		f(column, `[]`)
		f(column, `null`)
		f(column, `[1]`)
		f(column, `5`)
	}
	for _, column := range []string{"LoggedOnUsers", "IPAddresses", "ConnectedNetworks", "ActivityObjects", "RecipientDetails"} {
		f(column, `[{"A":"x","B":{"C":1}},{"A":"y"},null]`)
		f(column, `[]`)
		f(column, `["a"]`)
		f(column, `{"A":1}`)
	}
	for _, column := range []string{"Categories", "AttackTechniques", "DnsAddresses", "DefaultGateways", "CrlDistributionPointUrls", "UrlChain", "DataSources"} {
		f(column, `["a","b",null,5]`)
		f(column, `[]`)
		f(column, `[{"A":1}]`)
		f(column, `[["a"]]`)
	}
	// Of another kind than declared.
	e := one(t, transform.Config{}, hunting(`"Categories":"[{\"A\":1}]","LoggedOnUsers":["kim"],"AdditionalFields":"{} x","UrlChain":[["a"]]`))
	if e.m["Categories_raw"] != `[{"A":1}]` || e.m["LoggedOnUsers_raw"] != `["kim"]` || e.m["AdditionalFields_raw"] != `{} x` || e.m["UrlChain_raw"] != `[["a"]]` {
		t.Errorf("got %v", e.m)
	}
	// Columns that look like JSON are left alone.
	e = one(t, transform.Config{}, hunting(`"NetworkAdapterName":"{31D7786C-0000-4000-8000-000000000001}","Title":"[1]","Unlisted":"{\"A\":1}"`))
	if e.m["NetworkAdapterName"] != "{31D7786C-0000-4000-8000-000000000001}" || e.m["Title"] != "[1]" || e.m["Unlisted"] != `{"A":1}` {
		t.Errorf("got %v", e.m)
	}
}

// Whatever comes, a name has one type, and the value is there.
func TestColumnTypes(t *testing.T) {
	values := []string{`"text"`, `"12"`, `12`, `-7`, `1.5`, `1e400`, `18446744073709551616`, `true`, `"true"`, `"0"`, `0`, `[1]`, `["a",{"b":1}]`, `{"a":1}`, `{"a":{"b":"c"}}`, `NaN`}
	types := map[string]map[string]bool{}
	for _, column := range []string{"ReportId", "ApplicationId", "SessionId", "Port", "AadDeviceId", "InitiatingProcessId", "DeviceName", "FileSize", "RemotePort", "IsSigned", "IsAdminOperation", "ConfigurationImpact"} {
		for _, v := range values {
			e := one(t, transform.Config{}, hunting(`"`+column+`":`+v))
			raw, isRaw := e.m[column+"_raw"]
			got, ok := e.m[column]
			if ok == isRaw {
				t.Fatalf("%s %s: %v", column, v, e.m)
			}
			if isRaw {
				if raw != strings.Trim(v, `"`) {
					t.Errorf("%s %s: raw %v", column, v, raw)
				}
				continue
			}
			if types[column] == nil {
				types[column] = map[string]bool{}
			}
			types[column][fmt.Sprintf("%T", got)] = true
		}
	}
	want := map[string]string{"ReportId": "string", "ApplicationId": "string", "SessionId": "string", "Port": "string", "AadDeviceId": "string", "InitiatingProcessId": "string", "DeviceName": "string",
		"FileSize": "int64", "RemotePort": "int64", "IsSigned": "bool", "IsAdminOperation": "bool", "ConfigurationImpact": "float64"}
	for column, set := range types {
		if got := strings.Join(slices.Collect(maps.Keys(set)), " "); got != want[column] {
			t.Errorf("%s has types %s, want %s", column, got, want[column])
		}
	}
}

func TestReferences(t *testing.T) {
	row := func(fields string) string { return hunting(`"AdditionalFields":` + inString(fields)) }
	count := func(e event) (n int) {
		for k := range e.m {
			if strings.HasPrefix(k, "AdditionalFields") {
				n++
			}
		}
		return n
	}
	f := func(fields string, want int, resolved int) {
		t.Helper()
		if n := count(one(t, transform.Config{}, row(fields))); n != want {
			t.Errorf("%s: %d fields, want %d", fields, n, want)
		}
		if n := count(one(t, transform.Config{ResolveRefs: true}, row(fields))); n != resolved {
			t.Errorf("%s: %d fields resolved, want %d", fields, n, resolved)
		}
	}
	f(`{"A":{"$id":"1","X":1,"Y":2},"B":{"$ref":"1"},"C":{"$ref":"1"}}`, 2, 6)
	f(`{"B":{"$ref":"1"},"A":{"$id":"1","X":1}}`, 1, 2)                                  // forward
	f(`{"A":{"$id":"1","X":1,"Self":{"$ref":"1"}}}`, 1, 1)                               // inside itself
	f(`{"$id":"1","X":1,"Root":{"$ref":"1"}}`, 1, 1)                                     // the root
	f(`{"A":{"$ref":"7"}}`, 1, 1)                                                        // to nothing: kept
	f(`{"A":{"$id":"1","X":1},"B":{"$ref":"1","Y":2}}`, 3, 3)                            // not only a reference
	f(`{"A":{"$id":"1","B":{"$ref":"2"}},"C":{"$id":"2","D":{"$ref":"1"},"X":1}}`, 1, 3) // in a circle

	// Each level holds the one below twice: written out it has 2^40 members.
	var b strings.Builder
	b.WriteString(`{"L0":{"$id":"0","X":"y"}`)
	for i := range 40 {
		fmt.Fprintf(&b, `,"L%d":{"$id":"%d","A":{"$ref":"%d"},"B":{"$ref":"%d"}}`, i+1, i+1, i, i)
	}
	b.WriteString(`}`)
	tr := transform.New(transform.Config{ResolveRefs: true})
	events := run(t, tr, row(b.String()))
	if len(events) != 1 || events[0].size > 2<<20 || events[0].m["AdditionalFields_raw"] != b.String() {
		t.Errorf("%d events, %d bytes, %v", len(events), events[0].size, events[0])
	}
}

// A small record must not become a giant event: what would is passed on raw.
func TestGrowthIsBounded(t *testing.T) {
	f := func(name, columns, wantReason string) {
		t.Helper()
		tr := transform.New(transform.Config{KeepNulls: true})
		total := 0
		var table string
		body := []byte(`{"records":[` + good(1) + `,` + hunting(columns) + `,` + good(2) + `]}`)
		n := 0
		tr.Append(t.Context(), []transform.Payload{{Body: body}}, func(tb string, b []byte) {
			total += len(b)
			n++
			if n == 2 {
				table = tb
			}
		})
		if total > 9*len(body)+2<<20 || n < 3 {
			t.Errorf("%s: %d bytes became %d, %d events", name, len(body), total, n)
		}
		if got := tr.Stats().Unreadable()["output"] > 0; got != (wantReason != "") || got != (table == transform.Unreadable) {
			t.Errorf("%s: passed on raw: %v", name, got)
		}
	}
	members := `"a":1` + strings.Repeat(`,"b":2`, 100_000)
	f("a long key with many members", `"`+strings.Repeat("k", 100_000)+`":{`+members+`}`, "")
	f("many members below a name just short enough", `"`+strings.Repeat("k", 490)+`":{"`+strings.Repeat("k", 490)+`":{`+members+`}}`, "")
	f("many names twice", members, "output")
	f("many objects in a list", `"L":[`+strings.Repeat(`{},`, 100_000)+`{}]`, "")
	f("many lists", `"L":[`+strings.Repeat(`[],`, 100_000)+`[]]`, "")
}

// Names and tables come from outside: what is remembered of them is bounded, and so is what a giant
// payload leaves behind.
func TestBounded(t *testing.T) {
	tr := transform.New(transform.Config{EventID: true})
	emit := func(string, []byte) {}
	for i := range 300 {
		var b strings.Builder
		fmt.Fprintf(&b, `{"category":"AdvancedHunting-T%d","properties":{"A":0`, i)
		for j := range 150 {
			fmt.Fprintf(&b, `,"k%d_%d":1`, i, j)
		}
		b.WriteString(`}}`)
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(b.String())}}, emit)
	}
	if n := len(tr.Stats().Tables()); n > 257 {
		t.Errorf("%d tables counted apart", n)
	}
	sum := uint64(0)
	for _, n := range tr.Stats().Tables() {
		sum += n
	}
	if sum != 300 || tr.Stats().Records.Load() != 300 {
		t.Errorf("%d records by table, %d in all, want 300", sum, tr.Stats().Records.Load())
	}
	giant := hunting(`"A":"` + strings.Repeat(`\n`, 4<<20) + `","B":[` + strings.Repeat("1,", 1<<18) + `1]`)
	tr.Append(t.Context(), []transform.Payload{{Body: []byte(giant)}}, emit)
	if held := transform.Held(tr); held > 8<<20 {
		t.Errorf("%d bytes are kept after a giant payload", held)
	}
}

// No format keeps the memory that a giant record needed.
func TestGiantRecordIsNotKept(t *testing.T) {
	text := strings.Repeat("\n\u00fc", 1<<19)
	giant := recordOf("DeviceProcessEvents", "DeviceName", text, "FileName", text, "ProcessCommandLine", text, "AccountName", text, "AccountSid", text, "RemoteUrl", text, "ActionType", text,
		"InitiatingProcessFolderPath", text, "AdditionalFields", text)
	for _, name := range transform.Formats() {
		t.Run(name, func(t *testing.T) {
			grown := kept(func() any {
				tr := transform.New(transform.Config{Format: name, EventID: true})
				for _, body := range []string{giant, good(1), good(2)} {
					tr.Append(t.Context(), []transform.Payload{{Body: []byte(body)}}, func(string, []byte) {})
				}
				return tr
			})
			if grown > 8<<20 {
				t.Errorf("%d MB are kept after a record of %d MB", grown>>20, len(giant)>>20)
			}
		})
	}
}

func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tr := transform.New(transform.Config{})
	n := 0
	tr.Append(ctx, []transform.Payload{{Body: []byte(good(1))}, {Body: []byte(good(2))}}, func(string, []byte) { n++; cancel() })
	if n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// The plugin reads counters while the pump works.
func TestStatsWhileWorking(t *testing.T) {
	tr := transform.New(transform.Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			_, _, _ = tr.Stats().Tables(), tr.Stats().Unreadable(), tr.Stats().Records.Load()
		}
	}()
	for range 100 {
		run(t, tr, good(1), "x")
	}
	<-done
	if tr.Stats().Payloads.Load() != 200 || tr.Stats().Tables()["AlertInfo"] != 100 || tr.Stats().Unreadable()["syntax"] != 100 {
		t.Errorf("counted %v %v", tr.Stats().Tables(), tr.Stats().Unreadable())
	}
}

func TestSettings(t *testing.T) {
	body := hunting(`"AdditionalFields":{"a":{"b":1}},"Categories":"[\"x\", \"y\"]","LoggedOnUsers":[{"UserName": "kim"}],"N":null`)
	e := one(t, transform.Config{Separator: "_"}, body)
	if e.m["AdditionalFields_a_b"] != int64(1) {
		t.Errorf("separator: %v", e.m)
	}
	e = one(t, transform.Config{ArraysAsJSON: true}, body)
	if e.m["Categories"] != `["x", "y"]` || e.m["LoggedOnUsers"] != `[{"UserName": "kim"}]` {
		t.Errorf("arrays as JSON: %v", e.m)
	}
	e = one(t, transform.Config{KeepNulls: true}, body)
	if v, ok := e.m["N"]; !ok || v != nil {
		t.Errorf("keep nulls: %v", e.m)
	}
}
