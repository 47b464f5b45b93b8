package format

import (
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// flat is one map: nested objects are joined by the separator, columns have their own names.
//
// Columns of one value come first, then the device, then columns that are objects. AdditionalFields
// may have a hundred fields. Splunk extracts only the first fields of an event, and only from its
// first thousands of letters. So the columns for triage come before them.
type flat struct {
	names  *event.Names
	device deviceNames
	later  []member // columns of the record that are objects, at most maxLater
}

// maxLater: no table has that many columns that are objects. The others of a record that has more
// are written where they come, so that it takes no memory.
const maxLater = 64

// A member is a key of the record and the name of its field.
type member struct {
	key  uint32
	name event.Name
}

func newFlat(cfg Config) Format {
	f := &flat{names: event.NewNames(cfg.Separator), device: deviceNames{prefix: cfg.DevicePrefix}}
	cfg.own(f.names)
	return Format{Names: f.names, Record: f.record, Unreadable: unreadable}
}

func (f *flat) record(w *event.Writer, r *record.Record, own *Own) {
	doc, e := &r.Doc, &r.Envelope
	w.Str(event.NameTable, own.Table)
	w.Text(event.NameTenantID, doc, e.TenantID)
	w.Text(event.NameExportedAt, doc, e.Time)
	w.Text(event.NameReceivedAt, doc, e.Received)
	if own.ID != nil {
		w.Bin(event.NameEventID, own.ID)
	}
	// These two say the same in every record of the stream; elsewhere they may say something.
	if e.Operation != 0 && !(r.Lifted && string(doc.Inner(e.Operation)) == "Publish") {
		w.Text(event.NameOperationName, doc, e.Operation)
	}
	if e.Tenant != 0 && string(doc.Inner(e.Tenant)) != "DefaultTenant" {
		w.Text(event.NameTenantName, doc, e.Tenant)
	}
	if e.Category != 0 && !own.Exact {
		w.Text(event.NameCategory, doc, e.Category)
	}
	if !r.Bare {
		f.rest(w, r, own)
	}
	if r.Lifted {
		f.columns(w, r)
	}
	if own.Device != nil {
		f.device.write(w, own.Device)
	}
	if r.Lifted {
		for _, m := range f.later {
			f.column(w, r, m)
		}
	}
	w.Repairs(event.NameRepairedText)
}

// rest writes the members of the envelope that have no field of their own.
func (f *flat) rest(w *event.Writer, r *record.Record, own *Own) {
	doc, e := &r.Doc, &r.Envelope
	alert := isAlert(r, own)
	hint := int32(-1)
	for k, end := uint32(1), doc.Nodes[0].Next; k < end && !w.Over(); k = doc.Nodes[k+1].Next {
		switch v := k + 1; v {
		case e.Time, e.TenantID, e.Operation, e.Category, e.Received, e.Tenant:
		case r.Properties:
			if !r.Lifted {
				id := w.Child(event.Root(0), doc, k, &hint)
				switch {
				case !own.Hunting:
					w.Field(id, doc, v, 2)
				case doc.Nothing(v):
					w.None(id, record.ClassObject, doc, v)
				default:
					w.Misfit(id, doc, v)
				}
			}
		default:
			id := w.Child(event.Root(0), doc, k, &hint)
			if c := alertClass(alert, doc, k); c != record.ClassAny {
				w.Column(r, id, c, v)
			} else {
				w.Member(id, doc, k, 2)
			}
		}
	}
}

// isAlert reports whether members of the record have the types of the table of alerts.
func isAlert(r *record.Record, own *Own) bool { return !r.Lifted && own.Table == record.AlertTable }

// alertClass is the class of the member with key k.
func alertClass(alert bool, doc *record.Tree, k uint32) record.Class {
	if !alert {
		return record.ClassAny
	}
	return record.AlertClass(doc.Inner(k))
}

// columns writes the columns that are no objects, and notes the others in later.
func (f *flat) columns(w *event.Writer, r *record.Record) {
	tr := &r.Columns
	keep := w.Options().KeepNulls
	hint := int32(-1)
	f.later = f.later[:0]
	for k, end := r.Props+1, tr.Nodes[r.Props].Next; k < end && !w.Over(); k = tr.Nodes[k+1].Next {
		if !keep && tr.Nothing(k+1) {
			continue // half of all columns: not worth a name
		}
		m := member{k, w.Child(event.Root(0), tr, k, &hint)}
		c := f.names.Class(m.name)
		if c == record.ClassText && tr.Nodes[k+1].Kind == record.KindString && (!keep || !tr.Nothing(k+1)) { // as most are
			w.Key(m.name)
			w.String(tr, k+1)
			continue
		}
		object := c == record.ClassObject || c == record.ClassObjects ||
			c == record.ClassAny && tr.Nodes[k+1].Kind == record.KindObject
		if object && len(f.later) < maxLater {
			f.later = append(f.later, m)
		} else {
			f.column(w, r, m)
		}
	}
}

func (f *flat) column(w *event.Writer, r *record.Record, m member) {
	if c := f.names.Class(m.name); c != record.ClassAny && !event.LongKey(&r.Columns, m.key) {
		w.Column(r, m.name, c, m.key+1)
	} else {
		w.Member(m.name, &r.Columns, m.key, 2)
	}
}

// own keeps the names of the device's fields for ours. A prefix that ends in a letter or digit may
// begin names of columns, so then only the names themselves are kept.
func (c Config) own(ns *event.Names) {
	if c.DevicePrefix == "" {
		return
	}
	ns.Own("alert_url")
	if last := lowerByte(c.DevicePrefix[len(c.DevicePrefix)-1]); !isDigit(last) && !('a' <= last && last <= 'z') {
		ns.Own(c.DevicePrefix)
		return
	}
	for _, column := range c.DeviceColumns {
		ns.Own(c.DevicePrefix + column)
	}
}

// deviceNames are the names of the fields of a device, which are looked up once.
type deviceNames struct {
	prefix        string
	era           uint32 // of the names below
	id, how, what event.Name
	columns       []event.Name // by Column.ID, 0 for those not looked up yet
	alert         []event.Name
}

// write writes the fields of a device, and of the alert where the row lacks them.
func (n *deviceNames) write(w *event.Writer, d *event.Device) {
	if ns := w.Names(); n.era != ns.Era() {
		n.era = ns.Era()
		n.columns, n.alert = n.columns[:0], n.alert[:0]
		n.id, n.how, n.what = n.name(ns, "DeviceId"), n.name(ns, "match"), n.name(ns, "status")
	}
	if d.ID != nil {
		w.Bin(n.id, d.ID)
	}
	for i := range d.Columns {
		c := &d.Columns[i]
		w.Encoded(lookUp(&n.columns, w.Names(), 0, n.prefix, c), c.Value)
	}
	if d.Match != "" {
		w.Str(n.how, d.Match)
	}
	w.Str(n.what, d.Status)
	for i := range d.Alert {
		c := &d.Alert[i]
		w.Encoded(lookUp(&n.alert, w.Names(), 0, "", c), c.Value)
	}
}

func (n *deviceNames) name(ns *event.Names, text string) event.Name {
	return ns.ID(event.Root(0), []byte(n.prefix+text))
}

// lookUp is the name of a column in a map at a level, from names or into it.
func lookUp(names *[]event.Name, ns *event.Names, level int, prefix string, c *event.Column) event.Name {
	for len(*names) <= c.ID {
		*names = append(*names, 0)
	}
	if (*names)[c.ID] == 0 {
		(*names)[c.ID] = ns.ID(event.Root(level), []byte(prefix+c.Name))
	}
	return (*names)[c.ID]
}

// unreadable writes a piece of text that could not be read, and why.
func unreadable(w *event.Writer, u *Unreadable) {
	w.Str(event.NameTable, UnreadableTable)
	w.Str(event.NameReason, u.Reason)
	w.Bin(event.NameRaw, u.Text)
	if u.Encoding != "" {
		w.Str(event.NameEncoding, u.Encoding)
	}
	w.Str(event.NameLane, u.Lane)
	w.Int(event.NameOffset, u.Offset)
	w.Int(event.NameAt, int64(u.At))
	if u.Parts > 1 {
		w.Int(event.NamePart, int64(u.Part))
		w.Int(event.NameParts, int64(u.Parts))
	}
	if u.ID != nil {
		w.Bin(event.NameEventID, u.ID)
	}
}
