package transform_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// at is a time on the day of noon.
func at(clock string) string { return "2026-03-04T" + clock + "Z" }

// about is a File row whose host is in its AdditionalFields.
func about(alert, id string) string { return row(alert, "File", `{"Host":{"MachineId":"`+id+`"}}`) }

// last runs records, one a call, and returns the device of the last one.
func last(t *testing.T, cfg device.Config, records ...string) event {
	t.Helper()
	tr, _ := withDevices(cfg)
	var events []event
	for _, r := range records {
		events = run(t, tr, r)
	}
	return events[len(events)-1]
}

func everything() device.Config {
	cfg := defaults()
	cfg.Fields = strings.Fields("DeviceName OSPlatform OSVersion OSFamily MachineGroup LoggedOnUsers ExposureLevel PublicIP Timestamp MitigationStatus RegistryDeviceTag DeviceManualTags DeviceDynamicTags AzureResourceId IPAddresses MacAddresses MergedDeviceIds")
	return cfg
}

// A hit is a report's. What evidence alone says is added, with unknown.
func TestHitIsAReport(t *testing.T) {
	machine := evidenceRows("da1_1", ws1)["machine"]
	wantDevice(t, last(t, everything(), machine), "status", "unknown", "DeviceName", "ws-a1.corp.example", "OSFamily", "Windows", "age_s", nil)
	wantDevice(t, last(t, everything(), machine, deviceInfo(ws1), machine), "status", "hit", "OSPlatform", "Windows11", "age_s", int64(1800))
}

// A full report clears the columns that it has empty, in any order of arrival; a partial one says
// what it carries.
func TestFullReportsClear(t *testing.T) {
	isolated := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("09:00:00"), "OSPlatform", "Windows11", "MitigationStatus", "Isolated", "RegistryDeviceTag", "pci", "DeviceManualTags", `["vip"]`, "MachineGroup", "Finance",
		"LoggedOnUsers", `[{"UserName":"kari"}]`)
	cleared := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("11:00:00"), "OSPlatform", "Windows11", "MitigationStatus", nil, "RegistryDeviceTag", "", "DeviceManualTags", `[]`, "LoggedOnUsers", `[]`)
	partial := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("11:30:00"), "OSPlatform", nil, "MitigationStatus", nil, "MachineGroup", "", "PublicIP", "203.0.113.5", "LoggedOnUsers", nil)
	ask := about("", ws1)
	for _, order := range [][]string{{isolated, cleared, partial}, {cleared, isolated, partial}, {partial, cleared, isolated}, {partial, isolated, cleared}} {
		e := last(t, everything(), append(slices.Clone(order), ask)...)
		wantDevice(t, e, "status", "hit", "MitigationStatus", nil, "RegistryDeviceTag", nil, "DeviceManualTags", nil, "Tags", nil, "LoggedOnUsers", nil, "MachineGroup", "Finance", "PublicIP", "203.0.113.5", "age_s", int64(3600))
	}
	// Evidence does not fill what a full report has empty.
	noName := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("11:00:00"), "OSPlatform", "Windows11", "DeviceName", "")
	wantDevice(t, last(t, everything(), evidenceRows("x", ws1)["machine"], noName, ask), "DeviceName", nil, "OSFamily", "Windows")
	// Users: a partial report that names nobody replaces those before; one that does not name them
	// leaves them.
	nobody := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("11:30:00"), "LoggedOnUsers", "[]")
	wantDevice(t, last(t, everything(), isolated, nobody, ask), "LoggedOnUsers", nil, "MitigationStatus", "Isolated")
	wantDevice(t, last(t, everything(), nobody, isolated, ask), "LoggedOnUsers", nil, "MitigationStatus", "Isolated")
}

// Stale is judged by the newest full report, not by a heartbeat that says little.
func TestStaleByTheFullReport(t *testing.T) {
	full := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-03-01T12:00:00Z", "OSPlatform", "Windows11")
	beat := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("11:59:00"), "PublicIP", "203.0.113.5")
	wantDevice(t, last(t, everything(), full, beat, about("", ws1)), "status", "stale", "age_s", int64(3*24*3600), "PublicIP", "203.0.113.5")
}

// What is no id makes no device, in evidence, in reports and in answers.
func TestNoIDs(t *testing.T) {
	for _, id := range []string{"", " ", "null", "None", "N/A", "n/a", "-", "0", "00000000-0000-0000-0000-000000000000", strings.Repeat("0", 40), "\t", "NULL"} {
		cfg := everything()
		tr, d := withDevices(cfg)
		d.Learn(aTenant, fmt.Appendf(nil, `{"DeviceId":%q,"OSPlatform":"Linux"}`, id), true)
		events := run(t, tr, deviceInfo(ws1), recordOf("DeviceInfo", "DeviceId", id, "OSPlatform", "Linux", "Timestamp", noon),
			row("a", "Machine", hostOf(ws1, true), "DeviceId", id), row("b", "File", `{"Host":{"MachineId":"`+strings.ReplaceAll(id, "\t", `\t`)+`"}}`))
		wantDevice(t, events[len(events)-2], "match", "evidence", "DeviceId", ws1, "OSPlatform", "Windows11")
		wantDevice(t, events[len(events)-1], "match", nil, "status", "none")
		if n := d.Stats().Devices; n != 1 {
			t.Errorf("%q: %d devices", id, n)
		}
	}
	// Escapes are resolved before ids are compared.
	escaped := strings.Replace(deviceInfo(ws1), `"DeviceId":"a1`, `"DeviceId":"\u00611`, 1)
	wantDevice(t, last(t, everything(), escaped, about("", ws1)), "status", "hit")
}

// No clock but the service's: a report counts as of its envelope's time, an answer without a time
// as of now.
func TestNoFutureReports(t *testing.T) {
	future := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2031-01-01T00:00:00Z", "OSPlatform", "Evil", "DeviceName", "evil")
	honest := strings.Replace(recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", at("12:30:00"), "OSPlatform", "Windows11", "DeviceName", "good"), `"time":"`+noon, `"time":"`+at("12:31:00"), 1)
	wantDevice(t, last(t, everything(), future, honest, about("", ws1)), "OSPlatform", "Windows11", "DeviceName", "good")
	tr, d := withDevices(everything())
	d.Learn(aTenant, []byte(`{"DeviceId":"`+ws1+`","OSPlatform":"Old","DeviceName":"api"}`), true)
	soon := time.Now().UTC().Add(time.Minute).Format(time.RFC3339)
	newer := strings.Replace(recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", soon, "OSPlatform", "New"), `"time":"`+noon, `"time":"`+soon, 1)
	events := run(t, tr, newer, about("", ws1))
	wantDevice(t, events[1], "OSPlatform", "New")
}

// Merges are followed where the target has reported, and ended by a later full report. The survivor
// may report them, too. An alert that names the old and the new id has one device.
func TestMerges(t *testing.T) {
	old := deviceInfo(ws1, "MergedToDeviceId", ws2)
	target := deviceInfo(ws2)
	wantDevice(t, last(t, everything(), old, evidenceRows("x", ws2)["machine"], about("", ws1)), "DeviceId", ws1, "status", "hit", "OSPlatform", "Windows11")
	wantDevice(t, last(t, everything(), old, target, about("", ws1)), "DeviceId", ws2, "status", "hit")
	ended := deviceInfo(ws1, "Timestamp", at("11:45:00"), "MergedToDeviceId", "")
	wantDevice(t, last(t, everything(), old, target, ended, about("", ws1)), "DeviceId", ws1, "status", "hit")
	survivor := deviceInfo(ws2, "MergedDeviceIds", `["`+ws1+`"]`)
	wantDevice(t, last(t, everything(), survivor, about("", ws1)), "DeviceId", ws2, "status", "hit")
	on := func(id string) string { return row("da1", "Machine", hostOf(id, false), "DeviceId", id) }
	ip := evidenceRows("da1", ws1)["ip"]
	wantDevice(t, last(t, everything(), old, target, on(ws1), on(ws2), ip), "match", "alert", "DeviceId", ws2)
}

// Of several devices none is guessed, and it shows.
func TestSeveral(t *testing.T) {
	on := func(i int) string {
		id := fmt.Sprintf("%040x", i)
		return row("da1", "Machine", hostOf(id, false), "DeviceId", id)
	}
	ip := evidenceRows("da1", ws1)["ip"]
	records := []string{on(1), on(2), ip}
	e := last(t, everything(), records...)
	wantDevice(t, e, "match", "several", "status", "none", "DeviceId", nil)
	if got := e.m["DeviceInfo.candidates"]; !reflect.DeepEqual(got, []any{fmt.Sprintf("%040x", 1), fmt.Sprintf("%040x", 2)}) {
		t.Errorf("candidates %v", got)
	}
	records = nil
	for i := range 9 {
		records = append(records, on(i+1))
	}
	if got := last(t, everything(), append(records, ip)...).m["DeviceInfo.candidates"].([]any); len(got) != 5 {
		t.Errorf("%d candidates", len(got))
	}
	wantDevice(t, last(t, everything(), evidenceRows("nothing", ws1)["ip"]), "match", nil, "status", "none")
	wantDevice(t, last(t, everything(), row("x", "Odd", `{"A":{"MachineId":"`+ws1+`"},"B":[{"MachineId":"`+ws2+`"}]}`)), "match", "several")
	// Two objects with one $id: none is guessed.
	twice := row("y", "Process", `{"ImageFile":{"Host":{"$id":"3","MachineId":"`+ws1+`"}},"Other":{"$id":"3","MachineId":"`+ws2+`"},"Host":{"$ref":"3"}}`)
	if got := last(t, everything(), twice).m["DeviceInfo.DeviceId"]; got == ws2 {
		t.Errorf("the wrong device")
	}
}

// A row that knows only the name of its host gets the one device that has it, if it has reported
// lately.
func TestByName(t *testing.T) {
	report := func(id, name string) string { return deviceInfo(id, "DeviceName", name) }
	named := func(name string) string { return row("", "Ip", `{"Address":"203.0.113.9"}`, "DeviceName", name) }
	wantDevice(t, last(t, everything(), report(ws1, "web01.corp.example"), named("WEB01.corp.example")), "match", "name", "DeviceId", ws1, "status", "hit")
	wantDevice(t, last(t, everything(), report(ws1, "web01.corp.example"), named("web01")), "match", "name", "DeviceId", ws1)
	wantDevice(t, last(t, everything(), report(ws1, "web01"), named("web01.corp.example")), "match", "name", "DeviceId", ws1)
	wantDevice(t, last(t, everything(), report(ws1, "web01.corp.example"), named("web01.other.example")), "match", nil, "status", "none")
	wantDevice(t, last(t, everything(), report(ws1, "web01.a.example"), report(ws2, "web01.b.example"), named("web01")), "match", "several")
	wantDevice(t, last(t, everything(), report(ws1, "web01.a.example"), report(ws2, "web01.b.example"), named("web01.b.example")), "match", "name", "DeviceId", ws2)
	wantDevice(t, last(t, everything(), report(ws1, "web01"), report(ws1, "web02"), deviceInfo(ws1, "DeviceName", "web02", "Timestamp", at("11:50:00")), named("web01")), "match", nil)
	inside := row("", "Machine", `{"HostName":"WEB01","DnsDomain":"corp.example"}`)
	wantDevice(t, last(t, everything(), report(ws1, "web01.corp.example"), inside), "match", "name", "DeviceId", ws1)
	older := deviceInfo(ws1, "DeviceName", "web01", "Timestamp", "2026-02-01T00:00:00Z")
	wantDevice(t, last(t, everything(), older, named("web01")), "match", nil)
	wantDevice(t, last(t, everything(), report(ws1, "localhost"), named("localhost")), "match", nil)
	// Another tenant's device is not it.
	foreign := strings.Replace(report(ws1, "web01"), aTenant, "ffffffff-0000-4000-8000-000000000001", 1)
	wantDevice(t, last(t, everything(), foreign, named("web01")), "match", nil)
	// CloudResource rows, by the resource.
	const vm = "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/VM1"
	wantDevice(t, last(t, everything(), deviceInfo(ws1, "AzureResourceId", vm), row("", "CloudResource", `{"ResourceId":"`+strings.ToLower(vm)+`"}`)), "match", "name", "DeviceId", ws1)
}

// With by_user, a row with an account and no device gets the one device that the account is logged
// on to.
func TestByUser(t *testing.T) {
	user := row("", "User", `{"Name":"kim"}`, "AccountName", "Kim", "AccountSid", "S-1-5-21-1")
	wantDevice(t, last(t, everything(), deviceInfo(ws1), user), "match", nil)
	cfg := everything()
	cfg.ByUser = true
	wantDevice(t, last(t, cfg, deviceInfo(ws1), user), "match", "user", "DeviceId", ws1)
	wantDevice(t, last(t, cfg, deviceInfo(ws1), deviceInfo(ws2), user), "match", "several")
	wantDevice(t, last(t, cfg, deviceInfo(ws1, "LoggedOnUsers", `[{"UserName":"kim","Sid":"S-1-5-21-99"}]`), user), "match", nil)
	wantDevice(t, last(t, cfg, deviceInfo(ws1), deviceInfo(ws1, "Timestamp", at("11:50:00"), "LoggedOnUsers", "[]"), user), "match", nil)
}

// What the first minutes of triage ask.
func TestTriage(t *testing.T) {
	cfg := everything()
	cfg.Portal = "https://security.microsoft.com"
	report := deviceInfo(ws1, "RegistryDeviceTag", "pci", "DeviceManualTags", `["vip","pci"]`, "DeviceDynamicTags", `["laptops"]`)
	adapter := func(mac, ip, status string) string {
		return recordOf("DeviceNetworkInfo", "DeviceId", ws1, "Timestamp", at("11:30:00"), "MacAddress", mac, "NetworkAdapterStatus", status, "IPAddresses", `[{"IPAddress":"`+ip+`","SubnetPrefix":24}]`)
	}
	severe := func(alert, severity, when string) string {
		return recordOf("AlertEvidence", "Timestamp", when, "AlertId", alert, "EntityType", "File", "Severity", severity, "AdditionalFields", `{"Host":{"MachineId":"`+ws1+`"}}`)
	}
	e := last(t, cfg, report, adapter("001A2B3C4D5E", "10.0.0.5", "Up"), adapter("001A2B3C4D5F", "fe80::1", "Up"), adapter("FFFFFFFFFFFF", "10.9.9.9", "Down"),
		severe("old", "High", "2026-03-02T12:00:00Z"), severe("da1", "Medium", at("10:00:00")), severe("da1", "Medium", at("10:00:01")), severe("da2", "Low", at("11:00:00")), severe("da 3/x", "Informational", noon))
	for name, want := range map[string]any{"Tags": []any{"pci", "vip", "laptops"}, "DeviceManualTags": []any{"vip", "pci"}, "IPAddresses": []any{"10.0.0.5", "fe80::1"}, "MacAddresses": []any{"001A2B3C4D5E", "001A2B3C4D5F"},
		"alerts_24h": int64(3), "alerts_24h_severity": "Medium", "url": "https://security.microsoft.com/machines/v2/" + ws1 + "/overview?tid=" + aTenant} {
		if got := e.m["DeviceInfo."+name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got, want := e.m["alert_url"], "https://security.microsoft.com/alerts/da%203%2Fx?tid="+aTenant; got != want {
		t.Errorf("alert_url %v, want %v", got, want)
	}
	// Addresses of a newer report replace the older ones; addresses alone are no report.
	newer := strings.Replace(adapter("AAAAAAAAAAAA", "10.0.0.9", "Up"), at("11:30:00"), at("11:45:00"), 1)
	if got := last(t, cfg, report, adapter("001A2B3C4D5E", "10.0.0.5", "Up"), newer, about("", ws1)).m["DeviceInfo.IPAddresses"]; !reflect.DeepEqual(got, []any{"10.0.0.9"}) {
		t.Errorf("%v", got)
	}
}

// JSON text inside JSON text is opened, for the device as for the columns.
func TestHostInJSONTwice(t *testing.T) {
	e := last(t, everything(), deviceInfo(ws1), row("", "File", `"{\"Host\":{\"MachineId\":\"`+ws1+`\"}}"`))
	wantDevice(t, e, "match", "evidence", "DeviceId", ws1)
	if e.m["AdditionalFields.Host.MachineId"] != ws1 {
		t.Errorf("%v", e)
	}
}

// Ten thousand devices of one name do not make the index slow, and none of them is taken.
func TestCrowdedName(t *testing.T) {
	cfg := everything()
	cfg.CacheBytes = 64 << 20
	d := device.New(cfg)
	tr := transform.New(transform.Config{Devices: d})
	start := time.Now()
	for i := range 10_000 {
		d.Learn(aTenant, fmt.Appendf(nil, `{"DeviceId":"%040x","Timestamp":"%s","OSPlatform":"Linux","DeviceName":"same"}`, i+1, noon), true)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	wantDevice(t, run(t, tr, row("", "Ip", `{}`, "DeviceName", "same"))[0], "match", nil)
}

// doc.go says of every status and way of finding a device what it means.
func TestDocNamesEveryOutcome(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	stats := device.New(defaults()).Stats()
	for _, outcomes := range []map[string]int64{stats.Status, stats.Match} {
		if len(outcomes) < 5 {
			t.Errorf("only %v", outcomes)
		}
		for name := range outcomes {
			if !strings.Contains(string(text), "\n//\t"+name+" ") {
				t.Errorf("doc.go does not say what %s means", name)
			}
		}
	}
}
