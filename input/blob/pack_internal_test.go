package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// someEntries are entries of all kinds.
func someEntries(rng *rand.Rand, n int) (all []entry) {
	for range n {
		e := entry{form: form(rng.IntN(len(formLetters))), place: place("vliarex"[rng.IntN(7)]), done: rng.IntN(2) == 0, left: rng.IntN(2) == 0,
			offset: rng.Int64N(1 << 40), created: rng.Int64N(1 << 33), etag: fmt.Sprintf(`"0x%X"`, rng.Uint64()>>rng.IntN(64))}
		e.modified = e.created + rng.Int64N(1<<20) - 1<<10
		sum := sha256.Sum256(binary.AppendVarint(nil, e.offset))
		if e.head.n = rng.IntN(headMax + 1); e.head.n > 0 {
			copy(e.head.sum[:headKept], sum[:])
		}
		if rng.IntN(3) == 0 {
			e.foot = foot{at: 2000 + rng.Int64N(1<<30), place: 'v', n: 1 + rng.IntN(footMax), sum: [16]byte(sum[16:])}
		}
		if rng.IntN(5) == 0 {
			e.etag = []string{"", `"abc"`, `0x1`, `"0xg"`, `"0x1a"`, `"0x"`, `"0x` + strings.Repeat("A", 300) + `"`}[rng.IntN(7)]
		}
		all = append(all, e)
	}
	return all
}

func TestPack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	values := map[string]string{"#since/insights-*": "1700000000", "#sweep/c": `{"prefix":""}`}
	for i, e := range someEntries(rng, 2000) {
		got, err := unpackEntry(e.pack())
		if err != nil || got != e {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
		again, err := parseEntry(got.String())
		if err != nil || again.String() != got.String() {
			t.Fatalf("%q became %q, %v", got, again, err)
		}
		values[fmt.Sprintf("c/tenantId=%d/y=2026/%d.json", i%7, i)] = e.pack()
	}
	got, err := unpackAll(packAll(values))
	if err != nil || !maps.Equal(got, values) {
		t.Errorf("%d values became %d, %v", len(values), len(got), err)
	}
	if got, err := unpackAll(packAll(nil)); err != nil || len(got) > 0 {
		t.Errorf("nothing became %v, %v", got, err)
	}
	if got, err := unpackAll(nil); err != nil || len(got) > 0 {
		t.Errorf("a blob that nobody has written: %v, %v", got, err)
	}
}

// Of more positions than a shard has room for, those are written that are needed, and they can be
// read.
func TestPackTooMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	k := &book{packed: true, mem: map[string]string{"#since/c": "1700000000"}}
	var newest string
	left := 0
	for i, e := range someEntries(rng, 2000) {
		e.modified, e.left = 1_700_000_000+int64(i), i%50 == 0
		newest = fmt.Sprintf("c/%d.json", i)
		k.mem[newest] = e.pack()
		if e.left {
			left++
		}
	}
	whole, n, _ := k.pack(wholeMost)
	if n != 0 {
		t.Errorf("%d are left out without need", n)
	}
	packed, n, _ := k.pack(len(whole) / 3)
	got, err := unpackAll(packed)
	if err != nil || len(packed) > len(whole)/3 || len(got)+n != len(k.mem) || len(got) < 200 || got[newest] == "" || got["#since/c"] == "" {
		t.Errorf("%d of %d positions in %d bytes, %d left out, %v", len(got), len(k.mem), len(packed), n, err)
	}
	for _, value := range got {
		if e, err := unpackEntry(value); err == nil && e.left {
			left--
		}
	}
	if left != 0 {
		t.Errorf("%d unread blobs are left out", left)
	}
	if packed, _, _ := k.pack(1000); packed != nil {
		t.Errorf("%d bytes with room for 1000", len(packed))
	}
	if packed, _, _ := (&book{packed: true}).pack(wholeMost); packed == nil {
		t.Error("an empty book does not fit")
	}
}

// Whatever a shard's blob holds, reading it neither panics nor takes much more memory than the
// bytes; what is read is written the same, and a blob whose bytes were changed is not read.
func FuzzUnpack(f *testing.F) {
	values := make(map[string]string)
	for i, e := range someEntries(rand.New(rand.NewPCG(3, 4)), 20) {
		values[fmt.Sprintf("c/%d", i)] = e.pack()
	}
	f.Add(packAll(values), 5, byte(1))
	f.Add([]byte(packedMagic), 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		got, err := unpackAll(b)
		if err != nil || len(b) == 0 {
			return
		}
		again, err := unpackAll(packAll(got))
		if err != nil || !maps.Equal(again, got) {
			t.Fatalf("%d values became %d, %v", len(got), len(again), err)
		}
		for key, value := range got {
			if key == "" || key[0] == '#' {
				continue
			}
			e, err := unpackEntry(value)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parseEntry(e.String()); err != nil && e.etag != "" && !bytes.ContainsAny([]byte(e.etag), " \n\r\t") {
				t.Logf("%q: %v", e.String(), err)
			}
		}
		if at < 0 || flip == 0 {
			return
		}
		whole := packAll(got)
		if at = at % len(whole); at >= 10 { // the header of gzip has fields that mean nothing
			whole[at] ^= flip
			if damaged, err := unpackAll(whole); err == nil && !maps.Equal(damaged, got) {
				t.Fatalf("byte %d was changed, and %d values were read", at, len(damaged))
			}
		}
	})
}
