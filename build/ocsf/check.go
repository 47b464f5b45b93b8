package ocsf

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Patterns of the schema's string types, as it has them. ip_t is checked with netip, which is
// stricter.
var patterns = map[string]*regexp.Regexp{
	"bytestring_t": regexp.MustCompile(`^(?:(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)|(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=))?$`),
	"datetime_t":   regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?([Zz]|[\+-]\d{2}:\d{2})?$`),
	"email_t":      regexp.MustCompile("^[a-zA-Z0-9!#$%&'*+-/=?^_`{|}~.]+@[a-zA-Z0-9-]+\\.[a-zA-Z0-9-.]+$"),
	"mac_t":        regexp.MustCompile(`^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$`),
	"uuid_t":       regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`),
}

// longest is the length in characters of types that have one.
var longest = map[string]int{"ip_t": 40, "mac_t": 32, "subnet_t": 42}

// Check returns the faults of an event, one line each beginning with the path. It returns none if
// the event is valid. Numbers are json.Number or Go's own. An integer that came as 1.0 is wrong,
// and so is a float that came as 1.
func Check(event map[string]any) []string {
	c := &check{schema: Load(), profiles: make(map[string]bool)}
	c.event(event)
	slices.Sort(c.faults)
	return c.faults
}

type check struct {
	schema   *Schema
	profiles map[string]bool
	faults   []string
}

func (c *check) fault(path, format string, args ...any) {
	c.faults = append(c.faults, path+": "+fmt.Sprintf(format, args...))
}

func (c *check) event(event map[string]any) {
	uid, ok := integer(event["class_uid"])
	if !ok {
		c.fault("class_uid", "missing, or not an integer")
		return
	}
	class := c.schema.Classes[uid]
	if class == nil {
		c.fault("class_uid", "there is no class %d", uid)
		return
	}
	metadata, _ := event["metadata"].(map[string]any)
	if version, _ := metadata["version"].(string); version != Version {
		c.fault("metadata.version", "is %q, not %s", version, Version)
	}
	if list, ok := metadata["profiles"].([]any); ok {
		for _, p := range list {
			name, _ := p.(string)
			switch {
			case !c.schema.Profiles[name]:
				c.fault("metadata.profiles", "there is no profile %q", name)
			case !slices.Contains(class.Profiles, name):
				c.fault("metadata.profiles", "%s has no profile %q", class.Name, name)
			}
			c.profiles[name] = true
		}
	}
	c.object("", class, event)

	activity, hasActivity := integer(event["activity_id"])
	if got, ok := integer(event["type_uid"]); ok && hasActivity && got != uid*100+activity {
		c.fault("type_uid", "%d is not class_uid %d * 100 + activity_id %d", got, uid, activity)
	}
	if name, ok := event["type_name"].(string); ok && !strings.HasPrefix(name, class.Caption+": ") {
		c.fault("type_name", "%q does not begin with %q", name, class.Caption+": ")
	}
	if name, ok := event["category_name"].(string); ok && class.CategoryName != "" && name != class.CategoryName {
		c.fault("category_name", "%q, not %q", name, class.CategoryName)
	}
	c.observables(class, event)
}

func (c *check) observables(class *Type, event map[string]any) {
	list, _ := event["observables"].([]any)
	seen := make(map[string]bool)
	for i, o := range list {
		path := fmt.Sprintf("observables[%d]", i)
		o, _ := o.(map[string]any)
		if name, ok := o["name"].(string); ok {
			if c.schema.Find(class, strings.ReplaceAll(name, "[]", ""), c.profiles) == nil {
				c.fault(path+".name", "%s has no attribute %q", class.Name, name)
			} else if value, ok := o["value"].(string); ok && !holds(event, strings.Split(name, "."), value) {
				c.fault(path+".value", "%q is not the value of %s", value, name)
			}
		}
		key := fmt.Sprint(o["type_id"], " ", o["value"])
		if seen[key] {
			c.fault(path, "repeats %s", key)
		}
		seen[key] = true
	}
}

// holds reports whether a value below v at path is text.
func holds(v any, path []string, text string) bool {
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, func(v any) bool { return holds(v, path, text) })
	}
	if len(path) == 0 {
		return v == text
	}
	object, _ := v.(map[string]any)
	return object != nil && holds(object[strings.TrimSuffix(path[0], "[]")], path[1:], text)
}

func (c *check) object(path string, t *Type, object map[string]any) {
	at := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	for name, a := range t.Attributes {
		if _, ok := object[name]; !ok && a.Requirement == "required" && a.in(c.profiles) {
			c.fault(at(name), "required, and missing")
		}
	}
	for kind, names := range t.Constraints {
		found := 0
		for _, name := range names {
			if object[name] != nil {
				found++
			}
		}
		if found == 0 || kind == "just_one" && found > 1 {
			c.fault(strings.TrimSuffix(at(""), "."), "has %d of %s %v", found, kind, names)
		}
	}
	for name, value := range object {
		a := t.Attributes[name]
		switch {
		case a == nil:
			c.fault(at(name), "unknown in %s", t.Name)
		case !a.in(c.profiles):
			c.fault(at(name), "needs profile %v", a.Profiles)
		default:
			c.attribute(at(name), a, value)
			c.sibling(at, a, name, object)
			c.twin(at, name, object)
		}
	}
}

func (c *check) attribute(path string, a *Attribute, value any) {
	if !a.IsArray {
		c.value(path, a, value)
		return
	}
	list, ok := value.([]any)
	if !ok {
		c.fault(path, "not a list")
	} else if len(list) == 0 {
		c.fault(path, "an empty list")
	}
	for i, v := range list {
		c.value(fmt.Sprintf("%s[%d]", path, i), a, v)
	}
}

func (c *check) value(path string, a *Attribute, value any) {
	switch a.Type {
	case "object_t":
		object, ok := value.(map[string]any)
		switch {
		case !ok:
			c.fault(path, "not an object")
		case a.ObjectType == "object": // free, as unmapped
		case len(object) == 0:
			c.fault(path, "an empty object")
		case c.schema.Objects[a.ObjectType] == nil:
			c.fault(path, "the reduced schema lacks object %s", a.ObjectType)
		default:
			c.object(path, c.schema.Objects[a.ObjectType], object)
		}
		return
	case "json_t":
		if value == nil {
			c.fault(path, "null")
		}
		return
	case "boolean_t":
		if _, ok := value.(bool); !ok {
			c.fault(path, "%v is no boolean", value)
		}
		return
	case "float_t":
		if !isFloat(value) {
			c.fault(path, "%v is no float", value)
		}
		return
	case "integer_t", "long_t", "timestamp_t", "port_t":
		c.number(path, a, value)
		return
	}
	text, ok := value.(string)
	if !ok {
		c.fault(path, "%v is no text, as %s is", value, a.Type)
		return
	}
	switch {
	case text == "":
		c.fault(path, "empty text")
	case !utf8.ValidString(text):
		c.fault(path, "not UTF-8")
	case longest[a.Type] > 0 && utf8.RuneCountInString(text) > longest[a.Type]:
		c.fault(path, "%q is longer than %d", text, longest[a.Type])
	case patterns[a.Type] != nil && !patterns[a.Type].MatchString(text):
		c.fault(path, "%q is no %s", text, a.Type)
	case a.Type == "ip_t" && !isAddress(text):
		c.fault(path, "%q is no address", text)
	}
	c.enum(path, a, text)
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func (c *check) number(path string, a *Attribute, value any) {
	n, ok := integer(value)
	if !ok {
		c.fault(path, "%v (%T) is no integer, as %s is", value, value, a.Type)
		return
	}
	switch {
	case a.Type == "integer_t" && (n < math.MinInt32 || n > math.MaxInt32):
		c.fault(path, "%d does not fit 32 bits", n) // the schema does not say; readers with Java's or Parquet's types do
	case a.Type == "port_t" && (n < 0 || n > 65535):
		c.fault(path, "%d is no port", n)
	case a.Type == "timestamp_t" && (n < 0 || n > 253402300799999):
		c.fault(path, "%d ms are outside the years 1970 to 9999", n)
	}
	c.enum(path, a, strconv.FormatInt(n, 10))
}

func (c *check) enum(path string, a *Attribute, value string) {
	if _, ok := a.Enum[value]; !ok && len(a.Enum) > 0 {
		c.fault(path, "%q is not among its values", value)
	}
}

// sibling checks the caption beside an id.
func (c *check) sibling(at func(string) string, a *Attribute, name string, object map[string]any) {
	caption, ok := object[a.Sibling].(string)
	if !ok || a.IsArray || len(a.Enum) == 0 {
		return
	}
	id, ok := integer(object[name])
	if !ok {
		return
	}
	switch want := a.Enum[strconv.FormatInt(id, 10)].Caption; {
	case id == 99 && caption == "Other":
		c.fault(at(a.Sibling), "99 wants the source's own word, not Other")
	case id != 99 && caption != want:
		c.fault(at(a.Sibling), "%q beside %d, which is %q", caption, id, want)
	}
}

// twin checks that x_dt says the same time as x.
func (c *check) twin(at func(string) string, name string, object map[string]any) {
	text, ok := object[name+"_dt"].(string)
	if !ok {
		return
	}
	ms, ok := integer(object[name])
	if !ok {
		return
	}
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		when, err = time.Parse("2006-01-02T15:04:05.999999999", text)
	}
	if err != nil || when.UnixMilli() != ms {
		c.fault(at(name+"_dt"), "%q is not %d ms", text, ms)
	}
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return n, err == nil
	case int64:
		return v, true
	case int:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case uint32:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint8:
		return int64(v), true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	}
	return 0, false
}

func isFloat(v any) bool {
	switch v := v.(type) {
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	case float32:
		return true
	case json.Number:
		return strings.ContainsAny(string(v), ".eE")
	}
	return false
}
