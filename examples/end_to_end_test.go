package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

const hubName = "defender"

// plugin is the library that `make plugin` builds.
func plugin(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../build/out/in_defender.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no build/out/in_defender.so: run make plugin, or make test, which does")
	}
	return path
}

// cHost is the program that `make host` builds. It loads the plugin as Fluent Bit does and needs no
// Fluent Bit.
func cHost(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../build/out/host")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no build/out/host: run make host, or make test, which does")
	}
	return path
}

// runHost runs the C host until it ends by itself, and returns the events that it shows and its
// log.
func runHost(t *testing.T, host string, args ...string) (events string, log *output) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, host, args...)
	log = new(output)
	cmd.Stderr = log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("host: %v\n%s", err, log)
	}
	return string(out), log
}

// startHub is an Event Hubs namespace that has told the story: n records, some of them a second
// time, as the service does.
func startHub(t *testing.T, n int) *fakehub.Hub {
	t.Helper()
	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 4}, EntityPath: hubName})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	s := story.New(story.Options{Seed: 7})
	for left := n; left > 0; {
		batch := min(left, 40)
		envelope := s.AppendEnvelope(nil, batch)
		left -= batch
		times := 1
		if left == 0 {
			times = 2
		}
		for range times {
			if err := hub.Produce(context.Background(), hubName, envelope); err != nil {
				t.Fatal(err)
			}
		}
	}
	return hub
}

// section puts the hub in the place of the one in Azure.
func section(t *testing.T, config, dir, library string, hub *fakehub.Hub) string {
	t.Helper()
	const connection = "      eventhub.connection_string: ${EVENTHUB_CONNECTION_STRING}\n"
	return replace(t, config,
		"/opt/fluent-bit/lib/fluent-bit/in_defender.so", library,
		"/var/lib/fluent-bit/defender.db", filepath.Join(dir, "defender.db"),
		connection, connection+"      eventhub.brokers: "+hub.Brokers()+"\n      eventhub.ca_file: "+hub.CAFile()+"\n")
}

// From the hub to the SIEM: the example as it is, but for addresses, in a real Fluent Bit. The SIEM
// fails at first, and every event is there in the end.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	for _, e := range targets {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			const n = 600
			hub := startHub(t, n)
			dir := t.TempDir()
			s := newSIEM(t, e.name)
			s.refuse = 503
			config := service(t, section(t, e.config(t), dir, library, hub), dir)
			config = e.local(t, config, s)
			p := start(t, binary, dir, config, append(e.env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())...)
			p.until("the SIEM was asked while it was down", func() bool { n, _ := s.count(); return n > 0 })
			s.mu.Lock()
			s.refuse = 0
			s.mu.Unlock()
			p.until("every event is there", func() bool { _, taken := s.count(); return taken >= n })
			p.stop()

			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.taken) != n {
				t.Errorf("%d different events, want %d", len(s.taken), n)
			}
			numbers := make(map[int64]bool)
			for id, d := range s.taken {
				var record struct {
					Table  string `json:"table"`
					Number int64  `json:"StoryNumber"`
				}
				if err := json.Unmarshal(d.source, &record); err != nil || record.Table == "" {
					t.Fatalf("%s: %v in %.300s", id, err, d.source)
				}
				numbers[record.Number] = true
			}
			for i := range int64(n) {
				if !numbers[i] {
					t.Errorf("record %d of the story is missing", i)
				}
			}
			for _, line := range strings.Split(p.log.String(), "\n") {
				if strings.Contains(line, "[error] [config]") || strings.Contains(line, "unknown configuration property") ||
					strings.Contains(line, "is used but not set") {
					t.Error(line)
				}
			}
		})
	}
}

// withDefault is a variable that need not be set, such as ${CHECK_ONLY:-off}.
var withDefault = regexp.MustCompile(`\$\{([A-Z_]+):-([^}]*)\}`)

// settingsOf reads the keys of the defender section that Fluent Bit leaves to the plugin, with the
// defaults of variables.
func settingsOf(t *testing.T, config string) (set [][2]string) {
	t.Helper()
	_, section, _ := cut(t, config, "    - name: defender\n", "  outputs:\n")
	for line := range strings.Lines(withDefault.ReplaceAllString(section, "$2")) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		value, _, _ = strings.Cut(value, " #")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		switch key {
		case "- name", "tag", "threaded", "storage.type", "storage.pause_on_chunks_overlimit": // the host's own
			continue
		}
		set = append(set, [2]string{key, strings.TrimSpace(value)})
	}
	return set
}

// The same sections in the C host.
func TestSettingsAreAccepted(t *testing.T) {
	t.Parallel()
	library, host := plugin(t), cHost(t)
	for _, e := range targets {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			const n = 200
			hub := startHub(t, n)
			dir := t.TempDir()
			config := section(t, e.config(t), dir, library, hub)
			args := []string{"-records", fmt.Sprint(n), "-seconds", "30", "-storage", filepath.Join(dir, "storage")}
			for _, s := range settingsOf(t, config) {
				args = append(args, "-set", s[0]+"="+strings.Replace(s[1], "${EVENTHUB_CONNECTION_STRING}", hub.ConnectionString(), 1))
			}
			events, logs := runHost(t, host, append(args, library)...)
			ids := make(map[string]bool)
			for s := bufio.NewScanner(strings.NewReader(events)); s.Scan(); {
				_, rest, _ := strings.Cut(s.Text(), `"event_id":"`)
				id, _, _ := strings.Cut(rest, `"`)
				ids[id] = eventID.MatchString(id)
			}
			if len(ids) < n*9/10 { // some of the first n are repeats
				t.Errorf("%d events came\n%s", len(ids), logs)
			}
			for _, s := range settingsOf(t, config) {
				if !strings.Contains(logs.String(), s[0]) {
					t.Errorf("the plugin does not say that it knows %s:\n%s", s[0], logs)
				}
			}
		})
	}
}
