//go:build !race

package blob

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// 120,000 blobs of two days, of many tenants: the shards take less than 4 MB together, and are
// written and read in little time. In memory they take what a look-up needs.
func TestPackedSize(t *testing.T) {
	const tenants, hours, shards = 2449, 49, 32
	rng := rand.New(rand.NewPCG(5, 6))
	s := &Source{}
	for n := range shards {
		s.shards = append(s.shards, &shard{n: n, book: &book{packed: true, mem: make(map[string]string)}})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	hour := time.Date(2026, 1, 13, 0, 0, 0, 0, time.UTC)
	for i := range tenants {
		for h := range hours {
			at := hour.Add(time.Duration(h) * time.Hour)
			sum := sha256.Sum256(binary.AppendUvarint(nil, rng.Uint64()))
			name := fmt.Sprintf("tenantId=%08x-0000-4000-8000-%012x/%sh=%02d/m=00/PT1H.json", i*7919, i, dayPrefix("", at), at.Hour())
			e := entry{form: plain, place: atLine, offset: 10_000 + rng.Int64N(10_000_000), created: at.Unix() + rng.Int64N(120), modified: at.Unix() + 3600 + rng.Int64N(600),
				head: head{n: headMax, sum: [16]byte(sum[:])}, etag: fmt.Sprintf(`"0x8DE%012X"`, rng.Int64N(1<<48))}
			const container = "insights-logs-advancedhunting-deviceevents"
			if err := s.shardOf(container, name).book.write([]input.Change{{Key: container + "/" + name, Value: []byte(e.String())}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	size, most, fewest := 0, 0, tenants*hours
	begun := time.Now()
	for _, h := range s.shards {
		packed, _, _ := h.book.pack(wholeMost)
		size += len(packed)
		most, fewest = max(most, len(h.book.mem)), min(fewest, len(h.book.mem))
		if _, err := unpackAll(packed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d positions in %d bytes, written and read in %v; %d to %d a shard; %d MB of memory", tenants*hours, size, time.Since(begun), fewest, most, (after.HeapInuse-before.HeapInuse)>>20)
	if size >= 4_000_000 {
		t.Errorf("the shards take %d bytes", size)
	}
	if most > 2*tenants*hours/shards {
		t.Errorf("a shard has %d positions, where the mean is %d", most, tenants*hours/shards)
	}
	runtime.KeepAlive(s)
}
