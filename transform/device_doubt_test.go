package transform_test

import (
	"strings"
	"testing"
)

// Scenes in which a device is easily taken for another one. Where the right one is in doubt, none
// is.

const otherTenant = "ffffffff-0000-4000-8000-000000000001"

func elsewhere(r string) string { return strings.ReplaceAll(r, aTenant, otherTenant) }

// dated is a record with another Timestamp, exported later than that.
func dated(r, from, to string) string {
	r = strings.Replace(r, `"Timestamp":"`+from+`"`, `"Timestamp":"`+to+`"`, 1)
	return strings.Replace(r, `"time":"`+at("23:00:00"), `"time":"2026-04-01T00:00:00Z`, 1)
}

// hosting is a File row of an alert, about a device at a time.
func hosting(alert, id, clock string, properties ...any) string {
	return row(alert, "File", `{"Host":{"MachineId":"`+id+`"}}`, append([]any{"Timestamp", at(clock)}, properties...)...)
}

// The clock of the machine that an event is about may be wrong: the event is as of its export at
// the latest.
func TestScenesOfClocks(t *testing.T) {
	a := numbered(1)
	const future = "2031-01-01T00:00:00Z"
	file := func(when string) string {
		return row("", "File", `{"Host":{"MachineId":"`+a+`"}}`, "Timestamp", when)
	}
	playScenes(t, []scene{
		{"years ahead", nil, []string{full(a, "11:00:00"), file(future)}, []any{"status", "hit", "age_s", int64(3600)}},
		{"the first moment of .NET", nil, []string{full(a, "11:00:00"), file("0001-01-01T00:00:00")}, []any{"status", "hit", "age_s", int64(3600)}},
		{"by name", nil, []string{full(a, "11:00:00", "DeviceName", "web01"), row("", "Process", `{}`, "DeviceName", "web01", "Timestamp", future)}, []any{"match", "name", "status", "hit"}},
		{"by user", byUser, []string{full(a, "11:00:00", "LoggedOnUsers", `[{"UserName":"kim"}]`), row("", "User", `{}`, "AccountName", "kim", "Timestamp", future)}, []any{"match", "user", "status", "hit"}},
		{"an alert from the future, and the next", nil, []string{hosting("x", a, "10:00:00", "Severity", "High", "Timestamp", future), hosting("y", a, "12:00:01", "Severity", "Low")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"an alert, and one from the future", nil, []string{hosting("x", a, "10:00:00", "Severity", "High"), hosting("y", a, "12:00:00", "Severity", "Low", "Timestamp", future)}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
		{"days late", nil, []string{full(a, "11:00:00"), hosting("x", a, "10:00:00", "Severity", "High"), hosting("z", a, "09:00:00", "Severity", "Low", "Timestamp", "2026-02-27T09:00:00Z")},
			[]any{"status", "hit", "age_s", int64(-(5*24*3600 + 2*3600)), "alerts_24h", int64(1), "alerts_24h_severity", "Low"}},
		{"late evidence of an alert that goes on", nil, []string{hosting("x", a, "10:00:00", "Severity", "High"), hosting("x", a, "09:00:00", "Timestamp", "2026-02-27T09:00:00Z"), hosting("y", a, "11:00:00")}, []any{"alerts_24h", int64(2), "alerts_24h_severity", "High"}},
	})
}
