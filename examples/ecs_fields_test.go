package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// allowed are the words that ECS has for these fields.
var allowed = map[string]string{
	"event.kind":     "alert asset enrichment event metric state pipeline_error signal",
	"event.category": "api authentication configuration database driver email file host iam intrusion_detection library malware network package process registry session threat vulnerability web",
	"event.type":     "access admin allowed change connection creation deletion denied device end error group indicator info installation protocol start user",
	"event.outcome":  "failure success unknown",
	"host.os.type":   "linux macos unix windows ios android",
}

// Every field has a value of its type, and every word of event.* is one of ECS. Nothing is empty,
// and no name comes twice. This holds for the demo, the samples, the hostile list, and a record of
// each detection.
func TestECSFields(t *testing.T) {
	t.Parallel()
	types := ecsTypes(t)
	payloads := slices.Concat([][]byte{told()}, sampled(t), hostile())
	for _, d := range detections {
		payloads = append(payloads, d.record())
	}
	seen := make(map[string]bool)
	for _, doc := range recordsIn(t, "ecs", payloads...) {
		if twice := repeatedKey(doc); twice != "" {
			t.Errorf("%s comes twice in %.300s", twice, doc)
		}
		checkECS(t, "", decode(t, doc), types, seen)
	}
	for _, name := range []string{"host.os.type", "process.args", "registry.path", "destination.ip", "dns.question.name", "file.extension",
		"threat.technique.id", "email.from.address", "user.id", "m365_defender.device_info.match"} {
		if !seen[name] {
			t.Errorf("no record has %s", name)
		}
	}
}

func checkECS(t *testing.T, name string, value any, types map[string]string, seen map[string]bool) {
	t.Helper()
	if object, ok := value.(map[string]any); ok && types[name] != "flattened" && types[name] != "object" {
		if len(object) == 0 || types[name] != "" {
			t.Errorf("%s is an object: %.300v", name, value)
		}
		for key, inner := range object {
			path := strings.TrimPrefix(name+"."+key, ".")
			typ, known := types[path]
			seen[path] = true
			if _, isObject := inner.(map[string]any); !known && (!isObject || strings.HasSuffix(key, "_object")) {
				if !strings.HasPrefix(path, "m365_defender.event.") && !strings.HasPrefix(path, "m365_defender.device_info.") {
					t.Errorf("%s is no field: %.300v", path, inner)
				}
				continue
			}
			if known && typ != "flattened" && typ != "object" {
				for _, v := range asList(inner) {
					if err := fitType(path, typ, v); err != nil {
						t.Error(err)
					}
				}
				continue
			}
			checkECS(t, path, inner, types, seen)
		}
	}
}

func asList(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

var ecsDate = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$`)

func fitType(name, typ string, v any) error {
	bad := fmt.Errorf("%s (%s) is %.200v", name, typ, v)
	text, isText := v.(string)
	switch typ {
	case "long":
		n, ok := v.(json.Number)
		if _, err := n.Int64(); !ok || err != nil {
			return bad
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return bad
		}
	case "ip":
		if ip, err := netip.ParseAddr(text); err != nil || ip.Zone() != "" {
			return bad
		}
	case "date":
		if !ecsDate.MatchString(text) || strings.HasPrefix(text, "0001") {
			return bad
		}
		if _, err := time.Parse("2006-01-02", text[:10]); err != nil {
			return bad
		}
	default:
		if strings.HasPrefix(name, "m365_defender.event.") {
			switch v.(type) {
			case map[string]any, []any:
				return bad
			}
			return nil // a keyword takes any scalar
		}
		if !isText || text == "" {
			return bad
		}
		if words, ok := allowed[name]; ok && !slices.Contains(strings.Fields(words), text) {
			return bad
		}
	}
	return nil
}

// repeatedKey returns a name that an object has twice, "" for none.
func repeatedKey(doc []byte) string {
	d := json.NewDecoder(bytes.NewReader(doc))
	var open []map[string]bool // nil for a list
	key := true
	for {
		tok, err := d.Token()
		if err != nil {
			return ""
		}
		switch v := tok.(type) {
		case json.Delim:
			switch v {
			case '{':
				open, key = append(open, map[string]bool{}), true
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
				key = true
			}
			continue
		case string:
			if names := open[len(open)-1]; names != nil && key {
				if names[v] {
					return v
				}
				names[v] = true
				key = false
				continue
			}
		}
		key = true
	}
}

// No value is lost: each that is not empty is somewhere in the event. Of JSON in a string, all
// values inside are there.
func TestECSLosesNothing(t *testing.T) {
	t.Parallel()
	payloads := append(sampled(t), told())
	for _, d := range detections {
		payloads = append(payloads, d.record())
	}
	n := 0
	for _, payload := range payloads {
		for _, record := range rawRecords(payload) {
			if !utf8.Valid(record) {
				continue // what is no text is written as the escape that shows it
			}
			docs := recordsIn(t, "ecs", record)
			if len(docs) != 1 || bytes.Contains(docs[0], []byte(`"pipeline_error"`)) {
				continue // TestGolden has those that cannot be read
			}
			n++
			there := make(map[string]bool)
			eachLeaf(decode(t, docs[0]), func(text string) { there[text] = true })
			var value any
			d := json.NewDecoder(bytes.NewReader(record))
			d.UseNumber()
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
			eachLeaf(value, func(text string) {
				if !kept(text, there) {
					t.Errorf("%.200q is lost: %.300s", text, record)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
	if n < 4000 {
		t.Errorf("only %d records", n)
	}
}

// rawRecords are the records of an envelope of strict JSON, or the one record that a payload is.
func rawRecords(payload []byte) [][]byte {
	var envelope struct {
		Records  []json.RawMessage `json:"records"`
		Category string            `json:"category"`
		Props    json.RawMessage   `json:"properties"`
	}
	if json.Unmarshal(payload, &envelope) != nil {
		return nil
	}
	if len(envelope.Records) == 0 {
		if !strings.HasPrefix(envelope.Category, "AdvancedHunting-") || !bytes.HasPrefix(bytes.TrimSpace(envelope.Props), []byte("{")) {
			return nil
		}
		return [][]byte{payload}
	}
	var all [][]byte
	for _, r := range envelope.Records {
		all = append(all, r)
	}
	return all
}

func kept(text string, there map[string]bool) bool {
	if text == "" || there[text] {
		return true
	}
	var inner any
	text = strings.TrimSpace(text)
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if (strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")) && d.Decode(&inner) == nil {
		all := true
		eachLeaf(inner, func(leaf string) { all = all && kept(leaf, there) })
		return all
	}
	return text == "null"
}

func eachLeaf(v any, do func(text string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if key != "$id" && key != "$ref" {
				eachLeaf(inner, do)
			}
		}
	case []any:
		for _, inner := range v {
			eachLeaf(inner, do)
		}
	case nil:
	default:
		do(fmt.Sprint(v))
	}
}
