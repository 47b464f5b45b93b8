package transform_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// lookup is somebody to ask.
type lookup struct {
	mu      sync.Mutex
	calls   [][]string
	answer  func(ctx context.Context, tenant string, ids []string) []string
	devices *device.Memory
	asking  sync.WaitGroup
}

// ask answers beside the caller, as the machines API does. What answer returns stays without one.
func (l *lookup) ask(tenant string, ids []string, wait time.Duration) (coming, left []string) {
	l.mu.Lock()
	l.calls = append(l.calls, ids)
	l.mu.Unlock()
	l.asking.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		pending := l.answer(ctx, tenant, ids)
		for _, id := range ids {
			if !slices.Contains(pending, id) {
				l.devices.Answered(tenant, id, true)
			}
		}
	})
	return ids, nil
}

func withLookup(cfg device.Config, answer func(l *lookup, ctx context.Context, ids []string) []string) (*transform.Transformer, *lookup) {
	l := &lookup{}
	l.answer = func(ctx context.Context, tenant string, ids []string) []string {
		if tenant != aTenant {
			panic(tenant)
		}
		return answer(l, ctx, ids)
	}
	cfg.Ask = l.ask
	tr, d := withDevices(cfg)
	l.devices = d
	return tr, l
}

func TestMissesAreAskedForAtOnce(t *testing.T) {
	found := func(l *lookup, _ context.Context, ids []string) []string {
		for _, id := range ids {
			if id != ws2 {
				l.devices.Learn(strings.ToUpper(aTenant), []byte(`{"DeviceId":"`+strings.ToUpper(id)+`","Timestamp":"2026-03-04T11:00:00Z","OSPlatform":"Linux","OSBuild":"77"}`), true)
			}
		}
		return nil
	}
	cfg := defaults()
	cfg.Wait = 2 * time.Second
	tr, l := withLookup(cfg, found)
	a, b := evidenceRows("da1_1", ws1), evidenceRows("da2_1", ws2)
	events := run(t, tr, envelopeOf(a["file"], b["file"], a["ip"]), a["process"], b["user"])
	if len(l.calls) != 1 || !reflect.DeepEqual(slices.Sorted(slices.Values(l.calls[0])), []string{ws1, ws2}) {
		t.Fatalf("asked %v", l.calls)
	}
	for _, e := range events {
		if deviceOf(e)["DeviceId"] == ws1 {
			wantDevice(t, e, "status", "hit", "OSPlatform", "Linux", "OSBuild", int64(77), "DeviceName", "WS-a1.corp.example")
		} else {
			// The API does not know it; the evidence tells a little.
			wantDevice(t, e, "status", "unknown", "OSPlatform", nil, "DeviceName", "WS-b2.corp.example")
		}
	}
	run(t, tr, a["file"])
	if len(l.calls) != 1 {
		t.Errorf("asked again for what is known: %v", l.calls[1:])
	}
	// What is known from this very call is not asked for.
	run(t, tr, envelopeOf(evidenceRows("da3_1", strings.Repeat("c3", 20))["file"], deviceInfo(strings.Repeat("c3", 20))))
	if len(l.calls) != 1 {
		t.Errorf("asked for what the payload tells: %v", l.calls[1:])
	}
}

func TestStaleAndMergedAreAskedFor(t *testing.T) {
	cfg := defaults()
	cfg.Wait = time.Second
	tr, l := withLookup(cfg, func(_ *lookup, _ context.Context, ids []string) []string { return ids })
	old := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", "2026-02-01T00:00:00Z", "DeviceName", "ws")
	wantDevice(t, run(t, tr, old, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[1], "status", "stale", "DeviceName", "ws")
	merged := recordOf("DeviceInfo", "DeviceId", ws1, "Timestamp", noon, "MergedToDeviceId", strings.ToUpper(ws2))
	wantDevice(t, run(t, tr, merged, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))[1], "status", "hit", "DeviceName", "ws", "DeviceId", ws1)
	if want := [][]string{{ws1}, {ws2}}; !reflect.DeepEqual(l.calls, want) {
		t.Errorf("asked for %v, want %v", l.calls, want)
	}
}

// However slow the answer, a call waits once, and the records are passed on.
func TestOneWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, 300 * time.Millisecond, 2 * time.Second} {
			cfg := defaults()
			cfg.Wait = wait
			tr, _ := withLookup(cfg, func(_ *lookup, ctx context.Context, ids []string) []string { <-ctx.Done(); return ids })
			start := time.Now()
			var bodies []string
			for i := range 40 {
				bodies = append(bodies, envelopeOf(row("", "File", fmt.Sprintf(`{"Host":{"MachineId":"%040x"}}`, i+1)), `{"not closed":`), evidenceRows(fmt.Sprint("da", i), fmt.Sprintf("%038xff", i))["machine"])
			}
			events := run(t, tr, bodies...)
			if took := time.Since(start); took != wait {
				t.Errorf("waited %v, want %v", took, wait)
			}
			evidence := ofTable(events, "AlertEvidence")
			if len(evidence) != 80 {
				t.Fatalf("%d rows", len(evidence))
			}
			for _, e := range evidence {
				wantDevice(t, e, "status", "pending")
			}
		}
		// When the caller ends, what waits is dropped: it is read again.
		cfg := defaults()
		cfg.Wait = time.Minute
		tr, l := withLookup(cfg, func(_ *lookup, ctx context.Context, ids []string) []string { <-ctx.Done(); return ids })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start, n := time.Now(), 0
		emit := func(string, []byte) { n++ }
		tr.Append(ctx, []transform.Payload{{Body: []byte(evidenceRows("da", ws1)["ref"])}}, emit)
		err := tr.Late(ctx, emit, func(func()) {})
		if took := time.Since(start); took != time.Second || n != 0 || err == nil || tr.Waiting() != 0 {
			t.Errorf("%v, %d records, %v, %d still wait", took, n, err, tr.Waiting())
		}
		l.asking.Wait()
	})
}

func TestLookupThatPanics(t *testing.T) {
	cfg := defaults()
	cfg.Ask = func(string, []string, time.Duration) (coming, left []string) { panic("bug") }
	tr, _ := withDevices(cfg)
	wantDevice(t, run(t, tr, evidenceRows("da", ws1)["file"])[0], "match", "evidence")
}

// A payload of more alerts than may be held at once: all arrive, with one wait.
func TestManyAlertsInOneCall(t *testing.T) {
	cfg := defaults()
	cfg.Wait = time.Second
	tr, l := withLookup(cfg, func(l *lookup, _ context.Context, ids []string) []string { return ids })
	var records []string
	for i := range 700 {
		records = append(records, row(fmt.Sprint("da", i), "File", `{"Host":`+hostOf(fmt.Sprintf("%040x", i), true)+`,"Pad":[`+strings.Repeat(`1,`, 2000)+`1]}`))
	}
	if n := len(run(t, tr, envelopeOf(records...))); n != 700 {
		t.Errorf("%d records", n)
	}
	if n := len(l.calls); n < 2 {
		t.Errorf("%d calls: the rows were all held at once", n)
	}
}

// Rows beyond those that there is room for do not wait. They are passed on unchanged, and are
// counted.
func TestMoreRowsThanMayWait(t *testing.T) {
	cfg := defaults()
	cfg.Wait = time.Minute
	cfg.Ask = func(_ string, ids []string, _ time.Duration) (coming, left []string) { return ids, nil }
	d := device.New(cfg)
	tr := transform.New(transform.Config{Devices: d, Keep: settled, Memory: 1 << 20})
	const n = 1000
	got := 0
	emit := func(_ string, b []byte) {
		e, err := decodeEvent(b)
		if err != nil {
			t.Error(err)
		}
		wantDevice(t, e, "status", "pending")
		got++
	}
	for i := range n {
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(row("", "File", fmt.Sprintf(`{"Host":{"MachineId":"%040x"}}`, i+1)))}}, emit)
	}
	waiting, not := tr.Waiting(), int(tr.Stats().NotWaited.Load())
	if waiting < 100 || not < 100 || waiting+not != n || got != not {
		t.Errorf("%d rows wait, %d do not, %d came", waiting, not, got)
	}
}

// During a warm-up rows wait that some device is or may be found for, and nobody is asked. Others
// go on.
func TestWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaults()
		cfg.Wait = 2 * time.Second
		asked := 0
		cfg.Ask = func(_ string, ids []string, _ time.Duration) (coming, left []string) { asked++; return nil, nil }
		when, _ := time.Parse(time.RFC3339Nano, noon)
		time.Sleep(time.Until(when.Add(time.Minute)))
		tr, d := withDevices(cfg)
		d.WarmUp(time.Minute)
		f := func(wait time.Duration, r string, want ...any) {
			t.Helper()
			start := time.Now()
			e := run(t, tr, r)
			if took := time.Since(start).Round(50 * time.Millisecond); took != wait {
				t.Errorf("waited %v, want %v", took, wait)
			}
			wantDevice(t, e[len(e)-1], want...)
		}
		f(0, row("", "Ip", `{"Address":"203.0.113.9"}`), "status", "none")
		f(0, deviceInfo(ws2))
		var later sync.WaitGroup
		later.Go(func() {
			time.Sleep(20 * time.Second)
			d.Learn(aTenant, []byte(`{"DeviceId":"`+ws1+`","Timestamp":"`+noon+`","OSPlatform":"Linux","DeviceName":"ws-b2.corp.example"}`), true)
			d.Learn(aTenant, []byte(`{"DeviceId":"`+ws2+`","Timestamp":"`+noon+`","OSPlatform":"Windows12"}`), true)
			time.Sleep(20 * time.Second)
			d.WarmedUp()
		})
		// The newest report of a known device may not have been read either. And the name of one
		// device may be the name of two.
		batch := envelopeOf(about("", ws1), row("", "Ip", `{}`, "DeviceName", "ws-b2"), about("", ws2))
		start := time.Now()
		events := run(t, tr, batch)
		if took := time.Since(start).Round(50 * time.Millisecond); took != 40*time.Second {
			t.Errorf("waited %v", took)
		}
		wantDevice(t, events[0], "status", "hit", "OSPlatform", "Linux")
		wantDevice(t, events[1], "match", "several")
		wantDevice(t, events[2], "status", "hit", "OSPlatform", "Windows12")
		if asked != 0 {
			t.Errorf("asked %d times", asked)
		}
		later.Wait()
		f(0, about("", strings.Repeat("c3", 20)), "status", "unknown")
		if asked != 1 {
			t.Errorf("asked %d times after the warm-up", asked)
		}
		// It ends by itself, and then what is missing is asked for, and waited for as ever.
		cfg.Ask = func(_ string, ids []string, _ time.Duration) (coming, left []string) { return ids, nil }
		tr, d = withDevices(cfg)
		d.WarmUp(10 * time.Second)
		f(12*time.Second, about("", ws1), "status", "pending")
	})
}
