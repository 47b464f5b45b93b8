package transform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// walk is what is known of the payload at hand.
type walk struct {
	emitted  int  // records, and unreadable ones, so far
	damaged  bool // it did not parse as a whole
	effort   int  // bytes that were parsed in vain
	nextFrom int  // where the last such search began
	next     int  // and what it found

	// The first two keys of the first whole record. A record of a product we do not know can be told from any
	// object inside it by beginning as its neighbours do.
	keys [2][]byte
}

// maxNesting is how many envelopes may be inside each other before they are taken for records.
const maxNesting = 3

// tired reports whether so much was parsed in vain that the rest of the payload goes out as one. Without that
// limit, objects that never end, each with a record inside, cost the square of the payload.
func (w *walk) tired(b []byte) bool { return w.effort > 8*len(b)+1<<20 }

// body emits what a payload holds: an envelope {"records":[...]}, a record, a list of either, or several of these
// one after the other.
//
// It goes through the payload once, record by record, and trusts nothing beyond the record that it is reading. So damage
// costs the record that it is in, and no other, and nothing has to be done twice for it.
func (t *Transformer) body(b []byte) {
	i := 0
	if hasPrefix(b, "\xef\xbb\xbf") {
		i = 3 // a byte order mark
	}
	if skipSpace(b, i) == len(b) {
		t.stats.Empty.Add(1)
		return
	}
	empty := t.stats.Empty.Load()
	t.values(b, i, 0, false)
	if t.walk.emitted == 0 && t.stats.Empty.Load() == empty {
		// Brackets and commas, no more than the frame of an envelope: that, too, is passed on.
		t.walk.damaged = true
		t.unreadable(reasonCut, errEnd.Error(), 0, b)
	}
	if t.walk.damaged {
		t.stats.Damaged.Add(1)
	}
}

// values emits the values from b[i] on, up to the end of the list they are in, or of b. It returns where it ended.
func (t *Transformer) values(b []byte, i, nesting int, list bool) int {
	for {
		i = skipSpace(b, i)
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
		case c == '[' && !list && listOfObjects(b, i):
			n := t.walk.emitted
			empty := t.stats.Empty.Load()
			i = t.values(b, i+1, nesting+1, true)
			if n == t.walk.emitted && empty == t.stats.Empty.Load() && !t.walk.damaged {
				t.stats.Empty.Add(1)
			}
		default:
			i = t.other(b, i)
		}
	}
}

// listOfObjects tells a list of records from text that happens to begin with a bracket.
func listOfObjects(b []byte, i int) bool {
	i = skipSpace(b, i+1)
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
	if r.records != 0 && nesting < maxNesting && r.table.name == Unknown {
		return t.envelopeInside(b, i, end, nesting)
	}
	t.record(b, i, end)
	return end
}

// recordsAt returns where the list begins if the member of an object that begins at b[i] is "records": [, and -1
// otherwise.
func recordsAt(b []byte, i int) int {
	i = skipSpace(b, i)
	if i >= len(b) || !hasPrefix(b[i:], `"records"`) {
		return -1
	}
	i = skipSpace(b, i+len(`"records"`))
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	i = skipSpace(b, i+1)
	if i >= len(b) || b[i] != '[' {
		return -1
	}
	return i
}

// records emits the records of an envelope whose list of them begins at b[at], and passes
// on what else the envelope holds. It returns where the envelope ends.
func (t *Transformer) records(b []byte, at, nesting int) int {
	for {
		emitted, empty := t.walk.emitted, t.stats.Empty.Load()
		i := t.values(b, at+1, nesting+1, true)
		if t.walk.emitted == emitted && t.stats.Empty.Load() == empty && !t.walk.damaged {
			t.stats.Empty.Add(1) // {"records":[]}
		}
		// What follows the list: the end of the envelope, as a rule.
		for {
			i = skipSpace(b, i)
			if i >= len(b) {
				t.walk.damaged = true
				return i
			}
			if b[i] == '}' {
				return i + 1
			}
			if b[i] != ',' {
				t.walk.damaged = true
				return i // whatever it is, values goes on with it
			}
			member := skipSpace(b, i+1)
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

// memberEnd returns where the member of an object that begins at b[i] ends, or -1 if there is none.
func (t *Transformer) memberEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	_, i, err := t.scanner.parse(b, i, t.row.nodes[:0])
	if err != nil {
		return -1
	}
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	nodes, end, err := t.scanner.parse(b, i+1, t.row.nodes[:0])
	if t.row.nodes = nodes; err != nil {
		t.walk.effort += end - i
		return -1
	}
	return end
}

// envelopeInside emits the records of an envelope that was read as one object, since "records" is not its first member.
func (t *Transformer) envelopeInside(b []byte, i, end, nesting int) int {
	r := &t.row
	v := r.doc.nodes[r.records]
	from, to := int(v.start), int(v.end)
	// What is beside: everything of the object but the list of records, cut at the members' ends. The row is
	// gone once the first record is read, so this comes first.
	doc := r.doc
	for k, last := uint32(1), doc.nodes[0].next; k < last; k = doc.nodes[k+1].next {
		m := doc.nodes[k+1]
		if int(m.start) <= from && to <= int(m.end) {
			if int(m.start) == from {
				continue
			}
			// {"body":{"records":...}}: the other members of body.
			for k, last := k+2, m.next; k < last; k = doc.nodes[k+1].next {
				if k+1 != r.records {
					t.unreadable(reasonBeside, errBeside.Error(), int(doc.nodes[k].start), b[doc.nodes[k].start:doc.nodes[k+1].end])
				}
			}
			continue
		}
		t.unreadable(reasonBeside, errBeside.Error(), int(doc.nodes[k].start), b[doc.nodes[k].start:m.end])
	}
	if v.kind == kindObject {
		t.object(b, from, nesting+1)
		return end
	}
	emitted, empty := t.walk.emitted, t.stats.Empty.Load()
	t.values(b, from+1, nesting+1, true)
	if t.walk.emitted == emitted && t.stats.Empty.Load() == empty {
		t.stats.Empty.Add(1)
	}
	return end
}

// record emits the record that t.row holds, b[i:end] as received.
func (t *Transformer) record(b []byte, i, end int) {
	r := &t.row
	if r.doc.empty(0) {
		t.stats.Empty.Add(1)
		return
	}
	if t.walk.keys[0] == nil {
		t.walk.keys = firstKeys(&r.doc)
	}
	if t.devices != nil && t.tryHold(b, i, end) {
		t.walk.emitted++
		if t.devices.bytes > maxHeld {
			t.devices.flush()
		}
		return
	}
	if r.table.excluded {
		t.stats.Excluded.Add(1)
		t.walk.emitted++
		return
	}
	t.walk.emitted++
	t.finish(r, b, i, end)
}

// finish writes the record r, b[i:end] as received, and emits it.
func (t *Transformer) finish(r *row, b []byte, i, end int) {
	now := t.stats.TimeNow.Load()
	event, err := t.tryWrite(r)
	if err != nil {
		t.unreadable(reasonOf(err), err.Error(), i, b[i:end])
		return
	}
	t.stats.Records.Add(1)
	r.table.counts.records.Add(1)
	if t.stats.TimeNow.Load() == now {
		r.table.counts.delay.observe(t.began - int64(binary.BigEndian.Uint32(event[timeAt:])))
	}
	t.emit(r.table.name, event)
}

// tryRead is read, with a panic as an error: it must cost no more than the record.
func (t *Transformer) tryRead(r *row, b []byte, i int) (end int, err error) {
	defer caught(&err)
	return t.read(r, b, i)
}

// tryHold is observe, with a panic as a no: it must cost no more than the device.
func (t *Transformer) tryHold(b []byte, i, end int) (held bool) {
	var err error
	defer caught(&err)
	return t.devices.observe(b, i, end)
}

// tryWrite writes the event of r, with a panic as an error. The event is valid until the next.
func (t *Transformer) tryWrite(r *row) (event []byte, err error) {
	defer caught(&err)
	event, err = t.write(t.event[:0], r)
	t.event = event
	return event, err
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
	case errors.Is(err, errOutput):
		return reasonOutput
	case errors.Is(err, errEnd):
		return reasonCut
	case errors.Is(err, errNotObject):
		return reasonNotObject
	}
	return reasonSyntax
}

// damage passes on the record that begins at b[i] and cannot be read, and returns where it ends.
func (t *Transformer) damage(b []byte, i, nesting int, err error) int {
	t.walk.damaged = true
	at := t.scanner.at
	next := t.nextRecord(b, i+1)
	end, balanced := skipLoosely(b[:next], i)
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

// other passes on what stands at b[i] where a record should, and returns where it ends.
func (t *Transformer) other(b []byte, i int) int {
	if c := b[i]; c != '}' && c != ']' && !t.walk.tired(b) {
		nodes, end, err := t.scanner.parse(b, i, t.row.nodes[:0])
		t.row.nodes = nodes
		t.walk.effort += end - i
		if err == nil {
			after := skipSpace(b, end)
			if after == len(b) || b[after] == ',' || b[after] == ']' || b[after] == '{' {
				t.unreadable(reasonNotObject, errNotObject.Error(), i, b[i:end])
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

// recordsAfter finds the list of a member "records" from b[i] on, or returns -1. A quote inside a string has a backslash
// before it, so text inside strings is not found.
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

// nextRecord returns where, from b[i] on, the next whole record begins that can be told from an object inside another, or
// len(b).
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
	i = skipSpace(b, i+1)
	if i >= len(b) || b[i] != '"' {
		return false
	}
	rest := b[i+1:]
	n := bytes.IndexByte(rest[:min(len(rest), 64)], '"')
	if n < 0 {
		return false
	}
	key := rest[:n]
	i = skipSpace(rest, n+1)
	if i >= len(rest) || rest[i] != ':' {
		return false
	}
	i = skipSpace(rest, i+1)
	if i >= len(rest) {
		return false
	}
	// The value tells "time" in an envelope from "time" in garbage that is nested on purpose.
	var r row
	if r.slot(key) != nil {
		return rest[i] == '"' || rest[i] == 'n'
	}
	if string(key) == "properties" {
		return rest[i] == '{' || rest[i] == '"'
	}
	return t.walk.keys[0] != nil && bytes.Equal(key, t.walk.keys[0])
}

func (t *Transformer) looksLikeRecord(r *row) bool {
	if r.category != 0 && r.properties != 0 {
		return true
	}
	keys := firstKeys(&r.doc)
	return t.walk.keys[1] != nil && bytes.Equal(keys[0], t.walk.keys[0]) && bytes.Equal(keys[1], t.walk.keys[1])
}

// firstKeys returns the first two keys of an object, in the text of its payload.
func firstKeys(doc *tree) (keys [2][]byte) {
	k, end := uint32(1), doc.nodes[0].next
	for i := 0; i < len(keys) && k < end; i++ {
		keys[i] = doc.inner(k)
		k = doc.nodes[k+1].next
	}
	return keys
}
