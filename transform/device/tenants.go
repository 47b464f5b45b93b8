package device

// tenants numbers the tenants that devices and alerts are kept for. Tenants come from outside, so
// their number is bounded. One is remembered for as long as something refers to it. Of the others
// only the last ones seen are remembered. Number 0 means none.
type tenants struct {
	byName   map[string]*tenant
	byNumber map[uint32]*tenant
	last     uint32    // number that was given
	bytes    int64     // that those take that something refers to
	idle     []*tenant // that nothing refers to, or did when they came here; the first to go is the first
}

// A tenant is an Entra tenant, by its id in lower case.
type tenant struct {
	name   string
	number uint32
	refs   int  // devices, alerts and keys that have the number
	seen   bool // since it came into idle, or to its front
	queued bool // in idle
}

const (
	maxTenant      = 128     // bytes of an id; a GUID has 36
	maxIdle        = 1024    // tenants that nothing refers to
	numbers        = 1 << 24 // a key has tenantBytes for one
	tenantBytes    = 3
	tenantOverhead = 256 // bytes of a tenant beside its name
)

func newTenants() *tenants {
	return &tenants{byName: make(map[string]*tenant), byNumber: make(map[uint32]*tenant)}
}

// get returns the number of a tenant, or 0 if the id is longer than any id is.
func (ts *tenants) get(name []byte) uint32 {
	if t, ok := ts.byName[string(name)]; ok {
		t.seen = true
		return t.number
	}
	if len(name) > maxTenant || len(ts.byNumber) == numbers-1 {
		return 0
	}
	// A number is given again after millions of others, and never while it is in use.
	for {
		if ts.last = (ts.last + 1) % numbers; ts.last != 0 && ts.byNumber[ts.last] == nil {
			break
		}
	}
	t := &tenant{name: string(name), number: ts.last}
	ts.byName[t.name], ts.byNumber[t.number] = t, t
	ts.rest(t)
	return t.number
}

// name is the id of the tenant of a key, and false if it was forgotten.
func (ts *tenants) name(key string) (string, bool) {
	if t := ts.byNumber[tenantOf(key)]; t != nil {
		return t.name, true
	}
	return "", false
}

// refer notes that a key of the tenant is kept somewhere.
func (ts *tenants) refer(key string) {
	t := ts.byNumber[tenantOf(key)]
	if t == nil {
		return
	}
	if t.refs++; t.refs == 1 {
		ts.bytes += tenantOverhead + int64(len(t.name))
	}
}

// leave notes that it no longer is.
func (ts *tenants) leave(key string) {
	t := ts.byNumber[tenantOf(key)]
	if t == nil {
		return
	}
	if t.refs--; t.refs == 0 {
		ts.bytes -= tenantOverhead + int64(len(t.name))
		ts.rest(t)
	}
}

// rest keeps a tenant that nothing refers to for a while, in place of the one that was not seen for
// longest.
func (ts *tenants) rest(t *tenant) {
	if !t.queued {
		t.queued = true
		ts.idle = append(ts.idle, t)
	}
	t.seen = true
	for len(ts.idle) > maxIdle {
		first := ts.idle[0]
		ts.idle = ts.idle[1:]
		switch {
		case first.refs > 0:
			first.queued = false
		case first.seen:
			first.seen = false
			ts.idle = append(ts.idle, first)
		default:
			delete(ts.byName, first.name)
			delete(ts.byNumber, first.number)
		}
	}
}

// appendTenant begins a key.
func appendTenant(dst []byte, number uint32) []byte {
	return append(dst, byte(number>>16), byte(number>>8), byte(number))
}

// tenantOf is the tenant that a key begins with.
func tenantOf(key string) uint32 {
	return uint32(key[0])<<16 | uint32(key[1])<<8 | uint32(key[2])
}
