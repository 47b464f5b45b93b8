package transform_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// Objects without an end may have a list of records in each. They do not cost a search of the rest
// of the payload for each of them: 1 MB took a minute. All of their text is passed on.
func TestDamageCostsNoSquare(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{
		`{"AdditionalFields":""records":[]`,
		`{"time":"x",{"records":[]{"records":[]`,
		`{"records":[]"records"{"time":"x"`,
		`"body":"{}""records":[]{`,
		`{"records":[]{"time":"x"`,
	} {
		body := `{"records":[{"category":"AdvancedHunting-AlertEvidence","properties":{` + strings.Repeat(unit, 1<<20/len(unit))
		tr := transform.New(transform.Config{Format: "flat"})
		begun, last := time.Now(), false
		tr.Append(t.Context(), []transform.Payload{{Body: []byte(body)}}, func(_ string, event []byte) {
			last = bytes.Contains(event, []byte(body[len(body)-20:]))
		})
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("%s again and again takes %v", unit, took)
		}
		if !last {
			t.Errorf("%s again and again: the end of it is not passed on", unit)
		}
	}
}
