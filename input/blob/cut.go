package blob

import (
	"bytes"
	"fmt"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// stop: why cutting a piece came to an end.
type stop byte

const (
	atEnd  stop = iota // nothing is left
	noRoom             // the piece has no room for more messages
	inText             // a line begins whose end has not come
	inside             // a value begins whose end has not come
)

// cutter cuts the text of a blob, piece by piece, into messages of a value each: lines, objects and
// arrays, and the records of lists. From one piece to the next it continues by place. It looks at
// its piece from start on; base is the offset of the first byte.
type cutter struct {
	lane  string
	term  uint64
	p     *piece
	base  int64
	place place
	limit int    // the longest value that is handed on whole
	like  []byte // see tail
	turns []turn // new ones
	last  place  // of the turn before them
	// records: lists are cut even if they would fit. A blob may be written again and again, with
	// more records each time: then reading continues behind the last of them.
	records bool

	foot      int   // where the last value ends, and
	footPlace place // its place, for blobs that may be written again; foot is 0 when there is none
	skipped   int64 // bytes that were left out
	cuts      int64 // values that were too long
	vain      int   // bytes that across looked at without success
}

// objectLine ends the search for the next record of a list, too: the one that was too long may have
// been the last.
var objectLine = []byte("\n{")

// cut appends messages to k.p from start on. It returns where the first value begins that is not
// whole, or for which there is no room.
func (k *cutter) cut(start int) (next int, why stop) {
	data := k.p.data
	i := start
	for {
		switch k.place {
		case lost:
			j, at := bytes.Index(data[i:], k.like), inList
			if l := bytes.Index(data[i:], objectLine) + 1; l > 0 && (j < 0 || l < j) {
				j, at = l, atLine
			}
			if j < 0 {
				j = max(len(data)-i-len(k.like)+1, 0)
				k.skipped += int64(j)
				return i + j, inText
			}
			k.skipped += int64(j)
			i, k.place = i+j, at
		case inLine:
			j := bytes.IndexByte(data[i:], '\n')
			if j < 0 {
				k.skipped += int64(len(data) - i)
				return len(data), atEnd
			}
			k.skipped += int64(j)
			if i += j + 1; i == len(data) || !continues(data[i]) {
				k.place = atLine
			}
		case inList, inRecords:
			if i, why = k.list(i); why != atEnd {
				return i, why
			}
		case inRest:
			if i, why = k.rest(i); why != atEnd {
				return i, why
			}
		default:
			if i, why = k.values(i); why != atEnd {
				return i, why
			}
		}
		if i >= len(data) {
			return i, atEnd
		}
	}
}

// continues reports whether a line that begins with c may continue the value of the line before.
// After one of its objects has ended, only these may come.
func continues(c byte) bool {
	switch c {
	case ' ', '\t', '\r', ',', '}', ']':
		return true
	}
	return false
}

// values cuts values at the top, until a list begins. It returns atEnd also then.
func (k *cutter) values(i int) (next int, why stop) {
	data := k.p.data
	for i < len(data) {
		if len(k.p.messages) == k.p.room {
			return i, noRoom
		}
		if data[i] == '{' {
			// A record a line, as nearly always. After the object at its end, no line can begin
			// that belongs to it.
			if j := bytes.IndexByte(data[i:], '\n'); j > 0 && j < k.limit {
				end, next := i+j, i+j+1
				if data[end-1] == '\r' {
					end--
				}
				if data[end-1] == '}' && next < len(data) && !continues(data[next]) {
					k.add(i, end, next, atLine, "")
					i = next
					continue
				}
			}
		}
		switch c := data[i]; {
		case c == '\n':
			i++
			k.passed(i, atLine)
			continue
		case c == ' ', c == '\t', c == '\r', c == ',', c == 0x1e:
			i++
			k.place = atValue // if the piece ends here, the next one does not begin with a line
			continue
		case c == bom[0] && bytes.HasPrefix(data[i:], bom):
			i += len(bom)
			k.place = atValue
			continue
		case c != '{' && c != '[':
			if i, why = k.line(i); why != atEnd || k.place == inLine {
				return i, why
			}
			continue
		}
		end, v := valueEnd(data, i)
		if v == damaged {
			end, v = k.across(i, end)
		}
		if v == whole && end-i > k.limit {
			v = open
		}
		if v != whole || k.records {
			if at, beside := listAt(data, i); at >= 0 && (v != damaged || beginsWhole(data, at)) {
				return k.enter(i, at, beside), atEnd
			}
		}
		switch {
		case v == whole:
			k.add(i, end, end, atValue, "")
			i = end
		case v == open && len(data)-i >= k.limit:
			return k.tooLong(i, "value", inLine), atEnd
		case v == open:
			return i, inside
		default:
			// It ends before the next line that begins as another value does.
			j := nextLine(data, i)
			switch {
			case j < 0 && len(data)-i >= k.limit:
				return k.tooLong(i, "line", inLine), atEnd
			case j < 0:
				return i, inText
			}
			k.add(i, j, j, atLine, "")
			i = j
		}
	}
	return i, atEnd
}

// across looks at the damaged value that begins at data[i] with endAcross. It bounds the bytes that
// are looked at without finding an end.
func (k *cutter) across(i, at int) (end int, v verdict) {
	if k.vain > 4*len(k.p.data)+maxAcross {
		return at, damaged
	}
	if end, v = endAcross(k.p.data, i, at); v == damaged {
		k.vain += end - i
	}
	return end, v
}

// beginsWhole reports whether the first record of a list is undamaged, as far as it has come: then
// it is a list.
func beginsWhole(b []byte, at int) bool {
	i := skipSpace(b, at)
	if i >= len(b) {
		return true
	}
	at, v := anyEnd(b, i)
	if v == damaged {
		_, v = endAcross(b, i, at)
	}
	return v != damaged
}

// nextLine returns where the line begins that ends the damaged value which begins at b[i], or -1
// when that has not come. Lines that may continue the value belong to it.
func nextLine(b []byte, i int) int {
	for {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return -1
		}
		if i += j + 1; i == len(b) || !continues(b[i]) {
			return i
		}
	}
}

// line cuts a line that is neither an object nor an array.
func (k *cutter) line(i int) (next int, why stop) {
	data := k.p.data
	j := bytes.IndexByte(data[i:], '\n')
	switch {
	case j < 0 && len(data)-i < k.limit:
		return i, inText
	case j < 0 || j > k.limit:
		return k.tooLong(i, "line", inLine), atEnd
	}
	k.add(i, i+j, i+j+1, atLine, "")
	return i + j + 1, atEnd
}

// enter begins with the list whose first record is looked for from data[at] on, in the value that
// begins at data[i].
func (k *cutter) enter(i, at int, beside []byte) int {
	k.place = inRecords
	if k.p.data[i] == '[' {
		k.place = inList
	}
	if len(beside) > 0 {
		k.beside(beside, i, at)
	}
	k.passed(at, k.place)
	return at
}

// beside hands on the data of an envelope beside its records.
func (k *cutter) beside(text []byte, i, next int) {
	from := i + bytes.Index(k.p.data[i:next], text)
	k.add(from, from+len(text), next, k.place, "data beside the records of an envelope")
}

// list cuts records of a list, until that ends.
func (k *cutter) list(i int) (next int, why stop) {
	data := k.p.data
	for i < len(data) {
		c := data[i]
		switch {
		case classes[c] == space || c == ',':
			i++
			continue
		case c == ']':
			i++
			if k.place == inRecords {
				k.place = inRest
			} else {
				k.place = atValue
			}
			k.passed(i, k.place)
			return i, atEnd
		case len(k.p.messages) == k.p.room:
			return i, noRoom
		case c == '}' || c == ':':
			k.add(i, i+1, i+1, k.place, "")
			i++
			continue
		}
		end, v := anyEnd(data, i)
		if v == damaged {
			end, v = k.across(i, end)
		}
		if v == whole && end-i > k.limit {
			v = open
		}
		at := k.place
		if v == damaged {
			if end = nextLike(data, i); end < 0 {
				// No other record begins as this one does: perhaps the list is torn, and lines
				// follow.
				if end, at = nextLine(data, i), atLine; end < 0 {
					v = open
				}
			}
		}
		switch {
		case v == whole:
			k.add(i, end, end, k.place, "")
		case v == damaged && at == atLine:
			k.add(i, end, end, at, "")
			return end, atEnd
		case v == damaged:
			k.add(i, i+len(bytes.TrimRight(data[i:end], ", \t\r\n")), end, k.place, "")
		case len(data)-i >= k.limit:
			k.like = bytes.Clone(opening(data, i))
			at = lost
			if k.like == nil {
				at = inLine
			}
			return k.tooLong(i, "record", at), atEnd
		default:
			return i, inside
		}
		i = end
	}
	return i, atEnd
}

// rest cuts the data behind the list of an envelope, until the envelope ends.
func (k *cutter) rest(i int) (next int, why stop) {
	data := k.p.data
	for i < len(data) {
		c := data[i]
		switch {
		case classes[c] == space || c == ',':
			i++
			continue
		case c == '}':
			i++
			k.place = atValue
			k.passed(i, atValue)
			return i, atEnd
		case len(k.p.messages) == k.p.room:
			return i, noRoom
		case c != '"':
			k.place = atValue // of any kind
			return i, atEnd
		}
		key, v := stringEnd(data, i+1)
		if v == open && len(data)-i < k.limit {
			return i, inside
		}
		val := skipSpace(data, key)
		if val < len(data) && data[val] == ':' {
			val = skipSpace(data, val+1)
			if val < len(data) && isRecords(data[i:key]) && data[val] == '[' {
				k.place = inRecords
				k.passed(val+1, inRecords)
				return val + 1, atEnd
			}
		} else if val < len(data) {
			k.place = atValue
			return i, atEnd
		}
		end := len(data)
		if v = open; val < len(data) {
			end, v = anyEnd(data, val)
		}
		switch {
		case v == whole && end-i <= k.limit:
			k.add(i, end, end, inRest, "data beside the records of an envelope")
			i = end
		case v == open && len(data)-i < k.limit:
			return i, inside
		default:
			k.place = atValue // of any kind, also when it is too long
			return i, atEnd
		}
	}
	return i, atEnd
}

// add appends data[i:end] as a message. Reading continues at next, whose place is at.
func (k *cutter) add(i, end, next int, at place, reason string) {
	body := k.p.data[i:end]
	for n := len(body); n > 0 && (body[n-1] == '\r' || body[n-1] == '\n'); n-- {
		body = body[:n-1]
	}
	k.p.messages = append(k.p.messages, input.Message{
		Mark:   input.Mark{Lane: k.lane, Term: k.term, Next: k.base + int64(next)},
		Offset: k.base + int64(i), Body: body, Reason: reason})
	k.turn(next, at)
	switch {
	case !k.records || reason != "":
	case len(body) > 0 && (body[0] == '{' || body[0] == '['):
		k.foot, k.footPlace = end, at
		if at == atLine {
			k.footPlace = atValue
		}
	case at == atLine:
		k.foot, k.footPlace = next, atLine // a line of text may grow where it ends
	}
}

// turn notes that the offsets from data[next] on have the place at.
func (k *cutter) turn(next int, at place) {
	if k.place = at; at != k.last {
		k.turns, k.last = append(k.turns, turn{k.base + int64(next), at}), at
	}
}

// passed counts the bytes before data[next] that belong to no value as read with the message
// before.
func (k *cutter) passed(next int, at place) {
	k.turn(next, at)
	if n := len(k.p.messages); n > 0 {
		k.p.messages[n-1].Mark.Next = k.base + int64(next)
	}
}

// tooLong hands on the beginning of a value that is too long, and returns where it was cut.
func (k *cutter) tooLong(i int, what string, at place) int {
	end := i + k.limit
	k.add(i, end, end, at, fmt.Sprintf("%s is longer than %d MB: cut there; raise memory_limit if it is genuine", what, k.limit>>20))
	k.cuts++
	k.foot = 0
	return end
}

// remains hands on the rest from data[i] on, when nothing more is expected.
func (k *cutter) remains(i int, reason string) {
	data := k.p.data
	if reason == "" && len(bytes.TrimSpace(data[i:])) == 0 {
		k.passed(len(data), k.place)
		return
	}
	foot, at := k.foot, k.footPlace
	k.add(i, len(data), len(data), k.after(), reason)
	k.foot, k.footPlace = foot, at // if it grows, it is read again from there
}

// after is the place behind the last bytes of a blob that ends inside something.
func (k *cutter) after() place {
	if k.place == atLine {
		return atValue
	}
	return k.place
}
