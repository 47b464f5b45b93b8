package transform_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

func TestDelayIsCountedByTable(t *testing.T) {
	tr := transform.New(transform.Config{})
	record := func(table string, age time.Duration) transform.Payload {
		at := time.Now().Add(-age).UTC().Format(time.RFC3339Nano)
		return transform.Payload{Body: fmt.Appendf(nil, `{"category":"AdvancedHunting-%s","properties":{"Timestamp":%q,"A":1}}`, table, at)}
	}
	tr.Append(t.Context(), []transform.Payload{
		record("AlertInfo", 45*time.Second), record("AlertInfo", 30*24*time.Hour), record("AlertInfo", -time.Hour),
		record("DeviceInfo", 100*time.Second),
		{Body: []byte(`{"category":"AdvancedHunting-NoTime","properties":{"A":1}}`)},
	}, func(string, []byte) {})
	delays := tr.Stats().Delays()
	f := func(table string, want string) {
		t.Helper()
		d := delays[table]
		if got := fmt.Sprint(d.Cumulative()); got != want {
			t.Errorf("%s: %s, want %s", table, got, want)
		}
	}
	f("AlertInfo", "[1 1 2 2 2 2 2 2 2 2 2 3]")
	f("DeviceInfo", "[0 0 0 1 1 1 1 1 1 1 1 1]")
	f("NoTime", "[0 0 0 0 0 0 0 0 0 0 0 0]")
	if d := delays["DeviceInfo"]; d.Seconds < 99 || d.Seconds > 110 {
		t.Errorf("sum %v", d.Seconds)
	}
	if b := transform.DelayBounds(); len(b) != 11 || b[2] != 60 {
		t.Errorf("bounds %v", b)
	}
}
