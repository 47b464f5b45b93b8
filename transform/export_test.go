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

// DeviceKeys returns the keys of n devices.
func DeviceKeys(d *Devices, tenant string, id func(int) string, n int) []string {
	keys := make([]string, n)
	index, _ := d.tenant([]byte(tenant))
	for i := range keys {
		keys[i] = string(appendDeviceKey(nil, index, []byte(id(i))))
	}
	return keys
}

// A Hitter adds the fields of devices, as to a record.
type Hitter struct {
	t  *Transformer
	hr heldRow
}

// NewHitter returns a Hitter.
func NewHitter(d *Devices) *Hitter {
	h := &Hitter{t: New(Config{Devices: d})}
	h.hr = heldRow{match: matchRow, known: true}
	h.hr.row = row{held: &h.hr, table: &table{name: "AlertEvidence"}, columns: tree{[]byte("{}"), []node{{end: 2, next: 1, kind: kindObject}}}}
	return h
}

// Hit returns the number of fields of the device of key.
func (h *Hitter) Hit(key string) int {
	f := &h.t.flat
	h.hr.key = key
	f.out, f.fields = f.out[:0], 0
	f.maps++
	f.generation = f.maps
	h.t.devices.write(f, &h.hr.row)
	return int(f.fields)
}
