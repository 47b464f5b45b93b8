package format

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"
)

// fieldID numbers the fields of a form in the order in which they are written: an object comes
// before what is in it.
type fieldID uint16

// wholeEvent is the field that holds all others: the map of the event.
const wholeEvent fieldID = 0

// fieldKind: what a field holds.
type fieldKind uint8

const (
	fieldValue  fieldKind = iota // one value: the first that is set
	fieldList                    // a list of values, in the order in which they are added
	fieldSet                     // a list in which no value comes twice
	fieldObject                  // the fields below it
	fieldOne                     // an object, as the only element of a list
)

// form: the tree of all fields that a format can write, compiled once. It is not changed after
// that.
type form struct {
	fields []field
	byName map[string]fieldID // full names, with dots
}

type field struct {
	name   string // whole
	key    []byte // last part of the name, in msgpack
	parent fieldID
	end    fieldID // the field after this one and all that is below it
	kind   fieldKind
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
		f.fields = append(f.fields, field{name: n.name, key: msgp.AppendString(nil, n.name[strings.LastIndexByte(n.name, '.')+1:]), parent: parent, kind: n.kind})
		for _, c := range n.children {
			number(c, id)
		}
		f.fields[id].end = fieldID(len(f.fields))
	}
	number(root, wholeEvent)
	if len(f.fields) > 1<<15 {
		return nil, fmt.Errorf("%d fields are too many", len(f.fields))
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

type entry struct {
	text   []byte
	number int64
	next   int32 // the next one of the same list, or -1
	field  fieldID
	source uint16 // the column whose whole value this is, or noSource
	kind   entryKind
}

// noSource marks a value that does not hold a column whole: a constant, or a part of one, or one
// that was changed.
const noSource = 0xffff

// maxElements bounds a list: what is beyond it is not added, and the column stays where it is
// whole.
const maxElements = 500

// sheet: a form that is filled in for one record and then written in one pass. Setting a field also
// counts it in its object, so that every map header is known when its turn comes.
//
// Texts are kept as they are passed, without a copy, until reset. Texts that are made for the sheet
// go into its buffer: append to sheet.text and take what was appended.
type sheet struct {
	form    *form
	marks   []uint64 // a bit for each field that is set
	slots   []slot   // by field
	entries []entry
	text    []byte
}

// slot: what a sheet knows of a field that is set.
type slot struct {
	members     uint32 // of an object: how many fields are set in it; of a list: how many elements it has
	first, last int32  // entries of a value or list; -1 for none
	parent      fieldID
	kind        fieldKind
}

func newSheet(f *form) *sheet {
	s := &sheet{form: f, marks: make([]uint64, (len(f.fields)+63)/64), slots: make([]slot, len(f.fields))}
	for i := range s.slots {
		s.slots[i].parent, s.slots[i].kind = f.fields[i].parent, f.fields[i].kind
	}
	return s
}

// reset empties the sheet for the next record.
func (s *sheet) reset() {
	clear(s.marks)
	s.slots[wholeEvent].members = 0
	s.marks[0] = 1
	s.entries = s.entries[:0]
	s.text = s.text[:0]
}

// release gives back what a giant record needed, and forgets the texts of the last one.
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
func (s *sheet) has(f fieldID) bool { return s.marks[f/64]&(1<<(f%64)) != 0 }

// mark sets a field that is not set, and the objects around it.
func (s *sheet) mark(f fieldID) {
	for below := uint32(0); ; below = 1 {
		at := &s.slots[f]
		s.marks[f/64] |= 1 << (f % 64)
		at.members, at.first = below, -1
		if f = at.parent; s.has(f) {
			s.slots[f].members++
			return
		}
	}
}

// put adds an entry, and reports whether the field has this value now. A field of one value keeps
// the first.
func (s *sheet) put(e entry) bool {
	e.next = -1
	f := e.field
	in := &s.slots[f]
	if !s.has(f) {
		s.mark(f)
	} else if in.kind != fieldList {
		for at := in.first; at >= 0; at = s.entries[at].next {
			if s.entries[at].same(&e) {
				if e.source != noSource { // so it holds that column, too: an entry that nothing writes
					s.entries = append(s.entries, e)
				}
				return true
			}
		}
		if in.kind == fieldValue {
			return false
		}
	}
	if in.members >= maxElements {
		return false
	}
	at := int32(len(s.entries))
	s.entries = append(s.entries, e)
	if in.first < 0 {
		in.first = at
	} else {
		s.entries[in.last].next = at
	}
	in.last = at
	in.members++
	return true
}

func (e *entry) same(o *entry) bool {
	return e.kind == o.kind && e.number == o.number && bytes.Equal(e.text, o.text)
}

// Each of these sets a field, or adds to a list, and reports whether the value is there now: set by
// this call, or equal to what is. source is the column that the value holds whole, or noSource. An
// empty text is not set.

func (s *sheet) setText(f fieldID, text []byte, source uint16) bool {
	return len(text) > 0 && s.put(entry{field: f, kind: entryText, text: text, source: source})
}

func (s *sheet) setWord(f fieldID, text string) bool {
	return s.put(entry{field: f, kind: entryText, text: bytesOf(text), source: noSource})
}

func (s *sheet) setInteger(f fieldID, n int64, source uint16) bool {
	return s.put(entry{field: f, kind: entryInteger, number: n, source: source})
}

func (s *sheet) setBoolean(f fieldID, b bool, source uint16) bool {
	n := int64(0)
	if b {
		n = 1
	}
	return s.put(entry{field: f, kind: entryBoolean, number: n, source: source})
}

func (s *sheet) setEncoded(f fieldID, value []byte, source uint16) bool {
	return s.put(entry{field: f, kind: entryEncoded, text: value, source: source})
}

// textOf returns the first value of a field, if it is a text.
func (s *sheet) textOf(f fieldID) []byte {
	if !s.has(f) || s.slots[f].first < 0 || s.entries[s.slots[f].first].kind != entryText {
		return nil
	}
	return s.entries[s.slots[f].first].text
}

// drop takes back a field with all that is below it, and the objects that are empty then.
func (s *sheet) drop(f fieldID) {
	for i := range s.entries {
		if e := &s.entries[i]; f <= e.field && e.field < s.form.fields[f].end {
			e.source = noSource
		}
	}
	for f != wholeEvent && s.has(f) {
		for at := f; at < s.form.fields[f].end; at++ {
			s.marks[at/64] &^= 1 << (at % 64)
		}
		f = s.slots[f].parent
		s.slots[f].members--
		if s.slots[f].members > 0 {
			return
		}
	}
}

// held sets taken for every column that a field holds whole.
func (s *sheet) held(taken []bool) {
	for i := range s.entries {
		if e := &s.entries[i]; e.source != noSource {
			taken[e.source] = true
		}
	}
}

// appendTo appends the members of the event's map, without its header, and returns how many there
// are. more has members of objects that are no fields of the form.
func (s *sheet) appendTo(dst []byte, more []moreMembers) ([]byte, uint32) {
	for w, word := range s.marks {
		if w == 0 {
			word &^= 1
		}
		for ; word != 0; word &= word - 1 {
			id := fieldID(w*64 + bits.TrailingZeros64(word))
			f := &s.form.fields[id]
			dst = append(dst, f.key...)
			switch f.kind {
			case fieldOne:
				dst = append(dst, 0x91)
				fallthrough
			case fieldObject:
				n, here := s.slots[id].members, -1
				for i := range more {
					if more[i].in == id {
						n, here = n+more[i].count, i
					}
				}
				dst = msgp.AppendMapHeader(dst, n)
				if here >= 0 {
					dst = more[here].append(dst)
				}
			case fieldValue:
				dst = appendEntry(dst, &s.entries[s.slots[id].first])
			default:
				dst = msgp.AppendArrayHeader(dst, s.slots[id].members)
				for at := s.slots[id].first; at >= 0; at = s.entries[at].next {
					dst = appendEntry(dst, &s.entries[at])
				}
			}
		}
	}
	return dst, s.slots[wholeEvent].members
}

// moreMembers: members of an object that are known only when a record is read.
type moreMembers struct {
	in     fieldID // must be set
	count  uint32
	append func(dst []byte) []byte
}

func appendEntry(dst []byte, e *entry) []byte {
	switch e.kind {
	case entryText:
		return msgp.AppendStringFromBytes(dst, e.text)
	case entryInteger:
		return msgp.AppendInt64(dst, e.number)
	case entryBoolean:
		return msgp.AppendBool(dst, e.number != 0)
	}
	return append(dst, e.text...)
}
