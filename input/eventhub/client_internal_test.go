package eventhub

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// The client calls back from goroutines that run before NewClient has returned: the source knows it
// by then.
func TestClientIsKnownBeforeItRuns(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	s := &Source{
		cfg: Config{Brokers: []string{"127.0.0.1:1"}, Hubs: []string{"alerts"}, Group: "g", HubsEvery: metadataAge, Auth: "connection_string", ConnectionString: input.NewSecret("x")},
		log: log, budget: newBudget(1 << 20), troubles: input.NewTroubles(log), lanes: make(map[string]*lane),
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
