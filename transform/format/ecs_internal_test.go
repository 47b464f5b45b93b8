package format

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// asECS returns the event of one record, as what a JSON decoder makes of it, numbers as they are.
func asECS(t testing.TB, raw []byte, own Own) map[string]any {
	t.Helper()
	e, err := newECS()
	if err != nil {
		t.Fatal(err)
	}
	s := &record.Scanner{}
	w := event.NewWriter(event.Options{}, &event.Counts{}, e.names, s)
	var r record.Record
	if _, err := r.Read(s, raw, 0); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if own.Table == "" {
		own.Table = strings.TrimPrefix(r.Category(), record.HuntingPrefix)
	}
	w.Begin(nil, 1<<20)
	e.record(w, &r, &own)
	out, err := w.End(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	const header = 1 + 10
	rest, err := msgp.UnmarshalAsJSON(&b, out[header:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes too many: %s", err, len(rest), raw)
	}
	d := json.NewDecoder(&b)
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// The built-in rules fit their fields: each conversion makes a value that the index type takes.
// Microsoft documents every column, or the stream is known to have it.
func TestECSMapping(t *testing.T) {
	m, err := ecsMapping()
	if err != nil {
		t.Fatal(err)
	}
	makes := map[conversion]indexType{asLong: typeLong, asDate: typeDate, asIP: typeIP, asBoolean: typeBoolean}
	rules := 0
	for table, program := range m.programs {
		for _, steps := range program {
			for _, s := range steps {
				for _, r := range s.rules {
					rules++
					name := m.form.fields[r.field].name
					typ, known := m.types[name]
					if !known || typ != makes[r.how] {
						t.Errorf("%s: %s has another type than its value", table, name)
					}
				}
			}
		}
	}
	if rules < 1000 || len(m.columns) < 400 {
		t.Errorf("only %d rules and %d columns", rules, len(m.columns))
	}
}

func TestECSMappingsThatAreWrong(t *testing.T) {
	const columns, fields = "FileName file.name\nActionType action.type", "process.name keyword\nhost.ip ip set\nprocess.parent.name keyword"
	if _, err := newMapping("* - FileName process.name text", columns, fields); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{
		"* - FileName process.nam text", "* - FileNam process.name text", "* - FileName process.name texts", "* - FileName process.name",
		"* FileNam=x FileName process.name text", "* - FileName process.name default",
	} {
		if _, err := newMapping(rules, columns, fields); err == nil {
			t.Errorf("%q is taken", rules)
		}
	}
	for _, wrong := range []string{"process.name word", "process.name keyword some", "process keyword\nprocess.name keyword"} {
		if _, err := newMapping("", columns, wrong); err == nil {
			t.Errorf("fields %q are taken", wrong)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"FileCreated", "filecreated", true}, {"FileCreated", "FileCreatedX", false}, {"*ApiCall", "OpenProcessApiCall", true},
		{"Open*ApiCall", "OpenProcessApiCall", true}, {"Open*ApiCall", "WriteProcessApiCall", false}, {"*a*b*", "xaxbx", true},
		{"*a*b*", "xbxax", false}, {"ab*ba", "aba", false}, {"Add*user*", "Add user.", true}, {"*", "", true},
	} {
		if got := newPattern(c.pattern).match([]byte(c.text)); got != c.want {
			t.Errorf("%s, %s: %t", c.pattern, c.text, got)
		}
	}
}

// What only a record shows: one column under two names of a process, times, addresses, an inbound
// port.
func TestECSRecord(t *testing.T) {
	const request = `"ActionType":"HttpConnectionInspected","AdditionalFields":{"method":"GET","host":"h.example:8080","uri":"/a.php?b","user_agent":"curl","status_code":"404"}`
	for _, c := range []struct{ table, properties, path, want string }{
		{"DeviceProcessEvents", `"FileName":"a.exe","FolderPath":"C:\\x","InitiatingProcessFileName":"b.exe"`, "process.parent.name", `"b.exe"`},
		{"DeviceProcessEvents", `"FileName":"a.exe","FolderPath":"C:\\x"`, "process.executable", `"C:\\x\\a.exe"`},
		{"DeviceFileEvents", `"FileName":"a.tar.gz","FolderPath":"/opt/homebrew/a.tar.gz"`, "host.os.type", `"macos"`},
		{"DeviceFileEvents", `"FileName":"a.tar.gz","FolderPath":"/opt/x"`, "file.extension", `"gz"`},
		{"DeviceNetworkEvents", `"ActionType":"InboundConnectionAccepted","LocalPort":3389,"RemotePort":50123`, "source.port", `50123`},
		{"DeviceNetworkEvents", `"RemoteIP":"::ffff:192.0.2.1"`, "destination.ip", `"192.0.2.1"`},
		{"DeviceNetworkEvents", `"RemoteIP":"somewhere"`, "m365_defender.event.remote.ip_raw", `"somewhere"`},
		{"DeviceLogonEvents", `"ActionType":"LogonFailed"`, "event.outcome", `"failure"`},
		{"DeviceLogonEvents", `"RemoteDeviceName":"ws-2"`, "source.address", `"ws-2"`},
		{"DeviceLogonEvents", `"RemoteDeviceName":"ws-2","RemoteIP":"192.0.2.7"`, "source.address", `"192.0.2.7"`},
		{"DeviceNetworkEvents", `"RemoteUrl":"x.example"`, "destination.address", `"x.example"`},
		{"EmailEvents", `"EmailDirection":"Intra-org"`, "email.direction", `"internal"`},
		{"AlertInfo", `"Severity":"High"`, "event.severity", `73`},
		{"AlertInfo", `"Severity":"High"`, "m365_defender.event.severity", `"high"`},
		{"AlertInfo", `"Severity":"High"`, "m365_defender.event.alert.severity", `"High"`},
		{"New", `"Severity":"High"`, "m365_defender.event.severity", `"high"`},
		{"AlertInfo", `"Category":"Ransomware"`, "event.category", `["malware"]`},
		{"DeviceEvents", `"ActionType":"ShellLinkCreateFileEvent","FileName":"a.lnk"`, "file.name", `"a.lnk"`},
		{"DeviceEvents", `"ActionType":"OpenProcessApiCall"`, "process.Ext.api.name", `"OpenProcess"`},
		{"DeviceRegistryEvents", `"RegistryKey":"HKEY_USERS\\x"`, "registry.path", `"HKU\\x"`},
		{"DeviceNetworkEvents", `"ActionType":"ConnectionSuccessAggregatedReport"`, "event.type", `["start","connection"]`},
		{"DeviceNetworkEvents", `"ActionType":"ConnectionSuccessAggregatedReport","LocalIP":"192.0.2.1"`, "network.direction", `"outbound"`},
		{"DeviceProcessEvents", `"ActionType":"ProcessCreatedAggregatedReport"`, "event.type", `["start"]`},
		{"DeviceLogonEvents", `"ActionType":"LogonFailedAggregatedReport"`, "event.outcome", `"failure"`},
		{"CloudAppEvents", `"ActionType":"Log on"`, "event.outcome", `"success"`},
		{"DeviceEvents", `"ActionType":"FirewallInboundConnectionBlocked","RemoteIP":"192.0.2.7"`, "source.ip", `"192.0.2.7"`},
		{"DeviceEvents", `"ActionType":"driverload","ProcessId":7,"InitiatingProcessId":5`, "process.pid", `5`},
		{"DeviceEvents", `"ActionType":"openprocessapicall","FileName":"a.exe","FolderPath":"C:\\"`, "Target.process.executable", `"C:\\a.exe"`},
		{"DeviceEvents", `"ActionType":"DnsQueryResponse"`, "network.protocol", `"dns"`},
		{"DeviceLogonEvents", `"Protocol":"MICROSOFT_AUTHENTICATION_PACKAGE_V1_0"`, "network.protocol", `null`},
		{"DeviceNetworkEvents", `"ActionType":"DnsConnectionInspected","AdditionalFields":{"RD":"true","AD":"true"}`, "dns.header_flags", `["RD","AD"]`},
		{"IdentityInfo", `"ReportId":"r1","EmailAddress":"a@x.example"`, "event.id", `"r1"`},
		{"IdentityInfo", `"AccountObjectId":"o1","EmailAddress":"a@x.example"`, "related.user", `["a@x.example","o1"]`},
		{"IdentityLogonEvents", `"AccountName":"a","AccountSid":"S-1","TargetAccountDisplayName":"B"`, "related.user", `["B","a","S-1"]`},
		{"IdentityLogonEvents", `"TargetDeviceName":"srv","DestinationDeviceName":"dc"`, "related.hosts", `["srv","dc"]`},
		{"CloudAppEvents", `"AccountId":"o1","AccountDisplayName":"A B"`, "related.user", `["A B","o1"]`},
		{"CloudProcessEvents", `"KubernetesNamespace":"n"`, "orchestrator.type", `"kubernetes"`},
		{"CloudProcessEvents", `"KubernetesPodName":"p","KubernetesResource":"n/pod/p"`, "orchestrator.resource.name", `"n/pod/p"`},
		{"CloudProcessEvents", `"KubernetesPodName":"p","KubernetesResource":""`, "orchestrator.resource.name", `"p"`},
		{"DeviceLogonEvents", `"ActionType":"LogonFailed","AccountName":"","InitiatingProcessAccountName":"system"`, "user.name", `null`},
		{"DeviceProcessEvents", `"InitiatingProcessAccountName":"system"`, "user.name", `null`},
		{"DeviceRegistryEvents", `"InitiatingProcessAccountName":"system"`, "user.name", `"system"`},
		{"AlertEvidence", `"AdditionalFields":{"SenderIP":"192.0.2.9"}`, "related.ip", `["192.0.2.9"]`},
		{"AlertEvidence", `"EntityType":"Process","AdditionalFields":{"CommandLine":"a.exe -x"}`, "process.args", `["a.exe","-x"]`},
		{"AlertEvidence", `"EntityType":"Process","AdditionalFields":{"ImageFile":{"Name":"a.exe","Directory":"C:\\x"}}`, "process.executable", `"C:\\x\\a.exe"`},
		{"EmailPostDeliveryEvents", `"SenderFromAddress":"a@x.example"`, "email.from.address", `["a@x.example"]`},
		{"EmailPostDeliveryEvents", `"SenderFromAddress":"a@x.example","RecipientEmailAddress":"b@x.example"`, "related.user", `["a@x.example","b@x.example"]`},
		{"EmailPostDeliveryEvents", `"EmailDirection":"Intra-org"`, "email.direction", `"internal"`},
		{"MessageEvents", `"Subject":"s"`, "email.subject", `"s"`},
		{"EmailAttachmentInfo", `"FileName":"a.docm"`, "file.extension", `"docm"`},
		{"EmailAttachmentInfo", `"FileName":"a.docm","FileType":"Office"`, "file.extension", `"Office"`},
		{"DeviceNetworkEvents", request, "http.request.method", `"GET"`},
		{"DeviceNetworkEvents", request, "http.response.status_code", `404`},
		{"DeviceNetworkEvents", request, "user_agent.original", `"curl"`},
		{"DeviceNetworkEvents", request, "url.original", `"/a.php?b"`},
		{"DeviceNetworkEvents", request, "url.path", `"/a.php"`},
		{"DeviceNetworkEvents", request, "url.query", `"b"`},
		{"DeviceNetworkEvents", request, "url.extension", `"php"`},
		{"DeviceNetworkEvents", request, "url.domain", `"h.example"`},
		{"DeviceNetworkEvents", request, "url.port", `8080`},
		{"DeviceNetworkEvents", request, "destination.domain", `"h.example"`},
		{"DeviceNetworkEvents", `"ActionType":"HttpConnectionInspected","AdditionalFields":{"host":"proxy.example","uri":"http://x.example/a"}`, "url.domain", `"x.example"`},
		{"DeviceNetworkEvents", request + `,"RemoteUrl":"http://x.example/"`, "destination.domain", `"x.example"`},
		{"DeviceNetworkEvents", `"ActionType":"SslConnectionInspected","AdditionalFields":{"server_name":"h.example"}`, "destination.domain", `"h.example"`},
		{"DeviceEvents", `"ActionType":"AppLockerBlockScript"`, "event.type", `["info","denied"]`},
		{"DeviceNetworkEvents", `"ActionType":"ListeningConnectionCreated","LocalIP":"192.0.2.1"`, "network.direction", `"unknown"`},
		{"DeviceNetworkEvents", `"ActionType":"ListeningConnectionCreated","LocalIP":"192.0.2.1"`, "source.ip", `"192.0.2.1"`},
		{"New", `"DeviceName":"A.B"`, "host.name", `"a.b"`},
		{"New", `"SomethingNew":{"a":1}`, "m365_defender.event.something_new_object.a", `1`},
		{"New", `"DeviceName":"a","DeviceName":"b"`, "m365_defender.event.device_name", `"b"`},
	} {
		var v any = asECS(t, []byte(`{"category":"AdvancedHunting-`+c.table+`","properties":{`+c.properties+`}}`), Own{})
		for _, part := range strings.Split(c.path, ".") {
			object, _ := v.(map[string]any)
			v = object[part]
		}
		if got, _ := json.Marshal(v); string(got) != c.want {
			t.Errorf("%s %s: %s is %s, want %s", c.table, c.properties, c.path, got, c.want)
		}
	}
}
