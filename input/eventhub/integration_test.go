//go:build integration

package eventhub_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/kafka"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

func init() { asChild = readAndPrint }

func kafkaSettings(s *kafka.Server, hub, group string) map[string]string {
	return map[string]string{
		"eventhub.connection_string": s.ConnectionString(),
		"eventhub.brokers":           s.Brokers(),
		"eventhub.tls":               "off",
		"eventhub.hubs":              hub,
		"eventhub.group":             group,
	}
}

// What the other tests show against a fake, against Apache Kafka.
func TestIntegrationKafka(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	s, err := kafka.Start(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)

	create := func(t *testing.T, hub string, partitions int32) {
		t.Helper()
		if err := s.CreateHub(ctx, hub, partitions); err != nil {
			t.Fatal(err)
		}
	}
	// fill produces messages a to b, over 4 partitions.
	fill := func(t *testing.T, hub string, a, b int) {
		t.Helper()
		for p := range 4 {
			var part [][]byte
			for _, m := range numbered(a, b)[p*(b-a)/4 : (p+1)*(b-a)/4] {
				part = append(part, append(m, bytes.Repeat([]byte(" padding"), 100)...))
			}
			if err := s.ProduceTo(ctx, hub, int32(p), part...); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(t *testing.T, ms []input.Message, a, b int) {
		t.Helper()
		checkOrder(t, ms)
		for i := range ms {
			ms[i].Body = ms[i].Body[:6]
		}
		same(t, "messages", bodies(ms), texts(numbered(a, b)...))
	}

	t.Run("consume and resume", func(t *testing.T) {
		create(t, "consume", 4)
		fill(t, "consume", 0, 20_000)
		cfg := readConfig(t, kafkaSettings(s, "consume", "consume"))
		r := open(t, cfg, nil)
		started := time.Now()
		ms := r.fetch(ctx, 20_000)
		t.Logf("20000 messages of 800 bytes in %v", time.Since(started).Round(time.Millisecond))
		r.commit(ctx, ms)
		check(t, ms, 0, 20_000)
		r.close()
		fill(t, "consume", 20_000, 20_100)
		r = open(t, cfg, nil)
		check(t, r.fetch(ctx, 100), 20_000, 20_100)
		r.nothing(ctx)
	})

	t.Run("rebalance", func(t *testing.T) {
		create(t, "rebalance", 4)
		cfg := readConfig(t, kafkaSettings(s, "rebalance", "rebalance"))
		a := join(ctx, open(t, cfg, nil), true)
		a.waitLanes(4)
		n := 0
		pour := func() { fill(t, "rebalance", n, n+400); n += 400 }
		pour()
		b := join(ctx, open(t, cfg, nil), true)
		for len(b.Stats().Lanes) != 2 || len(a.Stats().Lanes) != 2 {
			pour()
			time.Sleep(100 * time.Millisecond)
			if ctx.Err() != nil {
				t.Fatal("the partitions were not divided")
			}
		}
		pour()
		b.stop()
		b.close()
		a.waitLanes(4)
		pour()
		all := func() []input.Message { return append(a.messages(), b.messages()...) }
		eventually(t, 20*time.Second, func() error {
			if got := len(all()); got < n {
				return fmt.Errorf("%d of %d messages", got, n)
			}
			return nil
		})
		checkOrder(t, a.messages())
		checkOrder(t, b.messages())
		ms := all()
		for i := range ms {
			ms[i].Body = ms[i].Body[:6]
		}
		same(t, "messages", bodies(ms), texts(numbered(0, n)...))
		if len(b.messages()) == 0 {
			t.Error("the second consumer got nothing")
		}
	})

	t.Run("crash", func(t *testing.T) {
		create(t, "crash", 4)
		fill(t, "crash", 0, 20_000)
		set := kafkaSettings(s, "crash", "crash")
		seen := make(map[string]int)
		var deaths []int
		// Killed while it reads: once at the beginning, once in the middle. The third is let
		// finish.
		for _, after := range []int{300, 5000, -1} {
			n := runChild(t, ctx, set, seen, after, 20_000)
			deaths = append(deaths, n)
		}
		missing, twice := 0, 0
		for _, m := range texts(numbered(0, 20_000)...) {
			switch n := seen[m]; {
			case n == 0:
				missing++
			case n > 1:
				twice += n - 1
			}
		}
		t.Logf("lines that each process printed: %v; %d messages came twice", deaths, twice)
		if missing > 0 {
			t.Errorf("%d messages are missing", missing)
		}
		if twice == 0 {
			t.Error("nothing came twice: the processes were not killed between printing and committing")
		}
	})

	t.Run("group deleted", func(t *testing.T) {
		create(t, "deleted", 4)
		fill(t, "deleted", 0, 400)
		cfg := readConfig(t, kafkaSettings(s, "deleted", "deleted"))
		state := openState(t)
		r := open(t, cfg, state)
		r.commit(ctx, r.fetch(ctx, 400))
		r.close()
		fill(t, "deleted", 400, 480)
		eventually(t, 20*time.Second, func() error {
			resp, err := s.Admin().DeleteGroup(ctx, "deleted")
			if err == nil {
				err = resp.Err
			}
			return err
		})
		r = open(t, cfg, state)
		check(t, r.fetch(ctx, 80), 400, 480)
		r.nothing(ctx)
		r.log.times(t, 1, "the copy in the state file decides")
	})

	t.Run("transactions", func(t *testing.T) {
		create(t, "transactions", 1)
		cfg, state := readConfig(t, kafkaSettings(s, "transactions", "transactions")), openState(t)
		readTransactions(ctx, t, s.ClientOpts(), "transactions", func() *reader { return open(t, cfg, state) }, func() int64 {
			offsets, err := s.Admin().FetchOffsets(ctx, "transactions")
			if err != nil {
				t.Fatal(err)
			}
			return offsets["transactions"][0].At
		})
	})

	t.Run("retention", func(t *testing.T) {
		create(t, "retention", 4)
		fill(t, "retention", 0, 400)
		cfg := readConfig(t, kafkaSettings(s, "retention", "retention"))
		r := open(t, cfg, nil)
		r.commit(ctx, r.fetch(ctx, 400))
		r.close()
		fill(t, "retention", 400, 800)
		ends, err := s.Admin().ListEndOffsets(ctx, "retention")
		if err != nil {
			t.Fatal(err)
		}
		offsets := ends.Offsets()
		for p, o := range offsets["retention"] {
			o.At -= 10 // the last ten of each partition are left
			offsets["retention"][p] = o
		}
		if _, err := s.Admin().DeleteRecords(ctx, offsets); err != nil {
			t.Fatal(err)
		}
		r = open(t, cfg, nil)
		r.fetch(ctx, 40)
		r.nothing(ctx)
		if lost := r.Stats().Lost; lost != 360 {
			t.Errorf("%d messages are counted as lost, want 360", lost)
		}
		r.log.times(t, 4, "EVENTS LOST")
	})

	t.Run("troubles", func(t *testing.T) {
		f := func(says, key, value string) {
			t.Helper()
			set := kafkaSettings(s, "consume", "troubles")
			set[key] = value
			r := open(t, readConfig(t, set), nil)
			r.log.wait(t, 2*soon, says)
			r.close()
		}
		f("sign-in was refused", "eventhub.connection_string", strings.Replace(s.ConnectionString(), "a2Fm", "d3Jv", 1))
		f("there is no such hub", "eventhub.hubs", "nothing")
		f("the broker cannot be reached", "eventhub.brokers", closedPort(t))
	})

	// Last, because it takes the broker away from everybody.
	t.Run("broker killed", func(t *testing.T) {
		create(t, "killed", 4)
		fill(t, "killed", 0, 400)
		r := open(t, readConfig(t, kafkaSettings(s, "killed", "killed")), nil)
		ms := r.fetch(ctx, 400)
		check(t, ms, 0, 400)
		s.Kill()
		r.log.wait(t, 20*time.Second, "the broker cannot be reached")
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		fill(t, "killed", 400, 800)
		after := r.fetch(ctx, 400)
		if strings.Contains(r.log.String(), "partitions given away") {
			// A slow machine was without the broker for longer than a membership lasts. What was
			// not committed is read again, and nothing is missing.
			last := map[string]input.Message{}
			for all := slices.Concat(ms, after); ; all = r.fetch(ctx, 1) {
				for _, m := range all {
					last[string(m.Body)] = m
				}
				if len(last) == 800 {
					break
				}
			}
			check(t, slices.Collect(maps.Values(last)), 0, 800)
			return
		}
		// The membership outlives a short absence of the broker: nothing is read again, and the
		// marks from before count.
		check(t, after, 400, 800)
		eventually(t, 60*time.Second, func() error { return r.Commit(ctx, newest(ms)) })
		if n := r.Stats().Stale; n != 0 {
			t.Errorf("%d marks were dropped", n)
		}
		r.log.times(t, 1, "the broker cannot be reached")
		r.log.wait(t, time.Second, "works again")
	})
}

// runChild runs this program as readAndPrint, and kills it when it has printed kill lines. If kill
// is negative, it runs until seen has all messages. It returns how many lines were printed, which
// it adds to seen.
func runChild(t *testing.T, ctx context.Context, set map[string]string, seen map[string]int, kill, all int) (n int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	for k, v := range set {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	started := time.Now()
	killed := false
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF { // what was not ended is not taken
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Logf("process %d: first message after %v", cmd.Process.Pid, time.Since(started).Round(100*time.Millisecond))
		}
		seen[strings.TrimSuffix(line, "\n")]++
		n++
		if n == kill || kill < 0 && len(seen) == all {
			_ = cmd.Process.Kill() // and read what is in the pipe: it was handed over
			killed = true
		}
	}
	if !killed {
		t.Fatalf("the process ended by itself:\n%s", errors.String())
	}
	return n
}

// readAndPrint reads the hub that the environment names. Every message is printed, which is what
// makes it safe, and committed a little later.
func readAndPrint() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	settings := input.NewSettings(os.Getenv, declared)
	cfg, _ := eventhub.ReadConfig(settings, signin.Read(settings))
	fail(settings.Err())
	ctx := context.Background()
	src, err := eventhub.Open(ctx, cfg, nil, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	fail(err)
	last := time.Now()
	safe := make(input.Marks)
	for {
		ms, err := src.Fetch(ctx)
		fail(err)
		for _, m := range ms {
			_, err := fmt.Fprintf(os.Stdout, "%.6s\n", m.Body)
			fail(err)
			safe.Set(m.Mark)
			if time.Since(last) > 50*time.Millisecond {
				var marks []input.Mark
				for _, m := range safe {
					marks = append(marks, m)
				}
				fail(src.Commit(ctx, marks))
				last = time.Now()
			}
		}
	}
}
