package main

import (
	"fmt"
	"maps"
	"slices"
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

// unknownTables returns a line for each of names that matches neither a documented table nor one of
// seen. Tables that are not documented may still come: seen is nil before any has.
func unknownTables(names []string, seen map[string]bool) (lines []string) {
	known := slices.AppendSeq(slices.Clone(documentedTables), maps.Keys(seen))
	for _, name := range names {
		if slices.ContainsFunc(known, func(table string) bool { return transform.MatchTable(name, table) }) {
			continue
		}
		line, words := fmt.Sprintf("no table is called %q", name), documentedTables
		if strings.Contains(name, "*") {
			line, words = fmt.Sprintf("no table matches %q", name), parts(name)
		}
		if near := input.Nearest(name, words); near != "" {
			line += "; did you mean " + near + "?"
		}
		lines = append(lines, line)
	}
	return lines
}

// excludesAll reports whether no table can be among tables and not among exclude.
func excludesAll(tables, exclude []string) bool {
	if len(tables) == 0 {
		tables = []string{"*"}
	}
	return !slices.ContainsFunc(tables, func(table string) bool {
		return !slices.ContainsFunc(exclude, func(pattern string) bool { return transform.MatchTable(pattern, table) })
	})
}

// parts returns the probable meanings of a pattern of one word. They are words of documented
// tables, such as Device and DeviceProcess of DeviceProcessEvents, with * where the pattern has it.
func parts(pattern string) (words []string) {
	word := strings.Trim(pattern, "*")
	if word == "" || strings.Contains(word, "*") {
		return nil
	}
	before, after, _ := strings.Cut(pattern, word)
	begins := func(table string, i int) bool { return i == len(table) || 'A' <= table[i] && table[i] <= 'Z' }
	for _, table := range documentedTables {
		for from := range table {
			for to := from + 1; to <= len(table); to++ {
				if begins(table, from) && begins(table, to) && (before != "" || from == 0) && (after != "" || to == len(table)) {
					words = append(words, before+table[from:to]+after)
				}
			}
		}
	}
	return words
}

// checkTables says once, when enough records have come, which names of tables and tables_exclude
// have matched nothing and no documented table. Called from the host's thread.
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
