package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// peak is the most resident memory of a run, in MB, mapped files included.
func (r run) peak(t testing.TB) (mb int) {
	t.Helper()
	_, text, ok := strings.Cut(r.log, "peak memory ")
	if _, err := fmt.Sscan(text, &mb); !ok || err != nil {
		t.Fatalf("the host does not say how much memory it took:\n%s", r.log)
	}
	return mb
}

// A message of 1 MB, as Event Hubs takes it, whose events are fifty to a hundred times as large.
func TestMessageOfManyTinyValues(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		body   string
		events int
		set    string
	}{
		"values that are no records": {"[{}" + strings.Repeat(",1", 490_000) + "]", 490_000, "format=flat"},
		"records of seven bytes":     {"[" + strings.Repeat(`{"a":1},`, 120_000) + "]", 120_000, "format=ocsf"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, 1)
			if err := h.Produce(t.Context(), hub, []byte(f.body)); err != nil {
				t.Fatal(err)
			}
			args := append(settings(h, "memory_limit=64M", f.set), "-quiet", "-records", fmt.Sprint(f.events))
			r := runHost(t, args...).ok(t)
			// The library takes about 30 MB of mapped files, and 16 MB are the host's own.
			if mb := r.peak(t); mb > 64+16+30 {
				t.Errorf("peak memory is %d MB", mb)
			}
		})
	}
}

// A line of a blob is handed on whole up to an eighth of memory_limit. A longer one is cut there,
// and takes no more memory than that. What follows is read.
func TestLongestLineOfABlob(t *testing.T) {
	t.Parallel()
	const good = "{\"category\":\"AdvancedHunting-DeviceEvents\",\"properties\":{\"Seq\":1}}\n"
	line := func(part string, n int) string {
		return `{"category":"AdvancedHunting-DeviceEvents","properties":{"A":[` + strings.Repeat(part, n/len(part)) + "0]}}"
	}
	text := func(n int) string { return line(`"`+strings.Repeat("x", n-100)+`",`, n) }
	for name, f := range map[string]struct {
		line  string
		limit int // of memory, in MB
		whole bool
	}{
		"zeros of 31 MB, 64M": {line("0,", 31<<20), 64, false},
		"text of 31 MB, 64M":  {text(31 << 20), 64, false},
		"text of 7 MB, 64M":   {text(7 << 20), 64, true},
		"zeros of 7 MB, 64M":  {line("0,", 7<<20), 64, true},
		"text of 15 MB, 128M": {text(15 << 20), 128, true},
	} {
		t.Run(name, func(t *testing.T) {
			account := startAccount(t, "insights-logs-advancedhunting-deviceevents", []byte(f.line+"\n"+good))
			// The pieces of the long line have no Seq, which counts as 0.
			r := runHostUntil(t, 2, "", "-set", "blob.connection_string="+account.ConnectionString(), "-set", "blob.start=earliest",
				"-set", "device_info=off", "-set", fmt.Sprintf("memory_limit=%dM", f.limit)).ok(t)
			var got strings.Builder
			for _, e := range r.events {
				var record struct {
					Raw string `json:"unreadable_raw"`
					A   []any
				}
				if err := json.Unmarshal(e.Record, &record); err != nil {
					t.Fatal(err)
				}
				got.WriteString(record.Raw)
				if len(record.A) > 0 { // a line that became an event
					got.WriteString(f.line)
				}
			}
			want := f.line
			if !f.whole {
				want = want[:f.limit<<20/8]
			}
			if got.String() != want {
				t.Errorf("%d bytes came, want %d\n%s", got.Len(), len(want), r.log)
			}
			if said := strings.Contains(r.log, "skipped the rest of a line") && strings.Contains(r.log, fmt.Sprint("bytes=", len(f.line)-len(want))); said == f.whole {
				t.Errorf("whole: %v\n%s", f.whole, r.log)
			}
			// The library takes about 30 MB of mapped files, and 16 MB are the host's own.
			if mb := r.peak(t); mb > f.limit+16+30 {
				t.Errorf("peak memory is %d MB", mb)
			}
		})
	}
}

// A setting that names a file may name what is none: a pipe that nobody writes into, a device
// without end. That is logged, and keeps neither the start waiting nor memory.
func TestFilesThatAreNone(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"eventhub.connection_string_file", "eventhub.ca_file", "blob.sas_token_file", "azure.ca_file", "azure.client_certificate", "azure.client_secret_file"} {
		for _, path := range []string{pipe, "/dev/zero"} {
			ended := make(chan []string, 1)
			go func() {
				ended <- startWith(t, map[string]string{key: path, "eventhub.brokers": "127.0.0.1:1", "blob.account_url": "https://account.blob.core.windows.net", "blob.auth": "sas"})
			}()
			select {
			case errors := <-ended:
				if all := strings.Join(errors, "\n"); !strings.Contains(all, key) || !strings.Contains(all, "is a pipe or a device") {
					t.Errorf("%s %s: %s", key, path, all)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s %s keeps the start waiting", key, path)
			}
		}
	}
}
