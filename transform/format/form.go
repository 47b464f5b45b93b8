package format

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"
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
	entries []entry
	taken   []bool // by source: a field holds it whole. As long as there are sources
	text    []byte
	size    int // bytes of the texts in entries
}

// slot: the state of a field in a sheet, and beside it the field's properties from the form. It is
// small because an event touches a hundred of them, far apart.
type slot struct {
	members     uint16 // of an object: how many fields are set in it; of a list: how many elements it has
	first, last uint16 // entries of a value or list, or none
	parent      fieldID
	keySize     uint8
	kind        fieldKind
}

func newSheet(f *form) *sheet {
	s := &sheet{form: f}
	for i := range f.fields {
		at := &s.slots[i]
		at.parent, at.kind, at.keySize = f.fields[i].parent, f.fields[i].kind, f.fields[i].keySize
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
func (s *sheet) join(f fieldID) {
	for ; !s.has(f); f = s.slot(f).parent {
		s.set(f)
		at := s.slot(f)
		at.members, at.first = 1, none
	}
	s.slot(f).members++
}

// put adds an entry, and reports whether the field has this value now. A field of one value keeps
// the first.
func (s *sheet) put(f fieldID, kind entryKind, text string, number int64, source uint16) bool {
	if s.has(f) {
		return s.putBeside(f, kind, text, number, source)
	}
	n := s.add(f, kind, text, number, source)
	if n == none {
		return false
	}
	s.set(f)
	at := s.slot(f)
	at.members, at.first, at.last = 1, n, n
	s.join(at.parent)
	s.take(source)
	return true
}

// take notes that a field holds a source whole.
func (s *sheet) take(source uint16) {
	if source != noSource {
		s.taken[source] = true
	}
}

// putBeside is put for a field that is set.
func (s *sheet) putBeside(f fieldID, kind entryKind, text string, number int64, source uint16) bool {
	in := s.slot(f)
	if in.kind != fieldList {
		for at := in.first; at != none; at = s.entries[at].next {
			if e := &s.entries[at]; e.kind == kind && e.number == number && e.text == text {
				if source != noSource { // so it holds that column, too: an entry that nothing writes
					s.add(f, kind, text, number, source)
					s.take(source)
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

// add appends an entry, and returns its number, or none if there are too many. The entry is filled
// in place: as an argument of append it would be copied twice.
func (s *sheet) add(f fieldID, kind entryKind, text string, number int64, source uint16) uint16 {
	n := len(s.entries)
	switch {
	case n < cap(s.entries):
		s.entries = s.entries[:n+1]
	case n >= none:
		return none
	default:
		s.entries = append(s.entries, entry{})
	}
	s.size += len(text)
	e := &s.entries[n]
	e.text, e.number, e.next, e.field, e.source, e.kind = text, number, none, f, source, kind
	return uint16(n)
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

// appendTo appends the members of the event's map, without its header, and returns how many there
// are. more has members of open objects that are no fields of the form.
//
// There is room for all before the first byte is written. So a key is copied as an array of its
// largest size: two instructions and no call. The extra bytes are then written over.
func (s *sheet) appendTo(dst []byte, more []moreMembers) ([]byte, uint32) {
	const perField, perEntry = maxKey + 4, 9 // a key and the header of a map; the header of a value, or a number
	marked := 0
	for _, word := range s.marks {
		marked += bits.OnesCount64(word)
	}
	room := marked*perField + len(s.entries)*perEntry + s.size + maxKey
	dst = slices.Grow(dst, room)
	for w, word := range s.marks {
		if w == 0 {
			word &^= 1
		}
		for ; word != 0; word &= word - 1 {
			id := fieldID(w*64 + bits.TrailingZeros64(word))
			at, key := s.slot(id), &s.form.keys[id%maxFields]
			n, size := len(dst), int(at.keySize)
			to := dst[n : n+maxKey]
			*(*[16]byte)(to) = *(*[16]byte)(key[:16])
			if size > 16 {
				copy(to[16:], key[16:size])
			}
			dst = dst[:n+size]
			switch at.kind {
			case fieldValue:
				e := &s.entries[at.first]
				if e.kind == entryText && len(e.text) < 32 { // as most are
					dst = append(append(dst, 0xa0|byte(len(e.text))), e.text...)
				} else {
					dst = appendEntry(dst, e)
				}
			case fieldObject, fieldOne:
				if at.kind == fieldOne {
					dst = append(dst, 0x91)
				}
				if at.members < 16 {
					dst = append(dst, 0x80|byte(at.members))
				} else {
					dst = msgp.AppendMapHeader(dst, uint32(at.members))
				}
			case fieldOpen:
				members, here := uint32(at.members), -1
				for i := range more {
					if more[i].in == id {
						members, here = members+more[i].count, i
					}
				}
				dst = msgp.AppendMapHeader(dst, members)
				if here >= 0 {
					dst = slices.Grow(more[here].append(dst), room)
				}
			default:
				dst = msgp.AppendArrayHeader(dst, uint32(at.members))
				for next := at.first; next != none; next = s.entries[next].next {
					dst = appendEntry(dst, &s.entries[next])
				}
			}
		}
	}
	return dst, uint32(s.slots[wholeEvent].members)
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
		switch n := len(e.text); {
		case n < 32:
			return append(append(dst, 0xa0|byte(n)), e.text...)
		case n < 256:
			return append(append(dst, 0xd9, byte(n)), e.text...)
		}
		return msgp.AppendString(dst, e.text)
	case entryInteger:
		return msgp.AppendInt64(dst, e.number)
	case entryBoolean:
		return msgp.AppendBool(dst, e.number != 0)
	}
	return append(dst, e.text...)
}
