package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// maxInside is how many lists or wrappings inside each other the plugin opens.
const maxInside = 3

// packed reports whether a message is gzip or UTF-16: bytes that no line or value can be cut from.
func packed(b []byte) bool {
	return len(b) > 18 && b[0] == 0x1f && b[1] == 0x8b || len(b) >= 4 && (b[0] == 0xff && b[1] == 0xfe || b[0] == 0xfe && b[1] == 0xff)
}

// unpack returns the text of a message that is packed, and any other as it is.
func unpack(b []byte) []byte {
	switch {
	case !packed(b):
		return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	case b[0] == 0x1f:
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return b
		}
		text, err := io.ReadAll(io.LimitReader(z, 16*maxMessageBytes))
		if err != nil {
			return b
		}
		return text
	}
	units := make([]uint16, 0, len(b)/2)
	low, high := 0, 1
	if b[0] == 0xfe {
		low, high = 1, 0
	}
	for i := 2; i+1 < len(b); i += 2 {
		units = append(units, uint16(b[i+low])|uint16(b[i+high])<<8)
	}
	return []byte(string(utf16.Decode(units)))
}

// count adds the records of a message to those that must come out, and returns 1 if it is no
// JSON.
func (f *feed) count(body []byte) (damaged int) {
	values, ok := split(unpack(body))
	if !ok {
		return 1
	}
	for _, v := range values {
		if list := elements(v); list != nil && opens(v, maxInside) {
			f.countList(list, 1, 0)
		} else {
			f.countValue(v, 0, 0)
		}
	}
	return 0
}

func (f *feed) countList(list []json.RawMessage, lists, wraps int) {
	for _, v := range list {
		f.countValue(v, lists, wraps)
	}
}

// countValue counts a value that stands where a record should, inside so many lists and wrappings.
func (f *feed) countValue(v json.RawMessage, lists, wraps int) {
	switch v = bytes.TrimSpace(v); v[0] {
	case '{':
		f.countObject(v, lists, wraps)
	case '[':
		if lists < maxInside && opens(v, maxInside-lists) {
			f.countList(elements(v), lists+1, wraps)
		} else {
			f.records[unreadable]++
		}
	case '"':
		if !f.countInside(v, wraps) {
			f.records[unreadable]++
		}
	default:
		f.records[unreadable]++
	}
}

// countInside counts the records in a string that is JSON text, and returns false for another.
func (f *feed) countInside(v json.RawMessage, wraps int) bool {
	var text string
	if wraps >= maxInside || json.Unmarshal(v, &text) != nil {
		return false
	}
	inner := json.RawMessage(strings.TrimSpace(text))
	if len(inner) == 0 || !json.Valid(inner) {
		return false
	}
	switch inner[0] {
	case '{':
		f.countObject(inner, 0, wraps+1)
	case '[':
		if !opens(inner, maxInside+1) {
			return false
		}
		f.countList(elements(inner), 1, wraps+1)
	case '"':
		return f.countInside(inner, wraps+1)
	default:
		return false
	}
	return true
}

// countObject counts an envelope, a wrapping or a record.
func (f *feed) countObject(v json.RawMessage, lists, wraps int) {
	members := object(v)
	if len(members) == 0 {
		return
	}
	find := func(in []member, key string) json.RawMessage {
		if i := slices.IndexFunc(in, func(m member) bool { return m.key == key }); i >= 0 {
			return in[i].value
		}
		return nil
	}
	var category string
	_ = json.Unmarshal(find(members, "category"), &category)
	first := members[0].key == "records" && members[0].value[0] == '['
	if lists < maxInside && (category == "" || first) {
		records, beside := find(members, "records"), len(members)-1
		if body := object(find(members, "body")); records == nil {
			if records = find(body, "records"); records != nil {
				beside += len(body) - 1
			}
		}
		if records != nil && records[0] == '[' {
			f.countList(elements(records), lists+1, wraps)
			f.countBeside(beside)
			return
		}
		if records != nil && records[0] == '{' {
			f.countObject(records, lists+1, wraps)
			f.countBeside(beside)
			return
		}
	}
	if category == "" {
		for _, key := range []string{"records", "body", "raw", "log", "ContentData"} {
			text := find(members, key)
			written := key == "raw" || key == "log"
			if key == "log" || key == "ContentData" {
				text = envelopeText(text, key == "ContentData")
			}
			if len(text) == 0 || text[0] != '"' || key == "raw" && (find(members, "table") == nil || find(members, "event_id") == nil) || !f.countInside(text, wraps) {
				continue
			}
			beside := 0
			for _, m := range members {
				if m.key != key && !(written && besideRaw(m.key)) {
					beside++
				}
			}
			f.countBeside(beside)
			return
		}
	}
	f.records[tableOf(category, members, find)]++
}

// envelopeText returns a JSON string, out of base64 if it is packed so, if its text is an envelope.
func envelopeText(v json.RawMessage, packed bool) json.RawMessage {
	var text string
	if json.Unmarshal(v, &text) != nil {
		return nil
	}
	if packed {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil
		}
		text = string(b)
	}
	members := object(json.RawMessage(text))
	if len(members) == 0 || members[0].key != "records" || members[0].value[0] != '[' {
		return nil
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		return nil
	}
	return quoted
}

func (f *feed) countBeside(members int) {
	if members > 0 {
		f.records[unreadable] += members
	}
}

var notInTags = regexp.MustCompile(`(?s)[^A-Za-z0-9-]`)

// tableOf is the table of Advanced Hunting that a record is of, or other.
func tableOf(category string, members []member, find func([]member, string) json.RawMessage) string {
	const prefix = "advancedhunting-"
	if len(category) > len(prefix) && strings.EqualFold(category[:len(prefix)], prefix) {
		// Characters that a tag cannot hold come out as _.
		name := record.TableName(strings.TrimSpace(category[len(prefix):]))
		return withoutPrefix(notInTags.ReplaceAllString(name[:min(len(name), 64)], "_"))
	}
	var table string
	if category == "" && json.Unmarshal(find(members, "Type"), &table) == nil && find(members, "TimeGenerated") != nil && slices.Contains(record.Tables(), table) {
		return table
	}
	return other
}

// besideRaw has the fields that the format raw, and outputs of Fluent Bit, write beside the text of
// a record.
func besideRaw(key string) bool {
	return strings.HasPrefix(key, "DeviceInfo") ||
		slices.Contains([]string{"table", "tenant_id", "event_id", "repaired_text", "alert_url", "date", "@timestamp", "time", "timestamp", "tag"}, key)
}

type member struct {
	key   string
	value json.RawMessage
}

// object returns the members of an object in their order, and none for anything else.
func object(v json.RawMessage) (members []member) {
	d := json.NewDecoder(bytes.NewReader(v))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil
		}
		members = append(members, member{key.(string), value})
	}
	return members
}

// elements returns the elements of a list, and nil for anything else.
func elements(v json.RawMessage) (list []json.RawMessage) {
	if v = bytes.TrimSpace(v); len(v) == 0 || v[0] != '[' || json.Unmarshal(v, &list) != nil {
		return nil
	}
	return list
}

// opens reports whether a list is of records: its first element is an object, JSON text of one, or
// a list of such, so many deep.
func opens(v json.RawMessage, deep int) bool {
	list := elements(v)
	if len(list) == 0 {
		return true
	}
	switch first := bytes.TrimSpace(list[0]); first[0] {
	case '{':
		return true
	case '[':
		return deep > 0 && opens(first, deep-1)
	case '"':
		return len(first) > 1 && (first[1] == '{' || first[1] == ']')
	}
	return false
}
