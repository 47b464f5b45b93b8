package transform_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/tinylib/msgp/msgp"
	"github.com/valyala/fastjson"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// perCPU makes a benchmark also report MB per second of processor time. Wall time, on a busy
// machine, is not about the code.
func perCPU(b *testing.B, size int) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	start := used()
	b.Cleanup(func() { b.ReportMetric(float64(size)*float64(b.N)/1e6/(used()-start).Seconds(), "MB/cpu-s") })
}

// inTurns runs two works in turns until the benchmark is over, prepare before each, and returns the
// medians of their processor time. A work that ran alone would be compared with another moment of a
// busy machine.
func inTurns(b *testing.B, prepare, one, other func()) (ofOne, ofOther time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var now syscall.Timespec
	used := func() time.Duration {
		const threadTime = 3 // CLOCK_THREAD_CPUTIME_ID
		if _, _, err := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadTime, uintptr(unsafe.Pointer(&now)), 0); err != 0 {
			b.Fatal(err)
		}
		return time.Duration(now.Nano())
	}
	const most = 1 << 14 // rounds that are kept
	works := [2]func(){one, other}
	times := [2][]time.Duration{make([]time.Duration, 0, most), make([]time.Duration, 0, most)}
	b.ReportAllocs()
	for round := 0; b.Loop(); round++ {
		for turn := range works {
			i := (round + turn) % len(works)
			prepare()
			before := used()
			works[i]()
			if took := used() - before; round < most {
				times[i] = append(times[i], took)
			}
		}
	}
	for _, t := range times {
		slices.Sort(t)
	}
	return times[0][len(times[0])/2], times[1][len(times[1])/2]
}

// A whole message of 400 records from ten tables, every default on.
func BenchmarkTransform(b *testing.B) {
	body := envelope(400)
	if !validJSON(body) {
		b.Fatal("the envelope is not JSON")
	}
	payloads := []transform.Payload{{Body: body, Lane: "hub/0"}}
	tr := transform.New(transform.Config{EventID: true})
	records := 0
	emit := func(string, []byte) { records++ }
	tr.Append(b.Context(), payloads, emit)
	if records != 400 {
		b.Fatalf("%d records", records)
	}
	perCPU(b, len(body))
	for b.Loop() {
		tr.Append(b.Context(), payloads, emit)
	}
}

// The same work with encoding/json and maps: parse, open the same columns, flatten, id, msgpack.
func BenchmarkTransformWithMaps(b *testing.B) {
	body := envelope(400)
	perCPU(b, len(body))
	for b.Loop() {
		if n := withMaps(b, body); n != 400 {
			b.Fatalf("%d records", n)
		}
	}
}

func withMaps(t testing.TB, body []byte) (records int) {
	var env struct {
		Records []struct {
			Time       string          `json:"time"`
			TenantID   string          `json:"tenantId"`
			Category   string          `json:"category"`
			Received   string          `json:"_TimeReceivedBySvc"`
			Properties json.RawMessage `json:"properties"`
		} `json:"records"`
	}
	if err := json.Unmarshal(body, &env); err != nil {
		t.Fatal(err)
	}
	decode := func(b []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	var out []byte
	for _, r := range env.Records {
		v, err := decode(r.Properties)
		if err != nil {
			t.Fatal(err)
		}
		table := strings.TrimPrefix(r.Category, "AdvancedHunting-")
		flat := map[string]any{"table": table, "tenant_id": r.TenantID, "exported_at": r.Time, "received_at": r.Received}
		var compact bytes.Buffer
		if err := json.Compact(&compact, r.Properties); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(r.TenantID + "\x00" + table + "\x00" + compact.String()))
		flat["event_id"] = hex.EncodeToString(sum[:16])
		properties := v.(map[string]any)
		for _, name := range []string{"AdditionalFields", "Categories", "AttackTechniques", "LoggedOnUsers", "AuthenticationDetails"} {
			if s, ok := properties[name].(string); ok {
				if in, err := decode([]byte(s)); err == nil {
					properties[name] = in
				}
			}
		}
		flattenInto(flat, "", properties)
		when, err := time.Parse(time.RFC3339Nano, properties["Timestamp"].(string))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out[:0], 0x92)
		out = msgp.AppendTimeExt(out, when)
		if out, err = msgp.AppendMapStrIntf(out, flat); err != nil {
			t.Fatal(err)
		}
		records++
	}
	return records
}

func flattenInto(flat map[string]any, prefix string, m map[string]any) {
	for k, v := range m {
		if k == "$id" || k == "$ref" {
			continue
		}
		name := prefix + strings.ReplaceAll(k, ".", "_")
		switch v := v.(type) {
		case nil:
		case string:
			if v != "" {
				flat[name] = v
			}
		case json.Number:
			flat[name] = plainNumber(v)
		case map[string]any:
			flattenInto(flat, name+".", v)
		case []any:
			if len(v) > 0 {
				flat[name] = plainList(v)
			}
		default:
			flat[name] = v
		}
	}
}

func plainNumber(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, err := n.Float64()
	if err != nil {
		return n.String()
	}
	return f
}

func plainList(l []any) []any {
	out := make([]any, len(l))
	for i, v := range l {
		switch v := v.(type) {
		case map[string]any:
			m := make(map[string]any, len(v))
			flattenInto(m, "", v)
			out[i] = m
		case json.Number:
			out[i] = plainNumber(v)
		case []any:
			out[i] = plainList(v)
		default:
			out[i] = v
		}
	}
	return out
}

// A payload of its own for each record, as lines of a blob are.
func BenchmarkTransformLines(b *testing.B) {
	var payloads []transform.Payload
	size := 0
	for i := range 400 {
		table, columns := record(i)
		line := fmt.Sprintf(`{"time":"2026-03-04T10:20:31.1234567Z","tenantId":"t","category":"AdvancedHunting-%s","properties":{%s}}`, table, columns)
		payloads = append(payloads, transform.Payload{Body: []byte(line), Lane: "container/blob", Offset: int64(size)})
		size += len(line) + 2
	}
	tr := transform.New(transform.Config{EventID: true})
	emit := func(string, []byte) {}
	tr.Append(b.Context(), payloads, emit)
	perCPU(b, size)
	for b.Loop() {
		tr.Append(b.Context(), payloads, emit)
	}
}

// Parsing alone: ours, which is strict and keeps raw text, and below the library that was the
// obvious choice.
func BenchmarkScan(b *testing.B) {
	body := envelope(400)
	var p transform.Parser
	perCPU(b, len(body))
	for b.Loop() {
		if _, err := p.Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFastjson(b *testing.B) {
	body := envelope(400)
	var p fastjson.Parser
	perCPU(b, len(body))
	for b.Loop() {
		if _, err := p.ParseBytes(body); err != nil {
			b.Fatal(err)
		}
	}
}
