package eventhub_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

// codecs are Kafka's, by their number.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

func compress(t *testing.T, codec int, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	switch codecs[codec] {
	case "none":
		return raw
	case "gzip":
		w = gzip.NewWriter(&b)
	case "snappy":
		return s2.EncodeSnappyBest(nil, raw)
	case "lz4":
		w = lz4.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawRecord is a record as it stands in a batch, with so many headers claimed and none there.
func rawRecord(offset int, value []byte, headers int) []byte {
	var r []byte
	r = append(r, 0)                              // attributes
	r = binary.AppendVarint(r, 0)                 // time
	r = binary.AppendVarint(r, int64(offset))     // offset
	r = binary.AppendVarint(r, -1)                // no key
	r = binary.AppendVarint(r, int64(len(value))) // value
	r = append(r, value...)
	r = binary.AppendVarint(r, int64(headers))
	return append(binary.AppendVarint(nil, int64(len(r))), r...)
}

// manyHeaders is a record with so many headers, each of them empty.
func manyHeaders(n int) []byte {
	r := binary.AppendVarint([]byte{0, 0, 0, 1, 1}, int64(n))
	r = append(r, make([]byte, 2*n)...)
	return append(binary.AppendVarint(nil, int64(len(r))), r...)
}

// rawBatch is a batch that claims so many messages, and spans as many offsets as it says.
func rawBatch(codec int, records []byte, claims, spans int32) []byte {
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(codec), LastOffsetDelta: spans - 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: claims, Records: records}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func produceRaw(t *testing.T, h *fakehub.Hub, hub string, batch []byte) {
	t.Helper()
	if err := sendRaw(t, h, hub, batch); err != nil {
		t.Fatal(err)
	}
}

// sendRaw returns the error of the broker.
func sendRaw(t *testing.T, h *fakehub.Hub, hub string, batch []byte) error {
	t.Helper()
	c, err := kgo.NewClient(h.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	topic.Topic, partition.Records = hub, batch
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	for _, s := range c.RequestSharded(testContext(t), req) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
		if err := kerr.ErrorForCode(s.Resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

// A batch that claims, holds or expands to more than may be held is skipped, by every codec, before
// it takes memory. After a restart it is skipped again. Its neighbours arrive.
func TestPoisonBatch(t *testing.T) {
	t.Parallel()
	tiny := bytes.Repeat([]byte{0x0c, 0, 0, 0, 1, 1, 0}, 200_000) // records of 6 bytes without key and value
	for codec, name := range codecs {
		for _, c := range []struct {
			name    string
			records []byte
			claims  int32
		}{
			{"tiny records", tiny, 200_000},
			{"a claim", rawRecord(0, make([]byte, 2_000_000), 0), 2_000_000},
			{"a little claim", rawRecord(0, []byte("little"), 0), 5},
			{"expands", rawRecord(0, make([]byte, 24<<20), 0), 1},
			{"headers", rawRecord(0, nil, 3), 1}, // damaged: there are none
			{"many headers", manyHeaders(600_000), 1},
			{"no data of its codec", bytes.Repeat([]byte{0x77}, 300), 20},
		} {
			if name == "none" && c.name == "tiny records" {
				c.records, c.claims = c.records[:7*100_000], 100_000
			}
			if c.name == "expands" && (name == "none" || name == "snappy") { // snappy shrinks to a twentieth at most
				c.records = c.records[:0]
				continue
			}
			raw := compress(t, codec, c.records)
			if c.name == "no data of its codec" {
				raw = c.records
			}
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				ctx := testContext(t)
				h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts",
					Kfake: []kfake.Opt{kfake.BrokerConfigs(map[string]string{"message.max.bytes": "33554432"})}})
				cfg := readConfig(t, settingsFor(h))
				cfg.FetchBytes = 6 << 20 // of memory_limit 64M
				produce(ctx, t, h, "alerts", []byte("before"))
				produceRaw(t, h, "alerts", rawBatch(codec, raw, c.claims, max(c.claims, 1)))
				produce(ctx, t, h, "alerts", []byte("after"))
				next := int64(max(c.claims, 1)) + 1

				r := open(t, cfg, nil)
				ms := r.fetch(ctx, 3)
				if len(ms) != 3 || string(ms[0].Body) != "before" || string(ms[2].Body) != "after" {
					t.Fatalf("got %d messages: %.30q, %.30q ...", len(ms), ms[0].Body, ms[1].Body)
				}
				want := fmt.Sprintf("messages 1 to %d of the partition cannot be decoded", next-1)
				if m := ms[1]; !strings.HasPrefix(m.Reason, want) || m.Offset != 1 || m.Mark.Next != next {
					t.Errorf("in place of the batch: %+v", m)
				}
				if n := r.Stats().Unreadable; n != next-1 {
					t.Errorf("%d messages are counted as unreadable, want %d", n, next-1)
				}
				r.log.times(t, 1, "messages that cannot be decoded are skipped")
				// Its checksum is right: to fetch it again would bring the same.
				r.log.times(t, 0, "it is fetched again")
				// Killed before anything is committed, the next start meets it again.
				again := cfg
				again.Group = "another"
				r2 := open(t, again, nil)
				ms = r2.fetch(ctx, 3)
				if string(ms[2].Body) != "after" {
					t.Errorf("the second start got %.30q last", ms[2].Body)
				}
				r2.commit(ctx, ms)
			})
		}
	}
}

// Batches that were changed at random before their checksum was made are decided once each,
// whatever is wrong with them. The messages between them arrive.
func TestChangedBatches(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	var records []byte
	for i := range 20 {
		records = append(records, rawRecord(i, fmt.Appendf(nil, `{"n":%d,"text":"some text that can be packed"}`, i), 0)...)
	}
	const batches = 60
	for i := range batches {
		produce(ctx, t, h, "alerts", fmt.Appendf(nil, "good %d", i))
		codec := i % len(codecs)
		b := rawBatch(codec, compress(t, codec, records), 20, 20)
		for range 1 + random.IntN(3) { // behind what says which messages they are
			at := batchRecords + random.IntN(len(b)-batchRecords)
			b[at] = []byte{0xff, 0x7f, 0x80, 0, 1, byte(random.IntN(256))}[random.IntN(6)]
		}
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		if err := sendRaw(t, h, "alerts", b); err != nil && !errors.Is(err, kerr.CorruptMessage) {
			t.Fatal(err)
		}
	}
	produce(ctx, t, h, "alerts", fmt.Appendf(nil, "good %d", batches))
	r := open(t, readConfig(t, settingsFor(h)), nil)
	for next := 0; next <= batches; {
		for _, m := range r.fetch(ctx, 1) {
			if strings.HasPrefix(string(m.Body), "good ") {
				if want := fmt.Sprint("good ", next); string(m.Body) != want {
					t.Fatalf("got %q, want %q", m.Body, want)
				}
				next++
			}
		}
	}
	// Had each been fetched again until nothing helps, at 11 s a batch, testContext would be over.
	// Now and then one is: while an answer that nobody wants any more is still being decoded.
	if n := r.Stats().Unreadable; n < 20*batches/4 {
		t.Errorf("only %d messages cannot be decoded: this test shows nothing", n)
	}
	// They do not fill the log.
	r.log.times(t, 1, "messages that cannot be decoded are skipped")
}

// batchRecords is where a batch says how many records it has.
const batchRecords = 57

// The batch of tiny records that took a gigabyte takes less than memory_limit 64M has for it. Not
// beside other tests, because it counts what is allocated.
func TestPoisonMemory(t *testing.T) {
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))
	cfg.FetchBytes = 6 << 20
	const n = 3_000_000
	produceRaw(t, h, "alerts", rawBatch(1, compress(t, 1, bytes.Repeat([]byte{0x0c, 0, 0, 0, 1, 1, 0}, n)), n, n))
	produce(ctx, t, h, "alerts", []byte("after"))
	r := open(t, cfg, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if ms := r.fetch(ctx, 2); string(ms[1].Body) != "after" {
		t.Errorf("got %q", ms[1].Body)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 20 {
		t.Errorf("%d MB were allocated in all", got)
	}
}
