package format

import (
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// raw is the record's own JSON text in one field, with our fields and the device beside it: for
// lakes and replays. Fed in again, the text gives the same event_id.
type raw struct {
	device deviceNames
	text   fixedName
}

func newRaw(cfg Config) Format {
	f := &raw{device: deviceNames{prefix: cfg.DevicePrefix}, text: fixedName{text: "raw"}}
	return Format{Names: event.NewNames(cfg.Separator), Record: f.record, Unreadable: unreadable}
}

func (f *raw) record(w *event.Writer, r *record.Record, own *Own) {
	w.Str(event.NameTable, own.Table)
	w.Text(event.NameTenantID, &r.Doc, r.Envelope.TenantID)
	if own.ID != nil {
		w.Bin(event.NameEventID, own.ID)
	}
	if own.Device != nil {
		f.device.write(w, own.Device)
	}
	w.Key(f.text.in(w.Names(), 0))
	w.JSON(r.Doc.Raw(0))
	w.Repairs(event.NameRepairedText)
}

// A fixedName is a name of ours that is looked up once for each era of the names.
type fixedName struct {
	text string
	era  uint32
	name event.Name
}

// in is the name in a map at a level.
func (n *fixedName) in(ns *event.Names, level int) event.Name {
	if n.era != ns.Era() {
		n.era, n.name = ns.Era(), ns.ID(event.Root(level), []byte(n.text))
	}
	return n.name
}
