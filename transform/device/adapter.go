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
// for nothing.
func (m *Memory) adapter(r *record.Record, tenant uint32) {
	if m.fields.names[columnIPs] == "" && m.fields.names[columnMACs] == "" {
		return
	}
	if status := stringAt(&r.Columns, r.Props, "NetworkAdapterStatus"); !sameText(status, []byte("Up")) {
		return
	}
	key := m.keyOf(r, "DeviceId", tenant)
	if key == nil {
		return
	}
	dev, known := m.cache.peek(record.View(key)) // or the report is still to come
	stamp := m.stamp(r)
	l := m.learner
	l.begin()
	old := func(id columnID) []byte {
		if !known {
			return nil
		}
		for w := (walker{rest: dev.groups}); ; {
			c, ok := w.next()
			if !ok {
				return nil
			}
			if c.id == id && w.stamp == stamp {
				return c.value
			}
		}
	}
	if mac := stringAt(&r.Columns, r.Props, "MacAddress"); len(mac) > 0 && m.fields.names[columnMACs] != "" {
		l.addUnion(columnMACs, old(columnMACs), [][]byte{mac})
	}
	if tr, n, ok := r.Column(&l.scanner, "IPAddresses"); ok && tr.Nodes[n].Kind == record.KindArray && m.fields.names[columnIPs] != "" {
		var ips [][]byte
		for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
			ip := stringAt(&tr, e, "IPAddress")
			if tr.Nodes[e].Kind == record.KindString {
				ip = tr.Inner(e)
			}
			if len(ip) > 0 && len(ip) <= 64 && len(ips) < maxAddresses {
				ips = append(ips, ip)
			}
		}
		if len(ips) > 0 {
			l.addUnion(columnIPs, old(columnIPs), ips)
		}
	}
	m.put(key, stamp, l.end(), nil, true)
	l.release()
}

// addUnion takes a list of texts: those of an older value, and more.
func (l *learner) addUnion(id columnID, old []byte, more [][]byte) {
	var all [][]byte
	if msgp.NextType(old) == msgp.ArrayType {
		n, rest, err := msgp.ReadArrayHeaderBytes(old)
		for ; err == nil && n > 0; n-- {
			var text []byte
			if text, rest, err = msgp.ReadStringZC(rest); err == nil {
				all = append(all, text)
			}
		}
	}
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
