package device_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

const aTenant = "0a1b2c3d-0000-4000-8000-000000000001"

// fullReport is a report with every column that device_info.fields keeps by default, as the
// properties of DeviceInfo.
func fullReport(id, stamp string, i int) []byte {
	return fmt.Appendf(nil, `{"DeviceId":"%s","Timestamp":"%s","DeviceName":"ws-%06d.corp.example","OSPlatform":"Windows11","OSVersion":"10.0","OSVersionInfo":"23H2","OSBuild":22631,`+
		`"OSArchitecture":"64-bit","DeviceCategory":"Endpoint","DeviceType":"Workstation","Model":"Latitude 7440","Vendor":"Example Inc.","MachineGroup":"Finance and controlling",`+
		`"JoinType":"Hybrid Azure AD Join","AadDeviceId":"6a1f0f3e-2b7e-4b55-9c0f-%012x","PublicIP":"203.0.113.%d","OnboardingStatus":"Onboarded","SensorHealthState":"Active",`+
		`"LoggedOnUsers":"[{\"UserName\":\"user%d\",\"DomainName\":\"CORP\",\"Sid\":\"S-1-5-21-1111111111-2222222222-333333333-%d\"}]","ExposureLevel":"Medium","AssetValue":"Normal",`+
		`"IsInternetFacing":false,"DeviceManualTags":"[\"vip\"]"}`, id, stamp, i, i, i%250, i, i)
}

var everyField = []string{"DeviceName", "OSPlatform", "OSVersion", "OSVersionInfo", "OSBuild", "OSArchitecture", "DeviceCategory", "DeviceType", "Model", "Vendor", "MachineGroup",
	"JoinType", "AadDeviceId", "PublicIP", "LastIPAddress", "LoggedOnUsers", "OnboardingStatus", "SensorHealthState", "ExposureLevel", "RiskScore", "AssetValue", "IsInternetFacing",
	"RegistryDeviceTag", "DeviceManualTags", "DeviceDynamicTags", "AzureResourceId", "OSFamily", "Timestamp"}

// A million devices with 22 columns each: how much memory one takes, and how long a record's hit.
func BenchmarkMillionDevices(b *testing.B) {
	const n = 1_000_000
	cfg := device.Config{Fields: everyField, CacheBytes: 4 << 30, TTL: 48 * time.Hour}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	d := device.New(cfg)
	for i := range n {
		d.Learn(aTenant, fullReport(fmt.Sprintf("%040x", (i+1)*7919), "2026-03-04T11:00:00Z", i), true)
	}
	took := heap() - before
	s := d.Stats()
	if s.Devices != n {
		b.Fatalf("%+v", s)
	}
	keys := device.Keys(d, aTenant, func(i int) string { return fmt.Sprintf("%040x", (i+1)*7919) }, n)
	h := device.NewHitter(d)
	for _, key := range keys {
		h.Hit(key) // the first time moves a device to those that records have asked for
	}
	i, columns := 0, 0
	var hits []time.Duration // of a thousand hits, and of those the quickest, which other work on the machine has not lengthened
	hits = make([]time.Duration, 0, 1<<16)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		start := time.Now()
		for range 1000 {
			i = (i + 104729) % n
			columns = h.Hit(keys[i])
		}
		if len(hits) < cap(hits) {
			hits = append(hits, time.Since(start))
		}
	}
	b.StopTimer()
	slices.Sort(hits)
	b.ReportMetric(float64(hits[len(hits)/50])/1000, "ns/hit")
	warm := time.Duration(1 << 62) // a thousand devices that are in the processor's cache, as those of one incident are
	for range 200 {
		start := time.Now()
		for _, key := range keys[:1000] {
			h.Hit(key)
		}
		warm = min(warm, time.Since(start))
	}
	b.ReportMetric(float64(warm)/1000, "ns/warm-hit")
	if columns != 27 { // 22 columns, age_s, Tags, DeviceId, match, status
		b.Fatalf("%d fields", columns)
	}
	b.ReportMetric(float64(took)/n, "B/device")
	b.ReportMetric(float64(s.Bytes)/n, "counted-B/device")
}
