package main

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// monitoringQueries are the queries of the dashboard and the alert rules, by the title of their
// panel or the name of the alert.
func monitoringQueries(t *testing.T) (panels, alerts map[string][]string) {
	t.Helper()
	b, err := os.ReadFile("../examples/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	panels, alerts = make(map[string][]string), make(map[string][]string)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			panels[p.Title] = append(panels[p.Title], target.Expr)
		}
	}
	if b, err = os.ReadFile("../examples/monitoring/alerts.yaml"); err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Split(string(b), "- alert: ")[1:] {
		name, rest, _ := strings.Cut(rule, "\n")
		_, expr, _ := strings.Cut(rest, "expr: ")
		expr, _, _ = strings.Cut(expr, "\n")
		alerts[name] = append(alerts[name], expr)
	}
	if len(panels) < 10 || len(alerts) < 10 {
		t.Fatalf("%d panels and %d alerts", len(panels), len(alerts))
	}
	return panels, alerts
}

// hostSeries are Fluent Bit's own, with their labels, as /api/v2/metrics/prometheus of Fluent Bit
// 5.1.1 shows them. TestSIEMDown of the examples holds them against a running one.
var hostSeries = map[string][]string{
	"fluentbit_output_retries_total":         {"name"},
	"fluentbit_output_retries_failed_total":  {"name"},
	"fluentbit_output_dropped_records_total": {"name"},
	"fluentbit_output_proc_records_total":    {"name"},
	"fluentbit_input_storage_chunks":         {"name"},
}

// Every series of the dashboard and the alerts is exported by the code, or is one of the few of
// Fluent Bit's own. The labels are right, too. Whether Prometheus understands the queries is for
// the integration test.
func TestMonitoringNamesWhatIsExported(t *testing.T) {
	labels := maps.Clone(hostSeries)
	for _, m := range allMetrics {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if suffix == "" != (m.kind == histogram) {
				labels["fluentbit_defender_"+m.name+suffix] = append([]string{"name", "le"}, m.labels...)
			}
		}
	}
	series := regexp.MustCompile(`fluentbit_[a-z_]+`)
	matched := regexp.MustCompile(`[{,]\s*([a-z_]+)\s*(?:=|!=|=~|!~)"`)
	grouped := regexp.MustCompile(`by \(([a-z_, ]+)\)`)
	used := make(map[string]bool)
	panels, alerts := monitoringQueries(t)
	for _, queries := range []map[string][]string{panels, alerts} {
		for title, exprs := range queries {
			for _, expr := range exprs {
				known := []string{"instance"} // Prometheus adds it
				for _, name := range series.FindAllString(expr, -1) {
					if labels[name] == nil {
						t.Errorf("%s: there is no %s", title, name)
					}
					used[name] = true
					known = append(known, labels[name]...)
				}
				var asked []string
				for _, m := range matched.FindAllStringSubmatch(expr, -1) {
					asked = append(asked, m[1])
				}
				for _, m := range grouped.FindAllStringSubmatch(expr, -1) {
					asked = append(asked, strings.Split(strings.ReplaceAll(m[1], " ", ""), ",")...)
				}
				for _, label := range asked {
					if !slices.Contains(known, label) {
						t.Errorf("%s: no series of %s has a label %s", title, expr, label)
					}
				}
			}
		}
	}
	for name := range hostSeries {
		if !used[name] {
			t.Errorf("no alert and no panel looks at %s", name)
		}
	}
	if len(used) < 15 {
		t.Errorf("only %d series are looked at: %v", len(used), used)
	}
}
