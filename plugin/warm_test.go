package main

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

const (
	deviceContainer   = "insights-logs-advancedhunting-deviceinfo"
	evidenceContainer = "insights-logs-advancedhunting-alertevidence"
	warmedLine        = "recent reports of devices are read"
	notWarmedLine     = "read recent reports of devices: not all came in time"
)

// record takes the one record out of an envelope, as a line of a blob.
func lineOf(envelope []byte) []byte {
	text := strings.TrimSuffix(strings.TrimPrefix(string(envelope), `{"records":[`), `]}`)
	return []byte(text + "\r\n")
}

// hourBlob is the name of this hour's blob.
func hourBlob() string {
	return "tenantId=" + deviceTenant + "/" + time.Now().UTC().Format("y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
}

// startReports starts an account whose blob of this hour has reports of n devices, with the ids
// deviceNumber(0) and so on.
func startReports(t *testing.T, n int) *fakeblob.Server {
	t.Helper()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	account.CreateContainer(deviceContainer)
	var b bytes.Buffer
	for i := range n {
		b.Write(lineOf(reportOf(deviceNumber(i))))
	}
	if n > 0 {
		account.Append(deviceContainer, hourBlob(), b.Bytes())
	}
	return account
}

func deviceNumber(i int) string { return fmt.Sprintf("%036xabcd", i+1) }

// At the first start the first alert has its device, although 60,000 reports are to be read before,
// from another source. No other start waits.
func TestFirstAlertHasItsDevice(t *testing.T) {
	t.Parallel()
	const n = 60_000
	h := startHub(t, 1)
	account := startReports(t, n)
	args := settings(h, "blob.connection_string="+account.ConnectionString(), "tables_exclude=DeviceInfo", "db="+filepath.Join(t.TempDir(), "state.db"))
	send(t, h, fileRow(1, deviceNumber(n-1)))
	r := runHostUntil(t, 1, "", args...).ok(t)
	if got := deviceFields(t, r)[1]; got["DeviceInfo.status"] != "hit" || got["DeviceInfo.MachineGroup"] != "Finance" {
		t.Errorf("%v\n%s", got, r.log)
	}
	if strings.Count(r.log, warmedLine) != 1 || strings.Contains(r.log, notWarmedLine) {
		t.Errorf("the log:\n%s", r.log)
	}
	// A device that is not among the saved ones is not waited for, though nothing can be read.
	account.SetFault(func(fakeblob.Request) *fakeblob.Fault {
		return &fakeblob.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}
	})
	send(t, h, fileRow(2, deviceNumber(7)), fileRow(3, deviceNumber(n)))
	begun := time.Now()
	r = runHostUntil(t, 2, "", append(args, "-set", "device_info.warm_up_wait=150s")...).ok(t)
	got := deviceFields(t, r)
	if got[2]["DeviceInfo.status"] != "hit" || got[3]["DeviceInfo.status"] != "unknown" || time.Since(begun) > 100*time.Second || strings.Contains(r.log, warmedLine) {
		t.Errorf("after %v: %v, %v\n%s", time.Since(begun), got[2], got[3], r.log)
	}
}

// From blobs alone, too: evidence that is read before the reports waits for them.
func TestFirstAlertInABlobHasItsDevice(t *testing.T) {
	t.Parallel()
	account := startReports(t, 20_000)
	account.CreateContainer(evidenceContainer)
	account.Append(evidenceContainer, hourBlob(), lineOf(fileRow(1, deviceNumber(19_999))))
	args := []string{"-set", "blob.connection_string=" + account.ConnectionString(), "-set", "blob.start=earliest", "-set", "tables_exclude=DeviceInfo"}
	r := runHostUntil(t, 1, "", args...).ok(t)
	if got := deviceFields(t, r)[1]; got["DeviceInfo.status"] != "hit" {
		t.Errorf("%v\n%s", got, r.log)
	}
	r.logs(t, warmedLine)
}

// With an account that fails, rows with a device are passed on after the wait, with the known
// facts, and the log says so once. Rows without one and other tables wait for nothing.
func TestWarmUpWaitEnds(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	account := startReports(t, 10)
	account.SetFault(func(req fakeblob.Request) *fakeblob.Fault {
		if req.Op == fakeblob.GetBlob {
			return &fakeblob.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}
		}
		return nil
	})
	send(t, h, fileRow(10_001, deviceNumber(3)), reportOf(deviceNumber(4)), fileRow(10_002, deviceNumber(4)))
	produce(t, h, 0, 100)
	args := settings(h, "blob.connection_string="+account.ConnectionString(), "tables_exclude=DeviceInfo", "device_info.warm_up_wait=3s")
	r := runHostUntil(t, 102, "", args...).ok(t)
	got := deviceFields(t, r)
	if got[10_001]["DeviceInfo.status"] != "unknown" || got[10_002]["DeviceInfo.status"] != "hit" {
		t.Errorf("%v, %v", got[10_001], got[10_002])
	}
	if len(r.events) != 102 || r.events[100].Seq < 10_000 || r.events[101].Seq < 10_000 {
		t.Errorf("%d events; rows with a device came before the others", len(r.events))
	}
	if strings.Count(r.log, notWarmedLine) != 1 || strings.Contains(r.log, warmedLine) {
		t.Errorf("the log:\n%s", r.log)
	}
}

// A stop in the middle of the wait ends at once and loses nothing. The next start waits, though
// some devices are known by then.
func TestStopDuringTheWarmUp(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	account := startReports(t, 10)
	fails := func(req fakeblob.Request) *fakeblob.Fault {
		if req.Op == fakeblob.GetBlob {
			return &fakeblob.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}
		}
		return nil
	}
	account.SetFault(fails)
	send(t, h, fileRow(1, deviceNumber(3)), reportOf(deviceNumber(4)))
	args := append(settings(h, "blob.connection_string="+account.ConnectionString(), "db="+filepath.Join(t.TempDir(), "state.db"), "device_info.warm_up_wait=10m"), "-grace", "0")
	came := make(chan struct{})
	first := sync.OnceFunc(func() { close(came) })
	stopped := startHost(t, func(event) { first() }, args...)
	stopped.await(t, came) // the report
	since := time.Now()
	stopped.end(t)
	if took := time.Since(since); len(stopped.events) != 1 || took > 14*time.Second {
		t.Errorf("%d events after %v\n%s", len(stopped.events), took, stopped.text())
	}
	account.SetFault(nil)
	r := runHostUntil(t, 1, "", append(args, "-set", "tables_exclude=DeviceInfo")...).ok(t)
	if got := deviceFields(t, r)[1]; got["DeviceInfo.status"] != "hit" {
		t.Errorf("%v\n%s", got, r.log)
	}
	r.logs(t, warmedLine)
}
