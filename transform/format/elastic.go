package format

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// elastic writes for the ingest pipeline of Elastic's Microsoft Defender XDR integration. The
// record's own JSON text is in message. The device is in nested objects beside it, from where the
// pipeline takes it over.
type elastic struct {
	keys    elasticKeys
	columns [][]byte // by Column.ID: its key below m365_defender.device_info
	text    []byte
}

// elasticKeys are encoded keys.
type elasticKeys struct {
	message, event, hash, tags []byte
}

// elasticTables are the tables that the pipeline knows, as of version 5.12. It drops the columns of
// others.
var elasticTables = map[string]bool{
	"AlertEvidence": true, "AlertInfo": true, "BehaviorEntities": true, "BehaviorInfo": true, "CloudAppEvents": true,
	"CloudAuditEvents": true, "CloudProcessEvents": true, "CloudStorageAggregatedEvents": true, "DeviceEvents": true,
	"DeviceFileCertificateInfo": true, "DeviceFileEvents": true, "DeviceImageLoadEvents": true, "DeviceInfo": true,
	"DeviceLogonEvents": true, "DeviceNetworkEvents": true, "DeviceNetworkInfo": true, "DeviceProcessEvents": true,
	"DeviceRegistryEvents": true, "EmailAttachmentInfo": true, "EmailEvents": true, "EmailPostDeliveryEvents": true,
	"EmailUrlInfo": true, "IdentityDirectoryEvents": true, "IdentityInfo": true, "IdentityLogonEvents": true,
	"IdentityQueryEvents": true, "MessageEvents": true, "MessagePostDeliveryEvents": true, "MessageUrlInfo": true,
	"UrlClickEvents": true,
}

// The tags of an event. preserve_duplicate_custom_fields keeps the pipeline from losing device.id
// and cloud.instance.id; preserve_original_event keeps the whole record where it would lose the
// columns: of tables that it does not know, and where properties are no object.
var (
	elasticTags     = encodeTags("preserve_duplicate_custom_fields", "forwarded", "m365_defender-event")
	elasticTagsKeep = encodeTags("preserve_duplicate_custom_fields", "forwarded", "m365_defender-event", "preserve_original_event")
)

func encodeTags(tags ...string) []byte {
	b := msgp.AppendArrayHeader(nil, uint32(len(tags)))
	for _, tag := range tags {
		b = msgp.AppendString(b, tag)
	}
	return b
}

func newElastic() Format {
	key := func(text string) []byte { return msgp.AppendString(nil, text) }
	f := &elastic{keys: elasticKeys{message: key("message"), event: key("event"), hash: key("hash"), tags: key("tags")}}
	return Format{Names: event.NewNames("."), Record: f.record, Unreadable: f.unreadable}
}

func (f *elastic) record(w *event.Writer, r *record.Record, own *Own) {
	w.Out = append(w.Out, f.keys.message...)
	w.Count(1)
	known := own.Hunting && elasticTables[own.Table]
	switch {
	case r.Bare: // the pipeline tells the table by the category, and reads properties
		f.text = append(event.AppendQuoted(append(f.text[:0], `{"category":`...), bytesOf(r.Category())), `,"properties":`...)
		f.text = append(append(f.text, r.Doc.Raw(0)...), '}')
		f.json(w)
	case known && r.Lifted && (r.Doc.Nodes[r.Properties].Kind == record.KindString || !hasCategory(r, own.Table)):
		f.text = appendReadable(f.text[:0], r, own.Table)
		f.json(w)
	default:
		w.JSON(r.Doc.Raw(0))
	}
	tags := elasticTags
	if !known || !r.Lifted {
		tags = elasticTagsKeep
	}
	f.beside(w, own.ID, tags)
	if own.Device != nil {
		f.writeDevice(w, own.Device)
	}
	w.Repairs(event.NameRepairedText)
}

// json writes f.text as the message.
func (f *elastic) json(w *event.Writer) {
	w.JSON(f.text)
	if cap(f.text) > record.KeepBytes {
		f.text = nil
	}
}

// hasCategory reports whether the category is that of the table, letter by letter.
func hasCategory(r *record.Record, table string) bool {
	name, ok := strings.CutPrefix(r.Category(), record.HuntingPrefix)
	return ok && name == table
}

// appendReadable appends the record with the category in the letters that the pipeline knows, and
// with properties as an object. The pipeline drops all columns of a category in other letters, and
// of properties that are text.
func appendReadable(dst []byte, r *record.Record, table string) []byte {
	doc := &r.Doc
	at := doc.Nodes[0].Start
	for k, end := uint32(1), doc.Nodes[0].Next; k < end; k = doc.Nodes[k+1].Next {
		v := &doc.Nodes[k+1]
		switch k + 1 {
		case r.Envelope.Category:
			dst = append(append(dst, doc.Src[at:v.Start]...), `"`+record.HuntingPrefix...)
			dst = append(append(dst, table...), '"')
		case r.Properties:
			dst = append(append(dst, doc.Src[at:v.Start]...), r.Columns.Raw(r.Props)...)
		default:
			continue
		}
		at = v.End
	}
	return append(dst, doc.Src[at:doc.Nodes[0].End]...)
}

// beside writes what every event has beside its text.
func (f *elastic) beside(w *event.Writer, id, tags []byte) {
	if id != nil {
		w.Out = append(append(append(w.Out, f.keys.event...), 0x81), f.keys.hash...)
		w.Out = msgp.AppendStringFromBytes(w.Out, id)
		w.Count(1)
	}
	w.Out = append(append(w.Out, f.keys.tags...), tags...)
	w.Count(1)
}

// column returns the value of a device's column as text, "" if it has none.
func column(d *event.Device, name string) []byte {
	for i := range d.Columns {
		if c := &d.Columns[i]; c.Name == name && msgp.NextType(c.Value) == msgp.StrType {
			text, _, _ := msgp.ReadStringZC(c.Value)
			return text
		}
	}
	return nil
}

// objects appends maps whose size is known at their end.
type objects struct {
	out   []byte
	open  [4]int    // where the header of each map is that has not ended
	sizes [4]uint16 // how many members it has
	depth int
}

func (o *objects) begin(key string) {
	o.member(key)
	o.open[o.depth], o.sizes[o.depth] = len(o.out), 0
	o.out = append(o.out, 0xde, 0, 0)
	o.depth++
}

func (o *objects) end() {
	o.depth--
	binary.BigEndian.PutUint16(o.out[o.open[o.depth]+1:], o.sizes[o.depth])
}

// member begins a member of the innermost map: its value comes next. Outside any map the caller
// counts.
func (o *objects) member(key string) {
	o.out = msgp.AppendString(o.out, key)
	o.count()
}

func (o *objects) count() {
	if o.depth > 0 {
		o.sizes[o.depth-1]++
	}
}

// encoded appends a member whose key and value are msgpack already.
func (o *objects) encoded(key, value []byte) {
	o.out = append(append(o.out, key...), value...)
	o.count()
}

func (o *objects) str(key string, text []byte) {
	if len(text) > 0 {
		o.member(key)
		o.out = msgp.AppendStringFromBytes(o.out, text)
	}
}

// writeDevice writes host, device, cloud and m365_defender.device_info. The pipeline takes over the
// fields of host, device and cloud that the row itself lacks.
func (f *elastic) writeDevice(w *event.Writer, d *event.Device) {
	o := objects{out: w.Out}
	if d.ID != nil {
		name := column(d, "DeviceName")
		f.text = appendLower(f.text[:0], name)
		platform := column(d, "OSPlatform")
		if len(platform) == 0 {
			platform = column(d, "OSFamily")
		}
		o.begin("host")
		o.str("id", d.ID)
		o.str("name", f.text)
		o.str("hostname", f.text)
		o.str("type", column(d, "DeviceType"))
		o.str("architecture", column(d, "OSArchitecture"))
		if ip := column(d, "PublicIP"); ip != nil {
			if _, _, ok := parseIP(ip); ok {
				o.member("ip")
				o.out = msgp.AppendStringFromBytes(append(o.out, 0x91), ip)
			}
		}
		if len(platform) > 0 {
			o.begin("os")
			o.str("name", platform)
			o.str("full", platform)
			o.str("version", column(d, "OSVersion"))
			o.str("platform", column(d, "OSDistribution"))
			o.str("type", bytesOf(platformSystem(platform)))
			o.end()
		}
		o.end()
		o.begin("device")
		o.str("id", d.ID)
		o.str("manufacturer", column(d, "Vendor"))
		if model := column(d, "Model"); len(model) > 0 {
			o.begin("model")
			o.str("name", model)
			o.end()
		}
		o.end()
		o.begin("cloud")
		o.begin("instance")
		o.str("id", d.ID)
		o.end()
		o.end()
		w.Count(3)
	}
	o.begin("m365_defender")
	o.begin("device_info")
	o.str("device_id", d.ID)
	for i := range d.Columns {
		c := &d.Columns[i]
		o.encoded(f.column(c), c.Value)
	}
	o.str("match", bytesOf(d.Match))
	o.str("status", bytesOf(d.Status))
	o.end()
	if len(d.Alert) > 0 { // what only the AlertInfo of the alert says
		o.begin("alert_info")
		for i := range d.Alert {
			c := &d.Alert[i]
			f.text = snake(f.text[:0], bytesOf(c.Name))
			o.member(view(f.text))
			o.out = append(o.out, c.Value...)
		}
		o.end()
	}
	o.end()
	w.Count(1)
	w.Out = o.out
}

// column is the key of a device's column.
func (f *elastic) column(c *event.Column) []byte {
	for len(f.columns) <= c.ID {
		f.columns = append(f.columns, nil)
	}
	if f.columns[c.ID] == nil {
		f.columns[c.ID] = msgp.AppendStringFromBytes(nil, snake(nil, []byte(c.Name)))
	}
	return f.columns[c.ID]
}

// unreadable is a record of a category that the pipeline does not know. The pipeline keeps the text
// of such records, with an error.
func (f *elastic) unreadable(w *event.Writer, u *Unreadable) {
	b := append(f.text[:0], `{"category":"unreadable","properties":{"unreadable_reason":`...)
	b = event.AppendQuoted(b, []byte(u.Reason))
	b = event.AppendQuoted(append(b, `,"unreadable_raw":`...), u.Text)
	if u.Encoding != "" {
		b = event.AppendQuoted(append(b, `,"unreadable_encoding":`...), []byte(u.Encoding))
	}
	b = event.AppendQuoted(append(b, `,"unreadable_lane":`...), []byte(u.Lane))
	b = strconv.AppendInt(append(b, `,"unreadable_offset":`...), u.Offset, 10)
	b = strconv.AppendInt(append(b, `,"unreadable_at":`...), int64(u.At), 10)
	if u.Parts > 1 {
		b = strconv.AppendInt(append(b, `,"unreadable_part":`...), int64(u.Part), 10)
		b = strconv.AppendInt(append(b, `,"unreadable_parts":`...), int64(u.Parts), 10)
	}
	b = append(b, '}', '}')
	f.text = b[:0]
	w.Out = append(w.Out, f.keys.message...)
	w.Count(1)
	w.Out = msgp.AppendStringFromBytes(w.Out, b)
	f.beside(w, u.ID, elasticTagsKeep)
}
