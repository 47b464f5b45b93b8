package examples_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A shapeExample is a configuration in a format of a customer's content.
type shapeExample struct {
	target
	file, guide string
}

var shapeExamples = []shapeExample{
	{target{"add-on", "port: ${SPLUNK_PORT:-8088}", "- name: splunk", []string{"SPLUNK_HOST=127.0.0.1", "SPLUNK_TOKEN=" + splunkToken}}, "splunk/add-on.yaml", "splunk/add-on.md"},
	{target{"integration", "port: ${ELASTIC_PORT:-9200}", "- name: es", []string{"ELASTIC_HOST=127.0.0.1", "ELASTIC_PASSWORD=" + bulkPass}}, "elastic/integration.yaml", "elastic/integration.md"},
}

// members lists the names of an object's members in their order, and their texts.
func members(object json.RawMessage) (names []string, values map[string]json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, nil, fmt.Errorf("no object: %.100s", object)
	}
	values = make(map[string]json.RawMessage)
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, nil, err
		}
		name := tok.(string)
		if _, twice := values[name]; twice {
			return nil, nil, fmt.Errorf("%s is there twice", name)
		}
		names = append(names, name)
		values[name] = v
	}
	return names, values, nil
}

// parseAddOn reads what the add-on must get: its sourcetype, the envelope, DeviceInfo, then the
// columns, long values last.
func parseAddOn(r *http.Request, body []byte) ([]document, error) {
	if r.URL.Path != "/services/collector/event" || r.Header.Get("Authorization") != "Splunk "+splunkToken {
		return nil, fmt.Errorf("%s, Authorization %q", r.URL.Path, r.Header.Get("Authorization"))
	}
	var docs []document
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	for {
		var e hecEvent
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("event %d: %w", len(docs), err)
		}
		names, values, err := members(e.Event)
		if err != nil {
			return nil, err
		}
		columns, properties, err := members(values["properties"])
		if err != nil {
			return nil, err
		}
		host := "null"
		if e.Host != nil {
			host = `"` + *e.Host + `"`
		}
		name := cmpOr(string(properties["DeviceName"]), "null")
		var category string
		if err := json.Unmarshal(values["category"], &category); err != nil {
			return nil, err
		}
		switch {
		case e.Sourcetype != "mscs:azure:eventhub:defender:advancedhunting" || e.Index != "defender" || len(e.Fields) > 0:
			return nil, fmt.Errorf("sourcetype %q, index %q, indexed fields %v", e.Sourcetype, e.Index, e.Fields)
		case e.Source != category || !strings.HasPrefix(category, "AdvancedHunting-"):
			return nil, fmt.Errorf("source %q of category %q", e.Source, category)
		case host != name:
			return nil, fmt.Errorf("host %s of DeviceName %s", host, name)
		case names[0] != "event_id" || names[len(names)-1] != "properties":
			return nil, fmt.Errorf("members %v", names)
		case e.Time == "":
			return nil, errors.New("no time")
		}
		for i, c := range columns {
			if v := properties[c]; len(v) > 400 && i < len(columns)-1 && len(properties[columns[i+1]]) < 200 {
				return nil, fmt.Errorf("%s, of %d bytes, comes before %s", c, len(v), columns[i+1])
			}
		}
		var id string
		if err := json.Unmarshal(values["event_id"], &id); err != nil || !eventID.MatchString(id) {
			return nil, fmt.Errorf("event_id %s", values["event_id"])
		}
		docs = append(docs, document{id: id, source: e.Event, hec: e})
	}
	return docs, nil
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// parseCreate reads what a data stream must get: creates without an id, one @timestamp, Microsoft's
// record as text.
func parseCreate(r *http.Request, body []byte) ([]document, error) {
	if r.URL.Path != "/_bulk" || r.URL.RawQuery != "" { // no pipeline: the data stream has its own
		return nil, fmt.Errorf("asked for %s", r.URL)
	}
	lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	var docs []document
	for i := 0; i+1 < len(lines); i += 2 {
		var action map[string]map[string]string
		if err := json.Unmarshal(lines[i], &action); err != nil {
			return nil, fmt.Errorf("action %s: %w", lines[i], err)
		}
		if create := action["create"]; len(action) != 1 || len(create) != 1 || create["_index"] != "logs-m365_defender.event-default" {
			return nil, fmt.Errorf("action %s", lines[i])
		}
		_, values, err := members(lines[i+1]) // which refuses a second @timestamp
		if err != nil {
			return nil, fmt.Errorf("document: %w", err)
		}
		var message string
		var event struct{ Hash string }
		if err := errors.Join(json.Unmarshal(values["message"], &message), json.Unmarshal(values["event"], &event)); err != nil {
			return nil, err
		}
		var record struct{ Properties json.RawMessage }
		if err := json.Unmarshal([]byte(message), &record); err != nil || len(record.Properties) == 0 {
			return nil, fmt.Errorf("message %.200s", message)
		}
		if values["@timestamp"] == nil || !eventID.MatchString(event.Hash) {
			return nil, fmt.Errorf("document %.300s", lines[i+1])
		}
		docs = append(docs, document{id: event.Hash, source: json.RawMessage(message)})
	}
	return docs, nil
}

// From the hub to a SIEM that looks at the bytes, in a real Fluent Bit: each format for a
// customer's content, with its example.
func TestShapesEndToEnd(t *testing.T) {
	t.Parallel()
	binary, library := fluentBit(t), plugin(t)
	for _, e := range shapeExamples {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			const n = 600
			hub := startHub(t, n)
			dir := t.TempDir()
			s := newSIEM(t, e.name)
			config := e.local(t, service(t, section(t, example(t, e.file), dir, library, hub), dir), s)
			p := start(t, binary, dir, config, append(e.env, "EVENTHUB_CONNECTION_STRING="+hub.ConnectionString())...)
			p.until("every event is there", func() bool { _, taken := s.count(); return taken >= n })
			p.stop()
			s.mu.Lock()
			defer s.mu.Unlock()
			numbers := make(map[int64]bool)
			for _, d := range s.taken {
				var record struct {
					Properties struct{ StoryNumber int64 }
				}
				if err := json.Unmarshal(d.source, &record); err != nil {
					t.Fatal(err)
				}
				numbers[record.Properties.StoryNumber] = true
			}
			if len(numbers) != n {
				t.Errorf("%d different records, want %d", len(numbers), n)
			}
		})
	}
}

// The examples in other shapes are those of the SIEM but for the format and the output's keys, and
// each guide fills in two values.
func TestShapeExamples(t *testing.T) {
	t.Parallel()
	for _, e := range shapeExamples {
		base := strings.Split(e.file, "/")[0] + "/fluent-bit.yaml"
		_, want, _ := strings.Cut(example(t, base), "\nservice:\n")
		_, got, _ := strings.Cut(example(t, e.file), "\nservice:\n")
		want, _, _ = strings.Cut(want, "  outputs:\n")
		got, _, _ = strings.Cut(got, "  outputs:\n")
		if format := regexp.MustCompile(`      format: .*\n`); format.FindString(got) == "" || format.ReplaceAllString(got, "") != want {
			t.Errorf("%s differs from %s in more than its format", e.file, base)
		}
		needed, _ := values(example(t, e.file))
		guide := example(t, e.guide)
		var set []string
		for _, m := range regexp.MustCompile(`(?m)^ *export ([A-Z_]+)=`).FindAllStringSubmatch(guide, -1) {
			set = append(set, m[1])
		}
		if len(set) != 2 || !slices.Equal(slices.Sorted(slices.Values(append([]string{"EVENTHUB_CONNECTION_STRING"}, set...))), needed) {
			t.Errorf("%s fills in %v of %v", e.guide, set, needed)
		}
	}
}
