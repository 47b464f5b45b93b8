package event

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

const (
	// MaxDepth: levels of lists and objects in an event, itself and its map included. A flattened
	// object counts as the level it was. Deeper ones become JSON text. Fluent Bit decodes 62 levels
	// and drops a chunk with more; indexes give up at about 20.
	MaxDepth = 16

	// maxNameLength: bytes of a name that is joined from others. Objects below become JSON text.
	// Otherwise one long key with many members makes an event thousands of times as large as the
	// record.
	maxNameLength = 1000
)

// ErrSize says that an event outgrew its limit.
var ErrSize = errors.New("its flat form would be many times its size")

// Options are the user's choices for values, in every format.
type Options struct {
	KeepNulls    bool // keep nulls, empty strings, lists and objects
	ResolveRefs  bool // replace a Json.NET {"$ref":"3"} by its object
	ArraysAsJSON bool // write lists as JSON text
}

// Counts of the values that a Writer had to change. They may be read while it works.
type Counts struct {
	Renamed    atomic.Uint64 // fields that got a number because their name was taken, or whose name was cut
	Misfits    atomic.Uint64 // columns that went to <column>_raw
	Converted  atomic.Uint64 // integers and booleans that came as something else, such as "0"
	Repaired   atomic.Uint64 // bytes and surrogates that no text can hold, written as escapes
	Unresolved atomic.Uint64 // references that resolve_refs left alone: a cycle, or too much text
}

// A Writer writes one event at a time, [EventTime, map] in msgpack. It is not safe for concurrent
// use.
type Writer struct {
	options Options
	counts  *Counts
	names   *Names
	scanner *record.Scanner

	// Compact: objects and lists of the record are written as JSON text, in <name>_raw. It is set
	// for the second attempt at a record whose event was too large.
	Compact bool

	// Out: all that has been written. A format may append a whole field itself, and then counts it.
	Out        []byte
	from       int    // where the event begins in Out
	limit      int    // of Out
	fields     uint32 // of the map being written
	generation uint32 // of the map being written, for names
	maps       uint32 // generations so far
	open       []nest // the maps around the one being written
	repairs    int    // in this event
	scratch    []byte
	whole      []byte // a member whose key is too long for a name
	refs       refs
}

// A nest is a map that waits for the one inside it.
type nest struct {
	at                 int // its header in Out
	fields, generation uint32
}

// NewWriter returns a Writer. names may be shared with nobody else that writes.
func NewWriter(o Options, counts *Counts, names *Names, s *record.Scanner) *Writer {
	return &Writer{options: o, counts: counts, names: names, scanner: s}
}

// The layout of an event. Time and number of fields are known last; their places have a fixed size.
const (
	timeAt = 3 // after array header and ext header
	mapAt  = timeAt + 8
)

// Begin starts an event behind dst, which may grow by limit bytes. The Writer has dst until End.
func (w *Writer) Begin(dst []byte, limit int) {
	w.from = len(dst)
	w.begin(append(dst, 0x92, 0xd7, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xdf, 0, 0, 0, 0))
	w.limit = w.from + limit
}

// BeginValues starts a row of values without names, for Bytes to return. There is no limit.
func (w *Writer) BeginValues() {
	w.from, w.limit = 0, math.MaxInt
	w.begin(w.Out[:0])
}

func (w *Writer) begin(out []byte) {
	if w.names.Full() || w.maps > 1<<31 {
		w.names.Reset()
		w.maps = 0
	}
	w.Out = out
	w.fields, w.repairs, w.open = 0, 0, w.open[:0]
	w.refs.begin()
	w.names.begin()
	w.nextMap()
}

// nextMap begins a map of its own, for names.
func (w *Writer) nextMap() {
	w.maps++
	w.generation = w.maps
}

// End finishes the event and returns dst with it, or without it and ErrSize.
func (w *Writer) End(sec int64, nsec uint32) ([]byte, error) {
	out := w.Out
	w.Out = nil
	if len(out) > w.limit || w.names.room < 0 {
		return out[:w.from], ErrSize
	}
	event := out[w.from:]
	binary.BigEndian.PutUint32(event[timeAt:], uint32(sec))
	binary.BigEndian.PutUint32(event[timeAt+4:], nsec)
	binary.BigEndian.PutUint32(event[mapAt+1:], w.fields)
	return out, nil
}

// Over reports whether the event has outgrown its limit or has too many names. Then End will fail,
// and the rest need not be written.
func (w *Writer) Over() bool { return len(w.Out) > w.limit || w.names.room < 0 }

// Open begins a map under the name n, inside the map being written. Names in it are children of
// Root. Close ends it.
func (w *Writer) Open(n Name) {
	w.Key(n)
	w.openMap()
}

// Reserve keeps the name n of the map being written for a field of ours, which Own or OpenOwn
// writes. A member of the record with that name gets another.
func (w *Writer) Reserve(n Name) { w.names.list[n].seen, w.names.list[n].copies = w.generation, 0 }

// Own writes a key that was reserved.
func (w *Writer) Own(n Name) {
	w.Out = append(w.Out, w.names.list[n].key...)
	w.fields++
}

// OpenOwn is Open for a name that was reserved.
func (w *Writer) OpenOwn(n Name) {
	w.Own(n)
	w.openMap()
}

// OpenMap begins a map whose key, if any, the caller has written. Close ends it.
func (w *Writer) OpenMap() { w.openMap() }

func (w *Writer) openMap() {
	w.open = append(w.open, nest{len(w.Out), w.fields, w.generation})
	w.Out = append(w.Out, 0xdf, 0, 0, 0, 0)
	w.fields = 0
	w.nextMap()
}

// Close ends the map that Open began.
func (w *Writer) Close() {
	last := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	binary.BigEndian.PutUint32(w.Out[last.at+1:], w.fields)
	w.fields, w.generation = last.fields, last.generation
}

// Names are the names that the Writer knows.
func (w *Writer) Names() *Names { return w.names }

// Options are the user's choices.
func (w *Writer) Options() Options { return w.options }

// Encoded writes a field whose value is msgpack already.
func (w *Writer) Encoded(n Name, value []byte) {
	w.ownKey(n)
	w.Out = append(w.Out, value...)
}

// Str writes a field with a text that is known to be UTF-8.
func (w *Writer) Str(n Name, text string) {
	w.ownKey(n)
	w.Out = msgp.AppendString(w.Out, text)
}

// Bin writes a field with a text that is known to be UTF-8, as Str does.
func (w *Writer) Bin(n Name, text []byte) {
	w.ownKey(n)
	w.Out = msgp.AppendStringFromBytes(w.Out, text)
}

// Int writes a field with an integer.
func (w *Writer) Int(n Name, i int64) {
	w.ownKey(n)
	w.Out = msgp.AppendInt64(w.Out, i)
}

// Repairs writes how many bytes of the event were replaced by escapes, if any: no text can hold
// them.
func (w *Writer) Repairs(n Name) {
	if w.repairs > 0 {
		w.ownKey(n)
		w.Out = msgp.AppendInt(w.Out, w.repairs)
		w.counts.Repaired.Add(uint64(w.repairs))
	}
}

// Bytes are the values since BeginValues. They are valid until the next.
func (w *Writer) Bytes() []byte { return w.Out }

// Len is how many bytes have been written, of the values since BeginValues.
func (w *Writer) Len() int { return len(w.Out) }

// Count counts n fields that were appended to Out, in the map being written.
func (w *Writer) Count(n int) { w.fields += uint32(n) }

// Fields is how many fields the map being written has.
func (w *Writer) Fields() int { return int(w.fields) }

// Truncate takes back the values behind the first n bytes.
func (w *Writer) Truncate(n int) { w.Out = w.Out[:n] }

// Release lets go of the memory that a giant record needed.
func (w *Writer) Release() {
	if cap(w.Out) > record.KeepBytes {
		w.Out = nil
	}
	w.refs.release()
	if cap(w.scratch) > record.KeepBytes {
		w.scratch = nil
	}
	if cap(w.whole) > record.KeepBytes {
		w.whole = nil
	}
	if w.names.Full() || w.maps > 1<<31 {
		w.names.Reset()
		w.maps = 0
	}
}

// Held is about how many bytes the Writer keeps, names included.
func (w *Writer) Held() int { return cap(w.scratch) + cap(w.whole) + w.names.Held() }
