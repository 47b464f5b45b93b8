package eventhub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// budget keeps the memory of the client under Config.FetchBytes, B.
//
// The client asks for one answer at a time. It reads at most one more ahead of the messages that
// Fetch has returned (MaxConcurrentFetches 1). So at most two answers are held, B/2 each:
//
//   - the received bytes: we ask for at most B/8, and only a larger first batch may exceed that;
//   - the expanded text of compressed batches;
//   - franz-go's records and our messages, recordBytes each.
//
// A batch beyond that is left for the next fetch: inspect cuts it off, or Decompress refuses it,
// and franz-go returns those before it. Only the first batch of an answer may need more, because it
// may be a single large message: up to largest. One that needs even more is never decoded, by any
// codec: it is skipped, see refusal.
//
// When batches were left, we ask for half as much from then on, and slowly for more again. A batch
// that was left has used up bandwidth for nothing, and Event Hubs limits bandwidth.
type budget struct {
	limit   int64 // of an answer: its bytes, its expanded text, its records
	largest int64 // of one batch
	top     int32 // how much to ask for at most
	asked   int32 // how much to ask for now
	calm    int   // answers since a batch was last left
	left    atomic.Bool

	// These are about the answer that is being decoded. inspect sets them before franz-go decodes
	// it, in the goroutine that reads it.
	held  atomic.Int64
	first atomic.Bool // no compressed batch was expanded yet

	mu      sync.Mutex
	refused map[string]refusal // by lane, until it is skipped
	claims  map[uint32][]claim // of the compressed batches of the answer, by the checksum of their records

	gzips sync.Pool // *gzip.Reader
}

// refusal is a batch that is not decoded: it needs, or claims, more than may be held.
type refusal struct {
	from, next int64 // its messages: from the offset from, before the offset next
	why        string
}

// claim: the sizes that a compressed batch declares.
type claim struct {
	lane    string
	records int64
	spans   int64 // offsets
	refusal       // what to make of it when it holds something else
}

// refusalError says why a batch was refused.
type refusalError struct{ refusal }

func (e *refusalError) Error() string { return e.why }

const (
	// leastAsk is the least to ask for. Below, a request costs more than its answer.
	leastAsk = 64 << 10

	// largestBatch: the bytes that one batch may always need, also where FetchBytes is less. Event
	// Hubs takes batches of 1 MB (20 MB on a dedicated cluster), and JSON shrinks to a tenth.
	largestBatch = 16 << 20

	// recordBytes: the memory of a record beside its body: kgo.Record, the pointer to it,
	// input.Message, transform.Payload.
	recordBytes = 320
	// headerBytes: the memory of a header of a record: kgo.RecordHeader.
	headerBytes = 40

	// mostAnswer and mostOther bound an answer to a fetch, and to anything else. A dedicated
	// cluster has messages of 20 MB.
	mostAnswer = 100 << 20
	leastMost  = 24 << 20
	mostOther  = 4 << 20

	// mostThrottle is for how long a broker may have us not ask for more, in milliseconds. franz-go
	// obeys it, and it may ask for 24 days.
	mostThrottle = 60_000

	// mostRefusals bounds the refusals that wait to be passed over. One that is forgotten is found
	// again with the next fetch.
	mostRefusals = 4096
)

func newBudget(fetchBytes int64) *budget {
	top := int32(min(max(fetchBytes/8, leastAsk), 32<<20))
	return &budget{
		limit:   fetchBytes / 2,
		largest: max(largestBatch, 2*fetchBytes),
		top:     top,
		asked:   top,
		refused: make(map[string]refusal),
		claims:  make(map[uint32][]claim),
	}
}

// answer returns how large an answer to a request may be.
func (b *budget) answer(key int16) int {
	if key != kmsg.Fetch.Int16() {
		return mostOther
	}
	return int(min(max(b.largest, leastMost)+leastAsk, mostAnswer))
}

// inspect looks at the batches of an answer to a fetch before franz-go does, and changes those that
// it must not decode. A batch that is left for the next fetch then seems to be cut off. A refused
// one fails its checksum.
func (b *budget) inspect(body []byte, version int16) {
	b.first.Store(true)
	b.mu.Lock()
	clear(b.claims)
	b.mu.Unlock()
	held := int64(len(body))
	defer func() { b.held.Store(held) }()
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	if version >= 12 || resp.ReadFrom(body) != nil { // franz-go reports the error
		return
	}
	if version >= 1 && resp.ThrottleMillis > mostThrottle {
		binary.BigEndian.PutUint32(body, mostThrottle) // it comes first
	}
	first := true
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			for batches := p.RecordBatches; ; {
				batch, rest, ok := nextBatch(batches)
				if !ok {
					break
				}
				lane, r := laneName(t.Topic, p.Partition), extent(batch, rest, p.HighWatermark)
				needs, why := b.weigh(batch)
				if why != "" && whole(batch) {
					r.why = why
					b.refuse(lane, r)
					spoil(batch)
					break // franz-go stops there
				}
				if !first && held+needs > b.limit {
					binary.BigEndian.PutUint32(batch[batchLength:], math.MaxInt32-batchHeader)
					b.left.Store(true)
					break
				}
				if compressed(batch) {
					b.mu.Lock()
					key := crc32.Checksum(batch[batchHeader:], castagnoli)
					b.claims[key] = append(b.claims[key], claim{lane, claimed(batch), spans(batch), r})
					b.mu.Unlock()
				}
				first = false
				held += needs
				batches = rest
			}
		}
	}
}

// Where the fields of a record batch are, and how long it is without its records (Kafka's message
// format, version 2).
const (
	batchLength     = 8
	batchMagic      = 16
	batchCRC        = 17
	batchAttributes = 21
	batchLastDelta  = 23
	batchRecords    = 57
	batchHeader     = 61
)

// nextBatch cuts the first batch off batches. It returns false when there is no whole one.
func nextBatch(batches []byte) (batch, rest []byte, ok bool) {
	const before = batchLength + 4 // not part of the length
	if len(batches) <= batchMagic {
		return nil, nil, false
	}
	n := int64(int32(binary.BigEndian.Uint32(batches[batchLength:]))) + before
	if n <= batchMagic || n > int64(len(batches)) {
		return nil, nil, false
	}
	return batches[:n], batches[n:], true
}

// weigh returns the memory that batch needs beside its own bytes, as far as that can be known
// before it is expanded. why is not empty when it must not be decoded.
func (b *budget) weigh(batch []byte) (needs int64, why string) {
	if magic := batch[batchMagic]; magic < 2 {
		const compression = 18 // where a message of formats 0 and 1 has its attributes, after length and checksum
		if len(batch) > compression-1 && batch[compression-1]&7 != 0 {
			return 0, "it is compressed in a format older than Kafka 0.11"
		}
		return 2 * recordBytes, ""
	}
	if len(batch) < batchHeader {
		return 0, "" // franz-go reports it
	}
	records := claimed(batch)
	needs = records * recordBytes
	if !compressed(batch) {
		there, headers := countRecords(batch[batchHeader:], spans(batch))
		if there != records {
			return 0, claimText(records, there)
		}
		needs += headers * headerBytes
	}
	if records < 0 || needs > b.largest {
		return 0, fmt.Sprintf("it claims %d messages, which need %d bytes, and one batch may take %d: raise memory_limit if it is genuine",
			records, needs, b.largest)
	}
	return needs, ""
}

// compressed tells whether a batch is, and claimed how many messages it says that it holds.
func compressed(batch []byte) bool {
	return len(batch) >= batchHeader && batch[batchAttributes+1]&7 != 0
}
func claimed(batch []byte) int64 { return int64(int32(binary.BigEndian.Uint32(batch[batchRecords:]))) }

// spans is how many offsets a batch says that it spans.
func spans(batch []byte) int64 {
	return int64(int32(binary.BigEndian.Uint32(batch[batchLastDelta:]))) + 1
}

func claimText(claimed, there int64) string {
	return fmt.Sprintf("it claims %d messages and holds %d in their order", claimed, there)
}

// countRecords returns how many records raw begins with that franz-go can decode, and how many
// headers they have. Their offsets ascend, below spans. Behind one that is too large franz-go
// would go on too far, and skip good records.
func countRecords(raw []byte, spans int64) (records, headers int64) {
	for before := int64(-1); len(raw) > 0; records++ {
		length, n := binary.Varint(raw)
		if n <= 0 || length < 0 || length > int64(len(raw)-n) {
			break
		}
		end := n + int(length)
		at, h, ok := readRecord(raw[n:end])
		if !ok || at <= before || at >= spans {
			break
		}
		raw, before = raw[end:], at
		headers += h
	}
	return records, headers
}

// readRecord returns the offset of a record in its batch, how many headers it has, and whether it
// can be decoded.
func readRecord(record []byte) (at, headers int64, ok bool) {
	ok = len(record) > 0
	if !ok {
		return 0, 0, false
	}
	record = record[1:] // attributes
	number := func() int64 {
		v, n := binary.Varint(record)
		if n <= 0 {
			ok = false
			return 0
		}
		record = record[n:]
		return v
	}
	skip := func() { // a length, -1 for nothing, and so many bytes
		n := max(number(), 0)
		if n > int64(len(record)) {
			ok = false
			return
		}
		record = record[n:]
	}
	number() // time
	at = number()
	skip() // key
	skip() // value
	headers = number()
	if headers > int64(len(record)) {
		return at, 0, false
	}
	for i := int64(0); i < headers && ok; i++ {
		skip()
		skip()
	}
	return at, max(headers, 0), ok
}

// extent returns the range of the messages of batch, within credible bounds. end is the end of the
// partition.
func extent(batch, rest []byte, end int64) (r refusal) {
	r.from = int64(binary.BigEndian.Uint64(batch))
	r.next = r.from + 1
	if len(batch) >= batchHeader && batch[batchMagic] == 2 {
		r.next = r.from + spans(batch)
	}
	// A wrong end in a batch must not make us skip the batches behind it.
	if len(rest) >= 8 {
		r.next = min(r.next, int64(binary.BigEndian.Uint64(rest)))
	}
	r.next = max(min(r.next, end), r.from+1)
	return r
}

// whole reports whether a batch is unchanged since its producer. A batch that the network has
// damaged is fetched again.
func whole(batch []byte) bool {
	if batch[batchMagic] < 2 {
		return true
	}
	return len(batch) >= batchHeader &&
		binary.BigEndian.Uint32(batch[batchCRC:]) == crc32.Checksum(batch[batchAttributes:], castagnoli)
}

// spoil makes franz-go fail at batch.
func spoil(batch []byte) {
	if len(batch) < batchHeader || batch[batchMagic] < 2 {
		batch[batchMagic] = 0xff
		return
	}
	for i := range 4 {
		batch[batchCRC+i] ^= 0xff
	}
}

// refuse notes that a batch of a lane is to be passed over.
func (b *budget) refuse(lane string, r refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) >= mostRefusals {
		clear(b.refused)
	}
	b.refused[lane] = r
}

// refusal returns the refusal of the batch of a lane that holds the message at the offset, if there
// is one, and forgets it.
func (b *budget) refusal(lane string, offset int64) (refusal, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.refused[lane]
	if !ok || offset < r.from || offset >= r.next {
		return refusal{}, false
	}
	delete(b.refused, lane)
	return r, true
}

var errLeft = errors.New("left for the next fetch: memory")

// Decompress is franz-go's, within the budget.
func (b *budget) Decompress(src []byte, codec kgo.CompressionCodecType) (out []byte, err error) {
	defer input.Catch("expand a batch", &err)
	if codec == kgo.CodecNone {
		return src, nil
	}
	first := b.first.Load()
	most := b.largest
	if !first {
		most = min(max(b.limit-b.held.Load(), 0), most)
	}
	c, known := b.takeClaim(src)
	if !known {
		c.spans = math.MaxInt32
	}
	out, err = b.expand(src, codec, most)
	if known && err != nil && !errors.Is(err, errTooLarge) {
		// franz-go has looked at the checksum, so another fetch brings the same bytes.
		return nil, b.refuseClaim(c, err.Error())
	}
	needs := int64(len(out))
	if err == nil {
		records, headers := countRecords(out, c.spans)
		if needs += headers * headerBytes; needs > most {
			err = errTooLarge
		} else if known && c.records != records { // franz-go would ask for it for ever
			return nil, b.refuseClaim(c, claimText(c.records, records))
		}
	}
	switch {
	case errors.Is(err, errTooLarge) && !first:
		b.left.Store(true)
		return nil, errLeft
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("%w: the batch expands to more than %d bytes: raise memory_limit if it is genuine", kgo.ErrMaxDecompress, most)
	case err != nil:
		return nil, err
	}
	b.first.Store(false)
	b.held.Add(needs)
	return out, nil
}

// takeClaim returns the claim of the batch of src, if that batch was inspected. Several batches may
// have the same bytes: they come in the order in which they were inspected.
func (b *budget) takeClaim(src []byte) (c claim, known bool) {
	key := crc32.Checksum(src, castagnoli)
	b.mu.Lock()
	defer b.mu.Unlock()
	if same := b.claims[key]; len(same) > 0 {
		b.claims[key] = same[1:]
		return same[0], true
	}
	return claim{}, false
}

func (b *budget) refuseClaim(c claim, why string) error {
	c.why = why
	b.refuse(c.lane, c.refusal)
	return &refusalError{c.refusal}
}

var errTooLarge = errors.New("expands to more than may be held")

// expand expands src to at most so many bytes. It holds no more than that and the 8 MB that the
// codec needs to look back.
func (b *budget) expand(src []byte, codec kgo.CompressionCodecType, most int64) ([]byte, error) {
	switch codec {
	case kgo.CodecGzip:
		return b.gunzip(src, most)
	case kgo.CodecLz4:
		return readMost(lz4.NewReader(bytes.NewReader(src)), 0, most)
	case kgo.CodecSnappy:
		return unsnap(src, most)
	case kgo.CodecZstd:
		return unzstd(src, most)
	}
	return nil, fmt.Errorf("decompress: Kafka has no codec %d", codec)
}

func (b *budget) gunzip(src []byte, most int64) (_ []byte, err error) {
	in := bytes.NewReader(src)
	z, _ := b.gzips.Get().(*gzip.Reader)
	if z == nil {
		z, err = gzip.NewReader(in)
	} else {
		err = z.Reset(in)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress gzip: %w", err)
	}
	defer b.gzips.Put(z)
	var hint int64
	if len(src) > 4 {
		// The last four bytes say how much it will be, if they are to be believed. Deflate is at
		// most 1032 to 1.
		hint = min(int64(binary.LittleEndian.Uint32(src[len(src)-4:])), 1032*int64(len(src)))
	}
	return readMost(z, hint, most)
}

// readMost reads all of r, which is perhaps hint bytes. When there are more than most it returns
// errTooLarge.
func readMost(r io.Reader, hint, most int64) ([]byte, error) {
	out := make([]byte, 0, min(max(hint+1, 4096), most+1)) // one more, to see the end
	for {
		if len(out) == cap(out) {
			if int64(len(out)) > most {
				return nil, errTooLarge
			}
			out = append(make([]byte, 0, min(2*int64(len(out)), most+1)), out...)
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case int64(len(out)) > most:
			return nil, errTooLarge
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("decompress: %w", err)
		}
	}
}

// xerial: the first bytes of snappy as Java writes it: a mark, and two versions of four bytes.
// Blocks follow, each after its length.
var xerial = []byte{130, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func unsnap(src []byte, most int64) ([]byte, error) {
	if len(src) <= xerialHeader || !bytes.HasPrefix(src, xerial) {
		return appendSnappy(nil, src, most)
	}
	src = src[xerialHeader:]
	var out []byte
	for len(src) > 0 {
		if len(src) < 4 || int64(binary.BigEndian.Uint32(src)) > int64(len(src)-4) {
			return nil, errors.New("decompress snappy: a block is cut off")
		}
		n := 4 + int(binary.BigEndian.Uint32(src))
		var err error
		if out, err = appendSnappy(out, src[4:n], most); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return out, nil
}

// appendSnappy appends a block, which says first how much it will be.
func appendSnappy(out, block []byte, most int64) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, fmt.Errorf("decompress snappy: %w", err)
	}
	if int64(len(out)+n) > most {
		return nil, errTooLarge
	}
	out = slices.Grow(out, n)
	if _, err := s2.Decode(out[len(out):len(out)+n], block); err != nil {
		return nil, fmt.Errorf("decompress snappy: %w", err)
	}
	return out[:len(out)+n], nil
}

// zstdWindow is how far back zstd may look: what every decoder must be able to, by its
// specification.
const zstdWindow = 8 << 20

func unzstd(src []byte, most int64) ([]byte, error) {
	z, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, fmt.Errorf("decompress zstd: %w", err)
	}
	defer z.Close()
	var head zstd.Header
	var hint int64
	if head.Decode(src) == nil && head.HasFCS {
		hint = int64(min(head.FrameContentSize, uint64(most)))
	}
	return readMost(z, hint, most)
}

// next returns how much to ask for from now on, and whether that is new. It is called once an
// answer.
func (b *budget) next() (int32, bool) {
	before := b.asked
	if b.left.Swap(false) {
		b.asked, b.calm = max(b.asked/2, leastAsk), 0
	} else if b.calm++; b.calm >= 16 && b.asked < b.top {
		b.asked, b.calm = min(b.asked*2, b.top), 0
	}
	return b.asked, b.asked != before
}
