package transform_test

import (
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// Scenes in which a device is easily taken for another one. Where the right one is in doubt, none
// is.

const otherTenant = "ffffffff-0000-4000-8000-000000000001"

func elsewhere(r string) string { return strings.ReplaceAll(r, aTenant, otherTenant) }

// dated is a record with another Timestamp, exported later than that.
func dated(r, from, to string) string {
	r = strings.Replace(r, `"Timestamp":"`+from+`"`, `"Timestamp":"`+to+`"`, 1)
	return strings.Replace(r, `"time":"`+at("23:00:00"), `"time":"2026-04-01T00:00:00Z`, 1)
}

// hosting is a File row of an alert, about a device at a time.
func hosting(alert, id, clock string, properties ...any) string {
	return row(alert, "File", `{"Host":{"MachineId":"`+id+`"}}`, append([]any{"Timestamp", at(clock)}, properties...)...)
}

// The clock of the machine that an event is about may be wrong: the event is as of its export at
// the latest.
func TestScenesOfClocks(t *testing.T) {
	a := numbered(1)
	const future = "2031-01-01T00:00:00Z"
	file := func(when string) string {
		return row("", "File", `{"Host":{"MachineId":"`+a+`"}}`, "Timestamp", when)
	}
	playScenes(t, []scene{
		{"years ahead", nil, []string{full(a, "11:00:00"), file(future)}, []any{"status", "hit", "age_s", int64(3600)}},
		{"the first moment of .NET", nil, []string{full(a, "11:00:00"), file("0001-01-01T00:00:00")}, []any{"status", "hit", "age_s", int64(3600)}},
		{"by name", nil, []string{full(a, "11:00:00", "DeviceName", "web01"), row("", "Process", `{}`, "DeviceName", "web01", "Timestamp", future)}, []any{"match", "name", "status", "hit"}},
		{"by user", byUser, []string{full(a, "11:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`), row("", "User", `{}`, "AccountName", "kim", "Timestamp", future)}, []any{"match", "user", "status", "hit"}},
		{"an alert from the future, and the next", nil, []string{hosting("x", a, "10:00:00", "Severity", "High", "Timestamp", future), hosting("y", a, "12:00:01", "Severity", "Low")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"an alert, and one from the future", nil, []string{hosting("x", a, "10:00:00", "Severity", "High"), hosting("y", a, "12:00:00", "Severity", "Low", "Timestamp", future)}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"days late", nil, []string{full(a, "11:00:00"), hosting("x", a, "10:00:00", "Severity", "High"), hosting("z", a, "09:00:00", "Severity", "Low", "Timestamp", "2026-02-27T09:00:00Z")},
			[]any{"status", "hit", "age_s", int64(-(5*24*3600 + 2*3600)), "alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"late evidence of an alert that goes on", nil, []string{hosting("x", a, "10:00:00", "Severity", "High"), hosting("x", a, "09:00:00", "Timestamp", "2026-02-27T09:00:00Z"), hosting("y", a, "11:00:00")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
	})
}

// A name tells a device only if it is the host's own, and for as long as a report is near.
func TestScenesOfDoubtfulNames(t *testing.T) {
	a, b := numbered(1), numbered(2)
	web := full(a, "11:00:00", "DeviceName", "web01.corp.example")
	named := func(name string, properties ...any) string {
		return row("", "Process", `{}`, append([]any{"DeviceName", name}, properties...)...)
	}
	const later = "2026-03-09T11:00:00Z" // five days after the event
	scaled := func(instance string) string {
		return "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/s/virtualMachines/" + instance
	}
	playScenes(t, []scene{
		{"short in the column, another domain inside", nil, []string{web, row("", "Machine", `{"HostName":"web01","DnsDomain":"other.example"}`, "DeviceName", "WEB01")}, []any{"match", nil, "status", "none"}},
		{"short in the column, the domain inside", nil, []string{web, full(b, "11:00:00", "DeviceName", "web01.other.example"), row("", "Machine", `{"HostName":"web01","DnsDomain":"other.example"}`, "DeviceName", "web01")}, []any{"match", "name", "DeviceId", b}},
		{"short in the column, whole inside", nil, []string{web, full(b, "11:00:00", "DeviceName", "web01.other.example"), row("", "File", `{"Host":{"HostName":"web01.other.example."}}`, "DeviceName", " web01 ")}, []any{"match", "name", "DeviceId", b}},
		{"first reported days after the event", nil, []string{dated(web, at("11:00:00"), later), named("web01")}, []any{"match", nil, "status", "none"}},
		{"imaged anew days after the event", nil, []string{web, dated(full(b, "11:00:00", "DeviceName", "web01.corp.example"), at("11:00:00"), later), named("web01")}, []any{"match", "name", "DeviceId", a}},
		{"a report of the day after", nil, []string{dated(web, at("11:00:00"), "2026-03-05T11:00:00Z"), named("web01")}, []any{"match", "name", "status", "hit"}},
		{"no ttl", func(c *device.Config) { c.TTL = 0 }, []string{dated(web, at("11:00:00"), later), named("web01")}, []any{"match", "name", "status", "hit"}},
		{"a heartbeat of today keeps the name", nil, []string{dated(web, at("11:00:00"), "2026-02-22T11:00:00Z"), beat(a, "11:00:00", "PublicIP", "203.0.113.5"), named("web01")}, []any{"match", "name", "DeviceId", a, "status", "stale"}},
		{"renamed by a heartbeat", nil, []string{web, beat(a, "11:30:00", "DeviceName", "web02"), named("web01")}, []any{"match", nil}},
		{"cleared by a full report", nil, []string{web, full(a, "11:30:00", "DeviceName", ""), named("web01")}, []any{"match", nil}},
		{"a discovered device is named by its address", nil, []string{full(a, "11:00:00", "DeviceName", "10.0.0.5"), named("10.0.0.5")}, []any{"match", nil, "status", "none"}},
		{"by an address of IPv6", nil, []string{full(a, "11:00:00", "DeviceName", "fe80::1"), named("FE80::1")}, []any{"match", nil, "status", "none"}},
		{"localhost with a domain", nil, []string{full(a, "11:00:00", "DeviceName", "localhost.localdomain"), named("localhost.localdomain")}, []any{"match", nil, "status", "none"}},
		{"a NetBIOS name is cut", nil, []string{full(a, "11:00:00", "DeviceName", "verylonghostname01.corp.example"), row("", "Machine", `{"NetBiosName":"VERYLONGHOSTNAM"}`)}, []any{"match", nil, "status", "none"}},
		{"merged, and the survivor has another name", nil, []string{full(a, "10:00:00", "DeviceName", "web01", "MergedToDeviceId", b), full(b, "11:00:00", "DeviceName", "web02"), named("web01")}, []any{"match", "name", "DeviceId", b}},
		{"another machine of a scale set", nil, []string{full(a, "11:00:00", "AzureResourceId", scaled("2")), seen("r", a), row("r", "CloudResource", `{"ResourceId":"`+scaled("3")+`"}`)}, []any{"match", nil, "status", "none"}},
		{"a machine of a scale set", nil, []string{full(a, "11:00:00", "AzureResourceId", scaled("2")), seen("r", a), row("r", "CloudResource", `{"ResourceId":"`+strings.ToLower(scaled("2"))+`"}`)}, []any{"match", "name", "DeviceId", a}},
		{"a resource that was cleared", nil, []string{full(a, "10:00:00", "AzureResourceId", scaled("2")), full(a, "11:00:00", "AzureResourceId", ""), row("", "CloudResource", `{"ResourceId":"`+scaled("2")+`"}`)}, []any{"match", nil}},
		{"a resource of another tenant", nil, []string{elsewhere(full(a, "11:00:00", "AzureResourceId", scaled("2"))), row("", "CloudResource", `{"ResourceId":"`+scaled("2")+`"}`)}, []any{"match", nil}},
		{"an address of a device is not its name", nil, []string{full(a, "11:00:00", "PublicIP", "203.0.113.5"), recordOf("DeviceNetworkInfo", "DeviceId", a, "Timestamp", at("11:00:00"), "MacAddress", "AA", "NetworkAdapterStatus", "Up", "IPAddresses", `[{"IPAddress":"10.0.0.5"}]`),
			row("", "Ip", `{"Address":"10.0.0.5"}`, "LocalIP", "10.0.0.5", "RemoteIP", "203.0.113.5")}, []any{"match", nil, "status", "none"}},
	})
}
