package transform_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

var update = flag.Bool("update", false, "rewrite the golden files with what comes out")

// Each file of testdata has settings (one JSON line, may be {}), a line of dashes, the payload, a
// line of dashes, and the events. An event has a line with its table and time and one with its map.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	const dashes = "\n----\n"
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(b), dashes)
			if len(parts) < 2 {
				t.Fatal("no payload")
			}
			cfg := transform.Config{EventID: true}
			if err := json.Unmarshal([]byte(parts[0]), &cfg); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, e := range run(t, transform.New(cfg), parts[1]) {
				when := e.time.Format(time.RFC3339Nano)
				if time.Since(e.time).Abs() < time.Hour {
					when = "now"
				}
				out.WriteString(e.table + " " + when + "\n")
				writeMap(&out, e)
			}
			if *update {
				if err := os.WriteFile(file, []byte(parts[0]+dashes+parts[1]+dashes+out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(parts) < 3 || out.String() != parts[2] {
				t.Errorf("got\n%s\nwant\n%s", out.String(), strings.Join(parts[2:], dashes))
			}
		})
	}
}

// writeMap writes the fields of an event in their order, one a line.
func writeMap(w *strings.Builder, e event) {
	for _, k := range e.keys {
		w.WriteString("  ")
		writeJSON(w, k)
		w.WriteString(": ")
		writeJSON(w, e.m[k])
		w.WriteString("\n")
	}
}

func writeJSON(w *strings.Builder, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	w.WriteString(strings.TrimSuffix(b.String(), "\n"))
}
