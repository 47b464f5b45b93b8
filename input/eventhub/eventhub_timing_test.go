package eventhub_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// BenchmarkFetch reads 64 MB of messages of 64 kB, which is about what Defender sends, over TLS.
// The broker runs in the same process and takes its part of the time, and so does joining the
// group.
func BenchmarkFetch(b *testing.B) {
	const n, size = 1000, 64 << 10
	h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"alerts": 4}, EntityPath: "alerts"})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for p := range int32(4) {
		var part [][]byte
		for range n / 4 {
			part = append(part, bytes.Repeat([]byte("x"), size))
		}
		if err := h.ProduceTo(b.Context(), "alerts", p, part...); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(n * size)
	b.ReportAllocs()
	run := 0
	for b.Loop() {
		run++
		set := settingsFor(h)
		set["eventhub.group"] = fmt.Sprint("run-", run)
		s := input.NewSettings(func(k string) string { return set[k] }, declared)
		cfg, _ := eventhub.ReadConfig(s, signin.Read(s))
		if err := s.Err(); err != nil {
			b.Fatal(err)
		}
		src, err := eventhub.Open(b.Context(), cfg, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < n; {
			ms, err := src.Fetch(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			got += len(ms)
		}
		if err := src.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
