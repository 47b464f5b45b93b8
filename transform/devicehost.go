package transform

// host is the device that a row names.
type host struct {
	id      []byte // as received; nil if there is none
	match   deviceMatch
	leading bool
	tree    tree   // AdditionalFields
	node    uint32 // its host object there, with names of its own; 0 with has false if there is none
	has     bool
}

// deviceMatch is how the device of a record was found.
type deviceMatch uint8

const (
	matchNone     deviceMatch = iota
	matchRow                  // the row's own DeviceId
	matchEvidence             // the host inside AdditionalFields
	matchAlert                // the one device that the rows of the same alert name
)

var deviceMatches = [...]string{"", "row", "evidence", "alert"}

// hostPaths are where the entities of AlertEvidence have their host, by what they are: a Machine is one, a File and a User have one, a Process has it
// in its image, its account or its parent. In real records all but the first are references to the first.
var hostPaths = [...][]string{
	{},
	{"Host"},
	{"ImageFile", "Host"},
	{"Account", "Host"},
	{"ParentProcess", "Host"},
	{"ParentProcess", "ImageFile", "Host"},
	{"ParentProcess", "Account", "Host"},
}

// findHost finds the device that a row names, in its DeviceId or its AdditionalFields.
func findHost(s *scanner, r *row) (h host) {
	if !r.lifted {
		return host{}
	}
	if n := r.columns.find(r.props, "DeviceId"); n != 0 && r.columns.nodes[n].kind == kindString && len(r.columns.inner(n)) > 0 {
		h.id, h.match = r.columns.inner(n), matchRow
	}
	tr, at, ok := r.column(s, "AdditionalFields")
	if !ok || tr.nodes[at].kind != kindObject {
		return h
	}
	for _, path := range hostPaths {
		n, ok := at, true
		for _, key := range path {
			if n, ok = member(&tr, n, key); !ok {
				break
			}
		}
		if !ok {
			continue
		}
		if id := machineID(&tr, n); id != nil && (h.match == matchNone || sameText(id, h.id)) {
			if h.match == matchNone {
				h.id, h.match = id, matchEvidence
			}
			h.tree, h.node, h.has = tr, n, true
			leading := tr.find(n, "LeadingHost")
			h.leading = leading != 0 && tr.nodes[leading].kind == kindTrue
			return h
		}
	}
	if h.match != matchNone {
		return h
	}
	// An entity of a kind that is not known: if all its hosts are one, that is the host.
	for n := range tr.nodes {
		if tr.nodes[n].kind != kindObject {
			continue
		}
		id := machineID(&tr, uint32(n))
		switch {
		case id == nil:
		case h.id == nil:
			h = host{id: id, match: matchEvidence, tree: tr, node: uint32(n), has: true}
		case !sameText(id, h.id):
			return host{}
		}
	}
	return h
}

// member returns the object under key of object n, or the one that it refers to.
func member(tr *tree, n uint32, key string) (uint32, bool) {
	in := tr.find(n, key)
	if in == 0 || tr.nodes[in].kind != kindObject {
		return 0, false
	}
	ref := refOf(tr, in)
	if ref == 0 {
		return in, true
	}
	id := tr.inner(ref)
	for k := range tr.nodes {
		if tr.nodes[k].kind != kindObject || tr.empty(uint32(k)) {
			continue
		}
		if v := uint32(k) + 2; string(tr.inner(uint32(k)+1)) == "$id" && tr.nodes[v].kind == kindString && string(tr.inner(v)) == string(id) {
			return uint32(k), true
		}
	}
	return 0, false
}

func machineID(tr *tree, n uint32) []byte {
	id := tr.find(n, "MachineId")
	if id == 0 || tr.nodes[id].kind != kindString || len(tr.inner(id)) == 0 {
		return nil
	}
	return tr.inner(id)
}

// sameText compares ids, in any case.
func sameText(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if 'A' <= y && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}

// witness merges what evidence says of its host: less than any report does, and only where none has.
func (d *Devices) witness(r *row, h *host, key []byte) {
	if dev, ok := d.cache.Peek(view(key)); ok && !isEvidence(dev.groups) {
		// Mostly a report has said all this before.
		said := 0
		for w := (walker{rest: dev.groups}); ; {
			c, ok := w.next()
			if !ok {
				break
			}
			if c.id <= columnGroup && c.id != columnMergedTo {
				said++
			}
		}
		if said == d.witnessed {
			return
		}
	}
	l := d.learner
	l.begin()
	own := func(id columnID, name string) {
		if n := r.columns.find(r.props, name); n != 0 && d.keeps(id) {
			l.addValue(id, classText, &r.columns, n)
		}
	}
	// DeviceName and MachineGroup of a row are those of its DeviceId.
	if h.match == matchRow {
		own(columnDeviceName, "DeviceName")
		own(columnGroup, "MachineGroup")
	}
	if h.has {
		for _, c := range [...]struct {
			id   columnID
			name string
		}{{columnOSFamily, "OSFamily"}, {columnOSVersion, "OSVersion"}} {
			if n := h.tree.find(h.node, c.name); n != 0 && d.keeps(c.id) {
				l.addValue(c.id, classText, &h.tree, n)
			}
		}
		if d.keeps(columnDeviceName) {
			l.addHostName(&h.tree, h.node)
		}
	}
	if columns := l.end(); len(columns) > 0 {
		d.put(key, d.stamp(r)-evidenceAge, columns, true)
	}
	l.release()
}

// keeps reports whether a column is wanted.
func (d *Devices) keeps(id columnID) bool { return d.fields.names[id] != "" }

// addHostName takes the name of a host object: its name and its domain.
func (l *learner) addHostName(tr *tree, n uint32) {
	name := tr.find(n, "HostName")
	if name == 0 || tr.nodes[name].kind != kindString || nothing(tr, name) {
		return
	}
	for _, c := range l.columns {
		if c.id == columnDeviceName {
			return
		}
	}
	text, _ := appendText(l.text[:0], tr.inner(name))
	if domain := tr.find(n, "DnsDomain"); domain != 0 && tr.nodes[domain].kind == kindString && !nothing(tr, domain) {
		text = append(text, '.')
		text, _ = appendText(text, tr.inner(domain))
	}
	l.text = text
	l.flat.text(text)
	l.columns = append(l.columns, column{id: columnDeviceName})
	l.ends = append(l.ends, len(l.flat.out))
}
