package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
)

// built returns options for the files that make plugin host has built; make test does that first.
func built(t *testing.T) options {
	t.Helper()
	t.Parallel()
	o := options{
		records: 3000, seed: 1, format: "flat", patience: 20 * time.Second,
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

// moments are lines of the demo: other events on the device of the alert, and of its user.
var moments = []string{
	"07:30:58  EmailEvents                Din forsendelse er stoppet i tollen – handl…  oystein.asgard",
	"07:31:41  DeviceFileEvents           FileCreated · Fraktseddel_2026-03.js          vsh-lt-1007",
	"07:33:59  DeviceNetworkEvents        ConnectionSuccess · fraktvarsel.example · 2…  vsh-lt-1007",
	"07:36:37  CloudAppEvents             New-InboxRule · Windows 11 · New-InboxRule    Øystein Åsgård",
}

func TestStory(t *testing.T) {
	o := built(t)
	wanted := append(slices.Clone(moments), "Suspicious script launched PowerShell", "AlertEvidence  Machine", "3000       3000", "all records arrived, each once")
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
		"gzip.bin":                []byte(zipped(string(s.AppendEnvelope(nil, 3)))),
		"string.json":             []byte(quoted(string(s.AppendEnvelope(nil, 3)))),
		"records-as-text.json":    []byte(`{"records":` + quoted("["+string(s.AppendRecord(nil))+"]") + `,"count":1}`),
		"pretty.json":             []byte("\n" + pretty(s.AppendRecord(nil)) + "\n" + pretty(s.AppendRecord(nil))),
		"lists.json":              []byte("[[" + string(s.AppendRecord(nil)) + "],[]]"),
		"workspace.json":          []byte(`{"TenantId":"w","TimeGenerated":"2026-03-09T07:30:00Z","Type":"DeviceEvents","ActionType":"X"}`),
		"trailing-nul.bin":        append(s.AppendRecord(nil), 0),
		"trailing-comma.json":     []byte(`{"records":[` + string(s.AppendRecord(nil)) + `,]}`),
		"Records.json":            []byte(`{"Records":[` + string(s.AppendRecord(nil)) + `]}`),
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
	if !ok || !strings.Contains(text, "all records arrived, and ") {
		t.Errorf("not all arrived:\n%s", text)
	}
}

func pretty(text []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		panic(err)
	}
	return b.String()
}

// The output of format raw can be fed again, and every record has the event_id that it had.
func TestRawAgain(t *testing.T) {
	o := built(t)
	feedOnce := func(from string) (lines []byte, ids map[string]struct{}) {
		t.Helper()
		f, err := replay([]string{from})
		if err != nil {
			t.Fatal(err)
		}
		hub, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hubName: 4}})
		if err != nil {
			t.Fatal(err)
		}
		defer hub.Close()
		if err := produce(t.Context(), hub, f.messages); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		set, err := settings(dir, hub)
		if err != nil {
			t.Fatal(err)
		}
		plugin, err := filepath.Abs(o.plugin)
		if err != nil {
			t.Fatal(err)
		}
		tl := newTally(f, shapes["raw"])
		h, err := startHost(o.host, plugin, dir, append(set, [2]string{"format", "raw"}), tl)
		if err != nil {
			t.Fatal(err)
		}
		h.wait(t.Context(), tl, f.total(), o.patience)
		<-h.read
		if r := tl.result(); r != (result{}) {
			t.Errorf("%+v of %v", r, f.records)
		}
		return bytes.Join(tl.kept, []byte("\n")), tl.ids
	}
	dir := t.TempDir()
	s := story.New(story.Options{Seed: 7})
	for name, text := range map[string][]byte{
		"envelope.json":  s.AppendEnvelope(nil, 60),
		"other.json":     []byte(`{"VendorName":"Vestholm","SystemAlertId":"1"}`),
		"workspace.json": []byte(`{"TenantId":"w","TimeGenerated":"2026-03-09T07:30:00Z","Type":"DeviceEvents","ActionType":"X"}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines, ids := feedOnce(dir)
	again := filepath.Join(t.TempDir(), "raw.ndjson")
	if err := os.WriteFile(again, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, got := feedOnce(again); len(ids) != 62 || !maps.Equal(got, ids) {
		t.Errorf("%d event ids again, want those %d", len(got), len(ids))
	}
}

// A demo that loses something says so and fails: here the host is one that hands over a single
// record.
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

// The story tells of devices that are not as plain: one that was merged and whose isolation was
// lifted, an alert about two, and a row that knows its device by name only.
func TestAftermath(t *testing.T) {
	o := built(t)
	for _, blob := range []bool{false, true} {
		o.blob = blob
		_, text := show(t, o)
		for _, want := range []string{
			"A laptop that was set up anew…  Machine  row      hit      vsh-lt-1011.vestholm.example, merged, mitigation:",
			"One account on two laptops at…  Machine  row      hit      vsh-lt-1011.vestholm.example, mitigation: none",
			"One account on two laptops at…  Machine  row      hit      vsh-lt-1019.vestholm.example, mitigation: none",
			"One account on two laptops at…  Ip       several  none     one of [",
			"One account on two laptops at…  Process  name     hit      vsh-lt-1011.vestholm.example, mitigation: none",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("blobs %v: no %q in\n%s", blob, want, text)
			}
		}
	}
}
