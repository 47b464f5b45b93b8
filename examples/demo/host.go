package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

const (
	hubName = "insights-logs-advancedhunting"
	group   = "demo"
)

// A host is the process that has the plugin loaded.
type host struct {
	name    string // as shown
	cmd     *exec.Cmd
	log     string        // path of its log
	read    chan struct{} // closed when all its output has been read
	cleanup func()
}

// settings of the plugin for the demo. The connection string comes from a file, as any secret can.
func settings(dir string, hub *fakehub.Hub) ([][2]string, error) {
	secret := filepath.Join(dir, "connection_string")
	if err := os.WriteFile(secret, []byte(hub.ConnectionString()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write connection string: %w", err)
	}
	return [][2]string{
		{"eventhub.connection_string_file", secret},
		{"eventhub.brokers", hub.Brokers()},
		{"eventhub.ca_file", hub.CAFile()},
		{"eventhub.hubs", hubName},
		{"eventhub.group", group},
		{"db", filepath.Join(dir, "defender.db")},
	}, nil
}

// startHost starts build/out/host: it prints one JSON object a record.
func startHost(binary, plugin, dir string, set [][2]string, t *tally) (*host, error) {
	args := make([]string, 0, 2*len(set)+1)
	for _, s := range set {
		args = append(args, "-set", s[0]+"="+s[1])
	}
	h := &host{name: "build/out/host (no fluent-bit on the PATH or in $FLUENT_BIT)", read: make(chan struct{}), cleanup: func() {}}
	h.cmd = exec.Command(binary, append(args, plugin)...)
	// A pipe of our own: the command's would be closed at its end, with records still in it.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for the records: %w", err)
	}
	h.cmd.Stdout = in
	err = h.start(dir)
	_ = in.Close() // the child has its own
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	go func() {
		defer close(h.read)
		defer out.Close()
		lines := bufio.NewReaderSize(out, 1<<20)
		for {
			line, err := readLine(lines)
			if len(line) > 0 {
				t.add(line, "", "record")
			}
			if err != nil {
				return
			}
		}
	}()
	return h, nil
}

// readLine reads a line of any length, without its newline. It is valid until the next call.
func readLine(r *bufio.Reader) (line []byte, err error) {
	line, err = r.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		var more []byte
		more, err = r.ReadSlice('\n')
		line = append(line, more...)
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// startFluentBit starts the real thing. Its http output delivers to a server of ours, one JSON
// object a line.
func startFluentBit(binary, plugin, dir string, set [][2]string, t *tally) (*host, error) {
	version, err := exec.Command(binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("run %s --version: %w", binary, err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	h := &host{name: first + " (" + binary + ")", read: make(chan struct{})}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the records: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// All of a request counts or nothing: Fluent Bit sends it again when it is not answered
		// with 200.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for line := range strings.Lines(string(body)) {
			if line = strings.TrimSpace(line); line != "" {
				t.add([]byte(line), r.Header.Get("X-Tag"))
			}
		}
	})}
	go func() { _ = server.Serve(listener) }()
	h.cleanup = func() { _ = server.Close() }

	config := filepath.Join(dir, "fluent-bit.yaml")
	if err := os.WriteFile(config, []byte(configuration(plugin, dir, listener.Addr().(*net.TCPAddr).Port, set)), 0o600); err != nil {
		h.cleanup()
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	h.cmd = exec.Command(binary, "-c", config)
	if err := h.start(dir); err != nil {
		h.cleanup()
		return nil, err
	}
	close(h.read) // the records come over HTTP
	return h, nil
}

// configuration is that of the examples as far as the demo needs it, with an output to ourselves.
func configuration(plugin, dir string, port int, set [][2]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `service:
  flush: 1
  grace: 10
  log_level: info
  storage.path: %s
  storage.max_chunks_up: 512

plugins:
  - %s

pipeline:
  inputs:
    - name: defender
      tag: defender
      threaded: off
      storage.type: filesystem
      storage.pause_on_chunks_overlimit: on
`, filepath.Join(dir, "storage"), plugin)
	for _, s := range set {
		fmt.Fprintf(&b, "      %s: %s\n", s[0], s[1])
	}
	fmt.Fprintf(&b, `
  outputs:
    - name: http
      match: '*'
      host: 127.0.0.1
      port: %d
      format: json_lines
      header_tag: X-Tag
      retry_limit: no_limits
`, port)
	return b.String()
}

func (h *host) start(dir string) error {
	h.log = filepath.Join(dir, "host.log")
	log, err := os.Create(h.log)
	if err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	defer log.Close() // the child has its own
	h.cmd.Stderr = log
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", h.cmd.Path, err)
	}
	return nil
}

// wait returns when t has everything, nothing has come for patience, the process has ended or ctx
// has.
func (h *host) wait(ctx context.Context, t *tally, want int, patience time.Duration) (exited bool) {
	const settle = 1500 * time.Millisecond // longer than a tick of the host: a repeat would come within it
	ended := make(chan struct{})
	go func() {
		_ = h.cmd.Wait()
		close(ended)
	}()
	defer func() {
		if exited {
			return
		}
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = h.cmd.Process.Kill()
			<-ended
		}
	}()
	started := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		total, last := t.progress()
		if last.IsZero() {
			last = started
		}
		if quiet := time.Since(last); quiet > patience || total >= want && quiet > settle && time.Since(started) > 2*settle {
			return false
		}
	}
}
