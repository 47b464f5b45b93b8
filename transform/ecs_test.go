package transform_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

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
