package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// A shape has the places where a format keeps the values that the demo looks at. Paths have a dot
// between the names.
type shape struct {
	table  string // the table's name, or its category
	id     string // the event_id
	reason string // why a record is unreadable
	text   string // the field that holds Microsoft's record as JSON text; columns are looked up there
	// column has the paths where a column may be, %s for its name. The first that is there counts.
	column []string
	device string // the object, or the prefix, of the joined device
	names  map[string]string
}

// shapes has the shape of each format.
var shapes = map[string]shape{
	"flat": {table: "table", id: "event_id", reason: "unreadable_reason", column: []string{"%s"}, device: "DeviceInfo."},
	"raw": {table: "table", id: "event_id", reason: "unreadable_reason", text: "raw", column: []string{"properties.%s", "%s"},
		device: "DeviceInfo."},
	"splunk": {table: "category", id: "event_id", reason: "unreadable_reason", column: []string{"properties.%s", "%s"},
		device: "DeviceInfo."},
	"elastic": {table: "category", id: "event.hash", reason: "properties.unreadable_reason", text: "message",
		column: []string{"properties.%s", "%s"}, device: "m365_defender.device_info."},
	"ocsf": {table: "metadata.log_name", id: "metadata.uid", reason: "unmapped.unreadable_reason",
		column: []string{"unmapped.%s", "enrichments.0.data.%s"}, device: "enrichments.0.data.", names: map[string]string{
			"AlertId": "finding_info.uid", "Timestamp": "metadata.original_time", "ActionType": "metadata.event_code", "Title": "finding_info.title",
			"Severity": "severity", "EntityType": "evidences.0.name", "DeviceId": "device.uid|evidences.0.device.uid",
			"DeviceName": "device.hostname|src_endpoint.hostname", "Url": "url.url_string|http_request.url.url_string",
			"RecipientEmailAddress": "to.0", "Subject": "email.subject", "AccountUpn": "user.email_addr|actor.user.email_addr",
			"AccountDisplayName": "user.full_name|actor.user.name|user.name", "AccountObjectId": "user.uid_alt|user.uid|actor.user.uid",
			"FileName":           "file.name|process.file.name|module.file.name|evidences.0.file.name|evidences.0.process.file.name",
			"ProcessCommandLine": "process.cmd_line|evidences.0.process.cmd_line", "RemoteIP": "dst_endpoint.ip|evidences.0.dst_endpoint.ip",
			"RemoteUrl": "url.url_string|evidences.0.url.url_string", "RegistryValueName": "reg_value.name", "LogonType": "logon_type",
			"QueryTarget": "query.hostname|resources.0.name", "Application": "service.name|actor.app_name", "ObjectName": "file.name|resources.0.name",
			"OperationName": "api.operation", "OSPlatform": "device.os.name", "unreadable_raw": "unmapped.unreadable_raw",
		}},
	"ecs": {table: "m365_defender.event.category", id: "event.hash", reason: "m365_defender.event.unreadable.reason",
		column: []string{"m365_defender.event.%s"}, device: "m365_defender.device_info.", names: map[string]string{
			"StoryNumber": "m365_defender.event.story_number", "AlertId": "event.id", "Timestamp": "m365_defender.event.timestamp",
			"AccountDisplayName": "user.full_name", "AccountUpn": "user.email", "DeviceName": "host.name",
			"RecipientEmailAddress": "email.to.address", "EntityType": "m365_defender.event.entity_type",
			"ActionType": "m365_defender.event.action.type", "Title": "message", "Severity": "m365_defender.event.alert.severity",
			"DeviceId": "host.id", "AccountObjectId": "m365_defender.event.account.object_id", "Subject": "email.subject",
			"Url": "url.original", "QueryTarget": "m365_defender.event.query.target", "RegistryValueName": "registry.value",
			"RemoteUrl": "url.original", "RemoteIP": "destination.ip", "FileName": "file.name",
			"ProcessCommandLine": "process.command_line", "LogonType": "m365_defender.event.logon.type",
			"OSPlatform": "host.os.name", "NetworkAdapterType": "m365_defender.event.network.adapter_type",
			"Signer": "file.code_signature.subject_name", "ObjectName": "m365_defender.event.object.name",
			"Application": "application.name", "OperationName": "m365_defender.event.properties_operation_name",
			"unreadable_reason": "m365_defender.event.unreadable.reason", "unreadable_raw": "event.original",
		}},
}

// formats are the formats that the demo can show.
func formats() string {
	names := make([]string, 0, len(shapes))
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// A seen record is one that came out, with its shape.
type seen struct {
	shape shape
	value *fastjson.Value
	inner *fastjson.Value // Microsoft's record, where the shape keeps it as text
}

func (s shape) read(value *fastjson.Value) seen {
	r := seen{shape: s, value: value, inner: value}
	if s.text != "" {
		if inner, err := fastjson.ParseBytes(value.GetStringBytes(s.text)); err == nil {
			r.inner = inner
		}
	}
	return r
}

// at looks a path up. A name may have dots itself: the flat format joins names with them.
func at(v *fastjson.Value, path string) *fastjson.Value {
	if found := v.Get(path); found != nil {
		return found
	}
	for i := strings.IndexByte(path, '.'); i >= 0; {
		if inside := v.Get(path[:i]); inside != nil && (inside.Type() == fastjson.TypeObject || inside.Type() == fastjson.TypeArray) {
			return at(inside, path[i+1:])
		}
		next := strings.IndexByte(path[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return nil
}

// both looks a path up in an event, and then in Microsoft's record inside it.
func (r seen) both(path string) *fastjson.Value {
	if v := at(r.value, path); v != nil || r.inner == r.value {
		return v
	}
	return at(r.inner, path)
}

func text(v *fastjson.Value) string {
	switch {
	case v == nil, v.Type() == fastjson.TypeNull:
		return ""
	case v.Type() == fastjson.TypeString:
		return string(v.GetStringBytes())
	}
	return string(v.MarshalTo(nil))
}

// table is the name of the record's table, without a prefix, however often somebody put it there.
func (r seen) table() string { return withoutPrefix(text(r.both(r.shape.table))) }

func withoutPrefix(table string) string {
	for strings.HasPrefix(table, record.HuntingPrefix) {
		table = table[len(record.HuntingPrefix):]
	}
	return table
}

func (r seen) id() string       { return text(r.both(r.shape.id)) }
func (r seen) unreadable() bool { return text(r.both(r.shape.reason)) != "" }

// get is the text of a column, in any shape; "" where it is not there.
func (r seen) get(name string) string {
	for path := range strings.SplitSeq(r.shape.names[name], "|") { // the first that is there
		v := at(r.value, path)
		if v == nil && r.inner != r.value {
			v = at(r.inner, path)
		}
		if path == "" || v == nil {
			continue
		}
		if list := v.GetArray(); len(list) == 1 {
			v = list[0]
		}
		return text(v)
	}
	for _, column := range r.shape.column {
		if v := at(r.inner, fmt.Sprintf(column, name)); v != nil {
			return text(v)
		}
	}
	return ""
}

// number is the record's place in the story, or -1.
func (r seen) number() int64 {
	var n int64
	if _, err := fmt.Sscan(r.get("StoryNumber"), &n); err != nil {
		return -1
	}
	return n
}

// joined tells whether a device was joined onto the record.
func (r seen) joined() bool { return text(r.both(r.shape.device+"match")) != "" }

// A line is a field as a destination lists it: names of nested objects are joined with dots.
type line struct{ name, text string }

// lines are all fields of the record, in their order.
func (r seen) lines() []line { return appendLines(nil, "", r.value) }

func appendLines(lines []line, prefix string, v *fastjson.Value) []line {
	fields, err := v.Object()
	if err != nil {
		return append(lines, line{strings.TrimSuffix(prefix, "."), text(v)})
	}
	fields.Visit(func(key []byte, value *fastjson.Value) {
		lines = appendLines(lines, prefix+string(key)+".", value)
	})
	return lines
}
