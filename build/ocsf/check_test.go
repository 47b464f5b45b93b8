package ocsf

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Two right events. Together they have an array of objects, a profile, enums with captions, times
// with twins, an address and a port. They also have a constraint, a Windows object, free JSON and
// observables.
const (
	connection = `{
		"class_uid": 4001, "class_name": "Network Activity", "category_uid": 4, "category_name": "Network Activity",
		"activity_id": 1, "activity_name": "Open", "type_uid": 400101, "type_name": "Network Activity: Open",
		"severity_id": 1, "severity": "Informational",
		"time": 1772619482765, "time_dt": "2026-03-04T10:18:02.7654321Z",
		"metadata": {"version": "1.8.0", "product": {"name": "Microsoft Defender XDR", "vendor_name": "Microsoft"},
			"profiles": ["datetime", "host", "security_control"]},
		"device": {"uid": "aa11", "type_id": 0, "type": "Unknown", "os": {"name": "Windows11", "type_id": 100, "type": "Windows"},
			"network_interfaces": [{"mac": "00:1a:2b:3c:4d:5e", "ip": "10.1.2.3"}]},
		"actor": {"user": {"name": "joe", "email_addr": "joe@corp.example"}, "process": {"pid": 4711, "created_time": 1772619482765,
			"file": {"name": "a.exe", "type_id": 1, "hashes": [{"algorithm_id": 3, "algorithm": "SHA-256", "value": "ab"}]}}},
		"src_endpoint": {"ip": "10.1.2.3", "port": 50000}, "dst_endpoint": {"ip": "fe80::1", "port": 443},
		"connection_info": {"direction_id": 2, "direction": "Outbound", "protocol_num": 6},
		"observables": [{"name": "src_endpoint.ip", "type_id": 2, "type": "IP Address", "value": "10.1.2.3"},
			{"name": "actor.process.file.hashes[].value", "type_id": 8, "type": "Hash", "value": "ab"}],
		"unmapped": {"X": {"y": [1, null, ""]}}
	}`
	finding = `{
		"class_uid": 2004, "category_uid": 2, "activity_id": 2, "type_uid": 200402, "severity_id": 99, "severity": "Odd",
		"time": 1772619482765,
		"metadata": {"version": "1.8.0", "product": {"name": "P"}, "profiles": ["datetime", "security_control", "host"]},
		"finding_info": {"uid": "da1", "attacks": [{"tactic": {"name": "Execution", "uid": "TA0002"}}]},
		"evidences": [{"reg_value": {"name": "v", "path": "HKEY_LOCAL_MACHINE\\k"}, "data": {"free": 1}}],
		"enrichments": [{"name": "device.uid", "value": "aa11", "data": {"match": "row"}}],
		"malware": [{"name": "m", "classification_ids": [0]}]
	}`
	value = `{
		"class_uid": 201002, "category_uid": 1, "activity_id": 2, "type_uid": 20100202, "severity_id": 1, "time": 1772619482765,
		"metadata": {"version": "1.8.0", "product": {"name": "P"}, "profiles": ["host"]},
		"actor": {"process": {"uid": "4711"}}, "device": {"hostname": "ws", "type_id": 2, "type": "Desktop"},
		"reg_value": {"name": "v", "path": "HKEY_LOCAL_MACHINE\\k", "type_id": 10, "type": "REG_SZ"}
	}`
	baseEvent = `{
		"class_uid": 0, "class_name": "Base Event", "category_uid": 0, "activity_id": 99, "activity_name": "Odd", "type_uid": 99,
		"type_name": "Base Event: Odd", "severity_id": 1, "time": 1772619482765, "metadata": {"version": "1.8.0", "product": {"uid": "P"}},
		"observables": [{"type_id": 47, "type": "Device Object: uid", "value": "aa11"}]
	}`
)

func decode(t *testing.T, text string) (event map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&event); err != nil {
		t.Fatal(err, text)
	}
	return event
}

func TestRightEvents(t *testing.T) {
	for _, text := range []string{connection, finding, value, baseEvent} {
		if faults := Check(decode(t, text)); len(faults) > 0 {
			t.Errorf("%.60s...: %q", text, faults)
		}
	}
}

// Each event is wrong in one way, and Check says where and nothing else.
func TestWrongEvents(t *testing.T) {
	for _, test := range []struct{ right, old, new, fault string }{
		{connection, `"class_uid": 4001`, `"class_uid": "4001"`, "class_uid: missing"},
		{connection, `"class_uid": 4001`, `"class_uid": 4990`, "class_uid: there is no class"},
		{connection, `"category_uid": 4`, `"category_uid": 1`, "category_uid: \"1\" is not among"},
		{connection, `"category_name": "Network Activity"`, `"category_name": "Network"`, "category_name: "},
		{connection, `"type_uid": 400101`, `"type_uid": 400106`, "type_uid: 400106 is not class_uid"},
		{connection, `"type_name": "Network Activity: Open"`, `"type_name": "Network: Open"`, "type_name: "},
		{connection, `"class_name": "Network Activity"`, `"class_name": "Network"`, "class_name: "},
		{connection, `"severity_id": 1, `, ``, "severity_id: required"},
		{connection, `"severity_id": 1,`, `"severity_id": 1.0,`, "severity_id: 1.0 (json.Number) is no integer"},
		{connection, `"severity": "Informational"`, `"severity": "Info"`, "severity: \"Info\" beside 1"},
		{connection, `"time": 1772619482765`, `"time": "1772619482765"`, "time: 1772619482765 (string) is no integer"},
		{connection, `"time": 1772619482765`, `"time": 1772619482`, "time_dt: "},
		{connection, `02.7654321Z"`, `02.7654321 Z"`, "time_dt: "},
		{connection, `"version": "1.8.0"`, `"version": "1.9.0"`, "metadata.version: "},
		{connection, `"datetime", "host"`, `"host"`, "time_dt: needs profile"},
		{connection, `"security_control"]`, `"security_controls"]`, "metadata.profiles: there is no profile"},
		{connection, `"security_control"]`, `"incident"]`, "metadata.profiles: network_activity has no profile"},
		{connection, `"uid": "aa11", "type_id": 0, "type": "Unknown"`, `"type_id": 0`, "device: has 0 of at_least_one"},
		{connection, `"type_id": 0, "type": "Unknown"`, `"type_id": 17`, "device.type_id: \"17\" is not among"},
		{connection, `"type": "Windows"`, `"type": "Win"`, "device.os.type: "},
		{connection, `[{"mac": "00:1a:2b:3c:4d:5e", "ip": "10.1.2.3"}]`, `{"mac": "00:1a:2b:3c:4d:5e"}`, "device.network_interfaces: not a list"},
		{connection, `[{"mac": "00:1a:2b:3c:4d:5e", "ip": "10.1.2.3"}]`, `[]`, "device.network_interfaces: an empty list"},
		{connection, `00:1a:2b:3c:4d:5e`, `001A2B3C4D5E`, "device.network_interfaces[0].mac: "},
		{connection, `"ip": "fe80::1"`, `"ip": "1.1.1.1,2.2.2.2"`, "dst_endpoint.ip: "},
		{connection, `"ip": "fe80::1"`, `"ip": null`, "dst_endpoint.ip: <nil> is no text"},
		{connection, `"port": 443`, `"port": 65536`, "dst_endpoint.port: 65536 is no port"},
		{connection, `"port": 443`, `"port": "443"`, "dst_endpoint.port: 443 (string) is no integer"},
		{connection, `joe@corp.example`, `joe`, "actor.user.email_addr: "},
		{connection, `"pid": 4711`, `"name": "a.exe"`, "actor.process: has 0 of at_least_one"},
		{connection, `"pid": 4711`, `"pid": 4294967296`, "actor.process.pid: 4294967296 does not fit"},
		{connection, `"pid": 4711`, `"pid": 4711, "path": 1`, "actor.process.path: 1 is no text"},
		{connection, `"pid": 4711`, `"pid": 4711, "hash": "x"`, "actor.process.hash: unknown"},
		{connection, `"pid": 4711`, `"pid": 4711, "container": {"uid": "c"}`, "actor.process.container: needs profile"},
		{connection, `"name": "a.exe", "type_id": 1`, `"name": "a.exe"`, "actor.process.file.type_id: required"},
		{connection, `"name": "a.exe", "type_id": 1`, `"name": "", "type_id": 1`, "actor.process.file.name: empty text"},
		{connection, `"value": "ab"}]}}`, `"value": "ab", "size": 1}]}}`, "actor.process.file.hashes[0].size: unknown"},
		{connection, `"direction_id": 2, `, ``, "connection_info.direction_id: required"},
		{connection, `"connection_info": {"direction_id": 2, "direction": "Outbound", "protocol_num": 6}`, `"connection_info": {}`, "connection_info: an empty object"},
		{connection, `"connection_info": {"direction_id": 2, "direction": "Outbound", "protocol_num": 6}`, `"connection_info": "tcp"`, "connection_info: not an object"},
		{connection, `"name": "src_endpoint.ip"`, `"name": "client.ip"`, "observables[0].name: network_activity has no attribute"},
		{connection, `"value": "10.1.2.3"},`, `"value": "10.1.2.4"},`, "observables[0].value: "},
		{connection, `"type_id": 8, "type": "Hash"`, `"type_id": 8, "type": "Hashes"`, "observables[1].type: "},
		{connection, `"unmapped": {`, `"X": 1, "unmapped": {`, "X: unknown in network_activity"},
		{connection, `"src_endpoint": {"ip": "10.1.2.3", "port": 50000}, "dst_endpoint": {"ip": "fe80::1", "port": 443},`, ``, "has 0 of at_least_one"},
		{finding, `"finding_info": {"uid": "da1", `, `"finding_info": {`, "finding_info.uid: required"},
		{finding, `"severity": "Odd"`, `"severity": "Other"`, "severity: 99 wants"},
		{finding, `"tactic": {`, `"version": "16", "tacitc": {`, "attacks[0]"},
		{finding, `, "data": {"match": "row"}`, ``, "enrichments[0].data: required"},
		{finding, `"classification_ids": [0]`, `"classification_ids": 0`, "malware[0].classification_ids: not a list"},
		{finding, `"classification_ids": [0]`, `"classification_ids": [0, 77]`, "malware[0].classification_ids[1]: \"77\" is not among"},
		{finding, `"name": "v", `, ``, "evidences[0].reg_value.name: required"},
		{finding, `"time"`, `"is_alert": "true", "time"`, "is_alert: true is no boolean"},
		{value, `"type_id": 10`, `"type_id": 1`, "reg_value.type: \"REG_SZ\" beside 1"},
		{value, `"actor": {"process": {"uid": "4711"}},`, ``, "actor: required"},
		{value, `"actor": {"process": {"uid": "4711"}},`, `"actor": {"user": {"domain": "D"}},`, "actor.user: has 0 of"},
		{value, `["host"]`, `["host"], "original_time": 1`, "metadata.original_time: 1 is no text"},
		{baseEvent, `"time": `, `"device": {"uid": "a", "type_id": 0}, "time": `, "device: needs profile"},
		{baseEvent, `"product": {"uid": "P"}`, `"product": {"vendor_name": "P"}`, "metadata.product: has 0 of"},
		{baseEvent, `"type": "Device Object: uid"`, `"name": "device.uid", "type": "Device Object: uid"`, "observables[0].name: base_event has no"},
	} {
		wrong := strings.Replace(test.right, test.old, test.new, 1)
		if wrong == test.right {
			t.Errorf("%s is not in the event", test.old)
			continue
		}
		faults := Check(decode(t, wrong))
		if len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), test.fault) {
			t.Errorf("%s: faults %q, not %q", test.new, faults, test.fault)
		}
	}
}

// A just_one constraint takes one, and not two. Numbers may be Go's own, as msgpack gives them.
func TestOtherRules(t *testing.T) {
	session := decode(t, `{"class_uid": 3003, "category_uid": 3, "activity_id": 1, "type_uid": 300301, "severity_id": 1, "time": 1772619482765,
		"metadata": {"version": "1.8.0", "product": {"uid": "P"}}, "user": {"name": "u"}, "privileges": ["p"]}`)
	if faults := Check(session); len(faults) > 0 {
		t.Error(faults)
	}
	session["group"] = map[string]any{"name": "g"}
	if faults := Check(session); len(faults) != 1 || !strings.Contains(faults[0], "2 of just_one") {
		t.Errorf("two of just_one: %q", faults)
	}
	delete(session, "group")
	session["time"], session["activity_id"] = uint64(1772619482765), int8(1)
	if faults := Check(session); len(faults) > 0 {
		t.Error(faults)
	}
	session["time"] = 1772619482765.0
	if faults := Check(session); len(faults) != 1 || !strings.Contains(faults[0], "no integer") {
		t.Errorf("a time as float64: %q", faults)
	}
}

// The embedded schema is what it says, and its objects are all there.
func TestSchema(t *testing.T) {
	s := Load()
	if !bytes.HasPrefix(compressed, []byte{0x1f, 0x8b}) {
		t.Error("not gzip")
	}
	if c := s.Classes[201002]; c == nil || c.Name != "registry_value_activity" {
		t.Errorf("class 201002 is %+v", c)
	}
	check := func(in string, t2 *Type) {
		for name, a := range t2.Attributes {
			if a.Type == "object_t" && s.Objects[a.ObjectType] == nil {
				t.Errorf("%s.%s is an object %q, which the schema has not", in, name, a.ObjectType)
			}
		}
	}
	for _, c := range s.Classes {
		check(c.Name, c)
	}
	for name, o := range s.Objects {
		check(name, o)
	}
	if s.Find(s.Classes[1007], "process.file.hashes[].value", nil) == nil || s.Find(s.Classes[1007], "process.path.name", nil) != nil {
		t.Error("Find does not follow paths")
	}
}
