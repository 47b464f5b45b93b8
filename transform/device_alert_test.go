package transform_test

import (
	"reflect"
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

// AlertInfo may come a little later, through another source.
func TestAlertInfoIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaults()
		cfg.Wait = 2 * time.Second
		a, d := withDevices(cfg)
		b := transform.New(transform.Config{Devices: d})
		info := func(alert string) string { return recordOf("AlertInfo", "AlertId", alert, "Title", "T") }
		f := func(r string, wait time.Duration, title any) {
			t.Helper()
			start := time.Now()
			e := run(t, a, r)[0]
			if took := time.Since(start); took != wait || e.m["Title"] != title {
				t.Errorf("waited %v, want %v; title %v, want %v", took, wait, e.m["Title"], title)
			}
		}
		run(t, a, info("da0_1"))
		f(row("da1_1", "Ip", `{}`), 0, nil) // nobody else reads AlertInfo
		run(t, b, info("da0_1"))
		f(row("da1_1", "Ip", `{}`, "Title", "Own"), 0, "Own")
		f(row("da0_1", "Ip", `{}`), 0, "T")
		go func() {
			time.Sleep(500 * time.Millisecond)
			run(t, b, info("da9_1"))
			time.Sleep(500 * time.Millisecond)
			run(t, b, info("da1_1"))
		}()
		f(row("da1_1", "Ip", `{}`), time.Second, "T")
		f(row("da2_1", "Ip", `{}`), 2*time.Second, nil)
		time.Sleep(time.Hour)
		f(row("da2_1", "Ip", `{}`), 0, nil)
	})
}
