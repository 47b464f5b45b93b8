package transform_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// All formats show one device, with one id and one name: also of a row that names the device by an
// id that was merged, or by another form of its name. What the row says stays in the event.
func TestFormatsShowOneDevice(t *testing.T) {
	a, b := numbered(1), numbered(2)
	merged := []string{full(a, "09:00:00", "MergedToDeviceId", b, "DeviceName", "old"), full(b, "11:00:00", "DeviceName", "New.corp.example"),
		row("q1", "Machine", "{}", "DeviceId", strings.ToUpper(a), "DeviceName", "old")}
	named := []string{full(b, "11:00:00", "DeviceName", "New.corp.example"), row("q1", "Process", `{}`, "DeviceName", "NEW")}
	same := []string{full(b, "11:00:00", "DeviceName", "New.corp.example"), row("q1", "Machine", `{}`, "DeviceId", strings.ToUpper(b), "DeviceName", "new.CORP.example")}
	several := []string{seen("q1", a), seen("q1", b), row("q1", "Ip", `{}`)}
	f := func(format string, records []string, has []string, lacks ...string) {
		t.Helper()
		tr := transform.New(transform.Config{Format: format, Devices: device.New(everything())})
		var e event
		for _, r := range records {
			events := run(t, tr, r)
			e = events[len(events)-1]
		}
		text, _ := json.Marshal(e.m)
		for _, want := range has {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: no %s in %s", format, want, text)
			}
		}
		for _, not := range lacks {
			if strings.Contains(string(text), not) {
				t.Errorf("%s: %s in %s", format, not, text)
			}
		}
	}
	id := `"` + b + `"`
	for _, format := range []string{"flat", "raw"} {
		for _, records := range [][]string{merged, named, same} {
			f(format, records, []string{`"DeviceInfo.DeviceId":` + id, `"DeviceInfo.DeviceName":"New.corp.example"`, `"DeviceInfo.status":"hit"`})
		}
		f(format, several, []string{`"DeviceInfo.match":"several"`, `"DeviceInfo.candidates":["` + a + `",` + id})
	}
	for _, records := range [][]string{merged, named, same} {
		f("splunk", records, []string{`"DeviceInfo":{"DeviceId":` + id + `,"DeviceName":"New.corp.example"`, `"status":"hit"`})
		f("elastic", records, []string{`"host":{"hostname":"new.corp.example","id":` + id + `,"name":"new.corp.example"`, `"status":"hit"`})
		f("ecs", records, []string{`"host":{"hostname":"new.corp.example","id":` + id + `,"name":"new.corp.example"`, `"device":{"id":` + id, `"instance":{"id":` + id, `"status":"hit"`})
		f("ocsf", records, []string{`"uid":` + id, `"status":"hit"`}, `"hostname":"old"`, `"hostname":"NEW"`, `"uid":"`+strings.ToUpper(a))
	}
	f("ecs", merged, []string{`"hosts":["` + strings.ToUpper(a) + `","old",` + id})
	f("ecs", named, []string{`"hosts":["new",`})
	f("ocsf", merged, []string{`"hostname":"New.corp.example"`, `"DeviceId":"` + strings.ToUpper(a) + `"`, `"DeviceName":"old"`})
	f("ocsf", named, []string{`"hostname":"New.corp.example"`, `"DeviceName":"NEW"`})
	f("splunk", several, []string{`"match":"several"`, `"candidates":["` + a + `",` + id})
	f("elastic", several, []string{`"match":"several"`, `"candidates":["` + a + `",` + id}, `"host":`)
	f("ecs", several, []string{`"match":"several"`, `"candidates":["` + a + `",` + id}, `"host":`)
	f("ocsf", several, []string{`"DeviceInfo.match":"several"`, `"DeviceInfo.candidates":["` + a + `",` + id}, `"device":`)
}
