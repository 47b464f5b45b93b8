package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// wantFields compares fields of a device.
func wantFields(t *testing.T, what string, got map[string]any, want ...any) {
	t.Helper()
	for i := 0; i < len(want); i += 2 {
		if name := "DeviceInfo." + want[i].(string); !reflect.DeepEqual(got[name], want[i+1]) {
			t.Errorf("%s: %s is %v, want %v; all: %v", what, name, got[name], want[i+1], got)
		}
	}
}

// Odd answers of the machines API: none gives a wrong device, and none holds a row up for longer
// than device_info.wait.
func TestOddAnswersOfTheAPI(t *testing.T) {
	t.Parallel()
	id := func(i int) string { return fmt.Sprintf("%040x", 0xd00+i) }
	machine := func(i int, more string) string {
		return fmt.Sprintf(`{"id":"%s","computerDnsName":"m%d.contoso.example","osPlatform":"Windows11"%s}`, id(i), i, more)
	}
	answers := map[string]string{
		id(2): `<html>busy</html>`,
		id(3): machine(3, ""),
		id(4): machine(14, ""),
		id(5): machine(5, `,"mergedIntoMachineId":"`+strings.ToUpper(id(6))+`"`),
		id(6): machine(6, ""),
		id(7): `{"id":null,"computerDnsName":"m7"}`,
		id(8): machine(8, `,"lastSeen":"0001-01-01T00:00:00Z"`),
		id(9): machine(9, `,"lastSeen":"2026-02-01T00:00:00Z","mergedIntoMachineId":"00000000-0000-0000-0000-000000000000"`),
	}
	api := startAPI(t, deviceTenant, "", func(w http.ResponseWriter, r *http.Request) {
		switch text, ok := answers[r.PathValue("id")]; {
		case r.PathValue("id") == id(10):
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		case ok:
			_, _ = w.Write([]byte(text))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error":{"code":"ResourceNotFound","message":"Machine was not found"}}`))
		}
	})
	h := startHub(t, 1)
	args := settings(h, append(api, "device_info.wait=15s", "db="+filepath.Join(t.TempDir(), "state.db"))...)
	for _, i := range []int{1, 2, 3, 4, 5, 8, 9} { // two failures: the third in a row would end the look-ups
		send(t, h, fileRow(i, id(i)))
	}
	got := deviceFields(t, runHostUntil(t, 7, "", args...).ok(t))
	wantFields(t, "404", got[1], "status", "unknown", "DeviceId", id(1), "DeviceName", "ws")
	wantFields(t, "no JSON", got[2], "status", "pending", "DeviceId", id(2), "DeviceName", "ws")
	wantFields(t, "no lastSeen", got[3], "status", "hit", "DeviceId", id(3), "DeviceName", "m3.contoso.example")
	wantFields(t, "another id", got[4], "status", "pending", "DeviceId", id(4), "DeviceName", "ws", "OSPlatform", nil)
	wantFields(t, "merged", got[5], "status", "hit", "DeviceId", id(6), "DeviceName", "m6.contoso.example")
	wantFields(t, "an empty lastSeen", got[8], "status", "hit", "DeviceName", "m8.contoso.example")
	wantFields(t, "seen long ago", got[9], "status", "stale", "DeviceId", id(9), "age_s", float64(31*24*3600+5*3600+6*60+6))
	send(t, h, fileRow(7, id(7)), fileRow(10, id(10)), fileRow(11, id(3)))
	begun := time.Now()
	got = deviceFields(t, runHostUntil(t, 3, "", append(args, "-set", "device_info.wait=2s")...).ok(t))
	wantFields(t, "no id", got[7], "status", "pending", "DeviceId", id(7), "DeviceName", "ws")
	wantFields(t, "429", got[10], "status", "pending", "DeviceId", id(10))
	wantFields(t, "after a restart", got[11], "status", "hit", "DeviceName", "m3.contoso.example")
	if took := time.Since(begun); took > 29*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The alerts of a device count once each, over repeats and restarts, and also when the host ends
// without a stop.
func TestAlertsCountOverRestarts(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	args := settings(h, "db="+filepath.Join(t.TempDir(), "state.db"))
	severe := func(seq int, severity string) []byte {
		return []byte(strings.Replace(string(fileRow(seq, deviceA)), `"Seq"`, `"Severity":"`+severity+`","Seq"`, 1))
	}
	send(t, h, severe(1, "High"), severe(2, "Low"), severe(2, "Low"))
	wantFields(t, "first", deviceFields(t, runHostUntil(t, 2, "", args...).ok(t))[2], "alerts_24h", float64(2), "alerts_24h_severity", "High")
	later := strings.Replace(string(severe(3, "Medium")), `"Timestamp":"2026-03-04T05:06:06.5Z"`, `"Timestamp":"2026-03-04T05:06:06.9Z"`, 1)
	send(t, h, severe(2, "Low"), []byte(later))
	got := deviceFields(t, runHostUntil(t, 2, "", args...).ok(t))
	wantFields(t, "a repeat after a restart", got[2], "alerts_24h", float64(2), "alerts_24h_severity", "High")
	wantFields(t, "another alert after it", got[3], "alerts_24h", float64(3), "alerts_24h_severity", "High")
}

// The rows of an alert come in several messages and partitions, in any order: none loses its device
// within a second, and none is lost.
func TestAlertOverPartitions(t *testing.T) {
	t.Parallel()
	h := startHub(t, 3)
	put := func(partition int32, message []byte) {
		t.Helper()
		if err := h.ProduceTo(context.Background(), hub, partition, message); err != nil {
			t.Fatal(err)
		}
	}
	bare := func(seq int) []byte {
		return deviceRecord("AlertEvidence", fmt.Sprintf(`"Seq":%d,"AlertId":"da1","EntityType":"Ip","Title":"T","AdditionalFields":"{}"`, seq))
	}
	for i := range 33 {
		put(int32(i%3), bare(i+1))
	}
	put(2, deviceRecord("AlertInfo", `"Seq":40,"AlertId":"da1","Title":"T","Severity":"High"`))
	put(1, deviceRecord("AlertEvidence", `"Seq":41,"AlertId":"da1","EntityType":"Machine","Title":"T","DeviceId":"`+deviceA+`"`))
	put(0, reportOf(deviceA))
	got := deviceFields(t, runHostUntil(t, 36, "", settings(h)...).ok(t))
	for i := range 33 {
		wantFields(t, fmt.Sprint("row ", i+1), got[i+1], "match", "alert", "DeviceId", deviceA)
	}
}

// The warm-up waits for all containers of reports: also for those of other names and the slowest.
func TestWarmUpOfSeveralContainers(t *testing.T) {
	t.Parallel()
	account := startReports(t, 100)
	const slow = "archive-deviceinfo"
	account.CreateContainer(slow)
	account.CreateContainer("empty-deviceinfo")
	account.CreateContainer(evidenceContainer)
	account.Append(slow, hourBlob(), lineOf(reportOf(deviceA)))
	account.SetFault(func(req fakeblob.Request) *fakeblob.Fault {
		if req.Container == slow && req.Op == fakeblob.GetBlob {
			time.Sleep(3 * time.Second)
		}
		return nil
	})
	h := startHub(t, 1)
	send(t, h, fileRow(1, deviceA), fileRow(2, deviceNumber(99)))
	r := runHostUntil(t, 2, "", settings(h, "blob.connection_string="+account.ConnectionString(), "tables_exclude=DeviceInfo",
		"blob.containers=insights-logs-advancedhunting-* *-deviceinfo never-deviceinfo")...).ok(t)
	got := deviceFields(t, r)
	wantFields(t, "the slow container", got[1], "status", "hit", "MachineGroup", "Finance")
	wantFields(t, "the other", got[2], "status", "hit", "MachineGroup", "Finance")
	r.logs(t, warmedLine)
}

// Links lead to the portal of the cloud, unless another one is set.
func TestLinksOfClouds(t *testing.T) {
	f := func(want string, more ...string) {
		t.Helper()
		set := map[string]string{"eventhub.connection_string": "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=d"}
		for i := 0; i < len(more); i += 2 {
			set[more[i]] = more[i+1]
		}
		s := input.NewSettings(func(k string) string { return set[k] }, declared())
		c := readConfig(s)
		if err := s.Err(); err != nil || c.devices.memory.Portal != want {
			t.Errorf("%v: %q, want %q; %v", more, c.devices.memory.Portal, want, err)
		}
	}
	f("https://security.microsoft.com")
	f("https://security.microsoft.us", "azure.cloud", "usgov")
	f("", "azure.cloud", "china")
	f("https://security.apps.mil", "azure.cloud", "usgov", "device_info.portal", "dod")
	f("https://security.microsoft.com", "azure.cloud", "china", "device_info.portal", "commercial")
	f("", "device_info.portal", "off")
}

// A restart in the middle of an alert: its later rows have its device, title and severity.
func TestAlertOverARestart(t *testing.T) {
	t.Parallel()
	h := startHub(t, 2)
	args := settings(h, "db="+filepath.Join(t.TempDir(), "state.db"))
	send(t, h, reportOf(deviceA), deviceRecord("AlertEvidence", `"Seq":1,"AlertId":"da1","EntityType":"Machine","Title":"T","DeviceId":"`+deviceA+`"`),
		deviceRecord("AlertInfo", `"Seq":2,"AlertId":"da1","Title":"T","Severity":"High"`))
	runHostUntil(t, 3, "", args...).ok(t)
	send(t, h, deviceRecord("AlertEvidence", `"Seq":3,"AlertId":"da1","EntityType":"Ip","AdditionalFields":"{}"`))
	got := deviceFields(t, runHostUntil(t, 1, "", args...).ok(t))[3]
	wantFields(t, "after a restart", got, "match", "alert", "status", "hit", "DeviceId", deviceA, "alerts_24h", float64(1), "alerts_24h_severity", "High")
	if got["Title"] != "T" || got["Severity"] != "High" {
		t.Errorf("%v", got)
	}
}
