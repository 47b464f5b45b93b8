package examples_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fluentBit is the real one: $FLUENT_BIT or the one on the PATH. Without it, these tests are
// skipped: what the configurations must contain is checked without it too.
func fluentBit(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("FLUENT_BIT"); path != "" {
		return path
	}
	path, err := exec.LookPath("fluent-bit")
	if err != nil {
		t.Skip("no fluent-bit on the PATH and none in $FLUENT_BIT")
	}
	return path
}

// example reads a file of this folder.
func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// replace changes a part that must be in text exactly once. So a test fails when the example no
// longer has the part that the test replaces.
func replace(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if n := strings.Count(text, pairs[i]); n != 1 {
			t.Fatalf("%q is in the example %d times", pairs[i], n)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// cut returns text in three: before from, from there up to to, and the rest. An empty to is the
// end.
func cut(t *testing.T, text, from, to string) (before, between, after string) {
	t.Helper()
	before, rest, ok := strings.Cut(text, from)
	if !ok {
		t.Fatalf("no %q in the example", from)
	}
	if to == "" {
		return before, from + rest, ""
	}
	between, after, ok = strings.Cut(rest, to)
	if !ok {
		t.Fatalf("no %q in the example", to)
	}
	return before, from + between, to + after
}

// A process is a running Fluent Bit.
type process struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	log  *output
	done chan error
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs Fluent Bit on a configuration, with no other environment than the one given.
func start(t *testing.T, binary, dir, config string, env ...string) *process {
	t.Helper()
	file := filepath.Join(dir, "fluent-bit.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file)
	cmd.Env, cmd.Dir = env, dir
	return launch(t, dir, cmd)
}

// launch runs a command that becomes Fluent Bit.
func launch(t *testing.T, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, dir: dir, cmd: cmd, log: new(output), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("fluent-bit said:\n%s", p.log)
		}
	})
	return p
}

// stop asks Fluent Bit to end and waits for it.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(40 * time.Second):
		p.t.Fatal("fluent-bit does not end")
	}
}

// until waits for a condition, and says what it waited for when it does not come.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-p.done:
			p.done <- err
			p.t.Fatalf("fluent-bit ended (%v) before: %s", err, what)
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// freePort is one that nothing listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}
