package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplay(t *testing.T) {
	f := func(name, text string, messages int, want map[string]int) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := replay([]string{dir})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !maps.Equal(got.records, want) || len(got.messages) != messages {
			t.Errorf("%s: %d messages with %v, want %d with %v", name, len(got.messages), got.records, messages, want)
		}
	}
	const a, b = `{"category":"AdvancedHunting-A","properties":{}}`, `{"category":"AdvancedHunting-B","properties":{}}`
	f("lines", a+"\r\n"+b+"\n\n"+a, 3, map[string]int{"A": 2, "B": 1})
	f("cut line", a+"\r\n"+b[:20], 2, map[string]int{"A": 1, damaged: 1})
	f("bare record", a, 1, map[string]int{"A": 1})
	f("pretty record", strings.ReplaceAll(a, ",", ",\n  "), 1, map[string]int{"A": 1})
	f("envelope", `{"records": [`+a+`, `+b+`]}`, 1, map[string]int{"A": 1, "B": 1})
	f("envelopes", `{"records":[`+a+`]}`+"\n"+`{"records":[`+b+`]}`, 2, map[string]int{"A": 1, "B": 1})
	f("array", `[`+a+`,`+a+`]`, 1, map[string]int{"A": 2})
	f("empty", `{"records":[]}`, 1, map[string]int{})
	f("other product", `{"VendorName":"V","SystemAlertId":"1"}`, 1, map[string]int{other: 1})
	f("no objects", `{"records":[1,`+a+`,"x",null]}`, 1, map[string]int{unreadable: 3, "A": 1})
	f("number", " 7 ", 1, map[string]int{unreadable: 1})
	f("values on several lines", "\n"+strings.ReplaceAll(a+"\n"+b, ",", ",\n  "), 2, map[string]int{"A": 1, "B": 1})
	f("damage on several lines", strings.ReplaceAll(`{"records":[`+a+`,],}`, ",", ",\n  "), 1, map[string]int{damaged: 1})
	f("byte-order mark", "\xef\xbb\xbf"+a, 1, map[string]int{"A": 1})
	f("UTF-16", "\xff\xfe"+strings.Join(strings.Split(a, ""), "\x00")+"\x00", 1, map[string]int{"A": 1})
	f("gzip", zipped(a), 1, map[string]int{"A": 1})
	f("text in a string", quoted(quoted(`{"records":[`+a+`,`+b+`]}`)), 1, map[string]int{"A": 1, "B": 1})
	f("records as text", `{"records":`+quoted(`[`+a+`]`)+`,"count":1}`, 1, map[string]int{"A": 1, unreadable: 1})
	f("lists in a list", `[[`+a+`],[`+b+`,7]]`, 1, map[string]int{"A": 1, "B": 1, unreadable: 1})
	f("beside", `{"records":[`+a+`],"count":1}`, 1, map[string]int{"A": 1, unreadable: 1})
	f("body", `{"body":{"records":[`+a+`]}}`, 1, map[string]int{"A": 1})
	f("capital", `{"Records":[`+a+`]}`, 1, map[string]int{other: 1})
	f("nothing in it", `[{},`+a+`,{"records":[]}]`, 1, map[string]int{"A": 1})
	f("letter case", `{"category":"advancedhunting-deviceevents "}`, 1, map[string]int{"DeviceEvents": 1})
	f("no name", `{"category":"AdvancedHunting-"}`, 1, map[string]int{other: 1})
	f("no tag", `{"category":"AdvancedHunting-a/b c"}`, 1, map[string]int{"a_b_c": 1})
	f("workspace", `{"Type":"DeviceEvents","TimeGenerated":"2026-03-09T07:30:00Z"}`, 1, map[string]int{"DeviceEvents": 1})
	f("format raw", `{"date":1,"table":"A","event_id":"1","raw":`+quoted(a)+`}`+"\n"+a, 2, map[string]int{"A": 2})
	f("log", `{"date":1,"log":`+quoted(`{"records":[`+a+`]}`)+`}`, 1, map[string]int{"A": 1})
	f("log of another", `{"date":1,"log":`+quoted(`{"x":1}`)+`}`, 1, map[string]int{other: 1})
	f("Logic Apps", `{"ContentData":"eyJyZWNvcmRzIjpbeyJjYXRlZ29yeSI6IkFkdmFuY2VkSHVudGluZy1BIn1dfQ==","Properties":{}}`, 1, map[string]int{"A": 1, unreadable: 1})
	f("list too large", `[`+strings.Repeat(a+`,`, 25000)+a+`]`, 2, map[string]int{"A": 25001})
	f("category of another kind", `[{"category":7}]`, 1, map[string]int{other: 1})
}

func zipped(text string) string {
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

func TestReplayFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/b/PT1H.json": `{"category":"AdvancedHunting-A"}`,
		".hidden/x":     `{"category":"AdvancedHunting-H"}`,
		".file":         `{"category":"AdvancedHunting-H"}`,
		"c.ndjson":      "{\"category\":\"AdvancedHunting-C\"}\n{\"category\":\"AdvancedHunting-C\"}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := replay([]string{dir, filepath.Join(dir, "c.ndjson")})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"A": 1, "C": 4}; !maps.Equal(f.records, want) {
		t.Errorf("got %v, want %v", f.records, want)
	}
}

func TestReplayMistakes(t *testing.T) {
	f := func(path, want string) {
		t.Helper()
		if _, err := replay([]string{path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	dir := t.TempDir()
	f(dir, "nothing in it")
	f(filepath.Join(dir, "absent"), "no such file")
	if err := os.WriteFile(filepath.Join(dir, "big"), []byte(`"`+strings.Repeat("x", maxMessageBytes)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	f(dir, "split the envelope")
}

func TestTell(t *testing.T) {
	f := tell(3000, 1, 0)
	if f.total() != 3000 || f.numbers != 3000 || len(f.records) < 14 || f.records["AlertEvidence"] != 9 || f.records["AlertInfo"] != 3 {
		t.Errorf("%d records: %v", f.total(), f.records)
	}
	again := &feed{records: make(map[string]int)}
	for _, m := range f.messages {
		if len(m) > maxMessageBytes {
			t.Errorf("a message of %d bytes", len(m))
		}
		if again.count(m) != 0 {
			t.Fatalf("damaged: %.200s", m)
		}
	}
	if !maps.Equal(again.records, f.records) {
		t.Errorf("counted %v, told %v", again.records, f.records)
	}
}
