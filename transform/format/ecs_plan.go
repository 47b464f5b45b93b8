package format

import "slices"

// ecsTable: the common parts of the records of one table, found once.
type ecsTable struct {
	steps *[2][]step
	plans [2]map[string]*ecsPlan // by ActionType
	order []ecsGuess             // by member
}

// ecsGuess: the column that a member was in the last record.
type ecsGuess struct {
	name   string
	column columnNumber
	json   bool // it holds JSON
}

// ecsPlan: the rules whose conditions an ActionType meets, in their order.
type ecsPlan struct {
	rules []planned
	whole []plannedRule // of the same
}

// planned: as much of a rule as is needed to pass over it, or to follow it if it is plain. Eight of
// them share a line of the processor's cache, and a record passes over 200.
type planned struct {
	column columnNumber // that must be there; the mapping's constant for a rule that needs none
	field  fieldID
	source uint16
	plain  bool // the field gets the text of the column, on no condition
}

type plannedRule struct {
	*rule
	when *step
}

const (
	// maxTables and maxActions bound how many plans are kept: tables and ActionTypes come from
	// outside. Microsoft documents some 40 tables, and fewer than 200 ActionTypes of one.
	maxTables     = 256
	maxActions    = 512
	maxActionText = 256

	maxOrder = 512 // members of a record whose columns are guessed
)

// constant is the column number of a rule that needs no column.
func (m *mapping) constant() columnNumber { return columnNumber(len(m.columns)) }

// table returns the common parts of the records of a table.
func (m *mapping) table(name string) *ecsTable {
	t := &ecsTable{steps: &m.general}
	if steps := m.programs[name]; steps != nil {
		t.steps = steps
	}
	for as := range t.plans {
		t.plans[as] = make(map[string]*ecsPlan)
	}
	return t
}

// plan returns the rules for an ActionType, in their order. It allocates only the first time that
// an ActionType is met.
func (t *ecsTable) plan(as role, action []byte) *ecsPlan {
	if plan := t.plans[as][string(action)]; plan != nil {
		return plan
	}
	plan := &ecsPlan{}
	for i := range t.steps[as] {
		s := &t.steps[as][i]
		if s.when && !s.byOther && !matchesAny(s.actions, action) {
			continue
		}
		for j := range s.rules {
			r := &s.rules[j]
			p := planned{column: r.column, field: r.field, source: noSource}
			if r.keeps {
				p.source = r.column
			}
			p.plain = r.how == asText && r.member == "" && r.constant == nil && !s.byOther
			plan.rules, plan.whole = append(plan.rules, p), append(plan.whole, plannedRule{r, s})
		}
	}
	if len(action) <= maxActionText {
		if len(t.plans[as]) >= maxActions {
			clear(t.plans[as])
		}
		t.plans[as][string(action)] = plan
	}
	return plan
}

func matchesAny(patterns []pattern, b []byte) bool {
	return len(b) > 0 && slices.ContainsFunc(patterns, func(p pattern) bool { return p.match(b) })
}

// guess returns what member n of a record was in the last one.
func (t *ecsTable) guess(n int) (ecsGuess, bool) {
	if n < len(t.order) {
		return t.order[n], true
	}
	return ecsGuess{}, false
}

// note notes what member n of a record is.
func (t *ecsTable) note(n int, g ecsGuess) {
	if n >= maxOrder {
		return
	}
	for len(t.order) <= n {
		t.order = append(t.order, g)
	}
	t.order[n] = g
}
