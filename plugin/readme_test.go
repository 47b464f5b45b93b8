package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

var write = flag.Bool("write", false, "write the table of settings into examples/settings.md")

const (
	readme     = "../README.md"
	settingsMD = "../examples/settings.md"
	tableBegin = "<!-- settings: make settings-table -->\n"
	tableEnd   = "<!-- end of settings -->"
)

// settingsTable is the table of examples/settings.md: it has no other source than the declarations.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("\n| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, d := range declared() {
		value, def := d.Kind.String(), "`"+d.Default+"`"
		if d.Kind == input.Choice {
			value = "`" + strings.Join(d.Choices, "`, `") + "`"
		}
		if d.Default == "" {
			def = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Key, value, def, strings.ReplaceAll(d.Doc, "|", `\|`))
	}
	b.WriteString("\n")
	return b.String()
}

func TestSettingsTable(t *testing.T) {
	text, err := os.ReadFile(settingsMD)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), tableBegin)
	table, after, ended := strings.Cut(rest, tableEnd)
	if !found || !ended {
		t.Fatalf("examples/settings.md has no place for the table of settings, between %q and %q", tableBegin, tableEnd)
	}
	want := settingsTable()
	if table == want {
		return
	}
	if !*write {
		t.Fatalf("the table of settings in examples/settings.md is not that of the code: run make settings-table. It should be:\n%s", want)
	}
	if err := os.WriteFile(settingsMD, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A user reads nothing of a setting but its sentence.
func TestSettingsAreDescribed(t *testing.T) {
	for _, d := range declared() {
		if len(d.Doc) < 10 || !strings.HasSuffix(d.Doc, ".") || strings.ContainsAny(d.Doc, "\n") {
			t.Errorf("%s: %q is not a sentence", d.Key, d.Doc)
		}
		if (d.Kind == input.Choice) != (len(d.Choices) > 0) {
			t.Errorf("%s: choices %v of a %v", d.Key, d.Choices, d.Kind)
		}
	}
}

// The host takes these keys of an [INPUT] section for itself and lets no plugin read them:
// src/flb_input.c, flb_input_set_property.
func TestKeysAreOurs(t *testing.T) {
	taken := []string{"tag", "alias", "log_level", "log_suppress_interval", "host", "port", "ipv6", "listen", "mem_buf_limit", "threaded",
		"routable", "rate_window"}
	for _, d := range declared() {
		first, _, _ := strings.Cut(d.Key, ".")
		if slices.Contains(taken, d.Key) || slices.Contains([]string{"tls", "net", "storage", "thread", "oauth2", "rate_gate"}, first) {
			t.Errorf("%s is the host's", d.Key)
		}
	}
}

// The section that README.md shows is one that the plugin takes, key by key, without a complaint.
func TestReadmeConfiguration(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "- name: defender\n")
	section, _, ended := strings.Cut(section, "\n```")
	if !found || !ended {
		t.Fatal("README.md shows no section of the plugin")
	}
	host := map[string]string{ // what the host takes for itself
		"tag": "defender", "threaded": "off", "storage.type": "filesystem", "storage.pause_on_chunks_overlimit": "on",
	}
	values := make(map[string]string)
	known := make(map[string]bool)
	for _, d := range declared() {
		known[d.Key] = true
	}
	for line := range strings.Lines(section) {
		line, _, _ = strings.Cut(line, " #")
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			t.Fatalf("cannot read %q", line)
		}
		value = strings.TrimSpace(value)
		if _, def, ok := strings.Cut(value, ":-"); ok { // a variable with a default, which Fluent Bit puts in its place
			value = strings.TrimSuffix(def, "}")
		}
		if want, ok := host[key]; ok {
			if value != want {
				t.Errorf("%s is %s, want %s", key, value, want)
			}
			delete(host, key)
			continue
		}
		if !known[key] {
			t.Errorf("there is no setting %s", key)
		}
		if value == "${EVENTHUB_CONNECTION_STRING}" {
			value = "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=aW52ZW50ZWQ=;EntityPath=defender"
		}
		values[key] = value
	}
	for key := range host {
		t.Errorf("the section lacks %s", key)
	}
	s := input.NewSettings(func(key string) string { return values[key] }, declared())
	readConfig(s)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}
