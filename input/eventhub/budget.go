package eventhub

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// budget keeps what the client holds under Config.FetchBytes, B.
//
// The client asks for one answer at a time and reads at most one ahead of what Fetch has returned (MaxConcurrentFetches
// 1), so at most two answers are held, B/2 each:
//
//   - its bytes as they came, at most B/8: that is what we ask for. The broker sends more only when the first batch alone
//     is larger;
//   - what its compressed batches expand to. Together with the above at most B/4: batches beyond that are not
//     expanded but fetched again, since decompress refuses them, and franz-go then returns those before. Only
//     the first of an answer is always expanded, because it may be a single large message;
//   - franz-go's records, about 250 bytes each, for which B/4 is left: enough for messages of 130 bytes and more when they
//     are compressed twentyfold. Defender's are kilobytes.
//
// When batches were refused, we ask for half as much from then on, and slowly for more again: what is refused has crossed
// the network in vain, and Event Hubs limits what may.
type budget struct {
	limit   int64 // for an answer's bytes and what it expands to
	batch   int64 // for what one batch may expand to
	top     int32 // how much to ask for at most
	asked   int32 // how much to ask for now
	calm    int   // answers since the last refusal
	held    atomic.Int64
	first   atomic.Bool // no batch of this answer was expanded yet
	refused atomic.Bool // a batch of an answer since the last call of next was refused

	others kgo.Decompressor // Event Hubs knows gzip only
	gzips  sync.Pool
}

// leastAsk is the least to ask for: below, the price of a request is more than that of its answer.
const leastAsk = 64 << 10

// largestBatch is what one batch may expand to, if FetchBytes is not more anyway. Event Hubs takes batches of 1 MB, a dedicated
// cluster of 20 MB; JSON shrinks to a tenth.
const largestBatch = 256 << 20

func newBudget(fetchBytes int64) *budget {
	top := int32(min(max(fetchBytes/8, leastAsk), 32<<20))
	return &budget{
		limit:  fetchBytes / 4,
		batch:  max(largestBatch, fetchBytes),
		top:    top,
		asked:  top,
		others: kgo.DefaultDecompressor(),
	}
}

var errRefused = errors.New("left for the next fetch: memory")

// OnBrokerE2E is told of every answer before it is decoded: a new one begins.
func (b *budget) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == kmsg.Fetch.Int16() && e2e.ReadErr == nil && e2e.WriteErr == nil {
		b.held.Store(int64(e2e.BytesRead))
		b.first.Store(true)
	}
}

// Decompress is franz-go's, within the budget.
func (b *budget) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	first := b.first.Load()
	most := b.batch
	if !first {
		most = max(b.limit-b.held.Load(), 0)
	}
	var out []byte
	var err error
	if codec == kgo.CodecGzip {
		out, err = b.gunzip(src, most)
	} else if out, err = b.others.Decompress(src, codec); err == nil && int64(len(out)) > most {
		err = errTooLarge
	}
	switch {
	case errors.Is(err, errTooLarge) && !first:
		b.refused.Store(true)
		return nil, errRefused
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("%w: the batch expands to more than %d bytes", kgo.ErrMaxDecompress, most)
	case err != nil:
		return nil, err
	}
	b.first.Store(false)
	b.held.Add(int64(len(out)))
	return out, nil
}

var errTooLarge = errors.New("expands to more than may be held")

func (b *budget) gunzip(src []byte, most int64) ([]byte, error) {
	in := bytes.NewReader(src)
	z, _ := b.gzips.Get().(*gzip.Reader)
	var err error
	if z == nil {
		z, err = gzip.NewReader(in)
	} else {
		err = z.Reset(in)
	}
	if err != nil {
		return nil, err
	}
	defer b.gzips.Put(z)
	var out bytes.Buffer
	if len(src) > 4 {
		// The last four bytes say how much it will be, if they are to be believed.
		tail := src[len(src)-4:]
		size := int64(tail[0]) | int64(tail[1])<<8 | int64(tail[2])<<16 | int64(tail[3])<<24
		out.Grow(int(min(size, most, 1100*int64(len(src)))) + bytes.MinRead) // deflate is at most 1032 to 1
	}
	if _, err = io.Copy(&out, io.LimitReader(z, most+1)); err != nil {
		return nil, err
	}
	if int64(out.Len()) > most {
		return nil, errTooLarge
	}
	return out.Bytes(), nil
}

// next returns how much to ask for from now on, and whether that is new. It is called once per answer.
func (b *budget) next() (int32, bool) {
	before := b.asked
	if b.refused.Swap(false) {
		b.asked, b.calm = max(b.asked/2, leastAsk), 0
	} else if b.calm++; b.calm >= 16 && b.asked < b.top {
		b.asked, b.calm = min(b.asked*2, b.top), 0
	}
	return b.asked, b.asked != before
}
