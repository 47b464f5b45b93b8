package format

import (
	_ "embed"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

var (
	//go:embed ecs.txt
	ecsRules string
	//go:embed ecs_columns.txt
	ecsColumns string
	//go:embed ecs_fields.txt
	ecsFields string
)

// indexType: how an index holds a field, and so which values it takes.
type indexType uint8

const (
	typeKeyword   indexType = iota // any text
	typeLong                       // an integer
	typeDate                       // a time of RFC 3339
	typeBoolean                    // true or false
	typeIP                         // an address
	typeFlattened                  // objects
)

var indexTypes = map[string]indexType{
	"keyword": typeKeyword, "wildcard": typeKeyword, "match_only_text": typeKeyword, "constant_keyword": typeKeyword,
	"long": typeLong, "date": typeDate, "boolean": typeBoolean, "ip": typeIP, "flattened": typeFlattened, "object": typeFlattened,
}

// columnNumber numbers the columns that a mapping knows, from 0.
type columnNumber = uint16

// maxColumns is how many columns a mapping may know, and one more: a power of two, as maxFields.
const maxColumns = 512

// ecsColumn: a column of the stream, and where it stays when no field holds it whole.
type ecsColumn struct {
	name  string
	class record.Class
	typ   indexType // of rest
	rest  fieldID   // below m365_defender.event
	raw   fieldID   // for what rest cannot hold; rest itself if it can hold any text
	open  fieldID   // for the column as an object, beside its text in rest; 0 for none
	key   []byte    // of rest, in msgpack; nil if that is in an object of its own, or of several columns
}

// conversion: how a rule makes the value of a field from that of a column.
type conversion uint8

const (
	asText conversion = iota
	asLower
	asAction
	asLong
	asDate
	asIP
	asBoolean
	asList
	asEmail
	asBrackets
	asName
	asMAC
	asDefault
)

var conversions = map[string]conversion{
	"text": asText, "lower": asLower, "action": asAction, "long": asLong, "date": asDate, "ip": asIP, "boolean": asBoolean,
	"list": asList, "email": asEmail, "brackets": asBrackets, "name": asName, "mac": asMAC, "default": asDefault,
}

// rule: one line of the mapping.
type rule struct {
	column   columnNumber
	member   string // of AdditionalFields, if column is that and this is not empty
	constant []byte // instead of a column
	field    fieldID
	how      conversion
	keeps    bool // a value that is unchanged need not stay below m365_defender.event
}

// step: rules that have a condition in common.
type step struct {
	actions []pattern    // of ActionType: one of them
	other   columnNumber // or a column, whose text is value
	value   pattern
	when    bool // there is a condition
	byOther bool
	rules   []rule
}

// pattern: pieces of text in lower case, with any text between them.
type pattern []string

func newPattern(text string) pattern { return strings.Split(strings.ToLower(text), "*") }

func (p pattern) match(b []byte) bool {
	if len(p) == 1 {
		return equalFold(b, p[0])
	}
	last := len(p) - 1
	if !hasPrefixFold(b, p[0]) {
		return false
	}
	b = b[len(p[0]):]
	for _, piece := range p[1:last] {
		at := 0
		for ; !hasPrefixFold(b[at:], piece); at++ {
			if at == len(b) {
				return false
			}
		}
		b = b[at+len(piece):]
	}
	return hasSuffixFold(b, p[last])
}

// mapping: the rules of ECS, compiled.
type mapping struct {
	form     *form
	types    map[string]indexType // of the fields of ECS
	columns  []ecsColumn
	byName   map[string]columnNumber
	programs map[string]*[2][]step // by table, then by role
	general  [2][]step             // of the tables that have no rules of their own
}

// beneath holds the columns that are not whole in a field of ECS.
const beneath = "m365_defender.event."

// envelopeFields are those below m365_defender.event that are no columns.
var envelopeFields = []string{
	"category", "tenant.id", "tenant.name", "operation_name", "time date", "time_raw", "time_received_by_svc date", "time_received_by_svc_raw",
	"repaired_text long", "severity", "unreadable.reason", "unreadable.encoding", "unreadable.lane", "unreadable.offset long", "unreadable.at long",
	"unreadable.part long", "unreadable.parts long",
}

// dataLines calls do for every line that is not empty or a comment, split at blanks.
func dataLines(text string, do func(words []string) error) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if err := do(words); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// newMapping compiles the rules. An error is a fault of the data that is built in.
func newMapping(rules, columns, fields string) (*mapping, error) {
	m := &mapping{byName: make(map[string]columnNumber), types: make(map[string]indexType), programs: make(map[string]*[2][]step)}
	var names []string
	err := dataLines(fields, func(w []string) error {
		typ, ok := indexTypes[w[1]]
		if len(w) > 3 || !ok {
			return fmt.Errorf("%s is not a field, its type, and list or set", w)
		}
		m.types[w[0]] = typ
		switch {
		case len(w) == 2:
			names = append(names, w[0])
		case w[2] == "list":
			names = append(names, w[0]+"[]")
		case w[2] == "set":
			names = append(names, w[0]+"{}")
		default:
			return fmt.Errorf("%s is not list or set", w[2])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fields: %w", err)
	}
	for _, f := range envelopeFields {
		name, _, _ := strings.Cut(f, " ")
		names = append(names, beneath+name)
	}
	taken, several := make(map[string]bool), make(map[string]bool)
	err = dataLines(columns, func(w []string) error {
		c := ecsColumn{name: w[0], class: record.ClassOf(w[0])}
		if len(w) > 2 {
			c.typ = indexTypes[w[2]]
		}
		m.byName[c.name] = columnNumber(len(m.columns))
		m.columns = append(m.columns, c)
		name := beneath + w[1]
		several[w[1]] = taken[name] // two spellings of one column share a name
		if !taken[name] {
			taken[name] = true
			names = append(names, name)
			switch {
			case c.typ == typeKeyword && c.class == record.ClassObject: // as text, and opened beside it
				names = append(names, name+"_object")
			case c.typ != typeKeyword || c.class >= record.ClassObject:
				names = append(names, name+"_raw")
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("columns: %w", err)
	}
	if len(m.columns) >= maxColumns {
		return nil, fmt.Errorf("%d columns are too many", len(m.columns))
	}
	if m.form, err = newForm(names); err != nil {
		return nil, err
	}
	_ = dataLines(columns, func(w []string) error {
		c := &m.columns[m.byName[w[0]]]
		c.rest = m.form.byName[beneath+w[1]]
		c.raw = c.rest
		if raw, ok := m.form.field(beneath + w[1] + "_raw"); ok {
			c.raw = raw
		}
		c.open = m.form.byName[beneath+w[1]+"_object"]
		if !strings.Contains(w[1], ".") && !several[w[1]] {
			c.key = msgp.AppendString(nil, w[1])
		}
		return nil
	})
	if err := m.compile(rules); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return m, nil
}

// line: a rule before it is compiled.
type line struct {
	tables                           []string
	condition, column, field, method string
}

func (m *mapping) compile(rules string) error {
	var lines []line
	tables := make(map[string]bool)
	err := dataLines(rules, func(w []string) error {
		// Conditions and constants may have blanks in them, so the parts around them are cut off
		// from both ends.
		if len(w) < 5 {
			return fmt.Errorf("%q has fewer than five parts", w)
		}
		l := line{tables: strings.Split(w[0], ","), method: w[len(w)-1], field: w[len(w)-2], column: w[len(w)-3], condition: strings.Join(w[1:len(w)-3], " ")}
		for _, t := range l.tables {
			tables[t] = true
		}
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		return err
	}
	for table := range tables {
		program := new([2][]step)
		for r := range program {
			for _, general := range []bool{false, true} {
				for _, l := range lines {
					if slices.Contains(l.tables, "*") != general || !general && !slices.Contains(l.tables, table) {
						continue
					}
					if err := m.add(&program[r], l, role(r)); err != nil {
						return fmt.Errorf("%+v: %w", l, err)
					}
				}
			}
		}
		if table == "*" {
			m.general = *program
		} else {
			m.programs[table] = program
		}
	}
	return nil
}

// add compiles l, for one role, into a program.
func (m *mapping) add(program *[]step, l line, as role) error {
	name, whose := l.field, "process"
	if rest, ok := strings.CutPrefix(name, "initiator."); ok {
		if as == initiatorIsParent {
			whose = "process.parent"
		}
		name = whose + "." + rest
	} else if rest, ok := strings.CutPrefix(name, "own."); ok {
		if as != initiatorIsParent {
			return nil
		}
		name = "process." + rest
	} else if rest, ok := strings.CutPrefix(name, "actor."); ok {
		if as != initiatorIsProcess {
			return nil
		}
		name = "process.parent." + rest
	}
	field, ok := m.form.field(name)
	if !ok {
		return fmt.Errorf("%s is no field", name)
	}
	how, ok := conversions[l.method]
	if !ok {
		return fmt.Errorf("%s is no conversion", l.method)
	}
	r := rule{field: field, how: how, keeps: !strings.HasPrefix(name, "related.")}
	if constant, ok := strings.CutPrefix(l.column, "="); ok {
		r.constant, r.column, r.keeps = []byte(constant), m.constant(), false
	} else {
		whole, member, _ := strings.Cut(l.column, ".")
		if r.column, ok = m.byName[whole]; !ok {
			return fmt.Errorf("%s is no column", whole)
		}
		r.member = member
		if how == asDefault {
			return fmt.Errorf("a default is a constant")
		}
	}
	s := step{}
	if l.condition != "-" {
		s.when = true
		if col, value, ok := strings.Cut(l.condition, "="); ok {
			if s.other, ok = m.byName[col]; !ok {
				return fmt.Errorf("%s is no column", col)
			}
			s.byOther, s.value = true, newPattern(value)
		} else {
			for _, p := range strings.Split(l.condition, "|") {
				s.actions = append(s.actions, newPattern(p))
			}
		}
	}
	if n := len(*program); n > 0 {
		last := &(*program)[n-1]
		same := last.when == s.when && last.byOther == s.byOther && last.other == s.other && slices.Equal(last.value, s.value) &&
			slices.EqualFunc(last.actions, s.actions, func(a, b pattern) bool { return slices.Equal(a, b) })
		if same {
			last.rules = append(last.rules, r)
			return nil
		}
	}
	s.rules = []rule{r}
	*program = append(*program, s)
	return nil
}

// resolve fills a struct of column numbers and field numbers. A columnNumber has the name of its
// column, or the name in its tag. A fieldID has its name in the tag, behind prefix. An unknown name
// is an error.
func (m *mapping) resolve(to any, prefix string) error {
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, tagged := f.Tag.Lookup("ecs")
		at := v.Field(i).Addr().UnsafePointer() // the fields are not exported
		switch f.Type {
		case reflect.TypeFor[fieldID]():
			id, ok := m.form.field(prefix + tag)
			if !ok {
				return fmt.Errorf("%s is no field", prefix+tag)
			}
			*(*fieldID)(at) = id
		case reflect.TypeFor[columnNumber]():
			if !tagged {
				tag = f.Name
			}
			n, ok := m.byName[tag]
			if !ok {
				return fmt.Errorf("%s is no column", tag)
			}
			*(*columnNumber)(at) = n
		}
	}
	return nil
}
