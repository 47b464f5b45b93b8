package input

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A withheldModel uses a withheld as a Pump does, one step at a time and in any order. It checks
// each mark that would go into the outbox.
type withheldModel struct {
	t    *testing.T
	w    *withheld
	rand *rand.Rand
	log  []string

	// The goroutine of forward. It is at a step of one call.
	step  int
	call  int
	marks []Mark // of the call
	kept  []Mark
	free  []Mark

	// The goroutine of Late.
	late    int
	settles []*modelRow // in a batch that is being put
	ready   []Mark

	next map[string]int64 // the next mark of each lane
	rows []*modelRow      // that wait
	of   map[Mark]int     // the call that a mark is of
	put  map[string]int64 // the newest mark of each lane that was put
	last map[string]Mark  // the newest mark of each lane
	open int              // calls whose batch is not put yet
}

type modelRow struct {
	lane   string
	call   int
	settle func()
}

const modelCalls = 40

var modelLanes = []string{"a", "b", "c"}

// forward takes one step of the goroutine that transforms. It returns false after all calls.
func (m *withheldModel) forward() bool {
	switch m.step {
	case 0: // begin a call, and note which messages are in it
		if m.call == modelCalls {
			return false
		}
		m.call++
		m.open = m.call
		m.w.begin()
		m.marks = m.marks[:0]
		for _, lane := range modelLanes {
			if m.rand.IntN(3) > 0 {
				m.next[lane] += 1 + m.rand.Int64N(5)
				mark := Mark{Lane: lane, Term: 1, Next: m.next[lane]}
				m.marks = append(m.marks, mark)
				m.of[mark], m.last[lane] = m.call, mark
			}
		}
		m.step = 1
	case 1: // transform: rows of some of them wait
		if len(m.marks) > 0 && m.rand.IntN(3) > 0 {
			lane := m.marks[m.rand.IntN(len(m.marks))].Lane
			m.rows = append(m.rows, &modelRow{lane, m.call, m.w.keep(lane, nil)})
			m.say("call %d: a row of %s waits", m.call, lane)
			return true
		}
		m.step = 2
	case 2:
		m.free, m.kept = m.w.split(m.marks)
		m.step = 3
	case 3: // the batch is put, with the marks that are free
		m.wasPut("split", m.free, m.call)
		m.open = 0
		m.step = 4
	case 4:
		m.free = m.w.add(m.kept)
		m.step = 5
	case 5:
		m.wasPut("add", m.free, m.call)
		m.step = 0
	}
	return true
}

// lateStep takes one step of the goroutine of Late. With nothing to do it returns false.
func (m *withheldModel) lateStep() bool {
	switch m.late {
	case 0: // some rows need to wait no longer
		rest := m.rows[:0:0]
		for _, r := range m.rows {
			if m.rand.IntN(2) == 0 {
				m.settles = append(m.settles, r)
			} else {
				rest = append(rest, r)
			}
		}
		m.rows = rest
		if len(m.settles) == 0 {
			return false
		}
		m.late = 1
	case 1: // their batch is put
		for _, r := range m.settles {
			m.say("a row of %s, call %d, is put", r.lane, r.call)
			r.settle()
		}
		m.settles = nil
		m.late = 2
	case 2:
		if m.ready = m.w.ready(); len(m.ready) == 0 {
			m.late = 0
			return true
		}
		m.late = 3
	case 3:
		m.wasPut("ready", m.ready, 0)
		m.late = 4
	case 4:
		m.w.drop(m.ready)
		m.late = 2
	}
	return true
}

// wasPut checks marks that go into the outbox. All rows before them have gone there, and so has the
// batch of their own call. They go forwards. call is the one whose batch goes with them.
func (m *withheldModel) wasPut(from string, marks []Mark, call int) {
	for _, mark := range marks {
		m.say("%s: mark %s %d of call %d", from, mark.Lane, mark.Next, m.of[mark])
		if m.of[mark] == m.open && m.of[mark] != call {
			m.fail("mark %v is put before the batch of its call", mark)
		}
		for _, rows := range [][]*modelRow{m.rows, m.settles} {
			for _, r := range rows {
				if r.lane == mark.Lane && r.call <= m.of[mark] {
					m.fail("mark %v of call %d is put, and a row of call %d is not", mark, m.of[mark], r.call)
				}
			}
		}
		if mark.Next <= m.put[mark.Lane] {
			m.fail("mark %v is put after %d", mark, m.put[mark.Lane])
		}
		m.put[mark.Lane] = mark.Next
	}
}

func (m *withheldModel) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *withheldModel) fail(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log[max(0, len(m.log)-30):] {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

// For any order of the steps of the two goroutines, a mark is put once, in order, after all rows
// that it covers. The newest mark of each lane comes in the end, and nothing is left over.
func TestMarksAreWithheldInEveryOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		m := &withheldModel{t: t, w: newWithheld(), rand: rand.New(rand.NewPCG(seed, 3)), next: make(map[string]int64),
			of: make(map[Mark]int), put: make(map[string]int64), last: make(map[string]Mark)}
		slow := 1 + m.rand.IntN(8) // one of them may be much slower than the other
		for forward, late := true, true; forward || late || len(m.rows) > 0; {
			if m.rand.IntN(1+slow) > 0 == (seed%2 == 0) {
				forward = m.forward()
			} else {
				late = m.lateStep()
			}
		}
		for lane, mark := range m.last {
			if m.put[lane] != mark.Next {
				m.fail("seed %d: lane %s ends at %d, and its newest mark is %d", seed, lane, m.put[lane], mark.Next)
			}
		}
		if len(m.w.lanes) > 0 {
			m.fail("seed %d: %d lanes are left", seed, len(m.w.lanes))
		}
	}
}

// A mark is passed on as soon as nothing before it waits, though later rows of its lane do.
func TestMarkOfTheRowsBefore(t *testing.T) {
	w := newWithheld()
	mark := func(n int64) []Mark { return []Mark{{Lane: "a", Term: 1, Next: n}} }
	call := func(n int64, rows int) (settles []func()) {
		t.Helper()
		w.begin()
		for range rows {
			settles = append(settles, w.keep("a", nil))
		}
		free, kept := w.split(mark(n))
		if len(free) > 0 || len(w.add(kept)) > 0 {
			t.Fatalf("mark %d goes on", n)
		}
		return settles
	}
	next := func(want ...int64) {
		t.Helper()
		got := w.ready()
		w.drop(got)
		if len(got) != len(want) || len(got) == 1 && got[0].Next != want[0] {
			t.Fatalf("marks %v, want %v", got, want)
		}
	}
	first := call(10, 2)
	call(20, 0)
	third := call(30, 1)
	call(40, 0)
	next()
	first[1]()
	next()
	first[0]()
	next(20) // stands for 10, too
	next()
	third[0]()
	next(40)
	// The last of several is put, once.
	fifth, sixth := call(50, 1), call(60, 1)
	sixth[0]()
	next()
	fifth[0]()
	next(60)
	if len(w.lanes) > 0 {
		t.Errorf("%d lanes are left", len(w.lanes))
	}
}
