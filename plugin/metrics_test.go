package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
	events "github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
)

func TestMetricsAreDeclaredWell(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range allMetrics {
		if seen[m.name] {
			t.Errorf("%s is declared twice", m.name)
		}
		seen[m.name] = true
		if strings.HasSuffix(m.name, "_total") != (m.kind == counter) {
			t.Errorf("%s: counters, and only they, end in _total", m.name)
		}
		if !regexp.MustCompile(`^[a-z][a-z_]*[a-z]$`).MatchString(m.name) || !strings.HasSuffix(m.help, ".") {
			t.Errorf("%s: %q", m.name, m.help)
		}
		if (m.kind == histogram) != (len(m.bounds) > 0) || !slices.IsSorted(m.bounds) {
			t.Errorf("%s: bounds %v", m.name, m.bounds)
		}
	}
}

// The C host exports the same functions of cmetrics as Fluent Bit, and checks their arguments.
func TestMetricsOfARunningSection(t *testing.T) {
	t.Parallel()
	h := startHub(t, 2)
	produce(t, h, 0, 3000)
	if err := h.Produce(t.Context(), hub, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "metrics")
	args := append(settings(h), "-quiet", "-seconds", "14", "-metrics", file)
	runHost(t, args...).ok(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	has := func(line string) {
		t.Helper()
		if !regexp.MustCompile(`(?m)^fluentbit_defender_` + line + `$`).MatchString(text) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	const name = `name="defender.0"`
	has(`records_total\{` + name + `,table="AlertInfo"\} 1000`)
	has(`records_total\{` + name + `,table="DeviceProcessEvents"\} 1000`)
	has(`unreadable_total\{` + name + `,reason="syntax"\} 1`)
	has(`payloads_total\{` + name + `\} 151`)
	has(`event_delay_seconds_bucket\{` + name + `,table="AlertInfo",le="\+Inf"\} 1000`)
	has(`event_delay_seconds_count\{` + name + `,table="AlertInfo"\} 1000`)
	has(`eventhub_lag_events\{` + name + `,hub="defender",partition="0"\} 0`)
	has(`eventhub_lag_seconds\{` + name + `,hub="defender",partition="1"\} 0`)
	has(`eventhub_not_committed_events\{` + name + `,hub="defender",partition="1"\} 0`)
	has(`eventhub_partitions\{` + name + `,hub="defender",group="[^"]+"\} 2`)
	has(`eventhub_partitions_assigned\{` + name + `,hub="defender",group="[^"]+"\} 2`)
	has(`eventhub_undecoded_total\{` + name + `\} 0`)
	has(`damaged_total\{` + name + `\} 1`)
	has(`fields_changed_total\{` + name + `,change="misfit"\} 0`)
	has(`device_reports_total\{` + name + `\} \d+`)
	has(`handed_over_bytes_total\{` + name + `\} \d{6,}`)
	has(`waiting_bytes\{` + name + `\} 0`)
	has(`memory_bytes\{` + name + `\} \d{7,}`)
	has(`memory_limit_bytes\{` + name + `\} 268435456`)
	has(`eventhub_rebalances_total\{` + name + `\} [1-9]\d*`)
}

// What is counted is shown: a user cannot look into the process.
func TestWhatIsCountedIsShown(t *testing.T) {
	text, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]string{
		"Records": "the sum of records_total", "TimeNow": "a part of time_fallbacks_total", "Messages": "payloads_total", "ArchivedBytes": "the log names them",
		"Next": "a part of the lag", "Committed": "a part of NotCommitted", "End": "a part of the lag", "Lists": "", "Hub": "", "Partition": "",
	}
	seen := 0
	for _, stats := range []any{transform.Stats{}, events.Counts{}, device.Stats{}, eventhub.Stats{}, eventhub.LaneStats{}, eventhub.HubStats{}, blob.Stats{}, blob.ContainerStats{}, machines.Stats{}} {
		typ := reflect.TypeOf(stats)
		for i := range typ.NumField() {
			f := typ.Field(i)
			if _, ok := elsewhere[f.Name]; ok || !f.IsExported() || f.Anonymous {
				continue
			}
			seen++
			if !regexp.MustCompile(`\.` + f.Name + `\b`).Match(text) {
				t.Errorf("%s.%s is counted and never shown", typ, f.Name)
			}
		}
	}
	if seen < 35 {
		t.Errorf("only %d figures", seen)
	}
}

func TestFiguresGoToTheLogWhereTheHostOffersNoMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{}
		in := newTestInstance(f)
		var g generation
		id := g.add(in)
		defer g.exit()
		tr := transform.New(transform.Config{})
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(`{"category":"AdvancedHunting-AlertInfo","properties":{"A":1}}`)}}, func(string, []byte) {})
		in.transforms = append(in.transforms, tr)
		figures := func() int { return strings.Count(strings.Join(f.log, "\n"), "figures: ") }
		for range 50 {
			g.tick(id, time.Now())
			time.Sleep(time.Second)
		}
		if n := figures(); n != 0 {
			t.Errorf("%d lines of figures in the first minute", n)
		}
		for range 90 {
			g.tick(id, time.Now())
			time.Sleep(time.Second)
		}
		if n := figures(); n != 2 {
			t.Errorf("%d lines of figures after two minutes", n)
		}
		if all := strings.Join(f.log, "\n"); !strings.Contains(all, " records_total{table=AlertInfo}=1 ") {
			t.Errorf("%s", all)
		}
	})
}

// Rows that had no room to wait for their device are counted, and the log says so once.
func TestRowsThatDidNotWaitAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{}
		in := newTestInstance(f)
		var g generation
		id := g.add(in)
		defer g.exit()
		in.devices = &devices{Memory: device.New(device.Config{CacheBytes: 1 << 20}), log: in.log, cancel: func() {}}
		tr := transform.New(transform.Config{})
		in.transforms = append(in.transforms, tr)
		minutes := func() string {
			for range 130 {
				g.tick(id, time.Now())
				time.Sleep(time.Second)
			}
			return strings.Join(f.log, "\n")
		}
		const line = "more rows wait for their device than memory_limit has room for"
		if log := minutes(); strings.Contains(log, line) {
			t.Errorf("told although all have waited:\n%s", log)
		}
		tr.Stats().NotWaited.Add(3)
		if log := minutes(); strings.Count(log, line) != 1 || !strings.Contains(log, " device_not_waited_total=3") {
			t.Errorf("%s", log)
		}
	})
}
