package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// out is the line of the C host for a record of the story.
func out(table string, number int) []byte {
	return fmt.Appendf(nil, `{"tag":"defender","time":1.5,"record":{"table":%q,"Timestamp":"2026-03-09T07:30:00Z","StoryNumber":%d}}`, table, number)
}

func TestTallyStory(t *testing.T) {
	f := func(name string, want result, numbers ...int) {
		t.Helper()
		tl := newTally(&feed{records: map[string]int{"A": 3}, numbers: 3}, shapes["flat"])
		for _, n := range numbers {
			tl.add(out("A", n), "", "record")
		}
		if got := tl.result(); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	f("all", result{}, 0, 1, 2)
	f("in any order", result{}, 2, 0, 1)
	f("one missing", result{missing: 1}, 0, 2)
	f("one missing, one twice", result{missing: 1}, 0, 2, 2) // the counts agree, the numbers do not
	f("one twice", result{again: 1}, 0, 1, 2, 2)
	f("none", result{missing: 3})
	f("one that is not of the story", result{missing: 1}, 0, 1, 7)
}

func TestTallyFiles(t *testing.T) {
	f := func(name string, in map[string]int, want result, records ...string) {
		t.Helper()
		tl := newTally(&feed{records: in}, shapes["flat"])
		for _, r := range records {
			tl.add([]byte(r), "defender")
		}
		if got := tl.result(); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	f("all", map[string]int{"A": 1, unreadable: 1}, result{}, `{"table":"A"}`, `{"table":"unreadable","unreadable_reason":"no JSON"}`)
	f("torn", map[string]int{"A": 2}, result{missing: 1, unexpected: 1}, `{"table":"A"}`, `{"table":"A","unreadable_reason":"x"}`)
	f("other products", map[string]int{"A": 1, other: 2}, result{}, `{"table":"A"}`, `{"table":"unknown"}`, `{"table":"Alert"}`)
	f("damage", map[string]int{"A": 1, damaged: 1}, result{saved: 2}, `{"table":"A"}`, `{"table":"A"}`, `{"table":"unreadable","unreadable_reason":"x"}`)
	f("damage, nothing saved", map[string]int{"A": 1, damaged: 2}, result{missing: 1, saved: 1}, `{"table":"A"}`, `{"table":"B"}`)
	f("damage, a record missing", map[string]int{"A": 2, damaged: 1}, result{missing: 1, saved: 1}, `{"table":"A"}`, `{"table":"B"}`)
	f("another table", map[string]int{"A": 1}, result{missing: 1, unexpected: 1}, `{"table":"B"}`)
}

func TestSummary(t *testing.T) {
	f := func(name string, ok bool, want string, lines ...string) {
		t.Helper()
		tl := newTally(&feed{records: map[string]int{"A": 2}, bytes: 10e6, messages: make([][]byte, 1)}, shapes["flat"])
		for _, l := range lines {
			tl.add([]byte(l), "defender")
		}
		tl.last = tl.first.Add(2 * time.Second)
		var b strings.Builder
		v := &view{w: &b, width: 100}
		if got := v.summary(tl, "a host", tl.first.Add(-3*time.Second)); got != ok || !strings.Contains(b.String(), want) {
			t.Errorf("%s: %v, want %v and %q:\n%s", name, got, ok, want, b.String())
		}
	}
	f("all", true, "each once", `{"table":"A"}`, `{"table":"A"}`)
	f("start", true, "3.0 s after", `{"table":"A"}`, `{"table":"A"}`)
	f("speed", true, "5.0 MB/s", `{"table":"A"}`, `{"table":"A"}`)
	f("twice", true, "1 of them twice", `{"table":"A"}`, `{"table":"A"}`, `{"table":"A"}`)
	f("missing", false, "1 records did not arrive", `{"table":"A"}`)
	f("no JSON", false, "not JSON", `{"table":"A"}`, `{"table":"A"}`, `{"tab`)
}

func TestView(t *testing.T) {
	var b strings.Builder
	v := &view{w: &b, width: 100}
	v.records([][]byte{
		[]byte(`{"table":"DeviceFileEvents","Timestamp":"2026-03-09T07:31:00Z","DeviceId":"d1","ActionType":"FileCreated","FileName":"a\nb"}`),
		[]byte(`{"table":"AlertEvidence","Timestamp":"2026-03-09T07:32:00Z","AlertId":"x","EntityType":"Machine","DeviceId":"d1","DeviceInfo.OSPlatform":"Windows11","AdditionalFields.A":"1","AdditionalFields.B":"2","AdditionalFields.C":"3","AdditionalFields.D":"4","AdditionalFields.E":"5","AdditionalFields.F":"6"}`),
		[]byte(`{"table":"DeviceLogonEvents","Timestamp":"2026-03-09T07:33:00Z","DeviceId":"d2"}`),
	}, shapes["flat"], "", false)
	text := b.String()
	for _, want := range []string{"DeviceInfo.OSPlatform", "1 more fields from inside", "FileCreated · a b", "07:31:00", "first records of other tables"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Index(text, "the same device") > strings.Index(text, "DeviceFileEvents") || strings.Index(text, "first records of other tables") > strings.Index(text, "DeviceLogonEvents") {
		t.Errorf("wrong part:\n%s", text)
	}
}
