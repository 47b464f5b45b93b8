package transform_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const samples = "../../shared/samples"

func TestSampleAlert(t *testing.T) {
	body, err := os.ReadFile(filepath.Join(samples, "derived/eventhub_spaced_same_alert_batch.json"))
	if err != nil {
		t.Skip("the samples are not here; TestEveryRowOfAnAlertCarriesTheDevice does the same with invented ones")
	}
	var batch struct{ Records []json.RawMessage }
	if err := json.Unmarshal(body, &batch); err != nil {
		t.Fatal(err)
	}
	var machine struct {
		Properties struct{ DeviceID, DeviceName string }
		TenantID   string
	}
	order := make([]string, len(batch.Records))
	for i, r := range batch.Records {
		order[i] = string(r)
	}
	if err := json.Unmarshal(batch.Records[0], &machine); err != nil || machine.Properties.DeviceID == "" {
		t.Fatalf("%v: the first is not the Machine row", err)
	}
	report := strings.ReplaceAll(deviceInfo(machine.Properties.DeviceID, "Timestamp", "2026-01-13T09:00:00Z", "DeviceName", "invented.corp.example"), aTenant, machine.TenantID)
	check := func(events []event) {
		t.Helper()
		evidence := ofTable(events, "AlertEvidence")
		if len(evidence) != 4 {
			t.Fatalf("%d rows", len(evidence))
		}
		for _, e := range evidence {
			wantDevice(t, e, "status", "hit", "DeviceId", machine.Properties.DeviceID, "OSPlatform", "Windows11", "MachineGroup", "Finance")
		}
	}
	last := append(slices.Clone(order[1:]), order[0])
	for _, records := range [][]string{order, last} {
		for _, bodies := range [][]string{{envelopeOf(records...), report}, append(slices.Clone(records), report)} {
			tr, _ := withDevices(defaults())
			check(run(t, tr, bodies...))
		}
		// Without any report the Machine row tells the name, and each row is in a call of its own.
		tr, _ := withDevices(defaults())
		var events []event
		for _, r := range append([]string{order[0]}, records...) {
			events = append(events, run(t, tr, r)...)
		}
		for _, e := range events[1:] {
			wantDevice(t, e, "status", "unknown", "DeviceId", machine.Properties.DeviceID, "DeviceName", machine.Properties.DeviceName)
		}
	}
}

func TestSampleEvidence(t *testing.T) {
	lines, err := os.ReadFile(filepath.Join(samples, "sekoia/ndjson/AlertEvidence.ndjson"))
	if err != nil {
		t.Skip("the samples are not here; TestWhichDevice does the same with invented ones")
	}
	tr, d := withDevices(defaults())
	events := run(t, tr, string(lines)) // to see whom they name
	ids := make(map[string]string)
	for _, e := range events {
		if id, ok := e.m["DeviceInfo.DeviceId"].(string); ok {
			ids[id] = e.m["tenant_id"].(string)
		}
	}
	for id, tenant := range ids {
		run(t, tr, strings.ReplaceAll(deviceInfo(id, "Timestamp", "2026-01-13T09:00:00Z"), aTenant, tenant))
	}
	hits, none := 0, 0
	for _, e := range run(t, tr, string(lines)) {
		switch deviceOf(e)["status"] {
		case "none":
			none++
		default:
			hits++
			id := e.m["DeviceInfo.DeviceId"].(string)
			wantDevice(t, e, "status", "hit", "DeviceName", "ws-"+id[:2]+".corp.example", "OSPlatform", "Windows11", "OSBuild", int64(22631), "MachineGroup", "Finance")
		}
	}
	if len(events) != 13 || hits != 9 || none != 4 || len(ids) != 3 {
		t.Errorf("%d rows, %d with a device, %d without, %d devices; %+v", len(events), hits, none, len(ids), d.Stats())
	}
}
