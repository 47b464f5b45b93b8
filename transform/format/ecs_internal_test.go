package format

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// asECS returns the event of one record, as what a JSON decoder makes of it, numbers as they are.
func asECS(t testing.TB, raw []byte, own Own) map[string]any {
	t.Helper()
	e, err := newECS()
	if err != nil {
		t.Fatal(err)
	}
	s := &record.Scanner{}
	w := event.NewWriter(event.Options{}, &event.Counts{}, e.names, s)
	var r record.Record
	if _, err := r.Read(s, raw, 0); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if own.Table == "" {
		own.Table = strings.TrimPrefix(r.Category(), record.HuntingPrefix)
	}
	w.Begin(nil, 1<<20)
	e.record(w, &r, &own)
	out, err := w.End(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	const header = 1 + 10
	rest, err := msgp.UnmarshalAsJSON(&b, out[header:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes too many: %s", err, len(rest), raw)
	}
	d := json.NewDecoder(&b)
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestECSMapping(t *testing.T) {
	e, err := newECS()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(len(e.mapping.form.fields))
}
