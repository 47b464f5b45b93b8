//go:build !race

package transform_test

import (
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/repeats"
)

// In steady state no format allocates, for any record.
func TestFormatsDoNotAllocate(t *testing.T) {
	payloads := []transform.Payload{{Body: envelope(400), Lane: "hub/0"}}
	emit := func(string, []byte) {}
	for _, format := range transform.Formats() {
		tr := transform.New(transform.Config{EventID: true, Format: format, Repeats: repeats.NewMemory(1 << 10)})
		body, n := payloads[0].Body, 0
		at := stamps(body)
		next := func() { // new records, so that each is noted
			renew(body, at, &n)
			tr.Append(t.Context(), payloads, emit)
			tr.Queued()
		}
		for range 3 {
			next()
		}
		if n := testing.AllocsPerRun(5, next); n > 2 {
			t.Errorf("%s: %v allocations for 400 records", format, n)
		}
	}
}
