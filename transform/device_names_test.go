package transform_test

import (
	"reflect"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// Objects in the lists of a device's column have the names that they have in any record.
func TestSeparatorInColumnsOfADevice(t *testing.T) {
	for _, separator := range []string{".", "_", "/"} {
		cfg := defaults()
		cfg.Separator = separator
		tr := transform.New(transform.Config{Separator: separator, Devices: device.New(cfg)})
		report := run(t, tr, deviceInfo(ws1, "LoggedOnUsers", `[{"UserName":"kim","Deep":{"In":1}}]`))
		e := run(t, tr, row("", "File", `{"Host":{"MachineId":"`+ws1+`"}}`))
		want := []any{map[string]any{"UserName": "kim", "Deep" + separator + "In": int64(1)}}
		if !reflect.DeepEqual(report[0].m["LoggedOnUsers"], want) {
			t.Errorf("DeviceInfo with separator %q: %v", separator, report[0].m["LoggedOnUsers"])
		}
		wantDevice(t, e[0], "LoggedOnUsers", want)
	}
}
