package examples_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var writeTemplates = flag.Bool("write-templates", false, "write the index templates of format: ecs from its tables")

// The index templates of format: ecs are made from the two tables that the format writes by:
// transform/format/ecs_fields.txt and ecs_columns.txt. So each field has the type of the values
// that are written.
func TestECSTemplates(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"elastic/ecs-template.json":                   ecsTemplate(t, "elastic"),
		"elastic/ecs-component.json":                  ecsComponent(t),
		"opensearch/ecs-template.json":                ecsTemplate(t, "opensearch"),
		"opensearch/security-analytics-mappings.json": ecsAliases(t),
	} {
		if *writeTemplates {
			if err := os.WriteFile(name, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if example(t, name) != string(text) {
			t.Errorf("%s is not what its tables say: go test ./examples -run TestECSTemplates -write-templates", name)
		}
	}
}

// ecsTypes returns the index type of every field that the format knows.
func ecsTypes(t *testing.T) map[string]string {
	t.Helper()
	types := make(map[string]string)
	for _, name := range []string{"ecs_fields.txt", "ecs_columns.txt"} {
		text, err := os.ReadFile("../transform/format/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			w := strings.Fields(line)
			switch {
			case len(w) == 0 || w[0] == "#":
			case name == "ecs_fields.txt":
				types[w[0]] = w[1]
			default:
				typ := "keyword"
				if len(w) > 2 {
					typ = w[2]
				}
				field := "m365_defender.event." + w[1]
				types[field] = typ
				if typ != "keyword" {
					types[field+"_raw"] = "keyword"
				}
			}
		}
	}
	for field, typ := range map[string]string{
		"category": "keyword", "tenant.id": "keyword", "tenant.name": "keyword", "operation_name": "keyword", "time": "date", "time_raw": "keyword",
		"time_received_by_svc": "date", "time_received_by_svc_raw": "keyword", "repaired_text": "long", "severity": "keyword", "authentication_details_object": "flattened",
		"unreadable.reason": "keyword", "unreadable.encoding": "keyword", "unreadable.lane": "keyword", "unreadable.offset": "long",
		"unreadable.at": "long", "unreadable.part": "long", "unreadable.parts": "long",
	} {
		types["m365_defender.event."+field] = typ
	}
	return types
}

// caseless are the fields that have a second form in lower case, which some rules ask for.
var caseless = []string{
	"process.name", "process.executable", "process.command_line", "process.parent.name", "process.parent.executable", "process.parent.command_line",
}

// sigma are the names of Sigma's rules for Windows, which OpenSearch's Security Analytics looks
// for, and the fields that they are.
var sigma = map[string]string{
	"Image": "process.executable", "CommandLine": "process.command_line", "ParentImage": "process.parent.executable",
	"ParentCommandLine": "process.parent.command_line", "OriginalFileName": "process.pe.original_file_name", "Description": "process.pe.description",
	"Product": "process.pe.product", "Company": "process.pe.company", "FileVersion": "process.pe.file_version", "User": "user.name",
	"IntegrityLevel": "process.Ext.token.integrity_level_name", "CurrentDirectory": "process.working_directory", "ProcessId": "process.pid",
	"ParentProcessId": "process.parent.pid", "TargetFilename": "file.path", "TargetObject": "registry.path", "Details": "registry.data.strings",
	"ImageLoaded": "dll.path", "DestinationIp": "destination.ip", "DestinationPort": "destination.port", "DestinationHostname": "destination.domain",
	"SourceIp": "source.ip", "SourcePort": "source.port", "QueryName": "dns.question.name", "md5": "process.hash.md5", "sha1": "process.hash.sha1",
	"sha256": "process.hash.sha256", "EventType": "winlog.event_data.EventType", "Computer": "host.name",
}

func ecsField(kind, name, typ string) map[string]any {
	field := map[string]any{"type": typ}
	switch typ {
	case "keyword":
		field["ignore_above"] = 1024
	case "wildcard":
		if kind == "opensearch" {
			field["type"], field["ignore_above"] = "keyword", 8000 // its wildcard type cannot be what an alias leads to
		}
	case "match_only_text":
		if kind == "opensearch" {
			field["type"] = "text"
		}
	case "flattened":
		if kind == "opensearch" {
			field["type"] = "flat_object"
		} else {
			field["ignore_above"] = 8000 // at most 24,000 bytes: Lucene refuses a term of more than 32,766
		}
	case "long", "date", "ip", "boolean":
		field["ignore_malformed"] = true
		if typ == "boolean" {
			delete(field, "ignore_malformed")
		}
	case "object":
		return map[string]any{"properties": map[string]any{
			"data": map[string]any{"type": "keyword", "ignore_above": 1024}, "ttl": map[string]any{"type": "long", "ignore_malformed": true},
		}}
	}
	switch {
	case name == "event.original":
		field = map[string]any{"type": "keyword", "index": false, "doc_values": false}
		if kind == "elastic" {
			field["ignore_above"] = 8000
		}
	case name == "event.module" && kind == "elastic":
		field = map[string]any{"type": "constant_keyword", "value": "m365_defender"}
	case name == "event.dataset" && kind == "elastic":
		field = map[string]any{"type": "constant_keyword", "value": "m365_defender.event"}
	case kind == "elastic" && slices.Contains(caseless, name):
		field["fields"] = map[string]any{"caseless": map[string]any{"type": "keyword", "ignore_above": 1024, "normalizer": "lowercase"}}
	}
	return field
}

// put puts a field into a tree of properties.
func put(properties map[string]any, name string, field map[string]any) {
	parts := strings.Split(name, ".")
	for _, part := range parts[:len(parts)-1] {
		object, ok := properties[part].(map[string]any)
		if !ok {
			object = map[string]any{"properties": map[string]any{}}
			properties[part] = object
		}
		properties = object["properties"].(map[string]any)
	}
	properties[parts[len(parts)-1]] = field
}

// ecsDynamic is what becomes of names that are not in the tables.
func ecsDynamic(kind string) []any {
	object := ecsField(kind, "", "flattened")
	text := map[string]any{"type": "keyword", "ignore_above": 8000}
	rule := func(name, match string, mapping map[string]any) map[string]any {
		return map[string]any{name: map[string]any{"path_match": "m365_defender.*", "match_mapping_type": match, "mapping": mapping}}
	}
	return []any{rule("objects", "object", object), rule("texts", "string", text), rule("whole_numbers", "long", text),
		rule("fractions", "double", text), rule("switches", "boolean", text)}
}

func ecsProperties(t *testing.T, kind string) map[string]any {
	properties := make(map[string]any)
	types := ecsTypes(t)
	for _, name := range slices.Sorted(maps.Keys(types)) {
		put(properties, name, ecsField(kind, name, types[name]))
	}
	put(properties, "@timestamp", map[string]any{"type": "date"})
	deviceInfo := properties["m365_defender"].(map[string]any)["properties"].(map[string]any)["device_info"].(map[string]any)
	deviceInfo["dynamic"] = true
	return properties
}

func ecsTemplate(t *testing.T, kind string) []byte {
	properties := ecsProperties(t, kind)
	settings := map[string]any{"index.mapping.total_fields.limit": 3000, "index.mapping.ignore_malformed": true}
	template := map[string]any{"priority": 220}
	if kind == "elastic" {
		template["index_patterns"] = []string{"logs-m365_defender.event-*"}
		template["data_stream"] = map[string]any{}
		settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = true
		put(properties, "data_stream.type", map[string]any{"type": "constant_keyword", "value": "logs"})
		put(properties, "data_stream.dataset", map[string]any{"type": "constant_keyword", "value": "m365_defender.event"})
		put(properties, "data_stream.namespace", map[string]any{"type": "constant_keyword"})
	} else {
		template["index_patterns"] = []string{"defender-ecs-*"}
		settings["index.number_of_shards"] = 1
		for name, field := range sigma {
			put(properties, name, map[string]any{"type": "alias", "path": field})
		}
	}
	template["template"] = map[string]any{
		"settings": settings,
		"mappings": map[string]any{
			"date_detection": false, "numeric_detection": false, "dynamic": true, "dynamic_templates": ecsDynamic(kind), "properties": properties,
		},
	}
	return asText(t, template)
}

// ecsComponent is what the template of Elastic's integration lacks: the names that are ours alone.
func ecsComponent(t *testing.T) []byte {
	text, err := os.ReadFile("../transform/format/ecs_columns.txt")
	if err != nil {
		t.Fatal(err)
	}
	properties := make(map[string]any)
	types := ecsTypes(t)
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) == 0 || w[0] == "#" {
			continue
		}
		name := "m365_defender.event." + w[1]
		if raw := name + "_raw"; types[raw] != "" {
			put(properties, raw, ecsField("elastic", raw, "keyword"))
		}
	}
	put(properties, "m365_defender.event.authentication_details_object", ecsField("elastic", "", "flattened"))
	put(properties, "winlog.event_data.EventType", ecsField("elastic", "", "keyword"))
	put(properties, "m365_defender.device_info.match", ecsField("elastic", "", "keyword"))
	put(properties, "m365_defender.device_info.status", ecsField("elastic", "", "keyword"))
	return asText(t, map[string]any{"template": map[string]any{
		"settings": map[string]any{"index.mapping.total_fields.limit": 3000, "index.mapping.ignore_malformed": true},
		"mappings": map[string]any{"dynamic_templates": ecsDynamic("elastic"), "properties": properties},
	}})
}

// ecsAliases is the body of the request that tells Security Analytics which field is which name of
// Sigma.
func ecsAliases(t *testing.T) []byte {
	properties := make(map[string]any)
	for name, field := range sigma {
		properties[name] = map[string]any{"type": "alias", "path": field}
	}
	return asText(t, map[string]any{
		"index_name": "defender-ecs-*", "rule_topic": "windows", "partial": true, "alias_mappings": map[string]any{"properties": properties},
	})
}

func asText(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	// A field that is a few words is one line.
	text := compactLeaves(b.String())
	if !json.Valid([]byte(text)) {
		t.Fatal(fmt.Errorf("no JSON: %.300s", text))
	}
	return []byte(text)
}

// compactLeaves puts objects and lists without objects in them on one line.
func compactLeaves(text string) string {
	var out strings.Builder
	for rest := text; ; {
		open := strings.IndexAny(rest, "{[")
		if open < 0 {
			out.WriteString(rest)
			return out.String()
		}
		next := strings.IndexAny(rest[open+1:], "{}[]") // no text in these files has such a sign
		end := open + 1 + next
		if rest[end] == '{' || rest[end] == '[' {
			out.WriteString(rest[:open+1])
			rest = rest[open+1:]
			continue
		}
		out.WriteString(rest[:open+1])
		out.WriteString(strings.Join(strings.Fields(rest[open+1:end]), " "))
		out.WriteByte(rest[end])
		rest = rest[end+1:]
	}
}
