package main

import (
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

// A setting that names a file may name what is none: a pipe that nobody writes into, a device
// without end. That is said, and keeps neither the start waiting nor memory.
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
