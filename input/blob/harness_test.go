package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	table  = "insights-logs-advancedhunting-alertevidence"
	tenant = "tenantId=00000000-0000-0000-0000-0000000000aa/"
)

// pt1h is the name of an hour's blob.
func pt1h(t time.Time) string {
	return tenant + t.UTC().Format("y=2006/m=01/d=02/h=15") + "/m=00/PT1H.json"
}

// account is the server that a test works against, and how it is filled: by the protocol, the same
// for fake and emulator.
type account struct {
	conn   string
	client *azblob.Client
	fake   *fakeblob.Server // nil for an emulator
}

// newFake starts an account with these containers.
func newFake(t testing.TB, containers ...string) *account {
	t.Helper()
	s, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	a := connect(t, s.ConnectionString(), s)
	for _, c := range containers {
		a.create(t, c)
	}
	return a
}

func connect(t testing.TB, conn string, fake *fakeblob.Server) *account {
	t.Helper()
	client, err := azblob.NewClientFromConnectionString(conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &account{conn: conn, client: client, fake: fake}
}

// create makes a container.
func (a *account) create(t testing.TB, container string) {
	t.Helper()
	if _, err := a.client.CreateContainer(context.Background(), container, nil); err != nil {
		t.Fatal(err)
	}
}

// append adds to an append blob, which is made when it is missing.
func (a *account) append(t testing.TB, container, name, text string) {
	t.Helper()
	ctx := context.Background()
	ab := a.client.ServiceClient().NewContainerClient(container).NewAppendBlobClient(name)
	if _, err := ab.GetProperties(ctx, nil); err != nil {
		if _, err := ab.Create(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	for len(text) > 0 {
		n := min(len(text), 4<<20)
		if _, err := ab.AppendBlock(ctx, body{bytes.NewReader([]byte(text[:n]))}, nil); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
}

// put writes a block blob.
func (a *account) put(t testing.TB, container, name, text string) {
	t.Helper()
	if _, err := a.client.UploadBuffer(context.Background(), container, name, []byte(text), nil); err != nil {
		t.Fatal(err)
	}
}

func (a *account) delete(t testing.TB, container, name string) {
	t.Helper()
	if _, err := a.client.DeleteBlob(context.Background(), container, name, nil); err != nil {
		t.Fatal(err)
	}
}

type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func (a *account) config() blob.Config {
	return blob.Config{
		Auth:             "connection_string",
		ConnectionString: input.NewSecret(a.conn),
		Containers:       []string{table},
		Lookback:         48 * time.Hour,
		PollInterval:     20 * time.Millisecond,
		Workers:          4,
		FetchBytes:       8 << 20,
	}
}

// logs collects what the source says.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.text.Write(p) }
func (l *logs) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }
func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// got is a message, copied.
type got struct {
	input.Message
	text string
}

// reader drives a source as the pump does.
type reader struct {
	t      testing.TB
	src    *blob.Source
	log    *logs
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	messages []got
	err      error
	hold     bool // commit nothing
}

func start(t testing.TB, cfg blob.Config, state *input.State) *reader {
	t.Helper()
	r := &reader{t: t, log: &logs{}, done: make(chan struct{})}
	src, err := blob.Open(context.Background(), cfg, state, r.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	r.src = src
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.run()
	t.Cleanup(r.stop)
	return r
}

func (r *reader) run() {
	defer close(r.done)
	next := make(map[string]input.Mark)
	for {
		messages, err := r.src.Fetch(r.ctx)
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
		marks := make(input.Marks)
		r.mu.Lock()
		for _, m := range messages {
			c := got{Message: m, text: string(m.Body)}
			c.Body = nil
			r.messages = append(r.messages, c)
			before := next[m.Mark.Lane]
			empty := c.text == "" && m.Reason != "" // what is behind the text cannot be read
			if before.Term == m.Mark.Term && (m.Offset < before.Next || m.Mark.Next <= m.Offset && !empty) || before.Term > m.Mark.Term {
				r.t.Errorf("%s goes back: after %+v came offset %d, mark %+v", m.Mark.Lane, before, m.Offset, m.Mark)
			}
			next[m.Mark.Lane] = m.Mark
			marks.Set(m.Mark)
		}
		hold := r.hold
		r.mu.Unlock()
		if hold {
			continue
		}
		var list []input.Mark
		for _, m := range marks {
			list = append(list, m)
		}
		if err := r.src.Commit(r.ctx, list); err != nil {
			r.mu.Lock()
			r.err = errors.Join(r.err, err)
			r.mu.Unlock()
		}
	}
}

// stop ends the source in an orderly way, once.
func (r *reader) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	<-r.done
	if err := r.src.Close(); err != nil {
		r.t.Error(err)
	}
	r.cancel = nil
}

// texts returns what came so far, of one lane or of all.
func (r *reader) texts(lane string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, m := range r.messages {
		if lane == "" || m.Mark.Lane == lane {
			list = append(list, m.text)
		}
	}
	return list
}

func (r *reader) count() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.messages) }

func (r *reader) all() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]got(nil), r.messages...)
}

// want waits until n messages have come, and no more.
func (r *reader) want(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d messages", n), func() bool { return r.count() >= n })
	r.quiet(n)
}

// quiet checks that nothing beyond n messages comes in some polls.
func (r *reader) quiet(n int) {
	r.t.Helper()
	time.Sleep(120 * time.Millisecond)
	if k := r.count(); k != n {
		r.t.Fatalf("got %d messages, want %d: %.2000q\nlog:\n%s", k, n, r.texts(""), r.log)
	}
}

// until waits until ok. It gives up when no message has come for a minute: a machine may be slow.
func (r *reader) until(what string, ok func() bool) {
	r.t.Helper()
	had, end := r.count(), time.Now().Add(time.Minute)
	for ; !ok(); time.Sleep(2 * time.Millisecond) {
		if n := r.count(); n != had {
			had, end = n, time.Now().Add(time.Minute)
		}
		if time.Now().After(end) {
			r.mu.Lock()
			err := r.err
			r.mu.Unlock()
			r.t.Fatalf("waited in vain for %s: have %d messages, error %v, stats %+v\nlog:\n%s", what, r.count(), err, r.src.Stats(), r.log)
		}
	}
}

func (r *reader) says(text string) {
	r.t.Helper()
	r.until("the log to say "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

func openState(t testing.TB, path string) *input.State {
	t.Helper()
	state, err := input.OpenState(path, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func statePath(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") }

func same(t testing.TB, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%.1000q\n%.1000q", len(got), len(want), got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("line %d is %.300q, want %.300q", i, got[i], want[i])
		}
	}
}
