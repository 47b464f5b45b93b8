package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// The same events through either source, from a server on loopback without TLS. They are 64,000
// records of 2 kB, in 32 blobs, or as envelopes of 100 in 8 partitions.
const (
	benchBlobs   = 32
	benchRecords = 2000 // a blob
)

// records returns n lines.
func records(n int) []byte {
	var out []byte
	pad := bytes.Repeat([]byte("abcdefghij"), 190)
	for i := range n {
		out = fmt.Appendf(out, "{\"time\":\"2026-01-13T09:40:52.%07dZ\",\"category\":\"AdvancedHunting-AlertEvidence\",\"properties\":{\"x\":\"%s\"}}\r\n", i, pad)
	}
	return out
}

// fetchAll opens the source and fetches until bytes of bodies have come.
func fetchAll(b *testing.B, want int, open func() (input.Source, error)) {
	b.SetBytes(int64(want))
	b.ReportAllocs()
	for b.Loop() {
		src, err := open()
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < want; {
			messages, err := src.Fetch(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, m := range messages {
				got += len(m.Body)
			}
		}
		b.StopTimer()
		if err := src.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkBlob(b *testing.B) {
	a := newFake(b)
	text := records(benchRecords)
	for i := range benchBlobs {
		a.fake.Append(table, pt1h(time.Now().Add(-time.Duration(i)*time.Hour)), text)
	}
	cfg := a.config()
	cfg.FetchBytes, cfg.Workers = 64<<20, 8
	fetchAll(b, benchBlobs*(len(text)-2*benchRecords), func() (input.Source, error) {
		return blob.Open(b.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	})
}

// BenchmarkLargeBlob reads one blob of 200 MB: the same records as lines, and as an array or an
// envelope, which are cut into records.
func BenchmarkLargeBlob(b *testing.B) {
	text := records(100_000)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\r\n")), []byte("\r\n"))
	list := bytes.Join(lines, []byte(","))
	size := len(list) - len(lines) + 1
	for _, c := range []struct {
		name string
		text []byte
	}{{"lines", text}, {"array", slices.Concat([]byte("["), list, []byte("]"))}, {"envelope", slices.Concat([]byte(`{"records":[`), list, []byte("]}"))}} {
		b.Run(c.name, func(b *testing.B) {
			a := newFake(b)
			a.fake.Put("large", "a.json", c.text)
			cfg := a.config()
			cfg.Containers, cfg.FetchBytes, cfg.Workers = []string{"large"}, 16<<20, 8
			fetchAll(b, size, func() (input.Source, error) {
				return blob.Open(b.Context(), cfg, nil, slog.New(slog.DiscardHandler))
			})
		})
	}
}

func BenchmarkEventHubs(b *testing.B) {
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"hub": 8}, Plaintext: true})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	lines := bytes.Split(bytes.TrimSuffix(records(benchRecords), []byte("\r\n")), []byte("\r\n"))
	total := 0
	for i := range benchBlobs {
		var envelopes [][]byte
		for k := 0; k < len(lines); k += 100 {
			e := append([]byte(`{"records":[`), bytes.Join(lines[k:k+100], []byte(","))...)
			envelopes = append(envelopes, append(e, "]}"...))
			total += len(envelopes[len(envelopes)-1])
		}
		for _, e := range envelopes {
			if err := h.ProduceTo(b.Context(), "hub", int32(i%8), e); err != nil {
				b.Fatal(err)
			}
		}
	}
	set := map[string]string{"eventhub.connection_string": h.ConnectionString(), "eventhub.brokers": h.Brokers(), "eventhub.tls": "off",
		"eventhub.hubs": "hub", "eventhub.start": "earliest"}
	group := 0
	fetchAll(b, total, func() (input.Source, error) {
		group++ // that has no offsets yet
		set["eventhub.group"] = fmt.Sprint("g", group)
		s := input.NewSettings(func(k string) string { return set[k] }, slices.Concat(eventhub.Settings, signin.Settings))
		id := signin.Read(s)
		defer id.HTTP.CloseIdleConnections()
		cfg, _ := eventhub.ReadConfig(s, id)
		if err := s.Err(); err != nil {
			return nil, err
		}
		cfg.FetchBytes = 64 << 20
		return eventhub.Open(context.Background(), cfg, nil, slog.New(slog.DiscardHandler))
	})
}
