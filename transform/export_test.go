package transform

import "unsafe"

// Held returns about how many bytes t keeps between calls.
func Held(t *Transformer) int {
	n := cap(t.event) + cap(t.row.text) + cap(t.row.nodes)*int(unsafe.Sizeof(node{})) + cap(t.flat.scratch) + cap(t.id.compact) + cap(t.scanner.open)*8
	ns := t.flat.names
	n += cap(ns.links)*int(unsafe.Sizeof(link{})) + cap(ns.list)*int(unsafe.Sizeof(name{})) + cap(ns.slots)*4 + ns.bytes + cap(ns.scratch)
	return n
}

// A Parser parses with our scanner alone.
type Parser struct {
	scanner scanner
	nodes   []node
}

// Parse returns the number of nodes of the JSON text b.
func (p *Parser) Parse(b []byte) (n int, err error) {
	var end int
	p.nodes, end, err = p.scanner.parse(b, 0, p.nodes[:0])
	if err == nil && skipSpace(b, end) != len(b) {
		err = errTail
	}
	return len(p.nodes), err
}
