package main

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// deviceRows have the faults that may cost an alert its device. Their reports and alerts have no
// number and stand beside the load.
var deviceRows = []*row{
	{
		name: "device-kill", fault: "SIGKILL right after the report of a device was handed over: its next alert has the device", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			r.unnumbered = true
			h := r.host(r.startHub(1))
			h.start()
			f := r.feedHub(20_000, 8*time.Second)
			for i := range 3 {
				id := deviceID(1000 + i)
				r.sleep(time.Second)
				before := r.ledger.count().others
				if err := r.produce(hubName, deviceReport(id)); err != nil {
					r.fatalf("%v", err)
				}
				r.until(time.Minute, "the report to be handed over", func() bool { return r.ledger.count().others > before })
				// Its position is kept within a fifth of a second. Some of the kills come before.
				r.sleep(r.between(0, 400*time.Millisecond))
				h.crash()
				h.again()
				r.alertHasDevice(fmt.Sprintf("after-kill-%d", i), id, "hit")
			}
			r.finish(f)
		},
	},
	{
		name: "api-9s", fault: "the machines API answers in 9 s, with other tables beside it", source: "hub", hosts: both, ci: true,
		script: func(r *run) {
			r.unnumbered = true
			r.startHub(1)
			var asked, answered atomic.Int64 // the last when the first answer went out, in nanoseconds
			api := r.machinesAPI(func(w http.ResponseWriter, q *http.Request) {
				id, one := strings.CutPrefix(q.URL.Path, "/api/machines/")
				if !one {
					fmt.Fprint(w, `{"value":[]}`)
					return
				}
				asked.Add(1)
				pause(q.Context(), 9*time.Second)
				answered.CompareAndSwap(0, time.Now().UnixNano())
				fmt.Fprintf(w, `{"id":%q,"computerDnsName":"asked.corp.example","osPlatform":"Windows11","lastSeen":%q}`, id, time.Now().UTC().Format(time.RFC3339))
			})
			h := r.host(merge(r.hubSection(), api).with("device_info.wait", "30s"))
			h.start()
			id := deviceID(77)
			if err := r.produce(hubName, deviceAlert("slow", id)); err != nil {
				r.fatalf("%v", err)
			}
			r.until(time.Minute, "the API to be asked", func() bool { return asked.Load() > 0 })
			const n = 10_000
			f := r.feedHub(n, 2*time.Second)
			// Evidence of the load waits for its own devices, if nobody has reported them yet.
			r.until(time.Minute, "the load to pass by", func() bool { return r.ledger.count().distinct > n*9/10 })
			if answered.Load() != 0 {
				r.failf("the API had answered before the other tables had passed")
			}
			r.until(time.Minute, "the row that waits", func() bool { return r.ledger.statusOf("slow") != "" })
			if got := r.ledger.statusOf("slow"); got != "hit" {
				r.failf("its device is %s", got)
			}
			r.notef("9 of 10 events passed the row that waits")
			r.finish(f)
		},
	},
	{
		name: "devices-200k", fault: "reports of 200,000 devices, memory_limit 64M: a device that had an alert before is still known", source: "hub", hosts: cHost, ci: true,
		script: func(r *run) {
			r.unnumbered = true
			const n, perMessage = 200_000, 500
			h := r.host(r.startHub(1).with("memory_limit", "64M"))
			h.start()
			id := deviceID(n + 1)
			if err := r.produce(hubName, deviceReport(id)); err != nil {
				r.fatalf("%v", err)
			}
			r.alertHasDevice("before", id, "hit")
			f := r.feedHub(5_000, 5*time.Second)
			for first := 0; first < n; first += perMessage {
				reports := make([]string, perMessage)
				for i := range reports {
					reports[i] = reportOf(deviceID(first + i))
				}
				if err := r.produce(hubName, []byte(`{"records":[`+strings.Join(reports, ",")+`]}`)); err != nil {
					r.fatalf("%v", err)
				}
			}
			r.until(3*time.Minute, "all reports to be handed over", func() bool { return r.ledger.count().others >= n })
			r.alertHasDevice("after", id, "hit")
			r.finish(f)
			peak := h.peak().private
			r.notef("at most %d MB beside mapped files", peak>>20)
			if peak > 64<<20+beside {
				r.failf("the process took %d MB", peak>>20)
			}
		},
	},
}

func deviceID(i int) string { return fmt.Sprintf("%040x", 0xd0000000+i) }

// deviceRecord is a record of a table beside the story, whose devices it does not touch.
func deviceRecord(table, properties string) string {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	return fmt.Sprintf(`{"time":"%s","tenantId":"%s","category":"AdvancedHunting-%s","properties":{"Timestamp":"%s",%s}}`, now, story.Tenant, table, now, properties)
}

func reportOf(id string) string {
	return deviceRecord("DeviceInfo", fmt.Sprintf(`"DeviceId":"%s","DeviceName":"ws-%s.corp.example","OSPlatform":"Windows11","OSBuild":22631,"MachineGroup":"Servers",`+
		`"LoggedOnUsers":"[{\"UserName\":\"kim\",\"DomainName\":\"CORP\"}]","ExposureLevel":"Low"`, id, id[34:]))
}

func deviceReport(id string) []byte { return []byte(`{"records":[` + reportOf(id) + `]}`) }

func deviceAlert(alert, id string) []byte {
	return []byte(`{"records":[` + deviceRecord("AlertEvidence", fmt.Sprintf(`"AlertId":"%s","EntityType":"File","Title":"T",`+
		`"AdditionalFields":"{\"Host\":{\"MachineId\":\"%s\"}}"`, alert, id)) + `]}`)
}

// alertHasDevice sends an alert about a device and fails the row unless that has a status.
func (r *run) alertHasDevice(alert, id, status string) {
	if err := r.produce(hubName, deviceAlert(alert, id)); err != nil {
		r.fatalf("%v", err)
	}
	r.until(2*time.Minute, "alert "+alert, func() bool { return r.ledger.statusOf(alert) != "" })
	if got := r.ledger.statusOf(alert); got != status {
		r.failf("the device of alert %s is %s, want %s", alert, got, status)
	}
}

// machinesAPI starts the machines API and its sign-in, and returns the settings to ask it. answer
// is for requests that are signed in.
func (r *run) machinesAPI(answer http.HandlerFunc) section {
	const tenant, secret, token = "5f0c1d2e-7a34-4b56-9c78-0d1e2f3a4b5c", "secret-of-the-application", "token-nobody-may-print"
	r.secrets = append(r.secrets, secret, token)
	var api *httptest.Server
	api = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		base := api.URL + "/" + tenant
		w.Header().Set("Content-Type", "application/json")
		switch q.URL.Path {
		case "/" + tenant + "/v2.0/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"token_endpoint":"%s/oauth2/v2.0/token","authorization_endpoint":"%s/oauth2/v2.0/authorize","issuer":"%s/v2.0"}`, base, base, base)
		case "/" + tenant + "/oauth2/v2.0/token":
			fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"%s"}`, token)
		default:
			answer(w, q)
		}
	}))
	r.cleanup(api.Close)
	ca := filepath.Join(r.dir, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		r.fatalf("%v", err)
	}
	return section{
		"device_info.auth": "client_secret", "device_info.api.url": api.URL, "azure.authority_host": api.URL + "/",
		"azure.tenant_id": tenant, "azure.client_id": tenant, "azure.client_secret": secret, "azure.ca_file": ca,
	}
}
