package examples_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/examples/demo/story"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/device"
)

// An indexTemplate is what the tests look at in an index template.
type indexTemplate struct {
	Template struct {
		Settings map[string]any `json:"settings"`
		Mappings struct {
			DateDetection bool `json:"date_detection"`
			Dynamic       bool `json:"dynamic"`
			Templates     []map[string]struct {
				Match   string         `json:"match_mapping_type"`
				Mapping map[string]any `json:"mapping"`
			} `json:"dynamic_templates"`
			Properties map[string]map[string]any `json:"properties"`
		} `json:"mappings"`
	} `json:"template"`
}

func readTemplate(t *testing.T, name string) indexTemplate {
	t.Helper()
	var it indexTemplate
	if err := json.Unmarshal([]byte(example(t, name+"/index-template.json")), &it); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return it
}

// records transforms payloads and returns every record as the JSON that Fluent Bit's outputs make
// of it.
func records(t *testing.T, payloads ...[]byte) [][]byte {
	t.Helper()
	return recordsIn(t, "flat", payloads...)
}

// recordsIn is records in another format.
func recordsIn(t *testing.T, format string, payloads ...[]byte) [][]byte {
	t.Helper()
	var all [][]byte
	eachEvent(t, format, func(_ time.Time, doc []byte) { all = append(all, doc) }, payloads...)
	return all
}

// eachEvent transforms payloads, and calls do with the time and the JSON of every event.
func eachEvent(t *testing.T, format string, do func(at time.Time, doc []byte), payloads ...[]byte) {
	t.Helper()
	devices := device.New(device.Config{Tables: []string{"AlertEvidence"}, Fields: []string{"*"}, CacheBytes: 8 << 20})
	tr := transform.New(transform.Config{EventID: true, Devices: devices, Format: format})
	for _, p := range payloads {
		tr.Append(context.Background(), []transform.Payload{{Body: p, Lane: "test"}}, func(_ string, event []byte) {
			var b bytes.Buffer
			const array, extension = 1, 2 // their headers, before the seconds and the nanoseconds
			at := event[array+extension:]
			if _, err := msgp.UnmarshalAsJSON(&b, at[8:]); err != nil {
				t.Fatal(err)
			}
			do(time.Unix(int64(binary.BigEndian.Uint32(at)), int64(binary.BigEndian.Uint32(at[4:]))), b.Bytes())
		})
	}
}

// told is the story of the demo: every table, the attack, a few thousand records.
func told() []byte {
	s := story.New(story.Options{Seed: 1, AlertEvery: 50})
	return s.AppendEnvelope(nil, 4000)
}

// sampled are the real records, where they are.
func sampled(t *testing.T) [][]byte {
	t.Helper()
	var all [][]byte
	err := filepath.WalkDir("../../shared/samples", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".md") || strings.Contains(path, "/tests/") ||
			strings.Contains(path, "/samples/cases/") || strings.Contains(path, "/samples/devices/") { // not what the service sends
			return nil //nolint:nilerr // not there: the story and the invented records are tested all the same
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if json.Valid(text) {
			all = append(all, text)
			return nil
		}
		for line := range bytes.Lines(text) {
			all = append(all, bytes.TrimSpace(line))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hostile are records whose names and values an index would refuse, were they passed on as they
// are. Each was tried against the mapping code of Elasticsearch 8.19 and against OpenSearch 2.19.
func hostile() [][]byte {
	var all [][]byte
	add := func(properties string) {
		all = append(all, []byte(`{"time":"2026-03-04T10:20:31Z","category":"AdvancedHunting-CloudAppEvents","properties":`+properties+`}`))
	}
	nested := func(object string) {
		add(`{"RawEventData":` + object + `}`)
		add(`{"ActivityObjects":[` + object + `]}`)
		add(`{"Unheard":` + object + `}`)
		add(`{"Unheard":[` + object + `]}`)
	}
	nested(`{"a":"x","b":{"c":1}}`)
	nested(`{"":"empty"}`)
	nested(`{" ":"blank"}`)
	nested(`{"a":{" \t":"blank"}}`)
	nested(`{"a. .b":"blank between dots"}`)
	nested(`{"a..b":"x",".":"x","..":"x",".a":"x","a.":"x"}`)
	nested(`{"\u2003":"em space","\u00a0":"no-break space","\u001c":"separator","\u0001":"control"}`)
	nested(`{"a\u0000b":"NUL"}`)
	nested(`{"` + strings.Repeat("k", 40_000) + `":"long name"}`)
	nested(`{"a":{"` + strings.Repeat("k", 20_000) + `":{"` + strings.Repeat("l", 20_000) + `":"long path"}}}`)
	nested(`{"text":"` + strings.Repeat("é", 40_000) + `"}`)
	nested(`{"a":"scalar first","a.b":"then object"}`)
	nested(`{"a":{"b":1}}`)
	for _, name := range []string{"_id", "_index", "_source", "_type", "_routing", "_ignored", "_field_names", "_doc_count",
		"_nested_path", "_seq_no", "_version", "_tier", "@timestamp", "__x", "_", ""} {
		add(`{"` + name + `":"metadata"}`)
		all = append(all, []byte(`{"category":"AdvancedHunting-X","`+name+`":"metadata","properties":{"A":1}}`))
		all = append(all, []byte(`{"VendorName":"x","SystemAlertId":"y","AlertType":"z","`+name+`":"metadata"}`))
	}
	add(`{"@timestamp":"x","event_id":"x","table":{"a":1},"unreadable_raw":{"a":1}}`)
	add(`{"Mixed":[{"a":1},"x",[1],null]}`)
	add(`{"Mixed":["x",{"a":1}]}`)
	add(`{"FileSize":"12","ProcessId":1.5,"RemotePort":"text","LocalPort":{"a":1},"UrlCount":[1,2],"ErrorCode":99999999999999999999}`)
	add(`{"Timestamp":"0001-01-01T00:00:00","AccountName":{"a":1},"DeviceName":[{"a":1}]}`)
	return all
}

// What is left: a column that Microsoft does not document (or documents as dynamic) may be text in
// one record and an object in another. An index that has seen the one refuses the other; what that
// costs is in TestReplies.
func TestUndocumentedColumnsMayClash(t *testing.T) {
	t.Parallel()
	x := &index{it: readTemplate(t, "elastic"), names: make(map[string]string)}
	var errs []error
	for _, doc := range records(t, []byte(`[{"category":"AdvancedHunting-X","properties":{"New":"text"}},{"category":"AdvancedHunting-X","properties":{"New":{"a":1}}}]`)) {
		errs = append(errs, x.add(decode(t, doc))...)
	}
	if len(errs) != 1 {
		t.Errorf("%d errors, want that New is of two kinds: %v", len(errs), errs)
	}
}

func decode(t *testing.T, doc []byte) (m map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

const object, scalar = "object", "scalar"

// An index is what a daily index becomes under a template: which names it has, and of which kind.
type index struct {
	it    indexTemplate
	names map[string]string // object or scalar
}

// add is the mapping of one document. The dynamic templates make fields of the first part of each
// name, and below DeviceInfo of the second. Everything deeper is in one field (Elasticsearch:
// flattened) or in none (OpenSearch).
func (x *index) add(doc map[string]any) (errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	kinds := make(map[string]string)
	note := func(name, kind string) {
		if before, ok := kinds[name]; ok && before != kind {
			fail("%s is %s and %s in one record", name, before, kind)
		}
		kinds[name] = kind
	}
	for name, value := range doc {
		parts := strings.Split(name, ".")
		if err := fitName(name); err != nil {
			fail("%w", err)
		}
		if strings.HasPrefix(name, "_") && strings.Trim(name, "_0123456789") != "" || name == "@timestamp" {
			fail("%s is a name of the index's own", name)
		}
		kind, err := kindOf(value)
		if err != nil {
			fail("%s: %w", name, err)
		}
		switch {
		case kind == "":
		case len(parts) == 1:
			note(name, kind)
		case parts[0] == "DeviceInfo" && len(parts) == 2:
			note(parts[0], object)
			note(name, kind)
		case parts[0] == "DeviceInfo":
			note(parts[0], object)
			note(parts[0]+"."+parts[1], object)
		default:
			note(parts[0], object)
		}
		if p := x.it.Template.Mappings.Properties[name]; p != nil && p["type"] == "long" {
			if n, ok := value.(json.Number); !ok || strings.ContainsAny(n.String(), ".eE") {
				fail("%s is a whole number in the template and %v in the record", name, value)
			}
		}
	}
	for name, kind := range kinds {
		if before, ok := x.names[name]; ok && before != kind {
			fail("%s was %s and is %s", name, before, kind)
			continue
		}
		x.names[name] = kind
	}
	return errs
}

// maxName is the greatest length of a name, in bytes. With a value of ignore_above characters it
// still makes a term that Lucene takes: 32,766 bytes.
const maxName = 32766 - 3*8000 - 1

func fitName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("name of %d bytes", len(name))
	}
	for part := range strings.SplitSeq(name, ".") {
		if strings.TrimFunc(part, func(r rune) bool { return r <= ' ' || unicode.IsSpace(r) }) == "" {
			return fmt.Errorf("%q has an empty part", name)
		}
	}
	if strings.Contains(name, "\x00") {
		return fmt.Errorf("%q has a NUL", name)
	}
	return nil
}

// kindOf is object, scalar or, for an empty list, neither.
func kindOf(value any) (kind string, err error) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			if err := fitName(name); err != nil {
				return object, err
			}
			if _, err := kindOf(inner); err != nil {
				// Below the first name any mixture is fine: it is no field of its own.
				if _, mixed := err.(mixedError); !mixed {
					return object, err
				}
			}
		}
		return object, nil
	case []any:
		for _, e := range v {
			k, err := kindOf(e)
			if err != nil {
				return k, err
			}
			if kind != "" && k != "" && k != kind {
				return kind, mixedError{}
			}
			kind = max(kind, k)
		}
		return kind, nil
	case nil:
		return "", nil
	default:
		return scalar, nil
	}
}

type mixedError struct{}

func (mixedError) Error() string { return "objects and scalars in one list" }

// No record may be one that an index refuses: Elasticsearch then loses it in silence, OpenSearch
// makes Fluent Bit send its chunk for ever (TestReplies).
func TestNothingIsRefused(t *testing.T) {
	t.Parallel()
	payloads := slices.Concat([][]byte{told()}, sampled(t), hostile())
	for _, name := range []string{"elastic", "opensearch"} {
		x := &index{it: readTemplate(t, name), names: make(map[string]string)}
		for property, p := range x.it.Template.Mappings.Properties {
			x.names[property] = scalar
			if p["type"] == object {
				x.names[property] = object
			}
		}
		n := 0
		for _, doc := range records(t, payloads...) {
			n++
			for _, err := range x.add(decode(t, doc)) {
				t.Errorf("%s: %.200v", name, err)
			}
		}
		if x.names["DeviceInfo.match"] == "" {
			t.Errorf("%s: no record has what is known of its device", name)
		}
		limit := int(x.it.Template.Settings["index.mapping.total_fields.limit"].(float64))
		t.Logf("%s: %d records make %d fields, limit %d", name, n, len(x.names), limit)
		// The documented columns are 739, each at most once more with _raw behind it: see
		// transform/columns.go.
		if len(x.names)*2 > limit {
			t.Errorf("%s: %d fields from %d records, too near to the limit of %d", name, len(x.names), n, limit)
		}
	}
}

// The templates say what the test above takes for granted.
func TestTemplates(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"elastic", "opensearch"} {
		m := readTemplate(t, name).Template.Mappings
		if m.DateDetection {
			t.Errorf("%s: with date detection, the first text that looks like a date decides for all others", name)
		}
		kinds := make(map[string]map[string]any)
		for _, named := range m.Templates {
			for _, dt := range named {
				kinds[dt.Match] = dt.Mapping
			}
		}
		for _, match := range []string{"string", "long", "double", "boolean"} {
			// 8000 characters are at most 24,000 bytes, and Lucene refuses a document over a term
			// of more than 32,766.
			if kinds[match]["type"] != "keyword" || kinds[match]["ignore_above"] != 8000.0 {
				t.Errorf("%s: a new name with a %s becomes %v", name, match, kinds[match])
			}
		}
		switch o := kinds[object]; name {
		case "elastic":
			if o["type"] != "flattened" || o["ignore_above"] != 8000.0 {
				t.Errorf("%s: nested names become %v", name, o)
			}
		case "opensearch": // flat_object refuses names with dots
			if o["type"] != object || o["dynamic"] != false {
				t.Errorf("%s: nested names become %v", name, o)
			}
		}
		for property, p := range m.Properties {
			if (p["type"] == "long" || p["type"] == "date") && p["ignore_malformed"] != true {
				t.Errorf("%s: a malformed %s would refuse the record", name, property)
			}
		}
	}
}
