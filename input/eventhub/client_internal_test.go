package eventhub

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// The client calls back from goroutines that run before NewClient has returned: the source knows it by then.
func TestClientIsKnownBeforeItRuns(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	s := &Source{
		cfg: Config{Brokers: []string{"127.0.0.1:1"}, Hubs: []string{"alerts"}, Group: "g", HubsEvery: metadataAge, Auth: "connection_string", ConnectionString: input.NewSecret("x")},
		log: log, budget: newBudget(1 << 20), troubles: newTroubles(log), lanes: make(map[string]*lane),
	}
	opts, err := s.options(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s.client != c {
		t.Error("the source does not know its client")
	}
}

// A panic in a callback of the client is an error and a line of the log.
func TestPanicInACallback(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := &Source{log: slog.New(slog.NewTextHandler(&log, nil))}
	err := func() (err error) {
		defer s.catch("decide where to start", &err)
		panic("boom")
	}()
	if err == nil || err.Error() != "decide where to start: panic: boom" || !strings.Contains(log.String(), "boom") {
		t.Errorf("error %v, log %s", err, &log)
	}
}
