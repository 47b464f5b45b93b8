// Package ocsf checks events against OCSF 1.8.0, for tests. It applies the rules of the official
// validator (validator2.ex of ocsf-server), and turns its warnings into errors. Those are texts
// that do not match the pattern of their type, captions that differ from their id, and values that
// are null or empty.
//
// [Check] takes one event as decoded from JSON or msgpack and returns every fault that it finds.
// [Records] makes records of Microsoft Defender XDR to try a mapping with: every documented column
// of every table.
package ocsf

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// Version of the schema.
const Version = "1.8.0"

//go:embed schema-1.8.0.json.gz
var compressed []byte

// Schema is the compiled schema. Classes are by uid, objects by name.
type Schema struct {
	Classes  map[int64]*Type
	Objects  map[string]*Type
	Profiles map[string]bool
}

// Type is a class or an object.
type Type struct {
	Name         string                `json:"name"`
	Caption      string                `json:"caption"`
	UID          int64                 `json:"uid"`
	CategoryUID  int64                 `json:"category_uid"`
	CategoryName string                `json:"category_name"`
	Profiles     []string              `json:"profiles"`
	Constraints  map[string][]string   `json:"constraints"`
	Attributes   map[string]*Attribute `json:"attributes"`
}

// Attribute is a member of a class or object. With Profiles, it exists only in events that name one
// of them.
type Attribute struct {
	Type        string              `json:"type"`
	ObjectType  string              `json:"object_type"`
	Requirement string              `json:"requirement"`
	IsArray     bool                `json:"is_array"`
	Profiles    []string            `json:"profiles"`
	Sibling     string              `json:"sibling"`
	Enum        map[string]struct { // by the value as text
		Caption string `json:"caption"`
	} `json:"enum"`
}

// Load returns the schema, which is read once. It panics if the embedded file is broken.
var Load = sync.OnceValue(func() *Schema {
	var file struct {
		Version  string           `json:"version"`
		Profiles []string         `json:"profiles"`
		Classes  map[string]*Type `json:"classes"`
		Objects  map[string]*Type `json:"objects"`
	}
	unzip, err := gzip.NewReader(bytes.NewReader(compressed))
	if err == nil {
		err = json.NewDecoder(unzip).Decode(&file)
	}
	if err != nil || file.Version != Version || len(file.Classes) < 50 || len(file.Objects) < 100 {
		panic(fmt.Sprintf("BUG: the OCSF schema in build/ocsf cannot be read: %v", err))
	}
	s := &Schema{Classes: make(map[int64]*Type), Objects: file.Objects, Profiles: make(map[string]bool)}
	for _, class := range file.Classes {
		s.Classes[class.UID] = class
	}
	for _, profile := range file.Profiles {
		s.Profiles[profile] = true
	}
	return s
})

// Find returns the attribute at a path such as device.os.name or evidences[].file.name below t, or
// nil. An attribute whose profile is not among profiles is not found.
func (s *Schema) Find(t *Type, path string, profiles map[string]bool) *Attribute {
	var a *Attribute
	for name := range strings.SplitSeq(path, ".") {
		if t == nil {
			return nil
		}
		list := strings.HasSuffix(name, "[]")
		a = t.Attributes[strings.TrimSuffix(name, "[]")]
		if a == nil || !a.in(profiles) || list && !a.IsArray {
			return nil
		}
		t = s.Objects[a.ObjectType]
	}
	return a
}

// in reports whether a exists in an event with these profiles.
func (a *Attribute) in(profiles map[string]bool) bool {
	for _, p := range a.Profiles {
		if profiles[p] {
			return true
		}
	}
	return len(a.Profiles) == 0
}
