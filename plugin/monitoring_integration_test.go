//go:build integration

package main

import (
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
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// TestIntegrationPrometheus has a real Prometheus scrape a running plugin, run every query of the dashboard against that,
// and load the alert rules.
func TestIntegrationPrometheus(t *testing.T) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("this test needs Prometheus (Debian's package prometheus)")
	}
	h := startHub(t, 2)
	account := startBlobs(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "metrics")
	const seconds = "200" // the host is stopped at the end of the test
	feed, stopFeed := context.WithTimeout(t.Context(), 200*time.Second)
	defer stopFeed()
	go func() {
		for i := 0; feed.Err() == nil; i += 40 {
			for range 1 + i/4000%4 { // a load that goes up and down
				_ = h.Produce(feed, hub, envelope(i, 40))
			}
			if i%400 == 0 {
				_ = h.Produce(feed, hub, []byte("no JSON"))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	so, host := build(t)
	args := append(settings(h, account...), "-quiet", "-seconds", seconds, "-metrics", file, so)
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
	rules, err := filepath.Abs("../examples/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n  - job_name: fluent-bit\n    static_configs: [{targets: [%q]}]\n",
		rules, strings.TrimPrefix(scraped.URL, "http://"))
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

	// What this run does not have: no failed attempt, no machines API.
	quiet := []string{"Failed attempts", "Machines API"}
	panels, _ := monitoringQueries(t)
	for title, exprs := range panels {
		total := 0
		for _, expr := range exprs {
			n, err := query(expr)
			if err != nil {
				t.Errorf("%s: %v", title, err)
			}
			total += n
		}
		if total == 0 && !slices.Contains(quiet, title) {
			t.Errorf("%s: no data for %q", title, exprs)
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
			if r.Health != "ok" || r.State == "firing" {
				t.Errorf("alert %s: health %s, %s %s", r.Name, r.Health, r.State, r.LastError)
			}
		}
	}
	if rulesLoaded < 10 {
		t.Errorf("%d rules", rulesLoaded)
	}
}

// startBlobs serves a storage account with a container of AlertInfo, and returns the settings that read it.
func startBlobs(t *testing.T) []string {
	t.Helper()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	name := time.Now().UTC().Format("tenantId=11111111-2222-3333-4444-555555555555/y=2006/m=01/d=02/h=15/m=00/PT1H.json")
	account.CreateContainer("insights-logs-advancedhunting-alertinfo")
	for i := range 20 {
		account.Append("insights-logs-advancedhunting-alertinfo", name, fmt.Appendf(nil,
			"{\"category\":\"AdvancedHunting-AlertInfo\",\"properties\":{\"Timestamp\":\"2026-03-04T05:06:06.5Z\",\"AlertId\":\"b%d\"}}\r\n", i))
	}
	return []string{"blob.connection_string=" + account.ConnectionString(), "blob.start=earliest", "blob.poll_interval=1s"}
}
