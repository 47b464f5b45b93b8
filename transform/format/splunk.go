package format

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// splunk is Microsoft's record as Splunk's Advanced Hunting add-on reads it: nested as received,
// with unchanged strings. The columns that the add-on reads come first, and long values last.
// Splunk extracts fields from the first 5,000 characters of an event only.
type splunk struct {
	names *event.Names
	fill  bool // the device goes where DeviceName and DeviceId are empty
	mend  bool // tenantId and AttackTechniques go where the add-on looks for them, too

	era     uint32
	marks   []uint8 // by name: the add-on's use of the column
	columns []splunkColumn
	long    []splunkColumn
	objects splunkNames
}

// A splunkColumn is a column that waits for its turn.
type splunkColumn struct {
	name event.Name
	key  uint32 // its node
	size uint32 // of its value as received
}

// The add-on's uses of a column.
const (
	markRead uint8 = 1 << iota // it reads it
	markNull                   // it looks at nulls in it
	markSeen                   // the column was looked up
)

//go:embed splunk.txt
var splunkText string

// splunkReads are the columns that the add-on reads.
var splunkReads = func() map[string]uint8 {
	reads := make(map[string]uint8)
	for line := range strings.Lines(splunkText) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, null, _ := strings.Cut(line, " ")
		reads[name] = markRead
		if null == "null" {
			reads[name] |= markNull
		}
	}
	return reads
}()

// splunkLong is the size from which a value comes behind the short ones.
const splunkLong = 300

// splunkOther is the sourcetype of records that are no Advanced Hunting.
const splunkOther = "defender:xdr"

// splunkNames are the names of ours.
type splunkNames struct {
	sourcetype, device, properties, body       event.Name
	category                                   event.Name
	id, match, status, filled                  event.Name
	deviceName, deviceID, tenantID, techniques event.Name
	bodyProperties, bodyTechniques             event.Name
	columns, alert                             []event.Name
}

func newSplunk(cfg Config) Format {
	f := &splunk{names: event.NewVerbatimNames(), fill: cfg.SplunkFillDevice, mend: cfg.SplunkMend}
	return Format{Names: f.names, Record: f.record, Unreadable: f.unreadable}
}

// begin looks the names up again after the names were reset.
func (f *splunk) begin() {
	if f.era == f.names.Era() {
		return
	}
	f.era = f.names.Era()
	f.marks = f.marks[:0]
	at := func(level int, text string) event.Name { return f.names.ID(event.Root(level), []byte(text)) }
	f.objects = splunkNames{
		sourcetype: at(0, "splunk_sourcetype"), device: at(0, "DeviceInfo"), properties: at(0, "properties"), body: at(0, "body"), category: at(0, "category"),
		id: at(1, "DeviceId"), match: at(1, "match"), status: at(1, "status"), filled: at(1, "filled"),
		deviceName: at(1, "DeviceName"), deviceID: at(1, "DeviceId"), tenantID: at(1, "tenantId"), techniques: at(1, "AttackTechniques"),
		bodyProperties: at(1, "properties"), bodyTechniques: at(2, "AttackTechniques"),
		columns: f.objects.columns[:0], alert: f.objects.alert[:0],
	}
}

func (f *splunk) record(w *event.Writer, r *record.Record, own *Own) {
	f.begin()
	if own.ID != nil {
		w.Bin(event.NameEventID, own.ID)
	}
	if !own.Hunting {
		w.Str(f.objects.sourcetype, splunkOther)
		w.Str(event.NameTable, own.Table)
	}
	w.Reserve(f.objects.sourcetype)
	w.Reserve(f.objects.device)
	w.Reserve(f.objects.body)
	if r.Lifted {
		w.Reserve(f.objects.properties)
	}
	doc := &r.Doc
	keep := w.Options().KeepNulls
	hint := int32(-1)
	end := doc.Nodes[0].Next
	if r.Bare { // all of it is columns; the add-on tells the table by the category
		w.Str(f.objects.category, r.Category())
		end = 0
	}
	for k := uint32(1); k < end && !w.Over(); k = doc.Nodes[k+1].Next {
		if r.Lifted && k+1 == r.Properties || !keep && doc.Nodes[k+1].Kind == record.KindNull {
			continue
		}
		w.NestedMember(w.Child(event.Root(0), doc, k, &hint), doc, k, 2)
	}
	filled := false
	if own.Device != nil {
		filled = r.Lifted && f.fill && f.fills(r, own.Device)
		f.device(w, own.Device, filled)
	}
	if r.Lifted {
		f.properties(w, r, own, filled)
	}
	w.Repairs(event.NameRepairedText)
}

// fills reports whether the device goes into DeviceId and DeviceName, because the row has none.
func (f *splunk) fills(r *record.Record, d *event.Device) bool {
	if d.Status != "hit" || d.Match != "evidence" && d.Match != "alert" && d.Match != "name" {
		return false
	}
	for _, column := range [...]string{"DeviceId", "DeviceName"} {
		if n := r.Columns.Find(r.Props, column); n != 0 && !r.Columns.Nothing(n) {
			return false
		}
	}
	return true
}

// device writes the object DeviceInfo.
func (f *splunk) device(w *event.Writer, d *event.Device, filled bool) {
	w.OpenOwn(f.objects.device)
	if d.ID != nil {
		w.Bin(f.objects.id, d.ID)
	}
	for i := range d.Columns {
		c := &d.Columns[i]
		w.Encoded(lookUp(&f.objects.columns, f.names, 1, "", c), c.Value)
	}
	if d.Match != "" {
		w.Str(f.objects.match, d.Match)
	}
	w.Str(f.objects.status, d.Status)
	if filled {
		w.Encoded(f.objects.filled, msgpTrue)
	}
	w.Close()
}

var msgpTrue = msgp.AppendBool(nil, true)

// mark is the add-on's use of the column of a name.
func (f *splunk) mark(name event.Name) uint8 {
	for len(f.marks) <= int(name) {
		f.marks = append(f.marks, 0)
	}
	if f.marks[name] == 0 {
		f.marks[name] = splunkReads[f.names.Text(name)] | markSeen
	}
	return f.marks[name]
}

// properties writes the columns: short ones that the add-on reads, other short ones, long ones by
// length.
func (f *splunk) properties(w *event.Writer, r *record.Record, own *Own, filled bool) {
	tr := &r.Columns
	keep := w.Options().KeepNulls
	f.columns, f.long = f.columns[:0], f.long[:0]
	w.OpenOwn(f.objects.properties)
	if filled {
		w.Bin(f.objects.deviceID, own.Device.ID)
		for i := range own.Device.Columns {
			if c := &own.Device.Columns[i]; c.Name == "DeviceName" {
				w.Encoded(f.objects.deviceName, c.Value)
			}
		}
	}
	if f.mend && r.Envelope.TenantID != 0 && tr.Find(r.Props, "tenantId") == 0 {
		w.Text(f.objects.tenantID, &r.Doc, r.Envelope.TenantID)
	}
	hint := int32(-1)
	for k, end := r.Props+1, tr.Nodes[r.Props].Next; k < end && !w.Over(); k = tr.Nodes[k+1].Next {
		name := w.Child(event.Root(1), tr, k, &hint)
		mark := f.mark(name)
		v := &tr.Nodes[k+1]
		switch size := v.End - v.Start; {
		case own.Device != nil && len(own.Device.Alert) > 0 && f.joined(own.Device, r, k):
			continue // the row does not say it, the AlertInfo of its alert does
		case v.Kind == record.KindNull && !keep && mark&markNull == 0,
			filled && (name == f.objects.deviceID || name == f.objects.deviceName) && tr.Nothing(k+1):
			continue
		case size > splunkLong:
			f.long = append(f.long, splunkColumn{name, k, size})
		case mark&markRead == 0:
			f.columns = append(f.columns, splunkColumn{name, k, size})
		default:
			w.NestedMember(name, tr, k, 3)
		}
	}
	if own.Device != nil {
		f.alert(w, own.Device)
	}
	for _, c := range f.columns {
		w.NestedMember(c.name, tr, c.key, 3)
	}
	if len(f.long) > 1 {
		slices.SortStableFunc(f.long, func(a, b splunkColumn) int { return int(a.size) - int(b.size) })
	}
	for _, c := range f.long {
		w.NestedMember(c.name, tr, c.key, 3)
	}
	w.Close()
	if f.mend {
		f.mendTechniques(w, r)
	}
}

// joined reports whether the column with key k says nothing, and the AlertInfo of the row's alert
// does. Of two columns with one name it is the first: the join has looked at that.
func (f *splunk) joined(d *event.Device, r *record.Record, k uint32) bool {
	for i := range d.Alert {
		if name := d.Alert[i].Name; name != alertURL && r.Columns.Find(r.Props, name) == k+1 {
			return true
		}
	}
	return false
}

// alertURL is the name of the link to the alert, which is no column.
const alertURL = "alert_url"

// alert writes what only the AlertInfo of the alert says. Lists go out as the text that they are on
// the wire.
func (f *splunk) alert(w *event.Writer, d *event.Device) {
	for i := range d.Alert {
		c := &d.Alert[i]
		name := lookUp(&f.objects.alert, f.names, 1, "", c)
		if msgp.NextType(c.Value) != msgp.ArrayType {
			w.Encoded(name, c.Value)
			continue
		}
		w.Bin(name, appendList(nil, c.Value))
	}
}

// appendList appends a list of strings in msgpack as JSON text.
func appendList(dst, value []byte) []byte {
	n, rest, _ := msgp.ReadArrayHeaderBytes(value)
	dst = append(dst, '[')
	for i := range n {
		var text []byte
		var err error
		if text, rest, err = msgp.ReadStringZC(rest); err != nil {
			break
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = event.AppendQuoted(dst, text)
	}
	return append(dst, ']')
}

// mendTechniques writes AttackTechniques where the add-on reads it: in body.properties.
func (f *splunk) mendTechniques(w *event.Writer, r *record.Record) {
	n := r.Columns.Find(r.Props, "AttackTechniques")
	if n == 0 || r.Columns.Nothing(n) {
		return
	}
	w.OpenOwn(f.objects.body)
	w.Open(f.objects.bodyProperties)
	w.Key(f.objects.bodyTechniques)
	w.Nested(&r.Columns, n, 4)
	w.Close()
	w.Close()
}

// unreadable is a record of another sourcetype: the add-on knows nothing of it.
func (f *splunk) unreadable(w *event.Writer, u *Unreadable) {
	f.begin()
	w.Str(f.objects.sourcetype, splunkOther)
	unreadable(w, u)
}
