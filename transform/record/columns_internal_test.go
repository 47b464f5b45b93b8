package record

import (
	"strings"
	"testing"
)

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
