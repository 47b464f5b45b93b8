package transform_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/repeats"
)

// A hunting record that was emitted, and whose batch was queued, is a repeat when it comes again.
// Its envelope may have another time, and it may come in another lane or through another
// transformer.
func TestRepeats(t *testing.T) {
	const first = `{"time":"2026-03-04T10:20:31Z","tenantId":"t","category":"AdvancedHunting-AlertInfo","properties":{"AlertId":"a1","Title":"one"}}`
	again := strings.Replace(first, "10:20:31", "11:59:59", 1)
	other := strings.Replace(first, `"a1"`, `"a2"`, 1)
	const foreign = `{"time":"2026-03-04T10:20:31Z","category":"AuditEvent","resourceId":"r"}`
	append := func(tr *transform.Transformer, lane string, records ...string) (emitted int) {
		payloads := []transform.Payload{{Body: []byte(envelopeOf(records...)), Lane: lane}}
		tr.Append(t.Context(), payloads, func(string, []byte) { emitted++ })
		return emitted
	}
	for _, drop := range []bool{false, true} {
		memory := repeats.NewMemory(1 << 20)
		cfg := transform.Config{EventID: true, Repeats: memory, DropRepeats: drop}
		hub, blob := transform.New(cfg), transform.New(cfg)
		want := func(what string, got, passed, dropped int) {
			t.Helper()
			if drop {
				passed = dropped
			}
			if got != passed {
				t.Errorf("drop %v: %s: %d events, want %d", drop, what, got, passed)
			}
		}
		want("twice in one call", append(hub, "hub/0", first, again, other), 3, 2)
		want("after a batch that was not queued", append(hub, "hub/0", first, other), 2, 2)
		hub.Queued()
		want("in another lane", append(hub, "hub/1", again, again, other), 3, 0)
		hub.Queued()
		want("from the other source", append(blob, "blob", again), 1, 0)
		blob.Queued()
		want("records of other products", append(hub, "hub/0", foreign, foreign, foreign), 3, 3)
		hub.Queued()
		want("records of other products, again", append(hub, "hub/0", foreign), 1, 1)
		counted := uint64(4)
		if drop {
			counted++ // in the batch that was not queued
		}
		if n := hub.Stats().Repeats()["AlertInfo"] + blob.Stats().Repeats()["AlertInfo"]; n != counted {
			t.Errorf("drop %v: %d repeats counted, want %d", drop, n, counted)
		}
		if n := len(hub.Stats().Repeats()); n != 1 {
			t.Errorf("drop %v: repeats in %d tables, want one", drop, n)
		}
		memory.Forget()
		want("when all was forgotten", append(blob, "blob", again), 1, 1)
	}
}

// A record that cannot be written, and one that is excluded, is not known: it was not handed on as
// itself.
func TestRepeatsOfWhatWasNotHandedOn(t *testing.T) {
	const small = `{"category":"AdvancedHunting-AlertInfo","properties":{"AlertId":"a1"}}`
	memory := repeats.NewMemory(1 << 20)
	tr := transform.New(transform.Config{EventID: true, Repeats: memory, DropRepeats: true, Memory: 1 << 20, TablesExclude: []string{"AlertInfo"}})
	emitted := 0
	emit := func(string, []byte) { emitted++ }
	tr.Append(t.Context(), []transform.Payload{{Body: []byte(small)}}, emit)
	if n := len(tr.NewIDs()); n != 0 || emitted != 0 {
		t.Errorf("excluded: %d ids, %d events", n, emitted)
	}
	tr = transform.New(transform.Config{EventID: true, Repeats: memory, DropRepeats: true, Memory: 64 << 10})
	many := `{"category":"AdvancedHunting-AlertInfo","properties":{"A":[` + strings.Repeat("1,", 1<<16) + `1]}}`
	for range 2 {
		emitted = 0
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(many)}}, emit)
		if n := len(tr.NewIDs()); n != 0 || emitted == 0 {
			t.Errorf("unreadable: %d ids, %d events", n, emitted)
		}
		tr.Queued()
	}
}

// stamps finds the digits of each record's Timestamp, for renew.
func stamps(body []byte) (at []int) {
	key := []byte(`"Timestamp":"2026-03-04T10:00:02.`)
	for i := 0; ; {
		n := bytes.Index(body[i:], key[:26])
		if n < 0 {
			return at
		}
		i += n + len(key)
		at = append(at, i)
	}
}

// renew makes every record of body one that was never there.
func renew(body []byte, at []int, n *int) {
	for _, i := range at {
		*n++
		for d, rest := 6, *n; d >= 0; d, rest = d-1, rest/10 {
			body[i+d] = byte('0' + rest%10)
		}
	}
}

// The same work with and without repeats being told, in turns: medians of processor time, because
// other work on the machine does not count.
func BenchmarkRepeats(b *testing.B) {
	for _, drop := range []bool{false, true} {
		b.Run(fmt.Sprint("drop ", drop), func(b *testing.B) { benchmarkRepeats(b, drop) })
	}
}

func benchmarkRepeats(b *testing.B, drop bool) {
	body := envelope(400)
	at := stamps(body)
	if len(at) != 400 {
		b.Fatalf("%d time stamps", len(at))
	}
	payloads := []transform.Payload{{Body: body, Lane: "hub/0"}}
	memory := repeats.NewMemory(16 << 20)
	plain := transform.New(transform.Config{EventID: true})
	telling := transform.New(transform.Config{EventID: true, Repeats: memory, DropRepeats: drop})
	n := 0
	next := func() { renew(body, at, &n) }
	run := func(tr *transform.Transformer) {
		tr.Append(b.Context(), payloads, func(string, []byte) {})
		tr.Queued()
	}
	run(plain)
	for range 3000 { // a table that is full
		next()
		run(telling)
	}
	less, more := inTurns(b, next, func() { run(plain) }, func() { run(telling) })
	b.ReportMetric(100*(float64(more)/float64(less)-1), "%-more")
	b.ReportMetric(float64(more-less)/400, "ns/record-more")
	if n := telling.Stats().Repeats(); len(n) > 0 {
		b.Fatalf("repeats: %v", n)
	}
}
