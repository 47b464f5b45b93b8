package format

import (
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// ocsf writes records as events of OCSF 1.8.0. ocsf.txt has the class of a record and the columns
// of its attributes. Columns that no attribute holds whole go to unmapped, so that no value is
// lost.
//
// Events are valid by construction. A layout fills a sheet, and objects whose needs are not met are
// dropped from it. If the event then lacks an attribute that its class needs, the next layout is
// tried. In the end the record is a base event. Nothing is written before that is known. All of it
// holds one record and is used again for the next.
type ocsf struct {
	m      *ocsfMapping
	sheet  *sheet
	names  *event.Names
	tables map[string]*ocsfHeads

	w   *event.Writer
	r   *record.Record
	own *Own

	exported ocsfTime // the times of the envelope
	received ocsfTime

	values  []ocsfValue // by slot
	used    []ocsfSlot
	columns []ocsfColumn
	trees   []record.Tree // that values are in: 0 the columns, others opened
	text    []byte        // texts that had to be made: unescaped, or of numbers

	known     []ocsfSlot // slot of a name, by Name: 1 + slot, noSlot for none, 0 for not known yet
	era       uint32     // of the names
	unmapped  event.Name
	direction direction
	directed  bool // direction is known

	hashes  []ocsfHash
	words   [][]byte
	seen    []ocsfSeen
	repairs int
}

// ocsfTime is a text and the time that it is.
type ocsfTime struct {
	text  []byte
	sec   int64
	nsec  uint32
	ok    bool // it is a time
	exact bool // it is a datetime_t, unchanged
}

func readTime(text []byte) ocsfTime {
	t := ocsfTime{text: text}
	if t.sec, t.nsec, t.ok = record.ParseTime(text); t.ok {
		t.exact = exactDate(text)
	}
	return t
}

// is reports whether t is the time of the event.
func (t *ocsfTime) is(own *Own) bool { return t.ok && t.sec == own.Sec && t.nsec == own.Nsec }

// ocsfValue is a value of the record that the mapping reads.
type ocsfValue struct {
	state  uint8  // 0 absent, 1 present, 2 its text is known
	tree   uint8  // of trees
	node   uint32 // in the tree
	column uint16 // of columns, or noSource for a member of one
	text   []byte // nil for an array or object
	packed []byte // a value of the alert that the row lacks: msgpack, and no node
}

// ocsfColumn is a column that is not empty.
type ocsfColumn struct {
	key    uint32 // its node
	name   event.Name
	packed []byte
}

// ocsfHash is a hash in a list of encoded elements, for the observables.
type ocsfHash struct {
	field fieldID
	text  []byte
}

// ocsfSeen is an observable of this event.
type ocsfSeen struct {
	observable int
	text       []byte
}

// ocsfHeads are the constant parts of the events of a table, by the text that chooses the layout.
type ocsfHeads struct {
	table *ocsfTable // nil if the mapping does not know it
	heads map[string]*ocsfHead
	name  string
}

// ocsfHead has the common parts of the events of a table with one text.
type ocsfHead struct {
	choices []ocsfReady
	base    ocsfReady
}

// ocsfReady is a layout with its constants, in msgpack.
type ocsfReady struct {
	*ocsfChoice
	constants []byte
	members   int
	metadata  []byte
	inner     int // members of metadata
}

const (
	// maxOCSFHeads bounds how many texts, which come from outside, have constants prepared.
	maxOCSFHeads = 2048
	maxOCSFText  = 256

	maxObservables = 32
)

// ocsfOwnSlots are the columns that the code reads itself, in the order of the constants below.
var ocsfOwnSlots = []string{
	"Timestamp", "ActionType", "ReportId", "Title", "Severity", "AlertId", "BehaviorId", "NetworkMessageId", "AdditionalFields",
	"AdditionalFields.direction", "AdditionalFields.ParentProcess",
}

const (
	slotTimestamp ocsfSlot = iota
	slotActionType
	slotReportID
	slotTitle
	slotSeverity
	slotAlertID
	slotBehaviorID
	slotNetworkMessageID
	slotAdditionalFields
	slotDirection
	slotParentProcess
)

var ocsfOwnFields = []string{"enrichments[]"}

func newOCSF(cfg Config) Format {
	m := loadOCSF()
	o := &ocsf{
		m: m, sheet: newSheet(m.form), names: event.NewNames(cfg.Separator), tables: make(map[string]*ocsfHeads),
		values: make([]ocsfValue, len(m.slots)),
	}
	return Format{Names: o.names, Record: o.record, Unreadable: o.unreadable}
}

// record writes r into the map that w has begun.
func (o *ocsf) record(w *event.Writer, r *record.Record, own *Own) {
	o.begin(w, r, own)
	heads := o.headsOf(own.Table)
	if r.Lifted {
		o.read(heads.table != nil)
	}
	o.alert()
	o.found()
	for len(o.sheet.taken) < len(o.columns) {
		o.sheet.taken = append(o.sheet.taken, false)
	}
	head := o.headOf(heads)
	own.Class = "base_event"
	ready := &head.base
	for i := range head.choices {
		if c := &head.choices[i]; o.fits(c.ocsfChoice) && o.fill(c.layout) {
			ready = c
			break
		}
	}
	base := ready == &head.base
	if base {
		o.fill(ready.layout)
	}
	own.Class = ready.layout.class.name
	if base {
		clear(o.sheet.taken) // the columns of a base event's attributes stay in unmapped, too
	}
	o.device()
	w.Out = append(w.Out, ready.constants...)
	w.Count(ready.members)
	o.severity()
	o.times()
	o.message()
	o.metadata(ready)
	out, n := o.sheet.appendTo(w.Out, nil)
	w.Out = out
	w.Count(int(n))
	o.observables(ready.layout, base)
	o.rest()
	if len(r.Doc.Src) > record.KeepBytes {
		o.release()
	}
}

// release gives back the memory that a giant record needed, and forgets its texts.
func (o *ocsf) release() {
	o.forget()
	o.sheet.release()
	o.exported, o.received = ocsfTime{}, ocsfTime{}
	o.w, o.r, o.own = nil, nil, nil
}

// forget lets go of the last record.
func (o *ocsf) forget() {
	for _, s := range o.used {
		o.values[s] = ocsfValue{}
	}
	clear(o.columns)
	clear(o.trees)
	clear(o.hashes)
	clear(o.seen)
	o.used, o.columns, o.trees = o.used[:0], o.columns[:0], o.trees[:0]
	o.hashes, o.seen, o.text = o.hashes[:0], o.seen[:0], o.text[:0]
	if cap(o.text) > record.KeepBytes {
		o.text = nil
	}
}

func (o *ocsf) begin(w *event.Writer, r *record.Record, own *Own) {
	o.forget()
	o.trees = append(o.trees, r.Columns)
	o.directed, o.repairs = false, 0
	o.w, o.r, o.own = w, r, own
	o.exported, o.received = readTime(o.envelope(r.Envelope.Time)), readTime(o.envelope(r.Envelope.Received))
	if o.era != o.names.Era() {
		o.era = o.names.Era()
		clear(o.known)
		o.unmapped = o.names.ID(event.Root(0), []byte("unmapped"))
	}
}

// read notes the columns that are not empty, and, if the mapping knows the table, which of them it
// reads.
func (o *ocsf) read(mapped bool) {
	tr := &o.r.Columns
	hint := int32(-1)
	for k, end := o.r.Props+1, tr.Nodes[o.r.Props].Next; k < end; k = tr.Nodes[k+1].Next {
		if tr.Nothing(k+1) || o.w.Over() {
			continue
		}
		name := o.w.Child(event.Root(0), tr, k, &hint)
		if len(o.columns) < noSource {
			o.columns = append(o.columns, ocsfColumn{key: k, name: name})
		}
		slot := o.slotOf(name, tr, k)
		if slot == noSlot || o.values[slot].state != 0 {
			continue
		}
		v := o.put(slot, k+1, uint16(len(o.columns)-1))
		if node := &tr.Nodes[k+1]; node.Kind == record.KindString && node.Flags&(record.FlagEscaped|record.FlagWide) == 0 {
			v.state, v.text = 2, tr.Inner(k+1) // as get would find it
		}
		if members := o.m.members[slot]; mapped && members != nil {
			o.open(slot, members)
		}
	}
}

// put notes where the value of a slot is that is absent, in the tree of the columns.
func (o *ocsf) put(slot ocsfSlot, node uint32, column uint16) *ocsfValue {
	o.used = append(o.used, slot)
	v := &o.values[slot]
	v.state, v.node, v.column = 1, node, column
	return v
}

// slotOf returns the slot of the column whose key is node k.
func (o *ocsf) slotOf(name event.Name, tr *record.Tree, k uint32) ocsfSlot {
	for int(name) >= len(o.known) {
		o.known = append(o.known, 0)
	}
	if o.known[name] == 0 {
		slot, ok := o.m.bySlot[o.names.Text(name)]
		if !ok {
			slot = noSlot - 1
		}
		o.known[name] = slot + 1
	}
	slot := o.known[name] - 1
	if slot >= noSlot-1 || len(tr.Inner(k)) != len(o.m.slots[slot]) {
		return noSlot // the name was changed: it is another column
	}
	return slot
}

// open finds the members of a column that the mapping reads.
func (o *ocsf) open(slot ocsfSlot, members map[string]ocsfSlot) {
	tree, n, ok := o.container(&o.values[slot])
	if !ok || tree.Nodes[n].Kind != record.KindObject || len(o.trees) > 250 {
		return
	}
	at := uint8(len(o.trees))
	o.trees = append(o.trees, tree)
	for k, end := n+1, tree.Nodes[n].Next; k < end; k = tree.Nodes[k+1].Next {
		if s, ok := members[string(tree.Inner(k))]; ok && o.values[s].state == 0 && !tree.Nothing(k+1) {
			o.put(s, k+1, noSource).tree = at
		}
	}
}

// container returns a value that is an array or object, natively or as JSON in a string of a
// column.
func (o *ocsf) container(v *ocsfValue) (record.Tree, uint32, bool) {
	if v.state == 0 || v.packed != nil {
		return record.Tree{}, 0, false
	}
	tr := &o.trees[v.tree]
	switch kind := tr.Nodes[v.node].Kind; {
	case kind >= record.KindArray:
		return *tr, v.node, true
	case kind != record.KindString || v.tree != 0 || v.column == noSource:
		return record.Tree{}, 0, false
	}
	if o.names.Class(o.columns[v.column].name) < record.ClassObject {
		return record.Tree{}, 0, false
	}
	in := o.r.Open(o.w.Scanner(), v.node)
	return in, 0, len(in.Nodes) > 0 && in.Nodes[0].Kind >= record.KindArray
}

// alert gives the row the columns that it lacks, from the AlertInfo of its alert.
func (o *ocsf) alert() {
	if o.own.Device == nil {
		return
	}
	for i := range o.own.Device.Alert {
		c := &o.own.Device.Alert[i]
		if len(o.columns) < noSource {
			o.columns = append(o.columns, ocsfColumn{name: o.names.ID(event.Root(0), []byte(c.Name)), packed: c.Value})
		}
		if slot, ok := o.m.bySlot[c.Name]; ok && o.values[slot].state == 0 {
			o.put(slot, 0, uint16(len(o.columns)-1)).packed = c.Value
		}
	}
}

// found puts the device that was found in the place of the one that the row names. That one was
// merged into it, or the row has another form of its name. So a device has one uid and one name,
// and no facts of another. What the row says is in unmapped.
func (o *ocsf) found() {
	d := o.own.Device
	if d == nil || d.ID == nil {
		return
	}
	if !o.replace("DeviceId", d.ID) {
		o.replace("DeviceName", column(d, "DeviceName"))
	}
}

// replace gives a column another text, and reports whether that is the same in another case.
func (o *ocsf) replace(name string, text []byte) (same bool) {
	slot, ok := o.m.bySlot[name]
	if !ok || len(text) == 0 {
		return false
	}
	own := o.get(slot)
	switch same = sameFold(own, text); {
	case same:
		o.values[slot].text = text
	case len(own) > 0:
		o.values[slot] = ocsfValue{state: 2, text: text, column: noSource}
	}
	return same
}

// get returns the text of a value that is a scalar, nil for any other and for none. It is valid
// until the next record.
func (o *ocsf) get(slot ocsfSlot) []byte {
	if o.values[slot].state == 1 {
		o.find(&o.values[slot])
	}
	return o.values[slot].text
}

// find finds the text of a value.
func (o *ocsf) find(v *ocsfValue) {
	v.state = 2
	if v.packed != nil {
		v.text = o.unpacked(v.packed)
	} else {
		v.text = o.scalar(&o.trees[v.tree], v.node)
	}
}

func (o *ocsf) scalar(tr *record.Tree, n uint32) []byte {
	switch k := tr.Nodes[n].Kind; {
	case k == record.KindString:
		return o.unescaped(tr, n)
	case k >= record.KindArray, k == record.KindNull:
		return nil
	}
	return tr.Raw(n)
}

func (o *ocsf) unescaped(tr *record.Tree, n uint32) []byte {
	inner, flags := tr.Inner(n), tr.Nodes[n].Flags
	if flags&record.FlagEscaped == 0 && (flags&record.FlagWide == 0 || utf8.Valid(inner)) {
		return inner
	}
	from := len(o.text)
	var repairs int
	o.text, repairs = record.AppendText(o.text, inner)
	o.repairs += repairs
	return o.text[from:len(o.text):len(o.text)]
}

// unpacked returns the text of a scalar in msgpack, nil for anything else.
func (o *ocsf) unpacked(b []byte) []byte {
	switch msgp.NextType(b) {
	case msgp.StrType:
		text, _, _ := msgp.ReadStringZC(b)
		return text
	case msgp.IntType, msgp.UintType:
		n, _, err := msgp.ReadInt64Bytes(b)
		if err != nil {
			return nil
		}
		from := len(o.text)
		o.text = appendInteger(o.text, n)
		return o.text[from:len(o.text):len(o.text)]
	case msgp.BoolType:
		if yes, _, _ := msgp.ReadBoolBytes(b); yes {
			return bytesOf("true")
		}
		return bytesOf("false")
	}
	return nil
}

// first returns the first of the slots that has a text, with the column that it is of.
func (o *ocsf) first(slots []ocsfSlot) (text []byte, source uint16) {
	for _, s := range slots {
		if text := o.get(s); len(text) > 0 {
			return text, o.values[s].column
		}
	}
	return nil, noSource
}

// list returns the texts of the first slot that has any: the elements of a list, or the one text.
// whole reports whether they are all that the column holds. It is valid until the next call.
func (o *ocsf) list(slots []ocsfSlot) (texts [][]byte, source uint16, whole bool) {
	clear(o.words)
	o.words = o.words[:0]
	for _, s := range slots {
		v := &o.values[s]
		if v.state == 0 {
			continue
		}
		whole = true
		if v.packed != nil && msgp.NextType(v.packed) == msgp.ArrayType {
			n, rest, err := msgp.ReadArrayHeaderBytes(v.packed)
			for ; err == nil && n > 0; n-- {
				if msgp.NextType(rest) == msgp.StrType {
					var text []byte
					if text, rest, err = msgp.ReadStringZC(rest); len(text) > 0 {
						o.words = append(o.words, text)
					}
				} else {
					whole = false
					rest, err = msgp.Skip(rest)
				}
			}
		} else if tree, n, ok := o.container(v); ok {
			if tree.Nodes[n].Kind != record.KindArray {
				continue
			}
			for e, end := n+1, tree.Nodes[n].Next; e < end; e = tree.Nodes[e].Next {
				if text := o.scalar(&tree, e); len(text) > 0 && tree.Nodes[e].Kind == record.KindString && len(o.words) < 100 {
					o.words = append(o.words, text)
				} else {
					whole = false
				}
			}
		} else if text := o.get(s); len(text) > 0 && (v.packed != nil || v.column == noSource || o.names.Class(o.columns[v.column].name) < record.ClassObject) {
			o.words = append(o.words, text)
		}
		if len(o.words) > 0 {
			return o.words, v.column, whole
		}
	}
	return nil, noSource, false
}

// fits reports whether the condition of a choice is met.
func (o *ocsf) fits(c *ocsfChoice) bool {
	if c.ifSlot == noSlot {
		return true
	}
	text := o.get(c.ifSlot)
	return len(text) > 0 && (c.ifText == "" || string(text) == c.ifText)
}

// fill fills the sheet by a layout. It returns false if the event then lacks what its class needs.
func (o *ocsf) fill(lay *ocsfLayout) bool {
	o.sheet.reset()
	o.hashes = o.hashes[:0]
	for i := range lay.steps {
		st := &lay.steps[i]
		if st.when != "" && (st.when == "in") != o.isInbound() {
			continue
		}
		st.write(o, st)
	}
	for i := range lay.needs {
		n := &lay.needs[i]
		if n.object != wholeEvent && !o.sheet.has(n.object) {
			continue
		}
		if !o.meets(n) {
			if n.object == wholeEvent {
				return false
			}
			o.sheet.drop(n.object)
		}
	}
	return true
}

func (o *ocsf) meets(n *ocsfNeed) bool {
	for _, any := range n.any {
		found := false
		for _, f := range any {
			found = found || o.sheet.has(f)
		}
		if !found {
			return false
		}
	}
	return true
}

// isInbound reports whether the remote side began a connection, and notes the direction.
func (o *ocsf) isInbound() bool {
	if !o.directed {
		o.directed = true
		action := o.get(slotActionType)
		o.direction = connectionDirection(action, o.get(slotDirection))
		if o.direction == directionUnknown && hasPrefixFold(action, "listening") {
			o.direction = directionInbound // to the port that was opened
		}
	}
	return o.direction == directionInbound
}

// headsOf returns the heads of a table.
func (o *ocsf) headsOf(table string) *ocsfHeads {
	h := o.tables[table]
	if h == nil {
		if len(o.tables) > maxOCSFHeads/8 {
			clear(o.tables)
		}
		h = &ocsfHeads{table: o.m.tables[table], heads: make(map[string]*ocsfHead), name: table}
		o.tables[table] = h
	}
	return h
}

// headOf returns the head for the record. It allocates only the first time that a text is met.
func (o *ocsf) headOf(h *ocsfHeads) *ocsfHead {
	by := slotActionType
	if h.table != nil {
		by = h.table.by
	}
	text := o.get(by)
	if head := h.heads[string(text)]; head != nil {
		return head
	}
	head := h.prepare(o.m, text)
	if len(text) <= maxOCSFText {
		if len(h.heads) >= maxOCSFHeads/8 {
			clear(h.heads)
		}
		h.heads[string(text)] = head
	}
	return head
}

// prepare makes the constant parts of events with this text.
func (h *ocsfHeads) prepare(m *ocsfMapping, text []byte) *ocsfHead {
	head := &ocsfHead{}
	var more []ocsfConstant
	if h.table != nil {
		for i := range h.table.more {
			for _, p := range h.table.more[i].patterns {
				if p.match(text) {
					more = h.table.more[i].constants
				}
			}
		}
		if rule := h.table.rule(text); rule != nil {
			for i := range rule.choices {
				head.choices = append(head.choices, h.ready(&rule.choices[i], text, more))
			}
		}
	}
	head.base = h.ready(&ocsfChoice{layout: m.layouts["base"], activity: 99, ifSlot: noSlot}, text, more)
	return head
}

func (h *ocsfHeads) ready(c *ocsfChoice, text []byte, more []ocsfConstant) ocsfReady {
	class, r := c.layout.class, ocsfReady{ocsfChoice: c}
	b := []byte(nil)
	integer := func(name string, n int64) {
		b = msgp.AppendInt64(msgp.AppendString(b, name), n)
		r.members++
	}
	word := func(name, value string) {
		if value != "" {
			b = msgp.AppendString(msgp.AppendString(b, name), value)
			r.members++
		}
	}
	activity, name := c.activity, class.activities[c.activity]
	switch {
	case activity == 99 && len(text) == 0:
		activity, name = 0, "Unknown"
	case activity == 99 && string(text) != "Other":
		name = string(text)
	}
	integer("class_uid", class.uid)
	word("class_name", class.caption)
	integer("category_uid", class.category)
	word("category_name", class.categoryName)
	integer("activity_id", activity)
	word("activity_name", name)
	integer("type_uid", class.uid*100+activity)
	if activity == 99 && (class.uid != 0 || name == "") {
		name = "Other" // the activity has Defender's word; the type is one of the schema's
	}
	word("type_name", class.caption+": "+name)
	constants := c.constants
	for _, m := range more {
		if !contains(constants, m.name) {
			constants = append(constants[:len(constants):len(constants)], m)
		}
	}
	for _, k := range constants {
		if k.boolean {
			b = msgp.AppendBool(msgp.AppendString(b, k.name), k.id == 1)
			r.members++
			continue
		}
		integer(k.name+"_id", k.id)
		word(k.name, k.caption)
	}
	r.constants = b

	b = msgp.AppendString(msgp.AppendString(nil, "version"), "1.8.0")
	b = msgp.AppendString(b, "product")
	b = msgp.AppendMapHeader(b, 2)
	b = msgp.AppendString(msgp.AppendString(b, "name"), "Microsoft Defender XDR")
	b = msgp.AppendString(msgp.AppendString(b, "vendor_name"), "Microsoft")
	b = msgp.AppendString(msgp.AppendString(b, "log_name"), h.name)
	b = msgp.AppendArrayHeader(msgp.AppendString(b, "profiles"), uint32(3+len(c.layout.profiles)))
	for _, p := range []string{"datetime", "host", "security_control"} {
		b = msgp.AppendString(b, p)
	}
	for _, p := range c.layout.profiles {
		b = msgp.AppendString(b, p)
	}
	r.metadata, r.inner = b, 4
	return r
}

func contains(constants []ocsfConstant, name string) bool {
	for _, c := range constants {
		if c.name == name {
			return true
		}
	}
	return false
}

// The keys that are written for every event, in msgpack.
var (
	keySeverityID    = msgp.AppendString(nil, "severity_id")
	keySeverity      = msgp.AppendString(nil, "severity")
	keyTime          = msgp.AppendString(nil, "time")
	keyTimeDT        = msgp.AppendString(nil, "time_dt")
	keyMessage       = msgp.AppendString(nil, "message")
	keyMetadata      = msgp.AppendString(nil, "metadata")
	keyUID           = msgp.AppendString(nil, "uid")
	keyEventCode     = msgp.AppendString(nil, "event_code")
	keyOriginalUID   = msgp.AppendString(nil, "original_event_uid")
	keyCorrelation   = msgp.AppendString(nil, "correlation_uid")
	keyTenant        = msgp.AppendString(nil, "tenant_uid")
	keyOriginalTime  = msgp.AppendString(nil, "original_time")
	keyLogged        = msgp.AppendString(nil, "logged_time")
	keyLoggedDT      = msgp.AppendString(nil, "logged_time_dt")
	keyTransmit      = msgp.AppendString(nil, "transmit_time")
	keyTransmitDT    = msgp.AppendString(nil, "transmit_time_dt")
	keyObservables   = msgp.AppendString(nil, "observables")
	keyValue         = msgp.AppendString(nil, "value")
	packedInfo       = append(append(append([]byte(nil), keySeverityID...), 1), msgp.AppendString(append([]byte(nil), keySeverity...), "Informational")...)
	correlationSlots = []ocsfSlot{slotAlertID, slotBehaviorID, slotNetworkMessageID}
)

func (o *ocsf) severity() {
	w := o.w
	text := o.get(slotSeverity)
	if len(text) == 0 {
		w.Out = append(w.Out, packedInfo...)
		w.Count(2)
		return
	}
	id, caption, known := o.m.enums["severity"].find(text)
	w.Out = msgp.AppendInt64(append(w.Out, keySeverityID...), id)
	w.Count(1)
	if known {
		w.Out = msgp.AppendString(append(w.Out, keySeverity...), caption)
	} else if string(text) == "Other" {
		return
	} else {
		w.Out = msgp.AppendStringFromBytes(append(w.Out, keySeverity...), text)
	}
	w.Count(1)
	if caption == string(text) || !known {
		o.take(slotSeverity)
	}
}

// take notes that an attribute holds a column whole.
func (o *ocsf) take(slot ocsfSlot) {
	if v := &o.values[slot]; v.state != 0 && v.column != noSource {
		o.sheet.taken[v.column] = true
	}
}

// exactDate reports whether a text is a datetime_t, unchanged.
func exactDate(text []byte) bool {
	d, ok := splitDate(text)
	return ok && d.exact
}

func (o *ocsf) times() {
	w := o.w
	w.Out = msgp.AppendInt64(append(w.Out, keyTime...), milliseconds(o.own.Sec, o.own.Nsec))
	w.Count(1)
	t := &o.exported
	if o.r.Lifted {
		if stamp := readTime(o.get(slotTimestamp)); stamp.is(o.own) {
			t = &stamp
		}
	}
	if t.exact && t.is(o.own) {
		w.Out = msgp.AppendStringFromBytes(append(w.Out, keyTimeDT...), t.text)
		w.Count(1)
	}
}

func milliseconds(sec int64, nsec uint32) int64 { return sec*1000 + int64(nsec/1_000_000) }

// envelope returns the text of a member of the envelope.
func (o *ocsf) envelope(n uint32) []byte {
	if n == 0 {
		return nil
	}
	return o.unescaped(&o.r.Doc, n)
}

func (o *ocsf) message() {
	text := o.get(slotTitle)
	if len(text) == 0 {
		text = o.get(slotActionType)
	}
	o.w.Out = append(o.w.Out, keyMessage...)
	if len(text) > 0 {
		o.w.Out = msgp.AppendStringFromBytes(o.w.Out, text)
	} else {
		o.w.Out = msgp.AppendString(o.w.Out, o.own.Table)
	}
	o.w.Count(1)
}

func (o *ocsf) metadata(ready *ocsfReady) {
	w := o.w
	w.Out = append(w.Out, keyMetadata...)
	w.Count(1)
	at := len(w.Out)
	w.Out = append(w.Out, 0xde, 0, 0)
	w.Out = append(w.Out, ready.metadata...)
	n := ready.inner
	text := func(key, value []byte) {
		if len(value) > 0 {
			w.Out = msgp.AppendStringFromBytes(append(w.Out, key...), value)
			n++
		}
	}
	moment := func(key, twin []byte, t *ocsfTime) {
		if t.ok {
			w.Out = msgp.AppendInt64(append(w.Out, key...), milliseconds(t.sec, t.nsec))
			n++
			if t.exact {
				text(twin, t.text)
			}
		}
	}
	text(keyUID, o.own.ID)
	if o.r.Lifted {
		if original := o.get(slotTimestamp); len(original) > 0 {
			text(keyOriginalTime, original)
			o.take(slotTimestamp)
		}
		if code := o.get(slotActionType); len(code) > 0 {
			text(keyEventCode, code)
			o.take(slotActionType)
		}
		if report := o.get(slotReportID); len(report) > 0 {
			text(keyOriginalUID, report)
			o.take(slotReportID)
		}
		for _, s := range correlationSlots {
			if id := o.get(s); len(id) > 0 {
				text(keyCorrelation, id)
				o.take(s)
				break
			}
		}
	}
	text(keyTenant, o.envelope(o.r.Envelope.TenantID))
	moment(keyLogged, keyLoggedDT, &o.received)
	moment(keyTransmit, keyTransmitDT, &o.exported)
	w.Out[at+2] = byte(n)
}

// observables writes what others look for, once each. A base event's have no name: its class has
// none of these attributes.
func (o *ocsf) observables(lay *ocsfLayout, base bool) {
	s := o.sheet
	for _, i := range lay.observed {
		f := o.m.observables[i].field
		if !s.has(f) {
			continue
		}
		switch s.form.fields[f].kind {
		case fieldValue:
			o.observe(i, s.textOf(f))
		case fieldList:
			for at := s.slot(f).first; at != none; at = s.entries[at].next {
				if s.entries[at].kind == entryText {
					o.observe(i, bytesOf(s.entries[at].text))
				}
			}
			for j := range o.hashes {
				if o.hashes[j].field == f {
					o.observe(i, o.hashes[j].text)
				}
			}
		}
	}
	if len(o.seen) == 0 {
		return
	}
	w := o.w
	w.Out = msgp.AppendArrayHeader(append(w.Out, keyObservables...), uint32(len(o.seen)))
	w.Count(1)
	for i := range o.seen {
		ob := &o.m.observables[o.seen[i].observable]
		if base {
			w.Out = append(append(w.Out, 0x83), ob.bare...)
		} else {
			w.Out = append(append(w.Out, 0x84), ob.named...)
		}
		w.Out = msgp.AppendStringFromBytes(append(w.Out, keyValue...), o.seen[i].text)
	}
}

func (o *ocsf) observe(i int, text []byte) {
	if len(text) == 0 || len(o.seen) >= maxObservables {
		return
	}
	for j := range o.seen {
		if len(o.seen[j].text) == len(text) && o.m.observables[o.seen[j].observable].id == o.m.observables[i].id && string(o.seen[j].text) == string(text) {
			return
		}
	}
	o.seen = append(o.seen, ocsfSeen{i, text})
}

// rest writes the columns that no attribute holds whole into unmapped.
func (o *ocsf) rest() {
	w, r := o.w, o.r
	mark := len(w.Out)
	w.Out = append(w.Out, o.names.Key(o.unmapped)...)
	w.OpenMap()
	for i := range o.columns {
		if w.Over() {
			break
		}
		c := &o.columns[i]
		switch {
		case o.sheet.taken[i]:
		case c.packed != nil:
			w.Key(c.name)
			w.Out = append(w.Out, c.packed...)
		case o.names.Class(c.name) != record.ClassAny && !event.LongKey(&r.Columns, c.key):
			w.Column(r, c.name, o.names.Class(c.name), c.key+1)
		default:
			w.Member(c.name, &r.Columns, c.key, 3)
		}
	}
	o.restOfEnvelope()
	if d := o.own.Device; d != nil && d.ID == nil {
		o.restOfDevice(d)
	}
	w.AddRepairs(o.repairs)
	w.Repairs(event.NameRepairedText)
	if w.Fields() == 0 {
		w.Close()
		w.Truncate(mark)
		return
	}
	w.Close()
	w.Count(1)
}

// restOfEnvelope writes the members of the envelope that have no attribute.
func (o *ocsf) restOfEnvelope() {
	w, doc, e := o.w, &o.r.Doc, &o.r.Envelope
	if e.Operation != 0 && !(o.r.Lifted && string(doc.Inner(e.Operation)) == "Publish") {
		w.Text(event.NameOperationName, doc, e.Operation)
	}
	if e.Tenant != 0 && string(doc.Inner(e.Tenant)) != "DefaultTenant" {
		w.Text(event.NameTenantName, doc, e.Tenant)
	}
	if e.Category != 0 && !o.own.Exact {
		w.Text(event.NameCategory, doc, e.Category)
	}
	if len(o.exported.text) > 0 && !o.exported.exact { // no attribute has it
		w.Text(event.NameExportedAt, doc, e.Time)
	}
	if len(o.received.text) > 0 && !o.received.exact {
		w.Text(event.NameReceivedAt, doc, e.Received)
	}
	if o.r.Bare {
		return // all of it is columns
	}
	alert := isAlert(o.r, o.own)
	hint := int32(-1)
	for k, end := uint32(1), doc.Nodes[0].Next; k < end && !w.Over(); k = doc.Nodes[k+1].Next {
		switch v := k + 1; v {
		case e.Time, e.TenantID, e.Operation, e.Category, e.Received, e.Tenant:
		case o.r.Properties:
			if !o.r.Lifted {
				id := w.Child(event.Root(0), doc, k, &hint)
				switch {
				case !o.own.Hunting:
					w.Field(id, doc, v, 3)
				case doc.Nothing(v):
				default:
					w.Misfit(id, doc, v)
				}
			}
		default:
			id := w.Child(event.Root(0), doc, k, &hint)
			if c := alertClass(alert, doc, k); c != record.ClassAny {
				w.Column(o.r, id, c, v)
			} else {
				w.Member(id, doc, k, 3)
			}
		}
	}
}

// restOfDevice writes the known facts although no device was found.
func (o *ocsf) restOfDevice(d *event.Device) {
	w := o.w
	for i := range d.Columns {
		w.Key(o.deviceName(d.Columns[i].Name))
		w.Out = append(w.Out, d.Columns[i].Value...)
	}
	if d.Match != "" {
		w.Str(o.deviceName("match"), d.Match)
	}
	if d.Status != "" {
		w.Str(o.deviceName("status"), d.Status)
	}
}

func (o *ocsf) deviceName(name string) event.Name {
	from := len(o.text)
	o.text = append(append(o.text, "DeviceInfo."...), name...)
	return o.names.ID(event.Root(0), o.text[from:])
}

// unreadable writes a piece of text that could not be read: a base event.
func (o *ocsf) unreadable(w *event.Writer, u *Unreadable) {
	heads := o.headsOf(UnreadableTable)
	ready := &heads.prepare(o.m, nil).base
	w.Out = append(w.Out, ready.constants...)
	w.Count(ready.members)
	w.Out = append(w.Out, packedInfo...)
	w.Count(2)
	w.Out = msgp.AppendInt64(append(w.Out, keyTime...), milliseconds(u.Sec, u.Nsec))
	w.Out = msgp.AppendString(append(w.Out, keyMessage...), UnreadableTable)
	w.Out = msgp.AppendInt64(msgp.AppendString(w.Out, "status_id"), 2)
	w.Out = msgp.AppendString(msgp.AppendString(w.Out, "status"), "Failure")
	w.Out = msgp.AppendString(msgp.AppendString(w.Out, "status_detail"), u.Reason)
	w.Out = append(w.Out, keyMetadata...)
	n := ready.inner
	if u.ID != nil {
		n++
	}
	w.Out = append(msgp.AppendMapHeader(w.Out, uint32(n)), ready.metadata...)
	if u.ID != nil {
		w.Out = msgp.AppendStringFromBytes(append(w.Out, keyUID...), u.ID)
	}
	w.Out = append(w.Out, o.names.Key(o.names.ID(event.Root(0), []byte("unmapped")))...)
	w.Count(7)
	w.OpenMap()
	id := u.ID
	u.ID = nil // it is metadata.uid
	unreadable(w, u)
	u.ID = id
	w.Close()
}
