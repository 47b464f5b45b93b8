package transform_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Splunk extracts the first 100 fields of an event, and those from its first 5,000 letters.
// Microsoft writes AdditionalFields before Title and Severity, and it may be longer than that.
func TestTriageComesBeforeAdditionalFields(t *testing.T) {
	tr, _ := withDevices(defaults())
	run(t, tr, deviceInfo(ws1))
	var long strings.Builder
	for i := range 150 {
		fmt.Fprintf(&long, `"Field%d":"%s",`, i, strings.Repeat("v", 50))
	}
	fields := `{` + long.String() + `"Host":` + hostOf(ws1, true) + `}`
	e := run(t, tr, recordOf("AlertEvidence", "Timestamp", noon, "AlertId", "da1", "AdditionalFields", fields,
		"Unknown", map[string]int{"x": 1}, "EntityType", "Process", "Title", "A title", "Severity", "High"))[0]
	first := len(e.keys)
	for i, k := range e.keys {
		if strings.HasPrefix(k, "AdditionalFields.") || strings.HasPrefix(k, "Unknown.") {
			first = min(first, i)
		} else if i > first {
			t.Errorf("%s is field %d, behind %s", k, i+1, e.keys[first])
		}
	}
	for _, k := range []string{"Title", "Severity", "DeviceInfo.DeviceName", "DeviceInfo.status", "AdditionalFields.Field149"} {
		if e.m[k] == nil {
			t.Errorf("no %s", k)
		}
	}
	if first > 40 {
		t.Errorf("%d fields before AdditionalFields", first)
	}
}

// More columns that are objects than any table has are all written.
func TestManyObjectsInFlat(t *testing.T) {
	var properties []any
	for i := range 300 {
		properties = append(properties, fmt.Sprintf("Column%d", i), map[string]int{"x": i})
	}
	e := run(t, transform.New(transform.Config{}), recordOf("DeviceEvents", properties...))[0]
	for i := range 300 {
		if k := fmt.Sprintf("Column%d.x", i); e.m[k] != int64(i) {
			t.Errorf("%s is %v", k, e.m[k])
		}
	}
}
