package main

import (
	"fmt"
	"testing"
)

func TestTags(t *testing.T) {
	for _, c := range []struct{ pattern, table, want string }{
		{"", "AlertInfo", ""},
		{"defender.*", "AlertInfo", "defender.AlertInfo"},
		{"*", "AlertInfo", "AlertInfo"},
		{"a.*.b", "unreadable", "a.unreadable.b"},
		{"ocsf.{class}", "detection_finding", "ocsf.detection_finding"},
	} {
		if got := newTags(c.pattern).of(c.table); got != c.want {
			t.Errorf("%q of %q: got %q, want %q", c.pattern, c.table, got, c.want)
		}
	}
}

func TestTagsAreBounded(t *testing.T) {
	tags := newTags("d.*")
	distinct := map[string]bool{}
	for i := range 10 * maxTags {
		distinct[tags.of(fmt.Sprintf("Table%d", i))] = true
	}
	if len(distinct) > maxTags+1 {
		t.Errorf("%d tags", len(distinct))
	}
	if len(tags.known) > maxTags+1 {
		t.Errorf("%d tables are remembered", len(tags.known))
	}
}

func TestAKnownTagCostsNoAllocation(t *testing.T) {
	tags := newTags("d.*")
	tags.of("AlertInfo")
	if n := testing.AllocsPerRun(100, func() { tags.of("AlertInfo") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTagPatternsThatAreRefused(t *testing.T) {
	for _, p := range []string{"defender", "a.*.*", "a.*.{class}", "a *", "ä.*"} {
		if checkTagPattern(p) == "" {
			t.Errorf("%q is taken", p)
		}
	}
	for _, p := range []string{"", "*", "defender.*"} {
		if problem := checkTagPattern(p); problem != "" {
			t.Errorf("%q: %s", p, problem)
		}
	}
}
