package transform_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Whatever a payload holds:
//
//   - nothing panics, and nothing had to be saved from panicking;
//   - all events are whole and the host can decode them: at most 16 levels, a valid event time,
//     names that differ, UTF-8;
//   - every record is accounted for once: as an event, as unreadable, as excluded or as empty;
//   - the payloads before and after it are not affected, and neither is the transformer;
//   - if it is JSON, every leaf of it is in what comes out.
func FuzzTransform(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.golden")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.Split(string(b), "\n----\n")[1]), byte(0))
	}
	for i := range 10 {
		table, columns := record(i)
		f.Add([]byte(`{"records":[{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-`+table+`","properties":{`+columns+`}}]}`), byte(i))
	}
	for _, s := range []string{`{"a":{"$id":"1","b":{"$ref":"1"}},"c":[{"$ref":"1"}]}`, `[[{"a":[[1,{"b":2}],"x"]}]]`, `{"body":{"records":{"a":1}}}`, `{"records":[{"records":[{"a":1}]}],"x":1}`,
		`{"a.b":1,"a":{"b":2},"a_b":3,"":4,"":5}`, `{"category":"AdvancedHunting-","properties":"{\"a\":\"{}\"}"}`, hunting(`"AdditionalFields":"{\"a\":NaN}","LoggedOnUsers":[{"a":{"$ref":"1"}}],"ReportId":{"a":[]}`)} {
		f.Add([]byte(s), byte(7))
	}
	f.Fuzz(func(t *testing.T, body []byte, settings byte) {
		cfg := transform.Config{EventID: settings&1 == 0, KeepNulls: settings&2 != 0, ResolveRefs: settings&4 != 0, ArraysAsJSON: settings&8 != 0}
		if settings&16 != 0 {
			cfg.TablesExclude = []string{"device*"}
		}
		if settings&32 != 0 {
			cfg.Separator = "_"
		}
		tr := transform.New(cfg)
		events := run(t, tr, good(1), string(body), good(2))
		s := tr.Stats()
		if n := s.Unreadable()["panic"]; n > 0 {
			t.Fatalf("%d panics: %v", n, events)
		}
		first, last := events[0], events[len(events)-1]
		if first.m["AlertId"] != "good-1" || last.m["AlertId"] != "good-2" {
			t.Fatalf("neighbours: %v, %v", first, last)
		}
		whole, unreadable := uint64(0), uint64(0)
		for _, e := range events {
			if e.table != transform.Unreadable {
				whole++
			} else if part := e.m["unreadable_part"]; part == nil || part == int64(1) {
				unreadable++
			}
		}
		counted := uint64(0)
		for _, n := range s.Unreadable() {
			counted += n
		}
		if whole != s.Records.Load() || unreadable != counted {
			t.Fatalf("%d records and %d unreadable emitted, %d and %d counted", whole, unreadable, s.Records.Load(), counted)
		}
		if whole+unreadable+s.Excluded.Load()+s.Empty.Load() < 3 {
			t.Fatal("a payload vanished")
		}
		events = events[1 : len(events)-1]
		again := run(t, tr, good(1), string(body), good(2))
		again = again[1 : len(again)-1]
		if len(again) != len(events) {
			t.Fatalf("%d events, then %d", len(events), len(again))
		}
		for i := range again {
			if fmt.Sprint(again[i].m) != fmt.Sprint(events[i].m) {
				t.Fatalf("event %v, then %v", events[i], again[i])
			}
		}
		if s.Excluded.Load() == 0 && len(body) < 1<<16 && json.Valid(body) {
			checkLeaves(t, body, events)
		}
	})
}

// checkLeaves finds every leaf of a JSON payload somewhere in its events.
func checkLeaves(t *testing.T, body []byte, events []event) {
	v, ok := decodeText(string(body))
	if !ok {
		return
	}
	texts := map[string]bool{}
	var note func(l leaf)
	note = func(l leaf) {
		texts[l.text] = true
		if strings.ContainsAny(l.text, `{[":`) {
			// JSON text, or the members of an envelope beside its records
			for _, s := range []string{l.text, "{" + l.text + "}"} {
				if v, ok := decodeText(s); ok {
					for _, in := range inputLeaves(nil, "", v) {
						note(in)
					}
				}
			}
		}
	}
	for _, e := range events {
		if e.table != transform.Unreadable {
			for _, l := range outputLeaves(nil, "", e.m) {
				note(l)
			}
		}
	}
	for _, raw := range raws(t, events) {
		note(leaf{text: raw})
	}
	list := make([]string, 0, len(texts))
	for s := range texts {
		list = append(list, s)
	}
	var missing func(l leaf) bool
	missing = func(l leaf) bool {
		if l.text == "" || texts[l.text] || strings.Contains(l.text, "\ufffd") || l.text == "Publish" || l.text == "DefaultTenant" {
			return false
		}
		// What our scanner takes beyond encoding/json, in JSON in a string.
		if lower := strings.ToLower(l.text); strings.Contains(lower, "nan") || strings.Contains(lower, "inf") || strings.IndexFunc(l.text, func(r rune) bool { return r < ' ' }) >= 0 {
			return false
		}
		if texts[strings.TrimPrefix(l.text, "AdvancedHunting-")] {
			return false
		}
		if b, ok := map[string]string{"0": "false", "1": "true", "True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}[l.text]; ok && texts[b] {
			return false // a boolean column
		}
		if v, ok := decodeText(l.text); ok { // JSON in a string, opened
			if s, ok := v.(string); !ok || s != l.text {
				if _, number := v.(json.Number); !number {
					return slices.ContainsFunc(inputLeaves(nil, "", v), missing)
				}
			}
		}
		return !slices.ContainsFunc(list, func(s string) bool { return sameText(s, l.text) })
	}
	for _, l := range inputLeaves(nil, "", v) {
		if missing(l) {
			t.Fatalf("%s = %q of %s is not in %v", l.name, l.text, body, events)
		}
	}
}

// Damage of a few bytes anywhere between the first and the last record of an envelope. Every record
// that it does not touch arrives. The text of every other one is in a record or passed on raw.
func FuzzDamage(f *testing.F) {
	f.Add(uint16(100), byte(1), []byte(""))
	f.Add(uint16(300), byte(0), []byte(`"`))
	f.Add(uint16(500), byte(0), []byte(`\`))
	f.Add(uint16(700), byte(2), []byte(`}]`))
	f.Add(uint16(240), byte(3), []byte(`]}{[`))
	f.Add(uint16(400), byte(9), []byte("{\"records\":["))
	f.Fuzz(func(t *testing.T, at uint16, remove byte, insert []byte) {
		const records = 6
		var b strings.Builder
		b.WriteString(`{"records":[`)
		var spans [records][2]int
		for i := range records {
			if i > 0 {
				b.WriteString([]string{",", ", ", ",\r\n"}[i%3])
			}
			spans[i][0] = b.Len()
			b.WriteString(good(i))
			spans[i][1] = b.Len()
		}
		b.WriteString(`]}`)
		whole := b.String()
		from := spans[0][0] + int(at)%(spans[records-1][1]-spans[0][0])
		to := min(from+int(remove%16), spans[records-1][1])
		insert = insert[:min(len(insert), 12)]
		damaged := whole[:from] + string(insert) + whole[to:]

		tr := transform.New(transform.Config{})
		events := run(t, tr, damaged)
		if n := tr.Stats().Unreadable()["panic"]; n > 0 {
			t.Fatalf("%d panics: %v", n, events)
		}
		got := goods(events)
		var all strings.Builder
		for _, raw := range raws(t, events) {
			all.WriteString(raw)
		}
		for i, s := range spans {
			if to <= s[0] || from >= s[1] {
				if !slices.Contains(got, i) {
					t.Fatalf("record %d did not arrive from %s\nraw %s", i, damaged, all.String())
				}
				continue
			}
			token := strings.Index(whole, fmt.Sprintf("good-%d", i))
			if (to <= token || from > token+6) && !slices.Contains(got, i) && !strings.Contains(all.String(), whole[token:token+6]) &&
				!slices.ContainsFunc(events, func(e event) bool { return strings.Contains(fmt.Sprint(e.m), whole[token:token+6]) }) {
				t.Fatalf("the text of record %d vanished from %s\nraw %s\n%v", i, damaged, all.String(), events)
			}
		}
	})
}
