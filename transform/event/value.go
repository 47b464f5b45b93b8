package event

import (
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Child returns the name of the member with key k, in the object whose name is parent. hint is -1
// at the first member of an object, and makes the next one quick to find.
func (w *Writer) Child(parent Name, tr *record.Tree, k uint32, hint *int32) Name {
	id, at := w.names.child(parent, tr.Inner(k), *hint)
	*hint = at
	return id
}

// Column writes a column that has a type.
func (w *Writer) Column(r *record.Record, id Name, c record.Class, n uint32) {
	tr := &r.Columns
	v := &tr.Nodes[n]
	if tr.Nothing(n) {
		w.None(id, c, tr, n)
		return
	}
	switch c {
	case record.ClassText:
		w.Key(id)
		if v.Kind == record.KindString {
			w.String(tr, n)
		} else {
			w.JSON(tr.Raw(n))
		}
		return
	case record.ClassInteger:
		text := tr.Raw(n)
		if v.Kind == record.KindString {
			text = tr.Inner(n)
		}
		if i, ok := record.ParseInteger(text); ok {
			w.Key(id)
			w.Out = msgp.AppendInt64(w.Out, i)
			if v.Kind == record.KindString {
				w.counts.Converted.Add(1)
			}
			return
		}
	case record.ClassReal:
		if v.Kind == record.KindNumber {
			if x, ok := record.ParseReal(tr.Raw(n)); ok {
				w.Key(id)
				w.Out = msgp.AppendFloat64(w.Out, x)
				return
			}
		}
	case record.ClassBoolean:
		text := tr.Raw(n)
		if v.Kind == record.KindString {
			text = tr.Inner(n)
		}
		if b, ok := record.ParseBoolean(text); ok {
			w.Key(id)
			w.Out = msgp.AppendBool(w.Out, b)
			if v.Kind != record.KindTrue && v.Kind != record.KindFalse {
				w.counts.Converted.Add(1)
			}
			return
		}
	case record.ClassObject, record.ClassObjects, record.ClassScalars:
		if w.Compact {
			break
		}
		in, at := *tr, n
		if v.Kind == record.KindString {
			in, at = r.Open(w.scanner, n), 0
		}
		if len(in.Nodes) > 0 && in.Fits(at, c) {
			if in.Nodes[at].Kind == record.KindNull || in.Empty(at) {
				w.None(id, c, tr, n)
			} else {
				w.Field(id, &in, at, 2)
			}
			return
		}
	}
	w.Misfit(id, tr, n)
}

// Misfit writes what its column cannot hold, as text.
func (w *Writer) Misfit(id Name, tr *record.Tree, n uint32) {
	w.counts.Misfits.Add(1)
	w.Key(w.names.rawOf(id))
	if tr.Nodes[n].Kind == record.KindString {
		w.String(tr, n)
	} else {
		w.JSON(tr.Raw(n))
	}
}

// None writes one of the spellings of nothing, if the user keeps them. A JSON column has only null.
func (w *Writer) None(id Name, c record.Class, tr *record.Tree, n uint32) {
	if !w.options.KeepNulls {
		return
	}
	w.Key(id)
	switch {
	case c >= record.ClassObject || tr.Nodes[n].Kind != record.KindString:
		w.Out = msgp.AppendNil(w.Out)
	case c == record.ClassText:
		w.Out = msgp.AppendString(w.Out, "")
	default:
		w.Out = msgp.AppendNil(w.Out)
	}
}

// LongKey reports whether the key at node k is cut when it becomes a name.
func LongKey(tr *record.Tree, k uint32) bool {
	return tr.Nodes[k].End-tr.Nodes[k].Start > maxKeyBytes+2
}

// Member writes the member with key k under the name id. If the key was cut, the value is the whole
// member as JSON text.
func (w *Writer) Member(id Name, tr *record.Tree, k uint32, level int) {
	if !LongKey(tr, k) {
		w.Field(id, tr, k+1, level)
		return
	}
	if !w.options.KeepNulls && tr.Nothing(k+1) {
		return
	}
	w.wholeMember(id, tr, k)
}

// wholeMember writes the member whose key is node k as JSON text, key and all.
func (w *Writer) wholeMember(id Name, tr *record.Tree, k uint32) {
	w.counts.Renamed.Add(1)
	w.Key(id)
	whole := append(w.whole[:0], '{')
	whole = append(whole, tr.Src[tr.Nodes[k].Start:tr.Nodes[k+1].End]...)
	w.whole = append(whole, '}')
	w.JSON(w.whole)
}

// Field writes a value under the name id, or the members of an object. level is that of the map.
func (w *Writer) Field(id Name, tr *record.Tree, n uint32, level int) {
	v := &tr.Nodes[n]
	if v.Kind == record.KindObject && !w.Compact {
		w.object(id, tr, n, level+1)
		return
	}
	if !w.options.KeepNulls && tr.Nothing(n) {
		return
	}
	if v.Kind >= record.KindArray && w.Compact {
		w.Misfit(id, tr, n)
		return
	}
	w.Key(id)
	w.Value(tr, n, level)
}

// object writes the members of an object into the map being written.
func (w *Writer) object(id Name, tr *record.Tree, n uint32, level int) {
	if tr.Empty(n) {
		if w.options.KeepNulls {
			w.Key(id)
			w.Out = msgp.AppendMapHeader(w.Out, 0)
		}
		return
	}
	if ref := tr.Ref(n); ref != 0 && w.reference(id, tr, n, ref, level) {
		return
	}
	if level > MaxDepth || len(w.names.list[id].text) > maxNameLength {
		w.Key(id)
		w.JSON(tr.Raw(n))
		return
	}
	w.members(id, tr, n, level)
}

// members writes the members of object n under the name parent. level is that of the object.
func (w *Writer) members(parent Name, tr *record.Tree, n uint32, level int) {
	hint := int32(-1)
	for k, end := n+1, tr.Nodes[n].Next; k < end && !w.Over(); k = tr.Nodes[k+1].Next {
		if string(tr.Inner(k)) == "$id" && tr.Nodes[k+1].Kind <= record.KindString {
			continue // Json.NET's own; see refs.go
		}
		if !w.options.KeepNulls && tr.Nothing(k+1) {
			continue
		}
		w.Member(w.Child(parent, tr, k, &hint), tr, k, level)
	}
}

// Value writes a value where no name can be joined: a scalar, a list, or an element of a list.
// level is that of the map or list around it.
func (w *Writer) Value(tr *record.Tree, n uint32, level int) {
	v := &tr.Nodes[n]
	switch v.Kind {
	case record.KindNull:
		w.Out = msgp.AppendNil(w.Out)
	case record.KindTrue, record.KindFalse:
		w.Out = msgp.AppendBool(w.Out, v.Kind == record.KindTrue)
	case record.KindNumber:
		w.number(tr.Raw(n))
	case record.KindWord:
		w.Out = msgp.AppendStringFromBytes(w.Out, tr.Raw(n))
	case record.KindString:
		w.String(tr, n)
	case record.KindArray:
		w.list(tr, n, level+1)
	case record.KindObject:
		w.element(tr, n, level+1)
	}
}

// list writes an array. level is its own.
func (w *Writer) list(tr *record.Tree, n uint32, level int) {
	if w.options.ArraysAsJSON || level > MaxDepth {
		w.JSON(tr.Raw(n))
		return
	}
	count, scalars, containers := uint32(0), false, false
	for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
		count++
		switch k := tr.Nodes[e].Kind; {
		case k >= record.KindArray:
			containers = true
		case k != record.KindNull:
			scalars = true
		}
	}
	w.Out = msgp.AppendArrayHeader(w.Out, count)
	for e, end := n+1, tr.Nodes[n].Next; e < end && !w.Over(); e = tr.Nodes[e].Next {
		switch k := tr.Nodes[e].Kind; {
		case !scalars || !containers || k == record.KindNull || k == record.KindString:
			w.Value(tr, e, level)
		default: // scalars beside objects, which no index takes: all as text
			w.JSON(tr.Raw(e))
		}
	}
}

// element writes an object in a list: a flat map of its own. level is its own.
func (w *Writer) element(tr *record.Tree, n uint32, level int) {
	if level > MaxDepth {
		w.JSON(tr.Raw(n))
		return
	}
	if ref := tr.Ref(n); ref != 0 {
		switch target, how := w.refs.follow(tr, n, ref, w.options.ResolveRefs); how {
		case refWritten:
			n = target
			defer w.refs.leave()
		case refLeft:
			w.counts.Unresolved.Add(1)
			fallthrough
		case refOmitted:
			w.Out = msgp.AppendMapHeader(w.Out, 0)
			return
		}
	}
	w.openMap()
	w.members(Root(level), tr, n, level)
	w.Close()
}

// reference writes the target of {"$ref": ...} in its place, or nothing. It returns false if there
// is no target here: then the reference is an object like any other.
func (w *Writer) reference(id Name, tr *record.Tree, n, ref uint32, level int) bool {
	target, how := w.refs.follow(tr, n, ref, w.options.ResolveRefs)
	switch how {
	case refDangling:
		return false
	case refLeft:
		w.counts.Unresolved.Add(1)
	case refWritten:
		w.object(id, tr, target, level)
		w.refs.leave()
	}
	return true
}

// Key writes the key of a member of the record, or the next free one like it, and counts the field.
func (w *Writer) Key(id Name) {
	if n := &w.names.list[id]; !n.own && n.seen != w.generation { // as nearly all are
		n.seen, n.copies = w.generation, 0
		w.Out = append(w.Out, n.key...)
		w.fields++
		return
	}
	id, renamed := w.names.take(id, w.generation)
	w.key(id, renamed)
}

// ownKey is Key for a field of ours, whose name no member of the record can have.
func (w *Writer) ownKey(id Name) {
	id, renamed := w.names.takeOwn(id, w.generation)
	w.key(id, renamed)
}

func (w *Writer) key(id Name, renamed bool) {
	if renamed {
		w.counts.Renamed.Add(1)
	}
	w.Out = append(w.Out, w.names.list[id].key...)
	w.fields++
}

// Text writes string n as a field of our own. Node 0 writes nothing.
func (w *Writer) Text(id Name, tr *record.Tree, n uint32) {
	if n == 0 || tr.Nodes[n].End-tr.Nodes[n].Start == 2 && !w.options.KeepNulls {
		return
	}
	w.ownKey(id)
	w.String(tr, n)
}

// String writes string n, its escapes resolved, as a value.
func (w *Writer) String(tr *record.Tree, n uint32) {
	inner := tr.Inner(n)
	switch flags := tr.Nodes[n].Flags; {
	case flags&record.FlagEscaped != 0 || flags&record.FlagWide != 0 && !utf8.Valid(inner):
		var repairs int
		w.scratch, repairs = record.AppendText(w.scratch[:0], inner)
		w.repairs += repairs
		inner = w.scratch
	}
	w.Out = msgp.AppendStringFromBytes(w.Out, inner)
}

// JSON writes the JSON text of a value as a string.
func (w *Writer) JSON(b []byte) {
	if !utf8.Valid(b) {
		var repairs int
		w.scratch, repairs = record.AppendJSONText(w.scratch[:0], b)
		w.repairs += repairs
		b = w.scratch
	}
	w.Out = msgp.AppendStringFromBytes(w.Out, b)
}

// number writes a number as the integer or float it is, or its text where neither can hold it.
func (w *Writer) number(text []byte) {
	if i, ok := record.ParseInteger(text); ok {
		w.Out = msgp.AppendInt64(w.Out, i)
	} else if x, ok := record.ParseFloat(text); ok {
		w.Out = msgp.AppendFloat64(w.Out, x)
	} else {
		w.Out = msgp.AppendStringFromBytes(w.Out, text)
	}
}

// ArrayOf1 writes a list of one string.
func (w *Writer) ArrayOf1(tr *record.Tree, n uint32) {
	w.Out = msgp.AppendArrayHeader(w.Out, 1)
	w.String(tr, n)
}

// Scalar writes a value of a column of class c, and reports false if it does not fit.
func (w *Writer) Scalar(c record.Class, tr *record.Tree, n uint32) bool {
	text := tr.Raw(n)
	if tr.Nodes[n].Kind == record.KindString {
		text = tr.Inner(n)
	}
	switch c {
	case record.ClassInteger:
		i, ok := record.ParseInteger(text)
		if ok {
			w.Out = msgp.AppendInt64(w.Out, i)
		}
		return ok
	case record.ClassBoolean:
		b, ok := record.ParseBoolean(text)
		if ok {
			w.Out = msgp.AppendBool(w.Out, b)
		}
		return ok
	case record.ClassReal:
		x, ok := record.ParseReal(text)
		if ok {
			w.Out = msgp.AppendFloat64(w.Out, x)
		}
		return ok
	}
	if tr.Nodes[n].Kind == record.KindString {
		w.String(tr, n)
	} else {
		w.JSON(text)
	}
	return true
}

// Nested writes a value unchanged: objects as maps, lists as lists. level is that of the map or
// list around it.
func (w *Writer) Nested(tr *record.Tree, n uint32, level int) {
	v := &tr.Nodes[n]
	switch {
	case v.Kind < record.KindArray:
		w.Value(tr, n, level)
	case level >= MaxDepth, w.Compact:
		w.JSON(tr.Raw(n))
	case v.Kind == record.KindArray:
		count := uint32(0)
		for e, end := n+1, v.Next; e < end; e = tr.Nodes[e].Next {
			count++
		}
		w.Out = msgp.AppendArrayHeader(w.Out, count)
		for e, end := n+1, v.Next; e < end && !w.Over(); e = tr.Nodes[e].Next {
			w.Nested(tr, e, level+1)
		}
	default:
		w.openMap()
		hint := int32(-1)
		for k, end := n+1, v.Next; k < end && !w.Over(); k = tr.Nodes[k+1].Next {
			w.NestedMember(w.Child(Root(level), tr, k, &hint), tr, k, level+1)
		}
		w.Close()
	}
}

// NestedMember writes the member with key k under the name id, unchanged. If the key was cut, the
// value is the whole member as JSON text.
func (w *Writer) NestedMember(id Name, tr *record.Tree, k uint32, level int) {
	if LongKey(tr, k) {
		w.wholeMember(id, tr, k)
		return
	}
	w.Key(id)
	w.Nested(tr, k+1, level)
}
