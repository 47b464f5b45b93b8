package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Messages and blobs of somebody who may send to the hub or write blobs, to fill the memory of the
// host.
// Without limits, single ones of these took up to 2.4 GB.
var attackRows = []*row{
	{
		name: "attacks", fault: "what fills memory, among good records, memory_limit 64M", source: "hub and blob", hosts: both, ci: true,
		script: func(r *run) {
			const limit = 64 << 20
			r.unnumbered = true
			h := r.host(merge(r.startHub(1), r.startBlob()).with("memory_limit", fmt.Sprint(limit)))
			h.start()
			for _, codec := range codecs {
				r.goodOnes()
				r.produceBomb(codec)
			}
			for _, m := range []func(i int, long string) string{longCategory, longTenant, longColumn} {
				r.goodOnes()
				for i := range 40 {
					if err := r.produce(hubName, []byte(m(i, strings.Repeat("n", 900<<10)))); err != nil {
						r.fatalf("%v", err)
					}
				}
			}
			for i, text := range [][]byte{
				longZeros(),
				longText(),
				packed(slices.Concat(longZeros(), longText(), r.gen.lines(100))),
				packed(append(bytes.Repeat([]byte("{}\n"), 16<<20), r.gen.lines(100)...)),
				packed(append(bytes.Repeat([]byte("[[[1]]]"), 200_000), r.gen.lines(100)...)),
				packed(bytes.Repeat(longText(), 5)), // more than may be unpacked
			} {
				name := blobName(time.Now().Add(-time.Duration(i) * time.Hour))
				if i < 2 {
					r.blob.Append(blobContainer, name, append(text, r.gen.lines(100)...))
				} else {
					r.blob.Put(blobContainer, name, text)
				}
				r.goodOnes()
			}
			h.expectLog("gzip blob is damaged")
			r.finish()
			peak := h.peak().private
			r.notef("at most %d MB beside mapped files", peak>>20)
			if peak > limit+beside && !h.real {
				r.failf("the process took %d MB, more than memory_limit (%d MB) and the %d MB that are allowed for the host", peak>>20, limit>>20, beside>>20)
			}
			if c := r.ledger.count(); c.unreadable < len(codecs) {
				r.failf("%d unreadable records were passed on, want at least %d", c.unreadable, len(codecs))
			}
		},
	},
}

// goodOnes puts records into the hub, and into a blob, behind those that came before.
func (r *run) goodOnes() {
	if err := r.toHub(hubName)(400); err != nil {
		r.fatalf("%v", err)
	}
	if err := r.toBlob(200); err != nil {
		r.fatalf("%v", err)
	}
}

func longCategory(i int, long string) string {
	return fmt.Sprintf(`{"category":"AdvancedHunting-%d%s","properties":{"A":1}}`, i, long)
}

func longTenant(i int, long string) string {
	return fmt.Sprintf(`{"tenantId":"%d%s","category":"AdvancedHunting-DeviceInfo","properties":{"DeviceId":"aa%04d","DeviceName":"x"}}`, i, long, i)
}

func longColumn(i int, long string) string {
	return fmt.Sprintf(`{"tenantId":"t","category":"AdvancedHunting-DeviceInfo","properties":{"DeviceId":"aa%04d","%d%s":"x"}}`, i, i, long)
}

// longZeros and longText are lines of 31 MB.
func longZeros() []byte {
	return []byte(`{"category":"AdvancedHunting-X","properties":{"A":[` + strings.Repeat("0,", 31<<20/2) + "0]}}\n")
}

func longText() []byte {
	return []byte(`{"category":"AdvancedHunting-X","properties":{"A":"` + strings.Repeat("x", 31<<20) + "\"}}\n")
}

// packed is gzip of text.
func packed(text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(text)
	_ = z.Close()
	return b.Bytes()
}

// codecs are Kafka's, by their number.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// produceBomb puts a batch of very many tiny records into the hub.
func (r *run) produceBomb(codec string) {
	tiny := []byte{0x0c, 0, 0, 0, 1, 1, 0} // a record of 6 bytes: no key, no value
	n := 6_000_000
	if codec == "none" {
		n = 3_000_000 // 21 MB on the wire
	}
	all := bytes.Repeat(tiny, n)
	var b bytes.Buffer
	number := int16(0)
	for i, name := range codecs {
		if name == codec {
			number = int16(i)
		}
	}
	var w io.WriteCloser
	switch codec {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "snappy":
		all = s2.EncodeSnappy(nil, all)
	case "lz4":
		w = lz4.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	if w != nil {
		_, _ = w.Write(all)
		_ = w.Close()
		all = b.Bytes()
	}
	r.produceRaw(number, all, int32(n))
}

// produceRaw puts a batch into the hub that claims n records.
func (r *run) produceRaw(codec int16, records []byte, n int32) {
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: codec, LastOffsetDelta: n - 1, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: n, Records: records}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))

	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	topic.Topic, partition.Records = hubName, raw
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	r.client(func(ctx context.Context, c *kgo.Client) error {
		for _, s := range c.RequestSharded(ctx, req) {
			if s.Err != nil {
				return s.Err
			}
			if err := kerr.ErrorForCode(s.Resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
				return err
			}
		}
		r.messages[hubName] += int64(n)
		return nil
	}, kgo.BrokerMaxWriteBytes(64<<20))
}
