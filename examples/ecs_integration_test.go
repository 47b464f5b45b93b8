//go:build integration

package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// A detection is a query of an analyst, in the fields that Elastic's rules read, and the record that it must find.
type detection struct {
	name, table, properties, query string
}

// windows are columns that the records of one host share.
const windows = `"DeviceId":"aa11","DeviceName":"WS-17.corp.example","AccountName":"maria","AccountDomain":"corp","AccountSid":"S-1-5-21-1-2-3-1104",` +
	`"InitiatingProcessAccountName":"maria","InitiatingProcessAccountSid":"S-1-5-21-1-2-3-1104","InitiatingProcessId":4711,` +
	`"InitiatingProcessCreationTime":"2026-03-04T10:00:00.1234567Z",`

// detections are of five kinds: process, registry, file, network and logon.
var detections = []detection{
	{"a document starts a shell", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"powershell.exe","FolderPath":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe","ProcessId":1,"ProcessCommandLine":"powershell.exe -nop -enc aQBlAHgA","InitiatingProcessFileName":"WINWORD.EXE","InitiatingProcessFolderPath":"c:\\program files\\office\\winword.exe"`,
		`event.category:process AND event.type:start AND host.os.type:windows AND process.name:powershell.exe AND process.parent.name:WINWORD.EXE AND process.args:"-enc"`},
	{"a renamed tool", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"svch0st.exe","FolderPath":"C:\\Users\\Public\\svch0st.exe","ProcessId":2,"ProcessCommandLine":"svch0st.exe \"a b\" c","ProcessVersionInfoOriginalFileName":"psexec.c","InitiatingProcessFileName":"cmd.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\cmd.exe"`,
		`event.type:start AND process.pe.original_file_name:psexec.c AND NOT process.name:psexec.exe AND process.args:"a b"`},
	{"shadow copies are deleted", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"vssadmin.exe","FolderPath":"C:\\Windows\\System32","ProcessId":3,"ProcessCommandLine":"vssadmin.exe delete shadows /all /quiet","InitiatingProcessFileName":"cmd.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\cmd.exe"`,
		`event.action:start AND process.executable:"C:\\Windows\\System32\\vssadmin.exe" AND process.args:delete AND process.args:shadows AND process.args_count:5`},
	{"a process of the system from a user's folder", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"x.exe","FolderPath":"C:\\Users\\maria\\AppData\\Local\\Temp\\x.exe","ProcessId":4,"ProcessIntegrityLevel":"System","ProcessCommandLine":"x.exe","InitiatingProcessFileName":"services.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\services.exe","InitiatingProcessSignatureStatus":"Valid"`,
		`process.executable:C\:\\Users\\* AND process.Ext.token.integrity_level_name:System AND process.parent.code_signature.trusted:true AND process.parent.executable:*services.exe`},
	{"lsass is opened", "DeviceEvents",
		`"ActionType":"OpenProcessApiCall","FileName":"lsass.exe","FolderPath":"C:\\Windows\\System32\\lsass.exe","ProcessId":700,"AdditionalFields":"{\"DesiredAccess\":5136}","InitiatingProcessFileName":"dump.exe","InitiatingProcessFolderPath":"c:\\temp\\dump.exe"`,
		`event.category:api AND process.Ext.api.name:OpenProcess AND Target.process.name:lsass.exe AND NOT process.name:MsMpEng.exe AND process.Ext.api.parameters.desired_access_numeric:5136`},
	{"a key that starts programs", "DeviceRegistryEvents",
		`"ActionType":"RegistryValueSet","RegistryKey":"HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run","RegistryValueName":"Updater","RegistryValueData":"C:\\Users\\Public\\u.exe","RegistryValueType":"String","InitiatingProcessFileName":"reg.exe"`,
		`event.category:registry AND event.type:change AND host.os.type:windows AND registry.path:HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run\\* AND registry.data.strings:*Public*`},
	{"a debugger for another program", "DeviceRegistryEvents",
		`"ActionType":"RegistryValueSet","RegistryKey":"HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Image File Execution Options\\sethc.exe","RegistryValueName":"Debugger","RegistryValueData":"cmd.exe","InitiatingProcessFileName":"reg.exe"`,
		`registry.value:Debugger AND registry.hive:HKLM AND registry.data.strings:cmd.exe AND winlog.event_data.EventType:SetValue`},
	{"a service is hidden", "DeviceRegistryEvents",
		`"ActionType":"RegistryKeyDeleted","PreviousRegistryKey":"HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\Sense","InitiatingProcessFileName":"reg.exe"`,
		`event.category:registry AND event.type:deletion AND registry.key:SYSTEM\\ControlSet001\\Services\\Sense`},
	{"a policy of a user", "DeviceRegistryEvents",
		`"ActionType":"RegistryKeyCreated","RegistryKey":"HKEY_USERS\\S-1-5-21-1-2-3-1104\\Software\\Classes\\ms-settings\\shell\\open\\command","InitiatingProcessFileName":"fodhelper.exe"`,
		`event.action:creation AND event.type:creation AND registry.path:HKU\\S\-1\-5\-21*ms\-settings* AND process.name:fodhelper.exe`},
	{"an archive in a start-up folder", "DeviceFileEvents",
		`"ActionType":"FileCreated","FileName":"run.lnk","FolderPath":"C:\\Users\\maria\\AppData\\Roaming\\Microsoft\\Windows\\Start Menu\\Programs\\Startup\\run.lnk","FileSize":12,"InitiatingProcessFileName":"winrar.exe"`,
		`event.category:file AND event.type:creation AND file.extension:lnk AND file.path:*Startup* AND user.name:maria`},
	{"a note of ransom", "DeviceFileEvents",
		`"ActionType":"FileRenamed","FileName":"plan.docx.locked","FolderPath":"C:\\Shares\\plan.docx.locked","PreviousFileName":"plan.docx","FileSize":900000,"InitiatingProcessFileName":"enc.exe"`,
		`event.action:rename AND file.extension:locked AND file.size:>500000`},
	{"logs are deleted", "DeviceFileEvents",
		`"ActionType":"FileDeleted","FileName":"Security.evtx","FolderPath":"C:\\Windows\\System32\\winevt\\Logs","InitiatingProcessFileName":"wevtutil.exe"`,
		`event.type:deletion AND file.name:Security.evtx AND file.directory:"C:\\Windows\\System32\\winevt\\Logs"`},
	{"a library from a share", "DeviceImageLoadEvents",
		`"ActionType":"ImageLoaded","FileName":"evil.dll","FolderPath":"\\\\files\\public\\evil.dll","SHA256":"11ff","InitiatingProcessFileName":"rundll32.exe"`,
		`event.category:library AND event.action:load AND dll.name:evil.dll AND dll.hash.sha256:11ff AND related.hash:11ff`},
	{"a shell of another network", "DeviceNetworkEvents",
		`"ActionType":"ConnectionSuccess","RemoteIP":"203.0.113.66","RemotePort":4444,"LocalIP":"10.1.2.3","LocalPort":51000,"Protocol":"TcpV4","RemoteUrl":"https://c2.example/x","InitiatingProcessFileName":"mshta.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\mshta.exe"`,
		`event.category:network AND event.type:start AND network.direction:outbound AND destination.ip:"203.0.113.0/24" AND destination.port:4444 AND destination.domain:c2.example AND process.name:mshta.exe`},
	{"a desktop from outside", "DeviceNetworkEvents",
		`"ActionType":"InboundConnectionAccepted","RemoteIP":"198.51.100.9","RemotePort":50123,"LocalIP":"10.1.2.3","LocalPort":3389,"Protocol":"TcpV4"`,
		`network.direction:inbound AND destination.port:3389 AND source.ip:"198.51.100.9" AND NOT source.ip:"10.0.0.0/8" AND network.transport:tcp`},
	{"a name that is made up", "DeviceNetworkEvents",
		`"ActionType":"DnsConnectionInspected","RemoteIP":"10.1.2.53","RemotePort":53,"LocalIP":"10.1.2.3","LocalPort":51001,"Protocol":"Udp","AdditionalFields":"{\"direction\":\"Out\",\"query\":\"x7f3.tunnel.example\",\"qtype_name\":\"TXT\",\"answers\":\"[\\\"203.0.113.99\\\"]\",\"TTLs\":\"[1.0]\"}"`,
		`network.protocol:dns AND dns.question.type:TXT AND dns.question.name:*.tunnel.example AND dns.resolved_ip:"203.0.113.99" AND dns.answers.ttl:1`},
	{"a connection is refused", "DeviceNetworkEvents",
		`"ActionType":"ConnectionFailed","RemoteIP":"2001:db8::66","RemotePort":445,"LocalIP":"2001:db8::1","LocalPort":51002,"Protocol":"TcpV6","InitiatingProcessFileName":"scan.exe"`,
		`event.outcome:failure AND event.type:denied AND destination.port:445 AND network.type:ipv6`},
	{"a password is guessed", "DeviceLogonEvents",
		`"ActionType":"LogonFailed","LogonType":"Network","RemoteIP":"198.51.100.44","RemoteDeviceName":"KALI","FailureReason":"InvalidUserNameOrPassword","Protocol":"NTLM"`,
		`event.category:authentication AND event.outcome:failure AND source.ip:"198.51.100.44" AND source.domain:KALI AND network.protocol:ntlm AND event.reason:InvalidUserNameOrPassword`},
	{"an administrator from afar", "DeviceLogonEvents",
		`"ActionType":"LogonSuccess","LogonType":"RemoteInteractive","IsLocalAdmin":true,"RemoteIP":"198.51.100.45"`,
		`event.outcome:success AND m365_defender.event.logon.type:RemoteInteractive AND m365_defender.event.is_local_admin:true AND user.id:S\-1\-5\-21\-1\-2\-3\-1104`},
	{"a logon of the directory", "IdentityLogonEvents",
		`"ActionType":"LogonFailed","Application":"Active Directory","AccountUpn":"maria@corp.example","IPAddress":"198.51.100.46","Protocol":"Kerberos","DestinationDeviceName":"dc1","ReportId":"r1"`,
		`event.category:authentication AND event.outcome:failure AND user.email:maria@corp.example AND source.ip:"198.51.100.46" AND destination.domain:dc1 AND network.protocol:kerberos AND event.id:r1`},
}

// record is a detection's record, whole.
func (d detection) record() []byte {
	return []byte(`{"time":"2026-03-04T10:20:31Z","tenantId":"0a1b2c3d-0000-4000-8000-000000000001","category":"AdvancedHunting-` + d.table + `","properties":{` +
		windows + d.properties + `,"Timestamp":"2026-03-04T10:18:02.7654321Z"}}`)
}

// strict is a template without the settings that make an index take what does not fit: what is refused then is a fault.
func strict(template string) []byte {
	text := strings.ReplaceAll(template, `"ignore_malformed": true`, `"ignore_malformed": false`)
	return []byte(strings.ReplaceAll(text, `"index.mapping.ignore_malformed": true`, `"index.mapping.ignore_malformed": false`))
}

// A real OpenSearch takes every record of every kind in the fields of ECS, even where it is told to refuse what does not fit its
// field. Queries find what they ask for, and only that, by the fields and by the names of Sigma.
func TestIntegrationOpenSearchECS(t *testing.T) {
	url := startOpenSearch(t)
	call(t, "PUT", url+"/_index_template/defender-ecs", strict(example(t, "opensearch/ecs-template.json")), nil)
	var payloads [][]byte
	for _, d := range detections {
		payloads = append(payloads, d.record())
	}
	demo := story.New(story.Options{Seed: 1, AlertEvery: 50})
	payloads = append(payloads, sampled(t)...)
	payloads = append(payloads, hostile()...)
	for range 10 {
		payloads = append(payloads, demo.AppendEnvelope(nil, 4000))
	}
	docs := recordsIn(t, "ecs", payloads...)
	ids := make(map[string]bool)
	for i := 0; i < len(docs); i += 500 {
		var bulk bytes.Buffer
		for _, d := range docs[i:min(i+500, len(docs))] {
			id := hashOf(t, d)
			ids[id] = true
			fmt.Fprintf(&bulk, "{\"index\":{\"_index\":\"defender-ecs-2026.03.10\",\"_id\":%q}}\n%s\n", id, d)
		}
		var reply struct {
			Items []struct {
				Index struct {
					Status int             `json:"status"`
					Error  json.RawMessage `json:"error"`
				} `json:"index"`
			} `json:"items"`
		}
		call(t, "POST", url+"/_bulk", bulk.Bytes(), &reply)
		for j, item := range reply.Items {
			if item.Index.Status >= 300 {
				t.Errorf("%.600s <- %.600s", item.Index.Error, docs[i+j])
			}
		}
	}
	call(t, "POST", url+"/_refresh", nil, nil)
	var count struct {
		Count int `json:"count"`
	}
	call(t, "GET", url+"/defender-ecs-*/_count", nil, &count)
	if count.Count != len(ids) {
		t.Errorf("%d documents, want %d", count.Count, len(ids))
	}
	t.Logf("%d records, %d documents", len(docs), count.Count)

	find := func(query string) (found []string) {
		var hits struct {
			Hits struct {
				Hits []struct {
					ID string `json:"_id"`
				} `json:"hits"`
			} `json:"hits"`
		}
		body, _ := json.Marshal(map[string]any{"size": 3, "query": map[string]any{"query_string": map[string]any{"query": query}}})
		call(t, "POST", url+"/defender-ecs-*/_search", body, &hits)
		for _, h := range hits.Hits.Hits {
			found = append(found, h.ID)
		}
		return found
	}
	for i, d := range detections {
		if got, want := find(d.query), []string{hashOf(t, docs[i])}; !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q\n%s", d.name, got, want, docs[i])
		}
	}
	// The names of Sigma, as a rule for Windows has them.
	if got := find(`Image:*vssadmin.exe AND CommandLine:*shadows* AND ParentImage:*cmd.exe`); len(got) != 1 {
		t.Errorf("by Sigma's names: %q", got)
	}
	if got := find(`EventType:SetValue AND TargetObject:*Debugger AND Details:cmd.exe`); len(got) != 1 {
		t.Errorf("by Sigma's names of the registry: %q", got)
	}
}

func hashOf(t *testing.T, doc []byte) string {
	t.Helper()
	var record struct {
		Event struct {
			Hash string `json:"hash"`
		} `json:"event"`
	}
	if err := json.Unmarshal(doc, &record); err != nil || record.Event.Hash == "" {
		t.Fatalf("no id: %v %.300s", err, doc)
	}
	return record.Event.Hash
}

// The mapping code of Elasticsearch takes every record in the fields of ECS. What is not in the jar of the server has a type of
// the same values in its place: wildcard, constant_keyword, match_only_text.
func TestIntegrationElasticsearchMappingECS(t *testing.T) {
	classes := fetchJars(t, "testdata/elasticsearch")
	dir := t.TempDir()
	text := string(strict(example(t, "elastic/ecs-template.json")))
	for typ, instead := range map[string]string{"wildcard": `keyword", "ignore_above": 8000, "store": "false`, "match_only_text": "text"} {
		text = strings.ReplaceAll(text, `"type": "`+typ+`"`, `"type": "`+instead+`"`)
	}
	var it struct {
		Template struct {
			Settings json.RawMessage `json:"settings"`
			Mappings map[string]any  `json:"mappings"`
		} `json:"template"`
	}
	if err := json.Unmarshal([]byte(text), &it); err != nil {
		t.Fatal(err)
	}
	simplify(it.Template.Mappings)
	settings := bytes.Replace(it.Template.Settings, []byte("{"), []byte(`{"index.number_of_shards": 1,`), 1)
	mappings, err := json.Marshal(map[string]any{"_doc": it.Template.Mappings})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(dir, "settings.json"), filepath.Join(dir, "mappings.json")}
	for i, content := range [][]byte{settings, mappings} {
		if err := os.WriteFile(files[i], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docs := recordsIn(t, "ecs", slices.Concat([][]byte{told()}, sampled(t), hostile())...)
	cmd := exec.Command("java", "-cp", classes, "testdata/elasticsearch/Mapping.java", files[0], files[1])
	cmd.Stdin = bytes.NewReader(slices.Concat(bytes.Join(docs, []byte("\n")), []byte("\n")))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java: %v\n%s", err, out)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "refused" {
			t.Errorf("%.900s", line)
		}
		found[word] = rest
	}
	t.Logf("accepted %s, fields %s", found["accepted"], found["fields"])
	if found["accepted"] != strconv.Itoa(len(docs)) {
		t.Errorf("accepted %s of %d", found["accepted"], len(docs))
	}
}

// simplify takes out of a mapping what the jar of the server does not know: second forms, and constants.
func simplify(mapping map[string]any) {
	delete(mapping, "fields")
	if mapping["type"] == "constant_keyword" {
		mapping["type"] = "keyword"
		delete(mapping, "value")
	}
	for _, v := range mapping {
		if inner, ok := v.(map[string]any); ok {
			simplify(inner)
		}
	}
}
