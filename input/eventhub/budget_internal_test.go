package eventhub

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// seeds are batches of some text by each codec, snappy in both of its forms.
func seeds(t testing.TB) (text []byte, all map[kgo.CompressionCodecType][][]byte) {
	t.Helper()
	text = bytes.Repeat([]byte("hello world, this is a line of text 0123456789\n"), 2000)
	pack := func(w io.WriteCloser, b *bytes.Buffer) []byte {
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var g, l, z bytes.Buffer
	zw, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	java := append(bytes.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for part := range bytes.SplitSeq(text, []byte("line of text 0123456789\nhello")) {
		block := s2.EncodeSnappy(nil, part)
		java = append(java, 0, 0, 0, byte(len(block)))
		java = append(java, block...)
	}
	return text, map[kgo.CompressionCodecType][][]byte{
		kgo.CodecGzip:   {pack(gzip.NewWriter(&g), &g)},
		kgo.CodecSnappy: {s2.EncodeSnappy(nil, text), java},
		kgo.CodecLz4:    {pack(lz4.NewWriter(&l), &l)},
		kgo.CodecZstd:   {pack(zw, &z)},
	}
}

// Every codec gives back what went in, up to the bound and not beyond.
func TestExpand(t *testing.T) {
	t.Parallel()
	text, all := seeds(t)
	b := newBudget(1 << 20)
	for codec, list := range all {
		for i, src := range list {
			want := text
			if i == 1 {
				want = bytes.ReplaceAll(text, []byte("line of text 0123456789\nhello"), nil)
			}
			for _, most := range []int64{int64(len(want)), 1 << 30} {
				got, err := b.expand(src, codec, most)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("codec %v, form %d, at most %d: %d bytes, %v", codec, i, most, len(got), err)
				}
			}
			for _, most := range []int64{int64(len(want)) - 1, 1, 0} {
				if got, err := b.expand(src, codec, most); !errors.Is(err, errTooLarge) {
					t.Errorf("codec %v, form %d, at most %d: %d bytes, %v", codec, i, most, len(got), err)
				}
			}
		}
	}
}

// Damage of any kind is an error or other bytes, never a panic, and never more than the bound.
func TestExpandDamaged(t *testing.T) {
	t.Parallel()
	_, all := seeds(t)
	b := newBudget(1 << 20)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		for codec, list := range all {
			for _, src := range list {
				src = bytes.Clone(src)
				for range 1 + rnd.IntN(5) {
					at := rnd.IntN(len(src))
					if rnd.IntN(2) == 0 {
						at = rnd.IntN(min(len(src), 40))
					}
					src[at] = byte(rnd.IntN(256))
				}
				src = src[:len(src)-rnd.IntN(min(len(src), 10))]
				b.first.Store(true)
				if out, err := b.Decompress(src, codec); err == nil && int64(len(out)) > b.largest {
					t.Fatalf("codec %v: %d bytes", codec, len(out))
				} else if err != nil && bytes.Contains([]byte(err.Error()), []byte("panic")) {
					t.Logf("codec %v: %.80v", codec, err)
				}
			}
		}
	}
}

// What a batch says of where it ends never makes us pass over messages behind it.
func TestExtent(t *testing.T) {
	t.Parallel()
	f := func(name string, delta int32, behind int64, end, want int64) {
		t.Helper()
		b := kmsg.RecordBatch{FirstOffset: 100, Magic: 2, LastOffsetDelta: delta, NumRecords: 1}
		var rest []byte
		if behind > 0 {
			rest = (&kmsg.RecordBatch{FirstOffset: behind}).AppendTo(nil)
		}
		if r := extent(b.AppendTo(nil), rest, end); r.from != 100 || r.next != want {
			t.Errorf("%s: it goes from %d to before %d, want %d", name, r.from, r.next, want)
		}
	}
	f("as it says", 9, 0, 1000, 110)
	f("a claim over the end", 1<<30, 0, 130, 130)
	f("a claim over the next batch", 1<<30, 105, 1000, 105)
	f("a negative claim", -5, 0, 1000, 101)
	f("an end before it", 9, 0, 0, 101)
}

// An answer is given on whole whatever pieces it comes in, and nothing is given on that was not
// asked for or is too large.
func TestWire(t *testing.T) {
	t.Parallel()
	frame := func(id int32, n int) []byte {
		b := []byte{0, 0, 0, 0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
		b = append(b, bytes.Repeat([]byte{7}, n)...)
		size := len(b) - 4
		b[0], b[1], b[2], b[3] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
		return b
	}
	f := func(name string, key byte, answer []byte, wants string) {
		t.Helper()
		w := newWire(fakeConn{r: iotest.OneByteReader(bytes.NewReader(answer))}, newBudget(1<<20), nil)
		if _, err := w.Write([]byte{0, 0, 0, 8, 0, key, 0, 1, 0, 0, 0, 42}); err != nil {
			t.Fatal(err)
		}
		size := make([]byte, 4096)
		n, err := w.Read(size)
		var body []byte
		if err == nil && n == 4 && wants == "" {
			body = make([]byte, len(answer)-4)
			n, err = w.Read(body)
			body = body[:n]
		}
		if got := fmt.Sprint(err); wants == "" && (err != nil || !bytes.Equal(body, answer[4:])) || wants != "" && !bytes.Contains([]byte(got), []byte(wants)) {
			t.Errorf("%s: read %d bytes, %v", name, len(body), err)
		}
	}
	f("metadata", 3, frame(42, 100), "")
	f("a fetch that makes no sense", 1, frame(42, 100), "")
	f("too large", 3, frame(42, mostOther), "the answer to Metadata has 4194308 bytes, more than the 4194304 that may be held")
	f("too large a fetch", 1, frame(42, 90<<20), "raise memory_limit")
	f("less than an answer", 3, []byte{0, 0, 0, 1, 5}, "an answer of 1 bytes")
	f("cut off", 3, []byte{0, 0, 0, 9, 0, 0}, "EOF")
}

type fakeConn struct {
	net.Conn
	r io.Reader
}

func (c fakeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c fakeConn) Write(p []byte) (int, error) { return len(p), nil }

// FuzzInspect: no answer makes it panic, and what it changes stays the same length.
func FuzzInspect(f *testing.F) {
	batch := kmsg.RecordBatch{FirstOffset: 5, Magic: 2, NumRecords: 3, LastOffsetDelta: 2, Records: []byte{12, 0, 0, 0, 1, 1, 0}}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = 11
	p := kmsg.NewFetchResponseTopicPartition()
	p.RecordBatches = batch.AppendTo(batch.AppendTo(nil))
	tp := kmsg.NewFetchResponseTopic()
	tp.Topic, tp.Partitions = "alerts", append(tp.Partitions, p)
	resp.Topics = append(resp.Topics, tp)
	f.Add(resp.AppendTo(nil), int16(11))
	f.Fuzz(func(t *testing.T, body []byte, version int16) {
		newBudget(1<<20).inspect(body, version)
	})
}

// One answer must not keep a partition from being read for 24 days, in silence.
func TestThrottleIsBounded(t *testing.T) {
	for said, want := range map[int32]int32{0: 0, 300: 300, 60_000: 60_000, math.MaxInt32: 60_000, -1: -1} {
		for version := int16(1); version < 12; version++ {
			resp := kmsg.NewPtrFetchResponse()
			resp.Version, resp.ThrottleMillis = version, said
			body := resp.AppendTo(nil)
			newBudget(0).inspect(body, version)
			if err := resp.ReadFrom(body); err != nil || resp.ThrottleMillis != want {
				t.Errorf("version %d, %d ms: %d, %v", version, said, resp.ThrottleMillis, err)
			}
		}
	}
}
