package child_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/child"
)

// buffer is written while it is read.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestEnd(t *testing.T) {
	const script = `trap 'echo ended well; exit 0' TERM; echo ready; while :; do sleep 0.05; done`
	f := func(name string, end func(*child.Process), want string) {
		t.Run(name, func(t *testing.T) {
			var said buffer
			p, err := child.Start(t.TempDir(), []string{"A=b"}, &said, "sh", "-c", script)
			if err != nil {
				t.Fatal(err)
			}
			for !strings.Contains(said.String(), "ready") {
				time.Sleep(10 * time.Millisecond)
			}
			begin := time.Now()
			end(p)
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if got := said.String(); got != want {
				t.Errorf("it said %q, want %q", got, want)
			}
		})
	}
	f("SIGTERM", (*child.Process).Stop, "ready\nended well\n")
	f("SIGKILL", (*child.Process).Kill, "ready\n")
}
