package main

import (
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
	f("cut line", a+"\r\n"+b[:20], 2, map[string]int{"A": 1, unreadable: 1})
	f("bare record", a, 1, map[string]int{"A": 1})
	f("pretty record", strings.ReplaceAll(a, ",", ",\n  "), 1, map[string]int{"A": 1})
	f("envelope", `{"records": [`+a+`, `+b+`]}`, 1, map[string]int{"A": 1, "B": 1})
	f("envelopes", `{"records":[`+a+`]}`+"\n"+`{"records":[`+b+`]}`, 2, map[string]int{"A": 1, "B": 1})
	f("array", `[`+a+`,`+a+`]`, 1, map[string]int{"A": 2})
	f("empty", `{"records":[]}`, 1, map[string]int{})
	f("other product", `{"VendorName":"V","SystemAlertId":"1"}`, 1, map[string]int{other: 1})
	f("no objects", `{"records":[1,`+a+`,"x",null]}`, 1, map[string]int{unreadable: 3, "A": 1})
	f("number", " 7 ", 1, map[string]int{unreadable: 1})
	f("category of another kind", `[{"category":7}]`, 1, map[string]int{other: 1})
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
	if f.total() != 3000 || f.numbers != 3000 || len(f.records) < 14 || f.records["AlertEvidence"] != 4 || f.records["AlertInfo"] != 1 {
		t.Errorf("%d records: %v", f.total(), f.records)
	}
	again := &feed{records: make(map[string]int)}
	for _, m := range f.messages {
		if len(m) > maxMessageBytes {
			t.Errorf("a message of %d bytes", len(m))
		}
		if err := again.count(m); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(again.records, f.records) {
		t.Errorf("counted %v, told %v", again.records, f.records)
	}
}
