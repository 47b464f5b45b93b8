package device

import (
	"bytes"
	"slices"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// maxAddresses is how many addresses of each kind are kept of a device.
const maxAddresses = 16

// adapter takes a row of DeviceNetworkInfo: one adapter of a device. Rows of one report have one
// time, and are put together; those of a newer report replace them. Adapters that are not up count
// for nothing, unless one was up in the report before: then its addresses are no more.
func (m *Memory) adapter(r *record.Record, tenant uint32) {
	withIPs, withMACs := m.fields.names[columnIPs] != "", m.fields.names[columnMACs] != ""
	if !withIPs && !withMACs {
		return
	}
	up := sameText(stringAt(&r.Columns, r.Props, "NetworkAdapterStatus"), []byte("Up"))
	mac := nameAt(&r.Columns, r.Props, "MacAddress", isNoID)
	key := m.keyOf(r, "DeviceId", tenant)
	if key == nil {
		return
	}
	stamp := m.stamp(r)
	var ips, macs []byte // of the same report
	wasUp := false       // in the report before
	dev, _ := m.cache.peek(record.View(key))
	for w := (walker{rest: groupsOf(dev)}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		switch {
		case c.id == columnMACs && w.stamp < stamp && len(mac) > 0:
			text, _ := record.AppendText(nil, mac)
			for _, other := range appendTexts(nil, c.value) {
				wasUp = wasUp || sameText(other, text)
			}
		case w.stamp != stamp:
		case c.id == columnIPs:
			ips = c.value
		case c.id == columnMACs:
			macs = c.value
		}
	}
	var newIPs, newMACs [][]byte
	switch {
	case up:
		if newIPs = m.addresses(r); len(mac) > 0 {
			newMACs = [][]byte{mac}
		}
	case !wasUp:
		return
	}
	l := m.learner
	l.begin()
	if withMACs {
		l.addUnion(columnMACs, macs, newMACs)
	}
	if withIPs {
		l.addUnion(columnIPs, ips, newIPs)
	}
	m.put(key, stamp, l.end(), nil, true)
	l.release()
}

// groupsOf is what is known of a device, nothing if that is nil.
func groupsOf(d *device) []byte {
	if d == nil {
		return nil
	}
	return d.groups
}

// addresses are those in a row of DeviceNetworkInfo, as received.
func (m *Memory) addresses(r *record.Record) (ips [][]byte) {
	tr, n, ok := r.Column(&m.learner.scanner, "IPAddresses")
	if !ok || tr.Nodes[n].Kind != record.KindArray {
		return nil
	}
	for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
		var ip []byte
		switch {
		case tr.Nodes[e].Kind == record.KindObject:
			ip = nameAt(&tr, e, "IPAddress", isNoID)
		case tr.Nodes[e].Kind == record.KindString && !noID(&tr, e):
			ip = tr.Inner(e)
		}
		if len(ip) > 0 && len(ip) <= 64 && len(ips) < maxAddresses {
			ips = append(ips, ip)
		}
	}
	return ips
}

// addUnion takes a list of texts: those of an older value, and more.
func (l *learner) addUnion(id columnID, old []byte, more [][]byte) {
	all := appendTexts(nil, old)
	for _, text := range more {
		l.text, _ = record.AppendText(l.text[:0], text)
		if known := func(t []byte) bool { return bytes.Equal(t, l.text) }; len(all) < maxAddresses && !slices.ContainsFunc(all, known) {
			all = append(all, bytes.Clone(l.text))
		}
	}
	l.values.Out = msgp.AppendArrayHeader(l.values.Out, uint32(len(all)))
	for _, text := range all {
		l.values.Out = msgp.AppendStringFromBytes(l.values.Out, text)
	}
	l.columns = append(l.columns, column{id: id})
	l.ends = append(l.ends, l.values.Len())
}
