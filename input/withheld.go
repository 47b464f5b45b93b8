package input

import "sync"

// withheld keeps marks back while rows of their lanes wait in the Transform. A mark means that
// every row before it is with the host or on its way there.
//
//	Transform, call n, lane "hub/3":  rows -> batch     two rows wait    mark 70
//	                                    |                     |             |
//	                                  Put           keep: call n, 2 rows    |
//	                                    |                     |             |
//	                                    +------ then ---------|------> add: call n, mark 70
//	Late:                                     rows -> batch -> Put
//	                                              settle, settle: call n, 0 rows
//	                                          ready: mark 70  -> batch -> Put -> drop(mark 70)
//
// So the rows of a mark are put into the outbox before the mark is. And the marks of a lane are put
// in order: those after one that is kept back are kept back, too. Other lanes are not held up. Rows
// of a lane may overtake each other, marks never.
//
// A stop repeats the messages behind a waiting row in its lane, as a crash does. Releasing the rows
// first would not help: the host takes nothing more once it ends.
type withheld struct {
	mu    sync.Mutex
	calls uint64                 // of Transform so far
	lanes map[string][]*laneCall // the marks that are kept back, oldest first
}

// laneCall counts the waiting rows of a lane from one call of Transform, and has the mark behind
// them. The last one of a lane also takes the marks of later calls without waiting rows.
type laneCall struct {
	call  uint64
	lease *Lease
	rows  int // that wait
	mark  Mark
	has   bool // mark is set
}

func newWithheld() *withheld { return &withheld{lanes: make(map[string][]*laneCall)} }

// begin begins a call of Transform.
func (w *withheld) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
}

// keep notes that a row of lane waits, which may be handed over by l. The result is to be called
// when the row has been put into the outbox.
func (w *withheld) keep(lane string, l *Lease) (settle func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.lanes[lane]
	if len(calls) == 0 || calls[len(calls)-1].call != w.calls {
		calls = append(calls, &laneCall{call: w.calls, lease: l})
		w.lanes[lane] = calls
	}
	c := calls[len(calls)-1]
	c.rows++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		c.rows--
	}
}

// lease is that of the rows of lane that wait. A source takes up a lane by another lease only when
// nothing of it waits any more.
func (w *withheld) lease(lane string) *Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	if calls := w.lanes[lane]; len(calls) > 0 {
		return calls[0].lease
	}
	return nil
}

// split takes the marks of lanes that have rows waiting out of marks, and returns them.
func (w *withheld) split(marks []Mark) (free, kept []Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lanes) == 0 {
		return marks, nil
	}
	free = marks[:0]
	for _, m := range marks {
		if len(w.lanes[m.Lane]) > 0 {
			kept = append(kept, m)
		} else {
			free = append(free, m)
		}
	}
	return free, kept
}

// add keeps marks of the call back, whose batch has been put. It returns those for which nothing
// waits any more.
func (w *withheld) add(marks []Mark) (free []Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range marks {
		calls := w.lanes[m.Lane]
		if len(calls) == 0 {
			free = append(free, m)
			continue
		}
		// The mark of a call without waiting rows is taken, too: it covers the mark before it.
		last := calls[len(calls)-1]
		last.mark, last.has = m, true
	}
	return free
}

// ready returns the newest mark of each lane before which nothing waits.
func (w *withheld) ready() (marks []Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for lane, calls := range w.lanes {
		var newest *laneCall
		for _, c := range calls {
			if c.rows > 0 || !c.has { // without a mark its Transform is not over, or its batch not put
				break
			}
			newest = c
		}
		switch {
		case newest != nil:
			marks = append(marks, newest.mark)
		case calls[0].rows == 0:
			// The last of the lane: add finds nothing that waits.
			w.forget(lane, 1)
		}
	}
	return marks
}

// drop lets go of marks that were put, and of all before them.
func (w *withheld) drop(marks []Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range marks {
		for i, c := range w.lanes[m.Lane] {
			if c.has && c.mark == m {
				w.forget(m.Lane, i+1)
				break
			}
		}
	}
}

func (w *withheld) forget(lane string, n int) {
	if w.lanes[lane] = w.lanes[lane][n:]; len(w.lanes[lane]) == 0 {
		delete(w.lanes, lane)
	}
}
