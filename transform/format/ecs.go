package format

import (
	"bytes"
	"sync"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// ecs writes records in the names and shapes of the Elastic Common Schema. The fields of ECS are
// filled by the rules of ecs.txt. Every column that no field holds whole is below
// m365_defender.event, so that no value is lost.
//
// A record is read into cells, and the rules fill a sheet. Functions fill in the fields that depend
// on more than one column. The sheet is written in one pass. All of it holds one record and is used
// again for the next.
type ecs struct {
	mapping *mapping
	sheet   *sheet
	col     ecsColumnNumbers
	field   ecsFieldIDs
	process [2]ecsProcess // process, process.parent
	sources [2]ecsSide    // source, destination
	names   *event.Names

	w   *event.Writer
	r   *record.Record
	own *Own

	tables map[string]*ecsTable // by name
	table  *ecsTable

	tree  *record.Tree        // that the columns are of
	there [maxColumns]bool    // a column is there and not empty
	cells [maxColumns]ecsCell // of those
	used  []columnNumber

	additional   record.Tree // AdditionalFields, opened
	additionalAt uint32
	opened       bool // additional is of this record and is an object

	named []byte // DeviceId as the row has it: the ids of its processes are made with it

	rest    names          // of columns that the mapping does not know
	info    names          // below m365_defender.device_info
	more    [2]moreMembers // of m365_defender.event, of m365_defender.device_info
	repairs int
}

// ecsCell: the value of a column.
type ecsCell struct {
	text []byte // where it is a part of the record, or was asked for
	node uint32 // in the tree of the columns, or told
}

// ecsMapping is compiled once and then only read.
var ecsMapping = sync.OnceValues(func() (*mapping, error) { return newMapping(ecsRules, ecsColumns, ecsFields) })

// newECSFormat panics if the mapping that is built in is wrong, which a test would have shown.
func newECSFormat() Format {
	e, err := newECS()
	if err != nil {
		panic("BUG: the mapping to ECS: " + err.Error())
	}
	return Format{Names: e.names, Record: e.record, Unreadable: e.unreadable}
}

func newECS() (*ecs, error) {
	m, err := ecsMapping()
	if err != nil {
		return nil, err
	}
	e := &ecs{
		mapping: m, sheet: newSheet(m.form), names: event.NewNames("."), tables: make(map[string]*ecsTable),
	}
	for _, r := range []struct {
		to     any
		prefix string
	}{
		{&e.col, ""}, {&e.field, ""}, {&e.process[initiatorIsProcess], "process."}, {&e.process[initiatorIsParent], "process.parent."},
		{&e.sources[0], "source."}, {&e.sources[1], "destination."},
	} {
		if err := m.resolve(r.to, r.prefix); err != nil {
			return nil, err
		}
	}
	e.rest.reserved = m.form.children(e.field.event)
	e.sheet.taken = make([]bool, maxColumns)
	for _, f := range []fieldID{e.field.event, e.field.deviceInfo} {
		e.sheet.kinds[f%maxFields] = fieldOpen
	}
	e.more[0].in, e.more[1].in = e.field.event, e.field.deviceInfo
	return e, nil
}

// record writes r into the map that w has begun.
func (e *ecs) record(w *event.Writer, r *record.Record, own *Own) {
	e.begin(w, r, own)
	e.read()
	e.alert()
	e.found()
	table, action := own.Table, e.text(e.col.ActionType)
	as := processRole(table, action, e.has(e.col.ProcessId) || e.has(e.col.ProcessCommandLine))
	e.follow(e.table.plan(as, action))
	e.special(table, action, as)
	e.envelope()
	e.device()
	e.system(table)
	e.leftovers()
	e.write()
	if len(r.Doc.Src) > record.KeepBytes {
		e.release()
	}
}

// release gives back the memory that a giant record needed, and forgets its texts.
func (e *ecs) release() {
	e.sheet.release()
	clear(e.cells[:])
	for i := range e.more {
		e.more[i].reset()
	}
	e.tree, e.additional = nil, record.Tree{}
	e.w, e.r, e.own, e.named = nil, nil, nil, nil
}

func (e *ecs) begin(w *event.Writer, r *record.Record, own *Own) {
	clear(e.there[:])
	e.there[e.mapping.constant()%maxColumns] = true
	e.used = e.used[:0]
	for i := range e.more {
		e.more[i].reset()
	}
	e.sheet.reset()
	e.rest.begin()
	e.repairs, e.opened = 0, false
	e.w, e.r, e.own = w, r, own
	if e.table = e.tables[own.Table]; e.table == nil {
		if len(e.tables) >= maxTables {
			clear(e.tables)
		}
		e.table = e.mapping.table(own.Table)
		e.tables[own.Table] = e.table
	}
}

// matches reports whether the text of a column, or a text in its list, matches the pattern of a
// rule.
func (e *ecs) matches(c columnNumber, p pattern) bool {
	if !e.has(c) {
		return false
	}
	if tree, n, ok := e.list(c); ok {
		for at := n + 1; at < tree.Nodes[n].Next; at = tree.Nodes[at].Next {
			if tree.Nodes[at].Kind == record.KindString && p.match(tree.Inner(at)) {
				return true
			}
		}
		return false
	}
	return p.match(e.text(c))
}

// read finds the columns of the record. In a record of another product, the members of the record
// are its columns.
func (e *ecs) read() {
	r := e.r
	if !r.Lifted || r.Properties != 0 {
		e.readEnvelope()
	}
	if !r.Lifted {
		return
	}
	e.tree = &r.Columns
	e.readColumns()
	if e.has(e.col.AdditionalFields) {
		e.additional, e.additionalAt, e.opened = e.open(e.col.AdditionalFields)
		e.opened = e.opened && e.additional.Nodes[e.additionalAt].Kind == record.KindObject
	}
}

// readColumns is readMember for each column of the stream. A column that is where it was in the
// last record of the table, as nearly all are, is noted here, without more calls.
func (e *ecs) readColumns() {
	tr, order := e.tree, e.table.order
	nodes, src := tr.Nodes, tr.Src
	n := 0
	for k, end := e.r.Props+1, nodes[e.r.Props].Next; k+1 < end; n++ {
		key, v := &nodes[k], &nodes[k+1]
		at := k
		k = v.Next
		size := v.End - v.Start
		if v.Kind == record.KindNull || v.Kind == record.KindString && size == 2 || v.Kind >= record.KindArray && tr.Empty(at+1) {
			continue
		}
		if n < len(order) {
			g := &order[n]
			if c := g.column; string(src[key.Start+1:key.End-1]) == g.name && !g.json && !e.has(c) {
				cell := e.take(c)
				cell.node, cell.text = at+1, nil
				switch {
				case v.Kind == record.KindString && v.Flags&(record.FlagEscaped|record.FlagWide) == 0:
					cell.text = src[v.Start+1 : v.End-1]
				case v.Kind < record.KindString:
					cell.text = src[v.Start:v.End]
				}
				continue
			}
		}
		e.readMember(tr, at, n)
		order = e.table.order
	}
}

// readEnvelope notes the members of the envelope that have no field of their own.
func (e *ecs) readEnvelope() {
	r := e.r
	doc, env := &r.Doc, &r.Envelope
	e.tree = doc
	n := 0
	for k, end := uint32(1), doc.Nodes[0].Next; k < end; k = doc.Nodes[k+1].Next {
		switch v := k + 1; v {
		case env.Time, env.TenantID, env.Operation, env.Category, env.Received, env.Tenant:
		case r.Properties:
			if !r.Lifted && !doc.Nothing(v) {
				e.addMember(doc, k)
			}
		default:
			switch {
			case doc.Nothing(v):
			case r.Lifted:
				e.addMember(doc, k)
			default:
				e.readMember(doc, k, n)
			}
		}
		n++
	}
}

// readMember notes the column whose key is node k of tr, which is the tree of all columns. n is how
// many members are before it.
func (e *ecs) readMember(tr *record.Tree, k uint32, n int) {
	g, ok := e.table.guess(n)
	if key := tr.Inner(k); !ok || g.name != string(key) {
		c, ok := e.mapping.byName[string(key)]
		if !ok {
			e.addMember(tr, k)
			return
		}
		g = ecsGuess{e.mapping.columns[c].name, c, e.mapping.columns[c].class >= record.ClassObject}
		e.table.note(n, g)
	}
	switch {
	case g.json && emptyJSON(tr, k+1):
	case e.has(g.column):
		e.addTwin(tr, k) // twice in one record
	default:
		v, cell := &tr.Nodes[k+1], e.take(g.column)
		cell.node, cell.text = k+1, nil
		switch {
		case v.Kind == record.KindString && v.Flags&(record.FlagEscaped|record.FlagWide) == 0:
			cell.text = tr.Inner(k + 1)
		case v.Kind < record.KindString:
			cell.text = tr.Raw(k + 1)
		}
	}
}

// take notes that a column is there, and returns its cell.
func (e *ecs) take(c columnNumber) *ecsCell {
	e.there[c%maxColumns] = true
	e.used = append(e.used, c)
	return &e.cells[c%maxColumns]
}

// emptyJSON reports whether a string says nothing, as JSON.
func emptyJSON(tr *record.Tree, n uint32) bool {
	if tr.Nodes[n].Kind != record.KindString {
		return false
	}
	switch string(tr.Inner(n)) {
	case "[]", "{}", "null":
		return true
	}
	return false
}

// told is the node of a column that comes from the alert and not from the record.
const told = 1<<32 - 1

// has reports whether a column is there and not empty.
func (e *ecs) has(c columnNumber) bool { return e.there[c%maxColumns] }

// node returns the node of a column that is there.
func (e *ecs) node(c columnNumber) uint32 { return e.cells[c%maxColumns].node }

// text returns the text of a column that holds one scalar, and nil for any other. It is valid until
// the next record.
func (e *ecs) text(c columnNumber) []byte {
	if e.has(c) {
		return e.textThere(c)
	}
	return nil
}

// textThere is text for a column that is there.
func (e *ecs) textThere(c columnNumber) []byte {
	if cell := &e.cells[c%maxColumns]; cell.text != nil {
		return cell.text
	}
	return e.findText(c)
}

func (e *ecs) findText(c columnNumber) []byte {
	cell := &e.cells[c%maxColumns]
	cell.text = e.scalar(e.tree, cell.node)
	return cell.text
}

// scalar returns the text of a scalar, nil for arrays, objects and null.
func (e *ecs) scalar(tr *record.Tree, n uint32) []byte {
	switch v := &tr.Nodes[n]; {
	case v.Kind == record.KindString && v.Flags&(record.FlagEscaped|record.FlagWide) == 0: // as most are
		return tr.Src[v.Start+1 : v.End-1]
	case v.Kind == record.KindString:
		return e.unescaped(tr, n)
	case v.Kind >= record.KindArray, v.Kind == record.KindNull:
		return nil
	}
	return tr.Raw(n)
}

func (e *ecs) unescaped(tr *record.Tree, n uint32) []byte {
	inner, flags := tr.Inner(n), tr.Nodes[n].Flags
	if flags&record.FlagEscaped == 0 && (flags&record.FlagWide == 0 || utf8.Valid(inner)) {
		return inner
	}
	from := len(e.sheet.text)
	var repairs int
	e.sheet.text, repairs = record.AppendText(e.sheet.text, inner)
	e.repairs += repairs
	return e.made(from)
}

// json returns the JSON text of a value, in which nothing is no text.
func (e *ecs) json(tr *record.Tree, n uint32) []byte {
	raw := tr.Raw(n)
	if utf8.Valid(raw) {
		return raw
	}
	from := len(e.sheet.text)
	var repairs int
	e.sheet.text, repairs = record.AppendJSONText(e.sheet.text, raw)
	e.repairs += repairs
	return e.made(from)
}

// made returns the bytes of the sheet's buffer from from on.
func (e *ecs) made(from int) []byte {
	b := e.sheet.text
	return b[from:len(b):len(b)]
}

// open returns a column that is an array or object, natively or as JSON in a string.
func (e *ecs) open(c columnNumber) (record.Tree, uint32, bool) {
	n := e.node(c)
	if !e.has(c) || n == told {
		return record.Tree{}, 0, false
	}
	if e.tree.Nodes[n].Kind != record.KindString {
		return *e.tree, n, e.tree.Nodes[n].Kind >= record.KindArray
	}
	if e.mapping.columns[c].class < record.ClassObject || e.tree != &e.r.Columns {
		return record.Tree{}, 0, false
	}
	in := e.r.Open(e.w.Scanner(), n)
	return in, 0, len(in.Nodes) > 0 && in.Nodes[0].Kind >= record.KindArray
}

// list returns a column that is a list.
func (e *ecs) list(c columnNumber) (record.Tree, uint32, bool) {
	if !e.has(c) || e.node(c) != told && e.mapping.columns[c].class < record.ClassObject && e.tree.Nodes[e.node(c)].Kind < record.KindArray {
		return record.Tree{}, 0, false // as nearly all are
	}
	tree, n, ok := e.open(c)
	return tree, n, ok && tree.Nodes[n].Kind == record.KindArray
}

// member returns the text of a member of AdditionalFields, nil without one.
func (e *ecs) member(name string) []byte {
	if !e.opened {
		return nil
	}
	n := e.additional.Find(e.additionalAt, name)
	if n == 0 {
		return nil
	}
	return e.scalar(&e.additional, n)
}

// follow gives fields the values that rules make.
func (e *ecs) follow(plan *ecsPlan) {
	s := e.sheet
	for i := range plan.rules {
		p := &plan.rules[i]
		switch {
		case !e.has(p.column):
		case p.plain:
			s.setText(p.field, e.textThere(p.column), p.source)
		default:
			if r := &plan.whole[i]; !r.when.byOther || e.matches(r.when.other, r.when.value) {
				e.apply(r.rule, p.source)
			}
		}
	}
}

// apply follows a rule. source is its column, if that need not stay below m365_defender.event.
func (e *ecs) apply(r *rule, source uint16) {
	s := e.sheet
	switch {
	case r.constant != nil:
		if r.how != asDefault || !s.has(r.field) {
			s.setText(r.field, r.constant, noSource)
		}
	case r.member == "" && r.how == asList:
		e.applyList(r, source)
	case r.member == "":
		if text := e.text(r.column); len(text) > 0 {
			e.set(r.field, r.how, text, source)
		}
	default:
		if text := e.member(r.member); len(text) > 0 {
			e.set(r.field, r.how, text, noSource)
		} else if r.how == asList && text == nil && e.opened {
			if n := e.additional.Find(e.additionalAt, r.member); n != 0 && e.additional.Nodes[n].Kind == record.KindArray {
				e.addTexts(r.field, &e.additional, n)
			}
		}
	}
}

// set gives a field a text, converted. source is the column that the field then holds whole if
// nothing was changed.
func (e *ecs) set(f fieldID, how conversion, text []byte, source uint16) bool {
	s := e.sheet
	from := len(s.text)
	switch how {
	case asText:
		return s.setText(f, text, source)
	case asLower:
		if isLower(text) {
			return s.setText(f, text, source)
		}
		s.text = appendLower(s.text, text)
		return s.setText(f, e.made(from), noSource)
	case asAction:
		s.text = appendAction(s.text, text)
		changed := e.made(from)
		if !bytes.Equal(changed, text) {
			source = noSource
		}
		return s.setText(f, changed, source)
	case asLong:
		i, ok := record.ParseInteger(text)
		return ok && s.setInteger(f, i, source)
	case asDate:
		if isExact(text) {
			return s.setText(f, text, source)
		}
		if _, ok := splitDate(text); !ok {
			return false
		}
		s.text = append(append(append(s.text, text[:10]...), 'T'), text[11:]...)
		return s.setText(f, e.made(from), noSource)
	case asIP:
		if isIPv4(text) {
			return s.setText(f, text, source)
		}
		ip, mapped, ok := parseIP(text)
		if !ok {
			return false
		}
		if !mapped {
			return s.setText(f, text, source)
		}
		s.text = ip.AppendTo(s.text)
		return s.setText(f, e.made(from), noSource)
	case asBoolean:
		b, ok := record.ParseBoolean(text)
		return ok && s.setBoolean(f, b, source)
	case asList:
		whole := true
		for rest, piece := text, []byte(nil); rest != nil; {
			piece, rest, _ = cutSemicolon(rest)
			if piece = trim(piece); len(piece) < len(text) {
				source = noSource
			}
			if len(piece) > 0 {
				whole = s.setText(f, piece, source) && whole
			}
		}
		return whole
	case asEmail:
		_, _, ok := splitUPN(text)
		return ok && s.setText(f, text, source)
	case asBrackets:
		inner := bytes.TrimSuffix(bytes.TrimPrefix(text, []byte{'<'}), []byte{'>'})
		if len(inner) < len(text) {
			source = noSource
		}
		return s.setText(f, inner, source)
	case asName:
		name := baseName(text)
		if len(name) < len(text) {
			source = noSource
		}
		return s.setText(f, name, source)
	case asMAC:
		var ok bool
		if s.text, ok = appendMAC(s.text, text); !ok {
			return false
		}
		mac := e.made(from)
		if !bytes.Equal(mac, text) {
			source = noSource
		}
		return s.setText(f, mac, source)
	}
	return false
}

func cutSemicolon(b []byte) (piece, rest []byte, found bool) {
	piece, rest, found = bytes.Cut(b, []byte{';'})
	if !found {
		rest = nil
	}
	return piece, rest, found
}

// applyList adds the texts of a column that is a list, or a text with semicolons.
func (e *ecs) applyList(r *rule, source uint16) {
	if tree, n, ok := e.list(r.column); ok {
		e.addTexts(r.field, &tree, n)
		return
	}
	if text := e.text(r.column); len(text) > 0 {
		e.set(r.field, asList, text, source)
	}
}

// addTexts adds the scalars of a list.
func (e *ecs) addTexts(f fieldID, tree *record.Tree, n uint32) {
	for at := n + 1; at < tree.Nodes[n].Next; at = tree.Nodes[at].Next {
		if text := e.scalar(tree, at); len(text) > 0 {
			e.sheet.setText(f, text, noSource)
		}
	}
}

// envelope writes the constants of every record, and the envelope.
func (e *ecs) envelope() {
	s, f, env, doc := e.sheet, &e.field, &e.r.Envelope, &e.r.Doc
	s.setWord(f.ecsVersion, "8.11.0")
	s.setWord(f.module, "m365_defender")
	s.setWord(f.dataset, "m365_defender.event")
	if e.own.ID != nil {
		s.setText(f.hash, e.own.ID, noSource)
	}
	e.envelopeText(f.category, env.Category)
	e.envelopeText(f.tenantID, env.TenantID)
	e.envelopeText(f.tenantName, env.Tenant)
	e.envelopeText(f.operation, env.Operation)
	if env.Time != 0 {
		if text := e.scalar(doc, env.Time); len(text) > 0 {
			if isExact(text) {
				s.setText(f.created, text, noSource)
				s.setText(f.time, text, noSource)
			} else {
				e.set(f.created, asDate, text, noSource)
				s.setText(f.timeRaw, text, noSource)
			}
		}
	}
	if env.Received != 0 {
		if text := e.scalar(doc, env.Received); len(text) > 0 {
			if isExact(text) {
				s.setText(f.received, text, noSource)
			} else {
				s.setText(f.receivedRaw, text, noSource)
			}
		}
	}
}

func (e *ecs) envelopeText(f fieldID, n uint32) {
	if n != 0 {
		if text := e.scalar(&e.r.Doc, n); len(text) > 0 {
			e.sheet.setText(f, text, noSource)
		}
	}
}

// write appends the event.
func (e *ecs) write() {
	s := e.sheet
	if d := e.own.Device; d != nil {
		info := &e.more[1]
		for i := range d.Columns {
			c := &d.Columns[i]
			info.add(e.info.column(c), c.Value)
		}
	}
	for i := range e.more {
		if e.more[i].count > 0 && !s.has(e.more[i].in) {
			s.mark(e.more[i].in)
		}
	}
	if n := e.w.AddRepairs(e.repairs); n > 0 {
		s.setInteger(e.field.repaired, int64(n), noSource)
		e.w.CountRepairs()
	}
	out, n := s.appendTo(e.w.Out, e.more[:])
	e.w.Out = out
	e.w.Count(int(n))
}

// nestedLevel is how many arrays and maps are around a value below m365_defender.event: the event,
// its map, and those two.
const nestedLevel = 4

// unreadable writes a piece of text that could not be read, in the way in which Elastic's pipelines
// tell of an error.
func (e *ecs) unreadable(w *event.Writer, u *Unreadable) {
	s, f := e.sheet, &e.field
	s.reset()
	s.setWord(f.ecsVersion, "8.11.0")
	s.setWord(f.module, "m365_defender")
	s.setWord(f.dataset, "m365_defender.event")
	s.setWord(f.kind, "pipeline_error")
	s.setText(f.original, u.Text, noSource)
	s.setWord(f.errorMessage, u.Reason)
	s.setWord(f.tags, "preserve_original_event")
	s.setWord(f.unreadableReason, u.Reason)
	if u.Encoding != "" {
		s.setWord(f.unreadableEncoding, u.Encoding)
	}
	if u.Lane != "" {
		s.setWord(f.unreadableLane, u.Lane)
	}
	s.setInteger(f.unreadableOffset, u.Offset, noSource)
	s.setInteger(f.unreadableAt, int64(u.At), noSource)
	if u.Parts > 1 {
		s.setInteger(f.unreadablePart, int64(u.Part), noSource)
		s.setInteger(f.unreadableParts, int64(u.Parts), noSource)
	}
	if u.ID != nil {
		s.setText(f.hash, u.ID, noSource)
	}
	out, n := s.appendTo(w.Out, nil)
	w.Out = out
	w.Count(int(n))
	s.reset()
}

// encodedText returns the text of a string in msgpack, nil for anything else.
func encodedText(value []byte) []byte {
	text, _, err := msgp.ReadStringZC(value)
	if err != nil {
		return nil
	}
	return text
}
