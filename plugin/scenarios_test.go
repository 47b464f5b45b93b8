package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// A scenario is what a SOC may meet. Each has a tenant of its own, so all of them run in one host.
type scenario struct {
	name    string
	records []string           // in order, each a message of its own; TENANT stands for the tenant
	want    map[string]outcome // of the row of AlertEvidence with this AlertId
	onlyHub bool               // records of other tables than DeviceInfo and AlertEvidence, whose order matters
}

// An outcome has values of DeviceInfo.*; nil is for fields that must not be there.
type outcome map[string]any

func (s scenario) tenant(i int) string { return fmt.Sprintf("5ce0a710-0000-4000-8000-%012d", i+1) }

const (
	idA = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a101"
	idB = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b202"
	idC = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c303"
)

// rowOf is a record of a table with properties as JSON, without braces; the event is of the clock
// time of an invented day, and was exported a minute later.
func rowOf(table, clock, properties string) string {
	at, err := time.Parse("15:04", clock)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"time":"2026-11-20T%s:00Z","tenantId":"TENANT","operationName":"Publish","category":"AdvancedHunting-%s","Tenant":"DefaultTenant",`+
		`"properties":{"Timestamp":"2026-11-20T%s:00.1234567Z",%s}}`, at.Add(time.Minute).Format("15:04"), table, clock, properties)
}

// fullOf is a full report.
func fullOf(clock, id, name, more string) string {
	return rowOf("DeviceInfo", clock, fmt.Sprintf(`"DeviceId":"%s","DeviceName":"%s","OSPlatform":"Windows11","MachineGroup":"Servers"%s`, id, name, more))
}

// evidence is a row of an alert at noon.
func evidence(alert, entity, id, additional, more string) string {
	text, _ := json.Marshal(additional)
	device := "null"
	if id != "" {
		device = `"` + id + `"`
	}
	return rowOf("AlertEvidence", "12:00", fmt.Sprintf(`"AlertId":"%s","EntityType":"%s","Title":"T","DeviceId":%s,"AdditionalFields":%s%s`, alert, entity, device, text, more))
}

func machineRow(alert, id, name string) string {
	return evidence(alert, "Machine", id, `{"HostName":"`+strings.Split(name, ".")[0]+`","OSFamily":"Windows","MachineId":"`+id+`"}`, `,"DeviceName":"`+name+`"`)
}

func inHost(alert, id string) string {
	return evidence(alert, "File", "", `{"Name":"a.exe","Host":{"$id":"2","MachineId":"`+id+`"}}`, "")
}

func namedRow(alert, name string) string {
	return evidence(alert, "Process", "", `{}`, `,"DeviceName":"`+name+`"`)
}

func ipRow(alert string) string { return evidence(alert, "Ip", "", `{"Address":"203.0.113.9"}`, "") }

// invented are scenarios of our own; among them one like each of the samples.
func invented() []scenario {
	hit := func(id string, more ...any) outcome {
		o := outcome{"DeviceId": id, "status": "hit"}
		for i := 0; i < len(more); i += 2 {
			o[more[i].(string)] = more[i+1]
		}
		return o
	}
	none := outcome{"DeviceId": nil, "match": nil, "status": "none", "DeviceName": nil}
	several := func(ids ...any) outcome {
		return outcome{"match": "several", "status": "none", "DeviceId": nil, "DeviceName": nil, "candidates": ids}
	}
	const vm = "/subscriptions/5/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1"
	upper := strings.ToUpper(idA)
	guid := "0F8FAD5B-D9CB-469F-A165-70867728950E"
	return []scenario{
		// As the samples.
		{"nobody has reported the device", []string{machineRow("1", idA, "ws.corp.example")},
			map[string]outcome{"1": {"status": "unknown", "match": "row", "DeviceName": "ws.corp.example", "OSFamily": "Windows", "OSPlatform": nil, "age_s": nil}}, false},
		{"the target of a merge is known by evidence only", []string{fullOf("11:00", idA, "rich.corp", `,"MergedToDeviceId":"`+idB+`"`), machineRow("0", idB, "thin.corp"), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "DeviceName", "rich.corp", "MachineGroup", "Servers")}, false},
		{"values were cleared", []string{fullOf("09:00", idA, "iso.corp", `,"MitigationStatus":"Isolated","RegistryDeviceTag":"pci","DeviceManualTags":"[\"vip\"]","LoggedOnUsers":"[{\"UserName\":\"kari\"}]","IsExcluded":true`),
			fullOf("11:00", idA, "iso.corp", `,"MitigationStatus":null,"RegistryDeviceTag":"","DeviceManualTags":"[]","LoggedOnUsers":"[]","IsExcluded":false`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "MitigationStatus", nil, "RegistryDeviceTag", nil, "DeviceManualTags", nil, "Tags", nil, "LoggedOnUsers", nil, "IsExcluded", false, "age_s", 3600.0)}, false},
		{"values of a report that came late", []string{fullOf("11:00", idA, "iso.corp", `,"MitigationStatus":null`), fullOf("09:00", idA, "old.corp", `,"MitigationStatus":"Isolated"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "MitigationStatus", nil, "DeviceName", "iso.corp", "age_s", 3600.0)}, false},
		{"ids that are none", []string{fullOf("11:00", strings.Repeat("0", 40), "zero.corp", ""), fullOf("11:00", "null", "null.corp", ""), fullOf("11:00", idA, "right.corp", ""),
			evidence("1", "File", "null", `{"Host":{"MachineId":"`+idA+`"}}`, ""), evidence("2", "File", "{00000000-0000-0000-0000-000000000000}", `{"Host":{"MachineId":"`+idA+`"}}`, ""),
			evidence("3", "File", "0", `{"Host":{"MachineId":"N/A"}}`, ""), evidence("4", "File", " ", `{"Host":{"MachineId":" - "}}`, ""), evidence("5", "File", "None", `{"Host":{"MachineId":"0x0"}}`, "")},
			map[string]outcome{"1": hit(idA, "match", "evidence"), "2": hit(idA, "match", "evidence"), "3": none, "4": none, "5": none}, false},
		{"by name", []string{fullOf("11:00", idA, "dc01.corp.example", ""), namedRow("1", "DC01"), namedRow("2", "dc01.corp.example."), namedRow("3", "dc01.other.example"),
			evidence("4", "Machine", "", `{"HostName":"dc01","DnsDomain":"corp.example"}`, ""), evidence("5", "File", "", `{"Host":{"NetBiosName":"DC01"}}`, "")},
			map[string]outcome{"1": hit(idA, "match", "name"), "2": hit(idA, "match", "name"), "3": none, "4": hit(idA, "match", "name"), "5": hit(idA, "match", "name")}, false},
		{"JSON in JSON", []string{fullOf("11:00", idA, "ws.corp", ""), evidence("1", "File", "", `"{\"Host\":{\"MachineId\":\"`+idA+`\"}}"`, ""),
			evidence("2", "File", "", `{"Host":"{\"MachineId\":\"`+idA+`\"}"}`, ""), evidence("3", "File", "", `[{"Host":{"MachineId":"`+idA+`"}}]`, ""),
			evidence("4", "File", "", `[{"Host":{"MachineId":"`+idA+`"}},{"Host":{"MachineId":"`+idB+`"}}]`, "")},
			map[string]outcome{"1": hit(idA, "match", "evidence"), "2": hit(idA, "match", "evidence"), "3": hit(idA, "match", "evidence"), "4": several(idA, idB)}, false},

		// Others.
		{"a renamed device", []string{fullOf("09:00", idA, "old.corp.example", ""), fullOf("11:00", idA, "new.corp.example", ""), namedRow("1", "old"), namedRow("2", "new")},
			map[string]outcome{"1": none, "2": hit(idA, "match", "name", "DeviceName", "new.corp.example")}, false},
		{"a re-imaged device of the same name", []string{fullOf("08:00", idA, "ws.corp.example", ""), fullOf("11:00", idB, "ws.corp.example", ""), namedRow("1", "ws"), inHost("2", idA), inHost("3", idB)},
			map[string]outcome{"1": several(idA, idB), "2": hit(idA), "3": hit(idB)}, false},
		{"a merge over three", []string{fullOf("09:00", idA, "a", `,"MergedToDeviceId":"`+idB+`"`), fullOf("09:30", idB, "b", `,"MergedToDeviceId":"`+idC+`"`), fullOf("10:00", idC, "c", ""), inHost("1", idA)},
			map[string]outcome{"1": hit(idC, "DeviceName", "c")}, false},
		{"merges in a circle", []string{fullOf("09:00", idA, "a", `,"MergedToDeviceId":"`+idB+`"`), fullOf("09:30", idB, "b", `,"MergedToDeviceId":"`+idA+`"`), inHost("1", idA), inHost("2", idB)},
			map[string]outcome{"1": {"status": "hit"}, "2": {"status": "hit"}}, false},
		{"a merge that ended", []string{fullOf("09:00", idA, "a", `,"MergedToDeviceId":"`+idB+`"`), fullOf("09:30", idB, "b", ""), fullOf("10:00", idA, "a", `,"MergedToDeviceId":""`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "DeviceName", "a")}, false},
		{"a merge that the survivor tells", []string{fullOf("09:00", idA, "a", `,"MergedToDeviceId":""`), fullOf("10:00", idB, "b", `,"MergedDeviceIds":"[\"`+upper+`\"]"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idB, "DeviceName", "b")}, false},
		{"an alert of the old id and the new one", []string{fullOf("09:00", idA, "a", `,"MergedToDeviceId":"`+idB+`"`), fullOf("09:30", idB, "b", ""), machineRow("1", idA, "a"), machineRow("1", idB, "b"), ipRow("1")},
			map[string]outcome{"1": hit(idB)}, false},
		{"ids in any case", []string{fullOf("11:00", upper, "a", ""), fullOf("11:00", guid, "g", ""), inHost("1", idA), evidence("2", "Machine", strings.ToLower(guid), `{}`, ""), evidence("3", "File", " "+upper+" ", `{}`, "")},
			map[string]outcome{"1": hit(idA), "2": hit(strings.ToLower(guid)), "3": hit(idA, "match", "row")}, false},
		{"a device with an Entra id only", []string{fullOf("11:00", "", "x", `,"AadDeviceId":"`+guid+`"`), evidence("1", "File", "", `{"Host":{"AadDeviceId":"`+guid+`"}}`, "")},
			map[string]outcome{"1": none}, false},
		{"evidence from before the report", []string{fullOf("13:00", idA, "a", ""), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "age_s", -3600.0)}, false},
		{"a heartbeat behind a full report", []string{fullOf("10:00", idA, "a", `,"PublicIP":"203.0.113.1"`), rowOf("DeviceInfo", "11:00", `"DeviceId":"`+idA+`","OSPlatform":null,"MachineGroup":null,"PublicIP":"203.0.113.2"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "age_s", 7200.0, "PublicIP", "203.0.113.2", "MachineGroup", "Servers")}, false},
		{"a heartbeat alone", []string{rowOf("DeviceInfo", "11:00", `"DeviceId":"`+idA+`","OSPlatform":"","PublicIP":"203.0.113.2"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "PublicIP", "203.0.113.2")}, false},
		{"users as null and as text", []string{fullOf("09:00", idA, "a", `,"LoggedOnUsers":"[{\"UserName\":\"kari\"}]"`), fullOf("10:00", idA, "a", `,"LoggedOnUsers":"null"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "LoggedOnUsers", nil)}, false},
		{"two devices of an alert", []string{fullOf("11:00", idA, "a", ""), fullOf("11:00", idB, "b", ""), machineRow("1", idA, "a"), machineRow("1", idB, "b"), ipRow("1")},
			map[string]outcome{"1": several(idA, idB)}, false},
		{"an alert with a leading host", []string{fullOf("11:00", idA, "a", ""), fullOf("11:00", idB, "b", ""), machineRow("0", idA, "a"),
			evidence("1", "File", "", `{"Host":{"MachineId":"`+idB+`","LeadingHost":true}}`, ""), evidence("1", "File", "", `{"Host":{"MachineId":"`+idA+`"}}`, ""), ipRow("1")},
			map[string]outcome{"1": hit(idB)}, false},
		{"a row that names another host than its alert", []string{fullOf("11:00", idA, "ws-a.corp.example", ""), machineRow("1", idA, "ws-a.corp.example"), namedRow("1", "srv-x.corp.example")},
			map[string]outcome{"1": none}, false},
		{"a row that names the host of its alert", []string{fullOf("06:00", idB, "ws-a.b.example", ""), fullOf("11:00", idA, "ws-a.corp.example", ""), machineRow("1", idA, "ws-a.corp.example"), namedRow("1", "WS-A")},
			map[string]outcome{"1": hit(idA, "match", "alert")}, false},
		{"a row of an alert whose device nobody reported", []string{machineRow("1", idA, "ws-a"), namedRow("1", "ws-a.corp.example")},
			map[string]outcome{"1": {"match": "alert", "status": "unknown", "DeviceId": idA}}, false},
		{"a virtual machine", []string{fullOf("11:00", idA, "vm1", `,"AzureResourceId":"`+vm+`/"`), evidence("1", "CloudResource", "", `{"ResourceId":"`+strings.ToUpper(vm)+`"}`, ""),
			evidence("2", "CloudResource", "", `{}`, `,"CloudResource":"`+vm+`"`), evidence("3", "CloudResource", "", `{}`, `,"ResourceID":"`+vm+`2"`)},
			map[string]outcome{"1": hit(idA, "match", "name"), "2": hit(idA, "match", "name"), "3": none}, false},
		{"nulls as text in a report", []string{fullOf("11:00", idA, "null", `,"MergedToDeviceId":"null","AzureResourceId":"None"`), inHost("1", idA), namedRow("2", "null")},
			map[string]outcome{"1": hit(idA), "2": none}, false},
		{"tags as lists", []string{fullOf("11:00", idA, "a", `,"RegistryDeviceTag":"pci","DeviceManualTags":"[\"vip\",\"pci\"]","DeviceDynamicTags":["laptops"]`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "Tags", []any{"pci", "vip", "laptops"}, "DeviceManualTags", []any{"vip", "pci"}, "DeviceDynamicTags", []any{"laptops"})}, false},
		{"adapters", []string{rowOf("DeviceNetworkInfo", "10:59", `"DeviceId":"`+idA+`","MacAddress":"001A2B3C4D5E","NetworkAdapterStatus":"Up","IPAddresses":"[{\"IPAddress\":\"::ffff:10.0.0.5\"},{\"IPAddress\":\"fe80::1\"}]"`),
			fullOf("11:00", idA, "a", ""), rowOf("DeviceNetworkInfo", "10:59", `"DeviceId":"`+upper+`","MacAddress":"00-1A-2B-3C-4D-5F","NetworkAdapterStatus":"Up","IPAddresses":[{"IPAddress":"10.0.0.6"}]`),
			rowOf("DeviceNetworkInfo", "10:59", `"DeviceId":"`+idA+`","MacAddress":"FFFFFFFFFFFF","NetworkAdapterStatus":"Down","IPAddresses":"[{\"IPAddress\":\"10.9.9.9\"}]"`), inHost("1", idA)},
			map[string]outcome{"1": hit(idA, "IPAddresses", []any{"::ffff:10.0.0.5", "fe80::1", "10.0.0.6"}, "MacAddresses", []any{"001A2B3C4D5E", "00-1A-2B-3C-4D-5F"})}, true},
		{"alerts of a day", []string{fullOf("11:00", idA, "a", ""), rowOf("AlertEvidence", "10:00", `"AlertId":"0","EntityType":"Machine","Title":"T","Severity":"High","DeviceId":"`+idA+`","AdditionalFields":"{}"`),
			evidence("1", "File", "", `{"Host":{"MachineId":"`+idA+`"}}`, `,"Severity":"Low"`)},
			map[string]outcome{"1": hit(idA, "alerts_24h", 2.0, "alerts_24h_severity", "High", "url", "https://security.microsoft.com/machines/v2/"+idA+"/overview?tid=TENANT")}, true},
		{"a user on one device", []string{fullOf("11:00", idA, "a", `,"LoggedOnUsers":"[{\"UserName\":\"kari\",\"Sid\":\"S-1-5-21-1\"}]"`), fullOf("11:00", idB, "b", `,"LoggedOnUsers":"[{\"UserName\":\"lee\",\"Sid\":\"S-1-5-21-2\"}]"`),
			fullOf("11:00", idC, "c", `,"LoggedOnUsers":"[{\"UserName\":\"lee\",\"Sid\":\"S-1-5-21-2\"}]"`),
			evidence("1", "User", "", `{}`, `,"AccountName":"Kari","AccountSid":"S-1-5-21-1"`), evidence("2", "User", "", `{}`, `,"AccountName":"lee"`), evidence("3", "User", "", `{}`, `,"AccountName":"kari","AccountSid":"S-1-5-21-9"`)},
			map[string]outcome{"1": hit(idA, "match", "user"), "2": several(idB, idC), "3": none}, false},
		{"an old device", []string{strings.ReplaceAll(fullOf("11:00", idA, "a", ""), "2026-11-20", "2026-11-10"), inHost("1", idA), namedRow("2", "a")},
			map[string]outcome{"1": {"DeviceId": idA, "status": "stale", "age_s": 867600.0}, "2": none}, false},
	}
}

// sampled are the files of samples/devices with what their index says is right, or nothing where
// the samples are not.
func sampled(t *testing.T) (list []scenario) {
	dir := "../../shared/samples/devices"
	names, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	device := func(n string) string { return "00d00000000000000000000000000000000004" + n }
	right := map[string]map[string]outcome{
		"01": {"c01": {"status": "unknown", "match": "row", "DeviceName": "ws.corp.example", "OSFamily": "Windows", "OSVersion": "10.0"}},
		"03": {"c03": {"status": "hit", "DeviceId": device("be"), "DeviceName": "rich.corp", "Model": "Latitude"}},
		"04": {"c04": {"status": "hit", "MitigationStatus": nil, "RegistryDeviceTag": nil, "DeviceManualTags": nil, "Tags": nil, "MachineGroup": "Servers"}},
		"05": {"c05": {"status": "hit", "LoggedOnUsers": nil, "age_s": 300.0}},
		"07": {"c07": {"status": "hit", "DeviceName": "stream-new.corp"}},
		"08": {"c08a": {"status": "none", "DeviceId": nil}, "c08b": {"status": "none", "DeviceId": nil}, "c08c": {"status": "hit", "match": "evidence", "DeviceId": device("bc"), "DeviceName": "right.corp"},
			"c08d": {"status": "hit", "match": "evidence", "DeviceId": device("bc")}},
		"09": {"c09": {"status": "hit", "match": "name", "DeviceId": device("b9")}},
		"11": {"c11a": {"match": "evidence", "DeviceId": device("b3")}, "c11b": {"match": "evidence", "DeviceId": device("b3")}, "c11c": {"match": "evidence", "DeviceId": device("b3")}},
	}
	for _, path := range names {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), "11110000-0000-4000-8000-000000000001", "TENANT"))
		want := right[filepath.Base(path)[:2]]
		if want == nil {
			t.Errorf("%s: what is right is not known here", path)
		}
		var file map[string]json.RawMessage
		if err := json.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		s := scenario{name: filepath.Base(path), want: want}
		for _, part := range []json.RawMessage{text, file["then hub"], file["then hub 2"]} {
			var envelope struct{ Records []json.RawMessage }
			_ = json.Unmarshal(part, &envelope)
			for _, r := range envelope.Records {
				compact, _ := json.Marshal(r)
				s.records = append(s.records, string(compact))
			}
		}
		list = append(list, s)
	}
	return list
}

// checkScenarios compares the last row of each alert with what is right.
func checkScenarios(t *testing.T, list []scenario, r run) {
	t.Helper()
	got := make(map[string]map[string]any) // by tenant and alert
	for _, e := range r.events {
		var m map[string]any
		if err := json.Unmarshal(e.Record, &m); err != nil {
			t.Fatal(err)
		}
		if m["table"] == "AlertEvidence" {
			key := fmt.Sprint(m["tenant_id"], " ", m["AlertId"])
			if old := got[key]; old != nil && old["EntityType"] != "Machine" && m["EntityType"] == "Machine" {
				continue // the row in question is not of a Machine where its alert has several
			}
			got[key] = m
		}
	}
	for i, s := range list {
		for alert, want := range s.want {
			m := got[s.tenant(i)+" "+alert]
			if m == nil {
				t.Errorf("%s: no row of alert %s", s.name, alert)
				continue
			}
			for name, value := range want {
				if text, ok := value.(string); ok {
					value = strings.ReplaceAll(text, "TENANT", s.tenant(i))
				}
				if have := m["DeviceInfo."+name]; !reflect.DeepEqual(have, value) {
					t.Errorf("%s: alert %s: DeviceInfo.%s is %v, want %v\n%v", s.name, alert, name, have, value, m)
				}
			}
		}
	}
}

// rowsOf is how many rows of AlertEvidence are in the scenarios.
func rowsOf(list []scenario) (n int) {
	for _, s := range list {
		n += strings.Count(strings.Join(s.records, "\n"), `"AdvancedHunting-AlertEvidence"`)
	}
	return n
}

// From a hub, in the order of the records.
func TestScenariosFromAHub(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	list := append(invented(), sampled(t)...)
	for i, s := range list {
		for _, record := range s.records {
			send(t, h, []byte(`{"records":[`+strings.ReplaceAll(record, "TENANT", s.tenant(i))+`]}`))
		}
	}
	n := rowsOf(list)
	r := runHost(t, append([]string{"-seconds", "120", "-records", fmt.Sprint(n)}, settings(h, "tables=AlertEvidence", "device_info.by_user=on")...)...).ok(t)
	checkScenarios(t, list, r)
}

// From blobs: each table has its container, and evidence may be read before any report.
func TestScenariosFromBlobs(t *testing.T) {
	t.Parallel()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	account.CreateContainer(deviceContainer)
	account.CreateContainer(evidenceContainer)
	list := append(invented(), sampled(t)...)
	kept := list[:0:0]
	for _, s := range list {
		if !s.onlyHub {
			kept = append(kept, s)
		}
	}
	for i, s := range kept {
		for _, record := range s.records {
			container := evidenceContainer
			if strings.Contains(record, `"AdvancedHunting-DeviceInfo"`) {
				container = deviceContainer
			}
			name := strings.Replace(hourBlob(), deviceTenant, s.tenant(i), 1)
			account.Append(container, name, []byte(strings.ReplaceAll(record, "TENANT", s.tenant(i))+"\r\n"))
		}
	}
	r := runHost(t, "-seconds", "120", "-records", fmt.Sprint(rowsOf(kept)), "-set", "blob.connection_string="+account.ConnectionString(), "-set", "blob.start=earliest", "-set", "tables=AlertEvidence", "-set", "device_info.by_user=on").ok(t)
	checkScenarios(t, kept, r)
}

// From the machines API beside a hub: an answer without lastSeen counts for no more than a report
// of now. Null ids are no devices. A device that was merged is the one that it was merged into.
func TestScenariosFromTheAPI(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	now := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.RFC3339) }
	api := startSlowMachines(t, deviceTenant, 0,
		`{"id":"`+idA+`","computerDnsName":"api-old.corp","osPlatform":"Windows11","lastSeen":null,"riskScore":"High"}`,
		`{"id":"`+strings.Repeat("0", 40)+`","computerDnsName":"zero.corp","osPlatform":"Windows11","lastSeen":"`+now(-time.Hour)+`"}`,
		`{"id":null,"computerDnsName":"null.corp","osPlatform":"Windows11"}`,
		`{"id":"`+idB+`","mergedIntoMachineId":"`+strings.ToUpper(idC)+`","computerDnsName":"b.corp","osPlatform":"Windows11","lastSeen":"`+now(-time.Hour)+`"}`,
		`{"id":"`+idC+`","computerDnsName":"c.corp.example","osPlatform":"Windows11","lastSeen":"`+now(-time.Hour)+`","ipAddresses":[{"ipAddress":"10.0.0.7","macAddress":"001A2B3C4D5E","operationalStatus":"Up"}]}`,
	)
	row := func(seq int, properties string) []byte {
		r := rowOf("AlertEvidence", "12:00", fmt.Sprintf(`"Seq":%d,"AlertId":"a%d","EntityType":"File","Title":"T",%s`, seq, seq, properties))
		r = strings.ReplaceAll(strings.ReplaceAll(r, "TENANT", deviceTenant), "2026-11-20T12:00:00.1234567Z", now(time.Minute))
		return []byte(`{"records":[` + r + `]}`)
	}
	report := strings.ReplaceAll(fullOf("11:00", idA, "stream-new.corp", ""), "TENANT", deviceTenant)
	report = strings.ReplaceAll(strings.ReplaceAll(report, "2026-11-20T11:00:00.1234567Z", now(10*time.Minute)), "2026-11-20T11:01:00Z", now(10*time.Minute))
	send(t, h, []byte(`{"records":[`+report+`]}`), row(1, `"DeviceId":"`+idA+`"`), row(2, `"DeviceId":"`+strings.Repeat("0", 40)+`"`), row(3, `"DeviceId":"`+idB+`"`),
		row(4, `"DeviceName":"C.corp.example"`), row(5, `"DeviceId":"`+strings.Repeat("d4", 20)+`"`))
	r := runHost(t, append([]string{"-seconds", "120", "-records", "5"}, settings(h, append(api, "tables=AlertEvidence", "device_info.wait=30s")...)...)...).ok(t)
	got := deviceFields(t, r)
	for seq, want := range map[int]outcome{
		1: {"status": "hit", "DeviceName": "stream-new.corp", "RiskScore": "High"},
		2: {"status": "none", "DeviceId": nil},
		3: {"status": "hit", "DeviceId": idC, "DeviceName": "c.corp.example"},
		5: {"status": "unknown", "DeviceName": nil},
	} {
		for name, value := range want {
			if have := got[seq]["DeviceInfo."+name]; !reflect.DeepEqual(have, value) {
				t.Errorf("row %d: DeviceInfo.%s is %v, want %v\n%v", seq, name, have, value, got[seq])
			}
		}
	}
}

// The rest of an alert may come from another partition of the hub, a little later.
func TestAlertFromTwoPartitions(t *testing.T) {
	t.Parallel()
	h := startHub(t, 2)
	client, err := kgo.NewClient(append(h.ClientOpts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce := func(partition int32, record string) {
		t.Helper()
		body := []byte(`{"records":[` + strings.ReplaceAll(record, "TENANT", deviceTenant) + `]}`)
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: hub, Partition: partition, Value: body}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, ipRow("a0")) // nothing else of its alert comes
	produce(0, ipRow("a1"))
	produce(1, machineRow("a1", idA, "ws-a"))
	produce(1, fullOf("11:00", idA, "ws-a", ""))
	r := runHost(t, append([]string{"-seconds", "120", "-records", "3"}, settings(h, "tables=AlertEvidence")...)...).ok(t)
	got := make(map[string]any)
	for _, e := range r.events {
		var m map[string]any
		if err := json.Unmarshal(e.Record, &m); err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprint(m["AlertId"], " ", m["EntityType"])] = fmt.Sprint(m["DeviceInfo.match"], " ", m["DeviceInfo.status"])
	}
	if want := map[string]any{"a0 Ip": "<nil> none", "a1 Ip": "alert hit", "a1 Machine": "row hit"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
