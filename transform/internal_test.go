package transform

import (
	"errors"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/format"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A panic while a record is written costs that record, and says so.
func TestPanicIsIsolated(t *testing.T) {
	tr := New(Config{})
	write := tr.format.Record
	tr.format.Record = func(w *event.Writer, r *record.Record, own *format.Own) {
		write(w, r, own)
		if strings.Contains(string(r.Doc.Raw(0)), "boom") {
			var none []int
			_ = none[w.Len()]
		}
	}
	var tables []string
	body := `{"records":[{"category":"AdvancedHunting-A","properties":{"x":1}},{"category":"AdvancedHunting-B","properties":{"x":"boom"}},{"category":"AdvancedHunting-C","properties":{"x":[{"y":1}]}}]}`
	tr.Append(t.Context(), []Payload{{Body: []byte(body)}}, func(table string, _ []byte) { tables = append(tables, table) })
	if got := strings.Join(tables, " "); got != "A unreadable C" {
		t.Errorf("got %s", got)
	}
	if tr.Stats().Unreadable()["panic"] != 1 {
		t.Errorf("counted %v", tr.Stats().Unreadable())
	}
}

// A panic of emit is the caller's: a payload whose event was not taken must not look done.
func TestPanicOfEmit(t *testing.T) {
	tr := New(Config{})
	boom := errors.New("boom")
	defer func() {
		if r := recover(); r != boom {
			t.Errorf("recovered %v", r)
		}
	}()
	tr.Append(t.Context(), []Payload{{Body: []byte(`{"a":1}`)}}, func(string, []byte) { panic(boom) })
	t.Error("emit's panic was swallowed")
}
