package eventhub

import (
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
)

// proof is a message that was read, and how it is known again: a partition that holds another one at its offset is another
// partition, of a hub that was deleted and created again under the same name. Nothing else tells: Event Hubs gives hubs no id
// that a Kafka client of its version could see, offsets begin anew, and the group may still have the old ones.
type proof struct {
	offset int64
	sum    uint32 // of its body
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func proofOf(r *kgo.Record) proof { return proof{r.Offset, crc32.Checksum(r.Value, castagnoli)} }

// String is how a proof is stored, next to the copy of the offset.
func (p proof) String() string { return fmt.Sprintf("%d %08x", p.offset, p.sum) }

func parseProof(text string) (p proof, err error) {
	if _, err = fmt.Sscanf(text, "%d %x", &p.offset, &p.sum); err == nil && p.offset < 0 {
		err = fmt.Errorf("negative offset %d", p.offset)
	}
	return p, err
}

// proofEvery is how many bytes of messages lie between two proofs. What is safe ends anywhere in an answer, and a
// start reads again from the proof before that.
const proofEvery = 256 << 10

// remember keeps some of the messages of a fetch as proofs of l: the first, the last, and one every proofEvery bytes.
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

// askAgain makes the youngest proof, which there must be, the next thing to be looked at, and returns where to fetch it.
func (l *lane) askAgain() int64 {
	p := l.proofs[len(l.proofs)-1]
	l.check = &p
	return p.offset
}

// prove looks at the first records of a lane that was asked for again from its proof on. It returns those that follow on what was
// read, if they are among them, and false when it is another partition's.
func (l *lane) prove(records []*kgo.Record) ([]*kgo.Record, bool) {
	switch first := records[0]; {
	case first.Offset < l.check.offset, first.Offset == l.check.offset && proofOf(first) != *l.check:
		return nil, false
	}
	// Or the message of the proof is gone, which says nothing: retention has taken it.
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
