package transform

import "unsafe"

// Json.NET writes an object that occurs twice once, with "$id", and refers to it later by {"$ref":"<id>"}. Ids are
// looked up within one tree: an opened AdditionalFields, or a record.
type refs struct {
	tree    *node             // the first node of the tree that targets is of
	targets map[string]uint32 // id as received -> object; the keys point into the tree's text
	chain   []uint32          // targets that are being written, one inside the other
	written int               // bytes of text that were written in place of references, in this record
}

// maxResolved bounds what resolve_refs writes for one record: references to objects with references grow exponentially.
const maxResolved = 256 << 10

func (rs *refs) begin() {
	rs.tree = nil
	rs.chain = rs.chain[:0]
	rs.written = 0
}

func (rs *refs) release() {
	rs.tree = nil
	if len(rs.targets) > 1024 {
		rs.targets = nil
	}
	clear(rs.targets)
}

// refOf returns the value of "$ref" if object n is a reference and nothing else, or 0.
func refOf(tr *tree, n uint32) uint32 {
	v := &tr.nodes[n]
	if v.next != n+3 || tr.nodes[n+2].kind != kindString || string(tr.inner(n+1)) != "$ref" {
		return 0
	}
	return n + 2
}

// target returns the object that a reference refers to, and false if there is none in this tree.
func (rs *refs) target(tr *tree, ref uint32) (uint32, bool) {
	if rs.tree != &tr.nodes[0] {
		rs.index(tr)
	}
	n, ok := rs.targets[view(tr.inner(ref))]
	return n, ok
}

// index finds the objects of tr that can be referred to. Json.NET writes "$id" first.
func (rs *refs) index(tr *tree) {
	rs.tree = &tr.nodes[0]
	clear(rs.targets)
	for n := range tr.nodes {
		if tr.nodes[n].kind != kindObject || tr.empty(uint32(n)) {
			continue
		}
		k := uint32(n) + 1
		if tr.nodes[k+1].kind == kindString && string(tr.inner(k)) == "$id" {
			if rs.targets == nil {
				rs.targets = make(map[string]uint32)
			}
			rs.targets[view(tr.inner(k+1))] = uint32(n)
		}
	}
}

// view is b as a string, without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

type refUse int

const (
	refDangling refUse = iota // it refers to nothing in this tree
	refOmitted                // writes nothing
	refLeft                   // should be written, and cannot: a cycle, or too much
	refWritten                // the target is to be written, then leave called
)

// follow decides what becomes of the reference n, whose id is at ref.
func (rs *refs) follow(tr *tree, n, ref uint32, resolve bool) (target uint32, how refUse) {
	target, ok := rs.target(tr, ref)
	if !ok {
		return 0, refDangling
	}
	if !resolve {
		return target, refOmitted
	}
	if target <= n && n < tr.nodes[target].next {
		return 0, refLeft // inside what it refers to
	}
	for _, open := range rs.chain {
		if open == target {
			return 0, refLeft
		}
	}
	rs.written += len(tr.raw(target))
	if rs.written > maxResolved {
		return 0, refLeft
	}
	rs.chain = append(rs.chain, target)
	return target, refWritten
}

func (rs *refs) leave() { rs.chain = rs.chain[:len(rs.chain)-1] }
