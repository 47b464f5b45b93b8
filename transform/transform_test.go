package transform_test

import (
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// run transforms bodies in one call and returns their events.
func run(t testing.TB, tr *transform.Transformer, bodies ...string) []event {
	t.Helper()
	payloads := make([]transform.Payload, len(bodies))
	for i, b := range bodies {
		payloads[i] = transform.Payload{Body: []byte(b), Lane: "hub/0", Offset: int64(i)}
	}
	return runPayloads(t, tr, payloads)
}

func runPayloads(t testing.TB, tr *transform.Transformer, payloads []transform.Payload) []event {
	t.Helper()
	var events []event
	tr.Append(t.Context(), payloads, func(table string, b []byte) {
		e, err := decodeEvent(b)
		if err != nil {
			t.Fatalf("event of %q: %v\n% x", table, err, b[:min(len(b), 200)])
		}
		e.table = table
		events = append(events, e)
	})
	return events
}
