package device

import (
	"fmt"
	"slices"
	"testing"
)

// The table has each name of a device once, however often it grows in the middle of one, and none
// after the device is gone.
func TestNameTableOfManyNames(t *testing.T) {
	name := func(device, i int) []byte { return fmt.Appendf(nil, "%d-%d", device, i) }
	table := newNameTable(func(dst [][]byte, d *device) [][]byte {
		n := int(d.key[tenantBytes])
		for i := range 20 * n {
			dst = append(dst, name(n, i))
		}
		return dst
	})
	var devices []*device
	for n := range 12 {
		d := &device{key: string(append(appendTenant(nil, 1), byte(n+1)))}
		devices = append(devices, d)
		table.add(d)
	}
	for n, d := range devices {
		for i := range 20 * (n + 1) {
			if found, ok := table.find(nil, tenantKey(1), name(n+1, i)); ok && !slices.Contains(found, d) {
				t.Errorf("name %d of device %d is not found", i, n+1)
			}
		}
	}
	for _, d := range devices {
		table.remove(d)
	}
	if slices.ContainsFunc(table.slots, func(d *device) bool { return d != nil && d != gone }) {
		t.Error("a removed device is in the table")
	}
}
