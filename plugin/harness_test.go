package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// built is where the library and the C host are. They are built once for all tests that load the
// library, unless $DEFENDER_SO and $DEFENDER_HOST name some.
var built struct {
	once          sync.Once
	dir, so, host string
	err           error
}

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // tests that run a host mostly wait
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func build(t testing.TB) (so, host string) {
	t.Helper()
	built.once.Do(func() {
		built.so, built.host = os.Getenv("DEFENDER_SO"), os.Getenv("DEFENDER_HOST")
		if built.dir, built.err = os.MkdirTemp("", "defender-test-"); built.err != nil {
			return
		}
		run := func(name string, args ...string) {
			if built.err == nil {
				if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
					built.err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
				}
			}
		}
		if built.so == "" {
			built.so = filepath.Join(built.dir, "in_defender.so")
			run("go", "build", "-buildmode=c-shared", "-o", built.so, ".")
		}
		if built.host == "" {
			built.host = filepath.Join(built.dir, "host")
			sources, _ := filepath.Glob("../build/host/*.c")
			run("cc", append([]string{"-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-o", built.host}, append(sources, "-ldl", "-lpthread", "-lm")...)...)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.so, built.host
}

// event is a line of what a host shows.
type event struct {
	Tag    string          `json:"tag"`
	Time   json.Number     `json:"time"`
	Record json.RawMessage `json:"record"`
	Seq    int             `json:"-"` // column Seq
}

// parseEvents reads lines of events and passes each to see, if that is not nil; a last line without
// its end does not count.
func parseEvents(t testing.TB, r io.Reader, see func(event)) (events []event) {
	t.Helper()
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return events
		}
		var e event
		var record struct{ Seq int }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("the host shows what is not JSON: %v: %.200s", err, line)
		}
		_ = json.Unmarshal(e.Record, &record)
		e.Seq = record.Seq
		events = append(events, e)
		if see != nil {
			see(e)
		}
	}
}

// A process is one of the C host.
type process struct {
	cmd    *exec.Cmd
	events []event       // all that came, once ended is closed
	ended  chan struct{} // its output is read to the end

	mu  sync.Mutex
	log bytes.Buffer
}

// startHost starts the C host with args and the library. It passes each event to see, if that is
// not nil. The host is killed with the test at the latest.
func startHost(t testing.TB, see func(event), args ...string) *process {
	t.Helper()
	so, path := build(t)
	p := &process{cmd: exec.Command(path, append(args, so)...), ended: make(chan struct{})}
	p.cmd.Stderr = p
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		defer func() { _ = p.cmd.Wait() }()
		defer stdout.Close() // ends a host that shows what is no event
		p.events = parseEvents(t, stdout, see)
	}()
	t.Cleanup(p.kill)
	return p
}

// Write takes the log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// text is the log until now.
func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await waits until happened is closed. The test fails if the host ends before.
func (p *process) await(t testing.TB, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-p.ended:
		t.Fatalf("the host ends too early:\n%s", p.text())
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// end ends the host as a service manager does.
func (p *process) end(t testing.TB) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	<-p.ended
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("the host ends with %v:\n%s", p.cmd.ProcessState, p.text())
	}
}

// run is a run of the C host.
type run struct {
	events []event
	log    string
	code   int
}

// runHost runs the C host with args and the library until it ends by itself.
func runHost(t testing.TB, args ...string) run {
	t.Helper()
	return runHostUntil(t, 0, "", args...)
}

// runHostUntil runs the C host until n different events with the tag have come (any tag when it is
// empty). Then it ends it as a service manager does. It runs for three minutes at most: machines
// that run tests are slow at times.
func runHostUntil(t testing.TB, n int, tag string, args ...string) run {
	t.Helper()
	seen := make(map[int]bool)
	enough := make(chan struct{})
	p := startHost(t, func(e event) {
		if had := len(seen); n > 0 && (tag == "" || e.Tag == tag) {
			if seen[e.Seq] = true; had < n && len(seen) == n {
				close(enough)
			}
		}
	}, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	select {
	case <-enough:
		p.signal(syscall.SIGTERM)
	case <-p.ended:
	case <-ctx.Done():
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.kill()
		t.Errorf("after three minutes %d of %d events have come", len(seen), n)
	}
	noSecrets(t, p.text())
	return run{p.events, p.text(), p.cmd.ProcessState.ExitCode()}
}

// noSecrets is called for every log of every run.
func noSecrets(t testing.TB, log string) {
	t.Helper()
	for _, secret := range []string{"ZmFrZWh1Yi1ub3QtYS1yZWFsLWtleS0xMjM0NTY3OD0=", "SharedAccessKey="} {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows the secret %s:\n%s", secret, log)
		}
	}
}

// ok fails the test when the host has seen anything that should not be.
func (r run) ok(t testing.TB) run {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("the host exits with %d:\n%s", r.code, r.log)
	}
	return r
}

// logs fails the test when the log lacks text.
func (r run) logs(t testing.TB, text string) {
	t.Helper()
	if !strings.Contains(r.log, text) {
		t.Errorf("the log lacks %q:\n%s", text, r.log)
	}
}

const hub = "defender"

func startHub(t testing.TB, partitions int32) *fakehub.Hub {
	t.Helper()
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{hub: partitions}, EntityPath: hub})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// startAccount starts a storage account with a container that has one blob.
func startAccount(t testing.TB, container string, blob []byte) *fakeblob.Server {
	t.Helper()
	account, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	account.CreateContainer(container)
	account.Append(container, "tenantId=1/y=2026/m=03/d=04/h=05/m=00/PT1H.json", blob)
	return account
}

// mayOnlyList is the fault of an account whose blobs may be listed and not read.
func mayOnlyList(req fakeblob.Request) *fakeblob.Fault {
	if req.Op == fakeblob.GetBlob {
		return &fakeblob.Fault{Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"}
	}
	return nil
}

// settings are flags of the host for a section that reads h.
func settings(h *fakehub.Hub, more ...string) []string {
	var args []string
	for _, s := range append([]string{
		"eventhub.connection_string=" + h.ConnectionString(),
		"eventhub.brokers=" + h.Brokers(),
		"eventhub.ca_file=" + h.CAFile(),
		"eventhub.start=earliest",
	}, more...) {
		args = append(args, "-set", s)
	}
	return args
}

// produce sends n records, 20 in a message, with Seq from first on.
func produce(t testing.TB, h *fakehub.Hub, first, n int) {
	t.Helper()
	if err := h.Produce(context.Background(), hub, envelopes(first, n)...); err != nil {
		t.Fatal(err)
	}
}

func envelopes(first, n int) (messages [][]byte) {
	for at := first; at < first+n; at += 20 {
		messages = append(messages, envelope(at, min(20, first+n-at)))
	}
	return messages
}

// feed produces n records, step at a time, one step every so often, and closes sent after the last.
// It ends with the test.
func feed(t testing.TB, h *fakehub.Hub, n, step int, every time.Duration) (sent <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var feeder sync.WaitGroup
	feeder.Go(func() {
		for first := 0; first < n; first += step {
			if err := h.Produce(ctx, hub, envelopes(first, step)...); err != nil {
				if ctx.Err() == nil {
					t.Errorf("feed the hub: %v", err)
				}
				return
			}
			if input.Sleep(ctx, every) != nil {
				return
			}
		}
		close(done)
	})
	t.Cleanup(func() { cancel(); feeder.Wait() }) // before the hub is closed, which was started earlier
	return done
}

// envelope is a message of n records of invented values.
func envelope(first, n int) []byte {
	b := []byte(`{"records":[`)
	for i := first; i < first+n; i++ {
		if i > first {
			b = append(b, ',')
		}
		table := []string{"DeviceProcessEvents", "DeviceNetworkEvents", "AlertInfo"}[i%3]
		b = fmt.Appendf(b, `{"time":"2026-03-04T05:06:07.1234567Z","tenantId":"11111111-2222-3333-4444-555555555555","operationName":"Publish",`+
			`"category":"AdvancedHunting-%s","properties":{"Timestamp":"2026-03-04T05:06:06.5Z","DeviceName":"host-%d.contoso.example","ActionType":"Made",`+
			`"Seq":%d,"Note":"%s"}}`, table, i%50, i, strings.Repeat("x", 400))
	}
	return append(b, `]}`...)
}

// tally compares events with 0..n-1: none may be missing. It returns how many came more than once.
func tally(t testing.TB, events []event, n int) (again int) {
	t.Helper()
	seen := make([]int, n)
	for _, e := range events {
		if e.Seq < 0 || e.Seq >= n {
			t.Fatalf("an event that was never sent: %s", e.Record)
		}
		seen[e.Seq]++
	}
	lost := 0
	for _, k := range seen {
		if k == 0 {
			lost++
		} else {
			again += k - 1
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d events are lost", lost, n)
	}
	return again
}
