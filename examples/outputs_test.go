package examples_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// figures are the series that Fluent Bit shows Prometheus, each with the sum of its values.
func figures(port string) (map[string]float64, error) {
	resp, err := http.Get("http://127.0.0.1:" + port + "/api/v2/metrics/prometheus")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	sums := make(map[string]float64)
	for line := range strings.Lines(string(b)) {
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(line[:at], "{")
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		sums[name] += value
	}
	return sums, nil
}

// onDisk is how many bytes the files below a folder have.
func onDisk(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// A SIEM that is down, and then one that refuses the token, as the alert rules and the guides
// describe it. Fluent Bit's own series move, there is no lag, and waiting events take the described
// part of the disk.
func TestSIEMDown(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 4}, EntityPath: hubName})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	told := story.New(story.Options{Seed: 7})
	fed := 0
	for fed < 24<<20 {
		envelope := told.AppendEnvelope(nil, 200)
		if err := hub.Produce(context.Background(), hubName, envelope); err != nil {
			t.Fatal(err)
		}
		fed += len(envelope)
	}
	dir := t.TempDir()
	s := newSIEM(t, "splunk")
	s.refuse = http.StatusServiceUnavailable
	splunk := targets[0]
	config := splunk.local(t, service(t, section(t, splunk.config(t), dir, library, hub), dir), s)
	port := regexp.MustCompile(`http_port: (\d+)`).FindStringSubmatch(config)[1]
	p := start(t, binary, dir, config, append(splunk.env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())...)
	var now map[string]float64
	p.until("everything is read, nothing lags, and the output tries again", func() bool {
		now, err = figures(port)
		lag, known := now["fluentbit_defender_eventhub_lag_events"]
		return err == nil && now["fluentbit_defender_payload_bytes_total"] >= float64(fed) && known && lag == 0 &&
			now["fluentbit_output_retries_total"] > 0
	})
	if conn, err := net.Dial("tcp", "127.0.0.2:"+port); err == nil { // as loopback as 127.0.0.1, but not that address
		conn.Close()
		t.Error("figures are served on other addresses than 127.0.0.1, although HTTP_LISTEN is not set")
	}
	for _, name := range outputSeries(t) {
		if _, ok := now[name]; !ok {
			t.Errorf("an alert or a panel asks for %s, which Fluent Bit does not have", name)
		}
	}
	if n := now["fluentbit_output_dropped_records_total"]; n != 0 {
		t.Errorf("%v records are dropped", n)
	}
	m := regexp.MustCompile(`(0\.\d)\s+bytes\s+on\s+disk\s+for\s+a\s+byte\s+of\s+JSON`).FindStringSubmatch(example(t, "README.md"))
	if m == nil {
		t.Fatal("README.md does not say how much of the disk a byte of JSON takes")
	}
	said, err := strconv.ParseFloat(m[1], 64)
	ratio := float64(onDisk(t, filepath.Join(dir, "storage"))) / float64(fed)
	if err != nil || math.Abs(ratio-said) > 0.1 {
		t.Errorf("%.2f bytes on disk for a byte of JSON, README.md says %s", ratio, m[1])
	}

	s.mu.Lock()
	s.refuse = http.StatusForbidden
	s.mu.Unlock()
	p.until("what is refused is counted", func() bool {
		now, err = figures(port)
		return err == nil && now["fluentbit_output_dropped_records_total"] > 0
	})
	p.stop()
}

// outputSeries are the series of Fluent Bit itself that alert rules and panels ask for.
func outputSeries(t *testing.T) []string {
	t.Helper()
	names := regexp.MustCompile(`fluentbit_(output|input)_[a-z_]+`).FindAllString(example(t, "monitoring/alerts.yaml")+example(t, "monitoring/dashboard.json"), -1)
	if len(names) < 8 {
		t.Fatalf("the alert rules and panels look at %v only", names)
	}
	return names
}

// The first line of each guide asks the SIEM whether it would take the events of Fluent Bit. It is
// run unchanged, except for the port, and asks for the same as the output.
func TestGuidesAskTheSIEM(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	answers := map[string]struct{ method, path, answer string }{
		"splunk":     {http.MethodPost, "/services/collector/event", "Success"},
		"elastic":    {http.MethodPost, "/_security/user/_has_privileges", `"has_all_requested":true`},
		"opensearch": {http.MethodGet, "/_plugins/_security/authinfo", "roles"},
	}
	for _, e := range targets {
		want, guide := answers[e.name], example(t, e.name+"/README.md")
		m := regexp.MustCompile(`(?m)^   (curl .*\$` + strings.ToUpper(e.name) + `_HOST:.*)$`).FindStringSubmatch(guide)
		if m == nil || strings.Index(guide, m[1]) > strings.Index(guide, "docker run -d") {
			t.Errorf("the guide of %s starts before it asks", e.name)
			continue
		}
		if !strings.Contains(guide, "`"+want.answer+"`") {
			t.Errorf("the guide of %s does not say that the answer must have %s", e.name, want.answer)
		}
		asked := 0
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			body, _ := io.ReadAll(r.Body)
			if r.Method != want.method || r.URL.Path != want.path {
				t.Errorf("%s: %s %s", e.name, r.Method, r.URL.Path)
			}
			user, password, _ := r.BasicAuth()
			if e.name == "splunk" {
				var event hecEvent
				if err := json.Unmarshal(body, &event); err != nil || event.Index != "defender" || len(event.Event) == 0 || r.Header.Get("Authorization") != "Splunk "+splunkToken {
					t.Errorf("%s: %s with %v: %v", e.name, body, r.Header, err)
				}
			} else if user != bulkUser || password != bulkPass {
				t.Errorf("%s: %s %q", e.name, user, password)
			}
			if e.name == "elastic" && !strings.Contains(string(body), `"names":["defender-*"],"privileges":["auto_configure","index"]`) {
				t.Errorf("%s: %s", e.name, body)
			}
		}))
		ca := (&siem{t: t, server: server}).caFile()
		_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
		_, configured, _ := strings.Cut(e.port, ":-")
		cmd := exec.Command("bash", "-c", replace(t, m[1], "_HOST:"+strings.TrimSuffix(configured, "}")+"/", "_HOST:"+port+"/"))
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CURL_CA_BUNDLE=" + ca}, e.env...)
		if out, err := cmd.CombinedOutput(); err != nil || asked != 1 {
			t.Errorf("%s: asked %d times, %v\n%s", e.name, asked, err, out)
		}
		server.Close()
	}
}
