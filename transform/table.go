package transform

import (
	"strings"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/format"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Tables that are no table of Defender's.
const (
	Unreadable = format.UnreadableTable // text that could not be read, passed on raw
	Unknown    = record.Unknown         // a record without a category that is not known from another product
)

// A table: a category as it is emitted, and the treatment of its records.
type table struct {
	name     string // as it is emitted and written
	exact    bool   // name says all that the category does
	hunting  bool   // "AdvancedHunting-": its properties are the columns
	excluded bool
	counts   *tableStats
	role     device.Role
	device   bool // its records get their device
}

const (
	maxTableName   = 64
	maxKnownTables = 1024 // Microsoft documents 62
	maxCategory    = 256  // bytes of a category that is remembered
)

// table looks up a category, or the name of a table of another product.
func (t *Transformer) table(category string) *table {
	if tb, ok := t.tables[category]; ok {
		return tb
	}
	text, _ := record.AppendText(nil, []byte(category))
	full := string(text)
	tb := &table{}
	tb.name = full
	if tb.hunting = record.IsHunting(full); tb.hunting {
		tb.name = record.TableName(strings.TrimSpace(full[len(record.HuntingPrefix):]))
	}
	safe := safeName(tb.name)
	tb.exact = safe == tb.name && (!tb.hunting || full == record.HuntingPrefix+safe)
	tb.name = safe
	tb.excluded = len(t.cfg.Tables) > 0 && !matchAny(t.cfg.Tables, safe) || matchAny(t.cfg.TablesExclude, safe)
	if tb.hunting && t.hold != nil {
		tb.role, tb.device = device.RoleOf(safe), matchAny(t.hold.devices.Tables(), safe)
	}
	tb.counts = t.stats.table(safe)
	if len(category) <= maxCategory {
		if len(t.tables) >= maxKnownTables {
			clear(t.tables) // invented ones do not keep the places; rows that are held have their table
		}
		t.tables[strings.Clone(category)] = tb
	}
	return tb
}

// safeName makes a name that can be a tag, a file name, part of an index name.
func safeName(s string) string {
	b := make([]byte, 0, maxTableName)
	for i := 0; i < len(s) && len(b) < maxTableName; i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			c = '_'
		}
		b = append(b, c)
	}
	if len(b) == 0 {
		return Unknown
	}
	return string(b)
}

// MatchTable reports whether a pattern of the settings matches the name of a table.
func MatchTable(pattern, name string) bool {
	return match(strings.ToLower(pattern), strings.ToLower(name))
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if MatchTable(p, name) {
			return true
		}
	}
	return false
}

// match compares with * for any text. It goes back to the last * only: no pattern makes it slow.
func match(pattern, s string) bool {
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// WithoutPrefix takes AdvancedHunting- from names of tables, where users have written it.
func WithoutPrefix(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		if out[i] = name; record.IsHunting(name) && len(name) > len(record.HuntingPrefix) {
			out[i] = name[len(record.HuntingPrefix):]
		}
	}
	return out
}
