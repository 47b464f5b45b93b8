package format

import (
	"slices"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Names are the formats: the choices of the setting format.
var Names = []string{"flat", "raw", "splunk", "elastic", "ecs", "ocsf"}

// A Format is the shape of an event: how a record is written into the map that a Writer has begun.
// The caller decides about time, size limit and errors, in the same way for every format.
type Format struct {
	// Names are the names that the Writer of this format must have.
	Names *event.Names
	// Record writes a record.
	Record func(w *event.Writer, r *record.Record, own *Own)
	// Unreadable writes a piece of text that could not be read as a record.
	Unreadable func(w *event.Writer, u *Unreadable)
}

// Own are the fields that are written with a record and are not in it.
type Own struct {
	Table   string        // the emitted name
	Exact   bool          // Table says all that the category does
	Hunting bool          // the category is of Advanced Hunting
	ID      []byte        // event_id; nil for none
	Device  *event.Device // nil where none is looked for

	Sec  int64 // the event's time
	Nsec uint32

	// Class is set by a format whose events have classes: the name of this one's.
	Class string

	// Platform returns the OSPlatform of the device of a record, or nil if that is not known yet.
	// It asks nobody and does not wait. It is nil itself if no devices are kept.
	Platform func(r *record.Record) []byte
}

// Unreadable is a piece of text that could not be read as a record, and where it was.
type Unreadable struct {
	Reason   string
	Text     []byte // UTF-8
	Encoding string // of Text: base64, or "" for none
	Lane     string
	Offset   int64 // of the payload in the lane
	At       int   // byte of the payload
	Part     int   // from 1 on
	Parts    int
	ID       []byte // event_id; nil for none
	Sec      int64  // the event's time: now
	Nsec     uint32
}

// Config is the choices of the user for the shape.
type Config struct {
	Separator     string   // between the names of nested objects
	DevicePrefix  string   // of the names of the device's columns; "" if no devices are added
	DeviceColumns []string // that may be added

	SplunkFillDevice bool // splunk: the device goes into DeviceName and DeviceId where the row has none
	SplunkMend       bool // splunk: repeat two values where the add-on looks for them
}

// New returns the format of a name.
func New(name string, cfg Config) (Format, bool) {
	if !slices.Contains(Names, name) {
		return Format{}, false
	}
	switch name {
	case "raw":
		return newRaw(cfg), true
	case "splunk":
		return newSplunk(cfg), true
	case "elastic":
		return newElastic(), true
	case "ecs":
		return newECSFormat(), true
	case "ocsf":
		return newOCSF(cfg), true
	}
	return newFlat(cfg), true
}

// BaseClass is the class of OCSF for records that fit no other.
const BaseClass = "base_event"

// UnreadableTable is the table of unreadable text.
const UnreadableTable = "unreadable"
