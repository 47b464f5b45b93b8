package eventhub_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// produceGzip produces n messages of size bytes in batches of perBatch, which shrink to a fiftieth
// or so.
func produceGzip(ctx context.Context, t *testing.T, h *fakehub.Hub, hub string, n, size, perBatch int) {
	t.Helper()
	c, err := kgo.NewClient(append(h.ClientOpts(),
		kgo.DefaultProduceTopic(hub),
		kgo.ProducerBatchCompression(kgo.GzipCompression()),
		kgo.ProducerBatchMaxBytes(100<<20),
		kgo.BrokerMaxWriteBytes(200<<20),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(n+1),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	partitions := int32(len(h.PartitionInfos(hub)))
	var failed error
	for i := range n {
		body := fmt.Appendf(nil, "%05d ", i)
		body = append(body, bytes.Repeat([]byte("DeviceProcessEvents "), size/20)...)
		c.Produce(ctx, &kgo.Record{Value: body, Partition: int32(i/perBatch) % partitions}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
		if i%perBatch == perBatch-1 || i == n-1 {
			if err := c.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

func size(ms []input.Message) (n int64) {
	for _, m := range ms {
		n += int64(len(m.Body))
	}
	return n
}

// However well messages are compressed, what is held stays under FetchBytes: half of it at most for
// what a Fetch returns.
func TestGzipWithinFetchBytes(t *testing.T) {
	ctx := testContext(t)
	const n, each, most = 1600, 20_000, 8 << 20
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 3}, EntityPath: "alerts"})
	produceGzip(ctx, t, h, "alerts", n, each, 20) // 32 MB, 400 kB a batch
	cfg := readConfig(t, settingsFor(h))
	cfg.FetchBytes = most
	r := open(t, cfg, nil)

	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var peak int64
	var all []input.Message
	for len(all) < n {
		ms, err := r.Fetch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := size(ms); got > most/2 {
			t.Errorf("a Fetch returned %d bytes, want at most %d", got, most/2)
		}
		time.Sleep(5 * time.Millisecond) // for the next answer to be read ahead
		peak = max(peak, heap()-before)
		for _, m := range ms {
			m.Body = bytes.Clone(m.Body[:5])
			all = append(all, m)
		}
	}
	checkOrder(t, all)
	same(t, "messages", bodies(all), func() (want []string) {
		for i := range n {
			want = append(want, fmt.Sprintf("%05d", i))
		}
		return want
	}())
	t.Logf("held at most %d kB with FetchBytes of %d kB", peak>>10, most>>10)
	if peak > most+1<<20 { // the hub's answer, and a batch as it came, are in the same heap
		t.Errorf("held %d bytes, want at most %d", peak, most)
	}
}

// Messages of 1 MB, which are larger than what may be held, arrive all the same, compressed or not.
func TestLargeMessagesWithLittleMemory(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2, "gzip": 1}})
	random := make([]byte, 1_000_000)
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	for i := range 8 {
		if err := h.ProduceTo(ctx, "alerts", int32(i%2), append([]byte{byte(i)}, random...)); err != nil {
			t.Fatal(err)
		}
	}
	produceGzip(ctx, t, h, "gzip", 4, 3_000_000, 1)
	cfg := readConfig(t, settingsFor(h), "eventhub.hubs", "alerts gzip")
	cfg.FetchBytes = 512 << 10
	r := open(t, cfg, nil)
	for seen := 0; seen < 12; {
		ms, err := r.Fetch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if size(ms) > 4_100_000 {
			t.Errorf("a Fetch returned %d bytes", size(ms))
		}
		for _, m := range ms {
			if m.Mark.Lane != "gzip/0" && !bytes.Equal(m.Body[1:], random) {
				t.Errorf("message %d of %s was changed", m.Offset, m.Mark.Lane)
			}
		}
		seen += len(ms)
	}
}

// A batch that would expand beyond all bounds is passed over with a message that says so; its
// neighbours arrive.
func TestBatchThatExpandsTooMuch(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	produce(ctx, t, h, "alerts", []byte("before"))
	produceGzip(ctx, t, h, "alerts", 3, 1_000_000, 3)
	produce(ctx, t, h, "alerts", []byte("after"))
	r := open(t, readConfig(t, settingsFor(h)), nil)
	r.SetLargestBatch(2_000_000)
	ms := r.fetch(ctx, 3)
	if string(ms[0].Body) != "before" || string(ms[2].Body) != "after" || len(ms) != 3 {
		t.Errorf("got %d messages: %.30q, %.30q, %.30q", len(ms), ms[0].Body, ms[1].Body, ms[2].Body)
	}
	if m := ms[1]; !strings.HasPrefix(m.Reason, "messages 1 to 3 of the partition cannot be decoded") || m.Offset != 1 || m.Mark.Next != 4 {
		t.Errorf("in place of the batch: %+v", m)
	}
	if n := r.Stats().Unreadable; n != 3 {
		t.Errorf("%d messages are counted as unreadable, want 3", n)
	}
	r.commit(ctx, ms)
	if at := h.GroupInfo(group).Commits["alerts"][0].Offset; at != 5 {
		t.Errorf("the group has %d, want 5", at)
	}
}

// A batch that is damaged is fetched a few times more, then passed over; its neighbours arrive.
func TestDamagedBatch(t *testing.T) {
	t.Parallel()
	for name, tries := range map[string]int{"twice": 2, "for ever": -1} {
		t.Run(name, func(t *testing.T) {
			forEver := tries < 0
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
			produce(ctx, t, h, "alerts", numbered(0, 5)...)
			r := open(t, readConfig(t, settingsFor(h)), nil)
			r.SetIdle(5 * time.Millisecond)
			r.fetch(ctx, 5)

			h.ControlKey(kmsg.Fetch.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				h.KeepControl()
				req := kreq.(*kmsg.FetchRequest)
				if len(req.Topics) != 1 || tries == 0 {
					return nil, nil, false
				}
				at := req.Topics[0].Partitions[0].FetchOffset
				if at < 5 || at > 6 {
					return nil, nil, false
				}
				tries--
				return damaged(req, at), nil, true
			})
			h.CutConnections()
			produce(ctx, t, h, "alerts", numbered(5, 7)...)
			produce(ctx, t, h, "alerts", numbered(7, 9)...)
			ms := r.fetch(ctx, 4)
			checkOrder(t, ms)
			wantBodies := numbered(5, 9)
			if forEver {
				wantBodies[0], wantBodies[1] = nil, nil
				if !strings.Contains(ms[0].Reason, "messages 5 to 5 of the partition cannot be decoded") || !strings.Contains(ms[1].Reason, "crc") {
					t.Errorf("reasons are %q and %q", ms[0].Reason, ms[1].Reason)
				}
			}
			same(t, "messages", bodies(ms), texts(wantBodies...))
			r.log.times(t, 1, "a batch of messages cannot be decoded")
			r.log.wait(t, time.Second, "works again")
		})
	}
}

// The proof of a hub is not worth a message. When the message of the proof cannot be decoded any
// more, reading continues.
func TestDamagedProof(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg, state := readConfig(t, settingsFor(h)), openState(t)
	produce(ctx, t, h, "alerts", numbered(0, 5)...)
	r := open(t, cfg, state)
	r.commit(ctx, r.fetch(ctx, 5))
	r.close()
	var asked atomic.Bool
	h.ControlKey(kmsg.Fetch.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if len(req.Topics) != 1 || req.Topics[0].Partitions[0].FetchOffset != 4 {
			return nil, nil, false
		}
		asked.Store(true)
		return damaged(req, 4), nil, true
	})
	produce(ctx, t, h, "alerts", numbered(5, 8)...)
	r = open(t, cfg, state)
	same(t, "messages", bodies(r.fetch(ctx, 3)), texts(numbered(5, 8)...))
	if n := r.Stats().Unreadable; n != 0 {
		t.Errorf("%d messages are counted as unreadable", n)
	}
	r.close()
	if !asked.Load() {
		t.Error("the message that tells was not asked for")
	}
}

// Damage that follows behind the message that tells does not make it another hub's.
func TestDamageBehindProof(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg, state := readConfig(t, settingsFor(h)), openState(t)
	produce(ctx, t, h, "alerts", numbered(0, 5)...)
	r := open(t, cfg, state)
	r.commit(ctx, r.fetch(ctx, 5))
	r.close()
	produce(ctx, t, h, "alerts", numbered(5, 12)...)
	commitFor(ctx, t, h, 8) // another instance has read on
	var answered atomic.Bool
	h.ControlKey(kmsg.Fetch.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if answered.Load() || len(req.Topics) != 1 || req.Topics[0].Partitions[0].FetchOffset != 4 {
			return nil, nil, false
		}
		answered.Store(true)
		resp := damaged(req, 6).(*kmsg.FetchResponse)
		p := &resp.Topics[0].Partitions[0]
		p.RecordBatches = append(batchOf(4, numbered(4, 6)), p.RecordBatches...)
		return resp, nil, true
	})
	r = open(t, cfg, state)
	same(t, "messages", bodies(r.fetch(ctx, 4)), texts(numbered(8, 12)...))
	r.close()
	if !answered.Load() || strings.Contains(r.log.String(), "hub was created again") {
		t.Errorf("answered %v; the log:\n%s", answered.Load(), r.log.String())
	}
}

// batchOf is a batch of messages as a broker stores it.
func batchOf(first int64, bodies [][]byte) []byte {
	var records []byte
	for i, b := range bodies {
		r := kmsg.Record{OffsetDelta: int32(i), Value: b}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		records = r.AppendTo(records)
	}
	batch := kmsg.RecordBatch{FirstOffset: first, Magic: 2, PartitionLeaderEpoch: -1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		LastOffsetDelta: int32(len(bodies) - 1), NumRecords: int32(len(bodies)), Records: records}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// damaged is an answer with a batch whose checksum is wrong.
func damaged(req *kmsg.FetchRequest, at int64) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	batch := kmsg.RecordBatch{FirstOffset: at, Magic: 2, CRC: 12345, LastOffsetDelta: int32(6 - at), NumRecords: int32(7 - at), Records: []byte("nonsense")}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.HighWatermark, p.RecordBatches = 0, 9, batch.AppendTo(nil)
	tp := kmsg.NewFetchResponseTopic()
	tp.Topic, tp.Partitions = req.Topics[0].Topic, []kmsg.FetchResponseTopicPartition{p}
	resp.Topics = append(resp.Topics, tp)
	return resp
}

// The lag is known in messages and time, also while nothing is fetched.
func TestStats(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	cfg := readConfig(t, settingsFor(h))
	cfg.HubsEvery = 200 * time.Millisecond
	r := open(t, cfg, nil)
	old := time.Now().Add(-time.Hour)
	for range 10 {
		if err := h.ProduceRecords(ctx, &kgo.Record{Topic: "alerts", Value: []byte("abcd"), Timestamp: old}); err != nil {
			t.Fatal(err)
		}
	}
	r.commit(ctx, r.fetch(ctx, 10))
	st := r.Stats()
	if l := st.Lanes[0]; l.Next != 10 || l.Lag != 0 || l.Behind != 0 || l.Committed != 10 || l.Hub != "alerts" {
		t.Errorf("all is read: %+v", l)
	}
	if st.Messages != 10 || st.Bytes != 40 {
		t.Errorf("%d messages of %d bytes are counted, want 10 of 40", st.Messages, st.Bytes)
	}
	for range 3 {
		if err := h.ProduceRecords(ctx, &kgo.Record{Topic: "alerts", Value: []byte("abcd"), Timestamp: old}); err != nil {
			t.Fatal(err)
		}
	}
	fetched := r.fetch(ctx, 3)
	if l := r.Stats().Lanes[0]; l.Next != 13 || l.Lag != 3 || l.Behind < time.Hour {
		t.Errorf("3 are read and nobody has taken them: %+v", l)
	}
	produce(ctx, t, h, "alerts", numbered(0, 7)...)
	eventually(t, 5*time.Second, func() error {
		if l := r.Stats().Lanes[0]; l.Next != 13 || l.Lag != 10 || l.Behind < time.Hour || l.Behind > time.Hour+time.Minute {
			return fmt.Errorf("3 are held and 7 are left: %+v", l)
		}
		return nil
	})
	r.commit(ctx, fetched)
	eventually(t, 5*time.Second, func() error {
		if l := r.Stats().Lanes[0]; l.Next != 13 || l.Lag != 7 || l.Behind < time.Hour || l.Behind > time.Hour+time.Minute {
			return fmt.Errorf("7 are left: %+v", l)
		}
		return nil
	})
}
