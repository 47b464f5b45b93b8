package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// built returns options for what make plugin host has built; make test does that first.
func built(t *testing.T) options {
	t.Helper()
	t.Parallel()
	o := options{
		records: 3000, seed: 1, patience: 20 * time.Second,
		plugin: "../../build/out/in_defender.so", host: "../../build/out/host",
	}
	for _, path := range []string{o.plugin, o.host} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: run make plugin host first", err)
		}
	}
	return o
}

func show(t *testing.T, o options) (ok bool, text string) {
	t.Helper()
	var b strings.Builder
	ok, err := run(t.Context(), o, &view{w: &b, width: 110})
	if err != nil {
		t.Errorf("%v\n%s", err, b.String())
	}
	return ok, b.String()
}

// shownInReadme are the lines of the demo that README.md shows.
func shownInReadme(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, excerpt, found := strings.Cut(string(readme), "```text\n")
	excerpt, _, ended := strings.Cut(excerpt, "\n```")
	if !found || !ended {
		t.Fatal("README.md shows nothing of the demo")
	}
	return strings.Split(excerpt, "\n")
}

func TestStory(t *testing.T) {
	o := built(t)
	wanted := append(shownInReadme(t), "Suspicious script launched PowerShell", "AlertEvidence  Machine", "3000       3000", "all records arrived, each once")
	f := func(name string) {
		t.Helper()
		ok, text := show(t, o)
		for _, want := range wanted {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
		if !ok {
			t.Errorf("%s: not ok", name)
		}
	}
	f("C host")
	if o.fluentBit = findFluentBit(); o.fluentBit != "" {
		f("Fluent Bit")
	}
}

func TestStoryFromBlobs(t *testing.T) {
	o := built(t)
	o.blob = true
	ok, text := show(t, o)
	for _, want := range []string{"Suspicious script launched PowerShell", "A storage account, 3000 records", "3000       3000", "all records arrived, each once"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !ok {
		t.Error("not ok")
	}
}

func TestFiles(t *testing.T) {
	o := built(t)
	dir := t.TempDir()
	s := story.New(story.Options{Seed: 5})
	var lines, list []byte
	for range 40 {
		lines = s.AppendLine(lines)
	}
	list = append(s.AppendRecord(append(list, '[')), ']')
	for name, text := range map[string][]byte{
		"container/PT1H.json":     append(lines, s.AppendRecord(nil)[:700]...), // the last line is cut
		"envelope.json":           s.AppendEnvelope(nil, 25),
		"list.json":               list,
		"empty.json":              []byte(`{"records":[]}`),
		"other.ndjson":            []byte(`{"VendorName":"Vestholm","SystemAlertId":"1","StartTimeUtc":"2026-03-09T07:30:00Z"}` + "\n"),
		"not-json.txt":            []byte("that is not JSON at all"),
		"records/no-objects.json": []byte(`{"records":[7,"text"]}`),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.from = dir
	ok, text := show(t, o)
	if !ok || !strings.Contains(text, "all records arrived, each once") {
		t.Errorf("not all arrived:\n%s", text)
	}
}

// A demo that loses something says so and fails: here the host is one that hands over a single record.
func TestMissing(t *testing.T) {
	o := built(t)
	o.records, o.patience = 5, time.Second
	o.host = filepath.Join(t.TempDir(), "host")
	script := "#!/bin/sh\necho '{\"tag\":\"defender\",\"time\":1.0,\"record\":{\"table\":\"DeviceInfo\",\"StoryNumber\":0}}'\necho it broke >&2\nexec sleep 60\n"
	if err := os.WriteFile(o.host, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ok, text := show(t, o)
	if ok || !strings.Contains(text, "MISSING   4 records") || !strings.Contains(text, "it broke") {
		t.Errorf("ok %v:\n%s", ok, text)
	}
}

// The configuration in README.md, with other addresses, delivers to Splunk's HTTP event collector.
func TestReadmeInFluentBit(t *testing.T) {
	o := built(t)
	fluentBit := findFluentBit()
	if fluentBit == "" {
		t.Skip("there is no fluent-bit: package plugin checks the keys of the section")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, found := strings.Cut(string(readme), "```yaml\n")
	config, _, ended := strings.Cut(config, "```")
	if !found || !ended {
		t.Fatal("no configuration in README.md")
	}

	const hubOfTable = "insights-logs-advancedhunting-deviceinfo"
	hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubOfTable: 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	s := story.New(story.Options{})
	for range 10 {
		if err := hub.Produce(t.Context(), hubOfTable, s.AppendEnvelope(nil, 50)); err != nil {
			t.Fatal(err)
		}
	}

	received := newTally(&feed{records: map[string]int{}, numbers: 500})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Splunk an-invented-token" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		for d := json.NewDecoder(bytes.NewReader(body)); d.More(); {
			var event json.RawMessage
			if err := d.Decode(&event); err != nil {
				t.Errorf("not what Splunk takes: %v", err)
				return
			}
			received.add(event, "defender", "event")
		}
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	dir := t.TempDir()
	plugin, err := filepath.Abs(o.plugin)
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		"/usr/lib/fluent-bit/in_defender.so": plugin,
		"/var/lib/fluent-bit":                dir,
		"host: splunk.example.com":           "host: 127.0.0.1",
		"port: 8088":                         "port: " + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port),
		"      tls: on\n":                    "",
		"      db: ":                         "      eventhub.brokers: " + hub.Brokers() + "\n      eventhub.ca_file: " + hub.CAFile() + "\n      db: ",
	} {
		if !strings.Contains(config, old) {
			t.Fatalf("the configuration in README.md has no %q", old)
		}
		config = strings.ReplaceAll(config, old, new)
	}
	path := filepath.Join(dir, "defender.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, fluentBit, "-c", path)
	cmd.Env = append(os.Environ(), "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString(), "SPLUNK_TOKEN=an-invented-token")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil {
		if total, _ := received.progress(); total >= 500 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if received.distinct != 500 {
		t.Errorf("%d of 500 records arrived:\n%s", received.distinct, log.String())
	}
	if strings.Contains(log.String(), "SharedAccessKey=ZmFr") {
		t.Error("the connection string is in the log")
	}
}
