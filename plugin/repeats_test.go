package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Records that are delivered again are handed on with pass and not with drop, and counted with
// both. What was handed on before a restart is known after it, to both sources. A group that
// somebody has set back is read again in full.
func TestRepeatsOfARunningSection(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"pass", "drop"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := startHub(t, 1)
			const container = "insights-logs-advancedhunting-alertinfo"
			const n = 300
			dir := t.TempDir()
			file := filepath.Join(dir, "metrics")
			args := settings(h, "db="+filepath.Join(dir, "state.db"), "repeats="+mode)
			repeated := func(r run, last, want int) {
				t.Helper()
				r.ok(t)
				again := 0
				seen := make(map[int]bool)
				for _, e := range r.events {
					if seen[e.Seq] || e.Seq < last && last > n {
						again++
					}
					seen[e.Seq] = true
				}
				if mode == "drop" {
					want = 0
				}
				if again != want {
					t.Errorf("%d repeats, want %d", again, want)
				}
			}

			// The same records, in messages of other sizes, and one that is new at the end.
			produce(t, h, 0, n)
			send(t, h, envelope(0, n))
			produce(t, h, n, 1)
			repeated(runHost(t, append([]string{"-seconds", "12", "-metrics", file}, args...)...), n, n)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(`repeats_total{name="defender.0",table="AlertInfo"} %d`, n/3); !regexp.MustCompile(regexp.QuoteMeta(want)).Match(b) {
				t.Errorf("no %s in\n%s", want, b)
			}

			// Through both sources, after a restart.
			account := startAccount(t, container, append(envelope(0, n), "\r\n"...))
			send(t, h, envelope(0, n))
			produce(t, h, n+1, 1)
			both := append(append([]string{}, args...), "-set", "blob.connection_string="+account.ConnectionString(), "-set", "blob.containers="+container, "-set", "blob.start=earliest")
			distinct := n + 1
			if mode == "drop" {
				distinct = 1
			}
			r := runHostUntil(t, distinct, "", both...)
			if mode == "drop" {
				repeated(r, n+1, 0)
				r.logs(t, "ids of records read from the state file")

				// Someone wants the events again.
				client, err := kgo.NewClient(h.ClientOpts()...)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				var back kadm.Offsets
				back.AddOffset(hub, 0, 0, -1)
				if err := kadm.NewClient(client).CommitAllOffsets(context.Background(), eventhub.DefaultGroup, back); err != nil {
					t.Fatal(err)
				}
				r = runHostUntil(t, n+2, "", args...)
				r.ok(t).logs(t, "the consumer group was set back")
				repeated(r, n, 0) // among them, repeats are still repeats
			}
		})
	}
}

func TestRepeatsRefuseWhatCannotWork(t *testing.T) {
	h := startHub(t, 1)
	for _, c := range []struct{ set, says string }{
		{"event_id=off", `repeats "drop": needs event_id`},
		{"repeats.memory=0", `repeats.memory "0": is too little`},
		{"repeats.memory=100K", `repeats.memory "100K": is too little`},
		{"repeats.memory=100M", `repeats.memory "100M": is more than a quarter of memory_limit`},
	} {
		r := runHost(t, settings(h, "repeats=drop", c.set)...)
		if r.code == 0 {
			t.Errorf("repeats: drop starts with %s", c.set)
		}
		r.logs(t, c.says)
	}
}

// What is in the state file is known after a start: the newest, as many as it takes. Nothing of it
// is known after forget, or with repeats: pass.
func TestIDsInTheStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var state *input.State
	reopen := func(drop bool) *ids {
		t.Helper()
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if state, err = input.OpenState(path, log); err != nil {
			t.Fatal(err)
		}
		return openIDs(config{repeats: 32 << 20, transform: transform.Config{DropRepeats: drop}}, state, log)
	}
	defer func() { _ = state.Close() }()
	id := func(n int) input.ID { return input.ID{byte(n), byte(n >> 8), byte(n >> 16), 1} }
	d := reopen(true)
	n := 0
	save := func(some int) {
		d.save(func() (list []input.ID) {
			for range some {
				n++
				list = append(list, id(n))
			}
			return list
		})
	}
	known := func() (count int) {
		for i := 1; i <= n; i++ {
			if at := id(i); d.Has(&at) {
				count++
			}
		}
		return count
	}
	for _, some := range []int{1, 2, 3, 0, 250, 1, 1, 700, 5} {
		save(some)
		d = reopen(true)
		if got := known(); got != n {
			t.Fatalf("%d ids known after a start, of %d", got, n)
		}
	}
	save(64 << 10)
	if d = reopen(true); known() != n {
		t.Fatalf("%d ids known after a start, of %d", known(), n)
	}
	for range 5 {
		save(60_000)
	}
	d = reopen(true)
	if newest, oldest := id(n), id(1); !d.Has(&newest) || d.Has(&oldest) {
		t.Error("the newest id is not known, or the oldest is")
	}
	if got := known(); got < idsInFile || got > idsInFile+(64<<10) {
		t.Errorf("%d ids known, want %d or a little more", got, idsInFile)
	}
	d.forget()
	if d = reopen(true); known() != 0 {
		t.Errorf("%d ids known after they were forgotten", known())
	}
	save(10)
	if d = reopen(false); known() != 0 || d.kept() {
		t.Errorf("%d ids known with repeats: pass", known())
	}
	if d = reopen(true); known() != 0 {
		t.Errorf("%d ids known after a start with repeats: pass", known())
	}
}
