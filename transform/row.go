package transform

// A row is one record as received: its tree, and where in it the members of the envelope are. It is complete before
// anything of it is written, so that a record can be looked at, and kept, before it is passed on.
type row struct {
	doc   tree
	table *table
	held  *heldRow // it has waited for its device

	// The envelope's members: nodes of doc, 0 for those that are absent or not a string.
	time, tenantID, operation, category, received, tenant uint32

	// records is an array or object "records" inside the record, or inside its "body": then it is an envelope.
	records uint32

	// The columns: the members of node props of tree columns. columns is doc, or what a properties string
	// was opened into. Not lifted: another product's record, whose members are passed on as they are.
	lifted     bool
	properties uint32 // node of doc, 0 if absent
	columns    tree
	props      uint32

	opened []opened
	nodes  []node // of doc and everything opened
	text   []byte // of everything opened
}

// opened is JSON in a string, opened.
type opened struct {
	value uint32 // the string: a node of columns
	tree  tree   // without nodes if it is not JSON
}

// maxOpened is how many opened columns are remembered; no table has that many. Beyond it they are opened at each look.
const maxOpened = 8

func (r *row) release() {
	r.doc, r.columns = tree{}, tree{}
	clear(r.opened)
	r.opened = r.opened[:0]
	if cap(r.nodes) > keepBytes/16 {
		r.nodes = nil
	}
	if cap(r.text) > keepBytes {
		r.text = nil
	}
}

// read parses the value that begins at src[at] and, if it is an object, finds the members of the envelope. It returns
// where the value ends.
func (t *Transformer) read(r *row, src []byte, at int) (end int, err error) {
	r.nodes, end, err = t.scanner.parse(src, at, r.nodes[:0])
	if err != nil {
		return end, err
	}
	clear(r.opened)
	*r = row{doc: tree{src, r.nodes}, opened: r.opened[:0], nodes: r.nodes, text: r.text[:0]}
	if r.doc.nodes[0].kind != kindObject {
		return end, errNotObject
	}
	t.envelope(r)
	return end, nil
}

func (t *Transformer) envelope(r *row) {
	doc := &r.doc
	for k, end := uint32(1), doc.nodes[0].next; k < end; k = doc.nodes[k+1].next {
		if slot := r.slot(doc.inner(k)); slot != nil && *slot == 0 && doc.nodes[k+1].kind == kindString {
			*slot = k + 1
			continue
		}
		switch string(doc.inner(k)) {
		case "properties":
			if r.properties == 0 {
				r.properties = k + 1
			}
		case "records":
			if r.records == 0 && doc.nodes[k+1].kind >= kindArray {
				r.records = k + 1
			}
		case "body":
			if in := doc.find(k+1, "records"); in != 0 && r.records == 0 && doc.nodes[in].kind >= kindArray {
				r.records = in
			}
		}
	}
	if r.category != 0 {
		r.table = t.table(view(doc.inner(r.category)))
		if r.table.hunting {
			r.lift(&t.scanner)
		}
		return
	}
	r.table = t.table(product(doc))
}

// slot returns where the value of a member of the envelope belongs, or nil.
func (r *row) slot(key []byte) *uint32 {
	switch string(key) {
	case "time":
		return &r.time
	case "tenantId":
		return &r.tenantID
	case "operationName":
		return &r.operation
	case "category":
		return &r.category
	case "_TimeReceivedBySvc":
		return &r.received
	case "Tenant":
		return &r.tenant
	}
	return nil
}

// lift finds the columns. properties that are a string of JSON are opened like any such column.
func (r *row) lift(s *scanner) {
	if r.properties == 0 {
		return
	}
	switch r.doc.nodes[r.properties].kind {
	case kindObject:
		r.columns, r.props, r.lifted = r.doc, r.properties, true
	case kindString:
		if in := r.parseString(s, &r.doc, r.properties); len(in.nodes) > 0 && in.nodes[0].kind == kindObject {
			r.columns, r.props, r.lifted = in, 0, true
		}
	}
}

// product names the tables of records that have no category. Microsoft Defender for Cloud exports alerts as bare
// objects, and recommendations and scores as Azure resources; their names are those that Azure gives the same data
// as a table.
func product(doc *tree) string {
	if doc.find(0, "SystemAlertId") != 0 || doc.find(0, "AlertType") != 0 && doc.find(0, "VendorName") != 0 {
		return "SecurityAlert"
	}
	if n := doc.find(0, "type"); n != 0 && doc.nodes[n].kind == kindString {
		switch string(doc.inner(n)) {
		case "Microsoft.Security/assessments":
			return "SecurityRecommendation"
		case "Microsoft.Security/subAssessments", "Microsoft.Security/assessments/subAssessments":
			return "SecurityNestedRecommendation"
		case "Microsoft.Security/secureScores":
			return "SecureScores"
		case "Microsoft.Security/secureScores/secureScoreControls":
			return "SecureScoreControls"
		}
	}
	return Unknown
}

// open returns what the string at node n of the columns holds as JSON: a tree without nodes if it is none.
func (r *row) open(s *scanner, n uint32) tree {
	for i := range r.opened {
		if r.opened[i].value == n {
			return r.opened[i].tree
		}
	}
	in := r.parseString(s, &r.columns, n)
	if len(r.opened) < maxOpened {
		r.opened = append(r.opened, opened{n, in})
	}
	return in
}

func (r *row) parseString(s *scanner, tr *tree, n uint32) tree {
	text := tr.inner(n)
	if tr.nodes[n].flags&flagEscaped != 0 {
		from := len(r.text)
		r.text, _ = unescape(r.text, text, false)
		text = r.text[from:len(r.text):len(r.text)]
	}
	from := len(r.nodes)
	nodes, end, err := s.parse(text, 0, r.nodes)
	if err != nil || skipSpace(text, end) != len(text) {
		return tree{}
	}
	r.nodes = nodes
	return tree{text, nodes[from:len(nodes):len(nodes)]}
}

// column returns the tree and the node of a column, opened if it is JSON in a string, and false if there is no
// such column or it holds nothing to look into.
func (r *row) column(s *scanner, name string) (tree, uint32, bool) {
	if !r.lifted {
		return tree{}, 0, false
	}
	n := r.columns.find(r.props, name)
	if n == 0 {
		return tree{}, 0, false
	}
	if r.columns.nodes[n].kind == kindString && columnClasses[name] >= classObject {
		in := r.open(s, n)
		return in, 0, len(in.nodes) > 0
	}
	return r.columns, n, true
}
