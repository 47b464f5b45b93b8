package format

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

//go:embed ocsf.txt
var ocsfText string

// ocsfMapping is ocsf.txt, compiled. It is not changed after that.
type ocsfMapping struct {
	form        *form
	slots       []string              // columns and members that the mapping reads, by slot
	bySlot      map[string]ocsfSlot   // slot of a column, or of Column.member
	members     []map[string]ocsfSlot // by slot of a column with JSON in it: the members that are read
	classes     map[string]*ocsfClass
	enums       map[string]ocsfEnum
	layouts     map[string]*ocsfLayout
	tables      map[string]*ocsfTable
	observables []ocsfObservable
	enrichments fieldID

	objects map[string]ocsfObject // only while it is compiled
}

// ocsfSlot numbers the columns and members that the mapping reads.
type ocsfSlot uint16

const noSlot ocsfSlot = 0xffff

type ocsfClass struct {
	name          string
	uid, category int64
	categoryName  string
	caption       string
	activities    map[int64]string
}

// ocsfEnum is a list of words and the ids that they have.
type ocsfEnum []ocsfWord

type ocsfWord struct {
	word    string // in lower case
	prefix  bool   // word is the beginning
	id      int64
	caption string
}

// ocsfLayout is how some records are written in one class.
type ocsfLayout struct {
	name     string
	class    *ocsfClass
	profiles []string // beyond the usual three
	steps    []ocsfStep
	needs    []ocsfNeed // inner objects first; the last ones are of the whole event
	observed []int      // the observables among its fields
}

// ocsfStep writes one attribute, or several of one object.
type ocsfStep struct {
	write  func(o *ocsf, st *ocsfStep)
	when   string // "", in or out
	field  fieldID
	fields []fieldID // what else it writes, in the order of its kind
	args   [][]ocsfSlot
	enum   ocsfEnum
	text   []byte // a constant
}

// ocsfNeed: object must have a field of each of any, or it is dropped.
type ocsfNeed struct {
	object fieldID
	any    [][]fieldID
}

// ocsfTable chooses a layout by the text in a column.
type ocsfTable struct {
	by    ocsfSlot
	rules []ocsfRule
	more  []ocsfMore
}

// ocsfMore are constants for events whose text matches a pattern, in any layout.
type ocsfMore struct {
	patterns  []pattern
	constants []ocsfConstant
}

type ocsfRule struct {
	patterns []pattern
	choices  []ocsfChoice
}

// ocsfChoice is a layout to try.
type ocsfChoice struct {
	layout    *ocsfLayout
	activity  int64
	constants []ocsfConstant
	ifSlot    ocsfSlot // only if this is not empty
	ifText    string   // and only with this text
}

// ocsfConstant is an attribute with a value that the rule gives: an id and its caption, or a
// boolean.
type ocsfConstant struct {
	name    string
	id      int64
	caption string
	boolean bool // id is 0 or 1
}

type ocsfObservable struct {
	field fieldID
	path  string
	named []byte // members of the element before the value, in msgpack: name, type_id, type
	bare  []byte // without name
	id    int64
}

// ocsfObject is a template.
type ocsfObject struct {
	needs string
	lines []ocsfLine
}

// ocsfLine is a line of ocsf.txt with those below it.
type ocsfLine struct {
	number int
	text   string
	below  []ocsfLine
}

// loadOCSF compiles ocsf.txt once. It panics if that is wrong, which a test would see.
var loadOCSF = sync.OnceValue(func() *ocsfMapping {
	m, err := compileOCSF(ocsfText)
	if err != nil {
		panic("BUG: ocsf.txt: " + err.Error())
	}
	return m
})

func compileOCSF(text string) (*ocsfMapping, error) {
	m := &ocsfMapping{
		bySlot: make(map[string]ocsfSlot), classes: make(map[string]*ocsfClass),
		enums: make(map[string]ocsfEnum), layouts: make(map[string]*ocsfLayout), tables: make(map[string]*ocsfTable),
		objects: make(map[string]ocsfObject),
	}
	lines, err := readOCSF(text)
	if err != nil {
		return nil, err
	}
	for _, name := range ocsfOwnSlots {
		m.slot(name)
	}
	// The form must be known before its fields can be named, so names are gathered first.
	names := make(map[string]bool)
	var order []string
	gather := func(name string) {
		if !names[name] {
			names[name] = true
			order = append(order, name)
		}
	}
	for _, pass := range []func(ocsfLine) error{m.declare, func(l ocsfLine) error { return m.gather(l, gather) }} {
		for _, l := range lines {
			if err := pass(l); err != nil {
				return nil, fmt.Errorf("line %d: %w", l.number, err)
			}
		}
	}
	for _, name := range ocsfOwnFields {
		gather(name)
	}
	if m.form, err = newForm(order); err != nil {
		return nil, err
	}
	m.enrichments = m.form.byName["enrichments"]
	for _, pass := range []func(ocsfLine) error{m.layout, m.table, m.observable} {
		for _, l := range lines {
			if err := pass(l); err != nil {
				return nil, fmt.Errorf("line %d: %w", l.number, err)
			}
		}
	}
	for _, lay := range m.layouts {
		for i := range m.observables {
			if slices.ContainsFunc(lay.steps, func(st ocsfStep) bool {
				return st.field == m.observables[i].field || slices.Contains(st.fields, m.observables[i].field)
			}) {
				lay.observed = append(lay.observed, i)
			}
		}
	}
	m.objects = nil
	return m, nil
}

// readOCSF reads lines by their indentation, two blanks a level.
func readOCSF(text string) ([]ocsfLine, error) {
	root := &ocsfLine{}
	open := []*ocsfLine{root}
	number := 0
	for line := range strings.Lines(text) {
		number++
		body := strings.TrimSpace(line)
		if body == "" || body[0] == '#' {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent%2 != 0 || indent/2 >= len(open) {
			return nil, fmt.Errorf("line %d is indented by %d", number, indent)
		}
		open = open[:indent/2+1]
		parent := open[len(open)-1]
		parent.below = append(parent.below, ocsfLine{number: number, text: body})
		open = append(open, &parent.below[len(parent.below)-1])
	}
	return root.below, nil
}

// slot returns the slot of a column or member. The members of a column are those of its JSON.
func (m *ocsfMapping) slot(name string) ocsfSlot {
	if s, ok := m.bySlot[name]; ok {
		return s
	}
	s := ocsfSlot(len(m.slots))
	m.slots, m.members = append(m.slots, name), append(m.members, nil)
	m.bySlot[name] = s
	if column, member, ok := strings.Cut(name, "."); ok {
		of := m.slot(column)
		if m.members[of] == nil {
			m.members[of] = make(map[string]ocsfSlot)
		}
		m.members[of][member] = s
	}
	return s
}

// declare reads classes, enums and templates.
func (m *ocsfMapping) declare(l ocsfLine) error {
	kind, rest, _ := strings.Cut(l.text, " ")
	switch kind {
	case "class":
		f := strings.SplitN(rest, " ", 4)
		if len(f) != 4 {
			return fmt.Errorf("class wants a name, uid, category and captions")
		}
		uid, err1 := strconv.ParseInt(f[1], 10, 64)
		category, err2 := strconv.ParseInt(f[2], 10, 64)
		categoryName, caption, ok := strings.Cut(f[3], " / ")
		if err1 != nil || err2 != nil || !ok || m.classes[f[0]] != nil {
			return fmt.Errorf("class %s is malformed, or a second one", f[0])
		}
		c := &ocsfClass{name: f[0], uid: uid, category: category, categoryName: categoryName, caption: caption, activities: make(map[int64]string)}
		for _, below := range l.below {
			for activity := range strings.SplitSeq(below.text, " / ") {
				id, caption, ok := strings.Cut(activity, " ")
				n, err := strconv.ParseInt(id, 10, 64)
				if err != nil || !ok {
					return fmt.Errorf("activity %q is malformed", activity)
				}
				c.activities[n] = caption
			}
		}
		m.classes[c.name] = c
	case "enum":
		for _, below := range l.below {
			word, value, _ := strings.Cut(below.text, " = ")
			id, caption, ok := strings.Cut(value, " ")
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil || !ok {
				return fmt.Errorf("enum %s: %q is malformed", rest, below.text)
			}
			bare, prefix := strings.CutSuffix(strings.ToLower(word), "*")
			m.enums[rest] = append(m.enums[rest], ocsfWord{bare, prefix, n, caption})
		}
	case "object":
		name, needs, ok := strings.Cut(rest, ":")
		if !ok || len(l.below) == 0 || m.objects[name].lines != nil {
			return fmt.Errorf("object %s has no needs or no attributes, or is a second one", name)
		}
		m.objects[name] = ocsfObject{strings.TrimSpace(needs), l.below}
	case "layout", "table", "observables":
	default:
		return fmt.Errorf("unknown word %q", kind)
	}
	return nil
}

// attribute is one line of a layout, taken apart.
type ocsfAttribute struct {
	name   string // full name, with [0] behind it for an object in a list
	splat  bool   // it writes several attributes of the object around it
	object bool
	needs  string
	below  []ocsfLine
	kind   string   // how it is written
	args   []string // columns
	when   string
}

// attribute takes a line apart. prefix is the full name of the object around it, with a dot, or
// empty.
func (m *ocsfMapping) attribute(prefix string, l ocsfLine) (a ocsfAttribute, err error) {
	text := l.text
	if before, when, ok := strings.Cut(text, " when "); ok {
		text, a.when = before, when
	}
	if name, needs, ok := strings.Cut(text, ":"); ok && !strings.Contains(name, " ") {
		a.name, a.needs, a.object, a.below = prefix+name, strings.TrimSpace(needs), true, l.below
	} else {
		f := strings.Fields(text)
		switch {
		case strings.HasPrefix(f[0], "+"):
			a.name, a.splat, a.kind, a.args = strings.TrimSuffix(prefix, "."), true, f[0], f[1:]
		case len(f) < 2:
			return a, fmt.Errorf("%q says not how it is written", text)
		case f[1][0] == '@':
			o, ok := m.objects[f[1][1:]]
			if !ok {
				return a, fmt.Errorf("there is no object %s", f[1])
			}
			a.name, a.needs, a.object, a.below = prefix+f[0], o.needs, true, o.lines
		case f[1] == "=":
			a.name, a.kind, a.args = prefix+f[0], "=", []string{strings.TrimSpace(strings.SplitN(text, "=", 2)[1])}
		default:
			a.name, a.kind, a.args = prefix+f[0], f[1], f[2:]
		}
	}
	if a.object {
		if bare, ok := strings.CutSuffix(a.name, "[]"); ok {
			a.name = bare + "[0]"
		}
	}
	return a, nil
}

// gather passes on the full names of all fields of a layout.
func (m *ocsfMapping) gather(l ocsfLine, add func(name string)) error {
	rest, ok := strings.CutPrefix(l.text, "layout ")
	if !ok {
		return nil
	}
	if _, _, ok := strings.Cut(rest, ":"); !ok {
		return fmt.Errorf("a layout wants its needs behind a colon")
	}
	return m.walk("", "", l.below, func(a ocsfAttribute) error {
		switch {
		case a.object:
			if strings.HasSuffix(a.name, "[0]") {
				add(a.name)
			}
		case a.splat:
			kind, ok := ocsfSplats[a.kind]
			if !ok {
				return fmt.Errorf("nothing is written by %s", a.kind)
			}
			for _, name := range kind.writes(a.args) {
				add(join(a.name, name))
			}
		default:
			kind, ok := ocsfKinds[a.kind]
			if !ok {
				return fmt.Errorf("nothing is written by %q", a.kind)
			}
			add(a.name + kind.suffix)
			if kind.twin {
				add(a.name + "_dt")
			}
		}
		return nil
	}, nil)
}

func join(object, name string) string {
	if object == "" {
		return name
	}
	return object + "." + name
}

// walk calls enter for each attribute below an object, and leave for each object when all below it
// has been entered.
//
// when is the condition of the object around them: its members have it, too.
func (m *ocsfMapping) walk(prefix, when string, lines []ocsfLine, enter, leave func(ocsfAttribute) error) error {
	for _, l := range lines {
		a, err := m.attribute(prefix, l)
		if a.when == "" {
			a.when = when
		}
		if err == nil {
			err = enter(a)
		}
		if err == nil && a.object {
			err = m.walk(strings.TrimSuffix(a.name, "[0]")+".", a.when, a.below, enter, leave)
			if err == nil && leave != nil {
				err = leave(a)
			}
		}
		if err != nil {
			return fmt.Errorf("%s (line %d): %w", l.text, l.number, err)
		}
	}
	return nil
}

// layout compiles a layout.
func (m *ocsfMapping) layout(l ocsfLine) error {
	rest, ok := strings.CutPrefix(l.text, "layout ")
	if !ok {
		return nil
	}
	head, needs, _ := strings.Cut(rest, ":")
	f := strings.Fields(head)
	if len(f) < 2 || m.classes[f[1]] == nil || m.layouts[f[0]] != nil {
		return fmt.Errorf("layout %q has no class, or is a second one", head)
	}
	lay := &ocsfLayout{name: f[0], class: m.classes[f[1]]}
	for _, p := range f[2:] {
		lay.profiles = append(lay.profiles, strings.TrimPrefix(p, "+"))
	}
	err := m.walk("", "", l.below, func(a ocsfAttribute) error {
		if a.object {
			return nil
		}
		st, err := m.step(a)
		lay.steps = append(lay.steps, st)
		return err
	}, func(a ocsfAttribute) error {
		return m.need(lay, strings.TrimSuffix(a.name, "[0]"), a.needs)
	})
	if err == nil {
		err = m.need(lay, "", strings.TrimSpace(needs))
	}
	m.layouts[lay.name] = lay
	return err
}

// need compiles the needs of an object.
func (m *ocsfMapping) need(lay *ocsfLayout, object, text string) error {
	n := ocsfNeed{object: m.form.byName[object]}
	for group := range strings.FieldsSeq(text) {
		var any []fieldID
		for name := range strings.SplitSeq(group, "|") {
			names := []string{name}
			if splat, ok := ocsfSplats[name]; ok {
				names = splat.needs
			}
			for _, name := range names {
				id, ok := m.form.field(join(object, name))
				if !ok {
					return fmt.Errorf("%q needs %s, which nothing writes", object, name)
				}
				any = append(any, id)
			}
		}
		n.any = append(n.any, any)
	}
	if len(n.any) > 0 {
		lay.needs = append(lay.needs, n)
	}
	return nil
}

// step compiles an attribute.
func (m *ocsfMapping) step(a ocsfAttribute) (st ocsfStep, err error) {
	st.when = a.when
	if a.when != "" && a.when != "in" && a.when != "out" {
		return st, fmt.Errorf("when what: %q", a.when)
	}
	field := func(name string) fieldID {
		id, ok := m.form.field(name)
		if !ok && err == nil {
			err = fmt.Errorf("there is no field %s", name)
		}
		return id
	}
	if a.splat {
		kind := ocsfSplats[a.kind]
		st.write = kind.write
		for _, name := range kind.writes(a.args) {
			st.fields = append(st.fields, field(join(a.name, strings.TrimSuffix(name, "[]"))))
		}
		if len(st.fields) > 0 {
			st.field = st.fields[0]
		}
		if kind.enum {
			if st.enum = m.enums[a.args[1]]; st.enum == nil {
				return st, fmt.Errorf("there is no enum %s", a.args[1])
			}
			a.args = a.args[2:]
		}
		if len(a.args) != kind.columns {
			return st, fmt.Errorf("%s wants %d columns", a.kind, kind.columns)
		}
	} else {
		kind := ocsfKinds[a.kind]
		st.write, st.field = kind.write, field(a.name)
		if kind.twin {
			st.fields = append(st.fields, field(a.name+"_dt"))
		}
		if a.kind == "=" {
			return st, st.constant(a.args[0])
		}
		if len(a.args) == 0 {
			return st, fmt.Errorf("no column")
		}
	}
	for _, arg := range a.args {
		var slots []ocsfSlot
		if arg != "-" {
			for name := range strings.SplitSeq(arg, "|") {
				slots = append(slots, m.slot(name))
			}
		}
		st.args = append(st.args, slots)
	}
	return st, err
}

// constant takes a constant of a layout: a text in quotes, true, false, [0] or an integer.
func (st *ocsfStep) constant(text string) error {
	switch {
	case text == "true" || text == "false":
		st.text = msgp.AppendBool(nil, text == "true")
	case text == "[0]":
		st.text = []byte{0x91, 0}
	case strings.HasPrefix(text, `"`):
		unquoted, err := strconv.Unquote(text)
		if err != nil {
			return err
		}
		st.text = msgp.AppendString(nil, unquoted)
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		st.text = msgp.AppendInt64(nil, n)
	}
	return nil
}

// Words that a rule may have behind its activity.
var ocsfOutcomes = map[string][]ocsfConstant{
	"success": {{name: "status", id: 1, caption: "Success"}},
	"failure": {{name: "status", id: 2, caption: "Failure"}},
	"allowed": {{name: "action", id: 1, caption: "Allowed"}, {name: "disposition", id: 1, caption: "Allowed"}},
	"denied":  {{name: "action", id: 2, caption: "Denied"}, {name: "disposition", id: 2, caption: "Blocked"}},
	"seen":    {{name: "action", id: 3, caption: "Observed"}, {name: "disposition", id: 17, caption: "Logged"}},
}

// table compiles the rules of a table.
func (m *ocsfMapping) table(l ocsfLine) error {
	rest, ok := strings.CutPrefix(l.text, "table ")
	if !ok {
		return nil
	}
	name, by, _ := strings.Cut(rest, " by ")
	if by == "" {
		by = "ActionType"
	}
	if m.tables[name] != nil {
		return fmt.Errorf("a second table %s", name)
	}
	t := &ocsfTable{by: m.slot(by)}
	for _, l := range l.below {
		patterns, choices, ok := strings.Cut(l.text, " -> ")
		if !ok {
			return fmt.Errorf("line %d has no arrow", l.number)
		}
		if more, ok := strings.CutPrefix(patterns, "& "); ok {
			outcome, ok := ocsfOutcomes[choices]
			if !ok {
				return fmt.Errorf("line %d: %q is no outcome", l.number, choices)
			}
			t.more = append(t.more, ocsfMore{newPatterns(more), outcome})
			continue
		}
		r := ocsfRule{patterns: newPatterns(patterns)}
		for text := range strings.SplitSeq(choices, ", ") {
			c, err := m.choice(text)
			if err != nil {
				return fmt.Errorf("line %d: %w", l.number, err)
			}
			r.choices = append(r.choices, c)
		}
		t.rules = append(t.rules, r)
	}
	m.tables[name] = t
	return nil
}

func (m *ocsfMapping) choice(text string) (c ocsfChoice, err error) {
	f := strings.Fields(text)
	c.ifSlot = noSlot
	if len(f) < 2 || m.layouts[f[0]] == nil {
		return c, fmt.Errorf("%q has no layout or no activity", text)
	}
	c.layout = m.layouts[f[0]]
	if c.activity, err = strconv.ParseInt(f[1], 10, 64); err != nil {
		return c, err
	}
	if c.activity != 99 && c.layout.class.activities[c.activity] == "" {
		return c, fmt.Errorf("%s has no activity %d", c.layout.class.name, c.activity)
	}
	for _, word := range f[2:] {
		if outcome, ok := ocsfOutcomes[word]; ok {
			c.constants = append(c.constants, outcome...)
			continue
		}
		if rest, ok := strings.CutPrefix(word, "if:"); ok {
			slot, text, _ := strings.Cut(rest, "=")
			c.ifSlot, c.ifText = m.slot(slot), text
			continue
		}
		name, value, ok := strings.Cut(word, "=")
		id, caption, hasCaption := strings.Cut(value, ":")
		constant := ocsfConstant{name: name, caption: strings.ReplaceAll(caption, "_", " ")}
		switch {
		case !ok:
			return c, fmt.Errorf("%q means nothing", word)
		case hasCaption:
			constant.id, err = strconv.ParseInt(id, 10, 64)
		case value == "true" || value == "false":
			constant.boolean = true
			if value == "true" {
				constant.id = 1
			}
		default:
			return c, fmt.Errorf("%q means nothing", word)
		}
		if err != nil {
			return c, err
		}
		c.constants = append(c.constants, constant)
	}
	return c, nil
}

// observable reads which fields are observables.
func (m *ocsfMapping) observable(l ocsfLine) error {
	if l.text != "observables" {
		return nil
	}
	for _, l := range l.below {
		head, paths, _ := strings.Cut(l.text, " = ")
		id, caption, ok := strings.Cut(head, " ")
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || !ok {
			return fmt.Errorf("line %d: %q is malformed", l.number, head)
		}
		for path := range strings.FieldsSeq(paths) {
			field, ok := m.form.field(strings.ReplaceAll(strings.TrimSuffix(path, "[].value"), "[]", ""))
			if !ok {
				return fmt.Errorf("line %d: no layout writes %s", l.number, path)
			}
			o := ocsfObservable{field: field, path: path, id: n}
			o.bare = msgp.AppendInt64(msgp.AppendString(nil, "type_id"), n)
			o.bare = msgp.AppendString(msgp.AppendString(o.bare, "type"), caption)
			o.named = append(msgp.AppendString(msgp.AppendString(nil, "name"), path), o.bare...)
			m.observables = append(m.observables, o)
		}
	}
	return nil
}

// newPatterns reads patterns with " | " between them.
func newPatterns(text string) (patterns []pattern) {
	for p := range strings.SplitSeq(text, " | ") {
		patterns = append(patterns, newPattern(p))
	}
	return patterns
}

// rule returns the rule for a text, or nil.
func (t *ocsfTable) rule(text []byte) *ocsfRule {
	for i := range t.rules {
		if slices.ContainsFunc(t.rules[i].patterns, func(p pattern) bool { return p.match(text) }) {
			return &t.rules[i]
		}
	}
	return nil
}
