package transform

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

const (
	// maxDepth is how many levels of arrays and objects a record may have, the event and its map included; an object
	// that is flattened counts as the level it was. Deeper ones become JSON text. Fluent Bit decodes 62 levels and drops
	// a chunk with more; indexes give up at about 20.
	maxDepth = 16

	// maxNameLength is how long a name may grow by joining. Objects below become JSON text: otherwise one long key with many
	// members makes an event thousands of times as large as the record.
	maxNameLength = 1000

	// An event may be this many times as large as its record, and a little. What would be larger is passed on raw.
	maxGrowth      = 8
	maxGrowthSpare = 1 << 20
)

// flat writes records in the format "flat": one map, nested objects joined by the separator, columns under their own names.
type flat struct {
	cfg     *Config
	stats   *Stats
	names   *names
	id      *identity
	scanner *scanner
	now     func() time.Time

	out        []byte
	limit      int    // of out
	fields     uint32 // of the map being written
	generation uint32 // of the map being written, for names
	maps       uint32 // generations so far
	repairs    int    // in this record
	scratch    []byte
	refs       refs
	devices    *enricher // nil if none are added
}

func (f *flat) release() {
	f.out = nil
	f.refs.release()
	if cap(f.scratch) > keepBytes {
		f.scratch = nil
	}
	if f.names.full() || f.maps > 1<<31 {
		f.names.reset()
		f.maps = 0
	}
}

// Event layout: [EventTime, map]. Time and count are known last and written into their places, which are of fixed size.
const (
	timeAt     = 3 // after array header and ext header
	mapAt      = timeAt + 8
	headerSize = mapAt + 5
)

func appendEventHeader(dst []byte) []byte {
	return append(dst, 0x92, 0xd7, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xdf, 0, 0, 0, 0)
}

func patchEventHeader(event []byte, sec int64, nsec, fields uint32) {
	binary.BigEndian.PutUint32(event[timeAt:], uint32(sec))
	binary.BigEndian.PutUint32(event[timeAt+4:], nsec)
	binary.BigEndian.PutUint32(event[mapAt+1:], fields)
}

// record appends the event of r to dst.
func (f *flat) record(dst []byte, r *row) ([]byte, error) {
	if f.names.full() || f.maps > 1<<31 {
		f.names.reset()
		f.maps = 0
	}
	from := len(dst)
	size := int(r.doc.nodes[0].end - r.doc.nodes[0].start)
	f.out = appendEventHeader(dst)
	f.limit = from + maxGrowth*size + maxGrowthSpare
	f.fields, f.repairs = 0, 0
	f.maps++
	f.generation = f.maps
	f.refs.begin()

	doc := &r.doc
	f.name(nameTable)
	f.out = msgp.AppendString(f.out, r.table.name)
	f.envelopeText(nameTenantID, doc, r.tenantID)
	f.envelopeText(nameExportedAt, doc, r.time)
	f.envelopeText(nameReceivedAt, doc, r.received)
	if f.cfg.EventID {
		f.name(nameEventID)
		f.out = msgp.AppendStringFromBytes(f.out, f.id.of(r))
	}
	// These two say the same in every record of the stream; elsewhere they may say something.
	if r.operation != 0 && !(r.lifted && string(doc.inner(r.operation)) == "Publish") {
		f.envelopeText(nameOperationName, doc, r.operation)
	}
	if r.tenant != 0 && string(doc.inner(r.tenant)) != "DefaultTenant" {
		f.envelopeText(nameTenantName, doc, r.tenant)
	}
	if r.category != 0 && !r.table.exact {
		f.envelopeText(nameCategory, doc, r.category)
	}

	f.envelopeRest(r)
	if r.lifted {
		f.columns(r)
	}
	if r.held != nil {
		f.devices.write(f, r)
	}
	if f.repairs > 0 {
		f.name(nameRepairedText)
		f.out = msgp.AppendInt(f.out, f.repairs)
		f.stats.Repaired.Add(uint64(f.repairs))
	}

	out := f.out
	f.out = nil
	if len(out) > f.limit {
		return out[:from], errOutput
	}
	sec, nsec := f.time(r)
	patchEventHeader(out[from:], sec, nsec, f.fields)
	return out, nil
}

// envelopeRest writes the members of the envelope that have no field of their own.
func (f *flat) envelopeRest(r *row) {
	doc := &r.doc
	hint := int32(-1)
	for k, end := uint32(1), doc.nodes[0].next; k < end && len(f.out) <= f.limit; k = doc.nodes[k+1].next {
		switch v := k + 1; v {
		case r.time, r.tenantID, r.operation, r.category, r.received, r.tenant:
		case r.properties:
			if !r.lifted {
				id := f.child(root(0), doc, k, &hint)
				switch {
				case !r.table.hunting:
					f.field(id, doc, v, 2)
				case nothing(doc, v):
					f.empty(id, classObject, doc, v)
				default:
					f.misfit(id, doc, v)
				}
			}
		default:
			f.member(f.child(root(0), doc, k, &hint), doc, k, 2)
		}
	}
}

func (f *flat) columns(r *row) {
	tr := &r.columns
	hint := int32(-1)
	for k, end := r.props+1, tr.nodes[r.props].next; k < end && len(f.out) <= f.limit; k = tr.nodes[k+1].next {
		if !f.cfg.KeepNulls && nothing(tr, k+1) {
			continue // half of all columns: not worth a name
		}
		id := f.child(root(0), tr, k, &hint)
		if c := f.names.list[id].class; c != classAny && !longKey(tr, k) {
			f.column(r, id, c, k+1)
		} else {
			f.member(id, tr, k, 2)
		}
	}
}

func (f *flat) child(parent nameID, tr *tree, k uint32, hint *int32) nameID {
	id, at := f.names.child(parent, tr.inner(k), *hint)
	*hint = at
	return id
}

// column writes a column that has a type.
func (f *flat) column(r *row, id nameID, c class, n uint32) {
	tr := &r.columns
	v := &tr.nodes[n]
	if nothing(tr, n) {
		f.empty(id, c, tr, n)
		return
	}
	switch c {
	case classText:
		f.name(id)
		if v.kind == kindString {
			f.string(tr, n)
		} else {
			f.text(tr.raw(n))
		}
		return
	case classInteger:
		text := tr.raw(n)
		if v.kind == kindString {
			text = tr.inner(n)
		}
		if i, ok := parseInteger(text); ok {
			f.name(id)
			f.out = msgp.AppendInt64(f.out, i)
			if v.kind == kindString {
				f.stats.Converted.Add(1)
			}
			return
		}
	case classReal:
		if v.kind == kindNumber {
			if x, ok := parseReal(tr.raw(n)); ok {
				f.name(id)
				f.out = msgp.AppendFloat64(f.out, x)
				return
			}
		}
	case classBoolean:
		text := tr.raw(n)
		if v.kind == kindString {
			text = tr.inner(n)
		}
		if b, ok := parseBoolean(text); ok {
			f.name(id)
			f.out = msgp.AppendBool(f.out, b)
			if v.kind != kindTrue && v.kind != kindFalse {
				f.stats.Converted.Add(1)
			}
			return
		}
	case classObject, classObjects, classScalars:
		in, at := *tr, n
		if v.kind == kindString {
			in, at = r.open(f.scanner, n), 0
		}
		if len(in.nodes) > 0 && fits(&in, at, c) {
			if in.nodes[at].kind == kindNull || in.empty(at) {
				f.empty(id, c, tr, n)
			} else {
				f.field(id, &in, at, 2)
			}
			return
		}
	}
	f.misfit(id, tr, n)
}

// misfit writes what its column cannot hold, as text.
func (f *flat) misfit(id nameID, tr *tree, n uint32) {
	f.stats.Misfits.Add(1)
	f.name(f.names.rawOf(id))
	if tr.nodes[n].kind == kindString {
		f.string(tr, n)
	} else {
		f.text(tr.raw(n))
	}
}

// empty writes one of the spellings of nothing, if they are kept at all. A JSON column has only null.
func (f *flat) empty(id nameID, c class, tr *tree, n uint32) {
	if !f.cfg.KeepNulls {
		return
	}
	f.name(id)
	switch {
	case c >= classObject || tr.nodes[n].kind != kindString:
		f.out = msgp.AppendNil(f.out)
	case c == classText:
		f.out = msgp.AppendString(f.out, "")
	default:
		f.out = msgp.AppendNil(f.out)
	}
}

// nothing reports whether a value is null, "", [] or {}.
func nothing(tr *tree, n uint32) bool {
	v := &tr.nodes[n]
	return v.kind == kindNull || v.kind == kindString && v.end-v.start == 2 || v.kind >= kindArray && tr.empty(n)
}

// fits reports whether a JSON value is what its column is declared to hold; null and the empty ones always are.
func fits(tr *tree, n uint32, c class) bool {
	k := tr.nodes[n].kind
	if k == kindNull || k >= kindArray && tr.empty(n) {
		return true
	}
	if c == classObject {
		return k == kindObject
	}
	if k != kindArray {
		return false
	}
	for e, end := n+1, tr.nodes[n].next; e < end; e = tr.nodes[e].next {
		switch k := tr.nodes[e].kind; {
		case k == kindNull:
		case (k == kindObject) != (c == classObjects), k == kindArray:
			return false
		}
	}
	return true
}

func parseBoolean(b []byte) (value, ok bool) {
	switch string(b) {
	case "true", "True", "TRUE", "1":
		return true, true
	case "false", "False", "FALSE", "0":
		return false, true
	}
	return false, false
}

// parseReal is parseFloat for a column whose numbers are all floats: whole ones too.
func parseReal(b []byte) (float64, bool) {
	if i, ok := parseInteger(b); ok {
		return float64(i), int64(float64(i)) == i && i > -1<<53 && i < 1<<53
	}
	return parseFloat(b)
}

// longKey reports whether the key at node k is cut when it becomes a name.
func longKey(tr *tree, k uint32) bool { return tr.nodes[k].end-tr.nodes[k].start > maxKeyBytes+2 }

// member writes the member whose key is node k under the name id. A key that is cut is kept whole in the value: the member
// as JSON text.
func (f *flat) member(id nameID, tr *tree, k uint32, level int) {
	if !longKey(tr, k) {
		f.field(id, tr, k+1, level)
		return
	}
	if !f.cfg.KeepNulls && nothing(tr, k+1) {
		return
	}
	f.stats.Renamed.Add(1)
	f.name(id)
	whole := append(f.id.compact[:0], '{')
	whole = append(whole, tr.src[tr.nodes[k].start:tr.nodes[k+1].end]...)
	f.id.compact = append(whole, '}')
	f.text(f.id.compact)
}

// field writes a value under the name id, or if it is an object, its members. level is that of the map.
func (f *flat) field(id nameID, tr *tree, n uint32, level int) {
	v := &tr.nodes[n]
	if v.kind == kindObject {
		f.object(id, tr, n, level+1)
		return
	}
	if !f.cfg.KeepNulls && nothing(tr, n) {
		return
	}
	f.name(id)
	f.value(tr, n, level)
}

// object writes the members of an object into the map being written.
func (f *flat) object(id nameID, tr *tree, n uint32, level int) {
	if tr.empty(n) {
		if f.cfg.KeepNulls {
			f.name(id)
			f.out = msgp.AppendMapHeader(f.out, 0)
		}
		return
	}
	if ref := refOf(tr, n); ref != 0 && f.reference(id, tr, n, ref, level) {
		return
	}
	if level > maxDepth || len(f.names.list[id].text) > maxNameLength {
		f.name(id)
		f.text(tr.raw(n))
		return
	}
	f.members(id, tr, n, level)
}

// members writes the members of object n under the name parent. level is that of the object.
func (f *flat) members(parent nameID, tr *tree, n uint32, level int) {
	hint := int32(-1)
	for k, end := n+1, tr.nodes[n].next; k < end && len(f.out) <= f.limit; k = tr.nodes[k+1].next {
		if string(tr.inner(k)) == "$id" && tr.nodes[k+1].kind <= kindString {
			continue // Json.NET's own; see refs.go
		}
		if !f.cfg.KeepNulls && nothing(tr, k+1) {
			continue
		}
		f.member(f.child(parent, tr, k, &hint), tr, k, level)
	}
}

// value writes a value that stands where no name can be joined: a scalar, a list, or an element of a list. level is that
// of the map or list around it.
func (f *flat) value(tr *tree, n uint32, level int) {
	v := &tr.nodes[n]
	switch v.kind {
	case kindNull:
		f.out = msgp.AppendNil(f.out)
	case kindTrue, kindFalse:
		f.out = msgp.AppendBool(f.out, v.kind == kindTrue)
	case kindNumber:
		f.number(tr.raw(n))
	case kindWord:
		f.out = msgp.AppendStringFromBytes(f.out, tr.raw(n))
	case kindString:
		f.string(tr, n)
	case kindArray:
		f.list(tr, n, level+1)
	case kindObject:
		f.element(tr, n, level+1)
	}
}

// list writes an array. level is its own.
func (f *flat) list(tr *tree, n uint32, level int) {
	if f.cfg.ArraysAsJSON || level > maxDepth {
		f.text(tr.raw(n))
		return
	}
	count, scalars, containers := uint32(0), false, false
	for e, end := n+1, tr.nodes[n].next; e < end; e = tr.nodes[e].next {
		count++
		switch k := tr.nodes[e].kind; {
		case k >= kindArray:
			containers = true
		case k != kindNull:
			scalars = true
		}
	}
	f.out = msgp.AppendArrayHeader(f.out, count)
	for e, end := n+1, tr.nodes[n].next; e < end && len(f.out) <= f.limit; e = tr.nodes[e].next {
		switch k := tr.nodes[e].kind; {
		case !scalars || !containers || k == kindNull || k == kindString:
			f.value(tr, e, level)
		default: // scalars beside objects, which no index takes: all as text
			f.text(tr.raw(e))
		}
	}
}

// element writes an object in a list: a flat map of its own. level is its own.
func (f *flat) element(tr *tree, n uint32, level int) {
	if level > maxDepth {
		f.text(tr.raw(n))
		return
	}
	if ref := refOf(tr, n); ref != 0 {
		switch target, how := f.refs.follow(tr, n, ref, f.cfg.ResolveRefs); how {
		case refWritten:
			n = target
			defer f.refs.leave()
		case refLeft:
			f.stats.Unresolved.Add(1)
			fallthrough
		case refOmitted:
			f.out = msgp.AppendMapHeader(f.out, 0)
			return
		}
	}
	at := len(f.out)
	f.out = append(f.out, 0xdf, 0, 0, 0, 0)
	fields, generation := f.fields, f.generation
	f.maps++
	f.fields, f.generation = 0, f.maps
	f.members(root(level), tr, n, level)
	binary.BigEndian.PutUint32(f.out[at+1:], f.fields)
	f.fields, f.generation = fields, generation
}

// reference writes what {"$ref": ...} refers to in its place, or nothing; false if it refers to nothing here, so that it
// is an object like any other.
func (f *flat) reference(id nameID, tr *tree, n, ref uint32, level int) bool {
	target, how := f.refs.follow(tr, n, ref, f.cfg.ResolveRefs)
	switch how {
	case refDangling:
		return false
	case refLeft:
		f.stats.Unresolved.Add(1)
	case refWritten:
		f.object(id, tr, target, level)
		f.refs.leave()
	}
	return true
}

// name writes a key, or the next free one like it, and counts the field.
func (f *flat) name(id nameID) {
	id, renamed := f.names.take(id, f.generation)
	if renamed {
		f.stats.Renamed.Add(1)
	}
	f.out = append(f.out, f.names.list[id].key...)
	f.fields++
}

// envelopeText writes a string of the envelope as a field of our own.
func (f *flat) envelopeText(id nameID, tr *tree, n uint32) {
	if n == 0 || tr.nodes[n].end-tr.nodes[n].start == 2 && !f.cfg.KeepNulls {
		return
	}
	f.name(id)
	f.string(tr, n)
}

func (f *flat) string(tr *tree, n uint32) {
	inner := tr.inner(n)
	switch flags := tr.nodes[n].flags; {
	case flags&flagEscaped != 0 || flags&flagWide != 0 && !utf8.Valid(inner):
		var repairs int
		f.scratch, repairs = appendText(f.scratch[:0], inner)
		f.repairs += repairs
		inner = f.scratch
	}
	f.out = msgp.AppendStringFromBytes(f.out, inner)
}

// text writes the JSON text of a value as a string.
func (f *flat) text(b []byte) {
	if !utf8.Valid(b) {
		var repairs int
		f.scratch, repairs = appendJSONText(f.scratch[:0], b)
		f.repairs += repairs
		b = f.scratch
	}
	f.out = msgp.AppendStringFromBytes(f.out, b)
}

// number writes a number as the integer or float it is, or its text where neither can hold it.
func (f *flat) number(text []byte) {
	if i, ok := parseInteger(text); ok {
		f.out = msgp.AppendInt64(f.out, i)
	} else if x, ok := parseFloat(text); ok {
		f.out = msgp.AppendFloat64(f.out, x)
	} else {
		f.out = msgp.AppendStringFromBytes(f.out, text)
	}
}

// time is the event time: when it happened, else when it was exported, else now.
func (f *flat) time(r *row) (sec int64, nsec uint32) {
	if r.lifted {
		if sec, nsec, ok := timeAtNode(&r.columns, r.columns.find(r.props, "Timestamp")); ok {
			return sec, nsec
		}
		f.stats.TimeFallbacks.Add(1)
	}
	if sec, nsec, ok := timeAtNode(&r.doc, r.time); ok {
		return sec, nsec
	}
	if !r.lifted {
		for _, name := range [...]string{"TimeGenerated", "StartTimeUtc"} {
			if sec, nsec, ok := timeAtNode(&r.doc, r.doc.find(0, name)); ok {
				return sec, nsec
			}
		}
		f.stats.TimeFallbacks.Add(1)
	}
	f.stats.TimeNow.Add(1)
	now := f.now()
	return now.Unix(), uint32(now.Nanosecond())
}

func timeAtNode(tr *tree, n uint32) (sec int64, nsec uint32, ok bool) {
	if n == 0 || tr.nodes[n].kind != kindString {
		return 0, 0, false
	}
	return parseTime(tr.inner(n))
}

// of computes the id of a record. Columns alone identify a hunting record: the service delivers 3 or 4 % of them again,
// with a fresh time in the envelope. Of any other record it is everything but the two times.
func (id *identity) of(r *row) []byte {
	tenant := noText
	if r.tenantID != 0 {
		tenant = r.doc.inner(r.tenantID)
	}
	id.name = append(id.name[:0], r.table.name...)
	id.begin(tenant, id.name)
	if r.lifted {
		id.value(&r.columns, r.props)
		return id.end()
	}
	doc := &r.doc
	for k, end := uint32(1), doc.nodes[0].next; k < end; k = doc.nodes[k+1].next {
		if k+1 == r.time || k+1 == r.received {
			continue
		}
		id.hash.Write(doc.raw(k))
		id.hash.Write(colon)
		id.value(doc, k+1)
		id.hash.Write(comma)
	}
	return id.end()
}

var (
	noText []byte
	colon  = []byte{':'}
	comma  = []byte{','}
)
