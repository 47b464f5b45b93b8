package main

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// After a clean stop no event comes twice, and the next start reads on within a second. A stream of
// small messages goes on all the time. The time of a round runs until everything has come that was
// sent before. It begins with the start of the process; in a hot reload, with the end of the old
// generation; in a rolling update, with the end of the old host. So it covers every partition.
//
// A busy machine makes any round slow. So the median counts, and a busy machine gets more time: by
// how long the very first start takes on it until the first event.
func TestACleanStopCostsNothing(t *testing.T) {
	t.Parallel()
	const rounds = 3
	const quick = 250 * time.Millisecond // a first start on a machine that does nothing else
	build(t)
	for _, c := range []struct {
		name    string
		source  func(t *testing.T, s *stream) (settings []string)
		replace func(t *testing.T, s *stream, old life, args []string) life
	}{
		{"SIGTERM, hub", streamToHubWithFile, restart},
		{"SIGTERM, blobs", streamToBlobs, restart},
		{"SIGTERM, shared blobs", streamToSharedBlobs, restart},
		{"reload, hub", streamToHubWithFile, reload},
		{"reload, blobs", streamToBlobs, reload},
		{"rolling update, hub", streamToHub, roll},
		{"rolling update, shared blobs", streamToSharedBlobs, roll},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &stream{came: make(map[int]time.Time)}
			args := []string{"-grace", "200"}
			for _, setting := range c.source(t, s) {
				args = append(args, "-set", setting)
			}
			host := s.startHost(t, args)
			s.settle(t)
			first := s.firstAfter(host.since)
			var took []time.Duration
			for range rounds {
				host = c.replace(t, s, host, args)
				s.settle(t)
				took = append(took, s.waited(host.since).Round(time.Millisecond))
			}
			host.end(t)
			s.stop()
			if s.again > 0 {
				t.Errorf("%d events came twice", s.again)
			}
			t.Logf("first event after %v, then all after %v", first.Round(time.Millisecond), took)
			slices.Sort(took)
			if took[rounds/2] > time.Second+2*max(first, quick) {
				t.Errorf("half of the stops cost more than a second:\n%s", host.text())
			}
		})
	}
}

// A stream sends a message of four records every 20 ms, and takes down when they come.
type stream struct {
	stop func() // no more is sent

	mu    sync.Mutex
	sent  []time.Time // by Seq
	came  map[int]time.Time
	again int
}

// feed has send called with message after message until the test or the stream ends.
func (s *stream) feed(t *testing.T, send func(ctx context.Context, n int, message []byte) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var feeder sync.WaitGroup
	feeder.Go(func() {
		for n := 0; ; n++ {
			const records = 4
			now := time.Now()
			s.mu.Lock()
			for range records {
				s.sent = append(s.sent, now)
			}
			s.mu.Unlock()
			if err := send(ctx, n, envelope(n*records, records)); err != nil {
				if ctx.Err() == nil {
					t.Errorf("send: %v", err)
				}
				return
			}
			if input.Sleep(ctx, 20*time.Millisecond) != nil {
				return
			}
		}
	})
	s.stop = func() { cancel(); feeder.Wait() }
	t.Cleanup(s.stop)
}

func (s *stream) see(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, had := s.came[e.Seq]; had {
		s.again++
		return
	}
	s.came[e.Seq] = time.Now()
}

// settle returns when all has come that was sent until now, and half a second more.
func (s *stream) settle(t *testing.T) {
	t.Helper()
	for range 2 {
		s.mu.Lock()
		until := len(s.sent)
		s.mu.Unlock()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if missing := s.missing(until); missing == 0 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("after a minute %d of %d events have not come", missing, until)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (s *stream) missing(until int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq := range until {
		if s.came[seq].IsZero() {
			n++
		}
	}
	return n
}

// firstAfter is the time from then on until the first event.
func (s *stream) firstAfter(from time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := time.Duration(math.MaxInt64)
	for _, came := range s.came {
		first = min(first, came.Sub(from))
	}
	return first
}

// waited is how long it took from then on until all had come that was sent before.
func (s *stream) waited(from time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq, came := range s.came {
		if s.sent[seq].Before(from) {
			longest = max(longest, came.Sub(from))
		}
	}
	return longest
}

func streamToHub(t *testing.T, s *stream) []string {
	h := startHub(t, 4)
	s.feed(t, func(ctx context.Context, _ int, message []byte) error { return h.Produce(ctx, hub, message) })
	return []string{"eventhub.connection_string=" + h.ConnectionString(), "eventhub.brokers=" + h.Brokers(), "eventhub.ca_file=" + h.CAFile(), "eventhub.start=earliest"}
}

func streamToHubWithFile(t *testing.T, s *stream) []string {
	return append(streamToHub(t, s), stateFile(t))
}

// stateFile is for hosts of which one ends before the next one starts.
func stateFile(t *testing.T) string { return "db=" + filepath.Join(t.TempDir(), "state.db") }

func streamToBlobs(t *testing.T, s *stream) []string {
	return []string{"blob.connection_string=" + streamToAccount(t, s).ConnectionString(), "blob.start=earliest", "blob.poll_interval=1s", stateFile(t)}
}

func streamToSharedBlobs(t *testing.T, s *stream) []string {
	account := streamToAccount(t, s)
	account.CreateContainer(workersContainer)
	return []string{"blob.connection_string=" + account.ConnectionString(), "blob.start=earliest", "blob.poll_interval=1s", "blob.shared=" + workersContainer}
}

func streamToAccount(t *testing.T, s *stream) *fakeblob.Server {
	const container = "insights-logs-advancedhunting-deviceprocessevents"
	account := startAccount(t, container, nil)
	s.feed(t, func(_ context.Context, n int, message []byte) error {
		account.Append(container, hourBlob(), append(message, '\n'))
		return nil
	})
	return account
}

// A life is a process of the host, or a generation of one, that reads the stream.
type life struct {
	*process
	since time.Time // it could read from then on
}

func (s *stream) startHost(t *testing.T, args []string) life {
	t.Helper()
	since := time.Now()
	return life{startHost(t, s.see, args...), since}
}

func restart(t *testing.T, s *stream, old life, args []string) life {
	old.end(t)
	return s.startHost(t, args)
}

func reload(t *testing.T, _ *stream, old life, _ []string) life {
	ended := func() int { return strings.Count(old.text(), "] stopped") }
	before := ended()
	old.signal(syscall.SIGHUP)
	for deadline := time.Now().Add(time.Minute); ended() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no generation has ended after a minute:\n%s", old.text())
		}
	}
	return life{old.process, time.Now()}
}

// roll starts the new host beside the old one, which then ends.
func roll(t *testing.T, s *stream, old life, args []string) life {
	new := s.startHost(t, args)
	s.settle(t)
	old.end(t)
	new.since = time.Now()
	return new
}
