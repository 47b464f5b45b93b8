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

// Columns that are empty in one record and not in the next cost no allocation either.
func TestSparseRecordsDoNotAllocate(t *testing.T) {
	payloads := sparse(5)
	for _, format := range transform.Formats() {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		next := func() { tr.Append(t.Context(), payloads, func(string, []byte) {}) }
		next()
		if n := testing.AllocsPerRun(3, next); n > 50 { // maps that make room
			t.Errorf("%s: %v allocations for %d records", format, n, 400*len(payloads))
		}
	}
}
