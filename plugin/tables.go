package main

import (
	"fmt"
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// documentedTables are the tables of Advanced Hunting, those of Defender for Cloud, and our own
// two. Records of others are passed on as well: the list is only for telling a misspelt name.
var documentedTables = append(record.Tables(), "SecurityAlert", "SecurityRecommendation", "SecurityNestedRecommendation",
	"SecureScores", "SecureScoreControls", "SecurityRegulatoryCompliance", transform.Unreadable, transform.Unknown)

// namesChecked is how many records of a section have come when unused names of tables are looked
// for.
const namesChecked = 1000

// unknownTables returns a line for each of names that is neither documented nor, in lower case, in
// seen. A pattern is one only if it matches nothing at all, which nobody can tell beforehand, so
// patterns are left out.
func unknownTables(names []string, seen map[string]bool) (lines []string) {
	for _, name := range names {
		known := strings.Contains(name, "*") || seen[strings.ToLower(name)]
		for _, table := range documentedTables {
			known = known || strings.EqualFold(name, table)
		}
		if known {
			continue
		}
		line := fmt.Sprintf("no table is called %q", name)
		if near := input.Nearest(name, documentedTables); near != "" {
			line += "; did you mean " + near + "?"
		}
		lines = append(lines, line)
	}
	return lines
}

// checkTables says once, when enough records have come, which names of tables and tables_exclude
// have matched nothing and are no documented tables. Called from the host's thread.
func (in *instance) checkTables() {
	if len(in.tables) == 0 {
		return
	}
	seen, records := make(map[string]bool), uint64(0)
	for _, t := range in.transforms {
		s := t.Stats()
		records += s.Records.Load() + s.Excluded.Load()
		for name := range s.Tables() {
			seen[strings.ToLower(name)] = true
		}
	}
	if records < namesChecked {
		return
	}
	for _, line := range unknownTables(in.tables, seen) {
		in.log.Warn("tables or tables_exclude: " + line)
	}
	in.tables = nil
}
