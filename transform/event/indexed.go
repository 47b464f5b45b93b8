package event

import (
	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// LongLeaf is the longest text, in bytes as received, that Indexed writes. Lucene refuses a
// document that has a term of more than 32,766 bytes. In a field of objects (flattened) a term is a
// text together with its path.
const LongLeaf = 24_000

// AddRepairs adds repairs of texts that the caller writes itself, and returns how many the event
// has.
func (w *Writer) AddRepairs(n int) int {
	w.repairs += n
	return w.repairs
}

// CountRepairs counts the repairs of the event, for a format that writes their number itself.
func (w *Writer) CountRepairs() { w.counts.Repaired.Add(uint64(w.repairs)) }

// CountMisfit counts a value that the caller has written under the name for misfits.
func (w *Writer) CountMisfit() { w.counts.Misfits.Add(1) }

// Scanner opens JSON in strings.
func (w *Writer) Scanner() *record.Scanner { return w.scanner }

// AppendIndexed appends a value to dst as Indexed writes it. Its repairs count for the event.
func (w *Writer) AppendIndexed(dst []byte, tr *record.Tree, n uint32, level int) []byte {
	out := w.Out
	w.Out = dst
	w.Indexed(tr, n, level)
	dst, w.Out = w.Out, out
	return dst
}

// Indexed writes a value for an index, with its objects as maps, not joined into names. Empty
// values are left out, and so are texts longer than LongLeaf, which the caller writes elsewhere. In
// a list, where the position may matter, null takes their place. level is that of the map or list
// around the value. The output is at most a few times as long as the text, so that there is no
// limit.
func (w *Writer) Indexed(tr *record.Tree, n uint32, level int) {
	v := &tr.Nodes[n]
	switch {
	case v.Kind < record.KindString:
		w.Value(tr, n, level)
	case v.Kind == record.KindString && v.End-v.Start > LongLeaf, v.Kind > record.KindString && level >= MaxDepth && v.End-v.Start > LongLeaf:
		w.Out = msgp.AppendNil(w.Out)
	case v.Kind == record.KindString:
		w.String(tr, n)
	case level >= MaxDepth:
		w.JSON(tr.Raw(n))
	case v.Kind == record.KindArray:
		count := uint32(0)
		for e, end := n+1, v.Next; e < end; e = tr.Nodes[e].Next {
			count++
		}
		w.Out = msgp.AppendArrayHeader(w.Out, count)
		for e, end := n+1, v.Next; e < end; e = tr.Nodes[e].Next {
			w.Indexed(tr, e, level+1)
		}
	default:
		if ref := tr.Ref(n); ref != 0 {
			if target, ok := w.indexedRef(tr, n, ref); ok {
				if target == 0 {
					w.Out = msgp.AppendMapHeader(w.Out, 0)
					return
				}
				w.indexedTarget(tr, target, level)
				return
			}
		}
		w.indexedObject(tr, n, level+1)
	}
}

// indexedRef returns the object to write in place of the reference n, 0 for none. ok is false if n
// refers to nothing here.
func (w *Writer) indexedRef(tr *record.Tree, n, ref uint32) (target uint32, ok bool) {
	target, how := w.refs.follow(tr, n, ref, w.options.ResolveRefs)
	switch how {
	case refDangling:
		return 0, false
	case refLeft:
		w.counts.Unresolved.Add(1)
		return 0, true
	case refOmitted:
		return 0, true
	}
	return target, true
}

// indexedTarget writes the object of a reference. level is that of the map or list around the
// reference.
func (w *Writer) indexedTarget(tr *record.Tree, target uint32, level int) {
	if level < MaxDepth {
		w.indexedObject(tr, target, level+1)
	} else if raw := tr.Raw(target); len(raw) <= LongLeaf {
		w.JSON(raw)
	} else {
		w.Out = msgp.AppendNil(w.Out)
	}
	w.refs.leave()
}

// indexedObject writes object n as a map. level is its own.
func (w *Writer) indexedObject(tr *record.Tree, n uint32, level int) {
	w.openMap()
	hint := int32(-1)
	for k, end := n+1, tr.Nodes[n].Next; k < end; k = tr.Nodes[k+1].Next {
		v := &tr.Nodes[k+1]
		switch {
		case tr.Nothing(k + 1), string(tr.Inner(k)) == "$id" && v.Kind <= record.KindString:
			continue
		case LongKey(tr, k):
			if v.End-tr.Nodes[k].Start <= LongLeaf {
				w.Member(w.Child(Root(level), tr, k, &hint), tr, k, level)
			}
			continue
		case v.End-v.Start > LongLeaf && (v.Kind == record.KindString || v.Kind > record.KindString && level >= MaxDepth):
			continue
		case v.Kind == record.KindObject:
			if ref := tr.Ref(k + 1); ref != 0 {
				if target, ok := w.indexedRef(tr, k+1, ref); ok {
					if target != 0 {
						w.Key(w.Child(Root(level), tr, k, &hint))
						w.indexedTarget(tr, target, level)
					}
					continue
				}
			}
		}
		w.Key(w.Child(Root(level), tr, k, &hint))
		w.Indexed(tr, k+1, level)
	}
	w.Close()
}
