package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// fluentBit is the path of a real Fluent Bit. Without one the test is skipped: like names the one
// that shows the same in the C host.
func fluentBit(t *testing.T, like string) string {
	t.Helper()
	path := os.Getenv("FLUENT_BIT")
	if path == "" {
		path, _ = exec.LookPath("fluent-bit")
	}
	if path == "" {
		t.Skipf("there is no fluent-bit on the PATH or in $FLUENT_BIT; %s shows the same in the C host", like)
	}
	return path
}

// sink is what Fluent Bit's http output sends to: it counts events by Seq.
type sink struct {
	*httptest.Server
	down atomic.Bool // answers 503

	mu   sync.Mutex
	seen map[int]int    // Seq -> times
	tags map[string]int // tag -> events
}

func newSink(t *testing.T) *sink {
	s := &sink{seen: make(map[int]int), tags: make(map[string]int)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var records []struct{ Seq int }
		if err := json.NewDecoder(r.Body).Decode(&records); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable) // cut off by a kill: it comes again
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, record := range records {
			s.seen[record.Seq]++
		}
		s.tags[r.Header.Get("Tag")] += len(records)
	}))
	t.Cleanup(s.Close)
	return s
}

// distinct is how many events have come, and again how many came more than once.
func (s *sink) count() (distinct, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.seen {
		again += n - 1
	}
	return len(s.seen), again
}

// await waits until n events have come.
func (s *sink) await(t *testing.T, n int, wait time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if distinct, _ := s.count(); distinct >= n {
			return
		}
	}
	distinct, _ := s.count()
	t.Errorf("%d of %d events have arrived after %v", distinct, n, wait)
}

// configure writes a configuration with the recipe of the README: an [INPUT] for each of inputs,
// and an http output to s.
func configure(t *testing.T, dir string, s *sink, inputs ...string) (path string) {
	t.Helper()
	so, _ := build(t)
	var b strings.Builder
	fmt.Fprintf(&b, `[SERVICE]
    flush                  0.2
    grace                  10
    log_level              info
    log_file               %[1]s/fluent-bit.log
    hot_reload             on
    plugins_file           %[1]s/plugins.conf
    storage.path           %[1]s/storage
    storage.max_chunks_up  512
    scheduler.base         1
    scheduler.cap          2
`, dir)
	for _, in := range inputs {
		fmt.Fprintf(&b, "[INPUT]\n    name defender\n    threaded off\n    storage.type filesystem\n    storage.pause_on_chunks_overlimit on\n%s", in)
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	fmt.Fprintf(&b, "[OUTPUT]\n    name http\n    match *\n    host %s\n    port %s\n    format json\n    header_tag Tag\n    retry_limit no_limits\n", host, port)
	path = filepath.Join(dir, "fluent-bit.conf")
	for name, text := range map[string]string{path: b.String(), filepath.Join(dir, "plugins.conf"): "[PLUGINS]\n    Path " + so + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// section is the settings of an [INPUT] that reads h.
func section(h *fakehub.Hub, more ...string) string {
	var b strings.Builder
	for _, s := range append([]string{"eventhub.connection_string " + h.ConnectionString(), "eventhub.brokers " + h.Brokers(), "eventhub.ca_file " + h.CAFile()}, more...) {
		fmt.Fprintf(&b, "    %s\n", s)
	}
	return b.String()
}

// startFluentBit starts it. What it logs is checked for secrets when the test ends.
func startFluentBit(t *testing.T, binary, conf string) *exec.Cmd {
	t.Helper()
	terminal, err := os.OpenFile(filepath.Join(filepath.Dir(conf), "terminal.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd := exec.Command(binary, "-c", conf)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		noSecrets(t, logs(conf))
		if t.Failed() {
			t.Log(logs(conf))
		}
	})
	return cmd
}

// logs is Fluent Bit's output so far, to its log file and to the terminal. It writes to the
// terminal before and after the log is open.
func logs(conf string) string {
	dir := filepath.Dir(conf)
	file, _ := os.ReadFile(filepath.Join(dir, "fluent-bit.log"))
	terminal, _ := os.ReadFile(filepath.Join(dir, "terminal.log"))
	return string(file) + "\n-- on the terminal:\n" + string(terminal)
}

// terminate ends Fluent Bit as a service manager does, and returns how long that took.
func terminate(t *testing.T, cmd *exec.Cmd) time.Duration {
	t.Helper()
	started := time.Now()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Fluent Bit ends with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Fluent Bit does not end within 30 s")
		_ = cmd.Process.Kill()
		<-done
	}
	return time.Since(started)
}

func TestFluentBitTwoSectionsWithTags(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestEventsArriveThroughTheLibrary")
	h1, h2, s, dir := startHub(t, 2), startHub(t, 2), newSink(t), t.TempDir()
	const n = 3000
	conf := configure(t, dir, s, section(h1, "tag_pattern defender.*", "db "+dir+"/1.db"), section(h2, "tag other", "alias second", "db "+dir+"/2.db"))
	cmd := startFluentBit(t, binary, conf)
	produce(t, h1, 0, n)
	produce(t, h2, n, n)
	s.await(t, 2*n, 2*time.Minute)
	took := terminate(t, cmd)
	if took > 8*time.Second {
		t.Errorf("the end took %v", took)
	}
	if _, again := s.count(); again > 0 {
		t.Errorf("%d events came twice", again)
	}
	want := map[string]int{"defender.AlertInfo": n / 3, "defender.DeviceNetworkEvents": n / 3, "defender.DeviceProcessEvents": n / 3, "other": n}
	if fmt.Sprint(s.tags) != fmt.Sprint(want) {
		t.Errorf("tags: got %v, want %v", s.tags, want)
	}
	log, _, _ := strings.Cut(logs(conf), "-- on the terminal") // the plugin's lines must be in the file
	for _, says := range []string{"[ info] [input:defender:defender.0] starting version", "[ info] [input:defender:second] starting version", "[input:defender:second] stopped"} {
		if !strings.Contains(log, says) {
			t.Errorf("Fluent Bit's log file lacks %q", says)
		}
	}
	if strings.Contains(log, "not kept in files") {
		t.Error("storage.type filesystem is not recognised")
	}
}

func TestFluentBitRefusesAThreadedSection(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestHostsThatAreRefused")
	h, s, dir := startHub(t, 1), newSink(t), t.TempDir()
	conf := configure(t, dir, s, section(h))
	text, _ := os.ReadFile(conf)
	if err := os.WriteFile(conf, bytes.Replace(text, []byte("threaded off"), []byte("threaded on"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := startFluentBit(t, binary, conf).Wait(); err == nil {
		t.Error("Fluent Bit starts")
	}
	if log := logs(conf); !strings.Contains(log, `set "threaded: off" (in a classic configuration "threaded off") in this section`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestFluentBitWarnsOfMemoryStorage(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestEventsArriveThroughTheLibrary")
	h, s, dir := startHub(t, 1), newSink(t), t.TempDir()
	conf := configure(t, dir, s, section(h))
	text, _ := os.ReadFile(conf)
	if err := os.WriteFile(conf, bytes.Replace(text, []byte("storage.type filesystem"), []byte("storage.type memory"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := startFluentBit(t, binary, conf)
	for first := range 5 {
		produce(t, h, 100*first, 100)
		time.Sleep(time.Second)
	}
	s.await(t, 500, 2*time.Minute)
	terminate(t, cmd)
	if n := strings.Count(logs(conf), "not kept in files"); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
}

func TestFluentBitHotReloadUnderLoad(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestHotReloadOfTwoSections")
	h, s, dir := startHub(t, 4), newSink(t), t.TempDir()
	const reloads, n = 10, 20_000
	conf := configure(t, dir, s, section(h, "db "+dir+"/1.db"), section(h, "db "+dir+"/2.db"))
	cmd := startFluentBit(t, binary, conf)
	sent := feed(t, h, n, 500, 500*time.Millisecond)
	// Each generation starts both sections; "successful reload done" is not said by every version,
	// not by 4.1.0.
	done := func() int { return strings.Count(logs(conf), "starting version")/2 - 1 }
	var longest time.Duration
	for i := range reloads {
		time.Sleep(time.Duration(500+rand.N(1000)) * time.Millisecond)
		started := time.Now()
		_ = cmd.Process.Signal(syscall.SIGHUP)
		for done() <= i && time.Since(started) < 30*time.Second {
			time.Sleep(20 * time.Millisecond)
		}
		if done() <= i {
			t.Fatalf("reload %d does not end", i+1)
		}
		longest = max(longest, time.Since(started))
	}
	<-sent
	s.await(t, n, 2*time.Minute)
	terminate(t, cmd)
	_, again := s.count()
	t.Logf("%d reloads, the longest took %v; %d events, %d of them came more than once", reloads, longest.Round(time.Millisecond), n, again)
	if again > n/4 {
		t.Errorf("%d of %d events came more than once", again, n)
	}
}

// Two sections come over the limit of chunks while the output is down. When it is back, both
// continue.
func TestFluentBitTwoSectionsOverTheirLimit(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestAnInstanceOverItsLimitDoesNotHoldUpTheOther")
	h1, h2, s, dir := startHub(t, 2), startHub(t, 2), newSink(t), t.TempDir()
	const n = 20_000
	s.down.Store(true)
	conf := configure(t, dir, s, section(h1, "tag_pattern a.*", "db "+dir+"/1.db"), section(h2, "tag_pattern b.*", "db "+dir+"/2.db"))
	text, _ := os.ReadFile(conf)
	if err := os.WriteFile(conf, bytes.Replace(text, []byte("storage.max_chunks_up  512"), []byte("storage.max_chunks_up  3"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := startFluentBit(t, binary, conf)
	for first := 0; first < n; first += 2000 {
		produce(t, h1, first, 2000)
		produce(t, h2, n+first, 2000)
		time.Sleep(800 * time.Millisecond)
	}
	if !strings.Contains(logs(conf), "paused (storage buf overlimit") {
		t.Error("the limit was never reached")
	}
	s.down.Store(false)
	s.await(t, 2*n, 2*time.Minute)
	terminate(t, cmd)
	if _, again := s.count(); again > 0 {
		t.Errorf("%d events came twice", again)
	}
}

// The output is down while Fluent Bit is killed again and again. What is in its files then, and
// what the hub gives again, must be all.
func TestFluentBitKilledTwentyTimes(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestKilledTwentyTimesUnderLoad")
	h, s, dir := startHub(t, 4), newSink(t), t.TempDir()
	const kills, n = 20, 40_000
	s.down.Store(true)
	conf := configure(t, dir, s, section(h, "db "+dir+"/state.db", "tag_pattern defender.*"))
	sent := feed(t, h, n, 500, 400*time.Millisecond)
	for i := range kills {
		cmd := startFluentBit(t, binary, conf)
		wait := time.Duration(700+rand.N(800)) * time.Millisecond
		if i%7 == 6 {
			wait += 5 * time.Second // long enough for a commit
		}
		time.Sleep(wait)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		forgetMembers(t, h)
	}
	s.down.Store(false)
	cmd := startFluentBit(t, binary, conf)
	<-sent
	s.await(t, n, 2*time.Minute)
	terminate(t, cmd)
	distinct, again := s.count()
	t.Logf("killed %d times: %d events sent, %d arrived, %d more than once", kills, n, distinct, again)
}
