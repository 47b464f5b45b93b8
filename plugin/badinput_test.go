package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// badInput must neither stop a partition nor spoil its neighbours. One record that the host cannot
// decode makes it drop the rest of a chunk in silence. The record of each has Seq seq where one can
// be told at all.
func badInput(seq int) map[string][]byte {
	record := func(properties string) []byte {
		return fmt.Appendf(nil, `{"records":[{"time":"2026-03-04T05:06:07Z","tenantId":"11111111-2222-3333-4444-555555555555","category":"AdvancedHunting-AlertInfo","properties":%s}]}`, properties)
	}
	columns := func(more string) []byte {
		return record(fmt.Sprintf(`{"Timestamp":"2026-03-04T05:06:06.5Z","Seq":%d,%s}`, seq, more))
	}
	whole := envelope(seq, 1)
	deep := strings.Repeat(`{"a":`, 400) + "1" + strings.Repeat("}", 400)
	lists := strings.Repeat("[", 400) + strings.Repeat("]", 400)
	return map[string][]byte{
		"invalid JSON":                []byte(`{"records":[{"time":'2026'}]}`),
		"truncated":                   whole[:len(whole)-40],
		"empty body":                  {},
		"no records":                  []byte(`{"records":[]}`),
		"records that are no objects": []byte(`{"records":[1,"x",null,[]]}`),
		"properties that are text":    record(`"text"`),
		"400 objects deep":            columns(`"D":` + deep),
		"400 lists deep":              columns(`"D":` + lists),
		"deep in text":                columns(`"AdditionalFields":"` + strings.ReplaceAll(deep, `"`, `\"`) + `"`),
		"invalid UTF-8":               columns("\"D\":\"\xff\xfe\xed\xa0\x80\""),
		"half a surrogate pair":       columns(`"D":"\ud83d"`),
		"duplicate keys":              columns(`"D":1,"D":2`),
		"an empty key":                columns(`"":1`),
		"a key with dots":             columns(`"a.b":1,"a":{"b":2}`),
		"numbers":                     columns(`"A":1e400,"B":18446744073709551616,"C":-0,"D":1e-400`),
		"infinity":                    columns(`"A":inf`),
		"year 1":                      record(fmt.Sprintf(`{"Timestamp":"0001-01-01T00:00:00Z","Seq":%d}`, seq)),
		"year 9999":                   record(fmt.Sprintf(`{"Timestamp":"9999-12-31T23:59:59.9999999Z","Seq":%d}`, seq)),
		"a NUL byte":                  columns(`"D":"\u0000","E":"a` + "\x00" + `b"`),
		"no JSON at all":              []byte("\x00\x01<xml/> [227B blob data]"),
	}
}

// produceBad sends each bad input between two good records, and one bad record among 400 in a
// message. It returns the number of good ones.
func produceBad(t *testing.T, h *fakehub.Hub) (good int) {
	t.Helper()
	send := func(body []byte) {
		if err := h.Produce(context.Background(), hub, body); err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	for _, body := range badInput(1_000_000) {
		send(envelope(next, 1))
		send(body)
		next++
	}
	many := envelope(next, 400)
	send(bytes.Replace(many, fmt.Appendf(nil, `"Seq":%d,`, next+200), []byte(`"Seq":,`), 1))
	next += 400
	send(envelope(next, 1))
	return next + 1
}

// largeLine is a container with a blob of a good line, one of 20 MB, and a good line; the Seqs are
// first, 1000000, first+1.
func largeLine(t *testing.T, first int) (connectionString string) {
	t.Helper()
	line := func(seq, size int) []byte {
		return fmt.Appendf(nil, "{\"category\":\"AdvancedHunting-DeviceEvents\",\"properties\":{\"Timestamp\":\"2026-03-04T05:06:06Z\",\"Seq\":%d,\"Note\":\"%s\"}}\r\n", seq, strings.Repeat("x", size))
	}
	blob := bytes.Join([][]byte{line(first, 1), line(1_000_000, 20<<20), line(first+1, 1)}, nil)
	return startAccount(t, "insights-logs-advancedhunting-deviceevents", blob).ConnectionString()
}

// checkGood fails the test when a good record is missing: all but the one that was damaged in the
// message of 400.
func checkGood(t *testing.T, seen func(seq int) bool, n int) {
	t.Helper()
	damaged := len(badInput(0)) + 200
	for seq := range n {
		if !seen(seq) && seq != damaged {
			t.Errorf("good record %d of %d is missing", seq, n)
		}
	}
	if !seen(1_000_000) {
		t.Error("none of the records that are odd and readable has arrived")
	}
}

func TestBadInputBetweenGoodRecords(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	n := produceBad(t, h)
	blobs := largeLine(t, n)
	// All good records but the damaged one, and those with Seq 1000000. The last message of the hub
	// is good, so the bad ones before it have come by then.
	r := runHostUntil(t, n+2, "", settings(h, "blob.connection_string="+blobs, "blob.start=earliest")...).ok(t)
	seen, unreadable, large := map[int]bool{}, 0, false
	for _, e := range r.events {
		if bytes.Contains(e.Record, []byte(`"unreadable_reason"`)) {
			unreadable++
			continue
		}
		seen[e.Seq] = true
		large = large || len(e.Record) > 20<<20
	}
	checkGood(t, func(seq int) bool { return seen[seq] }, n+2)
	// An empty list in the place of a record holds none, and is counted as that.
	if unreadable < 7 || !large {
		t.Errorf("%d unreadable records are passed on; the one of 20 MB has arrived: %v", unreadable, large)
	}
}

// Fluent Bit drops the rest of a chunk behind a record that it cannot decode, and says nothing.
func TestFluentBitBadInputBetweenGoodRecords(t *testing.T) {
	t.Parallel()
	binary := fluentBit(t, "TestBadInputBetweenGoodRecords")
	h, s, dir := startHub(t, 1), newSink(t), t.TempDir()
	n := produceBad(t, h)
	blobs := largeLine(t, n)
	cmd := startFluentBit(t, binary, configure(t, dir, s, section(h, "blob.connection_string "+blobs, "blob.start earliest", "db "+dir+"/1.db")))
	s.await(t, n+2, 40*time.Second) // all but the damaged one, and those with Seq 1000000 or none at all
	terminate(t, cmd)
	s.mu.Lock()
	defer s.mu.Unlock()
	checkGood(t, func(seq int) bool { return s.seen[seq] > 0 }, n+2)
}
