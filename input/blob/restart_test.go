package blob_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

// Values of blobs that grow in random steps, cut anywhere, all arrive whole although the reader is
// killed. Only values that were not committed before the kill come twice. The fault matrix does the
// same at length (rows blob-sigkill, blob-array).
func TestKilled(t *testing.T) {
	t.Parallel()
	a := newFake(t)
	killed(t, a, func(name, text string) { a.fake.Append(table, name, []byte(text)) })
}

func killed(t *testing.T, a *account, grow func(name, text string)) {
	const blobs, perBlob, kills = 60, 30, 4
	rng := rand.New(rand.NewPCG(1, 2))
	type growing struct{ name, rest string }
	var left []*growing
	want := make(map[string]bool)
	hour := time.Now().UTC().Truncate(time.Hour)
	for i := range blobs {
		g := &growing{name: pt1h(hour.Add(-time.Duration(i%24) * time.Hour))}
		if i >= 24 { // more tenants, the same 24 hours
			g.name = strings.Replace(g.name, "0aa/", fmt.Sprintf("%03d/", i/24), 1)
		}
		for k := range perBlob {
			line := fmt.Sprintf(`{"blob":%d,"line":%d,"x":"%s"}`, i, k, strings.Repeat("x", rng.IntN(400)))
			if i%3 == 0 { // a list whose end never comes: whole, it might be one message
				line, g.rest = line[:len(line)-1]+",\n\"y\":[{}]}", g.rest+"[,"[min(k, 1):min(k, 1)+1]
			}
			want[line] = true
			g.rest += line + "\r\n"
		}
		left = append(left, g)
	}
	done := make(chan struct{})
	var growers sync.WaitGroup
	growers.Go(func() {
		defer close(done)
		for len(left) > 0 {
			i := rng.IntN(len(left))
			g := left[i]
			n := min(1+rng.IntN(1500), len(g.rest))
			grow(g.name, g.rest[:n])
			if g.rest = g.rest[n:]; g.rest == "" {
				left[i] = left[len(left)-1]
				left = left[:len(left)-1]
			}
			time.Sleep(time.Duration(rng.IntN(1200)) * time.Microsecond)
		}
	})
	defer growers.Wait()

	path := statePath(t)
	seen := make(map[string]int)
	allowed, torn := 0, 0
	for run := 0; ; run++ {
		if run >= kills {
			if <-done; len(seen) == len(want) {
				break // and nothing more would come
			}
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), "BLOB_CHILD_STATE="+path, "BLOB_CHILD_CONNECTION="+a.conn)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if run < kills {
			timer = time.AfterFunc(300*time.Millisecond+time.Duration(rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		} else {
			timer = time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		}
		uncommitted := 0
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			switch line := lines.Text(); {
			case line == "committed":
				uncommitted = 0
			case strings.HasPrefix(line, "line "):
				uncommitted++
				line, _ = strconv.Unquote(strings.TrimPrefix(line, "line "))
				if seen[line]++; !want[line] {
					torn++
					t.Errorf("not a whole line: %.200q", line)
				}
			}
			if run >= kills && uncommitted == 0 && len(seen) == len(want) {
				_ = cmd.Process.Kill()
			}
		}
		timer.Stop()
		_ = cmd.Wait()
		allowed += uncommitted
		if run >= kills {
			break
		}
	}
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	if len(seen) != len(want) || torn > 0 {
		t.Errorf("%d of %d lines, %d torn", len(seen), len(want), torn)
	}
	if twice > allowed {
		t.Errorf("%d lines came again, but only %d were not committed when the reader was killed", twice, allowed)
	}
	t.Logf("%d lines of %d blobs, %d kills: %d came again, %d were not committed", len(seen), blobs, kills, twice, allowed)
}

// TestKilledChild is the reader that TestKilled kills: it writes lines out, then commits them, as a
// host does.
func TestKilledChild(t *testing.T) {
	path := os.Getenv("BLOB_CHILD_STATE")
	if path == "" {
		return // only as a child
	}
	state, err := input.OpenState(path, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := (&account{conn: os.Getenv("BLOB_CHILD_CONNECTION")}).config()
	src, err := blob.Open(context.Background(), cfg, state, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		messages, err := src.Fetch(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		marks := make(input.Marks)
		for _, m := range messages {
			fmt.Fprintf(&b, "line %q\n", m.Body)
			marks.Set(m.Mark)
		}
		if _, err := io.WriteString(os.Stdout, b.String()); err != nil {
			t.Fatal(err)
		}
		var list []input.Mark
		for _, m := range marks {
			list = append(list, m)
		}
		if err := src.Commit(context.Background(), list); err != nil {
			t.Fatal(err)
		}
		fmt.Println("committed")
	}
}
