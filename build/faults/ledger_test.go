package main

import (
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

// The ledger must not overlook a loss, a repeat or a changed event.
func TestLedger(t *testing.T) {
	l := &ledger{}
	g := newGenerator(1, l)
	g.envelope(5)
	line := func(number int, id eventID) string {
		return `{"table":"DeviceInfo","event_id":"` + hexOf(id) + `","StoryNumber":` + string(rune('0'+number)) + "}\n"
	}
	id := func(n int) eventID { return l.events[n].id }
	for _, text := range []string{
		line(0, id(0)) + line(1, id(1)),
		line(1, id(1)), // twice
		`{"unreadable_reason":"x","event_id":"` + hexOf(eventID{}) + "\"}\n",
		`{"event_id":"` + hexOf(eventID{}) + "\"}\n",
	} {
		if err := l.outLines([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.outEvents(event(t, 3, id(3))); err != nil {
		t.Fatal(err)
	}
	c := l.count()
	if c.in != 5 || c.distinct != 3 || c.lost != 2 || c.duplicates != 1 || c.unreadable != 1 || c.others != 1 || len(c.strange) != 0 {
		t.Errorf("counted %+v", c)
	}
	if m := l.missing(10); len(m) != 2 || m[0] != 2 || m[1] != 4 {
		t.Errorf("missing %v, want 2 and 4", m)
	}
	if n := l.excuse([]int{1, 2}); n != 1 || l.count().lost != 1 {
		t.Errorf("excused %d, then %+v", n, l.count())
	}

	// An event under a wrong id, one that never went in, one that is cut off.
	if err := l.outLines([]byte(line(4, id(3)))); err != nil {
		t.Fatal(err)
	}
	if err := l.outEvents(event(t, 9, id(3))); err != nil {
		t.Fatal(err)
	}
	if c := l.count(); len(c.strange) != 2 {
		t.Errorf("strange: %q", c.strange)
	}
	whole := event(t, 4, id(4))
	if err := l.outEvents(whole[:len(whole)-3]); err == nil {
		t.Error("an event that is cut off was taken")
	}
	if err := l.outLines([]byte(strings.TrimSuffix(line(4, id(4)), "}\n"))); err == nil {
		t.Error("a line that is cut off was taken")
	}
}

func hexOf(id eventID) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range id {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func event(t *testing.T, number int64, id eventID) []byte {
	t.Helper()
	b := msgp.AppendArrayHeader(nil, 2)
	b = msgp.AppendInt(b, 0)
	b = msgp.AppendMapHeader(b, 3)
	b = msgp.AppendInt64(msgp.AppendString(b, "StoryNumber"), number)
	b = msgp.AppendString(msgp.AppendString(b, "event_id"), hexOf(id))
	return msgp.AppendNil(msgp.AppendString(b, "x"))
}

// A patch that finds nothing to change, or two places, is an error.
func TestPatch(t *testing.T) {
	for text, ok := range map[string]bool{"a b c": true, "a c": false, "a b b": false} {
		if got, err := (patch{"f", "b", "B"}).apply(text); (err == nil) != ok || ok && got != "a B c" {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
