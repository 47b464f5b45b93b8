package event

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Names is a cache from a key of the input, and the path above it, to the encoded name of a field.
// It also knows which names the map being written has already.
//
// Names come from outside, so the cache is bounded. It is reset between two records when it has
// grown beyond maxNames or maxNameBytes. One record may add about as much again, see room.
type Names struct {
	separator string
	verbatim  bool     // keys stay as they were received
	own       []string // beginnings of names that are ours, see Own
	room      int      // bytes that the record being written may still add
	seed      maphash.Seed
	slots     []int32 // open addressing, index into links, -1 for none
	links     []link
	list      []entry
	byFull    map[fullName]Name
	bytes     int
	era       uint32 // how often everything was forgotten
	scratch   []byte
}

const (
	maxNames     = 1 << 14
	maxNameBytes = 2 << 20

	// A name takes this much beside its text: its entry, its link and its slots in two maps.
	nameOverhead = 256

	// maxRecordNames: bytes of names that one record may add, enough for ten thousand or so. A
	// record with more is too large to be written member by member.
	maxRecordNames = maxNames * nameOverhead

	// maxLinkBytes: the longest key that is remembered as it was received. Documented ones have up
	// to 50.
	maxLinkBytes = 512
)

// A Name is a name of a field, in the Names that it comes from.
type Name int32

// Root is the empty name that the names of one map begin with. The record's own map is root 0. Maps
// in its lists have roots of their own by level, so that an inner map does not disturb the outer
// one.
func Root(level int) Name { return Name(level) }

// The names of our own fields come first, so that they need no look-up.
const (
	NameTable Name = MaxDepth + 1 + iota
	NameTenantID
	NameExportedAt
	NameReceivedAt
	NameEventID
	NameOperationName
	NameTenantName
	NameCategory
	NameRepairedText
	NameReason
	NameRaw
	NameEncoding
	NameLane
	NameOffset
	NameAt
	NamePart
	NameParts
)

var ownNames = [...]string{
	"table", "tenant_id", "exported_at", "received_at", "event_id", "operation_name", "tenant_name", "category", "repaired_text",
	"unreadable_reason", "unreadable_raw", "unreadable_encoding", "unreadable_lane", "unreadable_offset", "unreadable_at",
	"unreadable_part", "unreadable_parts",
}

// ownPrefix begins the names of the fields of unreadable text, future ones included.
const ownPrefix = "unreadable_"

type fullName struct {
	root Name
	text string
}

type entry struct {
	text   string // whole, without the root
	key    []byte // text in msgpack
	root   Name
	class  record.Class
	own    bool   // a field of ours: content gets the next free name, also where ours is not written
	seen   uint32 // the map that has this name, by generation
	beside uint32 // own: the map that has names beside this one, by generation
	copies uint32 // how many more of it that map has
	raw    Name   // text with _raw behind it, or 0
}

// A link leads from a name and a key of the input, as received, to the name below.
type link struct {
	parent Name
	child  Name
	next   int32 // the link that was last followed under the same parent after this one: columns keep their order
	hash   uint32
	raw    string
}

func NewNames(separator string) *Names {
	ns := &Names{separator: separator, seed: maphash.MakeSeed()}
	ns.Reset()
	return ns
}

// NewVerbatimNames returns Names for a format that nests objects as received: keys keep their dots.
func NewVerbatimNames() *Names {
	ns := NewNames("")
	ns.verbatim = true
	ns.Reset()
	return ns
}

// Text is the name as text.
func (ns *Names) Text(id Name) string { return ns.list[id].text }

// Reset forgets all names. No map may be under way.
func (ns *Names) Reset() {
	ns.era++
	ns.slots = make([]int32, 1024)
	for i := range ns.slots {
		ns.slots[i] = -1
	}
	ns.links = nil
	ns.list = make([]entry, MaxDepth+1, 512)
	for i := range ns.list {
		ns.list[i].root = Name(i)
	}
	ns.byFull = make(map[fullName]Name)
	ns.bytes = 0
	if cap(ns.scratch) > record.KeepBytes {
		ns.scratch = nil
	}
	for _, own := range ownNames {
		ns.ID(Root(0), []byte(own))
	}
	ns.begin()
}

// begin starts a record.
func (ns *Names) begin() { ns.room = maxRecordNames }

// Own keeps all names of the record's own map that begin with prefix for fields of ours. A member
// of the record with such a name gets _2 behind it. Own must be called before any record is
// written.
func (ns *Names) Own(prefix string) {
	ns.own = append(ns.own, prefix)
	ns.Reset()
}

// isOwn reports whether a name of the record's own map is kept for a field of ours.
func (ns *Names) isOwn(text string) bool {
	if ns.verbatim && text == ownNames[NameCategory-NameTable] {
		return false // the record's own, unchanged
	}
	if strings.HasPrefix(text, ownPrefix) || slices.Contains(ownNames[:], text) {
		return true
	}
	for _, prefix := range ns.own {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

// Full reports whether the cache should be reset before the next record.
func (ns *Names) Full() bool {
	return len(ns.links) > maxNames || len(ns.list) > maxNames || ns.bytes > maxNameBytes
}

// child returns the name of a member of parent. key is the text between the quotes. hint is the
// link of the member before it, or -1. The link that was used is returned, to be the next hint.
func (ns *Names) child(parent Name, key []byte, hint int32) (Name, int32) {
	if hint >= 0 {
		if next := ns.links[hint].next; next >= 0 {
			if l := &ns.links[next]; l.raw == string(key) {
				return l.child, next // of the same parent, since it followed one of the same parent
			}
		}
	}
	h := uint32(maphash.Bytes(ns.seed, key)) ^ uint32(parent)*0x9e3779b1
	mask := uint32(len(ns.slots) - 1)
	i := h & mask
	for ; ns.slots[i] >= 0; i = (i + 1) & mask {
		at := ns.slots[i]
		if l := &ns.links[at]; l.hash == h && l.parent == parent && l.raw == string(key) {
			if hint >= 0 {
				ns.links[hint].next = at
			}
			return l.child, at
		}
	}
	if len(key) > maxLinkBytes {
		return ns.join(parent, key), -1
	}
	at := int32(len(ns.links))
	ns.links = append(ns.links, link{parent: parent, child: ns.join(parent, key), next: -1, hash: h, raw: string(key)})
	ns.bytes += len(key)
	ns.room -= len(key) + nameOverhead
	ns.slots[i] = at
	if 2*len(ns.links) > len(ns.slots) {
		ns.grow()
	}
	if hint >= 0 {
		ns.links[hint].next = at
	}
	return ns.links[at].child, at
}

func (ns *Names) grow() {
	ns.slots = make([]int32, 2*len(ns.slots))
	for i := range ns.slots {
		ns.slots[i] = -1
	}
	mask := uint32(len(ns.slots) - 1)
	for at := range ns.links {
		i := ns.links[at].hash & mask
		for ns.slots[i] >= 0 {
			i = (i + 1) & mask
		}
		ns.slots[i] = int32(at)
	}
}

// maxKeyBytes: how much of a key goes into a name. 16 levels of such keys and a value of 8,000
// characters still make a term that Lucene takes (32,766 bytes). Elasticsearch refuses the whole
// record otherwise.
const maxKeyBytes = 500

// join makes the name of a member. Elasticsearch and OpenSearch refuse a record over one name that
// they do not like (examples/mapping_test.go). So:
//
//   - a dot inside a key becomes _, since a dot means "inside", and so does a NUL;
//   - a key without a visible character becomes _;
//   - a column loses the _ or @ in front of its name: _id, _source, @timestamp are the index's own.
func (ns *Names) join(parent Name, key []byte) Name {
	p := &ns.list[parent]
	b := append(ns.scratch[:0], p.text...)
	if len(b) > 0 {
		b = append(b, ns.separator...)
	}
	from := len(b)
	b, _ = record.AppendText(b, key)
	if len(b)-from > maxKeyBytes {
		n := maxKeyBytes
		for n > 0 && !utf8.RuneStart(b[from+n]) {
			n--
		}
		b = b[:from+n]
	}
	if ns.verbatim {
		ns.scratch = b
		return ns.ID(p.root, b)
	}
	if parent == Root(0) {
		own := 0
		for from+own < len(b)-1 && (b[from+own] == '_' || b[from+own] == '@') {
			own++
		}
		b = append(b[:from], b[from+own:]...)
	}
	for i := from; i < len(b); i++ {
		if b[i] == '.' || b[i] == 0 {
			b[i] = '_'
		}
	}
	if len(bytes.TrimFunc(b[from:], isBlank)) == 0 {
		b = append(b[:from], '_')
	}
	ns.scratch = b
	return ns.ID(p.root, b)
}

// isBlank reports what Java or Go takes for white space: the index is written in Java.
func isBlank(r rune) bool { return r <= ' ' || unicode.IsSpace(r) }

// ID returns the name with this text.
func (ns *Names) ID(root Name, text []byte) Name {
	if id, ok := ns.byFull[fullName{root, string(text)}]; ok {
		return id
	}
	id := Name(len(ns.list))
	n := entry{text: string(text), root: root}
	n.key = msgp.AppendString(nil, n.text)
	if root == 0 {
		n.class = record.ClassOf(n.text)
		n.own = ns.isOwn(n.text)
		if n.own && n.class == record.ClassAny && slices.Contains(ownNames[:], n.text) {
			n.class = record.ClassText // a column that has the name of a field of ours is no object, or the name would be two things
		}
	}
	ns.list = append(ns.list, n)
	ns.byFull[fullName{root, n.text}] = id
	ns.bytes += 3 * len(text)
	ns.room -= 3*len(text) + nameOverhead
	return id
}

// rawOf returns the name for what does not fit the column.
func (ns *Names) rawOf(id Name) Name {
	if ns.list[id].raw == 0 {
		ns.scratch = append(append(ns.scratch[:0], ns.list[id].text...), "_raw"...)
		raw := ns.ID(ns.list[id].root, ns.scratch)
		ns.list[id].raw = raw
	}
	return ns.list[id].raw
}

// take returns the name to use for id in the map of a generation. It is id itself, or the first
// free one of name_2, name_3 and so on if the map has id or the name is ours.
func (ns *Names) take(id Name, generation uint32) (_ Name, renamed bool) {
	n := &ns.list[id]
	switch {
	case n.own:
		if n.beside != generation {
			n.beside, n.copies = generation, 0
		}
	case n.seen != generation:
		n.seen, n.copies = generation, 0
		return id, false
	}
	for {
		ns.list[id].copies++
		b := append(append(ns.scratch[:0], ns.list[id].text...), '_')
		ns.scratch = strconv.AppendUint(b, uint64(ns.list[id].copies)+1, 10)
		other := ns.ID(ns.list[id].root, ns.scratch)
		if o := &ns.list[other]; o.seen != generation && o.beside != generation {
			o.seen, o.copies = generation, 0
			if o.own {
				o.beside = generation
			}
			return other, true
		}
	}
}

// takeOwn is take for a field of ours: content never has its name.
func (ns *Names) takeOwn(id Name, generation uint32) (_ Name, renamed bool) {
	if n := &ns.list[id]; n.own && n.seen != generation {
		n.seen = generation
		return id, false
	}
	return ns.take(id, generation)
}

// Class is the class of the column that has this name.
func (ns *Names) Class(id Name) record.Class { return ns.list[id].class }

// Key is the name as an encoded msgpack string. It is valid until Reset.
func (ns *Names) Key(id Name) []byte { return ns.list[id].key }

// Era counts the resets: a Name is good for one era.
func (ns *Names) Era() uint32 { return ns.era }

// Held is about how many bytes the names take.
func (ns *Names) Held() int {
	return cap(ns.links)*int(unsafe.Sizeof(link{})) + cap(ns.list)*int(unsafe.Sizeof(entry{})) + cap(ns.slots)*4 + ns.bytes + cap(ns.scratch)
}
