package record

import "strings"

// A Record is one record as received: its tree, and where in it the members of the envelope are.
// It is complete before anything of it is written, so that it can be looked at, and kept, first.
type Record struct {
	Doc      Tree
	Envelope Envelope

	// Records: an array or object "records" inside the record, or inside its "body". Then the
	// record is an envelope. 0 if there is none.
	Records uint32

	// The columns: the members of node Props of tree Columns. Columns is Doc, or the tree of an
	// opened properties string. Not Lifted: a record of another product, whose members are passed
	// on unchanged. Bare: the record is its own columns and has no envelope.
	Lifted     bool
	Bare       bool
	Properties uint32 // node of Doc, 0 if absent
	Columns    Tree
	Props      uint32

	category string // of a bare record: the one that the stream gives its table
	opened   []opened
	nodes    []Node // of Doc and everything opened
	text     []byte // of everything opened
}

// Envelope has the members around the columns: nodes of Doc, 0 for those that are absent or not a
// string.
type Envelope struct {
	Time, TenantID, Operation, Category, Received, Tenant uint32
}

// opened is JSON in a string, opened.
type opened struct {
	value uint32 // the string: a node of Columns
	tree  Tree   // without nodes if it is not JSON
}

const (
	// KeepBytes: a buffer keeps at most this much between two calls. The rest, from a giant
	// payload, goes back.
	KeepBytes = 1 << 20

	// NodeBytes is the size of a node.
	NodeBytes = 16

	// maxOpened is how many opened columns are remembered; no table has that many. Beyond it they
	// are opened at each look.
	maxOpened = 8

	// maxWrapped is how often JSON text in a string may itself be JSON text in a string.
	maxWrapped = 2

	// HuntingPrefix begins the category of every table of Advanced Hunting.
	HuntingPrefix = "AdvancedHunting-"
)

// Unknown is the table of a record without a category that is not known from another product.
const Unknown = "unknown"

// Release lets go of the text, and of the memory that a giant record needed.
func (r *Record) Release() {
	r.Doc, r.Columns = Tree{}, Tree{}
	clear(r.opened)
	r.opened = r.opened[:0]
	if cap(r.nodes) > KeepBytes/16 {
		r.nodes = nil
	}
	if cap(r.text) > KeepBytes {
		r.text = nil
	}
}

// Size is how many bytes the trees take.
func (r *Record) Size() int { return NodeBytes*cap(r.nodes) + cap(r.text) }

// Read parses the value that begins at src[at] and, if it is an object, finds the members of the
// envelope. It returns where the value ends. The record points into src until Release.
func (r *Record) Read(s *Scanner, src []byte, at int) (end int, err error) {
	r.nodes, end, err = s.Parse(src, at, r.nodes[:0])
	if err != nil {
		return end, err
	}
	clear(r.opened)
	*r = Record{Doc: Tree{src, r.nodes}, opened: r.opened[:0], nodes: r.nodes, text: r.text[:0]}
	if r.Doc.Nodes[0].Kind != KindObject {
		return end, ErrNotObject
	}
	r.envelope(s)
	return end, nil
}

// Scratch parses the value that begins at b[i] into the buffers of r, which then hold no record,
// and returns where it ends.
func (r *Record) Scratch(s *Scanner, b []byte, i int) (end int, err error) {
	r.nodes, end, err = s.Parse(b, i, r.nodes[:0])
	return end, err
}

// ReadColumns makes r a record of nothing but columns: the properties of a record, as JSON text.
// It returns false if they are no object. The record points into properties until Release.
func (r *Record) ReadColumns(s *Scanner, properties []byte) bool {
	nodes, end, err := s.Parse(properties, 0, r.nodes[:0])
	if err != nil || SkipSpace(properties, end) != len(properties) || nodes[0].Kind != KindObject {
		return false
	}
	clear(r.opened)
	*r = Record{Columns: Tree{properties, nodes}, Lifted: true, opened: r.opened[:0], nodes: nodes, text: r.text[:0]}
	return true
}

func (r *Record) envelope(s *Scanner) {
	doc := &r.Doc
	for k, end := uint32(1), doc.Nodes[0].Next; k < end; k = doc.Nodes[k+1].Next {
		if slot := r.Envelope.slot(doc.Inner(k)); slot != nil && *slot == 0 && doc.Nodes[k+1].Kind == KindString {
			*slot = k + 1
			continue
		}
		switch string(doc.Inner(k)) {
		case "properties":
			if r.Properties == 0 {
				r.Properties = k + 1
			}
		case "records":
			if r.Records == 0 && doc.Nodes[k+1].Kind >= KindArray {
				r.Records = k + 1
			}
		case "body":
			if in := doc.Find(k+1, "records"); in != 0 && r.Records == 0 && doc.Nodes[in].Kind >= KindArray {
				r.Records = in
			}
		}
	}
	if r.hunting() {
		r.lift(s)
	} else if r.Envelope.Category == 0 {
		r.bare()
	}
	if !r.Lifted {
		r.Columns = r.Doc
	}
}

// slot returns where the value of a member of the envelope belongs, or nil.
func (e *Envelope) slot(key []byte) *uint32 {
	switch string(key) {
	case "time":
		return &e.Time
	case "tenantId":
		return &e.TenantID
	case "operationName":
		return &e.Operation
	case "category":
		return &e.Category
	case "_TimeReceivedBySvc":
		return &e.Received
	case "Tenant":
		return &e.Tenant
	}
	return nil
}

// IsEnvelopeKey reports whether a member with this key belongs to the envelope and is a string
// there.
func IsEnvelopeKey(key []byte) bool {
	var e Envelope
	return e.slot(key) != nil
}

// hunting reports whether the category is of Advanced Hunting.
func (r *Record) hunting() bool {
	n := r.Envelope.Category
	if n == 0 {
		return false
	}
	text := r.Doc.Inner(n)
	if r.Doc.Nodes[n].Flags&FlagEscaped != 0 {
		text, _ = AppendText(nil, text)
	}
	return IsHunting(View(text))
}

// IsHunting reports whether a category is of Advanced Hunting: it begins with HuntingPrefix, in any
// case.
func IsHunting(category string) bool {
	return len(category) >= len(HuntingPrefix) &&
		(category[:len(HuntingPrefix)] == HuntingPrefix || strings.EqualFold(category[:len(HuntingPrefix)], HuntingPrefix))
}

// lift finds the columns. properties that are a string of JSON are opened like any such column.
func (r *Record) lift(s *Scanner) {
	if r.Properties == 0 {
		return
	}
	switch r.Doc.Nodes[r.Properties].Kind {
	case KindObject:
		r.Columns, r.Props, r.Lifted = r.Doc, r.Properties, true
	case KindString:
		if in := r.parseString(s, &r.Doc, r.Properties); len(in.Nodes) > 0 && in.Nodes[0].Kind == KindObject {
			r.Columns, r.Props, r.Lifted = in, 0, true
		}
	}
}

// Category is the category as received, escapes and all. A bare record has that of its table. A
// record of another product has the name of its table in Azure. It may point into the record's
// text.
func (r *Record) Category() string {
	if r.category != "" {
		return r.category
	}
	if r.Envelope.Category != 0 {
		return View(r.Doc.Inner(r.Envelope.Category))
	}
	return product(&r.Doc)
}

// product names the tables of records that have no category. Microsoft Defender for Cloud exports
// alerts as bare objects, and recommendations and scores as Azure resources. The spelling of names
// differs. Their tables have Azure's names for the same data. A record of a Log Analytics export
// names its table itself.
func product(doc *Tree) string {
	if doc.Find(0, "SystemAlertId") != 0 || doc.Find(0, "AlertType") != 0 && doc.Find(0, "VendorName") != 0 {
		return AlertTable
	}
	if n := doc.Find(0, "type"); n != 0 && doc.Nodes[n].Kind == KindString {
		if name := resource(doc.Inner(n)); name != "" {
			return name
		}
	}
	n := doc.Find(0, "Type")
	if n == 0 || doc.Nodes[n].Kind != KindString {
		return Unknown
	}
	if name := resource(doc.Inner(n)); name != "" {
		return name
	}
	if doc.Find(0, "TimeGenerated") != 0 && isTableName(doc.Inner(n)) {
		return View(doc.Inner(n))
	}
	return Unknown
}

// resource is the table of a type of Azure resource, or "".
func resource(kind []byte) string {
	const security = "microsoft.security/"
	if len(kind) <= len(security) || !equalFold(kind[:len(security)], security) {
		return ""
	}
	switch kind = kind[len(security):]; {
	case is(kind, "assessments"):
		return "SecurityRecommendation"
	case is(kind, "subassessments"), is(kind, "assessments/subassessments"):
		return "SecurityNestedRecommendation"
	case is(kind, "securescores"):
		return "SecureScores"
	case is(kind, "securescores/securescorecontrols"):
		return "SecureScoreControls"
	case is(kind, "locations/alerts"), is(kind, "alerts"):
		return AlertTable
	case is(kind, "regulatorycompliancestandards/regulatorycompliancecontrols/regulatorycomplianceassessments"),
		is(kind, "regulatorycompliancestandards"), is(kind, "regulatorycompliancestandards/regulatorycompliancecontrols"):
		return "SecurityRegulatoryCompliance"
	}
	return ""
}

func is(kind []byte, lower string) bool { return len(kind) == len(lower) && equalFold(kind, lower) }

// isTableName tells a table of a workspace, such as DeviceEvents, from other types.
func isTableName(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return len(b) > 2 && len(b) <= 64 && 'A' <= b[0] && b[0] <= 'Z'
}

// Open returns the JSON in the string at node n of the columns, or a tree without nodes if it is
// none.
func (r *Record) Open(s *Scanner, n uint32) Tree {
	for i := range r.opened {
		if r.opened[i].value == n {
			return r.opened[i].tree
		}
	}
	in := r.parseString(s, &r.Columns, n)
	for range maxWrapped { // JSON text inside JSON text
		if len(in.Nodes) == 0 || in.Nodes[0].Kind != KindString {
			break
		}
		inside := r.parseString(s, &in, 0)
		if len(inside.Nodes) == 0 || inside.Nodes[0].Kind < KindString {
			break
		}
		in = inside
	}
	if len(r.opened) < maxOpened {
		r.opened = append(r.opened, opened{n, in})
	}
	return in
}

// Inside returns the JSON in the string at node n of a tree, or a tree without nodes if it is none.
func (r *Record) Inside(s *Scanner, tr *Tree, n uint32) Tree { return r.parseString(s, tr, n) }

func (r *Record) parseString(s *Scanner, tr *Tree, n uint32) Tree {
	text := tr.Inner(n)
	if tr.Nodes[n].Flags&FlagEscaped != 0 {
		from := len(r.text)
		r.text, _ = Unescape(r.text, text, false)
		text = r.text[from:len(r.text):len(r.text)]
	}
	from := len(r.nodes)
	nodes, end, err := s.Parse(text, 0, r.nodes)
	if err != nil || SkipSpace(text, end) != len(text) {
		return Tree{}
	}
	r.nodes = nodes
	return Tree{text, nodes[from:len(nodes):len(nodes)]}
}

// Column returns the tree and the node of a column, opened if it is JSON in a string. It returns
// false if there is no such column, or nothing to look into.
func (r *Record) Column(s *Scanner, name string) (Tree, uint32, bool) {
	if !r.Lifted {
		return Tree{}, 0, false
	}
	n := r.Columns.Find(r.Props, name)
	if n == 0 {
		return Tree{}, 0, false
	}
	if r.Columns.Nodes[n].Kind == KindString && ClassOf(name) >= ClassObject {
		in := r.Open(s, n)
		return in, 0, len(in.Nodes) > 0
	}
	return r.Columns, n, true
}

// AppendTenant appends the tenant of the record, in lower case. A bare record names its workspace
// instead: devices of one workspace are not mixed with those of another.
func (r *Record) AppendTenant(dst []byte) []byte {
	n := r.Envelope.TenantID
	if r.Bare {
		n = r.Doc.Find(0, "TenantId")
	}
	if n == 0 || r.Doc.Nodes[n].Kind != KindString {
		return dst
	}
	from := len(dst)
	dst, _ = AppendText(dst, r.Doc.Inner(n))
	for i, c := range dst[from:] {
		if 'A' <= c && c <= 'Z' {
			dst[from+i] = c + 'a' - 'A'
		}
	}
	return dst
}
