package examples_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

const (
	deviceTenant = "11111111-2222-3333-4444-555555555555"
	deviceID     = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a101"
)

func deviceRecord(table, properties string) string {
	return `{"time":"2026-03-04T05:06:07.1234567Z","tenantId":"` + deviceTenant + `","category":"AdvancedHunting-` + table +
		`","properties":{"Timestamp":"2026-03-04T05:06:06.5Z",` + properties + `}}`
}

// alert is evidence whose host is only inside its AdditionalFields.
func alert(entity string) []byte {
	return []byte(`{"records":[` + deviceRecord("AlertEvidence", `"AlertId":"da1_1","EntityType":"`+entity+`","DeviceId":null,`+
		`"AdditionalFields":"{\"Host\":{\"HostName\":\"ws\",\"MachineId\":\"`+deviceID+`\"}}"`) + `]}`)
}

// runSection runs the section of a configuration in the C host, with the settings in instead of
// some, until it has handed over n records.
func runSection(t *testing.T, file, n string, instead map[string]string, more ...string) (records []map[string]any, log string) {
	t.Helper()
	library, host := plugin(t), cHost(t)
	args := []string{"-records", n, "-seconds", "30", "-storage", filepath.Join(t.TempDir(), "storage")}
	for _, s := range settingsOf(t, example(t, file)) {
		if v, ok := instead[s[0]]; ok {
			delete(instead, s[0])
			if s[1] = v; v == "" {
				continue
			}
		}
		args = append(args, "-set", s[0]+"="+s[1])
	}
	if len(instead) > 0 {
		t.Errorf("%s no longer sets %v", file, instead)
	}
	for _, s := range more {
		args = append(args, "-set", s)
	}
	events, logs := runHost(t, host, append(args, library)...)
	for line := range strings.Lines(events) {
		var e struct{ Record map[string]any }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %.200s", err, line)
		}
		records = append(records, e.Record)
	}
	return records, logs.String()
}

func deviceHub(t *testing.T, messages ...[]byte) *fakehub.Hub {
	t.Helper()
	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 1}, EntityPath: hubName})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	if err := hub.Produce(context.Background(), hubName, messages...); err != nil {
		t.Fatal(err)
	}
	return hub
}

// deviceAccount is a storage account with an empty container of DeviceInfo. What is told to report
// goes to its blob of this hour.
func deviceAccount(t *testing.T) (account *fakeblob.Server, report func(text string)) {
	t.Helper()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	const container = "insights-logs-advancedhunting-deviceinfo"
	account.CreateContainer(container)
	name := "tenantId=" + deviceTenant + "/" + time.Now().UTC().Format("y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
	return account, func(text string) { account.Append(container, name, []byte(text)) }
}

// The alert comes from the hub, and its device from a blob, in one section.
func TestDevicesFromBlobs(t *testing.T) {
	t.Parallel()
	account, report := deviceAccount(t)
	hub := deviceHub(t)
	var fed sync.WaitGroup
	t.Cleanup(fed.Wait)
	fed.Go(func() { // the report, and when it has surely been read, the alert
		time.Sleep(3 * time.Second)
		report(deviceRecord("DeviceInfo", `"DeviceId":"`+deviceID+`","DeviceName":"ws.contoso.example","OSPlatform":"Windows11"`) + "\r\n")
		time.Sleep(6 * time.Second)
		_ = hub.Produce(context.Background(), hubName, alert("File"))
	})
	records, log := runSection(t, "devices/hub-and-blobs.yaml", "1", map[string]string{
		"eventhub.connection_string": hub.ConnectionString(), "db": filepath.Join(t.TempDir(), "defender.db"),
		"blob.account_url": "", "blob.auth": "", "azure.tenant_id": "", "azure.client_id": "", "azure.client_secret": "",
	}, "eventhub.brokers="+hub.Brokers(), "eventhub.ca_file="+hub.CAFile(), "eventhub.start=earliest", "blob.connection_string="+account.ConnectionString(), "blob.poll_interval=1s")
	if len(records) != 1 || records[0]["table"] != "AlertEvidence" || records[0]["DeviceInfo.OSPlatform"] != "Windows11" || records[0]["DeviceInfo.status"] != "hit" {
		t.Errorf("%v\n%s", records, log)
	}
}

// The API cannot be reached: the alerts come all the same.
func TestDevicesWithoutTheAPI(t *testing.T) {
	t.Parallel()
	hub := deviceHub(t, alert("File"), alert("User"), alert("Process"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("invented"), 0o600); err != nil {
		t.Fatal(err)
	}
	records, log := runSection(t, "devices/machines-api.yaml", "3", map[string]string{
		"eventhub.connection_string": hub.ConnectionString(), "db": filepath.Join(t.TempDir(), "defender.db"),
		"azure.tenant_id": deviceTenant, "azure.client_id": "app", "azure.client_secret_file": secret,
	}, "eventhub.brokers="+hub.Brokers(), "eventhub.ca_file="+hub.CAFile(), "eventhub.start=earliest",
		"azure.authority_host=https://127.0.0.1:1/", "device_info.api.url=https://127.0.0.1:1")
	if len(records) != 3 {
		t.Errorf("%d records", len(records))
	}
	for _, r := range records {
		if r["DeviceInfo.DeviceId"] != deviceID || r["DeviceInfo.DeviceName"] != "ws" || r["DeviceInfo.status"] != "pending" {
			t.Errorf("%v", r)
		}
	}
	if n := strings.Count(log, "the machines API does not work"); n > 1 {
		t.Errorf("it is said %d times:\n%s", n, log)
	}
}
