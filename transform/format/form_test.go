package format

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

// written returns what a sheet appends, as JSON.
func written(t *testing.T, s *sheet, more ...moreMembers) string {
	t.Helper()
	members, n := s.appendTo(nil, more)
	var b strings.Builder
	rest, err := msgp.UnmarshalAsJSON(&b, append(msgp.AppendMapHeader(nil, n), members...))
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes too many", err, len(rest))
	}
	return b.String()
}

func testForm(t *testing.T) (*form, func(name string) fieldID) {
	t.Helper()
	f, err := newForm([]string{"host.name", "host.os.type", "process.pid", "process.args[]", "related.ip{}", "evidences[0]", "evidences.file.name", "raw", "host.id"})
	if err != nil {
		t.Fatal(err)
	}
	return f, func(name string) fieldID {
		id, ok := f.field(name)
		if !ok {
			t.Fatalf("no field %s", name)
		}
		return id
	}
}

func TestSheet(t *testing.T) {
	f, id := testForm(t)
	s := newSheet(f)
	s.kinds[id("host")] = fieldOpen
	s.taken = make([]bool, 6)
	for range 2 { // what one record leaves must not be seen in the next
		s.reset()
		if got := written(t, s); got != `{}` {
			t.Fatalf("empty: %s", got)
		}
		s.setText(id("raw"), nil, noSource)
		s.setText(id("host.os.type"), []byte("windows"), noSource)
		s.setText(id("evidences.file.name"), []byte("a.exe"), 1)
		s.setInteger(id("process.pid"), 4711, 2)
		for _, word := range []string{"b", "a", "b"} {
			s.setText(id("process.args"), []byte(word), noSource)
			s.setText(id("related.ip"), []byte(word), noSource)
		}
		if s.setText(id("host.os.type"), []byte("linux"), 3) || !s.setText(id("host.os.type"), []byte("windows"), 4) {
			t.Error("the first value stays")
		}
		s.setEncoded(id("raw"), msgp.AppendMapStrStr(nil, map[string]string{"nested": "5"}), noSource)
		const want = `{"host":{"os":{"type":"windows"}},"process":{"pid":4711,"args":["b","a","b"]},"related":{"ip":["b","a"]},"evidences":[{"file":{"name":"a.exe"}}],"raw":{"nested":"5"}}`
		if got := written(t, s); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		taken := s.taken
		if taken[0] || !taken[1] || !taken[2] || taken[3] || !taken[4] || taken[5] {
			t.Errorf("taken %v", taken)
		}

		s.drop(id("evidences.file.name"))
		s.drop(id("process"))
		s.drop(id("process"))
		s.drop(id("host.id"))
		s.setText(id("host.name"), []byte("x"), noSource)
		more := moreMembers{in: id("host"), count: 1, text: msgp.AppendInt(msgp.AppendString(nil, "more"), 1)}
		const rest = `{"host":{"more":1,"name":"x","os":{"type":"windows"}},"related":{"ip":["b","a"]},"raw":{"nested":"5"}}`
		if got := written(t, s, more); got != rest {
			t.Fatalf("got  %s\nwant %s", got, rest)
		}
		s.setText(id("process.args"), []byte("c"), noSource)
		if got := written(t, s); !strings.Contains(got, `"process":{"args":["c"]}`) {
			t.Errorf("set again after it was dropped: %s", got)
		}
		if taken[1] || taken[2] || !taken[4] {
			t.Errorf("taken %v after drop", taken)
		}
	}
}

func TestSheetIsBounded(t *testing.T) {
	f, id := testForm(t)
	s := newSheet(f)
	s.reset()
	n := 0
	for range 2 * maxElements {
		if s.setText(id("process.args"), []byte("x"), noSource) {
			n++
		}
	}
	if n != maxElements {
		t.Errorf("%d elements, want %d", n, maxElements)
	}
	if s.release(); len(s.entries) > 0 {
		t.Error("entries stay after release")
	}
}

func TestFormsThatAreWrong(t *testing.T) {
	for _, names := range [][]string{{"a", "a.b"}, {"a.b", "a"}, {"a", "a"}, {"a..b"}, {""}, {"a[]", "a.b"}} {
		if _, err := newForm(names); err == nil {
			t.Errorf("%v is taken", names)
		}
	}
}

func TestSheetAllocatesNothing(t *testing.T) {
	f, id := testForm(t)
	s := newSheet(f)
	s.taken = make([]bool, 2)
	args, ip, pid := id("process.args"), id("related.ip"), id("process.pid")
	out := make([]byte, 0, 1024)
	text := []byte("text")
	if n := testing.AllocsPerRun(100, func() {
		s.reset()
		s.setText(args, text, 1)
		s.setText(ip, text, 1)
		s.setWord(ip, "word")
		s.setInteger(pid, 1, noSource)
		out, _ = s.appendTo(out[:0], nil)
		s.drop(args)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An event does not depend on those before it: neither on one with the same fields, whose layout is
// used again, nor on more layouts than are kept. They are bounded, and do not stay for ever.
func TestLayouts(t *testing.T) {
	var names []string
	for i := range 13 {
		names = append(names, fmt.Sprintf("o%d.a%s.%s", i/4, strings.Repeat("long", i%9), strings.Repeat("name", i%10+1)))
	}
	f, err := newForm(names)
	if err != nil {
		t.Fatal(err)
	}
	s := newSheet(f)
	fill := func(s *sheet, shape int) {
		s.reset()
		for i, name := range names {
			if shape&(1<<i) != 0 {
				id, _ := f.field(name)
				s.setInteger(id, int64(shape*100+i), noSource)
			}
		}
	}
	const last = 1<<13 - 100
	for round, from := range []int{0, last, last} {
		for shape := from; shape < 1<<13; shape++ {
			fill(s, shape)
			got := written(t, s)
			if round == 1 || shape%500 == 0 {
				fresh := newSheet(f)
				fill(fresh, shape)
				if want := written(t, fresh); got != want {
					t.Fatalf("%b:\ngot  %s\nwant %s", shape, got, want)
				}
			}
			if len(s.layouts) > maxLayouts || len(s.kept) > maxLayouts {
				t.Fatalf("%d layouts are kept", len(s.layouts))
			}
		}
	}
	out := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(3, func() {
		for shape := range 2 * maxLayouts {
			fill(s, shape)
			out, _ = s.appendTo(out[:0], nil)
		}
	}); n > 10 { // those of the map, if any
		t.Errorf("%v allocations for %d events of which no two have the same fields", n, 2*maxLayouts)
	}
	fill(s, last)
	written(t, s)
	if _, ok := s.layouts[s.marks]; !ok {
		t.Error("no room for the layouts of later events")
	}
}
