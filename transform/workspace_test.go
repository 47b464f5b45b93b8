package transform_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// What a workspace adds to the columns of a table, and the stream says elsewhere or not at all.
const workspaceOwn = `"TenantId":"workspace-1","TimeGenerated":"2026-03-04T10:18:02.5Z","SourceSystem":"","Type":"`

// asWorkspace is a record of a table as a workspace exports it, asStream as the stream does.
func asWorkspace(table, columns string) string {
	return `{` + workspaceOwn + table + `",` + columns + `,"_Internal_WorkspaceResourceId":"/subscriptions/s/w"}`
}

func asStream(table, columns string) string {
	return `{"time":"2026-03-04T10:20:31Z","tenantId":"t1","operationName":"Publish","category":"AdvancedHunting-` + table + `","properties":{` + columns + `}}`
}

// without returns m without some of its members.
func without(m map[string]any, names string) map[string]any {
	m = maps.Clone(m)
	for _, name := range strings.Fields(names) {
		delete(m, name)
	}
	return m
}

var workspaceRecords = map[string]string{
	"DeviceProcessEvents": `"Timestamp":"2026-03-04T10:18:02.5Z","DeviceId":"aa11","DeviceName":"pc1.example","ActionType":"ProcessCreated","ReportId":4711,"ProcessId":"17","LogonId":12,` +
		`"IsProcessRemoteSession":0,"AdditionalFields":"{\"a\":{\"b.c\":1}}","ProcessCommandLine":"cmd /c \"x\"","FolderPath":"[C:]","Unheard":[{"x":1}]`,
	"AlertEvidence": `"Timestamp":"2026-03-04T10:18:02.5Z","AlertId":"da1_1","EntityType":"Process","FileSize":"77","AttackTechniques":"[\"PowerShell (T1059.001)\"]",` +
		`"AdditionalFields":{"ImageFile":{"$id":"2","Host":{"$id":"3","MachineId":"aa11"}},"Host":{"$ref":"3"}}`,
	"EmailEvents": `"Timestamp":"2026-03-04T10:18:02.5Z","NetworkMessageId":"n-1","ConfidenceLevel":"{\"Spam\":\"High\"}","UrlCount":3,"SenderIPv4":"192.0.2.7"`,
	"DeviceInfo":  `"Timestamp":"2026-03-04T10:18:02.5Z","DeviceId":"aa11","LoggedOnUsers":"[{\"UserName\":\"kim\"}]","IsAzureADJoined":"true","OSBuild":"22631","OSPlatform":"Windows11"`,
}

// A record that a Log Analytics workspace exports has the names and types of the stream's.
func TestWorkspaceRecords(t *testing.T) {
	const own = "tenant_id exported_at event_id TenantId TimeGenerated SourceSystem Type Internal_WorkspaceResourceId _Internal_WorkspaceResourceId"
	for table, columns := range workspaceRecords {
		t.Run(table, func(t *testing.T) {
			for _, format := range []string{"flat", "splunk", "elastic", "ecs", "ocsf"} {
				cfg := transform.Config{Format: format, EventID: true, KeepNulls: format == "flat"}
				events := run(t, transform.New(cfg), good(1), `{"records":[`+asStream(table, columns)+`,`+asWorkspace(table, columns)+`]}`, good(2))
				if len(events) != 4 {
					t.Fatalf("%s: %d events: %v", format, len(events), events)
				}
				stream, got := events[1], events[2]
				if got.table != stream.table || !got.time.Equal(stream.time) {
					t.Errorf("%s: %s %v, want %s %v", format, got.table, got.time, stream.table, stream.time)
				}
				switch format {
				case "flat":
					if got.m["TenantId"] != "workspace-1" || got.m["Type"] != table || got.m["tenant_id"] != nil || got.m["table"] != table {
						t.Error(got)
					}
					if g, w := without(got.m, own), without(stream.m, own); !reflect.DeepEqual(g, w) {
						t.Errorf("got %v\nwant %v", g, w)
					}
				case "splunk":
					if got.m["category"] != "AdvancedHunting-"+table || got.m["splunk_sourcetype"] != nil {
						t.Error(got)
					}
					g, _ := got.m["properties"].(map[string]any)
					w, _ := stream.m["properties"].(map[string]any)
					if g = without(g, own); len(w) == 0 || !reflect.DeepEqual(g, w) {
						t.Errorf("got %v\nwant %v", g, w)
					}
				case "elastic":
					var g, w struct {
						Category   string
						Properties map[string]any
					}
					if err := json.Unmarshal([]byte(got.m["message"].(string)), &g); err != nil {
						t.Fatal(err)
					}
					if err := json.Unmarshal([]byte(stream.m["message"].(string)), &w); err != nil {
						t.Fatal(err)
					}
					if g.Properties = without(g.Properties, own); !reflect.DeepEqual(g, w) || !reflect.DeepEqual(got.m["tags"], stream.m["tags"]) {
						t.Errorf("got %v\nwant %v", got, stream)
					}
				case "ecs":
					for _, name := range []string{"event", "process", "host", "email", "threat", "file"} {
						g, _ := got.m[name].(map[string]any)
						w, _ := stream.m[name].(map[string]any)
						const own = "id hash original ingested created"
						if g, w = without(g, own), without(w, own); !reflect.DeepEqual(g, w) {
							t.Errorf("%s: got %v\nwant %v", name, g, w)
						}
					}
				case "ocsf":
					for _, name := range []string{"class_uid", "activity_id", "severity_id", "device", "process", "actor", "email", "evidences", "finding_info", "message"} {
						if !reflect.DeepEqual(got.m[name], stream.m[name]) {
							t.Errorf("%s: got %v\nwant %v", name, got.m[name], stream.m[name])
						}
					}
				}
			}
		})
	}
	// Without TimeGenerated, or of a table that is none of Advanced Hunting, it stays what it is.
	for body, table := range map[string]string{
		`{"Type":"DeviceEvents","ProcessId":"17"}`:                                           "unknown",
		`{"Type":"Syslog","TimeGenerated":"2026-03-04T10:18:02Z","ProcessId":"17"}`:          "Syslog",
		`{"Type":"DeviceEvents","TimeGenerated":"x","category":"Other","ProcessId":"17"}`:    "Other",
		`{"Type":["DeviceEvents"],"TimeGenerated":"2026-03-04T10:18:02Z","ProcessId":"17"}`:  "unknown",
		`{"Type":"deviceevents","TimeGenerated":"2026-03-04T10:18:02Z","ProcessId":"17"}`:    "unknown",
		`{"Type":"DeviceEvents_CL","TimeGenerated":"2026-03-04T10:18:02Z","ProcessId":"17"}`: "DeviceEvents_CL",
	} {
		if e := one(t, transform.Config{}, body); e.table != table || e.m["ProcessId"] != "17" {
			t.Errorf("%s: %v", body, e)
		}
	}
	// Where Timestamp is missing, TimeGenerated is the event's time. The id is of all members, as
	// it always was.
	e := one(t, transform.Config{EventID: true}, asWorkspace("DeviceEvents", `"ProcessId":"17"`))
	if e.time.Nanosecond() != 500_000_000 || e.m["ProcessId"] != int64(17) || e.m["event_id"] != "ef3d2c95c2621a6a8b71ebb8dc3363c0" {
		t.Error(e)
	}
}

// The device of an alert is found among what the same workspace exports, and no other.
func TestWorkspaceDevices(t *testing.T) {
	tr := transform.New(transform.Config{Devices: device.New(defaults())})
	evidence := asWorkspace("AlertEvidence", workspaceRecords["AlertEvidence"])
	events := run(t, tr, good(1), asWorkspace("DeviceInfo", workspaceRecords["DeviceInfo"]), evidence, strings.Replace(evidence, "workspace-1", "workspace-2", 1))
	got := make(map[any]event)
	for _, e := range events {
		if e.table == "AlertEvidence" {
			got[e.m["TenantId"]] = e
		}
	}
	if e := got["workspace-1"]; e.m["DeviceInfo.status"] != "hit" || e.m["DeviceInfo.OSPlatform"] != "Windows11" || e.m["DeviceInfo.match"] != "evidence" {
		t.Error(events)
	}
	if e := got["workspace-2"]; e.m["DeviceInfo.status"] != "unknown" {
		t.Error(events)
	}
}

// An alert has one type a name, from Defender for Cloud and as Microsoft Sentinel exports it.
func TestAlertsOfTwoProducts(t *testing.T) {
	const shared = `"VendorName":"Microsoft","AlertType":"VM_X","SystemAlertId":"2517_x","TimeGenerated":"2026-03-04T10:18:02Z","Status":"New","ConfidenceLevel":"High","Description":"[not a list",`
	cloud := `{` + shared + `"IsIncident":false,"ConfidenceScore":0.5,"RemediationSteps":["1","2"],"ExtendedProperties":{"User Name":"kim","a.b":"c"},"Entities":[{"$id":"4","HostName":"vm1","Type":"host"},{"$id":"5","Host":{"$ref":"4"},"Type":"account"}],"ExtendedLinks":[{"Href":"x"}]}`
	sentinel := `{` + shared + `"IsIncident":0,"ConfidenceScore":0.5,"RemediationSteps":"[\r\n  \"1\",\"2\"]","ExtendedProperties":"{\"User Name\":\"kim\",\"a.b\":\"c\"}","Entities":"[{\"$id\":\"4\",\"HostName\":\"vm1\",\"Type\":\"host\"},{\"$id\":\"5\",\"Host\":{\"$ref\":\"4\"},\"Type\":\"account\"}]","ExtendedLinks":"[{\"Href\":\"x\"}]","Type":"SecurityAlert"}`
	for _, format := range []string{"flat", "ecs", "ocsf"} {
		for _, refs := range []bool{false, true} {
			cfg := transform.Config{Format: format, ResolveRefs: refs}
			events := run(t, transform.New(cfg), good(1), cloud, sentinel, good(2))
			if len(events) != 4 || events[1].table != "SecurityAlert" || events[2].table != "SecurityAlert" {
				t.Fatal(events)
			}
			// Type is the workspace's own, and flat writes it at the top.
			got, want := withoutDeep(events[2].m, "Type", "type"), withoutDeep(events[1].m, "Type", "type")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\ngot  %v\nwant %v", format, got, want)
			}
			if format == "flat" && (got["IsIncident"] != false || got["ExtendedProperties.User Name"] != "kim" || !reflect.DeepEqual(got["RemediationSteps"], []any{"1", "2"}) || got["Status"] != "New") {
				t.Error(got)
			}
		}
	}
	// What does not fit is kept as text under a name of its own.
	e := one(t, transform.Config{}, `{`+shared+`"IsIncident":"perhaps","RemediationSteps":"1. Do this","Entities":"[cut","ExtendedProperties":"","ConfidenceScore":"n/a"}`)
	if e.m["IsIncident_raw"] != "perhaps" || e.m["RemediationSteps_raw"] != "1. Do this" || e.m["Entities_raw"] != "[cut" || e.m["ConfidenceScore_raw"] != "n/a" ||
		e.m["IsIncident"] != nil || e.m["RemediationSteps"] != nil || e.m["Entities"] != nil {
		t.Error(e)
	}
	// Records of other tables have members of their own.
	e = one(t, transform.Config{}, `{"category":"Other","IsIncident":0,"Entities":"[{\"a\":1}]"}`)
	if e.m["IsIncident"] != int64(0) || e.m["Entities"] != `[{"a":1}]` {
		t.Error(e)
	}
}

// withoutDeep returns v without members of some names, in objects inside too.
func withoutDeep(v map[string]any, names ...string) map[string]any {
	out := without(v, strings.Join(names, " "))
	for k, in := range out {
		if m, ok := in.(map[string]any); ok {
			out[k] = withoutDeep(m, names...)
		}
	}
	return out
}
