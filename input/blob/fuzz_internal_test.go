package blob

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// cutText cuts data, which begins at base, as readers do with pieces of so many bytes. It returns
// the messages, what they may be marked with, and where the rest begins. A reader that goes on
// at the beginning of a line looks for the line break before it.
func cutText(t *testing.T, data []byte, base int64, at place, last place, piecesOf int, records bool) (messages []input.Message, turns []turn, rest int) {
	k := &cutter{place: at, last: last, records: records, limit: mostLine}
	start, ask := 0, piecesOf
	for {
		size := min(ask, len(data)-start)
		k.p, k.base = &piece{data: data[start : start+size : start+size], room: 3}, base+int64(start)
		next, why := k.cut(0)
		messages = append(messages, k.p.messages...)
		start += next
		if k.place == atLine && start > 0 && data[start-1] != '\n' {
			t.Fatalf("%q: offset %d is no beginning of a line", data, start)
		}
		switch {
		case why == noRoom || next > 0:
			ask = piecesOf
		case start+size < len(data):
			ask = 2 * ask
			continue
		default:
			return messages, k.turns, start
		}
		if start == len(data) {
			return messages, k.turns, start
		}
	}
}

// Every byte of a text is in a message, or lies between values. Reading continues from each mark as
// if it had never stopped.
func FuzzCut(f *testing.F) {
	for _, text := range []string{
		"{\"a\":1}\r\n\r\n{\"a\":2}\n \n{\"a\":", "\n\n\r\n", strings.Repeat("1\n", 100),
		"{\n \"a\": 1\n}\n{\n \"a\": [\n  {}\n ]\n}\n", "{\"records\":[{\"a\":1},{\"a\":2}],\"count\":1}\n{\"b\":1}{\"c\":2} {\"d\":3}\n",
		"[{\"a\":1},\n{\"a\":bad},\n{\"a\":3}]\n", "{\"torn\n{\"a\":1}\n", "{\"a\":{\"b\":1},\n{\"c\":1}\n{\"d\":1}\n",
		"{\"x\":1,\"records\":[{\"a\":\"]}\"}]}", "\xef\xbb\xbf[[1],[2]]", "  {\"a\":1}\n \n  {\"a\":2}\n", "text\n\"a string\"\n\x1e{\"a\":1}\n",
	} {
		f.Add([]byte(text), int64(0), uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, base int64, pieces uint8) {
		if base < 0 || base > 1<<60 || len(data) > 4096 {
			return
		}
		for _, records := range []bool{false, true} {
			messages, _, rest := cutText(t, data, base, atLine, atLine, int(pieces)+1, records)
			at := 0
			left := func(b []byte) {
				t.Helper()
				b = bytes.ReplaceAll(bytes.ToLower(b), []byte(`"records"`), nil)
				if b = bytes.Trim(b, "\xef\xbb\xbf"); len(bytes.Trim(b, " \t\r\n,:[]{}\x1e\xef\xbb\xbf")) > 0 {
					t.Fatalf("%q is left out of %q", b, data)
				}
			}
			for _, m := range messages {
				from, next := int(m.Offset-base), int(m.Mark.Next-base)
				if from < at || next <= from || next > len(data) || !bytes.HasPrefix(data[from:next], m.Body) {
					t.Fatalf("offset %d, next %d, after %d: %q", from, next, at, m.Body)
				}
				left(data[at:from])
				at = from + len(m.Body)
			}
			left(data[at:rest])

			// How values are cut may depend on where a piece ends, so this is about one piece.
			messages, turns, _ := cutText(t, data, base, atLine, atLine, len(data)+1, records)
			b := &tail{turns: turns}
			for i, m := range messages {
				where := b.at(m.Mark.Next)
				again, _, _ := cutText(t, data[m.Mark.Next-base:], m.Mark.Next, where, where, len(data)+1, records)
				for j, want := range messages[i+1:] {
					if j >= len(again) || again[j].Offset != want.Offset || !bytes.Equal(again[j].Body, want.Body) {
						t.Fatalf("after message %d (%c) of %q: got %v, want %v", i, where, data, again, messages[i+1:])
					}
				}
			}
		}
	})
}

// The end of an object is where a JSON decoder finds it.
func FuzzValueEnd(f *testing.F) {
	f.Add([]byte(`{"a":"}\"{","b":[1,{}]} rest`))
	f.Add([]byte("[1,\n[2]]"))
	f.Add([]byte(`{"records":[`))
	f.Add([]byte(`{"a":1,"b"}`))
	f.Add([]byte(`{"0123456789\\":"\"\\","é":"ü"}`))
	for _, in := range []string{`\"`, `\\`, "\n", "é", `"`} { // in a long string
		f.Add([]byte(`["` + strings.Repeat("x", 90) + in + strings.Repeat("y", 5000) + in + `z"]`))
	}
	f.Add([]byte(`["` + strings.Repeat("0", 62) + `\`)) // an escape at the end of a long string
	f.Add([]byte(strings.Repeat(`[{"a":`, 70) + "1" + strings.Repeat("}]", 70)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 || text[0] != '{' && text[0] != '[' {
			return
		}
		end, v := valueEnd(text, 0)
		if end > len(text) {
			t.Fatalf("end %d of %d", end, len(text))
		}
		listAt(text, 0)
		opening(text, 0)
		var raw json.RawMessage
		d := json.NewDecoder(bytes.NewReader(text))
		switch err := d.Decode(&raw); {
		case err == nil && (v != whole || end != int(d.InputOffset())):
			t.Fatalf("end %d, %d, want %d", end, v, d.InputOffset())
		case errors.Is(err, io.ErrUnexpectedEOF) && v != open && json.Valid(text[:end]):
			t.Fatalf("end %d of an object that is not whole", end)
		}
	})
}

// UTF-16 becomes the same text in pieces of any size, and offsets in it are those of the bytes that
// it came from.
func FuzzNarrow(f *testing.F) {
	f.Add("{\"a\":\"ü€😀\"}\n", uint8(3))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		units := utf16.Encode([]rune(text))
		want := string(utf16.Decode(units))
		var raw []byte
		for _, u := range units {
			raw = binary.BigEndian.AppendUint16(raw, u)
		}
		got, err := io.ReadAll(&narrowReader{r: iotest.HalfReader(bytes.NewReader(raw)), order: binary.BigEndian})
		if err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		buf := make([]byte, len(raw)+len(raw)/2+8)
		copy(buf[len(buf)-len(raw):], raw)
		took, filled := narrow(buf, buf[len(buf)-len(raw):], binary.BigEndian)
		if took != len(raw) || string(buf[:filled]) != want {
			t.Fatalf("in place: %q, want %q", buf[:filled], want)
		}
		w := &widths{text: buf[:filled]}
		if n := w.offset(filled); n != int64(len(raw)) {
			t.Fatalf("offset %d, want %d", n, len(raw))
		}
	})
}

// Whatever is stored, reading it back gives the same or an error.
func FuzzEntry(f *testing.F) {
	f.Add(entry{form: plain, place: inList, left: true, offset: 5, created: 1, modified: 2, head: head{n: 3}, foot: foot{at: 4, place: inList, n: 2}, etag: `"0x1"`}.String())
	f.Add("1 n -5 x")
	f.Add("1 n 5 1 2 3 000102030405060708090a0b0c0d0e0f \"0x1\"")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEntry(text)
		if err != nil {
			return
		}
		again, err := parseEntry(e.String())
		if err != nil || again != e {
			t.Fatalf("%q became %+v, then %+v, %v", text, e, again, err)
		}
		b := &tail{}
		b.restore(e)
		if b.pos < 0 || b.safe != b.pos {
			t.Fatalf("%+v", b)
		}
	})
}

// A pass's progress is in the state file in the form that a new process reads, and so is that of
// earlier versions. A changed prefix makes void what does not hold for it.
func TestSweepRecord(t *testing.T) {
	s := &Source{shards: []*shard{{book: newBook(nil), reading: true, fresh: make(map[string]bool)}}, account: &account{}, log: slog.New(slog.DiscardHandler)}
	load := func(prefix string) sweepRecord {
		s.cfg.Prefix = prefix
		c := newContainer(s, "c", "c", true)
		if err := c.load(true); err != nil {
			t.Fatal(err)
		}
		return c.parts[0].record
	}
	check := func(got, want sweepRecord) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	check(load(""), sweepRecord{})
	january, february := hourOf("y=2026/m=01/d=13/h=09/"), hourOf("y=2026/m=02/d=13/h=09/")
	want := sweepRecord{Marker: "a marker with blanks", Floor: january, Finished: february, Prefix: "a/"}
	c := newContainer(s, "c", "c", true)
	if err := c.load(true); err != nil {
		t.Fatal(err)
	}
	if err := c.sweeper.store(c.parts[0], want, []input.Change{{Key: "c/x", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	check(load("a/"), want)
	wider := load("")
	check(wider, sweepRecord{Before: []swept{{"a/", january}}})
	for name, read := range map[string]bool{"a/1.json": true, "b/1.json": false} {
		if got := wider.read(name, january.Unix()-1); got != read {
			t.Errorf("%s was read: %v, want %v", name, got, read)
		}
	}
	if wider.read("a/1.json", january.Unix()) {
		t.Error("what has changed since counts as read")
	}
	if err := c.sweeper.store(c.parts[0], wider, nil); err != nil {
		t.Fatal(err)
	}
	check(load("a/"), sweepRecord{Floor: january, Prefix: "a/"})

	if err := s.shards[0].book.write([]input.Change{{Key: "#sweep/c", Value: []byte(fmt.Sprint(january.Unix(), " ", february.Unix(), " a marker"))}}); err != nil {
		t.Fatal(err)
	}
	check(load("b/"), sweepRecord{Marker: "a marker", Floor: january, Finished: february, Prefix: "b/"})
}
