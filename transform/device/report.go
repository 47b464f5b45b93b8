package device

import (
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A learner turns what a record says of a device into columns. It is used under the lock of Memory.
type learner struct {
	scanner record.Scanner
	row     record.Record // of what Learn is given
	counts  event.Counts  // of nobody's interest
	values  *event.Writer // writes values as they are in any record
	columns []column
	ends    []int // of each column's value
	text    []byte
}

func newLearner(separator string, arraysAsJSON bool) *learner {
	l := &learner{}
	l.scanner.MaxNodes = 1 << 18
	l.values = event.NewWriter(event.Options{ArraysAsJSON: arraysAsJSON}, &l.counts, event.NewNames(separator), &l.scanner)
	return l
}

// begin starts a report.
func (l *learner) begin() {
	l.columns, l.ends = l.columns[:0], l.ends[:0]
	l.values.BeginValues()
}

// add takes the value of a column, if it says something that the column can hold. An object becomes JSON text: what is
// below it is no column.
func (l *learner) add(id columnID, c record.Class, r *record.Record, n uint32) {
	tr := r.Columns
	if tr.Nothing(n) {
		return
	}
	if c >= record.ClassObject && tr.Nodes[n].Kind == record.KindString {
		if tr, n = r.Open(&l.scanner, n), 0; len(tr.Nodes) == 0 {
			return
		}
	}
	l.addValue(id, c, &tr, n)
}

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

// release lets go of what a giant report needed.
func (l *learner) release() {
	l.row.Release()
	l.values.Release()
	if cap(l.text) > record.KeepBytes {
		l.text = nil
	}
}

// stamp is when a report was made, in nanoseconds. A report from the future would outdo all that come after it, so it counts as
// of the time at which the service exported it, which no device writes. That is at most a day ahead of our clock.
func (m *Memory) stamp(r *record.Record) int64 {
	limit := m.now().Add(24 * time.Hour).UnixNano()
	if exported, ok := r.Exported(); ok {
		limit = min(limit, exported)
	}
	return min(r.Nanos(limit), limit)
}

// report merges a record of DeviceInfo.
func (m *Memory) report(r *record.Record, tenant uint32, evict bool) {
	tr := &r.Columns
	id := tr.Find(r.Props, "DeviceId")
	if id == 0 || tr.Nodes[id].Kind != record.KindString {
		return
	}
	key := appendKey(m.reportKey[:0], tenant, tr.Inner(id))
	if key == nil {
		return
	}
	m.reportKey = key
	l := m.learner
	l.begin()
	place := 0
	for k, end := r.Props+1, tr.Nodes[r.Props].Next; k < end; k = tr.Nodes[k+1].Next {
		if !tr.Nothing(k + 1) {
			if c := m.fields.fieldAt(place, tr.Inner(k)); c.id != columnNone {
				l.add(c.id, c.class, r, k+1)
			}
		}
		place++
	}
	m.put(key, m.stamp(r), l.end(), evict)
	l.release()
}
