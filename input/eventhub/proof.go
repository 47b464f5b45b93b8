package eventhub

import (
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
)

// proof: a message that was read, and its checksum. A partition that holds another message at that
// offset belongs to another hub, which was created again under the same name. Nothing else can show
// that. Event Hubs gives hubs no id that a Kafka client of its version could see. Offsets start at
// 0 again, and the group may still have the old ones.
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
