package device

import (
	"fmt"
	"testing"
)

// What is noted of alerts for the state file stays bounded while nothing can be saved, also when
// the same ones come and go.
func TestNotedAlertsAreBounded(t *testing.T) {
	ts := newTenants()
	tenant := ts.get([]byte("0a1b2c3d-0000-4000-8000-000000000001"))
	const n = 100
	r, a := newRecents(n*(recentOverhead+recentBytes+8)), newAlerts(n*(alertOverhead+8), ts)
	r.saving, a.saving = true, true
	for range 200 {
		for i := range n + 1 { // one more than there is room for
			key := appendKey(nil, tenant, fmt.Appendf(nil, "%08x", i+1))
			r.note(string(key), []byte("da1_1"), 1, 0)
			al := a.make(tenant, key)
			a.change(string(a.keyOf(tenant, key)), al)
		}
	}
	if most := r.cache.Len() + maxGone; len(r.changed) > most {
		t.Errorf("%d keys of devices are noted, want %d at most", len(r.changed), most)
	}
	if most := a.cache.Len() + maxGone; len(a.changed) > most {
		t.Errorf("%d keys of alerts are noted, want %d at most", len(a.changed), most)
	}
}

// A snapshot may have more than there is room for, as after a smaller device_info.cache_bytes. What
// has no room is reported, so that it is taken out.
func TestSavedAlertsWithoutRoom(t *testing.T) {
	const n = 100
	ts := newTenants()
	tenant := ts.get([]byte("0a1b2c3d-0000-4000-8000-000000000001"))
	filled := func(room int64) (recents, alerts) {
		return *newRecents(room * (recentOverhead + 2*recentBytes + 8)), newAlerts(room*(alertOverhead+64), ts)
	}
	r, a := filled(n)
	small, few := filled(n / 2)
	restored, named := 0, 0
	for i := range n {
		id := fmt.Appendf(nil, "%08x", i+1)
		key := string(appendKey(nil, tenant, id))
		r.note(key, []byte("da1_1"), 1, 0)
		r.note(key, []byte("da1_2"), 1, 0)
		if small.restore(key, r.appendSaved(nil, key)[1:]) {
			restored++
		}
		al := a.make(tenant, id)
		a.names(al, []byte(key), true)
		if few.restore(tenant, id, a.appendSaved(nil, string(a.keyOf(tenant, id)))[1:]) {
			named++
		}
	}
	if restored != small.cache.Len() || small.bytes > small.limit || restored == 0 || restored == n {
		t.Errorf("the alerts of %d devices are restored, those of %d are kept, in %d bytes of %d", restored, small.cache.Len(), small.bytes, small.limit)
	}
	if named != few.cache.Len() || few.bytes > few.limit || named == 0 || named == n {
		t.Errorf("%d alerts are restored, %d are kept, in %d bytes of %d", named, few.cache.Len(), few.bytes, few.limit)
	}
}
