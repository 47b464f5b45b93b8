package transform_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// A process of an alert's evidence has the id that its own row has, if the device is found.
func TestECSProcessOfEvidence(t *testing.T) {
	tr := transform.New(transform.Config{Format: "ecs", Devices: device.New(defaults())})
	const machine = "aa11bb22cc33dd44ee55ff660011223344556677"
	ids := make(map[string]any)
	for _, e := range run(t, tr, envelopeOf(
		recordOf("DeviceInfo", "DeviceId", machine, "DeviceName", "ws-17.corp.example", "OSPlatform", "Windows11"),
		recordOf("DeviceProcessEvents", "DeviceId", machine, "ProcessId", 5, "ProcessCreationTime", "2026-03-04T11:00:00.1234567Z"),
		recordOf("AlertEvidence", "AlertId", "da1_1", "EntityType", "Process",
			"AdditionalFields", `{"ProcessId":"5","CreationTimeUtc":"2026-03-04T11:00:00.1234567Z","Host":{"MachineId":"`+machine+`"}}`))) {
		process, _ := e.m["process"].(map[string]any)
		ids[e.table] = process["entity_id"]
	}
	if ids["AlertEvidence"] == nil || ids["AlertEvidence"] != ids["DeviceProcessEvents"] {
		t.Errorf("%v", ids)
	}
}

// A process of a row that names a merged device has the id that its own row has, which names that
// device, too.
func TestECSProcessOfMergedDevice(t *testing.T) {
	tr := transform.New(transform.Config{Format: "ecs", Devices: device.New(defaults())})
	const started = "2026-03-04T11:00:00.1234567Z"
	a, b := numbered(1), numbered(2)
	ids := make(map[string]any)
	for _, e := range run(t, tr, envelopeOf(
		full(a, "09:00:00", "MergedToDeviceId", b), full(b, "11:00:00"),
		recordOf("DeviceProcessEvents", "DeviceId", a, "ProcessId", 5, "ProcessCreationTime", started),
		row("da1_1", "Process", `{"ProcessId":"5","CreationTimeUtc":"`+started+`"}`, "DeviceId", a))) {
		process, _ := e.m["process"].(map[string]any)
		ids[e.table] = process["entity_id"]
	}
	if ids["AlertEvidence"] == nil || ids["AlertEvidence"] != ids["DeviceProcessEvents"] {
		t.Errorf("%v", ids)
	}
}

// The facts of a device reach the evidence of its alert. host.os.type reaches any row of that
// device, even if the row has no platform.
func TestECSDevice(t *testing.T) {
	tr := transform.New(transform.Config{Format: "ecs", Devices: device.New(defaults())})
	events := run(t, tr, envelopeOf(
		recordOf("DeviceInfo", "DeviceId", "aa11", "DeviceName", "WS-17.corp.example", "OSPlatform", "macOS", "OSVersion", "15"),
		recordOf("DeviceLogonEvents", "DeviceId", "aa11", "ActionType", "LogonSuccess", "AccountSid", "S-1-5-21-1"),
		recordOf("DeviceLogonEvents", "DeviceId", "bb22", "ActionType", "LogonSuccess"),
		recordOf("AlertEvidence", "AlertId", "da1_1", "EntityType", "Machine", "DeviceId", "aa11")))
	found := 0
	for _, e := range events {
		text, _ := json.Marshal(e.m)
		switch e.table {
		case "DeviceLogonEvents":
			if known := strings.Contains(string(text), `"id":"aa11"`); strings.Contains(string(text), `"type":"macos"`) != known {
				t.Errorf("the system of a device: %s", text)
			}
			found++
		case "AlertEvidence":
			for _, want := range []string{`"full":"macOS"`, `"version":"15"`, `"name":"ws-17.corp.example"`, `"os_platform":"macOS"`, `"match":"row"`} {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %s in %s", want, text)
				}
			}
			found++
		}
	}
	if found != 3 {
		t.Errorf("%d events", found)
	}
}
