package transform_test

import (
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Evidence from before 2023 does not say what AlertInfo says.
func TestAlertOnItsEvidence(t *testing.T) {
	info := recordOf("AlertInfo", "AlertId", "da1_1", "Timestamp", noon, "Title", "[SOC] Odd", "Category", "Execution", "Severity", "High", "ServiceSource", "Microsoft Defender for Endpoint",
		"DetectionSource", "EDR", "AttackTechniques", `["PowerShell (T1059.001)"]`)
	bare := row("da1_1", "Ip", `{"Address":"203.0.113.9"}`)
	full := row("da1_1", "Ip", `{}`, "Title", "Own", "Severity", "Low", "Categories", `["Impact"]`, "AttackTechniques", "", "DetectionSource", nil, "ServiceSource", "Own source")
	for name, bodies := range map[string][]string{"before": {info, bare, full}, "after, in one call": {bare, full, info}} {
		tr, d := withDevices(defaults())
		events := ofTable(run(t, tr, bodies...), "AlertEvidence")
		for i, want := range []map[string]any{
			{"Title": "[SOC] Odd", "Severity": "High", "ServiceSource": "Microsoft Defender for Endpoint", "DetectionSource": "EDR", "Categories": []any{"Execution"}, "AttackTechniques": []any{"PowerShell (T1059.001)"}},
			{"Title": "Own", "Severity": "Low", "ServiceSource": "Own source", "DetectionSource": "EDR", "Categories": []any{"Impact"}, "AttackTechniques": []any{"PowerShell (T1059.001)"}},
		} {
			for k, v := range want {
				if !reflect.DeepEqual(events[i].m[k], v) {
					t.Errorf("%s: row %d: %s is %v, want %v", name, i, k, events[i].m[k], v)
				}
			}
		}
		if n := d.Stats().AlertsFilled; n != 2 {
			t.Errorf("%d rows filled", n)
		}
	}
	tr, _ := withDevices(defaults())
	if e := run(t, tr, info, row("da2_1", "Ip", `{}`)); e[1].m["Title"] != nil {
		t.Error("another alert's title")
	}
}

// The other rows of an alert may come a little later, in another message, partition or source.
func TestAlertIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaults()
		cfg.Wait = 2 * time.Second
		a, d := withDevices(cfg)
		b := transform.New(transform.Config{Devices: d})
		info := func(alert string) string { return recordOf("AlertInfo", "AlertId", alert, "Title", "T") }
		machine := func(alert string) string { return evidenceRows(alert, ws1)["machine"] }
		f := func(r string, wait time.Duration, title, match any) {
			t.Helper()
			start := time.Now()
			e := run(t, a, r)[0]
			if took := time.Since(start).Round(100 * time.Millisecond); took != wait || e.m["Title"] != title || deviceOf(e)["match"] != match {
				t.Errorf("waited %v, want %v; title %v, want %v; match %v, want %v", took, wait, e.m["Title"], title, deviceOf(e)["match"], match)
			}
		}
		// A row that names its host and has its title waits for nothing, nor does one without an
		// alert.
		f(row("da1_1", "File", `{"Host":{"MachineId":"`+ws2+`"}}`, "Title", "Own"), 0, "Own", "evidence")
		f(row("", "Ip", `{}`), 0, nil, nil)
		f(row("da2_1", "Ip", `{}`, "Title", "Own"), time.Second, "Own", nil)
		f(row("da2_1", "File", `{"Host":{"MachineId":"`+ws2+`"}}`), time.Second, nil, "evidence")
		var later sync.WaitGroup
		later.Go(func() {
			time.Sleep(300 * time.Millisecond)
			run(t, b, info("da9_1"), machine("da9_1"))
			time.Sleep(200 * time.Millisecond)
			run(t, b, info("da3_1"))
			time.Sleep(200 * time.Millisecond)
			run(t, b, machine("da3_1"))
		})
		f(row("da3_1", "Ip", `{}`), 700*time.Millisecond, "T", "alert")
		f(row("da3_1", "Ip", `{}`), 0, "T", "alert")
		later.Wait()
		// Of one source: Append reads the others while the row waits. No two Appends run at once.
		var got []event
		emit := func(_ string, b []byte) {
			e, err := decodeEvent(b)
			if err != nil {
				t.Error(err)
			}
			got = append(got, e)
		}
		a.Append(t.Context(), []transform.Payload{{Body: []byte(row("da4_1", "Ip", `{}`))}}, emit)
		start := time.Now()
		later.Go(func() {
			time.Sleep(100 * time.Millisecond)
			a.Append(t.Context(), []transform.Payload{{Body: []byte(info("da4_1"))}, {Body: []byte(machine("da4_1"))}}, func(string, []byte) {})
		})
		if err := a.Late(t.Context(), emit, func(settle func()) { settle() }); err != nil {
			t.Error(err)
		}
		took := time.Since(start).Round(100 * time.Millisecond)
		later.Wait()
		if len(got) != 1 || took != 100*time.Millisecond || got[0].m["Title"] != "T" || deviceOf(got[0])["match"] != "alert" {
			t.Errorf("after %v: %v", took, got)
		}
		// device_info.wait bounds this wait, too.
		cfg.Wait = 400 * time.Millisecond
		a, _ = withDevices(cfg)
		f(row("da5_1", "Ip", `{}`), 400*time.Millisecond, nil, nil)
		cfg.Wait = 0
		a, _ = withDevices(cfg)
		f(row("da5_1", "Ip", `{}`), 0, nil, nil)
	})
}
