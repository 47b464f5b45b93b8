package transform_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/ocsf"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// leafTexts adds the text of every leaf of a value.
func leafTexts(texts map[string]bool, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			leafTexts(texts, e)
		}
	case []any:
		for _, e := range v {
			leafTexts(texts, e)
		}
	case nil:
	default:
		texts[fmt.Sprint(v)] = true
	}
}

// sameNumber reports whether a number is among texts in another spelling, such as 1e3 for 1000.
func sameNumber(texts map[string]bool, text string) bool {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return false
	}
	for other := range texts {
		if n, err := strconv.ParseFloat(other, 64); err == nil && n == number && len(text) < 16 {
			return true
		}
	}
	return false
}

// checkOCSF transforms bodies in format ocsf, and demands that every event is valid and that every
// leaf of its flat form is in it. It returns the events by class name.
func checkOCSF(t *testing.T, bodies ...string) map[string]int {
	t.Helper()
	clock := func() time.Time { return time.Unix(1772619482, 0) }
	transformer := func(format string) *transform.Transformer {
		tr := transform.New(transform.Config{EventID: true, Format: format})
		transform.SetNow(tr, clock)
		return tr
	}
	flat, shaped := transformer("flat"), transformer("ocsf")
	classes := make(map[string]int)
	faults := 0
	for _, body := range bodies {
		payload := []transform.Payload{{Body: []byte(body), Lane: "hub/0"}}
		want, got := transformed(t, flat, payload), transformed(t, shaped, payload)
		if len(got) != len(want) {
			t.Fatalf("%d events, flat has %d: %.300s", len(got), len(want), body)
		}
		for i, e := range got {
			for _, fault := range ocsf.Check(e.m) {
				if faults++; faults < 12 {
					t.Errorf("%s\n%v\n%.1500s", fault, e.m, body)
				}
			}
			texts := make(map[string]bool)
			leafTexts(texts, e.m)
			flatTexts := make(map[string]bool)
			delete(want[i].m, "repaired_text") // how often a text was repaired, which may be written twice
			leafTexts(flatTexts, want[i].m)
			for text := range flatTexts {
				if !texts[text] && !sameNumber(texts, text) {
					if faults++; faults < 12 {
						t.Errorf("%q is lost of %.1500s\n%v", text, body, e.m)
					}
				}
			}
			name, _ := e.m["class_name"].(string)
			classes[name]++
		}
	}
	if n := shaped.Stats().Unreadable()["panic"]; n > 0 {
		t.Fatalf("%d panics", n)
	}
	return classes
}

// Every documented column and every known ActionType, in full, sparse and odd fillings: all events
// are valid and nothing is lost. Every class of the mapping is met.
func TestOCSFIsValid(t *testing.T) {
	n := 12_000 / slower
	var bodies []string
	for record := range ocsf.Records(17, n) {
		bodies = append(bodies, string(record))
	}
	classes := checkOCSF(t, bodies...)
	t.Log(classes)
	if len(classes) < 26 {
		t.Errorf("only %d classes: %v", len(classes), classes)
	}
}

// Real records, where there are some: DEFENDER_SAMPLES is a folder of them.
func TestOCSFSamples(t *testing.T) {
	folder := os.Getenv("DEFENDER_SAMPLES")
	if folder == "" {
		folder = "testdata"
	}
	var bodies []string
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.HasSuffix(path, ".ndjson") {
			for line := range strings.Lines(string(text)) {
				bodies = append(bodies, line)
			}
		} else if len(text) < 4<<20 {
			bodies = append(bodies, string(text))
		}
		return err
	})
	if err != nil || len(bodies) == 0 {
		t.Fatal(err)
	}
	t.Log(checkOCSF(t, bodies...))
}
