package transform

import (
	"math"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// A learner turns what a record says of a device into columns. It is used under the lock of Devices.
type learner struct {
	scanner scanner
	row     row  // of what Learn is given
	flat    flat // writes values as they are in any record
	columns []column
	ends    []int // of each column's value in flat.out
	text    []byte
}

func newLearner(arraysAsJSON bool) *learner {
	l := &learner{}
	l.flat = flat{cfg: &Config{ArraysAsJSON: arraysAsJSON}, stats: &Stats{}, names: newNames("."), scanner: &l.scanner, limit: math.MaxInt}
	return l
}

// parse reads the properties of a record, and returns nil if they are no object.
func (l *learner) parse(properties []byte) *row {
	r := &l.row
	nodes, end, err := l.scanner.parse(properties, 0, r.nodes[:0])
	if err != nil || skipSpace(properties, end) != len(properties) || nodes[0].kind != kindObject {
		return nil
	}
	clear(r.opened)
	*r = row{columns: tree{properties, nodes}, lifted: true, opened: r.opened[:0], nodes: nodes, text: r.text[:0]}
	return r
}

// begin starts a report.
func (l *learner) begin() {
	l.columns, l.ends = l.columns[:0], l.ends[:0]
	l.flat.out = l.flat.out[:0]
	l.flat.refs.begin()
	if l.flat.names.full() {
		l.flat.names.reset()
	}
}

// add takes the value of a column, if it says something that the column can hold. An object becomes JSON text: what is
// below it is no column.
func (l *learner) add(id columnID, c class, r *row, n uint32) {
	tr := r.columns
	if nothing(&tr, n) {
		return
	}
	if c >= classObject && tr.nodes[n].kind == kindString {
		if tr, n = r.open(&l.scanner, n), 0; len(tr.nodes) == 0 {
			return
		}
	}
	l.addValue(id, c, &tr, n)
}

func (l *learner) addValue(id columnID, c class, tr *tree, n uint32) {
	f := &l.flat
	from := len(f.out)
	v := &tr.nodes[n]
	if nothing(tr, n) {
		return
	}
	if f.maps++; f.maps > 1<<31 {
		f.names.reset()
		f.maps = 1
	}
	f.generation = f.maps
	switch {
	case c >= classObject && !fits(tr, n, c):
		return
	case v.kind == kindObject || c == classText && v.kind == kindArray:
		f.text(tr.raw(n))
	case c == classText || c == classInteger || c == classBoolean || c == classReal:
		if !l.scalar(c, tr, n) {
			return
		}
	default:
		f.value(tr, n, 2)
	}
	if len(f.out)-from > maxColumnValue || len(l.columns) >= int(columnNone) {
		f.out = f.out[:from]
		return
	}
	for i := range l.columns {
		if l.columns[i].id == id {
			f.out = f.out[:from] // a column twice: the first counts, as everywhere
			return
		}
	}
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, len(f.out))
}

// addList takes a list of the one string n.
func (l *learner) addList(id columnID, tr *tree, n uint32) {
	for _, c := range l.columns {
		if c.id == id || nothing(tr, n) {
			return
		}
	}
	f := &l.flat
	if f.cfg.ArraysAsJSON {
		f.text(append(append([]byte{'['}, tr.raw(n)...), ']'))
	} else {
		f.out = msgp.AppendArrayHeader(f.out, 1)
		f.string(tr, n)
	}
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, len(f.out))
}

// scalar writes a value of a column with a type, and reports false if it does not fit.
func (l *learner) scalar(c class, tr *tree, n uint32) bool {
	f := &l.flat
	text := tr.raw(n)
	if tr.nodes[n].kind == kindString {
		text = tr.inner(n)
	}
	switch c {
	case classInteger:
		i, ok := parseInteger(text)
		if ok {
			f.out = msgp.AppendInt64(f.out, i)
		}
		return ok
	case classBoolean:
		b, ok := parseBoolean(text)
		if ok {
			f.out = msgp.AppendBool(f.out, b)
		}
		return ok
	case classReal:
		x, ok := parseReal(text)
		if ok {
			f.out = msgp.AppendFloat64(f.out, x)
		}
		return ok
	}
	if tr.nodes[n].kind == kindString {
		f.string(tr, n)
	} else {
		f.text(text)
	}
	return true
}

// end returns the report. It is valid until the next.
func (l *learner) end() []column {
	from := 0
	for i, end := range l.ends {
		l.columns[i].value = l.flat.out[from:end]
		from = end
	}
	return l.columns
}

// release lets go of what a giant report needed.
func (l *learner) release() {
	l.row.release()
	l.flat.refs.release()
	if cap(l.text) > keepBytes {
		l.text = nil
	}
	if cap(l.flat.out) > keepBytes {
		l.flat.out = nil
	}
}

// stamp is when a report was made. One from the future would outdo all that come after it, so what is more than a day ahead of our
// clock counts as a day ahead.
func (d *Devices) stamp(r *row) int64 {
	limit := d.now().Add(24 * time.Hour).UnixNano()
	return min(eventNanos(r, limit), limit)
}

// eventNanos is the time of a record in nanoseconds, or otherwise if it has none.
func eventNanos(r *row, otherwise int64) int64 {
	if r.lifted {
		if sec, nsec, ok := timeAtNode(&r.columns, r.columns.find(r.props, "Timestamp")); ok {
			return sec*1e9 + int64(nsec)
		}
	}
	if sec, nsec, ok := timeAtNode(&r.doc, r.time); ok {
		return sec*1e9 + int64(nsec)
	}
	return otherwise
}

// report merges a record of DeviceInfo.
func (d *Devices) report(r *row, tenant uint16, evict bool) {
	tr := &r.columns
	id := tr.find(r.props, "DeviceId")
	if id == 0 || tr.nodes[id].kind != kindString {
		return
	}
	key := appendDeviceKey(d.reportKey[:0], tenant, tr.inner(id))
	if key == nil {
		return
	}
	d.reportKey = key
	l := d.learner
	l.begin()
	place := 0
	for k, end := r.props+1, tr.nodes[r.props].next; k < end; k = tr.nodes[k+1].next {
		if !nothing(tr, k+1) {
			if c := d.fields.fieldAt(place, tr.inner(k)); c.id != columnNone {
				l.add(c.id, c.class, r, k+1)
			}
		}
		place++
	}
	d.put(key, d.stamp(r), l.end(), evict)
	l.release()
}
