package transform_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// A scene is a row of evidence behind other records, and the device that it should get.
type scene struct {
	name    string
	set     func(*device.Config)
	records []string // one a call; the last one is looked at
	want    []any
}

// full is a full report of a device at a time of the day of noon.
func full(id, clock string, properties ...any) string {
	return strings.Replace(recordOf("DeviceInfo", append([]any{"DeviceId", id, "Timestamp", at(clock), "OSPlatform", "Windows11"}, properties...)...),
		`"time":"`+noon, `"time":"`+at("23:00:00"), 1)
}

// beat is a partial one.
func beat(id, clock string, properties ...any) string {
	return recordOf("DeviceInfo", append([]any{"DeviceId", id, "Timestamp", at(clock), "OSPlatform", nil}, properties...)...)
}

// seen is a Machine row.
func seen(alert, id string) string {
	return row(alert, "Machine", `{"MachineId":"`+id+`"}`, "DeviceId", id)
}

func numbered(i int) string { return fmt.Sprintf("%040x", 0xabc000+i) }

func playScenes(t *testing.T, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			cfg := everything()
			if s.set != nil {
				s.set(&cfg)
			}
			e := last(t, cfg, s.records...)
			got := make(map[string]any)
			for k, v := range e.m {
				if name, ok := strings.CutPrefix(k, "DeviceInfo."); ok {
					got[name] = v
				} else if k == "alert_url" {
					got[k] = v
				}
			}
			for i := 0; i < len(s.want); i += 2 {
				if name := s.want[i].(string); !reflect.DeepEqual(got[name], s.want[i+1]) {
					t.Errorf("%s is %v (%T), want %v; all: %v", name, got[name], got[name], s.want[i+1], got)
				}
			}
		})
	}
}

// API answers and reports of 2021 do not name all columns. What an older full report has cleared
// stays cleared, in any order.
func TestClearedStaysCleared(t *testing.T) {
	a := numbered(1)
	ask := about("", a)
	tag := func(clock string, value any) string { return full(a, clock, "RegistryDeviceTag", value) }
	playScenes(t, []scene{
		{"cleared, then a full report without the column, then the oldest", nil, []string{tag("10:00:00", ""), full(a, "11:00:00"), tag("09:00:00", "pci"), ask}, []any{"RegistryDeviceTag", nil, "age_s", int64(3600)}},
		{"in their order", nil, []string{tag("09:00:00", "pci"), tag("10:00:00", ""), full(a, "11:00:00"), ask}, []any{"RegistryDeviceTag", nil}},
		{"the newest first", nil, []string{full(a, "11:00:00"), tag("10:00:00", ""), tag("09:00:00", "pci"), ask}, []any{"RegistryDeviceTag", nil, "age_s", int64(3600)}},
		{"tagged anew between", nil, []string{tag("09:00:00", ""), full(a, "11:00:00"), tag("10:00:00", "vip"), tag("08:00:00", "pci"), ask}, []any{"RegistryDeviceTag", "vip"}},
		{"tagged anew by a heartbeat", nil, []string{tag("09:00:00", ""), full(a, "11:00:00"), beat(a, "10:00:00", "RegistryDeviceTag", "vip"), ask}, []any{"RegistryDeviceTag", "vip"}},
		{"evidence does not fill it either", nil, []string{full(a, "09:00:00", "MachineGroup", ""), full(a, "11:00:00"), row("", "Machine", "", "DeviceId", a, "MachineGroup", "G"), ask}, []any{"MachineGroup", nil}},
	})
	// Any reports give the same device in any order, before a restart and after it.
	random := rand.New(rand.NewPCG(1, 2))
	columns := []string{"RegistryDeviceTag", "MitigationStatus", "PublicIP", "LoggedOnUsers"}
	for round := range 300 {
		var reports []string
		for i := range 2 + random.IntN(4) {
			properties := []any{"DeviceName", "ws"}
			for _, c := range columns {
				switch value := any(fmt.Sprint("v", i)); random.IntN(3) {
				case 0:
					if c == "LoggedOnUsers" {
						value = fmt.Sprintf(`[{"UserName":"u%d"}]`, i)
					}
					properties = append(properties, c, value)
				case 1:
					properties = append(properties, c, "")
				}
			}
			clock := fmt.Sprintf("0%d:00:00", 1+random.IntN(5))
			if random.IntN(3) > 0 {
				reports = append(reports, full(a, clock, properties...))
			} else {
				reports = append(reports, beat(a, clock, properties...))
			}
		}
		var want map[string]any
		for range 6 {
			random.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
			tr, d := withDevices(everything())
			_, _ = d.Save(0, nil)
			run(t, tr, reports...)
			learned := d.Stats().Learned
			run(t, tr, reports...)
			got := deviceOf(run(t, tr, ask)[0])
			if want == nil {
				want = got
			}
			if !reflect.DeepEqual(got, want) || d.Stats().Learned != learned {
				t.Fatalf("round %d, %q:\ngot  %v\nwant %v, learned %d then %d", round, reports, got, want, learned, d.Stats().Learned)
			}
			again, restored := withDevices(everything())
			_, _ = d.Save(10, func(saved []device.Saved) error {
				for _, s := range saved {
					restored.Restore(s.Key, s.Groups)
				}
				return nil
			})
			if got := deviceOf(run(t, again, ask)[0]); !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d, restored: got %v\nwant %v", round, got, want)
			}
		}
	}
}
