package device

import (
	"bytes"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A learner turns the report of a device in a record into columns. It is used under the lock of
// Memory.
type learner struct {
	scanner record.Scanner
	row     record.Record // of the report that Learn gets
	counts  event.Counts  // not used
	values  *event.Writer // writes values in the same form as in any record
	columns []column
	ends    []int      // of each column's value
	empty   []columnID // columns that the report has empty; never nil
	text    []byte
}

func newLearner(separator string, arraysAsJSON bool) *learner {
	l := &learner{empty: make([]columnID, 0, 64)}
	l.scanner.MaxNodes = 1 << 18
	l.values = event.NewWriter(event.Options{ArraysAsJSON: arraysAsJSON}, &l.counts, event.NewNames(separator), &l.scanner)
	return l
}

// begin starts a report.
func (l *learner) begin() {
	l.columns, l.ends, l.empty = l.columns[:0], l.ends[:0], l.empty[:0]
	l.values.BeginValues()
}

// add takes the value of a column, if it is not empty and the column can hold it. An object becomes
// JSON text: its members are no columns. It returns false for a column that is empty.
func (l *learner) add(id columnID, c record.Class, r *record.Record, n uint32) bool {
	tr := r.Columns
	if tr.Nothing(n) || mayBeNone(&tr, n) && isText(&tr, n, isNoValue) || id == columnMergedTo && isText(&tr, n, isNoID) {
		return false
	}
	if c >= record.ClassObject && tr.Nodes[n].Kind == record.KindString {
		if tr, n = r.Open(&l.scanner, n), 0; len(tr.Nodes) == 0 {
			return true
		}
		if tr.Nothing(n) {
			return false
		}
	}
	if holdsNothing(&tr, n) {
		return false
	}
	if c == record.ClassText && tr.Nodes[n].Kind == record.KindArray && tr.Fits(n, record.ClassScalars) {
		c = record.ClassScalars
	}
	if c == record.ClassText && tr.Nodes[n].Kind == record.KindString && tr.Inner(n)[0] == '[' {
		// Tags and ids of other devices: a list as JSON text comes out as a list.
		if in := r.Open(&l.scanner, n); len(in.Nodes) > 0 && in.Nodes[0].Kind == record.KindArray && in.Fits(0, record.ClassScalars) {
			if holdsNothing(&in, 0) {
				return false
			}
			tr, n, c = in, 0, record.ClassScalars
		}
	}
	l.addValue(id, c, &tr, n)
	return true
}

// mayBeNone reports whether a string can be a text of isNoValue, by its first byte and length.
func mayBeNone(tr *record.Tree, n uint32) bool {
	v := &tr.Nodes[n]
	size := v.End - v.Start
	return v.Kind == record.KindString && (size <= uint32(len(`"(null)"`)) || size < 64 && (tr.Src[v.Start+1] <= ' ' || v.Flags&record.FlagEscaped != 0))
}

// isText reports whether a string is a text of some kind.
func isText(tr *record.Tree, n uint32, kind func([]byte) bool) bool {
	if tr.Nodes[n].Kind != record.KindString {
		return false
	}
	if tr.Nodes[n].Flags&record.FlagEscaped == 0 {
		return kind(tr.Inner(n))
	}
	text, _ := record.AppendText(nil, tr.Inner(n))
	return kind(text)
}

// isNoSystem reports whether a text in the place of an OSPlatform is none. A device whose system
// Defender does not know has Unknown there.
func isNoSystem(text []byte) bool {
	return isNoValue(text) || isOneOf(bytes.TrimSpace(text), "none", "nil", "undefined")
}

// holdsNothing reports whether n is a list without an element with a value, or of objects without a
// member with one.
func holdsNothing(tr *record.Tree, n uint32) bool {
	if tr.Nodes[n].Kind != record.KindArray {
		return false
	}
	for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
		if tr.Nodes[e].Kind != record.KindObject {
			if !tr.Nothing(e) {
				return false
			}
			continue
		}
		for k, end := e+1, tr.Nodes[e].Next; k < end; k = tr.Nodes[k+1].Next {
			if !tr.Nothing(k + 1) {
				return false
			}
		}
	}
	return true
}

// isEmptyList reports whether a column is a list without elements that have a value, also as JSON
// in a string: it says that there are none.
func (l *learner) isEmptyList(r *record.Record, n uint32) bool {
	tr := r.Columns
	if tr.Nodes[n].Kind == record.KindString && tr.Nodes[n].End-tr.Nodes[n].Start > 2 {
		if tr, n = r.Open(&l.scanner, n), 0; len(tr.Nodes) == 0 {
			return false
		}
	}
	return holdsNothing(&tr, n)
}

// addNobody takes a list without elements. It is kept, to outdo older ones, and never written.
func (l *learner) addNobody(id columnID) {
	l.values.Out = append(l.values.Out, nobody)
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, l.values.Len())
}

// nobody is an empty list in msgpack.
const nobody = 0x90

func (l *learner) addValue(id columnID, c record.Class, tr *record.Tree, n uint32) {
	w := l.values
	from := w.Len()
	v := &tr.Nodes[n]
	if tr.Nothing(n) {
		return
	}
	switch {
	case c >= record.ClassObject && !tr.Fits(n, c):
		return
	case v.Kind == record.KindObject || c == record.ClassText && v.Kind == record.KindArray:
		w.JSON(tr.Raw(n))
	case c == record.ClassText || c == record.ClassInteger || c == record.ClassBoolean || c == record.ClassReal:
		if !w.Scalar(c, tr, n) {
			return
		}
	default:
		w.Value(tr, n, 2)
	}
	if w.Len()-from > maxColumnValue || len(l.columns) >= int(columnNone) {
		w.Truncate(from)
		return
	}
	for i := range l.columns {
		if l.columns[i].id == id {
			w.Truncate(from) // a column twice: the first counts, as everywhere
			return
		}
	}
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, w.Len())
}

// addList takes a list of the one string n.
func (l *learner) addList(id columnID, tr *record.Tree, n uint32) {
	for _, c := range l.columns {
		if c.id == id || tr.Nothing(n) {
			return
		}
	}
	if l.values.Options().ArraysAsJSON {
		l.values.JSON(append(append([]byte{'['}, tr.Raw(n)...), ']'))
	} else {
		l.values.ArrayOf1(tr, n)
	}
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, l.values.Len())
}

// end returns the report. It is valid until the next.
func (l *learner) end() []column {
	from := 0
	for i, end := range l.ends {
		l.columns[i].value = l.values.Bytes()[from:end:end]
		from = end
	}
	return l.columns
}

// release lets go of the memory that a giant report needed.
func (l *learner) release() {
	l.row.Release()
	l.values.Release()
	if cap(l.text) > record.KeepBytes {
		l.text = nil
	}
}

// stamp is when a record was made, in nanoseconds. A report from the future would outdo all that
// come after it, and evidence from there would find only stale devices. So such a record counts as
// of its export, a time that no device writes, and without one as of now.
func (m *Memory) stamp(r *record.Record) int64 { return stampBy(r, m.now().UnixNano()) }

// stampBy is stamp at a time.
func stampBy(r *record.Record, limit int64) int64 {
	if exported, ok := r.Exported(); ok {
		limit = min(exported, limit+int64(24*time.Hour))
	}
	return min(r.Nanos(limit), limit)
}

// report merges a record of DeviceInfo, or an answer of the machines API in its form.
func (m *Memory) report(r *record.Record, tenant uint32, evict bool) {
	tr := &r.Columns
	key := m.keyOf(r, "DeviceId", tenant)
	if key == nil {
		return
	}
	l := m.learner
	l.begin()
	place := 0
	for k, end := r.Props+1, tr.Nodes[r.Props].Next; k < end; k = tr.Nodes[k+1].Next {
		if c := m.fields.fieldAt(place, tr.Inner(k)); c.id != columnNone {
			switch n := len(l.columns); {
			case l.add(c.id, c.class, r, k+1) && len(l.columns) > n:
			case c.id == columnUsers && l.isEmptyList(r, k+1):
				l.addNobody(c.id)
			default:
				l.empty = append(l.empty, c.id)
			}
		}
		place++
	}
	stamp := m.stamp(r)
	var empty []columnID
	if n := tr.Find(r.Props, "OSPlatform"); n != 0 && !tr.Nothing(n) && !isText(tr, n, isNoSystem) {
		empty = l.empty // not nil: it is full
	}
	m.put(key, stamp, l.end(), empty, evict)
	m.survivor(r, tenant, stamp, evict)
	l.release()
}

// keyOf is the key of the device whose id is in a column, or nil. It is valid until the next.
func (m *Memory) keyOf(r *record.Record, column string, tenant uint32) []byte {
	n := r.Columns.Find(r.Props, column)
	if n == 0 || r.Columns.Nodes[n].Kind != record.KindString {
		return nil
	}
	m.idText, _ = record.AppendText(m.idText[:0], r.Columns.Inner(n))
	key := appendKey(m.reportKey[:0], tenant, m.idText)
	if key != nil {
		m.reportKey = key
	}
	return key
}

// maxMerged is how many devices one report may say that it took in.
const maxMerged = 16

// survivor notes the devices that were merged into the one of a report, from MergedDeviceIds.
func (m *Memory) survivor(r *record.Record, tenant uint32, stamp int64, evict bool) {
	tr, n, ok := r.Column(&m.learner.scanner, "MergedDeviceIds")
	if !ok || tr.Nothing(n) {
		return
	}
	id := r.Columns.Find(r.Props, "DeviceId")
	own, _ := record.AppendText(nil, r.Columns.Inner(id))
	own = appendKey(nil, tenant, own)
	l := m.learner
	l.begin()
	l.addValue(columnMergedTo, record.ClassText, &r.Columns, id)
	columns := l.end()
	taken := 0
	take := func(text []byte) {
		old := appendKey(m.reportKey[:0], tenant, text)
		if old == nil || taken == maxMerged || bytes.Equal(old, own) {
			return
		}
		taken++
		m.reportKey = old
		m.put(old, stamp, columns, nil, evict)
	}
	if tr.Nodes[n].Kind == record.KindString { // a list as JSON, or ids with commas between them
		in := r.Open(&m.learner.scanner, n)
		if len(in.Nodes) == 0 || in.Nodes[0].Kind != record.KindArray {
			text, _ := record.AppendText(nil, tr.Inner(n))
			for part := range bytes.FieldsFuncSeq(text, func(c rune) bool { return c == ',' || c == ';' }) {
				take(bytes.Trim(bytes.TrimSpace(part), `"`))
			}
			return
		}
		tr, n = in, 0
	}
	if tr.Nodes[n].Kind != record.KindArray {
		return
	}
	for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
		if tr.Nodes[e].Kind == record.KindString {
			m.idText, _ = record.AppendText(m.idText[:0], tr.Inner(e))
			take(m.idText)
		}
	}
}
