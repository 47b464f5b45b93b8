//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// TestIntegrationPrometheus has a real Prometheus scrape a running plugin, run every query of the
// dashboard against that, and load the alert rules. The plugin runs in the C host, and beside it in
// Fluent Bit, where there is one: only that has outputs.
func TestIntegrationPrometheus(t *testing.T) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("this test needs Prometheus (Debian's package prometheus)")
	}
	h := startHub(t, 2)
	account := startBlobs(t)
	account.CreateContainer(workersContainer)
	dir := t.TempDir()
	file := filepath.Join(dir, "metrics")
	const seconds = "200" // the host is stopped at the end of the test
	feed, stopFeed := context.WithTimeout(t.Context(), 200*time.Second)
	var feeding sync.WaitGroup
	feeding.Go(func() { tellToHub(feed, h) })
	feeding.Go(func() { tellToAccount(feed, account) })
	feeding.Go(func() { // the hub is away for some seconds now and then
		for feed.Err() == nil {
			sleep(feed, 25*time.Second)
			h.SetDown(feed.Err() == nil)
			sleep(feed, 4*time.Second)
			h.SetDown(false)
		}
	})
	defer feeding.Wait()
	defer stopFeed()
	so, host := build(t)
	set := append(startMachines(t, story.Tenant), "blob.connection_string="+account.ConnectionString(), "blob.start=earliest", "blob.poll_interval=3s", "blob.shared="+workersContainer, "memory_limit=64M")
	args := append(settings(h, set...), "-quiet", "-seconds", seconds, "-metrics", file, "-refuse-between", "60,95", "-slow", "40", so)
	running := exec.CommandContext(t.Context(), host, args...)
	running.Stderr = os.Stderr
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = running.Process.Kill(); _ = running.Wait() }()

	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b, _ := os.ReadFile(file)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(b)
	}))
	defer scraped.Close()
	targets := []string{strings.TrimPrefix(scraped.URL, "http://")}
	quiet := []string{"Failed attempts"} // none yet
	if binary := os.Getenv("FLUENT_BIT"); binary != "" {
		targets = append(targets, fluentBitWithOutput(t, binary))
	} else {
		quiet = append(quiet, "Outputs: delivered", "Outputs: sent again", "Outputs: given up", "What waits in Fluent Bit")
	}
	rules, err := filepath.Abs("../examples/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n  - job_name: fluent-bit\n    metrics_path: /api/v2/metrics/prometheus\n    static_configs: [{targets: [%s]}]\n",
		rules, strings.Join(targets, ", "))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	server := exec.CommandContext(t.Context(), prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+address, "--log.level=error")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()

	ask := func(path string, q url.Values, answer any) error {
		resp, err := http.Get("http://" + address + path + "?" + q.Encode())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %s %w", path, resp.Status, b, err)
		}
		return json.Unmarshal(b, answer)
	}
	type result struct {
		Data struct{ Result []json.RawMessage }
	}
	query := func(expr string) (int, error) {
		expr = strings.NewReplacer("$section", ".*", "$__rate_interval", "10s").Replace(expr)
		var r result
		err := ask("/api/v1/query", url.Values{"query": {expr}}, &r)
		return len(r.Data.Result), err
	}
	// Until rates have two samples to be made of, two reports of the plugin apart.
	started := time.Now()
	deadline := started.Add(45 * time.Second)
	for {
		n, err := query(`rate(fluentbit_defender_records_total[10s]) > 0`)
		if err == nil && n > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("Prometheus shows no rate of records: %v", err)
		}
		time.Sleep(time.Second)
	}

	panels, _ := monitoringQueries(t)
	for title, exprs := range panels {
		// Some series are there only some reports later: each panel has until the deadline.
		for {
			total := 0
			for _, expr := range exprs {
				n, err := query(expr)
				if err != nil {
					t.Errorf("%s: %v", title, err)
				}
				total += n
			}
			if total > 0 || t.Failed() || slices.Contains(quiet, title) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s: no data for %q", title, exprs)
				break
			}
			time.Sleep(time.Second)
		}
	}
	if path := os.Getenv("DEFENDER_PICTURE"); path != "" {
		time.Sleep(time.Until(started.Add(150 * time.Second))) // so that there is something to see
		drawDashboard(t, path, func(expr, legend string) (lines []line) {
			expr = strings.NewReplacer("$section", ".*", "$__rate_interval", "15s").Replace(expr)
			var r struct {
				Data struct {
					Result []struct {
						Metric map[string]string
						Values [][2]any
					}
				}
			}
			now := time.Now().Unix()
			if err := ask("/api/v1/query_range", url.Values{"query": {expr}, "start": {fmt.Sprint(now - 140)}, "end": {fmt.Sprint(now)}, "step": {"2"}}, &r); err != nil {
				t.Error(err)
			}
			for _, result := range r.Data.Result {
				l := line{name: legend}
				for label, value := range result.Metric {
					l.name = strings.ReplaceAll(l.name, "{{"+label+"}}", value)
				}
				for _, v := range result.Values {
					if n, err := strconv.ParseFloat(v[1].(string), 64); err == nil && !math.IsNaN(n) {
						l.points = append(l.points, [2]float64{v[0].(float64), n})
					}
				}
				if len(l.points) > 0 {
					lines = append(lines, l)
				}
			}
			return lines
		})
	}
	var loaded struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
	}
	if err := ask("/api/v1/rules", nil, &loaded); err != nil {
		t.Fatal(err)
	}
	rulesLoaded := 0
	for _, g := range loaded.Data.Groups {
		for _, r := range g.Rules {
			rulesLoaded++
			// What the output of the real Fluent Bit gives up here is meant to be seen.
			if r.Health != "ok" || r.State == "firing" && r.Name != "OutputDropped" {
				t.Errorf("alert %s: health %s, %s %s", r.Name, r.Health, r.State, r.LastError)
			}
		}
	}
	if rulesLoaded < 10 {
		t.Errorf("%d rules", rulesLoaded)
	}
}

// fluentBitWithOutput starts a Fluent Bit with a hub, a format and a state of its own. Its Splunk
// is down for half a minute and then refuses a chunk now and then. It returns where its figures
// are.
func fluentBitWithOutput(t *testing.T, binary string) (address string) {
	t.Helper()
	h, dir := startHub(t, 2), t.TempDir()
	feed, stopFeed := context.WithCancel(t.Context())
	var feeding sync.WaitGroup
	feeding.Go(func() { tellToHub(feed, h) })
	t.Cleanup(func() { stopFeed(); feeding.Wait() })
	started := time.Now()
	var asked atomic.Int64
	siem := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch since := time.Since(started); {
		case since > 40*time.Second && since < 75*time.Second:
			w.WriteHeader(http.StatusServiceUnavailable)
		case asked.Add(1)%20 == 0:
			w.WriteHeader(http.StatusForbidden)
		default:
			_, _ = io.WriteString(w, `{"text":"Success","code":0}`)
		}
	}))
	t.Cleanup(siem.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	_, port, _ := strings.Cut(address, ":")
	_, siemPort, _ := strings.Cut(strings.TrimPrefix(siem.URL, "http://"), ":")
	conf := configure(t, dir, newSink(t), section(h, "eventhub.start earliest", "eventhub.group add-on", "format splunk", "alias add-on", "db "+dir+"/state.db"))
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	service, _, _ := strings.Cut(string(text), "[OUTPUT]\n")
	service = strings.Replace(service, "[SERVICE]\n", "[SERVICE]\n    http_server on\n    http_listen 127.0.0.1\n    http_port "+port+"\n    storage.metrics on\n", 1)
	service += "[OUTPUT]\n    name splunk\n    alias splunk\n    match *\n    host 127.0.0.1\n    port " + siemPort + "\n    splunk_token 0123456789\n    retry_limit no_limits\n"
	if err := os.WriteFile(conf, []byte(service), 0o600); err != nil {
		t.Fatal(err)
	}
	startFluentBit(t, binary, conf)
	return address
}

// Some rules fire, and not before their time: for an output that retries, for one that gave events
// up, and for a hub that cannot be reached. Nothing else shows these. So do those for workers that
// share blobs, which are several instances of one name.
func TestIntegrationAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("this test needs promtool (Debian's package prometheus)")
	}
	rules, err := filepath.Abs("../examples/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `rule_files: [%s]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series: # the output fails after 5 minutes, and gives up after 15; the hub's name never resolves
      - {series: 'fluentbit_output_retries_total{name="splunk.0"}', values: '0x10 1+1x200'}
      - {series: 'fluentbit_output_dropped_records_total{name="splunk.0"}', values: '0x30 100x30'}
      - {series: 'fluentbit_output_retries_failed_total{name="splunk.0"}', values: '0x60'}
      - {series: 'fluentbit_defender_payloads_total{name="defender.0"}', values: '0x200'}
      - {series: 'fluentbit_defender_eventhub_retries_total{name="defender.0",kind="dns"}', values: '0+1x200'}
      # one of two workers ends after 10 minutes, and nobody claims its shares until the 30th
      - {series: 'fluentbit_defender_blob_shards{name="blobs",instance="a"}', values: '32x400'}
      - {series: 'fluentbit_defender_blob_shards{name="blobs",instance="b"}', values: '32x20 stale'}
      - {series: 'fluentbit_defender_blob_shards_owned{name="blobs",instance="a"}', values: '16x60 32x340'}
      - {series: 'fluentbit_defender_blob_shards_owned{name="blobs",instance="b"}', values: '16x20 stale'}
      - {series: 'fluentbit_defender_blob_leases_lost_total{name="blobs",instance="a"}', values: '0x80 16x320'}
      - {series: 'fluentbit_defender_blob_shard_takeovers_total{name="blobs",instance="a"}', values: '0x100 0+4x300'}
    promql_expr_test:
`, rules)
	for _, c := range []struct {
		alert, name, severity string
		before, then          string // when it does not fire, and when it does
	}{
		{"OutputRetrying", "splunk.0", "critical", "19m", "22m"},
		{"OutputDropped", "splunk.0", "critical", "15m", "17m"},
		{"DefenderUnreachable", "defender.0", "critical", "5m", "8m"},
		{"DefenderSharesUnread", "blobs", "critical", "15m", "17m"},
		{"DefenderSharesUnread", "blobs", "critical", "32m", ""}, // no more
		{"DefenderLeasesLost", "blobs", "warning", "40m", "42m"},
		{"DefenderSharesWander", "blobs", "warning", "80m", "95m"}, // 320 in an hour
	} {
		expr := fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}`, c.alert)
		fmt.Fprintf(&b, "      - {expr: '%s', eval_time: %s, exp_samples: []}\n", expr, c.before)
		if c.then == "" {
			continue
		}
		fmt.Fprintf(&b, "      - {expr: '%s', eval_time: %s, exp_samples: [{labels: 'ALERTS{alertname=%q,alertstate=\"firing\",name=%q,severity=%q}', value: 1}]}\n",
			expr, c.then, c.alert, c.name, c.severity)
	}
	file := filepath.Join(t.TempDir(), "fire.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// tellToHub produces a load that goes up and down: what happens at a company just now, and now and
// then what is no JSON.
func tellToHub(ctx context.Context, h *fakehub.Hub) {
	for i := 0; ctx.Err() == nil; i++ {
		s := story.New(story.Options{Seed: uint64(i / 60), Start: time.Now().Add(-time.Minute), NoAttack: i%10 > 0, AlertEvery: 60})
		for range 4 + int(3*math.Sin(float64(i)/12)) {
			_ = h.Produce(ctx, hub, s.AppendEnvelope(nil, 60))
		}
		if i%17 == 0 {
			_ = h.Produce(ctx, hub, []byte("no JSON"))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// tellToAccount appends to the blobs of two tables, and lets the account fail from time to time.
func tellToAccount(ctx context.Context, account *fakeblob.Server) {
	s := story.New(story.Options{Seed: 99, Start: time.Now().Add(-time.Minute), NoAttack: true, AlertEvery: 5})
	for i := 0; ctx.Err() == nil; i++ {
		account.SetFault(func(fakeblob.Request) *fakeblob.Fault {
			if i%50 >= 40 {
				return &fakeblob.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}
			}
			return nil
		})
		name := "tenantId=" + story.Tenant + time.Now().UTC().Format("/y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
		for range 10 * (1 + i%20) {
			line := s.AppendLine(nil)
			_, rest, _ := bytes.Cut(line, []byte(`"AdvancedHunting-`))
			table, _, _ := bytes.Cut(rest, []byte(`"`))
			if table := strings.ToLower(string(table)); strings.HasPrefix(table, "alert") {
				account.Append("insights-logs-advancedhunting-"+table, name, line)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// startBlobs serves a storage account with the containers of alerts.
func startBlobs(t *testing.T) *fakeblob.Server {
	t.Helper()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	account.CreateContainer("insights-logs-advancedhunting-alertinfo")
	account.CreateContainer("insights-logs-advancedhunting-alertevidence")
	return account
}
