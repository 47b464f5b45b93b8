package transform_test

import (
	"fmt"
	"reflect"
	"testing"
)

// The devices among which none is guessed come in the order of their ids, however their reports and
// evidence came: two instances that read the same events write the same.
func TestCandidatesHaveOneOrder(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("%040x", n) }
	report := func(n int) string { return deviceInfo(id(n), "DeviceName", "twin.corp.example") }
	host := func(n int) string {
		return recordOf("AlertEvidence", "Timestamp", noon, "AlertId", "da7", "EntityType", "Machine", "DeviceId", id(n))
	}
	named := recordOf("AlertEvidence", "Timestamp", noon, "AlertId", "da8", "EntityType", "Process", "DeviceName", "twin")
	ofAlert := recordOf("AlertEvidence", "Timestamp", noon, "AlertId", "da7", "EntityType", "File")
	want := []any{id(1), id(2), id(3)}
	for _, order := range [][]int{{1, 2, 3}, {3, 1, 2}, {2, 3, 1}} {
		for _, row := range []string{named, ofAlert} {
			var records []string
			for _, n := range order {
				records = append(records, report(n), host(n))
			}
			if got := last(t, everything(), append(records, row)...).m["DeviceInfo.candidates"]; !reflect.DeepEqual(got, want) {
				t.Errorf("order %v, row %.120s: candidates %v, want %v", order, row, got, want)
			}
		}
	}
}
