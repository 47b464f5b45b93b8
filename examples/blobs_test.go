package examples_test

import (
	"path/filepath"
	"testing"
	"time"
)

// The section of examples/blobs delivers what a storage account has under Defender's own paths.
func TestBlobs(t *testing.T) {
	t.Parallel()
	account, report := deviceAccount(t)
	record := deviceRecord("DeviceInfo", `"DeviceId":"`+deviceID+`","DeviceName":"ws.contoso.example"`) + "\r\n"
	report(record + record[:100])
	go func() { // the rest of the second line, and a third
		time.Sleep(2 * time.Second)
		report(record[100:] + record)
	}()
	records, log := runSection(t, "blobs/fluent-bit.yaml", "3", map[string]string{
		"db": filepath.Join(t.TempDir(), "defender.db"), "blob.connection_string": account.ConnectionString(), "blob.start": "earliest",
	}, "blob.poll_interval=1s")
	if len(records) != 3 {
		t.Fatalf("%d records\n%s", len(records), log)
	}
	for _, r := range records {
		if r["table"] != "DeviceInfo" || r["DeviceName"] != "ws.contoso.example" {
			t.Errorf("%v", r)
		}
	}
}
