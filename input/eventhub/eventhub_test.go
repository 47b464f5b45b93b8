package eventhub_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// everything is what a test may take at most. It ends one that hangs: under load, with the race
// detector, tests have taken 30 s that take 3.
const everything = 2 * time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), everything)
	t.Cleanup(cancel)
	return ctx
}

func startHub(t *testing.T, o fakehub.Options) *fakehub.Hub {
	t.Helper()
	h, err := fakehub.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// settings of a section that reads h.
func settingsFor(h *fakehub.Hub) map[string]string {
	m := map[string]string{
		"eventhub.connection_string": h.ConnectionString(),
		"eventhub.brokers":           h.Brokers(),
		"eventhub.ca_file":           h.CAFile(),
	}
	if h.CAFile() == "" {
		m["eventhub.tls"] = "off"
	}
	return m
}

// declared are the settings that the source reads.
var declared = slices.Concat(eventhub.Settings, signin.Settings)

func readConfig(t *testing.T, set map[string]string, change ...string) eventhub.Config {
	t.Helper()
	for i := 0; i < len(change); i += 2 {
		set[change[i]] = change[i+1]
	}
	s := input.NewSettings(func(k string) string { return set[k] }, declared)
	cfg, configured := eventhub.ReadConfig(s, signin.Read(s))
	if err := s.Err(); err != nil || !configured {
		t.Fatalf("configured=%v: %v", configured, err)
	}
	return cfg
}

func openState(t *testing.T) *input.State {
	t.Helper()
	st, err := input.OpenState(filepath.Join(t.TempDir(), "state.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// reader is a source with what a test needs around it.
type reader struct {
	*eventhub.Source
	t   *testing.T
	log *logText
	got []input.Message // everything that was fetched; bodies are copies
}

func open(t *testing.T, cfg eventhub.Config, state *input.State) *reader {
	t.Helper()
	r := &reader{t: t, log: &logText{}}
	src, err := eventhub.Open(t.Context(), cfg, state, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.Source = src
	t.Cleanup(func() {
		r.close()
		if strings.Contains(r.log.String(), "SharedAccessKey") {
			t.Error("the log has a secret in it")
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

// close may be called again.
func (r *reader) close() {
	if r.Source != nil {
		if err := r.Close(); err != nil {
			r.t.Error(err)
		}
		r.Source = nil
	}
}

// fetch reads until there are n more messages.
func (r *reader) fetch(ctx context.Context, n int) []input.Message {
	r.t.Helper()
	from := len(r.got)
	for len(r.got) < from+n {
		ms, err := r.Fetch(ctx)
		if err != nil {
			r.t.Fatalf("fetched %d of %d messages: %v", len(r.got)-from, n, err)
		}
		for _, m := range ms {
			m.Body = bytes.Clone(m.Body)
			r.got = append(r.got, m)
		}
	}
	return r.got[from:]
}

// nothing makes sure that nothing comes for a while.
func (r *reader) nothing(ctx context.Context) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	if ms, err := r.Fetch(ctx); err == nil {
		r.t.Errorf("fetched %d messages, the first %s %d %q; want none", len(ms), ms[0].Mark.Lane, ms[0].Offset, ms[0].Body)
	}
}

// commit commits the newest marks of ms.
func (r *reader) commit(ctx context.Context, ms []input.Message) {
	r.t.Helper()
	if err := r.Commit(ctx, newest(ms)); err != nil {
		r.t.Fatal(err)
	}
}

func newest(ms []input.Message) []input.Mark {
	marks := make(input.Marks)
	for _, m := range ms {
		marks.Set(m.Mark)
	}
	var list []input.Mark
	for _, m := range marks {
		list = append(list, m)
	}
	return list
}

func bodies(ms []input.Message) []string {
	var list []string
	for _, m := range ms {
		list = append(list, string(m.Body))
	}
	slices.Sort(list)
	return list
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		first := 0
		for first < min(len(got), len(want)) && got[first] == want[first] {
			first++
		}
		t.Errorf("%s: got %d, want %d; from %d on got %q, want %q", what, len(got), len(want), first, got[first:min(first+10, len(got))], want[first:min(first+10, len(want))])
	}
}

// numbered makes messages a, a+1, ... b-1.
func numbered(a, b int) (messages [][]byte) {
	for i := a; i < b; i++ {
		messages = append(messages, fmt.Appendf(nil, "m%05d", i))
	}
	return messages
}

func texts(messages ...[]byte) (list []string) {
	for _, m := range messages {
		list = append(list, string(m))
	}
	return list
}

func produce(ctx context.Context, t *testing.T, h *fakehub.Hub, hub string, messages ...[]byte) {
	t.Helper()
	if err := h.Produce(ctx, hub, messages...); err != nil {
		t.Fatal(err)
	}
}

// logText keeps what was logged.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits until the log has text in it.
func (l *logText) wait(t *testing.T, within time.Duration, text string) {
	t.Helper()
	eventually(t, within, func() error {
		if !strings.Contains(l.String(), text) {
			return fmt.Errorf("the log has no %q", text)
		}
		return nil
	})
}

// times makes sure that the log has text in it n times.
func (l *logText) times(t *testing.T, n int, text string) {
	t.Helper()
	if got := strings.Count(l.String(), text); got != n {
		t.Errorf("the log has %q %d times, want %d", text, got, n)
	}
}

func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// checkOrder makes sure that the offsets of every lane follow on one another.
func checkOrder(t *testing.T, ms []input.Message) {
	t.Helper()
	next := make(map[input.Mark]int64)
	for _, m := range ms {
		lane := input.Mark{Lane: m.Mark.Lane, Term: m.Mark.Term}
		if at, ok := next[lane]; ok && m.Offset != at {
			t.Errorf("lane %s: offset %d follows where %d should", m.Mark.Lane, m.Offset, at)
		}
		if m.Mark.Next != m.Offset+1 {
			t.Errorf("lane %s: message %d has mark %d", m.Mark.Lane, m.Offset, m.Mark.Next)
		}
		next[lane] = m.Mark.Next
	}
}

// What is produced arrives in order, and what was committed does not come again.
func TestReadAndResume(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 4, "devices": 2}})
	cfg := readConfig(t, settingsFor(h), "eventhub.hubs", "alerts, devices")
	state := openState(t)
	want := numbered(0, 300)
	produce(ctx, t, h, "alerts", want[:200]...)
	produce(ctx, t, h, "devices", want[200:]...)

	r := open(t, cfg, state)
	ms := r.fetch(ctx, 300)
	checkOrder(t, ms)
	same(t, "first run", bodies(ms), texts(want...))
	r.commit(ctx, ms)
	r.close()
	for _, lane := range []string{"alerts/0", "alerts/3", "devices/0", "devices/1"} {
		if b, err := state.Get("eventhub", "localhost/fluent-bit-defender/"+lane); err != nil || string(b) != "50" {
			t.Errorf("the state file has %q for %s (%v), want 50", b, lane, err)
		}
	}

	more := numbered(300, 320)
	produce(ctx, t, h, "alerts", more...)
	r = open(t, cfg, state)
	same(t, "second run", bodies(r.fetch(ctx, 20)), texts(more...))
	r.nothing(ctx)
}

// holdFetches makes h answer every fetch with nothing, as Event Hubs does when it throttles, until
// release is called.
func holdFetches(h *fakehub.Hub) (release func()) {
	var hold atomic.Bool
	hold.Store(true)
	h.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if !hold.Load() {
			h.DropControl()
			return nil, nil, false
		}
		h.KeepControl()
		return req.ResponseKind(), nil, true
	})
	return func() { hold.Store(false) }
}
