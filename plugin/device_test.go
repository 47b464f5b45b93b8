package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

const (
	deviceTenant = "11111111-2222-3333-4444-555555555555"
	deviceA      = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a101"
	deviceB      = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b202"
)

func deviceRecord(table, properties string) []byte {
	return []byte(`{"records":[{"time":"2026-03-04T05:06:07.1234567Z","tenantId":"` + deviceTenant + `","category":"AdvancedHunting-` + table +
		`","properties":{"Timestamp":"2026-03-04T05:06:06.5Z",` + properties + `}}]}`)
}

// fileRow is evidence that has its host only inside AdditionalFields.
func fileRow(seq int, id string) []byte {
	return deviceRecord("AlertEvidence", fmt.Sprintf(`"Seq":%d,"AlertId":"da%d_1","EntityType":"File","DeviceId":null,`+
		`"AdditionalFields":"{\"Host\":{\"$id\":\"3\",\"HostName\":\"ws\",\"MachineId\":\"%s\"}}"`, seq, seq, id))
}

func reportOf(id string) []byte {
	return deviceRecord("DeviceInfo", `"DeviceId":"`+strings.ToUpper(id)+`","DeviceName":"ws.contoso.example","OSPlatform":"Windows11","MachineGroup":"Finance"`)
}

func deviceFields(t *testing.T, r run) map[int]map[string]any {
	t.Helper()
	found := make(map[int]map[string]any)
	for _, e := range r.events {
		var m map[string]any
		if err := json.Unmarshal(e.Record, &m); err != nil {
			t.Fatal(err)
		}
		if m["table"] == "AlertEvidence" {
			found[e.Seq] = m
		}
	}
	return found
}

func send(t *testing.T, h *fakehub.Hub, messages ...[]byte) {
	t.Helper()
	if err := h.Produce(context.Background(), hub, messages...); err != nil {
		t.Fatal(err)
	}
}

// An alert carries its device; and after a restart the first one does, from the state file alone.
func TestDeviceOnAlertAndAfterARestart(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	db := "db=" + filepath.Join(t.TempDir(), "state.db")
	send(t, h, fileRow(1, deviceA), reportOf(deviceA))
	r := runHost(t, append([]string{"-seconds", "20", "-records", "2"}, settings(h, db)...)...).ok(t)
	got := deviceFields(t, r)[1]
	if got["DeviceInfo.DeviceId"] != deviceA || got["DeviceInfo.match"] != "evidence" {
		t.Fatalf("%v", got)
	}
	send(t, h, fileRow(2, deviceA), fileRow(3, deviceB))
	r = runHost(t, append([]string{"-seconds", "20", "-records", "2"}, settings(h, db)...)...).ok(t)
	r.logs(t, "devices read from the state file")
	first, unknown := deviceFields(t, r)[2], deviceFields(t, r)[3]
	if first["DeviceInfo.status"] != "hit" || first["DeviceInfo.OSPlatform"] != "Windows11" || first["DeviceInfo.MachineGroup"] != "Finance" {
		t.Errorf("%v", first)
	}
	if unknown["DeviceInfo.OSPlatform"] != nil || unknown["DeviceInfo.DeviceName"] != "ws" {
		t.Errorf("%v", unknown)
	}
	send(t, h, fileRow(4, deviceA))
	r = runHost(t, append([]string{"-seconds", "20", "-records", "1"}, settings(h, db, "device_info=off")...)...).ok(t)
	for k := range deviceFields(t, r)[4] {
		if strings.HasPrefix(k, "DeviceInfo.") {
			t.Errorf("%s with device_info off", k)
		}
	}
}

// A host that is killed has not forgotten a report whose position was kept.
func TestReportOutlivesAKill(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	args := settings(h, "db="+filepath.Join(t.TempDir(), "state.db"))
	send(t, h, reportOf(deviceA))
	killed := startHost(t, nil, args...)
	waitForCommit(t, h, 1)
	killed.kill()
	forgetMembers(t, h)
	send(t, h, fileRow(1, deviceA))
	r := runHost(t, append([]string{"-seconds", "60", "-records", "1"}, args...)...).ok(t)
	if len(r.events) != 1 {
		t.Errorf("%d events, want the alert alone: the report was read again", len(r.events))
	}
	if got := deviceFields(t, r)[1]; got["DeviceInfo.status"] != "hit" || got["DeviceInfo.MachineGroup"] != "Finance" {
		t.Errorf("%v\n%s", got, r.log)
	}
}

// waitForCommit waits until the offset of partition 0 that the plugin's group has committed is n.
func waitForCommit(t *testing.T, h *fakehub.Hub, n int64) {
	t.Helper()
	client, err := kgo.NewClient(h.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		offsets, err := kadm.NewClient(client).FetchOffsets(ctx, eventhub.DefaultGroup)
		if err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
		if o, ok := offsets.Lookup(hub, 0); ok && o.At >= n {
			return
		}
		_ = input.Sleep(ctx, 20*time.Millisecond)
	}
}

const appSecret = "s3cret-of-the-application"

// startMachines serves the machines API, which lists deviceA, knows deviceB and no other, and its
// sign-in. It returns the settings of who may ask.
func startMachines(t *testing.T, tenant string) []string { return startSlowMachines(t, tenant, 0) }

// startSlowMachines does the same, and answers for one device after a delay.
// The list has more, too.
func startSlowMachines(t *testing.T, tenant string, delay time.Duration, more ...string) []string {
	t.Helper()
	machine := func(id, name string) string {
		return `{"id":"` + id + `","computerDnsName":"` + name + `","osPlatform":"Windows11","version":"23H2","lastSeen":"2026-03-04T04:00:00Z","riskScore":"High"}`
	}
	return startAPI(t, tenant, strings.Join(append(more, machine(deviceA, "listed.contoso.example")), ","), func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != deviceB {
			http.NotFound(w, r)
			return
		}
		_ = input.Sleep(r.Context(), delay)
		_, _ = w.Write([]byte(machine(deviceB, "asked.contoso.example")))
	})
}

// startAPI serves a machines API with a list, and its sign-in. It returns the settings of who may
// ask.
func startAPI(t *testing.T, tenant, list string, lookup http.HandlerFunc) []string {
	t.Helper()
	var srv *httptest.Server
	mux := http.NewServeMux()
	mux.HandleFunc("/"+tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": srv.URL + "/" + tenant + "/v2.0",
			"authorization_endpoint": srv.URL + "/authorize", "token_endpoint": srv.URL + "/token"})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.FormValue("client_secret") != appSecret {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"token_type":"Bearer","expires_in":3599,"access_token":"granted"}`))
	})
	mux.HandleFunc("/api/machines", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer granted" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"value":[` + list + `]}`))
	})
	mux.HandleFunc("/api/machines/{id}", lookup)
	srv = httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	ca, secretFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "secret")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secretFile, []byte(appSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"device_info.auth=client_secret", "azure.tenant_id=" + tenant, "azure.client_id=app", "azure.client_secret_file=" + secretFile,
		"azure.authority_host=" + srv.URL + "/", "azure.ca_file=" + ca, "device_info.api.url=" + srv.URL}
}

// The whole way to the machines API: token, list, a device that the list lacks, quota and secret
// out of the log.
func TestDeviceFromTheAPI(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	send(t, h, fileRow(1, deviceA), fileRow(2, deviceB), fileRow(3, "c3c3"))
	r := runHost(t, append([]string{"-seconds", "20", "-records", "3"}, settings(h, append(startMachines(t, deviceTenant), "device_info.wait=15s")...)...)...).ok(t)
	if strings.Contains(r.log, appSecret) || strings.Contains(r.log, "granted") {
		t.Errorf("the log shows a secret:\n%s", r.log)
	}
	got := deviceFields(t, r)
	for seq, want := range map[int][3]any{1: {"hit", "listed.contoso.example", "High"}, 2: {"hit", "asked.contoso.example", "High"}, 3: {"unknown", "ws", nil}} {
		if m := got[seq]; m["DeviceInfo.status"] != want[0] || m["DeviceInfo.DeviceName"] != want[1] && seq != 1 || m["DeviceInfo.RiskScore"] != want[2] && seq != 1 {
			t.Errorf("record %d: want %v, got %v", seq, want, m)
		}
	}
}

// Behind a machines API that takes 9 s only the row that asks for it waits, as long as it may. A
// kill meanwhile loses nothing: the position of its message waits with it.
func TestSlowAPIHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	api := startSlowMachines(t, deviceTenant, 9*time.Second)
	db := "db=" + filepath.Join(t.TempDir(), "state.db")
	send(t, h, fileRow(10_000, deviceB))
	produce(t, h, 0, 2000)
	args := settings(h, append(api, db, "device_info.wait=30s")...)
	first := make(map[int]bool)
	others := make(chan struct{})
	killed := startHost(t, func(e event) {
		if first[e.Seq] = true; len(first) == 2000 {
			close(others)
		}
	}, args...)
	killed.await(t, others)
	killed.kill() // the row still waits: it needs 9 s, and others have come
	if first[10_000] {
		t.Error("the row came before the 9 s were over, or others waited for it")
	}
	forgetMembers(t, h)
	args = settings(h, append(api, db, "device_info.wait=2s")...)
	r := runHostUntil(t, 2001, "", args...).ok(t)
	last := r.events[len(r.events)-1]
	if got := deviceFields(t, r)[10_000]; last.Seq != 10_000 || got["DeviceInfo.status"] != "pending" || got["DeviceInfo.DeviceId"] != deviceB {
		t.Errorf("the last event is %d; %v", last.Seq, got)
	}
	// All is committed: nothing comes again.
	send(t, h, fileRow(10_001, deviceA))
	if r = runHost(t, append([]string{"-seconds", "60", "-records", "1"}, args...)...).ok(t); len(r.events) != 1 || r.events[0].Seq != 10_001 {
		t.Errorf("%d events after a restart", len(r.events))
	}
}

// Settings of device information that cannot work are refused, each by name.
func TestDeviceSettings(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	r := runHost(t, append([]string{"-seconds", "1"}, settings(h, "device_info.cache_bytes=64", "device_info.auth=client_secret", "azure.tenant_id=contoso.example",
		"device_info.api.url=ftp://x", "device_info.tabels=AlertInfo", "device_info.wait=soon",
		"device_info.prefix=", "device_info.tables=,")...)...)
	if r.code == 0 {
		t.Error("it starts")
	}
	for _, want := range []string{"device_info.cache_bytes", "azure.client_id", "azure.tenant_id \"contoso.example\"", "device_info.api.url", "did you mean device_info.tables?", "device_info.wait",
		"device_info.prefix \" \": is empty", "device_info.tables \",\": names no table"} {
		r.logs(t, want)
	}
}

// Misspelt names are logged at the start. They do not end it: Microsoft adds tables and columns
// without notice.
func TestMisspeltNamesOfDeviceSettings(t *testing.T) {
	f := func(key, value string, want ...string) {
		t.Helper()
		set := map[string]string{"eventhub.connection_string": "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=d", key: value}
		s := input.NewSettings(func(k string) string { return set[k] }, declared())
		readConfig(s)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		if got := s.Warnings(); !slices.Equal(got, want) {
			t.Errorf("%s %q: %q, want %q", key, value, got, want)
		}
	}
	f("device_info.tables", "alertevidence AdvancedHunting-AlertInfo,Behavior*")
	f("device_info.tables", "AlertEvidence AlertInof", `device_info.tables: no table is called "AlertInof"; did you mean AlertInfo?`)
	f("device_info.tables", "BrandNewTable", `device_info.tables: no table is called "BrandNewTable"`)
	f("device_info.tables", "Behaviour*", `device_info.tables: no table matches "Behaviour*"; did you mean Behavior*?`)
	f("device_info.fields", "devicename,Tags,SomethingNew")
	f("device_info.fields", "DeviceNmae", `device_info.fields: DeviceInfo is not known to have a column "DeviceNmae"; did you mean DeviceName?`)
}

// A prefix of blanks is refused. Fluent Bit drops an empty one, so it never gets here.
func TestBlankPrefix(t *testing.T) {
	set := map[string]string{"eventhub.connection_string": "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=d", "device_info.prefix": "  "}
	s := input.NewSettings(func(k string) string { return set[k] }, declared())
	readConfig(s)
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "device_info.prefix") {
		t.Errorf("%v", err)
	}
}

// Figures of devices: rows by table and status, and how old the newest full report is.
func TestFiguresOfDevices(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	report := strings.ReplaceAll(string(reportOf(deviceA)), "2026-03-04T05:06:06.5Z", time.Now().UTC().Add(-time.Hour).Format(time.RFC3339))
	report = strings.ReplaceAll(report, "2026-03-04T05:06:07.1234567Z", time.Now().UTC().Format(time.RFC3339))
	send(t, h, []byte(report), fileRow(1, deviceA), fileRow(2, deviceA), fileRow(3, deviceB), deviceRecord("AlertInfo", `"AlertId":"da1_1","Seq":4`))
	file := filepath.Join(t.TempDir(), "metrics")
	runHost(t, append(settings(h, "device_info.tables=AlertEvidence AlertInfo"), "-seconds", "12", "-metrics", file)...).ok(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`device_rows_total\{name="defender.0",table="AlertEvidence",status="hit"\} 2`,
		`device_rows_total\{name="defender.0",table="AlertEvidence",status="unknown"\} 1`,
		`device_rows_total\{name="defender.0",table="AlertEvidence",status="none"\} 0`,
		`device_rows_total\{name="defender.0",table="AlertInfo",status="hit"\} 1`,
		`device_newest_report_age_seconds\{name="defender.0"\} 36\d\d(\.\d+)?`,
		`devices_evicted_total\{name="defender.0"\} 0`,
		`device_not_waited_total\{name="defender.0"\} 0`,
	} {
		if !regexp.MustCompile(`(?m)^fluentbit_defender_` + line + `$`).Match(b) {
			t.Errorf("no line %s in\n%s", line, b)
		}
	}
	if strings.Contains(string(b), `device_rows_total{name="defender.0",table="DeviceInfo"`) {
		t.Error("rows of a table that gets no device are counted")
	}
}

// Sovereign clouds have portals of their own, and a cloud without one gets no links.
func TestPortal(t *testing.T) {
	for _, c := range [][3]string{
		{"auto", "public", "https://security.microsoft.com"}, {"auto", "usgov", "https://security.microsoft.us"}, {"auto", "china", ""},
		{"off", "public", ""}, {"dod", "usgov", "https://security.apps.mil"}, {"gcc_high", "public", "https://security.microsoft.us"}, {"commercial", "usgov", "https://security.microsoft.com"},
	} {
		if got := portal(c[0], c[1]); got != c[2] {
			t.Errorf("%s in %s: %q, want %q", c[0], c[1], got, c[2])
		}
	}
}
