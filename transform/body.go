package transform

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// More errors of a payload. The values are static, so that finding damage allocates nothing.
var (
	errBeside  = errors.New("data beside the records of an envelope")
	errBetween = errors.New("text between records")
	errTired   = errors.New("too much of the payload is damaged to look for records in the rest")
	errPanic   = errors.New("the transformer panicked on it")
	errUnzip   = errors.New("gzip that cannot be unpacked")
)

// A walk is the state of one payload while it is read.
type walk struct {
	emitted  int  // records, and unreadable ones, so far
	empty    int  // records, lists and payloads without anything in them, so far
	damaged  bool // it did not parse as a whole
	effort   int  // bytes that were parsed without a record, or looked through for an end
	nextFrom int  // where the last search for an end began
	next     int  // and its result
	wrapped  int  // how many wrappings are around the text that is being read

	// The first two keys of the first whole record. A record of a product that we do not know
	// begins as its neighbours do, and an object inside it does not.
	keys [2][]byte
}

// found is how much was found so far, empty or not.
func (w *walk) found() int { return w.emitted + w.empty }

// empty counts something without anything in it.
func (t *Transformer) empty() {
	t.walk.empty++
	t.stats.Empty.Add(1)
}

// maxNesting is how many envelopes may be inside each other before they are taken for records.
const maxNesting = 3

// tired reports whether so many bytes were parsed without a record that the rest of the payload
// goes out as one piece. Without that limit, objects that never end, each with a record inside,
// cost the square of the payload.
func (w *walk) tired(b []byte) bool { return w.effort > 8*len(b)+1<<20 }

// body emits the records of a payload: an envelope {"records":[...]}, a record, a list of either,
// or several of these one after the other.
//
// It goes through the payload once, record by record, and trusts nothing beyond the record that it
// is reading. So damage costs the record that it is in, and no other.
func (t *Transformer) body(b []byte) {
	b, tail, err := unwrap(b)
	if err != nil {
		t.walk.damaged = true
		t.unreadable(reasonSyntax, errUnzip.Error()+": "+err.Error(), 0, tail)
	}
	i := 0
	if record.HasPrefix(b, "\xef\xbb\xbf") {
		i = 3 // a byte order mark
	}
	if record.SkipSpace(b, i) == len(b) && err == nil {
		t.empty()
		return
	}
	t.values(b, i, 0, false)
	if t.walk.emitted == 0 && t.walk.empty == 0 {
		// Brackets and commas, no more than the frame of an envelope: that, too, is passed on.
		t.walk.damaged = true
		t.unreadable(reasonCut, record.ErrEnd.Error(), 0, b)
	}
	if t.walk.damaged {
		t.stats.Damaged.Add(1)
	}
}

// values emits the values from b[i] on, up to the end of their list or of b. It returns where it
// ended.
func (t *Transformer) values(b []byte, i, nesting int, list bool) int {
	for {
		i = record.SkipSpace(b, i)
		if i >= len(b) {
			if list {
				t.walk.damaged = true
			}
			return i
		}
		switch c := b[i]; {
		case c == ',':
			i++
		case c == '{':
			i = t.object(b, i, nesting)
		case c == ']' && list:
			return i + 1
		case c == '[' && (!list || nesting < maxNesting) && listOfObjects(b, i, maxNesting-nesting):
			found := t.walk.found()
			i = t.values(b, i+1, nesting+1, true)
			if t.walk.found() == found && !t.walk.damaged {
				t.empty()
			}
		default:
			i = t.other(b, i)
		}
	}
}

// listOfObjects tells a list of records, or of so many lists of them, from text that happens to
// begin with a bracket. Nulls may stand before the first record.
func listOfObjects(b []byte, i, deep int) bool {
	for i = record.SkipSpace(b, i+1); i < len(b) && b[i] == '[' && deep > 0; deep-- {
		i = record.SkipSpace(b, i+1)
	}
	for nulls := i; record.HasPrefix(b[nulls:], "null"); i = nulls {
		nulls = record.SkipSpace(b, nulls+len("null"))
		if nulls >= len(b) || b[nulls] != ',' {
			break
		}
		nulls = record.SkipSpace(b, nulls+1)
	}
	if i+1 < len(b) && b[i] == '"' {
		i++ // a record as text
	}
	return i < len(b) && (b[i] == '{' || b[i] == ']')
}

// object emits the envelope or record that begins at b[i], and returns where it ends.
func (t *Transformer) object(b []byte, i, nesting int) int {
	if nesting < maxNesting {
		if at := recordsAt(b, i+1); at >= 0 {
			return t.records(b, at, nesting)
		}
	}
	if t.walk.tired(b) {
		t.unreadable(reasonSyntax, errTired.Error(), i, b[i:])
		return len(b)
	}
	r := &t.row
	end, err := t.tryRead(r, b, i)
	if err != nil {
		t.walk.effort += max(end-i, 0)
		return t.damage(b, i, nesting, err)
	}
	if t.wrapping(b, i, end) {
		return end
	}
	if r.Records != 0 && nesting < maxNesting && t.table(r.Category()).name == Unknown {
		return t.envelopeInside(b, i, end, nesting)
	}
	t.record(b, i, end)
	return end
}

// recordsAt returns where the list of a member "records":[ begins, if that member begins at b[i];
// else -1.
func recordsAt(b []byte, i int) int {
	i = record.SkipSpace(b, i)
	if i >= len(b) || !record.HasPrefix(b[i:], `"records"`) {
		return -1
	}
	i = record.SkipSpace(b, i+len(`"records"`))
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	i = record.SkipSpace(b, i+1)
	if i >= len(b) || b[i] != '[' {
		return -1
	}
	return i
}

// records emits the records of an envelope. The list of them begins at b[at]. Other members go out
// as unreadable. It returns where the envelope ends.
func (t *Transformer) records(b []byte, at, nesting int) int {
	for {
		found := t.walk.found()
		i := t.values(b, at+1, nesting+1, true)
		if t.walk.found() == found && !t.walk.damaged {
			t.empty() // {"records":[]}
		}
		// Behind the list comes the end of the envelope, as a rule.
		for {
			i = record.SkipSpace(b, i)
			if i >= len(b) {
				t.walk.damaged = true
				return i
			}
			if b[i] == '}' {
				return i + 1
			}
			if b[i] != ',' {
				t.walk.damaged = true
				return i // values continues with it
			}
			member := record.SkipSpace(b, i+1)
			if at = recordsAt(b, member); at >= 0 {
				break
			}
			end := t.memberEnd(b, member)
			if end < 0 {
				t.walk.damaged = true
				return i + 1
			}
			t.unreadable(reasonBeside, errBeside.Error(), member, b[member:end])
			i = end
		}
	}
}

// memberEnd returns the end of the member of an object at b[i], or -1 if there is none.
func (t *Transformer) memberEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	i, err := t.row.Scratch(&t.scanner, b, i)
	if err != nil {
		return -1
	}
	i = record.SkipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	end, err := t.row.Scratch(&t.scanner, b, i+1)
	if err != nil {
		t.walk.effort += end - i
		return -1
	}
	return end
}

// envelopeInside emits the records of an envelope that was read as one object: "records" is not its
// first member.
func (t *Transformer) envelopeInside(b []byte, i, end, nesting int) int {
	r := &t.row
	v := r.Doc.Nodes[r.Records]
	from, to := int(v.Start), int(v.End)
	// All members but the list of records are passed on first: the tree is gone once a record is
	// read.
	doc := r.Doc
	for k, last := uint32(1), doc.Nodes[0].Next; k < last; k = doc.Nodes[k+1].Next {
		m := doc.Nodes[k+1]
		if int(m.Start) <= from && to <= int(m.End) {
			if int(m.Start) == from {
				continue
			}
			// {"body":{"records":...}}: the other members of body.
			for k, last := k+2, m.Next; k < last; k = doc.Nodes[k+1].Next {
				if k+1 != r.Records {
					t.unreadable(reasonBeside, errBeside.Error(), int(doc.Nodes[k].Start), b[doc.Nodes[k].Start:doc.Nodes[k+1].End])
				}
			}
			continue
		}
		t.unreadable(reasonBeside, errBeside.Error(), int(doc.Nodes[k].Start), b[doc.Nodes[k].Start:m.End])
	}
	if v.Kind == record.KindObject {
		t.object(b, from, nesting+1)
		return end
	}
	found := t.walk.found()
	t.values(b, from+1, nesting+1, true)
	if t.walk.found() == found {
		t.empty()
	}
	return end
}

// record emits the record that t.row holds, b[i:end] as received.
func (t *Transformer) record(b []byte, i, end int) {
	r := &t.row
	if r.Doc.Empty(0) {
		t.empty()
		return
	}
	if t.walk.keys[0] == nil {
		t.walk.keys = firstKeys(&r.Doc)
	}
	tb := t.table(r.Category())
	if t.hold != nil && t.tryKeep(tb, b, i, end) {
		t.walk.emitted++
		if int64(t.hold.bytes) > t.cfg.Memory/4 {
			t.flush()
		}
		return
	}
	if tb.excluded {
		t.stats.Excluded.Add(1)
		t.walk.emitted++
		return
	}
	t.walk.emitted++
	t.finish(r, tb, nil, b[i:end], i)
}

// finish writes and emits the record r of a table, which is raw as received and begins at byte at
// of the payload. s: its device, or nil.
func (t *Transformer) finish(r *record.Record, tb *table, s *device.Sighting, raw []byte, at int) {
	event, sec, from, err := t.tryWrite(r, tb, s)
	if err == errRepeat {
		tb.counts.repeats.Add(1)
		return
	}
	if err != nil {
		t.unreadable(reasonOf(err), err.Error(), at, raw)
		return
	}
	t.stats.Records.Add(1)
	tb.counts.records.Add(1)
	if r.Lifted && t.tellsRepeats() {
		t.noteID(tb)
	}
	if from != record.TimeNone {
		tb.counts.delay.observe(t.began - sec)
	}
	t.emit(t.emitName(tb.name), event)
}

// tryRead is Read with a panic as an error: a panic must cost no more than the record.
func (t *Transformer) tryRead(r *record.Record, b []byte, i int) (end int, err error) {
	defer caught(&err)
	return r.Read(&t.scanner, b, i)
}

// tryKeep is keep with a panic as a no: a panic must cost no more than the device.
func (t *Transformer) tryKeep(tb *table, b []byte, i, end int) (held bool) {
	var err error
	defer caught(&err)
	return t.keep(tb, b, i, end)
}

// tryWrite is write with a panic as an error. The event is valid until the next one is written.
func (t *Transformer) tryWrite(r *record.Record, tb *table, s *device.Sighting) (event []byte, sec int64, from record.TimeSource, err error) {
	defer caught(&err)
	event, sec, from, err = t.write(t.event[:0], r, tb, s)
	t.event = event
	return event, sec, from, err
}

func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errPanic, p)
	}
}

func reasonOf(err error) reason {
	switch {
	case errors.Is(err, errPanic):
		return reasonPanic
	case errors.Is(err, event.ErrSize), errors.Is(err, record.ErrNodes):
		return reasonOutput
	case errors.Is(err, record.ErrEnd):
		return reasonCut
	case errors.Is(err, record.ErrNotObject):
		return reasonNotObject
	}
	return reasonSyntax
}

// tooMany passes on the record that begins at b[i] and has more values than there is memory for. It
// returns where the record ends, or -1 if no end can be seen. The record is not searched for
// others: its part that was read is whole.
func (t *Transformer) tooMany(b []byte, i, nesting int, err error) int {
	end, balanced := record.SkipLoosely(b, i)
	t.walk.effort += end - i
	if !balanced {
		return -1
	}
	if list := listInside(b[:end], i); list >= 0 && nesting < maxNesting {
		t.unreadable(reasonOf(err), err.Error(), i, b[i:list])
		return t.records(b, list, nesting)
	}
	t.unreadable(reasonOf(err), err.Error(), i, b[i:end])
	return end
}

// listInside returns the beginning of the list of records in the envelope at b[i], or -1 if it is
// none.
func listInside(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			if depth == 1 {
				if at := recordsAt(b, i); at >= 0 {
					return at
				}
			}
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
	}
	return -1
}

// damage passes on the record at b[i], which cannot be read, and returns where it ends.
func (t *Transformer) damage(b []byte, i, nesting int, err error) int {
	if errors.Is(err, record.ErrNodes) {
		if end := t.tooMany(b, i, nesting, err); end >= 0 {
			return end
		}
	}
	t.walk.damaged = true
	at := t.scanner.At()
	next := t.nextRecord(b, i+1)
	end, balanced := record.SkipLoosely(b[:next], i)
	t.walk.effort += end - i // an envelope inside begins soon, and its records may be as this one
	if nesting < maxNesting {
		// An envelope whose list is not its first member: its records are better than its whole.
		if list := recordsAfter(b[:end], i+1); list >= 0 {
			t.unreadable(reasonSyntax, fmt.Sprintf("%v, at byte %d", err, at), i, b[i:list])
			return t.records(b, list, nesting)
		}
	}
	switch {
	case !balanced:
		end = i + len(trimGap(b, i, next))
	case next < len(b) || nesting == 0:
		// Brackets too many belong to it. At the end of a list they are more likely the list's own.
		for end < next && (b[end] == '}' || b[end] == ']') {
			end++
		}
	}
	t.unreadable(reasonOf(err), fmt.Sprintf("%v, at byte %d", err, at), i, b[i:end])
	return end
}

// other passes on the value at b[i], which is no record, and returns where it ends.
func (t *Transformer) other(b []byte, i int) int {
	if c := b[i]; c != '}' && c != ']' && !t.walk.tired(b) {
		end, err := t.row.Scratch(&t.scanner, b, i)
		t.walk.effort += end - i
		if err == nil {
			if b[i] == '"' && t.inside(b[i+1:end-1]) {
				return end
			}
			after := record.SkipSpace(b, end)
			if after == len(b) || b[after] == ',' || b[after] == ']' || b[after] == '{' {
				t.unreadable(reasonNotObject, record.ErrNotObject.Error(), i, b[i:end])
				return end
			}
		}
	}
	t.walk.damaged = true
	next := t.nextRecord(b, i+1)
	text := trimGap(b, i, next)
	if len(bytes.Trim(text, " \t\r\n,]}")) > 0 {
		t.unreadable(reasonSyntax, fmt.Sprintf("%v, at byte %d", errBetween, i), i, text)
	}
	return next
}

// trimGap returns b[i:next] without what separates it from a record at next.
func trimGap(b []byte, i, next int) []byte {
	if next == len(b) {
		return b[i:]
	}
	return bytes.TrimRight(b[i:next], " \t\r\n,")
}

// recordsAfter finds the list of a member "records" from b[i] on, or returns -1. It cannot find
// text inside strings: quotes there have a backslash before them.
func recordsAfter(b []byte, i int) int {
	for {
		n := bytes.Index(b[i:], []byte(`"records"`))
		if n < 0 {
			return -1
		}
		i += n
		if at := recordsAt(b, i); at >= 0 {
			return at
		}
		i++
	}
}

// nextRecord returns where the next whole record begins, from b[i] on, or len(b). It must look like
// a record and not like an object inside one.
func (t *Transformer) nextRecord(b []byte, i int) int {
	w := &t.walk
	if w.nextFrom > 0 && w.nextFrom <= i && i <= w.next {
		return w.next
	}
	w.nextFrom, w.next = i, len(b)
	for i < len(b) {
		n := bytes.IndexByte(b[i:], '{')
		if n < 0 {
			break
		}
		i += n
		if t.beginsLikeRecord(b, i) {
			if w.tired(b) {
				break
			}
			end, err := t.tryRead(&t.row, b, i)
			w.effort += max(end-i, 0)
			if err == nil && t.looksLikeRecord(&t.row) {
				w.next = i
				break
			}
		}
		i++
	}
	return w.next
}

// beginsLikeRecord is a quick look at the first member of an object.
func (t *Transformer) beginsLikeRecord(b []byte, i int) bool {
	i = record.SkipSpace(b, i+1)
	if i >= len(b) || b[i] != '"' {
		return false
	}
	rest := b[i+1:]
	n := bytes.IndexByte(rest[:min(len(rest), 64)], '"')
	if n < 0 {
		return false
	}
	key := rest[:n]
	i = record.SkipSpace(rest, n+1)
	if i >= len(rest) || rest[i] != ':' {
		return false
	}
	i = record.SkipSpace(rest, i+1)
	if i >= len(rest) {
		return false
	}
	// The value tells "time" in an envelope from "time" in garbage that is nested on purpose.
	if record.IsEnvelopeKey(key) {
		return rest[i] == '"' || rest[i] == 'n'
	}
	if string(key) == "properties" {
		return rest[i] == '{' || rest[i] == '"'
	}
	return t.walk.keys[0] != nil && bytes.Equal(key, t.walk.keys[0])
}

func (t *Transformer) looksLikeRecord(r *record.Record) bool {
	if r.Envelope.Category != 0 && r.Properties != 0 {
		return true
	}
	keys := firstKeys(&r.Doc)
	return t.walk.keys[1] != nil && bytes.Equal(keys[0], t.walk.keys[0]) && bytes.Equal(keys[1], t.walk.keys[1])
}

// firstKeys returns the first two keys of an object, in the text of its payload.
func firstKeys(doc *record.Tree) (keys [2][]byte) {
	k, end := uint32(1), doc.Nodes[0].Next
	for i := 0; i < len(keys) && k < end; i++ {
		keys[i] = doc.Inner(k)
		k = doc.Nodes[k+1].Next
	}
	return keys
}
