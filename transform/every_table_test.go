package transform_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/ocsf"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

const everyTableFile = "testdata/every_table.sums"

// One full record of every documented table, in each format: the beginning of the SHA-256 of its
// event as JSON. Whole events would be megabytes. After a change that is meant, -update writes the
// file again; without it a difference shows the event.
func TestEveryTableInEachFormat(t *testing.T) {
	records := make(map[string]string)
	for r := range ocsf.Records(5, 4000) {
		var envelope struct{ Category string }
		if err := json.Unmarshal(r, &envelope); err != nil {
			t.Fatal(err)
		}
		table := strings.TrimPrefix(envelope.Category, "AdvancedHunting-")
		if len(r) > len(records[table]) {
			records[table] = string(r)
		}
	}
	tables := make([]string, 0, len(records))
	for table := range ocsf.Tables() {
		if records[table] == "" {
			t.Errorf("no record of %s", table)
		}
		tables = append(tables, table)
	}
	slices.Sort(tables)
	want := make(map[string]string)
	b, err := os.ReadFile(everyTableFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		what, sum, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want[what] = sum
	}
	var out strings.Builder
	for _, format := range append([]string{"flat"}, shapes...) {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		for _, table := range tables {
			events := transformed(t, tr, []transform.Payload{{Body: []byte(records[table]), Lane: "hub/0"}})
			if len(events) != 1 {
				t.Fatalf("%s, %s: %d events", format, table, len(events))
			}
			text, err := json.Marshal([]any{events[0].table, events[0].time, events[0].m})
			if err != nil {
				t.Fatal(err)
			}
			what, sum := format+" "+table, fmt.Sprintf("%x", sha256.Sum256(text))[:16]
			fmt.Fprintf(&out, "%s: %s\n", what, sum)
			if !*update && want[what] != sum {
				t.Errorf("%s is another event: %s\nof %.2000s", what, text, records[table])
			}
		}
	}
	if *update {
		if err := os.WriteFile(everyTableFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
