package format

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// fieldID numbers the fields of a form in the order in which they are written: an object comes
// before its members.
type fieldID uint16

// wholeEvent is the field that holds all others: the map of the event.
const wholeEvent fieldID = 0

// fieldKind: the kind of a field's values.
type fieldKind uint8

const (
	fieldValue  fieldKind = iota // one value: the first that is set
	fieldList                    // a list of values, in the order in which they are added
	fieldSet                     // a list in which no value comes twice
	fieldObject                  // the fields below it
	fieldOne                     // an object, as the only element of a list
	fieldOpen                    // an object that may get members beside its fields; only in a sheet
)

// form: the tree of all fields that a format can write, compiled once. It is not changed after
// that.
type form struct {
	fields []field
	byName map[string]fieldID      // full names, with dots
	keys   [maxFields][maxKey]byte // by field: the last part of its name, in msgpack
}

type field struct {
	name    string // whole
	keySize uint8
	parent  fieldID
	end     fieldID // the field after this one and all that is below it
	kind    fieldKind
}

// newForm compiles a form. names are full names, "host.os.type"; the objects above a name need not
// be listed. A name that ends in [] is a list, in {} a set, in [0] an object in a list of one.
func newForm(names []string) (*form, error) {
	type node struct {
		name     string
		kind     fieldKind
		listed   bool
		children []*node
	}
	root := &node{kind: fieldObject}
	for _, name := range names {
		kind := fieldValue
		for suffix, k := range map[string]fieldKind{"[]": fieldList, "{}": fieldSet, "[0]": fieldOne} {
			if bare, ok := strings.CutSuffix(name, suffix); ok {
				name, kind = bare, k
				break
			}
		}
		at := root
		parts := strings.Split(name, ".")
		for i, part := range parts {
			if part == "" {
				return nil, fmt.Errorf("%q has an empty part", name)
			}
			if at.kind != fieldObject && at.kind != fieldOne {
				return nil, fmt.Errorf("%s is a value, and %s is below it", at.name, name)
			}
			full := strings.Join(parts[:i+1], ".")
			at2 := slices.IndexFunc(at.children, func(n *node) bool { return n.name == full })
			if at2 < 0 {
				at2 = len(at.children)
				at.children = append(at.children, &node{name: full, kind: fieldObject})
			}
			at = at.children[at2]
			if i < len(parts)-1 {
				continue
			}
			switch {
			case at.listed:
				return nil, fmt.Errorf("%s is listed twice", name)
			case len(at.children) > 0 && kind != fieldOne:
				return nil, fmt.Errorf("%s is a value, and %s is below it", name, at.children[0].name)
			}
			at.listed, at.kind = true, kind
		}
	}
	f := &form{byName: make(map[string]fieldID)}
	var number func(n *node, parent fieldID)
	number = func(n *node, parent fieldID) {
		id := fieldID(len(f.fields))
		f.byName[n.name] = id
		key := msgp.AppendString(nil, n.name[strings.LastIndexByte(n.name, '.')+1:])
		f.fields = append(f.fields, field{name: n.name, keySize: uint8(min(len(key), 255)), parent: parent, kind: n.kind})
		copy(f.keys[id%maxFields][:], key)
		for _, c := range n.children {
			number(c, id)
		}
		f.fields[id].end = fieldID(len(f.fields))
	}
	number(root, wholeEvent)
	if len(f.fields) > maxFields {
		return nil, fmt.Errorf("%d fields are too many", len(f.fields))
	}
	for i := range f.fields {
		if f.fields[i].keySize > maxKey {
			return nil, fmt.Errorf("the last part of %s is longer than %d bytes", f.fields[i].name, maxKey)
		}
	}
	return f, nil
}

// field returns the number of a field by its full name.
func (f *form) field(name string) (fieldID, bool) {
	id, ok := f.byName[name]
	return id, ok
}

// entryKind: how a value that was set is written.
type entryKind uint8

const (
	entryText    entryKind = iota // text
	entryInteger                  // number
	entryBoolean                  // number is 0 or 1
	entryEncoded                  // text is msgpack already
)

// entry: a value that was set. Thirty-two bytes: two share a line of the processor's cache.
type entry struct {
	text   string // a view of the caller's text
	number int64
	next   uint16 // the next one of the same list, or none
	field  fieldID
	source uint16 // the column whose whole value this is, or noSource
	kind   entryKind
}

// none is the number of no entry.
const none = 0xffff

// noSource marks a value that does not hold a column whole: a constant, or a part of one, or one
// that was changed.
const noSource = 0xffff

// maxElements bounds a list. More elements are not added; the whole column then is among the rest.
const maxElements = 500

// maxFields is how many fields a form may have. It is a power of two, so that a place in an array
// of so many needs no check.
const maxFields = 1024

// maxKey is the longest last part of a name, in msgpack.
const maxKey = 48

// sheet: a form that is filled in for one record and then written in one pass. Setting a field also
// counts it in its object, so that every map header is known when its turn comes.
//
// Texts are kept without a copy until reset. Texts that are made for the sheet go into its buffer:
// append to sheet.text and use the appended part.
type sheet struct {
	form    *form
	marks   [maxFields / 64]uint64 // a bit for each field that is set
	slots   [maxFields]slot        // by field
	kinds   [maxFields]fieldKind   // by field, from the form
	entries []entry
	taken   []bool // by source: a field holds it whole. As long as there are sources
	text    []byte
	size    int // bytes of the texts in entries

	layouts map[[maxFields / 64]uint64]int // by marks: which of kept
	kept    []keptLayout
	next    int    // which of kept gives way
	spare   layout // one that is too long to be kept
}

// slot: the state of a field in a sheet, and its parent from the form. It is small because an event
// touches a hundred of them, far apart.
type slot struct {
	members     uint16 // of an object: how many fields are set in it; of a list: how many elements it has
	first, last uint16 // entries of a value or list, or none
	parent      fieldID
}

func newSheet(f *form) *sheet {
	s := &sheet{form: f, layouts: make(map[[maxFields / 64]uint64]int)}
	for i := range f.fields {
		s.slots[i].parent, s.kinds[i] = f.fields[i].parent, f.fields[i].kind
	}
	return s
}

// reset empties the sheet for the next record.
func (s *sheet) reset() {
	clear(s.marks[:])
	s.slots[wholeEvent].members = 0
	s.marks[0] = 1
	clear(s.taken)
	s.entries = s.entries[:0]
	s.text = s.text[:0]
	s.size = 0
}

// release gives back the memory that a giant record needed, and forgets the texts of the last one.
func (s *sheet) release() {
	const keep = 4096
	s.reset()
	if cap(s.entries) > keep {
		s.entries = nil
	}
	clear(s.entries[:cap(s.entries)])
	if cap(s.text) > keep*64 {
		s.text = nil
	}
}

// has reports whether a field, or anything in an object, is set.
func (s *sheet) has(f fieldID) bool { return s.marks[f/64%(maxFields/64)]&(1<<(f%64)) != 0 }

// slot returns the slot of a field.
func (s *sheet) slot(f fieldID) *slot { return &s.slots[f%maxFields] }

// set sets the bit of a field.
func (s *sheet) set(f fieldID) { s.marks[f/64%(maxFields/64)] |= 1 << (f % 64) }

// mark sets an object that is not set, without members, and the objects around it.
func (s *sheet) mark(f fieldID) {
	s.set(f)
	at := s.slot(f)
	at.members, at.first = 0, none
	s.join(at.parent)
}

// join counts one more member of an object, which is set with the objects around it if it is not.
// It returns true.
func (s *sheet) join(f fieldID) bool {
	for ; !s.has(f); f = s.slot(f).parent {
		s.set(f)
		at := s.slot(f)
		at.members, at.first = 1, none
	}
	s.slot(f).members++
	return true
}

// put adds an entry, and reports whether the field has this value now. A field of one value keeps
// the first. Nothing is done after a call, so the arguments stay in registers.
func (s *sheet) put(f fieldID, kind entryKind, text string, number int64, source uint16) bool {
	n := len(s.entries)
	if s.has(f) || n == cap(s.entries) {
		return s.putBeside(f, kind, text, number, source)
	}
	s.entries = s.entries[:n+1]
	s.fill(n, f, kind, text, number, source)
	s.set(f)
	at := s.slot(f)
	at.members, at.first, at.last = 1, uint16(n), uint16(n)
	s.take(source)
	if s.has(at.parent) { // as most are
		s.slot(at.parent).members++
		return true
	}
	return s.join(at.parent)
}

// take notes that a field holds a source whole.
func (s *sheet) take(source uint16) {
	if source != noSource {
		s.taken[source] = true
	}
}

// putBeside is put for a field that is set, or when there is no room.
func (s *sheet) putBeside(f fieldID, kind entryKind, text string, number int64, source uint16) bool {
	if !s.has(f) {
		return s.grow() && s.put(f, kind, text, number, source)
	}
	in, into := s.slot(f), s.kinds[f%maxFields]
	if into != fieldList {
		for at := in.first; at != none; at = s.entries[at].next {
			if e := &s.entries[at]; e.kind == kind && e.number == number && e.text == text {
				if source != noSource { // so it holds that column, too: an entry that nothing writes
					s.add(f, kind, text, number, source)
					s.take(source)
				}
				return true
			}
		}
		if into == fieldValue {
			return false
		}
	}
	if in.members >= maxElements {
		return false
	}
	n := s.add(f, kind, text, number, source)
	if n == none {
		return false
	}
	s.entries[in.last].next = n
	in.last = n
	in.members++
	s.take(source)
	return true
}

// add appends an entry, and returns its number, or none if there are too many.
func (s *sheet) add(f fieldID, kind entryKind, text string, number int64, source uint16) uint16 {
	n := len(s.entries)
	if n == cap(s.entries) && !s.grow() {
		return none
	}
	s.entries = s.entries[:n+1]
	s.fill(n, f, kind, text, number, source)
	return uint16(n)
}

// grow makes room for an entry, and reports false if there are too many.
func (s *sheet) grow() bool {
	if len(s.entries) >= none {
		return false
	}
	s.entries = slices.Grow(s.entries, 1)
	if cap(s.entries) > none {
		s.entries = s.entries[:len(s.entries):none]
	}
	return true
}

// fill fills in entry n. As an argument of append it would be copied twice.
func (s *sheet) fill(n int, f fieldID, kind entryKind, text string, number int64, source uint16) {
	s.size += len(text)
	e := &s.entries[n]
	e.text, e.number, e.next, e.field, e.source, e.kind = text, number, none, f, source, kind
}

// Each of these sets a field, or adds to a list. It reports whether the value is there now: set by
// this call, or there before. source is the column that the value holds whole, or noSource. An
// empty text is not set.

func (s *sheet) setText(f fieldID, text []byte, source uint16) bool {
	return len(text) > 0 && s.put(f, entryText, view(text), 0, source)
}

func (s *sheet) setWord(f fieldID, text string) bool {
	return s.put(f, entryText, text, 0, noSource)
}

func (s *sheet) setInteger(f fieldID, n int64, source uint16) bool {
	return s.put(f, entryInteger, "", n, source)
}

func (s *sheet) setBoolean(f fieldID, b bool, source uint16) bool {
	n := int64(0)
	if b {
		n = 1
	}
	return s.put(f, entryBoolean, "", n, source)
}

func (s *sheet) setEncoded(f fieldID, value []byte, source uint16) bool {
	return s.put(f, entryEncoded, view(value), 0, source)
}

// textOf returns the first value of a field, if it is a text.
func (s *sheet) textOf(f fieldID) []byte {
	if !s.has(f) {
		return nil
	}
	first := s.slot(f).first
	if first == none || s.entries[first].kind != entryText {
		return nil
	}
	return bytesOf(s.entries[first].text)
}

// drop takes back a field with all that is below it, and the objects that are empty then.
func (s *sheet) drop(f fieldID) {
	clear(s.taken)
	for i := range s.entries {
		switch e := &s.entries[i]; {
		case e.source == noSource:
		case f <= e.field && e.field < s.form.fields[f].end:
			e.source = noSource
		default:
			s.taken[e.source] = true
		}
	}
	for f != wholeEvent && s.has(f) {
		for at := f; at < s.form.fields[f].end; at++ {
			s.marks[at/64%(maxFields/64)] &^= 1 << (at % 64)
		}
		f = s.slot(f).parent
		in := s.slot(f)
		in.members--
		if in.members > 0 {
			return
		}
	}
}

// layout: what is the same in all events with the same fields: their keys, and the headers of their
// objects. So an event is a row of copies, and no field is looked up in the form.
type layout []layoutStep

// layoutStep: keys and headers, and the field whose value comes behind them.
type layoutStep struct {
	keys  [maxKey]byte
	size  uint8     // of keys
	kind  fieldKind // of the field; fieldObject if nothing comes behind the keys
	field fieldID
}

// maxLayouts and maxLaid bound the layouts that are kept, since fields come from outside. A usual
// event has 40 steps, so that 512 layouts take a megabyte. They take three and a half at most.
const (
	maxLayouts = 512
	maxLaid    = 128 // steps
)

type keptLayout struct {
	marks [maxFields / 64]uint64
	steps layout
}

// layout returns the layout of the fields that are set, valid until the next call. A new one takes
// the place of the oldest one, and its memory: real tenants leave columns empty in a thousand ways.
func (s *sheet) layout() layout {
	if i, ok := s.layouts[s.marks]; ok {
		return s.kept[i].steps
	}
	if s.spare = s.lay(s.spare[:0]); len(s.spare) > maxLaid {
		return s.spare
	}
	i := s.next
	s.next = (i + 1) % maxLayouts
	if i == len(s.kept) {
		s.kept = append(s.kept, keptLayout{})
	} else {
		delete(s.layouts, s.kept[i].marks)
	}
	k := &s.kept[i]
	k.marks, k.steps = s.marks, append(k.steps[:0], s.spare...)
	s.layouts[s.marks] = i
	return k.steps
}

// lay appends the layout of the fields that are set. It uses the memory of earlier steps again.
func (s *sheet) lay(steps layout) layout {
	var header [4]byte
	open := func() *layoutStep {
		steps = slices.Grow(steps, 1)[:len(steps)+1]
		step := &steps[len(steps)-1]
		step.size = 0
		return step
	}
	step := open()
	add := func(b []byte) {
		if int(step.size)+len(b) > maxKey {
			step.field, step.kind = wholeEvent, fieldObject
			step = open()
		}
		step.size += uint8(copy(step.keys[step.size:], b))
	}
	for w, word := range s.marks {
		if w == 0 {
			word &^= 1
		}
		for ; word != 0; word &= word - 1 {
			id := fieldID(w*64 + bits.TrailingZeros64(word))
			at := s.slot(id)
			add(s.form.keys[id%maxFields][:s.form.fields[id].keySize])
			switch kind := s.kinds[id%maxFields]; kind {
			case fieldOne:
				add(msgp.AppendMapHeader(append(header[:0], 0x91), uint32(at.members)))
			case fieldObject:
				add(msgp.AppendMapHeader(header[:0], uint32(at.members)))
			default:
				step.field, step.kind = id, kind
				step = open()
			}
		}
	}
	return steps[:len(steps)-1]
}

// appendTo appends the members of the event's map, without its header, and returns how many there
// are. more has members of open objects that are no fields of the form.
//
// There is room for all before the first byte is written. So keys are copied as arrays of their
// largest size: a few instructions and no call. The extra bytes are then written over.
func (s *sheet) appendTo(dst []byte, more []moreMembers) ([]byte, uint32) {
	const perStep, perEntry = maxKey + 5, 9 // keys, and the header of a list or map; the header of a value, or a number
	l := s.layout()
	room := len(l)*perStep + len(s.entries)*perEntry + s.size + maxStep
	for i := range more {
		room += len(more[i].text)
	}
	n := len(dst)
	out := slices.Grow(dst, room)
	out = out[:cap(out)]
	for i := range l {
		step := &l[i]
		to := (*[maxStep]byte)(out[n:])
		*(*[16]byte)(to[:]) = *(*[16]byte)(step.keys[:])
		if step.size > 16 {
			*(*[16]byte)(to[16:]) = *(*[16]byte)(step.keys[16:])
			*(*[16]byte)(to[32:]) = *(*[16]byte)(step.keys[32:])
		}
		n += int(step.size)
		if step.kind != fieldValue {
			n = s.putMany(out, n, step.field, more)
			continue
		}
		e := &s.entries[s.slots[step.field%maxFields].first]
		if size := len(e.text); e.kind == entryText && size < 32 { // as most are
			to[step.size%maxStep] = 0xa0 | byte(size)
			n += 1 + copy(out[n+1:], e.text)
		} else {
			n = putEntry(out, n, e)
		}
	}
	return out[:n], uint32(s.slots[wholeEvent].members)
}

// maxStep is more than keys, and a power of two.
const maxStep = 64

// putMany writes a list, or an open object, to out[n:], where there is room. It returns where that
// ends.
func (s *sheet) putMany(out []byte, n int, id fieldID, more []moreMembers) int {
	at, kind := s.slot(id), s.kinds[id%maxFields]
	if kind == fieldObject {
		return n
	}
	if kind == fieldOpen {
		members, beside := uint32(at.members), []byte(nil)
		for i := range more {
			if more[i].in == id {
				members, beside = members+more[i].count, more[i].text
			}
		}
		return len(append(msgp.AppendMapHeader(out[:n], members), beside...))
	}
	if at.members < 16 {
		out[n] = 0x90 | byte(at.members)
		n++
	} else {
		n = len(msgp.AppendArrayHeader(out[:n], uint32(at.members)))
	}
	for next := at.first; next != none; next = s.entries[next].next {
		n = putEntry(out, n, &s.entries[next])
	}
	return n
}

// putEntry writes a value to out[n:], where there is room, and returns where it ends.
func putEntry(out []byte, n int, e *entry) int {
	switch out = out[:n]; e.kind {
	case entryText:
		switch n := len(e.text); {
		case n < 32:
			return len(append(append(out, 0xa0|byte(n)), e.text...))
		case n < 256:
			return len(append(append(out, 0xd9, byte(n)), e.text...))
		}
		return len(msgp.AppendString(out, e.text))
	case entryInteger:
		return len(msgp.AppendInt64(out, e.number))
	case entryBoolean:
		return len(msgp.AppendBool(out, e.number != 0))
	}
	return len(append(out, e.text...))
}

// moreMembers: members of an object that are known only when a record is read.
type moreMembers struct {
	in    fieldID // must be set
	count uint32
	text  []byte // keys and values, in msgpack
}

func (m *moreMembers) reset() {
	m.count, m.text = 0, m.text[:0]
	if cap(m.text) > record.KeepBytes {
		m.text = nil
	}
}

// add adds a member. Both are msgpack.
func (m *moreMembers) add(key, value []byte) {
	m.text = append(append(m.text, key...), value...)
	m.count++
}

// addText adds a member that is a text.
func (m *moreMembers) addText(key, text []byte) {
	m.text = append(m.text, key...)
	switch n := len(text); {
	case n < 32:
		m.text = append(append(m.text, 0xa0|byte(n)), text...)
	case n < 256:
		m.text = append(append(m.text, 0xd9, byte(n)), text...)
	default:
		m.text = msgp.AppendStringFromBytes(m.text, text)
	}
	m.count++
}

// addInteger adds a member that is an integer.
func (m *moreMembers) addInteger(key []byte, i int64) {
	m.text = msgp.AppendInt64(append(m.text, key...), i)
	m.count++
}

// addBoolean adds a member that is a boolean.
func (m *moreMembers) addBoolean(key []byte, b bool) {
	m.text = msgp.AppendBool(append(m.text, key...), b)
	m.count++
}
