package device

import "github.com/fluent-bit-defender/fluent-bit-defender/transform/record"

// Keys returns the keys of n devices.
func Keys(m *Memory, tenant string, id func(int) string, n int) []string {
	keys := make([]string, n)
	number := m.tenants.get([]byte(tenant))
	for i := range keys {
		keys[i] = string(appendKey(nil, number, []byte(id(i))))
	}
	return keys
}

// A Hitter describes devices, as for a record.
type Hitter struct {
	joiner   *Joiner
	record   record.Record
	sighting Sighting
}

// NewHitter returns a Hitter.
func NewHitter(m *Memory) *Hitter {
	h := &Hitter{joiner: m.NewJoiner(new(record.Scanner)), sighting: Sighting{match: matchRow, tenant: 1}}
	h.record.ReadColumns(h.joiner.scanner, []byte("{}"))
	return h
}

// Hit returns the number of fields that the device of key adds.
func (h *Hitter) Hit(key string) int {
	h.sighting.key = key
	return len(h.joiner.Describe(&h.record, RoleEvidence, &h.sighting).Columns) + 3 // DeviceId, match, status
}
