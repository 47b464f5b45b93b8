package device

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A nameTable finds devices by a name that they have: a host name, a resource id, a user. It holds
// pointers only, 13 bytes a name; the names are read from the devices. It is used under the lock of
// Memory.
type nameTable struct {
	of    func(dst [][]byte, d *device) [][]byte // the names of a device, in lower case, in its own memory
	seed  maphash.Seed
	slots []*device
	used  int // slots that are not nil
	names [][]byte
	// crowded has the hashes of names that too many devices have. Such a name finds nothing, also
	// once some of the devices are gone.
	crowded map[uint64]bool
	full    bool // there were too many crowded names: nothing is found any more
}

const (
	maxSameName = 32
	maxCrowded  = 4096
)

// gone fills the slot of a removed device, so that devices behind it in the table are still found.
var gone = new(device)

func newNameTable(of func(dst [][]byte, d *device) [][]byte) *nameTable {
	return &nameTable{of: of, seed: maphash.MakeSeed(), slots: make([]*device, 64), crowded: make(map[uint64]bool)}
}

func (t *nameTable) hash(tenant string, name []byte) uint64 {
	return maphash.String(t.seed, tenant)*31 ^ maphash.Bytes(t.seed, name)
}

// add notes the names of a device.
func (t *nameTable) add(d *device) {
	t.names = t.of(t.names[:0], d)
	if n := len(t.names); 4*(t.used+n) > 3*len(t.slots) {
		t.grow(n) // before the first: it takes all names of each device that is there
	}
	for i := range t.names {
		t.addName(d, t.names[i])
	}
}

func (t *nameTable) addName(d *device, name []byte) {
	h := t.hash(d.key[:tenantBytes], name)
	if t.crowded[h] {
		return
	}
	mask := uint64(len(t.slots) - 1)
	free := uint64(len(t.slots))
	i := h & mask
	for same := 0; t.slots[i] != nil; i = (i + 1) & mask {
		switch other := t.slots[i]; {
		case other == gone:
			free = min(free, i)
		case other == d:
			if same++; same > maxSameName {
				return
			}
		default:
			if same++; same > maxSameName {
				if len(t.crowded) >= maxCrowded {
					t.full = true
					return
				}
				t.crowded[h] = true
				return
			}
		}
	}
	if free < uint64(len(t.slots)) {
		t.slots[free] = d
		return
	}
	t.slots[i] = d
	t.used++
}

// remove forgets the present names of a device.
func (t *nameTable) remove(d *device) {
	t.names = t.of(t.names[:0], d)
	mask := uint64(len(t.slots) - 1)
	for _, name := range t.names {
		for i := t.hash(d.key[:tenantBytes], name) & mask; t.slots[i] != nil; i = (i + 1) & mask {
			if t.slots[i] == d {
				t.slots[i] = gone
				break
			}
		}
	}
}

// grow makes room for more names.
func (t *nameTable) grow(more int) {
	old, size := t.slots, len(t.slots)
	need := more
	t.each(old, func(*device, uint64) { need++ })
	for 2*need > size {
		size *= 2
	}
	t.slots, t.used = make([]*device, size), need-more
	mask := uint64(size - 1)
	t.each(old, func(d *device, h uint64) {
		i := h & mask
		for t.slots[i] != nil {
			i = (i + 1) & mask
		}
		t.slots[i] = d
	})
}

// each calls f for each name of the devices in slots, with its hash.
func (t *nameTable) each(slots []*device, f func(d *device, h uint64)) {
	seen := make(map[*device]bool) // of those with more than one name
	var names [][]byte
	for _, d := range slots {
		if d == nil || d == gone || seen[d] {
			continue
		}
		if names = t.of(names[:0], d); len(names) > 1 {
			seen[d] = true
		}
		for _, name := range names {
			if h := t.hash(d.key[:tenantBytes], name); !t.crowded[h] {
				f(d, h)
			}
		}
	}
}

// find appends the devices of a tenant that have a name; ok is false if there are too many to tell.
func (t *nameTable) find(dst []*device, tenant string, name []byte) (_ []*device, ok bool) {
	h := t.hash(tenant, name)
	if t.full || t.crowded[h] {
		return dst, false
	}
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; t.slots[i] != nil; i = (i + 1) & mask {
		d := t.slots[i]
		if d == gone || d.key[:tenantBytes] != tenant {
			continue
		}
		t.names = t.of(t.names[:0], d)
		for _, other := range t.names {
			if bytes.EqualFold(other, name) {
				dst = append(dst, d)
				break
			}
		}
	}
	return dst, true
}

// text is the value of a column of a device as text, or nil.
func (d *device) text(id columnID) []byte {
	for w := (walker{rest: d.groups}); ; {
		c, ok := w.next()
		if !ok {
			return nil
		}
		if c.id == id {
			text, _, err := msgp.ReadStringZC(c.value)
			if err != nil {
				return nil
			}
			return text
		}
	}
}

// shortName is a host name without its domain. An address has none.
func shortName(name []byte) []byte {
	name = wholeName(name)
	if i := bytes.IndexByte(name, '.'); i > 0 && !isAddress(name) {
		name = name[:i]
	}
	return name
}

// wholeName is a host name without what may stand around it.
func wholeName(name []byte) []byte { return bytes.TrimRight(bytes.TrimSpace(name), ".") }

// isAddress reports whether a name is an IP address. Those of discovered devices are. No device is
// found by one: the next has it tomorrow.
func isAddress(name []byte) bool {
	if len(name) == 0 || (name[0] < '0' || name[0] > '9') && bytes.IndexByte(name, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(record.View(name))
	return err == nil
}

// isNoName reports whether a text in the place of a host name is none.
func isNoName(text []byte) bool {
	short := shortName(text)
	return isNoID(short) || isOneOf(short, "localhost")
}

// lowered returns text in lower case; a copy only where it is not.
func lowered(text []byte) []byte {
	for _, c := range text {
		if 'A' <= c && c <= 'Z' || c >= 0x80 {
			return bytes.ToLower(text)
		}
	}
	return text
}

// hostNames is the short name of a device.
func hostNames(dst [][]byte, d *device) [][]byte {
	if name := d.text(columnDeviceName); !isNoName(name) && !isAddress(wholeName(name)) {
		dst = append(dst, lowered(shortName(name)))
	}
	return dst
}

// resourceNames is the resource of a device in Azure.
func resourceNames(dst [][]byte, d *device) [][]byte {
	if id := d.text(columnResource); len(id) > 0 {
		dst = append(dst, lowered(bytes.TrimRight(id, "/")))
	}
	return dst
}

// userNames are the names and SIDs of the users that are logged on to a device.
func userNames(dst [][]byte, d *device) [][]byte {
	d.eachUser(func(u user) {
		for _, name := range [...]string{u.name, u.sid} {
			if len(dst) < maxUserNames && len(name) > 0 {
				dst = append(dst, lowered([]byte(name)))
			}
		}
	})
	return dst
}

// maxUserNames is that of a terminal server. It takes 13 bytes for each.
const maxUserNames = 256

// A user is an account, by what a row of evidence or LoggedOnUsers says of it.
type user struct{ name, domain, sid string }

// is reports whether two accounts can be the same: where both have a SID, that decides, else the
// name and the domain. One may have CORP, and the other corp.example. Accounts that every machine
// has need a domain.
func (u user) is(other user) bool {
	if u.sid != "" && other.sid != "" {
		return strings.EqualFold(u.sid, other.sid)
	}
	if u.name == "" || !strings.EqualFold(u.name, other.name) {
		return false
	}
	a, b := shortDomain(u.domain), shortDomain(other.domain)
	if a == "" || b == "" {
		return !isOneOf([]byte(u.name), "administrator", "admin", "guest", "root", "user", "defaultaccount", "wdagutilityaccount")
	}
	return strings.EqualFold(a, b)
}

// shortDomain is a domain in its short form. Accounts of Entra ID have AzureAD there, whatever
// domain their address has.
func shortDomain(domain string) string {
	domain, _, _ = strings.Cut(domain, ".")
	if strings.EqualFold(domain, "AzureAD") {
		return ""
	}
	return domain
}

// isMachine reports whether an account is the machine's own, or one of its services: every machine
// has it. Accounts of people have a SID of a domain, of a machine, or of Entra ID.
func (u user) isMachine() bool {
	const domain, entra = "S-1-5-21-", "S-1-12-1-"
	sid := strings.ToUpper(u.sid)
	return sid != "" && !strings.HasPrefix(sid, domain) && !strings.HasPrefix(sid, entra) || strings.HasSuffix(u.name, "$") ||
		isOneOf([]byte(u.domain), "nt authority", "nt service", "window manager", "font driver host", "iis apppool") ||
		isOneOf([]byte(u.name), "system", "local service", "network service", "anonymous logon")
}

// eachUser calls f for each user in LoggedOnUsers. What f gets points into the device.
func (d *device) eachUser(each func(user)) {
	f := func(u user) {
		for _, text := range [...]*string{&u.name, &u.domain, &u.sid} {
			if isNoID([]byte(*text)) {
				*text = ""
			}
		}
		each(u)
	}
	list := d.value(columnUsers)
	if msgp.NextType(list) == msgp.StrType { // Config.ArraysAsJSON
		text, _, _ := msgp.ReadStringZC(list)
		s := record.Scanner{MaxNodes: maxColumnValue}
		nodes, _, err := s.Parse(text, 0, nil)
		if err != nil || nodes[0].Kind != record.KindArray {
			return
		}
		tr := record.Tree{Src: text, Nodes: nodes}
		for n := uint32(1); n < uint32(len(nodes)); n = nodes[n].Next {
			if nodes[n].Kind == record.KindObject {
				member := func(key string) string {
					text, _ := record.AppendText(nil, stringAt(&tr, n, key))
					return string(text)
				}
				f(user{member("UserName"), member("DomainName"), member("Sid")})
			}
		}
		return
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(list)
	for ; err == nil && n > 0; n-- {
		var fields uint32
		var u user
		if fields, rest, err = msgp.ReadMapHeaderBytes(rest); err != nil {
			return
		}
		for ; fields > 0; fields-- {
			var key, value []byte
			if key, rest, err = msgp.ReadStringZC(rest); err != nil {
				return
			}
			if msgp.NextType(rest) != msgp.StrType {
				if rest, err = msgp.Skip(rest); err != nil {
					return
				}
				continue
			}
			if value, rest, err = msgp.ReadStringZC(rest); err != nil {
				return
			}
			switch string(key) {
			case "UserName":
				u.name = record.View(value)
			case "DomainName":
				u.domain = record.View(value)
			case "Sid":
				u.sid = record.View(value)
			}
		}
		f(u)
	}
}

// index puts a device into the tables by name, and unindex takes it out: before its columns change.
func (m *Memory) index(d *device) {
	m.byName.add(d)
	m.byResource.add(d)
	if m.byUser != nil {
		m.byUser.add(d)
	}
}

func (m *Memory) unindex(d *device) {
	m.byName.remove(d)
	m.byResource.remove(d)
	if m.byUser != nil {
		m.byUser.remove(d)
	}
}

// unique is the key of the only device among some that was reported not too long before or after an
// event. If there were several, it returns their keys.
func (m *Memory) unique(devices []*device, at int64, is func(d *device) bool) (key string, several []string) {
	for _, d := range devices {
		f := factsOf(d.groups)
		if !f.reported || !m.isNear(at, f.last) || !is(d) {
			continue
		}
		final := d.key
		if dev, at, _ := m.find(d.key, false); dev != nil {
			final = at
		}
		if !slices.Contains(several, final) {
			several = append(several, final)
		}
	}
	if len(several) == 1 {
		return several[0], nil
	}
	slices.Sort(several) // not in the order in which they came
	return "", several[:min(len(several), maxHosts)]
}

// isNear reports whether a report is near enough to an event to tell who had a name or a user then.
func (m *Memory) isNear(event, report int64) bool {
	return m.cfg.TTL <= 0 || max(event-report, report-event) <= int64(m.cfg.TTL)
}

// named finds the device of a host name, which may have a domain: then a device with another domain
// is not it.
func (m *Memory) named(tenant uint32, name string, at int64) (key string, several []string) {
	full := wholeName([]byte(name))
	if isNoName(full) || isAddress(full) {
		return "", nil
	}
	short := lowered(shortName(full))
	devices, ok := m.byName.find(nil, tenantKey(tenant), short)
	if !ok {
		return "", nil
	}
	if bytes.IndexByte(full, '.') > 0 { // one that has the whole name is surer than one without a domain
		key, several = m.unique(devices, at, func(d *device) bool { return sameName(d.text(columnDeviceName), full) })
		if key != "" || several != nil {
			return key, several
		}
	}
	return m.unique(devices, at, func(d *device) bool { return sameDomain(d.text(columnDeviceName), full) })
}

// sameName reports whether two names are one, as far as both are written.
func sameName(a, b []byte) bool { return bytes.EqualFold(wholeName(a), wholeName(b)) }

// sameDomain reports whether two names of one short name can be of one host: they have the same
// domain, or one of them has none.
func sameDomain(a, b []byte) bool {
	a, b = wholeName(a), wholeName(b)
	return bytes.IndexByte(a, '.') < 0 || bytes.IndexByte(b, '.') < 0 || bytes.EqualFold(a, b)
}

// isNamed reports whether the device of a key is known to have a host name, whole if that is asked.
func (m *Memory) isNamed(key, name string, whole bool) bool {
	dev, _, _ := m.find(key, false)
	if dev == nil {
		return false
	}
	if whole {
		return sameName(dev.text(columnDeviceName), []byte(name))
	}
	own, full := dev.text(columnDeviceName), []byte(name)
	return len(own) > 0 && bytes.EqualFold(shortName(own), shortName(full)) && sameDomain(own, full)
}

// resource finds the device of a resource in Azure.
func (m *Memory) resource(tenant uint32, id string, at int64) (key string, several []string) {
	devices, ok := m.byResource.find(nil, tenantKey(tenant), lowered(bytes.TrimRight([]byte(id), "/")))
	if !ok {
		return "", nil
	}
	return m.unique(devices, at, func(*device) bool { return true })
}

// isAnother reports whether the device of a key is known to be another machine than a resource.
func (m *Memory) isAnother(key, resource string) bool {
	if key == "" || !isMachine(resource) {
		return false
	}
	dev, _, _ := m.find(key, false)
	if dev == nil {
		return false
	}
	own := strings.TrimRight(string(dev.text(columnResource)), "/")
	return isMachine(own) && !strings.EqualFold(own, strings.TrimRight(resource, "/"))
}

// isMachine reports whether a resource in Azure is a machine: one of Azure, or one that Arc has
// brought there.
func isMachine(resource string) bool {
	resource = strings.ToLower(resource)
	return strings.Contains(resource, "/microsoft.compute/virtualmachines/") || strings.Contains(resource, "/microsoft.hybridcompute/machines/") ||
		strings.Contains(resource, "/virtualmachinescalesets/") && strings.Contains(resource, "/virtualmachines/")
}

// loggedOn finds the device that a user is logged on to, by a report that is not too old.
func (m *Memory) loggedOn(tenant uint32, u user, at int64) (key string, several []string) {
	if m.byUser == nil {
		return "", nil
	}
	for _, name := range [...]string{u.sid, u.name} { // the surer first
		if name == "" {
			continue
		}
		devices, ok := m.byUser.find(nil, tenantKey(tenant), lowered([]byte(name)))
		if !ok {
			return "", nil
		}
		key, several = m.unique(devices, at, func(d *device) bool {
			if !m.isNear(at, d.stampOf(columnUsers)) {
				return false
			}
			is := false
			d.eachUser(func(other user) { is = is || u.is(other) })
			return is
		})
		if key != "" || several != nil {
			break
		}
	}
	return key, several
}

func tenantKey(tenant uint32) string { return string(appendTenant(nil, tenant)) }
