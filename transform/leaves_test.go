package transform_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// The transformer's rules, written again and plainly, over encoding/json's trees: the name and the
// text of each leaf of a record. It knows nothing of how the transformer works.

// A leaf is a value that is not empty, under the name it should have.
type leaf struct{ name, text string }

// keyValue keeps the order of members and those that are there twice, which a map does not.
type keyValue struct {
	key   string
	value any
}

// decodeOrdered decodes JSON into []keyValue, []any, string, json.Number, bool and nil.
func decodeOrdered(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		object := []keyValue{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeOrdered(d)
			if err != nil {
				return nil, err
			}
			object = append(object, keyValue{k.(string), v})
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := decodeOrdered(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return tok, nil
}

func decodeText(s string) (any, bool) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	v, err := decodeOrdered(d)
	if err != nil {
		return nil, false
	}
	_, err = d.Token()
	return v, err == io.EOF
}

// inputLeaves lists the leaves of a value. JSON columns are opened where text is the column's text
// and not a leaf.
func inputLeaves(out []leaf, name string, v any) []leaf {
	join := func(k string) string {
		if k == "" {
			k = "_"
		}
		k = strings.ReplaceAll(k, ".", "_")
		if name == "" {
			return k
		}
		return name + "." + k
	}
	switch v := v.(type) {
	case nil:
	case string:
		if v != "" {
			out = append(out, leaf{name, v})
		}
	case json.Number:
		out = append(out, leaf{name, v.String()})
	case bool:
		out = append(out, leaf{name, strconv.FormatBool(v)})
	case []any:
		for _, e := range v {
			out = inputLeaves(out, name+"[]", e)
		}
	case []keyValue:
		for _, m := range v {
			if m.key == "$id" || m.key == "$ref" {
				continue
			}
			out = inputLeaves(out, join(m.key), m.value)
		}
	}
	return out
}

// outputLeaves lists the leaves of an event in the same way. Elements of lists are flat maps with
// names of their own.
func outputLeaves(out []leaf, name string, v any) []leaf {
	switch v := v.(type) {
	case nil:
	case string:
		out = append(out, leaf{name, v})
	case int64:
		out = append(out, leaf{name, strconv.FormatInt(v, 10)})
	case float64:
		out = append(out, leaf{name, strconv.FormatFloat(v, 'g', -1, 64)})
	case bool:
		out = append(out, leaf{name, strconv.FormatBool(v)})
	case []any:
		for _, e := range v {
			out = outputLeaves(out, name+"[]", e)
		}
	case map[string]any:
		for k, e := range v {
			if name == "" {
				out = outputLeaves(out, k, e)
			} else {
				out = outputLeaves(out, name+"."+k, e)
			}
		}
	}
	return out
}

func sameText(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && x == y && strings.ContainsAny(a+b, ".eE") // 1.50 and 1.5
}

// jsonColumns are those that are known to hold JSON in a string.
var jsonColumns = strings.Fields("AdditionalFields Categories AttackTechniques LoggedOnUsers IPAddresses DnsAddresses DefaultGateways ConnectedNetworks CrlDistributionPointUrls " +
	"AuthenticationDetails ConfidenceLevel DetectionMethods UrlChain DataSources")

// checkRecord finds every leaf of a record in its event, and nothing in the event that is not in
// the record.
func checkRecord(t testing.TB, record []keyValue, e event) {
	t.Helper()
	var want []leaf
	for _, m := range record {
		switch text, _ := m.value.(string); m.key {
		case "time":
			want = append(want, leaf{"exported_at", text})
		case "tenantId":
			want = append(want, leaf{"tenant_id", text})
		case "_TimeReceivedBySvc":
			want = append(want, leaf{"received_at", text})
		case "category":
			want = append(want, leaf{"table", strings.TrimPrefix(text, "AdvancedHunting-")})
		case "operationName", "Tenant":
		case "properties":
			for _, c := range m.value.([]keyValue) {
				if s, ok := c.value.(string); ok && slices.Contains(jsonColumns, c.key) {
					if v, ok := decodeText(s); ok {
						c.value = v
					}
				}
				want = inputLeaves(want, strings.ReplaceAll(c.key, ".", "_"), c.value)
			}
		default:
			t.Fatalf("unexpected member %s", m.key)
		}
	}
	got := map[string][]string{}
	n := 0
	for _, l := range outputLeaves(nil, "", e.m) {
		if l.name == "event_id" {
			continue
		}
		got[l.name] = append(got[l.name], l.text)
		n++
	}
	for _, l := range want {
		if l.text == "" {
			continue
		}
		found := -1
		name := l.name
		for _, name = range []string{l.name, l.name + "_raw"} {
			if found = slices.IndexFunc(got[name], func(s string) bool { return sameText(s, l.text) || asBool(name, e, l.text) == s }); found >= 0 {
				break
			}
		}
		if found < 0 {
			t.Errorf("%s: %s = %q is not in the event, which has %q", e.table, l.name, l.text, got[l.name])
			continue
		}
		got[name] = slices.Delete(got[name], found, found+1)
		n--
	}
	if n != 0 {
		t.Errorf("%s: the event has more than the record: %v", e.table, got)
	}
}

// asBool is what a boolean column says for 0 and 1.
func asBool(name string, e event, text string) string {
	if _, ok := e.m[name].(bool); !ok {
		return text
	}
	return map[string]string{"0": "false", "1": "true"}[text]
}

// records lists the records of a payload, in the way of encoding/json.
func recordsOf(t testing.TB, b []byte) (records [][]keyValue) {
	t.Helper()
	var add func(v any)
	add = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				add(e)
			}
		case []keyValue:
			if len(v) > 0 && v[0].key == "records" {
				add(v[0].value)
				return
			}
			records = append(records, v)
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	for {
		v, err := decodeOrdered(d)
		if err != nil {
			return records
		}
		add(v)
	}
}

// Every leaf of every invented record, and of every sample where they are.
func TestEveryLeafArrives(t *testing.T) {
	check := func(name string, body []byte, wantRecords int) {
		records := recordsOf(t, body)
		if wantRecords >= 0 && len(records) != wantRecords {
			t.Fatalf("%s: %d records, want %d", name, len(records), wantRecords)
		}
		var events []event
		for _, e := range run(t, transform.New(transform.Config{EventID: true}), string(body)) {
			if e.table != transform.Unreadable {
				events = append(events, e)
			}
		}
		if len(events) != len(records) {
			t.Fatalf("%s: %d events from %d records", name, len(events), len(records))
		}
		for i := range records {
			checkRecord(t, records[i], events[i])
			if t.Failed() {
				t.Fatalf("%s: record %d", name, i)
			}
		}
	}
	check("invented", envelope(100), 100)

	// What peers keep of Defender's own exports. The other folders have inputs of many forms, with
	// tests of their own.
	peers := []string{"derived", "google", "panther", "sekoia", "splunk", "tenzir"}
	samples := 0
	root := filepath.Join("..", "..", "shared", "samples")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains(peers, strings.Split(path, string(filepath.Separator))[4]) ||
			strings.Contains(path, "sekoia"+string(filepath.Separator)+"tests") || filepath.Ext(path) == ".md" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		check(path, b, -1)
		samples++
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	t.Logf("%d files of samples", samples)
}

// The samples' raw messages, as a peer's tests keep them: spaced envelopes and pretty-printed ones
// among them.
func TestSampleMessages(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join("..", "..", "shared", "samples", "sekoia", "tests", "*.json"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var sample struct{ Input struct{ Message string } }
		if err := json.Unmarshal(b, &sample); err != nil {
			t.Fatal(err)
		}
		records := recordsOf(t, []byte(sample.Input.Message))
		events := run(t, transform.New(transform.Config{}), sample.Input.Message)
		if len(records) != 1 || len(events) != 1 {
			t.Fatalf("%s: %d records, %d events", file, len(records), len(events))
		}
		checkRecord(t, records[0], events[0])
	}
	if len(files) > 0 {
		t.Log(fmt.Sprint(len(files), " messages"))
	}
}
