package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

const sharedContainer = "defender-workers"

// sharedTables are the containers that workers share.
var sharedTables = []string{"insights-logs-advancedhunting-alertevidence", "insights-logs-advancedhunting-deviceevents", "insights-logs-advancedhunting-deviceinfo"}

func (a *account) sharedConfig(lease time.Duration) blob.Config {
	cfg := a.config()
	cfg.Containers = []string{"insights-logs-advancedhunting-*"}
	cfg.Shared, cfg.Shards, cfg.Lease = sharedContainer, 16, lease
	cfg.PollInterval = 100 * time.Millisecond
	return cfg
}

// fleet is some workers, each a process, and what they have handed over.
type fleet struct {
	t     *testing.T
	conn  string
	lease time.Duration

	mu      sync.Mutex
	seen    map[string]int
	running []*worker
	all     []*worker
	readers sync.WaitGroup
}

// worker is a process of TestSharedChild.
type worker struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	number int
	agent  string // what it calls itself to the service

	ends      map[string][]int64 // by lane and term: where events end that were handed over and not written
	at        time.Time          // when it began to hand over what comes
	handed    []handedOver
	suspended bool
	woken     []time.Time
	log       bytes.Buffer // f.mu
	gone      chan struct{}
}

func (f *fleet) start() *worker {
	f.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSharedChild$")
	cmd.Env = append(os.Environ(), "BLOB_SHARED_CONNECTION="+f.conn, "BLOB_SHARED_LEASE="+f.lease.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	w := &worker{cmd: cmd, stdin: in, number: len(f.all), ends: make(map[string][]int64), gone: make(chan struct{})}
	f.all = append(f.all, w)
	f.running = append(f.running, w)
	f.mu.Unlock()
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.readers.Go(func() {
		defer close(w.gone)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			f.line(w, lines.Text())
		}
		_ = cmd.Wait()
	})
	return w
}

// handedOver is when a worker gave events of a lane to its host.
type handedOver struct {
	at   time.Time
	lane string
}

// line takes what a worker says:
//
//	at NANOSECONDS              it begins to hand over what follows
//	line LANE/TERM NEXT TEXT    an event, handed over
//	wrote LANE/TERM NEXT        a position, written to its shard
//	agent NAME, log TEXT
func (f *fleet) line(w *worker, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, rest, _ := strings.Cut(text, " ")
	if kind == "agent" {
		w.agent = rest
		return
	}
	if kind == "log" {
		w.log.WriteString(rest + "\n")
		return
	}
	if kind == "at" {
		n, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			f.t.Errorf("worker %d says %q", w.number, text)
		}
		w.at = time.Unix(0, n)
		return
	}
	if kind == "PASS" { // of the test that it is
		return
	}
	lane, rest, _ := strings.Cut(rest, " ")
	digits, rest, _ := strings.Cut(rest, " ")
	next, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		f.t.Errorf("worker %d says %q", w.number, text)
		return
	}
	switch kind {
	case "line":
		event, err := strconv.Unquote(rest)
		if err != nil {
			f.t.Errorf("worker %d says %q", w.number, text)
		}
		f.seen[event]++
		if h := (handedOver{w.at, lane[:strings.LastIndexByte(lane, '/')]}); len(w.handed) == 0 || w.handed[len(w.handed)-1] != h {
			w.handed = append(w.handed, h)
		}
		w.ends[lane] = append(w.ends[lane], next)
	case "wrote":
		open := w.ends[lane][:0]
		for _, end := range w.ends[lane] {
			if end > next {
				open = append(open, end)
			}
		}
		w.ends[lane] = open
	}
}

// remove takes a worker out of those that run.
func (f *fleet) remove(w *worker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.running {
		if other == w {
			f.running = append(f.running[:i:i], f.running[i+1:]...)
			return
		}
	}
}

// end ends all workers in good order.
func (f *fleet) end() {
	f.mu.Lock()
	running := f.running
	f.mu.Unlock()
	for _, w := range running {
		_ = w.stdin.Close()
	}
	for _, w := range running {
		select {
		case <-w.gone:
		case <-time.After(30 * time.Second):
			f.t.Errorf("worker %d does not end; its log:\n%s", w.number, f.logOf(w))
			_ = w.cmd.Process.Kill()
		}
	}
	f.readers.Wait()
}

func (f *fleet) logOf(w *worker) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return w.log.String()
}

func (f *fleet) distinct() int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.seen) }

// repeats is how many events came again, and how many may: those that a worker had handed over and
// not written.
func (f *fleet) repeats() (again, allowed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.seen {
		again += n - 1
	}
	for _, w := range f.all {
		for _, ends := range w.ends {
			allowed += len(ends)
		}
	}
	return again, allowed
}

// growth lets blobs grow at random until all of their lines are in.
type growth struct {
	want map[string]bool
	done chan struct{}
}

// grow makes so many blobs in the containers, which come to their lines within d.
func grow(rng *rand.Rand, blobs, lines int, d time.Duration, put func(container, name, text string)) *growth {
	g := &growth{want: make(map[string]bool), done: make(chan struct{})}
	type growing struct{ container, name, rest string }
	var left []*growing
	hour := time.Now().UTC().Truncate(time.Hour)
	total := 0
	for i := range blobs {
		b := &growing{container: sharedTables[i%len(sharedTables)]}
		k := i / len(sharedTables) // six hours of some tenants
		b.name = strings.Replace(pt1h(hour.Add(-time.Duration(k%6)*time.Hour)), "0aa/", fmt.Sprintf("%03d/", k/6), 1)
		for n := range lines {
			line := fmt.Sprintf(`{"blob":%d,"line":%d,"x":"%s"}`, i, n, strings.Repeat("x", rng.IntN(300)))
			g.want[line] = true
			b.rest += line + "\r\n"
		}
		total += len(b.rest)
		left = append(left, b)
	}
	seed := rng.Uint64()
	go func() {
		defer close(g.done)
		rng := rand.New(rand.NewPCG(seed, 1))
		begun := time.Now()
		for put0 := 0; len(left) > 0; {
			due := int(float64(total) * min(1, float64(time.Since(begun))/float64(d)))
			if put0 >= due {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			i := rng.IntN(len(left))
			b := left[i]
			n := min(1+rng.IntN(3000), len(b.rest))
			put(b.container, b.name, b.rest[:n])
			put0 += n
			if b.rest = b.rest[n:]; b.rest == "" {
				left[i] = left[len(left)-1]
				left = left[:len(left)-1]
			}
		}
	}()
	return g
}

// schedule kills, stops, suspends and adds workers at random, until the time is over.
func (f *fleet) schedule(rng *rand.Rand, d time.Duration) {
	for range 3 {
		f.start()
	}
	var waking sync.WaitGroup
	defer waking.Wait()
	did := make(map[string]int)
	kinds := []string{"kill", "stop", "suspend", "add"}
	rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for end, n := time.Now().Add(d), 0; time.Now().Before(end); n++ {
		time.Sleep(f.lease/2 + time.Duration(rng.Int64N(int64(f.lease))))
		what := kinds[n%len(kinds)] // each comes, in an order that differs
		if n >= len(kinds) {
			what = kinds[rng.IntN(len(kinds))]
		}
		f.mu.Lock()
		var awake []*worker
		for _, w := range f.running {
			if !w.suspended {
				awake = append(awake, w)
			}
		}
		count := len(f.running)
		f.mu.Unlock()
		w := awake[rng.IntN(len(awake))]
		switch {
		case what == "add" && count >= 5:
			continue
		case what != "add" && len(awake) < 2:
			what = "add"
		}
		did[what]++
		switch what {
		case "add":
			f.start()
		case "kill":
			f.t.Logf("worker %d is killed", w.number)
			_ = w.cmd.Process.Kill()
			<-w.gone
			f.remove(w)
		case "stop":
			f.t.Logf("worker %d is stopped", w.number)
			_ = w.stdin.Close()
			<-w.gone
			f.remove(w)
		case "suspend":
			f.t.Logf("worker %d is suspended", w.number)
			f.mu.Lock()
			w.suspended = true
			f.mu.Unlock()
			_ = w.cmd.Process.Signal(syscall.SIGSTOP)
			asleep := f.lease*3/2 + time.Duration(rng.Int64N(int64(f.lease))) // 90 s or more, were it a minute
			waking.Go(func() {
				time.Sleep(asleep)
				f.mu.Lock()
				w.suspended = false
				w.woken = append(w.woken, time.Now())
				f.mu.Unlock()
				_ = w.cmd.Process.Signal(syscall.SIGCONT)
			})
		}
	}
	f.t.Logf("done: %v", did)
}

// reading checks by the service's log that no blob was read by a worker whose shard another had
// claimed, for longer than the margin.
type reading struct {
	mu     sync.Mutex
	shard  func(container, name string) int
	owners map[int][]owner
	reads  []read
}

type owner struct {
	at    time.Time
	agent string
}

type read struct {
	owner
	shard int
	blob  string
}

func (l *reading) saw(r fakeblob.Request, status int) {
	agent, _, _ := strings.Cut(r.Agent, " ")
	l.mu.Lock()
	defer l.mu.Unlock()
	now := owner{time.Now(), agent}
	switch {
	case r.Container == sharedContainer && r.Op == fakeblob.Lease && status == 201:
		n, _ := strconv.Atoi(strings.TrimPrefix(r.Blob, "shard-"))
		l.owners[n] = append(l.owners[n], now)
	case r.Container != sharedContainer && r.Op == fakeblob.GetBlob:
		l.reads = append(l.reads, read{now, l.shard(r.Container, r.Blob), r.Blob})
	}
}

// ownerAt is who had claimed a shard last at a time. mu is held.
func (l *reading) ownerAt(shard int, at time.Time) (last *owner) {
	for i, o := range l.owners[shard] {
		if !o.at.After(at) {
			last = &l.owners[shard][i]
		}
	}
	return last
}

// check returns the longest that a blob was read after another worker had claimed it. Nothing may
// be handed over after that.
func (l *reading) check(f *fleet, margin time.Duration) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	woken := make(map[string][]time.Time)
	for _, w := range f.all {
		woken[w.agent] = w.woken
	}
	for _, r := range l.reads {
		at := l.ownerAt(r.shard, r.at)
		if at == nil {
			f.t.Errorf("%s read %s, whose shard %d nobody had claimed", r.agent, r.blob, r.shard)
			continue
		}
		if at.agent == r.agent {
			continue
		}
		late := r.at.Sub(at.at)
		for _, t := range woken[r.agent] {
			// One request of each reader may have been decided on before it was suspended.
			if r.at.After(t) && r.at.Sub(t) < 100*time.Millisecond {
				late = 0
			}
		}
		longest = max(longest, late)
		if late > margin {
			f.t.Errorf("%s read %s of shard %d, %v after %s had claimed it", r.agent, r.blob, r.shard, late, at.agent)
		}
	}
	for _, w := range f.all {
		for _, h := range w.handed {
			container, name, _ := strings.Cut(h.lane, "/")
			n := l.shard(container, name)
			if at := l.ownerAt(n, h.at); at == nil || at.agent != w.agent {
				f.t.Errorf("%s handed over events of shard %d at %v, and not %+v", w.agent, n, h.at, at)
			}
		}
	}
	return longest
}

// Workers are killed, stopped, suspended and added at random. They lose nothing, repeat at most
// what was not written, and do not read the same blob at the same time.
func TestShared(t *testing.T) {
	t.Parallel()
	d := 25 * time.Second
	if raceDetector {
		d = 10 * time.Second
	}
	if text := os.Getenv("BLOB_SHARED_FOR"); text != "" { // such as 5m
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	a := newFake(t, append([]string{sharedContainer}, sharedTables...)...)
	lease := 3 * time.Second
	if text := os.Getenv("BLOB_SHARED_LEASES"); text != "" { // such as 1m, as they are
		var err error
		if lease, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	a.fake.SetLeases(lease)
	log := &reading{owners: make(map[int][]owner), shard: shardOf(t, a)}
	a.fake.SetAnswered(log.saw)
	f := runShared(t, a.conn, lease, d, func(container, name, text string) { a.fake.Append(container, name, []byte(text)) })
	longest := log.check(f, lease/6)
	t.Logf("%d reads; the latest by a worker whose shard was another's: %v after that", len(log.reads), longest)
}

// shardOf returns what tells the shard of a blob.
func shardOf(t *testing.T, a *account) func(container, name string) int {
	cfg := a.sharedConfig(time.Hour)
	cfg.Shared, cfg.Containers = "none-such", []string{"none-such"}
	src, err := blob.Open(context.Background(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src.ShardOf
}

func runShared(t *testing.T, conn string, lease, d time.Duration, put func(container, name, text string)) *fleet {
	seed := rand.Uint64()
	if text := os.Getenv("BLOB_SHARED_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (BLOB_SHARED_SEED)", seed)
	rng := rand.New(rand.NewPCG(seed, 20))
	f := &fleet{t: t, conn: conn, lease: lease, seen: make(map[string]int)}
	lines := max(30, int(d/time.Second))
	g := grow(rng, 200, lines, d, put)
	f.schedule(rng, d)
	<-g.done
	for end := time.Now().Add(time.Minute + 10*lease); f.distinct() < len(g.want) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(2 * lease) // what comes again, comes soon
	f.end()
	lost, strange := 0, 0
	f.mu.Lock()
	for line := range g.want {
		if f.seen[line] == 0 {
			if lost++; lost < 5 {
				t.Errorf("lost: %.60s", line)
			}
		}
	}
	for line := range f.seen {
		if !g.want[line] {
			strange++
		}
	}
	f.mu.Unlock()
	again, allowed := f.repeats()
	t.Logf("%d lines of 200 blobs, %d workers: %d lost, %d torn, %d came again, %d had not been written", len(g.want), len(f.all), lost, strange, again, allowed)
	if lost > 0 || strange > 0 {
		t.Errorf("%d of %d lines lost, %d torn", lost, len(g.want), strange)
	}
	if again > allowed {
		t.Errorf("%d lines came again, but only %d were not written", again, allowed)
	}
	if t.Failed() {
		for _, w := range f.all {
			t.Logf("log of worker %d, %s:\n%s", w.number, w.agent, f.logOf(w))
		}
	}
	return f
}

// telling says what is written, so that whoever counts knows what may come again.
type telling struct {
	*blob.Source
	out    *output
	mu     sync.Mutex
	leases map[string]*input.Lease
}

func key(m input.Mark) string { return fmt.Sprintf("%s/%d", m.Lane, m.Term) }

func (s *telling) Fetch(ctx context.Context) ([]input.Message, error) {
	messages, err := s.Source.Fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		s.leases[key(m.Mark)] = m.Lease
	}
	return messages, err
}

func (s *telling) Commit(ctx context.Context, marks []input.Mark) error {
	err := s.Source.Commit(ctx, marks)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range marks {
		if s.leases[key(m)].Held() {
			s.out.say("wrote %s %d", key(m), m.Next)
		}
	}
	return nil
}

// output is the standard output of a worker.
type output struct{ mu sync.Mutex }

func (o *output) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Printf(format+"\n", args...)
}

func (o *output) Write(p []byte) (int, error) {
	o.say("log %s", bytes.TrimSpace(p))
	if _, rest, ok := bytes.Cut(p, []byte(" worker=")); ok {
		name, _, _ := bytes.Cut(rest, []byte(" "))
		o.say("agent defender-%s", name[bytes.LastIndexByte(name, '-')+1:])
	}
	return len(p), nil
}

// TestSharedChild is a worker of TestShared: a pump between a source and a host that writes out
// what it takes.
func TestSharedChild(t *testing.T) {
	conn := os.Getenv("BLOB_SHARED_CONNECTION")
	if conn == "" {
		return // only as a child
	}
	lease, err := time.ParseDuration(os.Getenv("BLOB_SHARED_LEASE"))
	if err != nil {
		t.Fatal(err)
	}
	out := &output{}
	log := slog.New(slog.NewTextHandler(out, nil))
	box := input.NewOutbox(4 << 20)
	p := &input.Pump{
		Outbox: box, Log: log, CommitEvery: lease / 10,
		Open: func(ctx context.Context) (input.Source, error) {
			src, err := blob.Open(ctx, (&account{conn: conn}).sharedConfig(lease), nil, log)
			if err != nil {
				return nil, err
			}
			return &telling{Source: src, out: out, leases: make(map[string]*input.Lease)}, nil
		},
		Transform: func(_ context.Context, b *input.Batch, messages []input.Message) {
			for _, m := range messages {
				b.Append("", fmt.Appendf(nil, "line %s %d %q\n", key(m.Mark), m.Mark.Next, m.Body))
			}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
		cancel()
		box.Close()
	}()
	var host sync.WaitGroup
	host.Go(func() {
		var g input.Gather
		for ctx.Err() == nil {
			batches := box.Waiting(nil, 0)
			if len(batches) == 0 || time.Now().UnixMilli()%1000 < 500 { // so that events wait when the worker is suspended
				time.Sleep(5 * time.Millisecond)
				continue
			}
			for g.From(batches) {
				out.mu.Lock()
				_, err := fmt.Printf("at %d\n%s", time.Now().UnixNano(), g.Data)
				out.mu.Unlock()
				if err != nil && !errors.Is(err, syscall.EPIPE) {
					log.Error("write", "error", err)
				}
				g.Taken()
			}
			box.Done(batches[0])
		}
	})
	p.Run(ctx)
	host.Wait()
}
