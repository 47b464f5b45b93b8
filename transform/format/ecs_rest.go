package format

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// names turns columns that the mapping does not know into names in snake case, each once. They come
// from outside, so the cache is bounded: begin forgets all when there are too many.
type names struct {
	byKey      map[string]*restName // by the column as received, escapes and all
	byText     map[string]*restName
	reserved   map[string]bool // names of fields, which have a type already
	byID       [][]byte        // of a device's columns, in msgpack
	bytes      int
	generation uint32 // of the record
	scratch    []byte
}

// restName: a name below m365_defender.event that is not in the mapping.
type restName struct {
	text        string
	key         []byte // in msgpack
	class       record.Class
	raw, object *restName // text with _raw and _object behind it, nil until they are asked for
	seen        uint32    // generation of the last record that has it
	copies      int       // how many more of it that record has
}

const (
	maxRestNames     = 1 << 14
	maxRestNameBytes = 2 << 20

	// maxRestKey is how much of a column's name goes into a name. The member of one that is longer
	// is written whole, as text.
	maxRestKey = 500
)

func (ns *names) begin() {
	ns.generation++
	if ns.byKey == nil || ns.generation == 0 || len(ns.byKey)+len(ns.byText) > 2*maxRestNames || ns.bytes > maxRestNameBytes {
		ns.byKey, ns.byText = make(map[string]*restName), make(map[string]*restName)
		ns.bytes, ns.generation = 0, 1
	}
}

// of returns the name of a column, whose key is as received.
func (ns *names) of(key []byte) *restName {
	if n := ns.byKey[string(key)]; n != nil {
		return n
	}
	text, _ := record.AppendText(nil, key)
	n := ns.named(cleanName(snake(nil, text)))
	if n.class == record.ClassAny {
		n.class = record.ClassOf(string(text))
	}
	ns.byKey[string(key)] = n
	ns.bytes += len(key)
	return n
}

// cleanName makes b a name that an index takes: not empty, no dot, no NUL, not long.
func cleanName(b []byte) []byte {
	for len(b) > 1 && (b[0] == '_' || b[0] == '@') {
		b = b[1:]
	}
	for i, c := range b {
		if c == '.' || c == 0 || c == '*' {
			b[i] = '_'
		}
	}
	if len(b) > maxRestKey {
		n := maxRestKey
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
		b = b[:n]
	}
	if len(bytes.TrimFunc(b, func(r rune) bool { return r <= ' ' || unicode.IsSpace(r) })) == 0 {
		return []byte{'_'}
	}
	return b
}

func (ns *names) named(text []byte) *restName {
	if n := ns.byText[string(text)]; n != nil {
		return n
	}
	n := &restName{text: string(text)}
	n.key = msgp.AppendString(nil, n.text)
	ns.byText[n.text] = n
	ns.bytes += 3 * len(text)
	return n
}

// take returns n, or the next of n_2, n_3 and so on that this record does not have.
func (ns *names) take(n *restName) *restName {
	if n.seen != ns.generation {
		n.seen, n.copies = ns.generation, 0
		if !ns.reserved[n.text] {
			return n
		}
	}
	for {
		n.copies++
		ns.scratch = strconv.AppendInt(append(append(ns.scratch[:0], n.text...), '_'), int64(n.copies)+1, 10)
		other := ns.named(ns.scratch)
		if other.seen != ns.generation && !ns.reserved[other.text] {
			other.seen, other.copies = ns.generation, 0
			return other
		}
	}
}

func (ns *names) behind(n *restName, suffix string) *restName {
	ns.scratch = append(append(ns.scratch[:0], n.text...), suffix...)
	return ns.named(ns.scratch)
}

// column returns the key of a column of a device.
func (ns *names) column(c *event.Column) []byte {
	for len(ns.byID) <= c.ID {
		ns.byID = append(ns.byID, nil)
	}
	if ns.byID[c.ID] == nil {
		ns.byID[c.ID] = msgp.AppendStringFromBytes(nil, cleanName(snake(nil, []byte(c.Name))))
	}
	return ns.byID[c.ID]
}

// children returns the last parts of the names of the fields in an object.
func (f *form) children(object fieldID) map[string]bool {
	in := make(map[string]bool)
	for i := range f.fields {
		if f.fields[i].parent == object && i > 0 {
			in[f.fields[i].name[len(f.fields[object].name)+1:]] = true
		}
	}
	return in
}

// addMember notes a member that the mapping does not know, whose key is node k. One name has one
// type: that of the documentation, else text, or a list of texts. Objects go to <name>_object.
func (e *ecs) addMember(tr *record.Tree, k uint32) {
	key := tr.Inner(k)
	n := e.rest.of(key)
	if len(key) > maxRestKey {
		e.addText(n, e.wholeMember(tr, k))
		return
	}
	v, kind := k+1, tr.Nodes[k+1].Kind
	in, at := *tr, v
	switch n.class {
	case record.ClassInteger:
		if i, ok := record.ParseInteger(e.scalar(tr, v)); ok {
			e.more[0].addInteger(e.rest.take(n).key, i)
			return
		}
	case record.ClassBoolean:
		if b, ok := record.ParseBoolean(e.scalar(tr, v)); ok {
			e.more[0].addBoolean(e.rest.take(n).key, b)
			return
		}
	case record.ClassReal:
		if kind == record.KindNumber {
			if _, ok := record.ParseReal(tr.Raw(v)); ok {
				e.addNested(n, tr, v)
				return
			}
		}
	case record.ClassObject, record.ClassObjects, record.ClassScalars:
		if kind == record.KindString && tr == &e.r.Columns {
			in, at = e.r.Open(e.w.Scanner(), v), 0
		}
		if len(in.Nodes) > 0 && in.Fits(at, n.class) && in.Nodes[at].Kind >= record.KindArray {
			e.addNested(n, &in, at)
			return
		}
	case record.ClassText:
		e.addScalar(n, tr, v)
		return
	default:
		if isAlert(e.r, e.own) && tr == &e.r.Doc {
			if tr, v = e.alertMember(&in, k); tr == nil {
				e.addText(n, bytesOf(alertBooleans[v]))
				return
			}
		}
		switch shapeOf(tr, v) {
		case shapeObjects:
			if n.object == nil {
				n.object = e.rest.behind(n, "_object")
			}
			e.addNested(n.object, tr, v)
		case shapeScalars:
			e.addNested(n, tr, v)
		default:
			e.addScalar(n, tr, v)
		}
		return
	}
	if n.raw == nil {
		n.raw = e.rest.behind(n, "_raw")
	}
	e.addScalar(n.raw, tr, v)
}

// alertBooleans are the texts of booleans, by their value 0 or 1.
var alertBooleans = [...]string{"false", "true"}

// alertMember returns the value of the member with key k of an alert. A list or object may also be
// there as text. For a boolean it returns nil and 0 or 1. An opened tree goes into in.
func (e *ecs) alertMember(in *record.Tree, k uint32) (*record.Tree, uint32) {
	doc, v := &e.r.Doc, k+1
	switch c := record.AlertClass(doc.Inner(k)); {
	case c == record.ClassBoolean:
		if b, ok := record.ParseBoolean(e.scalar(doc, v)); ok {
			if b {
				return nil, 1
			}
			return nil, 0
		}
	case c >= record.ClassObject && doc.Nodes[v].Kind == record.KindString:
		if *in = e.r.Open(e.w.Scanner(), v); len(in.Nodes) > 0 && in.Fits(0, c) {
			return in, 0
		}
	}
	return doc, v
}

// addTwin notes a column that the record has already, as text under a name of its own.
func (e *ecs) addTwin(tr *record.Tree, k uint32) { e.addScalar(e.rest.of(tr.Inner(k)), tr, k+1) }

func (e *ecs) addScalar(n *restName, tr *record.Tree, v uint32) {
	text := e.scalar(tr, v)
	if text == nil {
		text = e.json(tr, v)
	}
	e.addText(n, text)
}

func (e *ecs) addText(n *restName, text []byte) { e.more[0].addText(e.rest.take(n).key, text) }

// addNested notes a value with all that is in it.
func (e *ecs) addNested(n *restName, tr *record.Tree, v uint32) {
	taken := e.rest.take(n)
	e.addKeyed(taken.key, taken.text, tr, v)
}

// addKeyed is addNested for a key in msgpack, which is name.
func (e *ecs) addKeyed(key []byte, name string, tr *record.Tree, v uint32) {
	e.addLong(tr, v, name)
	m := &e.more[0]
	m.text = e.w.AppendIndexed(append(m.text, key...), tr, v, nestedLevel)
	m.count++
}

// addLong adds what AppendIndexed leaves out of a value: texts that no flattened field takes.
func (e *ecs) addLong(tr *record.Tree, v uint32, name string) {
	if len(tr.Raw(v)) > event.LongLeaf {
		e.addLongLeaves(tr, v, snake(nil, bytesOf(name)), nestedLevel)
	}
}

// addLongLeaves adds the texts in a value that event.Writer.Indexed leaves out because they are
// long, under the name of the value and their path.
func (e *ecs) addLongLeaves(tr *record.Tree, v uint32, name []byte, level int) {
	node := &tr.Nodes[v]
	switch {
	case node.Kind < record.KindString || int(node.End-node.Start) <= event.LongLeaf:
	case node.Kind == record.KindString:
		e.addText(e.rest.named(cleanName(name)), e.unescaped(tr, v))
	case level >= event.MaxDepth:
		e.addText(e.rest.named(cleanName(name)), e.json(tr, v))
	case node.Kind == record.KindArray:
		for at := v + 1; at < node.Next; at = tr.Nodes[at].Next {
			e.addLongLeaves(tr, at, name, level+1)
		}
	default:
		for k := v + 1; k < node.Next; k = tr.Nodes[k+1].Next {
			if event.LongKey(tr, k) {
				if int(tr.Nodes[k+1].End-tr.Nodes[k].Start) > event.LongLeaf {
					e.addText(e.rest.named(cleanName(name)), e.wholeMember(tr, k))
				}
				continue
			}
			key := snake(append(append([]byte(nil), name...), '_'), tr.Inner(k))
			e.addLongLeaves(tr, k+1, key, level+1)
		}
	}
}

// wholeMember returns a member as JSON text.
func (e *ecs) wholeMember(tr *record.Tree, k uint32) []byte {
	raw := tr.Src[tr.Nodes[k].Start:tr.Nodes[k+1].End]
	from := len(e.sheet.text)
	e.sheet.text = append(e.sheet.text, '{')
	var repairs int
	e.sheet.text, repairs = record.AppendJSONText(e.sheet.text, raw)
	e.repairs += repairs
	e.sheet.text = append(e.sheet.text, '}')
	return e.made(from)
}

// shape: the form of a value in an index.
type shape uint8

const (
	shapeScalar  shape = iota // a scalar, or a value that only text can hold
	shapeScalars              // a list of scalars
	shapeObjects              // an object, or a list of objects
)

func shapeOf(tr *record.Tree, n uint32) shape {
	switch tr.Nodes[n].Kind {
	case record.KindObject:
		return shapeObjects
	case record.KindArray:
	default:
		return shapeScalar
	}
	scalars, objects := false, false
	for at := n + 1; at < tr.Nodes[n].Next; at = tr.Nodes[at].Next {
		switch k := tr.Nodes[at].Kind; {
		case k == record.KindObject:
			objects = true
		case k == record.KindArray:
			return shapeScalar
		case k != record.KindNull:
			scalars = true
		}
	}
	switch {
	case scalars && objects:
		return shapeScalar
	case objects:
		return shapeObjects
	}
	return shapeScalars
}

// leftovers writes every column that no field holds whole below m365_defender.event.
func (e *ecs) leftovers() {
	for _, c := range e.used {
		if !e.sheet.taken[c] {
			e.leave(c)
		}
	}
}

// leave writes a column under its name there, or what that cannot hold under the name with _raw.
func (e *ecs) leave(c columnNumber) {
	col, s, n := &e.mapping.columns[c], e.sheet, e.node(c)
	if n == told {
		s.setText(col.rest, e.text(c), noSource)
		return
	}
	if col.key == nil && (s.has(col.rest) || s.has(col.raw)) { // another column of this name
		e.addScalar(e.rest.of(bytesOf(col.name)), e.tree, n)
		return
	}
	opened := col.typ == typeFlattened || col.class >= record.ClassObject || e.tree.Nodes[n].Kind >= record.KindArray
	if opened && e.leaveOpened(c) {
		return
	}
	text := e.textThere(c)
	switch col.typ {
	case typeLong:
		if i, ok := record.ParseInteger(text); ok {
			e.keepInteger(col, i)
			return
		}
	case typeBoolean:
		if b, ok := record.ParseBoolean(text); ok {
			e.keepBoolean(col, b)
			return
		}
	case typeDate:
		if isExact(text) {
			e.keepText(col, text)
			return
		}
	case typeIP:
		if _, _, ok := parseIP(text); ok {
			e.keepText(col, text)
			return
		}
	case typeKeyword:
		if col.raw == col.rest && len(text) > 0 {
			e.keepText(col, text)
			return
		}
	}
	e.w.CountMisfit()
	if text == nil {
		text = e.json(e.tree, n)
	}
	s.setText(col.raw, text, noSource)
}

// Each of these writes the value of a column under its name.

func (e *ecs) keepText(col *ecsColumn, text []byte) {
	if col.key == nil {
		e.sheet.setText(col.rest, text, noSource)
	} else {
		e.more[0].addText(col.key, text)
	}
}

func (e *ecs) keepInteger(col *ecsColumn, i int64) {
	if col.key == nil {
		e.sheet.setInteger(col.rest, i, noSource)
	} else {
		e.more[0].addInteger(col.key, i)
	}
}

func (e *ecs) keepBoolean(col *ecsColumn, b bool) {
	if col.key == nil {
		e.sheet.setBoolean(col.rest, b, noSource)
	} else {
		e.more[0].addBoolean(col.key, b)
	}
}

func (e *ecs) keepNested(col *ecsColumn, tr *record.Tree, v uint32) {
	if col.key == nil {
		e.setNested(col.rest, col.name, tr, v)
	} else {
		e.addKeyed(col.key, col.name, tr, v)
	}
}

// setNested gives a field a value with all that is in it.
func (e *ecs) setNested(f fieldID, name string, tr *record.Tree, v uint32) {
	e.addLong(tr, v, name)
	from := len(e.sheet.text)
	e.sheet.text = e.w.AppendIndexed(e.sheet.text, tr, v, nestedLevel)
	e.sheet.setEncoded(f, e.made(from), noSource)
}

// leaveOpened writes a column that is an array or object, natively or in a string, where its field
// can hold one.
func (e *ecs) leaveOpened(c columnNumber) bool {
	col := &e.mapping.columns[c]
	tree, at, ok := e.open(c)
	if !ok {
		return false
	}
	switch shape := shapeOf(&tree, at); {
	case col.open != 0: // the text stays in rest
		if shape == shapeObjects {
			e.setNested(col.open, col.name, &tree, at)
		}
	case shape == shapeObjects && col.typ == typeFlattened, shape == shapeScalars && col.typ == typeKeyword:
		e.keepNested(col, &tree, at)
		return true
	}
	return false
}
