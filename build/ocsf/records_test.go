package ocsf

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// The records are JSON, are the same for the same seed, have every documented column and every
// known ActionType, and no two rounds are alike.
func TestRecords(t *testing.T) {
	seen := make(map[string]bool)
	actions := make(map[string]bool)
	var first [][]byte
	for record := range Records(1, 3000) {
		first = append(first, bytes.Clone(record))
		var r struct {
			Category   string
			Properties map[string]any
		}
		if err := json.Unmarshal(record, &r); err != nil && !strings.Contains(err.Error(), "1e400") {
			t.Fatalf("%v: %s", err, record)
		}
		table := strings.TrimPrefix(r.Category, "AdvancedHunting-")
		for name := range r.Properties {
			seen[table+"."+name] = true
		}
		action, _ := r.Properties["ActionType"].(string)
		actions[table+"."+action] = true
	}
	for table, columns := range Tables() {
		for _, c := range columns {
			if !seen[table+"."+c.Name] && c.Name != "ActionType" {
				t.Errorf("no record has %s.%s", table, c.Name)
			}
		}
	}
	count := 0
	for table, names := range Actions() {
		if !slices.ContainsFunc(Tables()[table], func(c Column) bool { return c.Name == "ActionType" }) {
			t.Errorf("actions.txt: %s has no column ActionType", table)
		}
		for _, name := range names {
			if count++; !actions[table+"."+name] {
				t.Errorf("no record of %s has ActionType %q", table, name)
			}
		}
	}
	if len(Tables()) < 60 || len(seen) < 1500 || count < 280 {
		t.Errorf("%d tables, %d columns, %d values of ActionType", len(Tables()), len(seen), count)
	}
	i := 0
	for record := range Records(1, 3000) {
		if !bytes.Equal(record, first[i]) {
			t.Fatalf("record %d differs when made again", i)
		}
		i++
	}
	if i = 0; true {
		for record := range Records(2, 100) {
			if bytes.Equal(record, first[i]) {
				t.Errorf("record %d is the same with another seed", i)
			}
			i++
		}
	}
}
