package transform_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
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

// An account tells a device only if it is of one person, and of the same one.
func TestScenesOfDoubtfulUsers(t *testing.T) {
	a, b, c := numbered(1), numbered(2), numbered(3)
	users := func(id, clock string, list any) string { return full(id, clock, "LoggedOnUsers", list) }
	const list = `[{"UserName":"kim","DomainName":"CORP","Sid":"S-1-5-21-1"}]`
	kim := users(a, "11:00:00", list)
	as := []any{map[string]any{"UserName": "kim", "DomainName": "CORP", "Sid": "S-1-5-21-1"}}
	user := func(properties ...any) string { return row("", "User", `{}`, properties...) }
	ask := about("", a)
	crowd := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"UserName":"u%d","Sid":"S-1-5-21-9-%d"}`, i, i))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	playScenes(t, []scene{
		{"by SID alone", byUser, []string{kim, user("AccountSid", "s-1-5-21-1")}, []any{"match", "user", "DeviceId", a}},
		{"one SID under a new name", byUser, []string{kim, user("AccountSid", "S-1-5-21-1", "AccountName", "kim.new")}, []any{"match", "user", "DeviceId", a}},
		{"the SID before the name", byUser, []string{users(a, "11:00:00", `[{"UserName":"kim"}]`), users(b, "11:00:00", list), user("AccountSid", "S-1-5-21-1", "AccountName", "kim")}, []any{"match", "user", "DeviceId", b}},
		{"another SID with the same name and domain", byUser, []string{kim, user("AccountName", "kim", "AccountDomain", "CORP", "AccountSid", "S-1-5-21-2")}, []any{"match", nil}},
		{"a user of two tenants", byUser, []string{kim, elsewhere(users(b, "11:00:00", list)), user("AccountSid", "S-1-5-21-1")}, []any{"match", "user", "DeviceId", a}},
		{"of a merged device", byUser, []string{users(a, "09:00:00", list), full(a, "10:00:00", "MergedToDeviceId", b), full(b, "10:00:00"), user("AccountSid", "S-1-5-21-1")}, []any{"match", "user", "DeviceId", b}},
		{"SYSTEM", byUser, []string{users(a, "11:00:00", `[{"UserName":"SYSTEM","DomainName":"NT AUTHORITY","Sid":"S-1-5-18"}]`), user("AccountSid", "S-1-5-18", "AccountName", "system", "AccountDomain", "nt authority")}, []any{"match", nil, "status", "none"}},
		{"SYSTEM by name", byUser, []string{users(a, "11:00:00", `[{"UserName":"SYSTEM"}]`), user("AccountName", "system")}, []any{"match", nil}},
		{"a service's virtual account", byUser, []string{users(a, "11:00:00", `[{"UserName":"DWM-1","DomainName":"Window Manager"}]`), user("AccountName", "DWM-1", "AccountDomain", "Window Manager")}, []any{"match", nil}},
		{"the machine's own account", byUser, []string{users(a, "11:00:00", `[{"UserName":"WEB01$","DomainName":"CORP"}]`), user("AccountName", "WEB01$", "AccountDomain", "CORP")}, []any{"match", nil}},
		{"an administrator of no domain", byUser, []string{users(a, "11:00:00", `[{"UserName":"Administrator","DomainName":"WS-1","Sid":"S-1-5-21-7-500"}]`), user("AccountName", "administrator")}, []any{"match", nil, "status", "none"}},
		{"the administrator of a machine", byUser, []string{users(a, "11:00:00", `[{"UserName":"Administrator","DomainName":"WS-1"}]`), user("AccountName", `WS-1\administrator`)}, []any{"match", "user", "DeviceId", a}},
		{"root", byUser, []string{users(a, "11:00:00", `[{"UserName":"root"}]`), user("AccountName", "root")}, []any{"match", nil}},
		{"nobody's SID", byUser, []string{users(a, "11:00:00", `[{"UserName":"kim","Sid":"S-1-0-0"}]`), user("AccountSid", "S-1-0-0")}, []any{"match", nil}},
		{"an address of another domain", byUser, []string{kim, user("AccountUpn", "kim@other.example")}, []any{"match", nil, "status", "none"}},
		{"the name, and an address of another domain", byUser, []string{kim, user("AccountName", "kim", "AccountUpn", "kim@other.example")}, []any{"match", nil}},
		{"an account of Entra ID", byUser, []string{users(a, "11:00:00", `[{"UserName":"kim","DomainName":"AzureAD","Sid":"S-1-12-1-5"}]`), user("AccountUpn", "kim@corp.example")}, []any{"match", "user", "DeviceId", a}},
		{"texts that say nothing", byUser, []string{users(a, "11:00:00", `[{"UserName":"kim","DomainName":"N/A","Sid":"null"},{"UserName":"-"}]`), user("AccountName", "kim", "AccountDomain", "CORP", "AccountSid", "S-1-5-21-1")}, []any{"match", "user", "DeviceId", a}},
		{"a local account of another machine", byUser, []string{users(a, "11:00:00", `[{"UserName":"svc","DomainName":"WS-1"}]`), user("AccountName", "svc", "AccountDomain", "WS-2")}, []any{"match", nil}},
		{"logged on days after the event", byUser, []string{dated(kim, at("11:00:00"), "2026-03-09T11:00:00Z"), user("AccountName", "kim")}, []any{"match", nil, "status", "none"}},
		{"the last of a hundred on a server", byUser, []string{users(a, "11:00:00", crowd(100)), users(b, "11:00:00", `[{"UserName":"u99"}]`), user("AccountName", "u99")}, []any{"match", "several", "candidates", ids(a, b)}},
		{"on one of the alert's devices", byUser, []string{kim, seen("n", a), seen("n", b), row("n", "User", `{}`, "AccountName", "kim")}, []any{"match", "user", "DeviceId", a}},
		{"on none of the alert's devices", byUser, []string{kim, seen("n", b), seen("n", c), row("n", "User", `{}`, "AccountName", "kim")}, []any{"match", "several", "candidates", ids(b, c)}},
		{"a user's device is not the alert's", byUser, []string{kim, row("n", "User", `{}`, "AccountName", "kim"), row("n", "Ip", `{}`)}, []any{"match", nil, "status", "none"}},
		{"a user's alerts count", byUser, []string{kim, row("x", "User", `{}`, "AccountName", "kim"), row("y", "User", `{}`, "AccountName", "kim")}, []any{"match", "user", "alerts_24h", int64(2)}},
		{"texts in the list", byUser, []string{users(a, "11:00:00", `["kim"]`), user("AccountName", "kim")}, []any{"status", "none"}},
		{"JSON in JSON", nil, []string{users(a, "11:00:00", `"[{\"UserName\":\"kim\"}]"`), ask}, []any{"LoggedOnUsers", []any{map[string]any{"UserName": "kim"}}}},
		{"a native list", nil, []string{users(a, "11:00:00", as), ask}, []any{"LoggedOnUsers", as}},
		{"null", nil, []string{users(a, "10:00:00", list), users(a, "11:00:00", nil), ask}, []any{"LoggedOnUsers", nil}},
		{"a list of null", nil, []string{users(a, "10:00:00", list), users(a, "11:00:00", "[null]"), ask}, []any{"LoggedOnUsers", nil}},
		{"a list of an empty object", nil, []string{users(a, "10:00:00", list), users(a, "11:00:00", `[{},{"UserName":null,"Sid":""}]`), ask}, []any{"LoggedOnUsers", nil}},
		{"broken", nil, []string{users(a, "10:00:00", list), users(a, "11:00:00", `[{"UserName":`), ask}, []any{"LoggedOnUsers", nil}},
		{"not named", nil, []string{users(a, "10:00:00", list), full(a, "11:00:00"), ask}, []any{"LoggedOnUsers", as}},
		{"an empty text in a heartbeat", nil, []string{users(a, "10:00:00", list), beat(a, "11:00:00", "LoggedOnUsers", ""), ask}, []any{"LoggedOnUsers", as}},
		{"a blank list in a heartbeat", nil, []string{users(a, "10:00:00", list), beat(a, "11:00:00", "LoggedOnUsers", " [ ] "), ask}, []any{"LoggedOnUsers", nil}},
		{"a list of null in a heartbeat", nil, []string{users(a, "10:00:00", list), beat(a, "11:00:00", "LoggedOnUsers", []any{nil}), ask}, []any{"LoggedOnUsers", nil}},
	})
}

// A host of which an alert tells the name alone is a host, too.
func TestScenesOfHostsWithoutIDs(t *testing.T) {
	a, b := numbered(1), numbered(2)
	web := full(a, "11:00:00", "DeviceName", "web01.corp.example")
	host := func(alert, name string) string {
		return row(alert, "Machine", `{"HostName":"`+name+`","DnsDomain":"corp.example"}`)
	}
	ip := row("n", "Ip", `{}`)
	playScenes(t, []scene{
		{"known by its name", nil, []string{web, host("n", "WEB01"), ip}, []any{"match", "alert", "DeviceId", a, "status", "hit"}},
		{"known by its name, and by its id", nil, []string{web, host("n", "web01"), seen("n", a), ip}, []any{"match", "alert", "DeviceId", a}},
		{"known to evidence only, by its name and by its id", nil, []string{host("n", "web01"), row("n", "File", `{"Host":{"MachineId":"`+a+`","HostName":"web01"}}`), ip}, []any{"match", "alert", "DeviceId", a, "status", "unknown"}},
		{"one by its name, another by its id", nil, []string{web, host("n", "web01"), seen("n", b), ip}, []any{"match", "several", "status", "none", "candidates", ids(a, b)}},
		{"the other order, in one batch", nil, []string{envelopeOf(ip, seen("n", b), host("n", "web01"), web, ip)}, []any{"match", "several", "candidates", ids(a, b)}},
		{"a name that nobody knows, and an id", nil, []string{host("n", "srv9"), seen("n", b), ip}, []any{"match", "several", "status", "none", "candidates", ids(b)}},
		{"a name that nobody knows", nil, []string{host("n", "srv9"), ip}, []any{"match", nil, "status", "none", "candidates", nil}},
		{"a name of two devices", nil, []string{web, full(b, "11:00:00", "DeviceName", "web01.corp.example"), row("n", "User", `{"Host":{"NetBiosName":"WEB01"}}`), ip}, []any{"match", nil, "status", "none"}},
		{"one leads", nil, []string{host("n", "srv9"), row("n", "Machine", `{"MachineId":"`+b+`","LeadingHost":true}`, "DeviceId", b), ip}, []any{"match", "alert", "DeviceId", b}},
		{"the row of the name itself", nil, []string{web, seen("n", b), host("n", "web01")}, []any{"match", "name", "DeviceId", a}},
		{"a name of another domain", nil, []string{web, seen("n", a), row("n", "Machine", `{"HostName":"web01","DnsDomain":"other.example"}`), ip}, []any{"match", "several", "candidates", ids(a)}},
		{"an address is no name", nil, []string{web, seen("n", a), row("n", "Ip", `{}`, "DeviceName", "10.0.0.5"), ip}, []any{"match", "alert", "DeviceId", a}},
		{"a name on an alert of another tenant", nil, []string{web, seen("n", a), elsewhere(host("n", "srv9")), ip}, []any{"match", "alert", "DeviceId", a}},
		{"its alerts count", nil, []string{web, host("n", "web01"), row("n", "Ip", `{}`), recordOf("AlertInfo", "AlertId", "n", "Timestamp", noon, "Severity", "High"), host("m", "web01")}, []any{"match", "name", "alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"a merged device by its old name", nil, []string{full(a, "10:00:00", "DeviceName", "old1", "MergedToDeviceId", b), full(b, "11:00:00", "DeviceName", "new1"), row("n", "Machine", `{"HostName":"old1"}`), seen("n", b), ip}, []any{"match", "alert", "DeviceId", b}},
		{"more names than are kept", nil, func() (r []string) {
			for i := range 9 {
				r = append(r, host("n", fmt.Sprint("aa", i)))
			}
			return append(r, seen("n", a), seen("n", b), ip)
		}(), []any{"match", "several", "candidates", ids(a, b)}},
		{"a process on a host with a name, its image elsewhere", nil, []string{web, row("", "Process", `{"Host":{"HostName":"web01"},"ImageFile":{"Host":{"HostName":"nas","MachineId":"`+b+`"}}}`)}, []any{"match", "name", "DeviceId", a}},
		{"a process on an unknown host, its image elsewhere", nil, []string{row("", "Process", `{"Host":{"HostName":"web01"},"ImageFile":{"Host":{"HostName":"nas","MachineId":"`+b+`"}}}`)}, []any{"match", nil, "status", "none"}},
		{"a process and its image on one host", nil, []string{row("", "Process", `{"Host":{"HostName":"WEB01"},"ImageFile":{"Host":{"HostName":"web01.corp.example","MachineId":"`+b+`"}}}`)}, []any{"match", "evidence", "DeviceId", b}},
		{"a process with its image elsewhere", nil, []string{web, row("", "Process", `{"ImageFile":{"$id":"2","Host":{"$id":"4","MachineId":"`+b+`"}},"Host":{"$id":"3","MachineId":"`+a+`"}}`)}, []any{"match", "evidence", "DeviceId", a}},
		{"a circle of references", nil, []string{row("", "Process", `{"Host":{"$id":"1","$ref":"2"},"ImageFile":{"$id":"2","$ref":"1"}}`)}, []any{"status", "none"}},
		{"a device id of Entra ID is not Defender's", nil, []string{full(a, "11:00:00", "AadDeviceId", "11111111-2222-3333-4444-555555555555"), row("", "Machine", `{"AadDeviceId":"11111111-2222-3333-4444-555555555555"}`)}, []any{"match", nil, "status", "none"}},
	})
	// What is known by name only survives a restart.
	tr, d := withDevices(everything())
	_, _ = d.Save(0, nil)
	run(t, tr, web, host("n", "srv9"), host("m", "web01"), seen("n", b))
	again, restored := withDevices(everything())
	_, _ = d.Save(100, func(saved []device.Saved) error {
		for _, s := range saved {
			if !restored.Restore(s.Key, s.Groups) {
				t.Errorf("%s cannot be read", s.Key)
			}
		}
		return nil
	})
	events := run(t, again, ip, row("m", "Ip", `{}`))
	wantDevice(t, events[0], "match", "several", "candidates", ids(b))
	wantDevice(t, events[1], "match", "alert", "DeviceId", a)
}

// What the machines API says of a device holds for that one, and as of its time.
func TestScenesOfAnswers(t *testing.T) {
	a, b := numbered(1), numbered(2)
	const wait = 300 * time.Millisecond
	old := dated(full(a, "11:00:00", "DeviceName", "web01", "DeviceManualTags", `["vip"]`, "MergedToDeviceId", b), at("11:00:00"), "2026-02-22T11:00:00Z")
	answer := func(id, clock, more string) string {
		return `{"DeviceId":"` + id + `","OSPlatform":"Linux","Timestamp":"` + at(clock) + `"` + more + `}`
	}
	f := func(name string, answers []string, pending bool, records []string, calls int, want ...any) {
		t.Run(name, func(t *testing.T) {
			cfg := everything()
			cfg.Wait = wait
			tr, l := withLookup(cfg, func(l *lookup, _ context.Context, ids []string) []string {
				for _, text := range answers {
					l.devices.Learn(aTenant, []byte(text), true)
				}
				if pending {
					return ids
				}
				return nil
			})
			var events []event
			for _, r := range records {
				events = run(t, tr, r)
			}
			wantDevice(t, events[len(events)-1], want...)
			if len(l.calls) != calls {
				t.Errorf("asked %v", l.calls)
			}
		})
	}
	stale := dated(full(a, "11:00:00", "DeviceName", "web01"), at("11:00:00"), "2026-02-22T11:00:00Z")
	f("it does not know a stale one", nil, false, []string{stale, about("", a)}, 1, "status", "stale", "DeviceName", "web01")
	f("it does not answer for a stale one", nil, true, []string{stale, about("", a)}, 1, "status", "stale", "DeviceName", "web01")
	f("it does not know it, and then a report comes", nil, false, []string{about("", a), full(a, "11:00:00"), about("", a)}, 1, "status", "hit")
	f("an answer about another one", []string{answer(b, "11:00:00", "")}, false, []string{about("", a)}, 1, "status", "unknown", "DeviceId", a, "OSPlatform", nil)
	f("an answer of few words", []string{`{"DeviceId":"` + a + `","DeviceName":"only"}`}, false, []string{about("", a)}, 1, "status", "hit", "DeviceName", "only")
	f("merged into one that it does not know", []string{answer(a, "11:00:00", `,"MergedToDeviceId":"`+b+`"`)}, false, []string{about("", a)}, 1, "status", "hit", "DeviceId", a)
	f("the last tag is off", []string{answer(a, "11:00:00", `,"DeviceManualTags":"[]","MergedToDeviceId":""`)}, false, []string{old, about("", a)}, 1, "DeviceId", a, "status", "hit", "OSPlatform", "Linux", "Tags", nil, "DeviceManualTags", nil)
	f("an older answer", []string{answer(a, "09:00:00", `,"DeviceName":"old","DeviceManualTags":"[]"`)}, false, []string{beat(a, "10:00:00", "DeviceName", "new", "DeviceManualTags", `["vip"]`), about("", a)}, 0, "DeviceName", "new", "Tags", ids("vip"))
	f("a row that knows a name is not asked for", nil, false, []string{row("", "Ip", `{}`, "DeviceName", "web9")}, 0, "status", "none")
	f("several are not asked for", nil, false, []string{full(a, "11:00:00"), full(b, "11:00:00"), seen("n", a), seen("n", b), row("n", "Ip", `{}`, "Title", "T")}, 0, "match", "several")
	// The list comes unasked.
	tr, d := withDevices(everything())
	run(t, tr, old, full(b, "11:00:00"))
	wantDevice(t, run(t, tr, about("", a))[0], "DeviceId", b)
	d.Learn(aTenant, []byte(answer(a, "11:00:00", `,"DeviceManualTags":"[]","MergedToDeviceId":""`)), false)
	wantDevice(t, run(t, tr, about("", a))[0], "DeviceId", a, "OSPlatform", "Linux", "Tags", nil)
}

// Nobody chooses the device of a row by a text that he writes.
func TestScenesOfForgedHosts(t *testing.T) {
	a, b := numbered(1), numbered(2)
	web := full(a, "11:00:00", "DeviceName", "web01")
	forged := inString(`{"MachineId":"` + a + `","Host":{"MachineId":"` + a + `"}}`)
	const vm = "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm"
	machine := full(a, "11:00:00", "AzureResourceId", vm+"1", "DeviceName", "vm1", "LoggedOnUsers", `[{"UserName":"kim"}]`)
	everywhere := func(c *device.Config) { c.Tables = []string{"*"} }
	playScenes(t, []scene{
		{"the subject of a mail", nil, []string{web, row("", "MailMessage", `{"Subject":`+forged+`,"Sender":"x@evil.example"}`)}, []any{"match", nil, "status", "none"}},
		{"an address of the web", nil, []string{web, row("", "Url", `{"Url":`+forged+`}`)}, []any{"match", nil, "status", "none"}},
		{"a file's name, on an alert", nil, []string{web, seen("n", b), row("n", "File", `{"Name":`+forged+`}`)}, []any{"match", "alert", "DeviceId", b}},
		{"a list of arguments", nil, []string{web, row("", "Process", `{"Arguments":[`+forged+`]}`)}, []any{"match", nil, "status", "none"}},
		{"JSON in the place of a host", nil, []string{web, row("", "File", `{"Host":`+inString(`{"MachineId":"`+a+`"}`)+`}`)}, []any{"match", "evidence", "DeviceId", a}},
		{"the target in an event that is no evidence", everywhere, []string{web, recordOf("IdentityLogonEvents", "DeviceName", "dc1", "AdditionalFields", `{"TARGET":{"MachineId":"`+a+`"}}`, "Timestamp", noon)}, []any{"match", nil, "status", "none"}},
		{"the other end of a logon", everywhere, []string{web, recordOf("DeviceLogonEvents", "DeviceId", b, "RemoteDeviceName", "web01", "Timestamp", noon)}, []any{"match", "row", "DeviceId", b}},
		{"another virtual machine with the name", nil, []string{machine, row("", "CloudResource", `{"ResourceId":"`+vm+`2"}`, "DeviceName", "vm1")}, []any{"match", nil, "status", "none"}},
		{"another virtual machine with the user", byUser, []string{machine, row("", "CloudResource", `{"ResourceId":"`+vm+`2"}`, "AccountName", "kim")}, []any{"match", nil, "status", "none"}},
		{"fields of ours in a report", func(c *device.Config) { c.Fields = []string{"*"} }, []string{full(a, "11:00:00", "status", "none", "match", "row", "url", "https://evil.example"), about("", a)}, []any{"status", "hit", "match", "evidence", "url", nil}},
	})
}

// Tenants share nothing; of adapters the newest report counts.
func TestScenesOfTenantsAndAdapters(t *testing.T) {
	a, b, c := numbered(1), numbered(2), numbered(3)
	ask := about("", a)
	adapter := func(when, mac, status string, list any) string {
		return strings.Replace(recordOf("DeviceNetworkInfo", "DeviceId", a, "Timestamp", when, "MacAddress", mac, "NetworkAdapterStatus", status, "IPAddresses", list), `"time":"`+noon, `"time":"`+at("11:30:00"), 1)
	}
	const one, two = `[{"IPAddress":"10.0.0.5"}]`, `[{"IPAddress":"10.0.0.6"}]`
	playScenes(t, []scene{
		{"one id and one alert in two tenants, one batch", nil, []string{envelopeOf(full(a, "11:00:00", "DeviceName", "mine"), elsewhere(full(a, "11:30:00", "DeviceName", "theirs")), elsewhere(seen("x", b)), seen("x", a), row("x", "Ip", `{}`))},
			[]any{"match", "alert", "DeviceId", a, "DeviceName", "mine", "candidates", nil}},
		{"a link of a chain in another tenant", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), elsewhere(full(b, "10:00:00", "MergedToDeviceId", c)), full(c, "11:00:00"), ask}, []any{"DeviceId", a, "status", "hit"}},
		{"MergedDeviceIds of another tenant", nil, []string{full(a, "09:00:00"), elsewhere(full(b, "11:00:00", "MergedDeviceIds", a)), full(b, "11:00:00"), ask}, []any{"DeviceId", a}},
		{"evidence of another tenant", nil, []string{elsewhere(row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"theirs"}}`)), ask}, []any{"status", "unknown", "DeviceName", nil}},
		{"AlertInfo of another tenant", nil, []string{elsewhere(recordOf("AlertInfo", "AlertId", "x", "Timestamp", noon, "Severity", "High")), about("x", a)}, []any{"alerts_24h", int64(1), "alerts_24h_severity", nil}},
		{"a report without a tenant", nil, []string{strings.Replace(full(a, "11:00:00"), `"tenantId":"`+aTenant+`",`, "", 1), ask}, []any{"status", "unknown"}},
		{"merges of one moment", nil, []string{full(b, "09:00:00"), full(c, "09:00:00"), full(a, "10:00:00", "MergedToDeviceId", c), full(a, "10:00:00", "MergedToDeviceId", b), ask}, []any{"DeviceId", c}},
		{"the survivors of one moment", nil, []string{full(c, "10:00:00", "MergedDeviceIds", a), full(b, "10:00:00", "MergedDeviceIds", a), ask}, []any{"DeviceId", c}},
		{"a survivor's list, and the device's own later word", nil, []string{full(a, "11:00:00", "MergedToDeviceId", ""), full(b, "10:00:00", "MergedDeviceIds", a), ask}, []any{"DeviceId", a}},
		{"the leading host was merged", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "10:00:00"), row("n", "Machine", `{"MachineId":"`+a+`","LeadingHost":true}`, "DeviceId", a), seen("n", c), row("n", "Ip", `{}`)}, []any{"match", "alert", "DeviceId", b}},
		{"evidence's name of the old one is not the survivor's", nil, []string{full(a, "09:00:00", "MergedToDeviceId", b), full(b, "10:00:00"), row("", "Machine", `{"MachineId":"`+a+`","HostName":"old","OSFamily":"Linux"}`, "DeviceId", a)}, []any{"DeviceId", b, "DeviceName", nil, "OSFamily", nil}},
		{"a merge of the future", nil, []string{strings.Replace(full(a, "09:00:00", "MergedToDeviceId", b, "Timestamp", "2031-01-01T00:00:00Z"), at("23:00:00"), at("09:00:00"), 1), full(b, "10:00:00"), full(a, "11:00:00", "MergedToDeviceId", ""), ask}, []any{"DeviceId", a}},
		{"older evidence after newer", nil, []string{row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"new"}}`), row("", "File", `{"Host":{"MachineId":"`+a+`","HostName":"old"}}`, "Timestamp", at("10:00:00")), ask}, []any{"DeviceName", "new"}},
		{"up, and the addresses are null", nil, []string{adapter(at("09:00:00"), "AA", "Up", one), adapter(at("10:00:00"), "AA", "Up", nil), ask}, []any{"IPAddresses", nil, "MacAddresses", ids("AA")}},
		{"up, and the addresses are broken", nil, []string{adapter(at("09:00:00"), "AA", "Up", one), adapter(at("10:00:00"), "AA", "Up", `[{"IPAddress":"10.0.`), ask}, []any{"IPAddresses", nil, "MacAddresses", ids("AA")}},
		{"odd elements", nil, []string{adapter(at("09:00:00"), "AA", "Up", `[null,{},{"IPAddress":null},7]`), ask}, []any{"IPAddresses", nil, "MacAddresses", ids("AA")}},
		{"a status of null", nil, []string{adapter(at("09:00:00"), "AA", "Up", one), strings.Replace(adapter(at("10:00:00"), "AA", "X", one), `"X"`, "null", 1), ask}, []any{"IPAddresses", nil, "MacAddresses", nil}},
		{"down under the MAC in other letters", nil, []string{adapter(at("09:00:00"), "aabb", "Up", one), adapter(at("10:00:00"), "AABB", "Down", one), ask}, []any{"IPAddresses", nil, "MacAddresses", nil}},
		{"an older report of another adapter", nil, []string{adapter(at("10:00:00"), "AA", "Up", one), adapter(at("09:00:00"), "BB", "Up", two), ask}, []any{"IPAddresses", ids("10.0.0.5"), "MacAddresses", ids("AA")}},
		{"two adapters without a MAC", nil, []string{adapter(at("09:00:00"), "", "Up", one), adapter(at("09:00:00"), "", "Up", two), ask}, []any{"IPAddresses", ids("10.0.0.5", "10.0.0.6"), "MacAddresses", nil}},
		{"an address of the future", nil, []string{adapter("2031-01-01T00:00:00Z", "AA", "Up", one), strings.Replace(adapter(at("11:45:00"), "AA", "Up", two), at("11:30:00"), at("11:46:00"), 1), ask}, []any{"IPAddresses", ids("10.0.0.6")}},
	})
}

// All formats say the same device and the same status.
func TestScenesInAllFormats(t *testing.T) {
	a, b := numbered(1), numbered(2)
	stale := dated(full(a, "11:00:00", "DeviceName", "web01"), at("11:00:00"), "2026-02-22T11:00:00Z")
	for _, s := range []struct {
		name       string
		records    []string
		id, status string
	}{
		{"stale", []string{stale, about("q1", a)}, a, "stale"},
		{"evidence alone", []string{row("q1", "File", `{"Host":{"MachineId":"`+a+`","HostName":"evi"}}`)}, a, "unknown"},
		{"a row alone", []string{row("q1", "Machine", `{}`, "DeviceId", strings.ToUpper(a), "DeviceName", "N")}, a, "unknown"},
		{"nothing", []string{row("q1", "Ip", `{"Address":"10.0.0.5"}`)}, "", "none"},
		{"several", []string{seen("q1", a), seen("q1", b), row("q1", "Process", `{}`)}, "", "none"},
		{"by the alert", []string{full(a, "11:00:00"), seen("q1", a), row("q1", "Ip", `{"Address":"10.0.0.5"}`)}, a, "hit"},
		{"by a user", []string{full(a, "11:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`), row("q1", "User", `{}`, "AccountName", "kim")}, a, "hit"},
	} {
		for _, format := range []string{"flat", "raw", "splunk", "elastic", "ecs", "ocsf"} {
			cfg := everything()
			cfg.ByUser = true
			tr := transform.New(transform.Config{Format: format, Devices: device.New(cfg)})
			var e event
			for _, r := range s.records {
				events := run(t, tr, r)
				e = events[len(events)-1]
			}
			for _, own := range []string{"raw", "message", "properties"} { // the row itself
				delete(e.m, own)
			}
			text, _ := json.Marshal(e.m)
			if !strings.Contains(string(text), `status":"`+s.status+`"`) {
				t.Errorf("%s, %s: no status %s in %s", s.name, format, s.status, text)
			}
			if named := strings.Contains(string(text), `d":"`+a+`"`); named != (s.id != "") {
				t.Errorf("%s, %s: the device is there: %v, in %s", s.name, format, named, text)
			}
		}
	}
}
