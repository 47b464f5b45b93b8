package event

import "github.com/fluent-bit-defender/fluent-bit-defender/transform/record"

// refs finds the targets of Json.NET's references. Json.NET writes an object that occurs twice
// once, with "$id", and refers to it later by {"$ref":"<id>"}. Ids belong to one tree: an opened
// AdditionalFields, or a record.
type refs struct {
	tree    *record.Node      // the first node of the tree that targets is of
	targets map[string]uint32 // id as received -> object; the keys point into the tree's text
	chain   []uint32          // targets that are being written, one inside the other
	written int               // bytes of text that were written in place of references, in this record
}

// several marks an id that more than one object has: a reference to it is left alone.
const several = ^uint32(0)

// maxResolved: bytes that resolve_refs writes for one record. References to objects with references
// grow exponentially.
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

// target returns the object of a reference, and false if there is none in this tree.
func (rs *refs) target(tr *record.Tree, ref uint32) (uint32, bool) {
	if rs.tree != &tr.Nodes[0] {
		rs.index(tr)
	}
	n, ok := rs.targets[record.View(tr.Inner(ref))]
	return n, ok && n != several
}

// index finds the objects of tr that can be referred to. Json.NET writes "$id" first.
func (rs *refs) index(tr *record.Tree) {
	rs.tree = &tr.Nodes[0]
	clear(rs.targets)
	for n := range tr.Nodes {
		if tr.Nodes[n].Kind != record.KindObject || tr.Empty(uint32(n)) {
			continue
		}
		k := uint32(n) + 1
		if tr.Nodes[k+1].Kind == record.KindString && string(tr.Inner(k)) == "$id" {
			if rs.targets == nil {
				rs.targets = make(map[string]uint32)
			}
			id := record.View(tr.Inner(k + 1))
			if _, twice := rs.targets[id]; twice {
				rs.targets[id] = several
			} else {
				rs.targets[id] = uint32(n)
			}
		}
	}
}

type refUse int

const (
	refDangling refUse = iota // it refers to nothing in this tree
	refOmitted                // writes nothing
	refLeft                   // should be written, and cannot: a cycle, or too much
	refWritten                // the target is to be written, then leave called
)

// follow decides what becomes of the reference n, whose id is at ref.
func (rs *refs) follow(tr *record.Tree, n, ref uint32, resolve bool) (target uint32, how refUse) {
	target, ok := rs.target(tr, ref)
	if !ok {
		return 0, refDangling
	}
	if !resolve {
		return target, refOmitted
	}
	if target <= n && n < tr.Nodes[target].Next {
		return 0, refLeft // inside its own object
	}
	for _, open := range rs.chain {
		if open == target {
			return 0, refLeft
		}
	}
	rs.written += len(tr.Raw(target))
	if rs.written > maxResolved {
		return 0, refLeft
	}
	rs.chain = append(rs.chain, target)
	return target, refWritten
}

func (rs *refs) leave() { rs.chain = rs.chain[:len(rs.chain)-1] }
