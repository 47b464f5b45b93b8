package transform

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// pieceBytes is how much raw text one event carries; it stays below the 32,766 bytes that Lucene takes as one term.
// What is longer goes out as several events, numbered by unreadable_part and unreadable_parts, which put together again are
// the text, byte for byte.
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
	// An id is of the whole text and the number of the piece, and not of where the text came from: the same text read
	// again has the same ids.
	var whole [32]byte
	if t.cfg.EventID {
		t.id.begin(noText, []byte(Unreadable))
		t.id.hash.Write(raw)
		copy(whole[:], t.id.end())
	}
	now := t.now()
	for part, rest := 1, raw; part <= parts; part++ {
		end := pieceEnd(rest, size, encoded)
		t.event = t.piece(t.event[:0], now, text, at, rest[:end], encoded, part, parts, whole)
		t.emit(Unreadable, t.event)
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

func (t *Transformer) piece(dst []byte, now time.Time, text string, at int, piece []byte, encoded bool, part, parts int, whole [32]byte) []byte {
	key := func(id nameID) { dst = append(dst, t.flat.names.list[id].key...) }
	str := func(id nameID, s string) {
		key(id)
		dst = msgp.AppendString(dst, s)
	}
	from := len(dst)
	dst = appendEventHeader(dst)
	fields := uint32(6)
	str(nameTable, Unreadable)
	str(nameReason, text)
	key(nameRaw)
	if encoded {
		dst = msgp.AppendString(dst, base64.StdEncoding.EncodeToString(piece))
		str(nameEncoding, "base64")
		fields++
	} else {
		dst = msgp.AppendStringFromBytes(dst, piece)
	}
	str(nameLane, t.payload.Lane)
	key(nameOffset)
	dst = msgp.AppendInt64(dst, t.payload.Offset)
	key(nameAt)
	dst = msgp.AppendInt(dst, at)
	if parts > 1 {
		key(namePart)
		dst = msgp.AppendInt(dst, part)
		key(nameParts)
		dst = msgp.AppendInt(dst, parts)
		fields += 2
	}
	if t.cfg.EventID {
		id := whole[:]
		if parts > 1 {
			t.id.begin(id, strconv.AppendInt(nil, int64(part), 10))
			id = t.id.end()
		}
		key(nameEventID)
		dst = msgp.AppendStringFromBytes(dst, id)
		fields++
	}
	patchEventHeader(dst[from:], now.Unix(), uint32(now.Nanosecond()), fields)
	return dst
}
