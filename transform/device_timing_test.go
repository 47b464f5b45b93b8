package transform_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

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

// The envelope of BenchmarkTransform: one record in ten is AlertEvidence and one DeviceInfo. It
// runs in turn without and with devices, so that other programs on the machine disturb both alike.
// The figures are the quickest fiftieth of each.
func BenchmarkEnrichment(b *testing.B) {
	body := envelope(100)
	payloads := []transform.Payload{{Body: body, Lane: "hub/0"}}
	dc := defaults()
	dc.Fields, dc.CacheBytes = everyField, 64<<20
	records := 0
	emit := func(string, []byte) { records++ }
	devices := device.New(dc)
	for i := range 97 { // those that record names
		devices.Learn(aTenant, fullReport(fmt.Sprintf("%040x", i+0x1234567), "2026-03-04T09:00:00Z", i), true)
	}
	var trs [2]*transform.Transformer
	for i, d := range []*device.Memory{nil, devices} {
		trs[i] = transform.New(transform.Config{EventID: true, Devices: d})
		trs[i].Append(b.Context(), payloads, emit)
	}
	if records != 200 {
		b.Fatalf("%d records", records)
	}
	var took [2][]time.Duration
	b.ReportAllocs()
	for b.Loop() {
		for i, tr := range trs {
			start := time.Now()
			tr.Append(b.Context(), payloads, emit)
			took[i] = append(took[i], time.Since(start))
		}
	}
	var best [2]float64
	for i := range took {
		slices.Sort(took[i])
		best[i] = float64(took[i][len(took[i])/50])
	}
	b.ReportMetric(float64(len(body))/best[0]*1e3, "MB/s-off")
	b.ReportMetric(float64(len(body))/best[1]*1e3, "MB/s-on")
	b.ReportMetric((best[1]/best[0]-1)*100, "%slower")
}
