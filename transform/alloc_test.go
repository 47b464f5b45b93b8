//go:build !race

package transform_test

import (
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// In steady state no format allocates, whatever it does with a record.
func TestFormatsDoNotAllocate(t *testing.T) {
	payloads := []transform.Payload{{Body: envelope(400), Lane: "hub/0"}}
	emit := func(string, []byte) {}
	for _, format := range transform.Formats() {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		for range 3 {
			tr.Append(t.Context(), payloads, emit)
		}
		if n := testing.AllocsPerRun(5, func() { tr.Append(t.Context(), payloads, emit) }); n > 2 {
			t.Errorf("%s: %v allocations for 400 records", format, n)
		}
	}
}
