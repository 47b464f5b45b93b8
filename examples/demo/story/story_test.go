package story_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

type record struct {
	Time       time.Time
	TenantID   string
	Category   string
	Received   time.Time `json:"_TimeReceivedBySvc"`
	Properties map[string]any
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if d.More() {
		t.Fatalf("more than one value in %s", text)
	}
}

// Every variant of every table is valid JSON, down to the JSON in its strings, and every record has
// its own number.
func TestRecords(t *testing.T) {
	s := story.New(story.Options{AlertEvery: 200, First: 1000})
	seen := make(map[string]int64)
	var buf []byte
	for i := range 2500 {
		buf = s.AppendRecord(buf[:0])
		var r record
		decode(t, buf, &r)
		table, ok := strings.CutPrefix(r.Category, "AdvancedHunting-")
		if !ok || r.TenantID != story.Tenant {
			t.Fatalf("record %s", buf)
		}
		seen[table]++
		if n, err := r.Properties[story.NumberColumn].(json.Number).Int64(); err != nil || n != int64(1000+i) {
			t.Fatalf("number %v, %v, want %d", n, err, 1000+i)
		}
		event, err := time.Parse(time.RFC3339Nano, r.Properties["Timestamp"].(string))
		if err != nil || !event.Before(r.Received) || !r.Received.Before(r.Time) || r.Time.Sub(event) > 10*time.Minute {
			t.Fatalf("event %v, received %v, exported %v, %v", event, r.Received, r.Time, err)
		}
		for column, v := range r.Properties {
			text, ok := v.(string)
			if !ok || column == "NetworkAdapterName" || !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
				continue
			}
			var inner any
			decode(t, []byte(text), &inner)
		}
		if strings.ContainsAny(string(buf), "«»⟪⟫\n\r") {
			t.Fatalf("left-over marks in %s", buf)
		}
	}
	if !maps.Equal(seen, s.Counts()) || len(seen) < 14 {
		t.Errorf("records by table: %v, said to be %v", seen, s.Counts())
	}
}

// The alert has five rows; of its evidence only the Machine row says which device it is, the others
// only inside.
func TestAlert(t *testing.T) {
	s := story.New(story.Options{})
	var entities []string
	device, alertInfos, deviceKnown := "", 0, false
	var inside []string
	for range 260 {
		var r record
		decode(t, s.AppendRecord(nil), &r)
		switch {
		case r.Category == "AdvancedHunting-DeviceInfo" && r.Properties["OSPlatform"] != nil && r.Properties["AssetValue"] == "High":
			device, deviceKnown = r.Properties["DeviceId"].(string), true
		case r.Category == "AdvancedHunting-AlertInfo":
			alertInfos++
		case r.Category == "AdvancedHunting-AlertEvidence":
			if r.Properties["AlertId"] != s.AlertID() {
				t.Errorf("alert %v, want %s", r.Properties["AlertId"], s.AlertID())
			}
			entity := r.Properties["EntityType"].(string)
			entities = append(entities, entity)
			if (r.Properties["DeviceId"] != nil) != (entity == "Machine") {
				t.Errorf("%s row has DeviceId %v", entity, r.Properties["DeviceId"])
			}
			inside = append(inside, r.Properties["AdditionalFields"].(string))
			if entity == "Process" && !strings.Contains(inside[len(inside)-1], `{"$ref":"3"}`) {
				t.Errorf("no back-reference in %s", inside)
			}
		}
	}
	if got := strings.Join(entities, " "); got != "Process File Machine User" || alertInfos != 1 {
		t.Errorf("evidence %s, %d alerts", got, alertInfos)
	}
	if !deviceKnown {
		t.Fatal("no full report of the device")
	}
	for _, text := range inside {
		if !strings.Contains(text, `"MachineId":"`+device+`"`) {
			t.Errorf("device %s is not in %s", device, text)
		}
	}
}

// Heartbeats are mostly partial, and none of them is without a device.
func TestHeartbeats(t *testing.T) {
	s := story.New(story.Options{Seed: 3, NoAttack: true})
	partial, full := 0, 0
	for range 5000 {
		text := s.AppendRecord(nil)
		if !bytes.Contains(text, []byte(`"AdvancedHunting-DeviceInfo"`)) {
			continue
		}
		var r record
		decode(t, text, &r)
		if len(r.Properties["ReportId"].(json.Number)) != 18 || len(r.Properties["DeviceId"].(string)) != 40 {
			t.Fatalf("heartbeat %v", r.Properties)
		}
		if r.Properties["OSPlatform"] == nil {
			partial++
		} else {
			full++
		}
	}
	if partial < full || full == 0 {
		t.Errorf("%d partial, %d full", partial, full)
	}
}

func TestEnvelopes(t *testing.T) {
	s := story.New(story.Options{})
	spaced := 0
	for i := range 200 {
		body := s.AppendEnvelope(nil, i%40)
		var e struct{ Records []record }
		decode(t, body, &e)
		if len(e.Records) != i%40 {
			t.Fatalf("%d records, want %d", len(e.Records), i%40)
		}
		if bytes.HasPrefix(body, []byte(`{"records": [`)) {
			spaced++
		}
	}
	if spaced < 5 || spaced > 60 {
		t.Errorf("%d of 200 envelopes are spaced", spaced)
	}
}

func TestLines(t *testing.T) {
	s, same := story.New(story.Options{Seed: 9}), story.New(story.Options{Seed: 9})
	var text []byte
	for range 100 {
		text = s.AppendLine(text)
	}
	lines := bytes.Split(text, []byte("\r\n"))
	if len(lines) != 101 || len(lines[100]) != 0 || bytes.Contains(bytes.Join(lines, nil), []byte("\n")) {
		t.Fatalf("%d lines", len(lines))
	}
	for i := range 100 {
		if want := same.AppendRecord(nil); !bytes.Equal(lines[i], want) {
			t.Fatalf("line %d differs from the record of the same story:\n%s\n%s", i, lines[i], want)
		}
	}
	if other := story.New(story.Options{Seed: 10}).AppendRecord(nil); bytes.Equal(other, lines[0]) {
		t.Error("another seed tells the same story")
	}
}

func BenchmarkEnvelope(b *testing.B) {
	s := story.New(story.Options{AlertEvery: 500})
	buf := s.AppendEnvelope(nil, 100)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		buf = s.AppendEnvelope(buf[:0], 100)
		size += len(buf)
	}
	b.SetBytes(int64(size / b.N))
	b.ReportMetric(float64(size)/float64(b.N)/100, "B/record")
}

// Repeats have the properties of a record that came before, and nothing else of the story changes.
func TestRepeats(t *testing.T) {
	const n = 5000
	s := story.New(story.Options{Seed: 3, Repeats: 3})
	seen, again := make(map[string]bool), 0
	for left := n; left > 0; left -= 100 {
		var envelope struct {
			Records []struct {
				Category   string
				Properties json.RawMessage
			}
		}
		decode(t, s.AppendEnvelope(nil, 100), &envelope)
		for _, r := range envelope.Records {
			text := r.Category + string(r.Properties)
			if seen[text] {
				again++
			}
			seen[text] = true
		}
	}
	if len(seen) != n || again != int(s.Repeated()) || again < n/50 || again > n/25 {
		t.Errorf("%d records and %d repeats, said to be %d; want %d and 3 %%", len(seen), again, s.Repeated(), n)
	}
	var total int64
	for _, c := range s.Counts() {
		total += c
	}
	if total != n {
		t.Errorf("%d records counted, want %d", total, n)
	}
}
