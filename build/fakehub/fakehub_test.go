package fakehub_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A client with the connection string and the certificate reads all messages that were produced,
// also after the namespace was down for a while.
func TestProduceAndRead(t *testing.T) {
	for _, plaintext := range []bool{false, true} {
		t.Run(fmt.Sprintf("plaintext=%v", plaintext), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"alerts": 3}, EntityPath: "alerts", Plaintext: plaintext})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()

			read(ctx, t, h, "alerts", 9, func() {
				messages := make([][]byte, 7)
				for i := range messages {
					messages[i] = fmt.Appendf(nil, "m%d", i)
				}
				if err := h.Produce(ctx, "alerts", messages...); err != nil {
					t.Fatal(err)
				}
				h.SetDown(true)
				h.SetDown(false)
				if err := h.ProduceTo(ctx, "alerts", 2, []byte("x"), []byte("y")); err != nil {
					t.Fatal(err)
				}
			})
			for p, want := range []int64{3, 2, 4} {
				if got := h.PartitionInfo("alerts", int32(p)).HighWatermark; got != want {
					t.Errorf("partition %d holds %d messages, want %d", p, got, want)
				}
			}
			file := h.CAFile()
			if _, err := os.Stat(file); !plaintext && err != nil {
				t.Error(err)
			}
			h.Close()
			if _, err := os.Stat(file); err == nil {
				t.Error("the certificate is still there after Close")
			}
		})
	}
}

func read(ctx context.Context, t *testing.T, h *fakehub.Hub, hub string, want int, meanwhile func()) {
	t.Helper()
	c, err := kgo.NewClient(append(h.ClientOpts(), kgo.ConsumeTopics(hub))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	meanwhile()
	for n := 0; n < want; {
		fs := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d messages", n, want)
		}
		n += fs.NumRecords()
	}
}

// A connection that was idle for too long swallows what is sent on it; a new one works.
func TestIdleCut(t *testing.T) {
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"alerts": 1}, Plaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c, err := kgo.NewClient(append(h.ClientOpts(), kgo.RequestRetries(0), kgo.RetryTimeout(time.Millisecond),
		kgo.RequestTimeoutOverhead(time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 { // the connection that finds the broker is another than the one that is used from then on
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	h.SetIdleCut(100 * time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	if err := c.Ping(ctx); err == nil {
		t.Error("a connection that was idle still works")
	}
	if n := h.Forgotten(); n == 0 {
		t.Error("no connection is counted as used after it had gone dead")
	}
	if err := c.Ping(ctx); err != nil {
		t.Errorf("a new connection does not work: %v", err)
	}
}
