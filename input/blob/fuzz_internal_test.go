package blob

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Every byte of a piece is in a message, or is a line ending or a blank line, or stands behind what was cut.
func FuzzCutLines(f *testing.F) {
	f.Add([]byte("{\"a\":1}\r\n\r\n{\"a\":2}\n \n{\"a\":"), int64(0))
	f.Add([]byte("\n\n\r\n"), int64(7))
	f.Add(bytes.Repeat([]byte("1\n"), 100), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, base int64) {
		if base < 0 || base > 1<<60 {
			return
		}
		s := &Source{}
		b := &blobState{lane: "c/b", term: 1}
		var want [][]byte
		for _, line := range bytes.Split(data, []byte("\n")) {
			want = append(want, bytes.TrimSuffix(line, []byte("\r")))
		}
		rest := want[len(want)-1]
		want = want[:len(want)-1]
		start, at := 0, base
		for {
			p := &piece{data: data[start:], room: room(0)}
			n := s.cutLines(b, p, base+int64(start), 0)
			for _, m := range p.messages {
				for len(want) > 0 && len(bytes.TrimSpace(want[0])) == 0 {
					want = want[1:]
				}
				if len(want) == 0 || !bytes.Equal(m.Body, want[0]) {
					t.Fatalf("got %q, want %q", m.Body, want)
				}
				want = want[1:]
				if m.Offset < at || m.Mark.Next <= m.Offset || m.Mark.Next > base+int64(len(data)) || data[m.Mark.Next-base-1] != '\n' {
					t.Fatalf("offset %d, next %d, after %d", m.Offset, m.Mark.Next, at)
				}
				at = m.Mark.Next
			}
			if start += n; n == 0 || len(p.messages) < p.room {
				break
			}
		}
		for _, line := range want {
			if len(bytes.TrimSpace(line)) > 0 {
				t.Fatalf("%q is left out", line)
			}
		}
		if left := bytes.TrimSuffix(data[start:], []byte("\r")); !bytes.Equal(left, rest) {
			t.Fatalf("%q is left, want %q", left, rest)
		}
	})
}

// The end of an object is where a JSON decoder finds it.
func FuzzJSONEnd(f *testing.F) {
	f.Add([]byte(`{"a":"}\"{","b":[1,{}]} rest`))
	f.Add([]byte("[1,\n[2]]"))
	f.Add([]byte(`{"records":[`))
	f.Fuzz(func(t *testing.T, text []byte) {
		end := jsonEnd(text)
		if end > len(text) {
			t.Fatalf("end %d of %d", end, len(text))
		}
		opensObject(text)
		if len(text) == 0 || text[0] != '{' && text[0] != '[' {
			return
		}
		var v json.RawMessage
		d := json.NewDecoder(bytes.NewReader(text))
		switch err := d.Decode(&v); {
		case err == nil && end != int(d.InputOffset()):
			t.Fatalf("end %d, want %d", end, d.InputOffset())
		case err == io.ErrUnexpectedEOF && end >= 0 && json.Valid(text[:end]):
			t.Fatalf("end %d of an object that is not whole", end)
		}
	})
}

// Whatever is stored, reading it back gives the same or an error.
func FuzzEntry(f *testing.F) {
	f.Add(entry{kind: afterLine, offset: 5, created: 1, modified: 2, head: head{n: 3}, etag: `"0x1"`}.String())
	f.Add("1 n -5 x")
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
		b := &blobState{}
		b.restore(e)
		if b.pos < 0 || b.safe != b.pos {
			t.Fatalf("%+v", b)
		}
	})
}

// A gzip reader's positions and a pass's progress are in the state file in the same form that a new process reads.
func TestSweepRecord(t *testing.T) {
	s := &Source{book: newBook(nil), log: slog.New(slog.DiscardHandler)}
	c := &containerState{s: s, name: "c"}
	if err := c.load(); err != nil || c.swept != (sweepRecord{}) {
		t.Fatalf("%+v, %v", c.swept, err)
	}
	want := sweepRecord{marker: "a marker with blanks", floor: day(hourOf("y=2026/m=01/d=13/h=09/")), finished: hourOf("y=2026/m=02/d=13/h=09/")}
	if err := c.store(want, []input.Change{{Key: "c/x", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	again := &containerState{s: s, name: "c"}
	if err := again.load(); err != nil || again.swept != want {
		t.Errorf("got %+v, %v, want %+v", again.swept, err, want)
	}
}
