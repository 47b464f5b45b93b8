package device

import (
	"bytes"
	"slices"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// host is the device that a row names.
type host struct {
	id      []byte // as received; nil if there is none
	match   Match
	leading bool
	tree    record.Tree // AdditionalFields
	node    uint32      // its host object there, with its own names; 0, and has is false, if there is none
	has     bool
	name    []byte // of a host without an id, as received; its domain is in domain
	domain  []byte
	several [][]byte // ids of the hosts of an entity that names more than one; then there is no id
}

// Match is how the device of a record was found.
type Match uint8

const (
	matchNone     Match = iota
	matchRow            // the row's own DeviceId
	matchEvidence       // the host inside AdditionalFields
	matchAlert          // the one device that the rows of the same alert name
	matchSeveral        // the row or its alert names more than one: none is guessed
	matchName           // the one device of the tenant that has the host name or the resource that the row names
	matchUser           // the one device that the row's account is logged on to
)

var matchNames = [...]string{"", "row", "evidence", "alert", "several", "name", "user"}

// hostPaths are the places of the host in the entities of AlertEvidence. A Machine is a host, a
// File and a User have one, and a Process has it in its image, its account or its parent. In real
// records all but the first are references to the first.
var hostPaths = [...][]string{
	{},
	{"Host"},
	{"ImageFile", "Host"},
	{"Account", "Host"},
	{"ParentProcess", "Host"},
	{"ParentProcess", "ImageFile", "Host"},
	{"ParentProcess", "Account", "Host"},
}

// findHost finds the device that a row names, in its DeviceId or its AdditionalFields. entity: the
// row is about one entity of an alert, and all hosts in it are that entity's.
func findHost(s *record.Scanner, r *record.Record, entity bool) (h host) {
	if !r.Lifted {
		return host{}
	}
	if n := r.Columns.Find(r.Props, "DeviceId"); n != 0 && r.Columns.Nodes[n].Kind == record.KindString && !noID(&r.Columns, n) {
		h.id, h.match = r.Columns.Inner(n), matchRow
	}
	if h.match == matchNone {
		h.name = nameAt(&r.Columns, r.Props, "DeviceName", isNoName)
	}
	tr, at, ok := r.Column(s, "AdditionalFields")
	if !ok || tr.Nodes[at].Kind < record.KindArray {
		return h
	}
	paths := hostPaths[:]
	var named []byte // the host object without an id that comes first
	if tr.Nodes[at].Kind != record.KindObject {
		paths = nil
	}
	for _, path := range paths {
		n, ok := at, true
		for _, key := range path {
			if n, ok = member(&tr, n, key); !ok {
				break
			}
		}
		if !ok {
			continue
		}
		id := machineID(&tr, n)
		if id == nil && h.match == matchNone {
			h.takeName(&tr, n)
			if len(named) == 0 {
				named = nameAt(&tr, n, "HostName", isNoName)
			}
		} else if len(named) > 0 {
			name := nameAt(&tr, n, "HostName", isNoName)
			if len(name) > 0 && !sameText(shortName(named), shortName(name)) {
				continue // the image of a process may be on another host than the process
			}
		}
		if id != nil && (h.match == matchNone || sameID(id, h.id)) {
			if h.match == matchNone {
				h.id, h.match = id, matchEvidence
			}
			h.tree, h.node, h.has = tr, n, true
			leading := tr.Find(n, "LeadingHost")
			h.leading = leading != 0 && tr.Nodes[leading].Kind == record.KindTrue
			return h
		}
	}
	if h.match != matchNone || len(named) > 0 || !entity {
		return h
	}
	// An entity of a kind that is not known: if all its hosts are one, that is the host.
	h.search(s, r, &tr, at, 0)
	if len(h.several) > 1 {
		return host{several: h.several}
	}
	h.several = nil
	return h
}

// takeName takes the name of a host object without an id, unless the row has another name. A column
// often has the short name only.
func (h *host) takeName(tr *record.Tree, n uint32) {
	name := nameAt(tr, n, "HostName", isNoName)
	if len(name) == 0 {
		name = nameAt(tr, n, "NetBiosName", isNoName)
	}
	switch own := wholeName(h.name); {
	case len(name) == 0:
	case len(own) == 0, len(h.domain) == 0 && bytes.IndexByte(own, '.') < 0 && sameText(own, shortName(name)):
		h.name, h.domain = name, nameAt(tr, n, "DnsDomain", isNoID)
	}
}

// maxInside is how often JSON text inside JSON text is opened to find a host.
const maxInside = 2

// isHostKey reports whether JSON text under a key may be a host. Text elsewhere may be what the
// sender of a mail or the author of a file has written: nobody is to choose the device.
func isHostKey(key []byte) bool {
	return isOneOf(key, "Host", "Machine", "Device", "Entity", "Entities", "AdditionalFields")
}

// search looks for hosts in all of node at, and in JSON text where hosts stand.
func (h *host) search(s *record.Scanner, r *record.Record, tr *record.Tree, at uint32, depth int) {
	for n, end := at, tr.Nodes[at].Next; n < end; n++ {
		if tr.Nodes[n].Kind != record.KindObject {
			continue
		}
		for k, last := n+1, tr.Nodes[n].Next; k < last && depth < maxInside; k = tr.Nodes[k+1].Next {
			if tr.Nodes[k+1].Kind != record.KindString || !isHostKey(tr.Inner(k)) {
				continue
			}
			if text := tr.Inner(k + 1); len(text) > 2 && (text[0] == '{' || text[0] == '[') && bytes.Contains(text, []byte("MachineId")) {
				if in := r.Inside(s, tr, k+1); len(in.Nodes) > 0 {
					h.search(s, r, &in, 0, depth+1)
				}
			}
		}
		id := machineID(tr, n)
		switch {
		case id == nil:
		case h.id == nil:
			*h = host{id: id, match: matchEvidence, tree: *tr, node: n, has: true, several: [][]byte{id}}
		case !slices.ContainsFunc(h.several, func(other []byte) bool { return sameID(id, other) }) && len(h.several) < maxHosts:
			h.several = append(h.several, id)
		}
	}
}

// member returns the object under key of object n, or the one that it refers to.
func member(tr *record.Tree, n uint32, key string) (uint32, bool) {
	in := tr.Find(n, key)
	if in == 0 || tr.Nodes[in].Kind != record.KindObject {
		return 0, false
	}
	ref := tr.Ref(in)
	if ref == 0 {
		return in, true
	}
	id := tr.Inner(ref)
	found := uint32(0)
	for k := range tr.Nodes {
		if tr.Nodes[k].Kind != record.KindObject || tr.Empty(uint32(k)) {
			continue
		}
		if v := uint32(k) + 2; string(tr.Inner(uint32(k)+1)) == "$id" && tr.Nodes[v].Kind == record.KindString && string(tr.Inner(v)) == string(id) {
			if found != 0 {
				return 0, false // two objects have that id: none is guessed
			}
			found = uint32(k)
		}
	}
	return found, found != 0
}

// noID reports whether string n is no id.
func noID(tr *record.Tree, n uint32) bool { return isText(tr, n, isNoID) }

// stringAt is the text of a member of object n, as received, or nil.
func stringAt(tr *record.Tree, n uint32, key string) []byte {
	v := tr.Find(n, key)
	if v == 0 || tr.Nodes[v].Kind != record.KindString {
		return nil
	}
	return tr.Inner(v)
}

// nameAt is the text of a member of object n, as received, or nil if it is none of its kind.
func nameAt(tr *record.Tree, n uint32, key string, none func([]byte) bool) []byte {
	v := tr.Find(n, key)
	if v == 0 || tr.Nodes[v].Kind != record.KindString || isText(tr, v, none) {
		return nil
	}
	return tr.Inner(v)
}

func machineID(tr *record.Tree, n uint32) []byte {
	id := tr.Find(n, "MachineId")
	if id == 0 || tr.Nodes[id].Kind != record.KindString || noID(tr, id) {
		return nil
	}
	return tr.Inner(id)
}

// sameID compares ids as received: their texts, in any case.
func sameID(a, b []byte) bool {
	if sameText(a, b) {
		return true
	}
	a, _ = record.AppendText(nil, a)
	b, _ = record.AppendText(nil, b)
	return sameText(bytes.TrimSpace(a), bytes.TrimSpace(b))
}

// sameText compares texts, in any case of ASCII.
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

// witness merges what evidence says of its host: less than any report does, and only where none
// has. It returns the device, or nil if nothing is known of it.
func (m *Memory) witness(r *record.Record, h *host, key []byte) *device {
	dev, ok := m.cache.peek(record.View(key))
	if ok && dev.told {
		return dev // mostly a report has said all this before
	}
	l := m.learner
	l.begin()
	take := func(id columnID, tr *record.Tree, object uint32, name string, none func([]byte) bool) {
		if n := tr.Find(object, name); n != 0 && m.stores(id) && !isText(tr, n, none) {
			l.addValue(id, record.ClassText, tr, n)
		}
	}
	// DeviceName and MachineGroup of a row are those of its DeviceId.
	if h.match == matchRow {
		take(columnDeviceName, &r.Columns, r.Props, "DeviceName", isNoID)
		take(columnGroup, &r.Columns, r.Props, "MachineGroup", isNoValue)
	}
	if h.has {
		take(columnOSFamily, &h.tree, h.node, "OSFamily", isNoSystem)
		take(columnOSVersion, &h.tree, h.node, "OSVersion", isNoSystem)
		if m.stores(columnDeviceName) {
			l.addHostName(&h.tree, h.node)
		}
	}
	if columns := l.end(); len(columns) > 0 {
		m.put(key, m.stamp(r)-evidenceAge, columns, nil, true)
		dev, _ = m.cache.peek(record.View(key))
	}
	l.release()
	return dev
}

// stores reports whether a column is kept: it is wanted, or devices are found by it.
func (m *Memory) stores(id columnID) bool {
	return m.fields.names[id] != "" || m.fields.finds(id)
}

// addHostName takes the name of a host object: its name and its domain.
func (l *learner) addHostName(tr *record.Tree, n uint32) {
	name := nameAt(tr, n, "HostName", isNoID)
	if len(name) == 0 {
		name = nameAt(tr, n, "NetBiosName", isNoID)
	}
	if len(name) == 0 {
		return
	}
	for _, c := range l.columns {
		if c.id == columnDeviceName {
			return
		}
	}
	l.text = appendHostName(l.text[:0], name, nameAt(tr, n, "DnsDomain", isNoID))
	l.values.JSON(l.text)
	l.columns = append(l.columns, column{id: columnDeviceName})
	l.ends = append(l.ends, l.values.Len())
}

// appendHostName appends a name with its domain, both as received, unless it has one already.
func appendHostName(dst, name, domain []byte) []byte {
	dst, _ = record.AppendText(dst, name)
	if len(domain) > 0 && bytes.IndexByte(dst, '.') < 0 {
		dst, _ = record.AppendText(append(dst, '.'), domain)
	}
	return dst
}
