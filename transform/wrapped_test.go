package transform_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

func inUTF16(text string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// Whatever wraps records, they come out one by one, each with the id that it has without the
// wrapping.
func TestWrappings(t *testing.T) {
	envelope := `{"records":[` + good(2) + `,` + good(3) + `]}`
	cfg := transform.Config{EventID: true}
	want := make(map[string]any)
	for i, e := range run(t, transform.New(cfg), good(1), envelope, good(4)) {
		want[fmt.Sprint("good-", i+1)] = e.m["event_id"]
	}
	for name, body := range map[string]string{
		"gzip": gzipped(envelope), "UTF-16": inUTF16(envelope), "string": quoted(envelope), "string twice": quoted(quoted(envelope)), "gzip of a string": gzipped(quoted(envelope)),
		"records as text": `{"records":` + quoted(`[`+good(2)+`,`+good(3)+`]`) + `}`, "body as text": `{"body":` + quoted(envelope) + `}`, "lists in a list": `[[` + good(2) + `],[` + good(3) + `]]`,
		"gzip of UTF-16": gzipped(inUTF16(envelope)), "gzip of gzip": gzipped(gzipped(envelope)), "members of gzip": gzipped(good(2)[:50]) + gzipped(good(2)[50:]+good(3)),
		"list of strings": `[` + quoted(good(2)) + `,` + quoted(good(3)) + `]`, "records of strings": `{"records":[` + quoted(good(2)) + `,` + quoted(good(3)) + `]}`,
		"log of Fluent Bit": `{"date":1.5,"log":` + quoted(envelope) + `}`,
		"raw again":         `{"table":"AlertInfo","tenant_id":"t1","event_id":"x","DeviceInfo.match":"row","raw":` + quoted(good(2)) + `,"@timestamp":"now"}` + "\n" + good(3),
	} {
		t.Run(name, func(t *testing.T) {
			events := run(t, transform.New(cfg), good(1), body, good(4))
			if len(events) != 4 {
				t.Fatalf("%d events: %v", len(events), events)
			}
			for i, e := range events {
				if id := fmt.Sprint("good-", i+1); e.m["AlertId"] != id || e.m["event_id"] != want[id] {
					t.Errorf("%d: %v", i, e)
				}
			}
		})
	}
	// What is beside is passed on; what is no record stays as it is; depth and size are bounded.
	for name, f := range map[string]struct {
		body string
		want int
	}{
		"log of another":  {`{"log":` + quoted(`{"level":"info"}`) + `,"stream":"stdout"}`, 1},
		"Logic Apps":      {`{"ContentData":"` + base64.StdEncoding.EncodeToString([]byte(`{"records":[`+good(2)+`,`+good(3)+`]}`)) + `","Properties":{}}`, 3},
		"no base64":       {`{"ContentData":"eyJ"}`, 1},
		"base64 of other": {`{"ContentData":"` + base64.StdEncoding.EncodeToString([]byte("text")) + `"}`, 1},
		"beside":          {`{"records":` + quoted(`[`+good(2)+`]`) + `,"other":5}`, 2}, "text": {quoted("just text"), 1}, "list of numbers": {`[[1,2],[3]]`, 1},
		"nulls before records": {`[ null,null ,` + good(2) + `,` + good(3) + `]`, 4}, "nulls in lists": {`[[null,` + good(2) + `],[` + good(3) + `]]`, 3}, "nulls alone": {`[null, null]`, 1},
		"zeros behind gzip": {gzipped(envelope) + "\x00\x00\x00", 3}, "lines behind gzip": {gzipped(envelope) + "\r\n", 3},
		"second member is cut": {gzipped(good(2)+"\n"+good(3)+"\n") + gzipped(good(5))[:20], 3},
		"cut gzip":             {gzipped(envelope)[:60], 2}, "gzip bomb": {gzipped(strings.Repeat(" ", 17<<20)), 1}, "odd UTF-16": {inUTF16(envelope) + "x", 1},
		"too deep": {quoted(quoted(quoted(quoted(quoted(envelope))))), 1},
	} {
		t.Run(name, func(t *testing.T) {
			events := run(t, transform.New(cfg), good(1), f.body, good(4))
			if got := goods(events); got[0] != 1 || got[len(got)-1] != 4 {
				t.Errorf("good records %v", got)
			}
			n := 0
			for _, e := range events {
				if part, _ := e.m["unreadable_part"].(int64); part <= 1 && e.m["AlertId"] != "good-1" && e.m["AlertId"] != "good-4" {
					n++
				}
			}
			if n != f.want {
				t.Errorf("%d events, want %d: %.600v", n, f.want, events)
			}
		})
	}
}

// Tables of records without a category, and of categories in other letters, each at its own time.
func TestTablesOfOthers(t *testing.T) {
	for body, want := range map[string]string{
		`{"category":"advancedhunting-deviceprocessevents","properties":{"Timestamp":"2026-03-04T10:18:02Z","ReportId":5}}`:                             "DeviceProcessEvents 10:18:02",
		`{"category":"AdvancedHunting-DeviceEvents ","properties":{"Timestamp":"2026-03-04T10:18:02Z"}}`:                                                "DeviceEvents 10:18:02",
		`{"Type":"Microsoft.Security/assessments/subAssessments","Properties":{"TimeGenerated":"2026-03-04T10:18:02Z"}}`:                                "SecurityNestedRecommendation 10:18:02",
		`{"type":"Microsoft.Security/Locations/alerts","properties":{"startTimeUtc":"2026-03-04T10:17:00Z","timeGeneratedUtc":"2026-03-04T10:18:02Z"}}`: "SecurityAlert 10:18:02",
		`{"type":"microsoft.security/securescores","properties":{"x":1},"timeGenerated":"2026-03-04T10:18:02Z","time":"2026-03-04T11:00:00Z"}`:          "SecureScores 10:18:02",
		`{"TenantId":"t","TimeGenerated":"2026-03-04T10:18:02Z","Type":"DeviceProcessEvents","DeviceId":"aa11"}`:                                        "DeviceProcessEvents 10:18:02",
		`{"category":"OperationalLogs","EventTimeString":"3/4/2026 10:18:02 AM +00:00"}`:                                                                "OperationalLogs 10:18:02",
		`{"Type":"Microsoft.Security/regulatoryComplianceStandards","x":1,"time":"2026-03-04T10:18:02Z"}`:                                               "SecurityRegulatoryCompliance 10:18:02",
	} {
		e := one(t, transform.Config{}, body)
		if got := e.table + " " + e.time.Format("15:04:05"); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	e := one(t, transform.Config{TablesExclude: []string{"AdvancedHunting-AlertInfo"}, Tables: []string{"advancedhunting-Device*"}}, `{"category":"AdvancedHunting-DeviceEvents","properties":{"a":1}}`)
	if e.table != "DeviceEvents" {
		t.Error(e)
	}
}
