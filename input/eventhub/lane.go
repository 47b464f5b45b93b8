package eventhub

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// lane: a partition that is ours, for one term.
//
//	state          is                        next fetch            leaves it when
//	reading        check nil, gone false     from next             the hub goes missing, or the term ends
//	proof asked    check set                 from check, then on   prove sees the same message: reading
//	                                                               another one: hub recreated
//	                                                               it cannot be decoded: reading, unproven
//	hub missing    gone                      fails                 the hub is back: proof asked
//	hub recreated  recreated                 from its beginning    the group has an offset of the new hub: reading
//
// A lane whose position is the copy's (ahead) is in proof asked: believe makes the position count,
// doubt goes back to the group's. A recreated hub is a new term, so that marks of the old hub count
// for nothing.
type lane struct {
	name      string // hub/partition
	hub       string
	partition int32
	term      uint64

	// Offsets of the term: began <= next, and committed, copied <= safe <= next, except that safe
	// is the group's position while ahead.
	began     int64 // where it began
	next      int64 // behind the last message that Fetch returned
	safe      int64 // everything before it is safe
	committed int64 // the group's offset, or -1
	copied    int64 // the state file's offset, or -1

	// The state file's offsets of the group: our last commit, and one that is under way. A start
	// believes the copy only while the group's offset is one of them.
	noted      [2]int64
	committing int64

	proofs    []proof // of messages that were read: the last that is safe, if any, and those that are not yet
	check     *proof  // the one that is fetched again, to see whether it is still the same hub
	gone      bool    // the hub was missing: another one of the same name may come back
	recreated bool    // the group may still have an offset of the hub before: the state file keeps that hub's proof
	ahead     bool    // next is the copy's, and check has yet to prove it; safe is the group's offset

	blank  span      // markers of transactions behind the last message: nothing is there to become safe
	end    int64     // where the partition ended when we last heard of it
	newest time.Time // the time of the last message that Fetch returned
	tries  int       // how often the next batch could not be decoded
}

// span: offsets, from one to before another. The zero span is empty.
type span struct{ from, to int64 }

// passBlank makes markers safe when everything before them is.
func (l *lane) passBlank() {
	if l.blank.to > 0 && l.safe >= l.blank.from && l.safe < l.blank.to {
		l.safe = l.blank.to
	}
}

func laneName(hub string, partition int32) string { return hub + "/" + strconv.Itoa(int(partition)) }

// proofEvery is how many bytes of messages lie between two proofs. The safe part may end anywhere
// in an answer, and a start reads again from the proof before that.
const proofEvery = 256 << 10

// remember keeps some of the messages of a fetch as proofs of l: the first, the last, and one every
// proofEvery bytes.
func (l *lane) remember(records []*kgo.Record) {
	size := 0
	for i, r := range records {
		if size += len(r.Value); i == 0 || i == len(records)-1 || size >= proofEvery {
			l.proofs = append(l.proofs, proofOf(r))
			size = 0
		}
	}
}

// proven returns the youngest proof whose message is safe, and forgets those before it.
func (l *lane) proven() (p proof, ok bool) {
	n := 0
	for n < len(l.proofs) && l.proofs[n].offset < l.safe {
		n++
	}
	if n == 0 {
		return p, false
	}
	l.proofs = append(l.proofs[:0], l.proofs[n-1:]...)
	return l.proofs[0], true
}

// askAgain makes the youngest proof, which there must be, the next thing to be looked at, and
// returns where to fetch it.
func (l *lane) askAgain() int64 {
	p := l.proofs[len(l.proofs)-1]
	l.check = &p
	return p.offset
}

// prove looks at the first records of a lane that was asked for again from its proof on. It returns
// those behind the messages that were read, if they are among them. It returns false if they are
// another partition's.
func (l *lane) prove(records []*kgo.Record) ([]*kgo.Record, bool) {
	switch first := records[0]; {
	case first.Offset < l.check.offset, first.Offset == l.check.offset && proofOf(first) != *l.check:
		return nil, false
	}
	// Or the message of the proof is gone. That proves nothing: retention has taken it.
	if records[0].Offset > l.check.offset {
		l.doubt()
	}
	ahead := l.check.offset >= l.next // the group was set back, or does not know yet how far we are
	l.check = nil
	if ahead {
		l.proofs = nil
		return nil, true
	}
	for len(records) > 0 && records[0].Offset < l.next {
		records = records[1:]
	}
	return records, true
}

// believe makes the copy's position count, once the message before it was seen.
func (l *lane) believe() {
	if l.ahead {
		l.ahead, l.safe = false, l.next
	}
}

// doubt goes back to the group's position, which safe is, when nothing proves that of the copy.
func (l *lane) doubt() {
	if l.ahead {
		l.ahead = false
		l.next, l.began = l.safe, l.safe
	}
}
