package transform_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

func TestCacheIsBoundedInBytes(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 256 << 10
	tr, d := withDevices(cfg)
	id := func(i int) string { return fmt.Sprintf("%040x", i+1) }
	hot := row("hot", "File", `{"Host":{"MachineId":"`+id(3)+`"}}`)
	for i := range 4000 {
		run(t, tr, deviceInfo(id(i)))
		if i%200 == 3 { // device 3 is looked at, and so it stays
			if got := deviceOf(run(t, tr, hot)[0])["OSPlatform"]; got != "Windows11" {
				t.Fatalf("after %d devices: %v", i, got)
			}
		}
		run(t, tr, recordOf("AlertInfo", "AlertId", id(i), "Title", strings.Repeat("t", 100)))
	}
	s := d.Stats()
	if s.Bytes+s.AlertBytes > cfg.CacheBytes || s.Devices < 300 || s.Alerts < 50 || s.Evicted < 3000 {
		t.Errorf("%+v", s)
	}
	// A list does not push out what is there.
	before := d.Stats()
	for i := range 1000 {
		d.Learn(aTenant, []byte(`{"DeviceId":"`+id(i+50_000)+`","DeviceName":"listed"}`), false)
	}
	if after := d.Stats(); after.Evicted != before.Evicted {
		t.Errorf("%+v", after)
	}
}

// After a restart the first alert has its device, with nobody to ask and no report.
func TestSnapshot(t *testing.T) {
	cfg := defaults()
	cfg.Fields = append(cfg.Fields, "BrandNew")
	tr, d := withDevices(cfg)
	file := make(map[string][]byte)
	write := func(saved []device.Saved) error {
		for _, s := range saved {
			if s.Groups == nil {
				delete(file, s.Key)
			} else {
				file[s.Key] = s.Groups
			}
		}
		return nil
	}
	save := func() (n int) {
		t.Helper()
		for {
			more, err := d.Save(3, write)
			if err != nil {
				t.Fatal(err)
			}
			if n++; !more {
				return n
			}
		}
	}
	save()
	odd := "Odd id/ü"
	run(t, tr, deviceInfo(ws1, "BrandNew", "x", "MergedToDeviceId", ws2), deviceInfo(ws2, "OSPlatform", "macOS", "BrandNew", 5), deviceInfo(odd))
	for i := range 20 {
		run(t, tr, deviceInfo(fmt.Sprintf("%040x", i+1)))
	}
	failed := fmt.Errorf("disk full")
	if _, err := d.Save(3, func([]device.Saved) error { return failed }); err != failed {
		t.Errorf("%v", err)
	}
	if n := save(); n != 8 || len(file) != 23 {
		t.Errorf("%d writes of 3, %d devices in the file", n, len(file))
	}
	if n := save(); n != 1 {
		t.Errorf("%d writes with no change", n)
	}
	run(t, tr, deviceInfo(ws2, "OSPlatform", "macOS"))
	if more, _ := d.Save(10, func([]device.Saved) error { t.Error("a report that changes nothing is written"); return nil }); more {
		t.Error("more")
	}

	restart := func(cfg device.Config) (*transform.Transformer, *device.Memory) {
		tr, d := withDevices(cfg)
		for k, v := range file {
			if !d.Restore(k, v) {
				t.Errorf("%s cannot be read", k)
			}
		}
		return tr, d
	}
	tr2, d2 := restart(cfg)
	for _, id := range []string{ws1, odd} {
		r := row("first", "File", `{"Host":{"MachineId":"`+id+`"}}`)
		before, after := deviceOf(run(t, tr, r)[0]), deviceOf(run(t, tr2, r)[0])
		if before["status"] != "hit" || !reflect.DeepEqual(before, after) {
			t.Errorf("before %v\nafter  %v", before, after)
		}
	}
	if got := deviceOf(run(t, tr2, row("first", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0]); got["DeviceId"] != ws2 || got["BrandNew"] != int64(5) {
		t.Errorf("%v", got)
	}
	if more, _ := d2.Save(100, func(s []device.Saved) error {
		t.Errorf("%d devices are written that were just read", len(s))
		return nil
	}); more {
		t.Error("more")
	}
	// With other settings: fewer columns.
	cfg.Fields = []string{"OSPlatform"}
	tr3, _ := restart(cfg)
	if got := deviceOf(run(t, tr3, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[0]); !reflect.DeepEqual(got, map[string]any{"DeviceId": ws2, "match": "evidence", "status": "hit", "OSPlatform": "macOS"}) {
		t.Errorf("%v", got)
	}
	// A file that is damaged.
	for k, v := range file {
		for i := range len(v) {
			_, d := withDevices(cfg)
			d.Restore(k, v[:i])
			w := bytes.Clone(v)
			w[i] ^= 0xff
			d.Restore(k, w)
			d.Stats()
		}
		break
	}
	// A name whose length does not fit its byte with what stands before it. Then any bytes at all.
	named := append([]byte{1, 1, 200, 254}, bytes.Repeat([]byte("n"), 254)...)
	named = append(named, 0, 0, 0, 0, 0, 0, 0, 1, 1, 200, 2, 0xa1, 'x')
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 11))
	_, dn := withDevices(cfg)
	for i := range 5_000 {
		v := bytes.Clone(named)
		for range min(i, random.IntN(5)) {
			v[random.IntN(len(v))] = []byte{0, 1, 2, 253, 254, 255, byte(random.IntN(256))}[random.IntN(7)]
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Fatalf("seed %d, change %d: %v", seed, i, p)
				}
			}()
			dn.Restore(aTenant+"/"+ws1, v)
			dn.Stats()
		}()
	}
	_, d4 := withDevices(cfg)
	for k, v := range map[string][]byte{"no slash": {1, 0}, "t/": file[aTenant+"/"+ws1], aTenant + "/" + ws1: {3, 0, 1}, aTenant + "/" + ws2: nil} {
		if d4.Restore(k, v) {
			t.Errorf("%q is taken", k)
		}
	}
}

// Devices that had to give way go from the file too.
func TestSnapshotForgetsTheEvicted(t *testing.T) {
	cfg := defaults()
	cfg.CacheBytes = 64 << 10
	tr, d := withDevices(cfg)
	file := make(map[string]bool)
	save := func() {
		for more := true; more; {
			more, _ = d.Save(50, func(saved []device.Saved) error {
				for _, s := range saved {
					if s.Groups == nil {
						delete(file, s.Key)
					} else {
						file[s.Key] = true
					}
				}
				return nil
			})
		}
	}
	save()
	for i := range 2000 {
		run(t, tr, deviceInfo(fmt.Sprintf("%040x", i+1)))
		if i%37 == 0 {
			save()
		}
	}
	save()
	if s := d.Stats(); int64(len(file)) != s.Devices {
		t.Errorf("%d in the file, %d in the cache", len(file), s.Devices)
	}
}

// Devices are found by their names, resources and users also where those columns are not wanted,
// and after a restart.
func TestFoundByColumnsThatAreNotWanted(t *testing.T) {
	cfg := defaults()
	cfg.Fields, cfg.ByUser = []string{"OSPlatform"}, true
	const vm = "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1"
	_, d := withDevices(cfg)
	_, _ = d.Save(0, nil)
	tr := transform.New(transform.Config{Devices: d})
	run(t, tr, deviceInfo(ws1, "DeviceName", "web01", "AzureResourceId", vm))
	restored, again := withDevices(cfg)
	_, _ = d.Save(10, func(saved []device.Saved) error {
		for _, s := range saved {
			if !again.Restore(s.Key, s.Groups) {
				t.Errorf("%s cannot be read", s.Key)
			}
		}
		return nil
	})
	for _, tr := range []*transform.Transformer{tr, restored} {
		for how, r := range map[string]string{
			"name":  row("", "Ip", `{}`, "DeviceName", "WEB01"),
			"name ": row("", "CloudResource", `{"ResourceId":"`+vm+`"}`),
			"user":  row("", "User", `{}`, "AccountName", "kim"),
		} {
			wantDevice(t, run(t, tr, r)[0], "match", strings.TrimSpace(how), "DeviceId", ws1, "OSPlatform", "Windows11", "DeviceName", nil, "LoggedOnUsers", nil)
		}
		if got := deviceOf(run(t, tr, row("x", "Machine", hostOf(ws2, true), "DeviceId", ws2, "DeviceName", "db01"))[0]); got["DeviceName"] != nil {
			t.Errorf("a column is added that is not wanted: %v", got)
		}
		wantDevice(t, run(t, tr, row("x", "Ip", `{}`, "DeviceName", "db01"))[0], "match", "alert", "DeviceId", ws2)
	}
}
