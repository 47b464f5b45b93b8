package transform

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/format"
)

// pieceBytes: raw text in one event, below the 32,766 bytes that Lucene takes as one term. Longer
// text goes out as several events, numbered by unreadable_part and unreadable_parts. Put together
// they are the text, byte for byte.
const pieceBytes = 32_000

// unreadable passes on raw, which begins at byte at of the payload, and says why.
func (t *Transformer) unreadable(why reason, text string, at int, raw []byte) {
	t.stats.unreadable[why].Add(1)
	t.walk.emitted++

	// Text that is not UTF-8 goes out in base64, so that its bytes arrive as they were.
	encoded := !utf8.Valid(raw)
	size := pieceBytes
	if encoded {
		size = pieceBytes / 4 * 3
	}
	parts := 0
	for rest := raw; parts == 0 || len(rest) > 0; parts++ {
		rest = rest[pieceEnd(rest, size, encoded):]
	}
	// An id is made of the whole text and the number of the piece, not of where the text came from.
	// So the same text has the same ids when it is read again.
	var whole [32]byte
	if t.cfg.EventID {
		t.id.Begin(nil, []byte(Unreadable))
		t.id.Write(raw)
		copy(whole[:], t.id.End())
	}
	now := t.now()
	u := format.Unreadable{Reason: text, Lane: t.payload.Lane, Offset: t.payload.Offset, At: at, Parts: parts, Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}
	for rest := raw; u.Part < parts; {
		u.Part++
		end := pieceEnd(rest, size, encoded)
		u.Text = rest[:end]
		if encoded {
			u.Text, u.Encoding = base64.StdEncoding.AppendEncode(nil, rest[:end]), "base64"
		}
		if t.cfg.EventID {
			if u.ID = whole[:]; parts > 1 {
				t.id.Begin(u.ID, strconv.AppendInt(nil, int64(u.Part), 10))
				u.ID = t.id.End()
			}
		}
		t.writer.Begin(t.event[:0], math.MaxInt32)
		t.format.Unreadable(t.writer, &u)
		t.event, _ = t.writer.End(now.Unix(), uint32(now.Nanosecond())) // there is no limit to exceed
		t.own.Class = format.BaseClass
		t.emit(t.emitName(Unreadable), t.event)
		rest = rest[end:]
	}
}

// pieceEnd returns where the next piece of rest ends: not inside a character.
func pieceEnd(rest []byte, size int, encoded bool) int {
	if len(rest) <= size {
		return len(rest)
	}
	if encoded {
		return size
	}
	for !utf8.RuneStart(rest[size]) {
		size--
	}
	return size
}

// emitName is the name that an event is emitted under: its table, or its class where that was asked
// for.
func (t *Transformer) emitName(table string) string {
	if t.cfg.EmitClass && t.own.Class != "" {
		return t.own.Class
	}
	return table
}
