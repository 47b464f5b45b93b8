package transform_test

import (
	"fmt"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// A device that an alert was about outlasts any number of reports of others, and a restart.
func TestFloodOfReports(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 256 << 10
	tr, d := withDevices(cfg)
	_, _ = d.Save(0, nil)
	id := func(i int) string { return fmt.Sprintf("%040x", i+1) }
	alert := func(i int) string { return row("", "File", `{"Host":{"MachineId":"`+id(i)+`"}}`) }
	flood := func(tr *transform.Transformer, from int) {
		for i := range 3000 {
			run(t, tr, deviceInfo(id(from+i)))
		}
	}
	wantHit := func(tr *transform.Transformer, i int) {
		t.Helper()
		wantDevice(t, run(t, tr, alert(i))[0], "status", "hit", "OSPlatform", "Windows11")
	}
	run(t, tr, deviceInfo(id(0)), alert(0))
	flood(tr, 1000)
	wantHit(tr, 0)

	restored, again := withDevices(cfg)
	for more := true; more; {
		more, _ = d.Save(100, func(saved []device.Saved) error {
			for _, s := range saved {
				if s.Groups != nil && !again.Restore(s.Key, s.Groups) {
					t.Errorf("%s cannot be read", s.Key)
				}
			}
			return nil
		})
	}
	flood(restored, 10_000)
	wantHit(restored, 0)

	// Alerts about a flood of devices leave room for reports, and what is counted fits.
	for i := range 3000 {
		run(t, tr, deviceInfo(id(i)), alert(i))
	}
	wantHit(tr, 2999)
	for i := range 50 {
		run(t, tr, deviceInfo(id(50_000+i)))
	}
	for i := range 50 {
		wantHit(tr, 50_000+i)
	}
	if s := d.Stats(); s.Bytes+s.AlertBytes > cfg.CacheBytes || s.Devices < 200 {
		t.Errorf("%+v", s)
	}
}
