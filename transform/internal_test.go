package transform

import (
	"errors"
	"strings"
	"testing"
)

// A panic while a record is written costs that record, and says so.
func TestPanicIsIsolated(t *testing.T) {
	tr := New(Config{})
	write := tr.write
	tr.write = func(dst []byte, r *row) ([]byte, error) {
		out, err := write(dst, r)
		if strings.Contains(string(r.doc.raw(0)), "boom") {
			var none []int
			_ = none[len(out)]
		}
		return out, err
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

// Columns are listed once, under one class.
func TestColumnLists(t *testing.T) {
	n := 0
	for _, list := range []string{objectColumns, objectsColumns, scalarsColumns, differingColumns, integerColumns, booleanColumns, realColumns, textColumns} {
		n += len(strings.Fields(list))
	}
	if n != len(columnClasses) {
		t.Errorf("%d names in the lists, %d different ones", n, len(columnClasses))
	}
	if got := len(strings.Fields(differingColumns)); got != 18 {
		t.Errorf("%d differing columns, want 22 less the 4 that are opened", got)
	}
}
