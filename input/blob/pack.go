package blob

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// packedMagic begins the text of a shard's blob.
const packedMagic = "defender shard 1\n"

// packedMost is how many bytes the text of a shard may have: some 2 million positions.
const packedMost = 256 << 20

var errPacked = errors.New("is not what a worker has written")

// pack is the short form of an entry, for shards: those of a large account are written again and
// again. It keeps half of the hash of the head, which tells two blobs as well.
func (e entry) pack() string {
	flags := byte(e.form)
	if e.done {
		flags |= 1 << 4
	}
	if e.left {
		flags |= 1 << 5
	}
	if e.foot.n > 0 {
		flags |= 1 << 6
	}
	digits, ok := strings.CutPrefix(strings.Trim(e.etag, `"`), "0x")
	number, err := hex.DecodeString(strings.Repeat("0", len(digits)%2) + digits)
	if ok = ok && err == nil && len(digits) <= 255 && e.etag == `"0x`+digits+`"` && strings.ToUpper(digits) == digits; ok {
		flags |= 1 << 7
	}
	b := []byte{flags, byte(e.place)}
	b = binary.AppendVarint(b, e.offset)
	b = binary.AppendVarint(b, e.created)
	b = binary.AppendVarint(b, e.modified-e.created)
	b = binary.AppendUvarint(b, uint64(e.head.n)) //nolint:gosec // at most headMax
	b = append(b, e.head.sum[:headKept]...)
	if e.foot.n > 0 {
		b = binary.AppendVarint(b, e.foot.at)
		b = append(b, byte(e.foot.place))
		b = binary.AppendUvarint(b, uint64(e.foot.n)) //nolint:gosec // at most footMax
		b = append(b, e.foot.sum[:]...)
	}
	if ok {
		return string(append(append(b, byte(len(digits))), number...)) //nolint:gosec // short
	}
	return string(append(b, e.etag...))
}

// unpackEntry reads what pack has written.
func unpackEntry(text string) (e entry, err error) {
	r := strings.NewReader(text)
	bad := func(at int64, low, high int64) bool { return at < low || at > high }
	byteOf := func() byte {
		c, e := r.ReadByte()
		err = errors.Join(err, e)
		return c
	}
	number := func() int64 {
		n, e := binary.ReadVarint(r)
		err = errors.Join(err, e)
		return n
	}
	length := func(most int64) int {
		n, e := binary.ReadUvarint(r)
		if e != nil || n > uint64(most) { //nolint:gosec // positive
			err = errors.Join(err, e, errPacked)
			return 0
		}
		return int(n) //nolint:gosec // at most most
	}
	flags := byteOf()
	e.form, e.done, e.left = form(flags&0xf), flags&(1<<4) != 0, flags&(1<<5) != 0
	e.place = place(byteOf())
	e.offset, e.created = number(), number()
	e.modified = e.created + number()
	e.head.n = length(headMax)
	_, e1 := io.ReadFull(r, e.head.sum[:headKept])
	if flags&(1<<6) != 0 {
		e.foot.at, e.foot.place = number(), place(byteOf())
		e.foot.n = length(footMax)
		_, e2 := io.ReadFull(r, e.foot.sum[:])
		e1 = errors.Join(e1, e2)
	}
	if err = errors.Join(err, e1); err != nil {
		return entry{}, err
	}
	if flags&(1<<7) != 0 {
		n := int(byteOf())
		digits := strings.ToUpper(hex.EncodeToString([]byte(text[len(text)-r.Len():])))
		if len(digits) != n+n%2 {
			return entry{}, errPacked
		}
		e.etag = `"0x` + digits[n%2:] + `"`
	} else {
		e.etag = text[len(text)-r.Len():]
	}
	const places = "vliarex"
	if int(e.form) >= len(formLetters) || !strings.ContainsRune(places, rune(e.place)) || bad(e.offset, 0, 1<<62) ||
		e.foot.n > 0 && (!strings.ContainsRune(places, rune(e.foot.place)) || bad(e.foot.at, int64(e.foot.n), 1<<62)) {
		return entry{}, errPacked
	}
	return e, nil
}

// packAll makes a shard's blob of keys and values, in order and compressed. A key is written
// without the beginning that it shares with the one before. The checksum of gzip shows damage.
func packAll(values map[string]string) []byte {
	packed, _ := packText(values)
	return packed
}

// packText is packAll, with the number of bytes of the text.
func packText(values map[string]string) (packed []byte, size int) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	row := binary.AppendUvarint([]byte(packedMagic), uint64(len(values)))
	before := ""
	for _, key := range slices.Sorted(maps.Keys(values)) {
		head := 0
		for head < min(len(before), len(key)) && before[head] == key[head] {
			head++
		}
		tail := 0
		for tail < min(len(before), len(key))-head && before[len(before)-1-tail] == key[len(key)-1-tail] {
			tail++
		}
		for _, n := range []int{head, tail, len(key) - head - tail, len(values[key])} {
			row = binary.AppendUvarint(row, uint64(n)) //nolint:gosec // a length
		}
		row = append(append(row, key[head:len(key)-tail]...), values[key]...)
		_, _ = z.Write(row) // into memory
		size += len(row)
		row, before = row[:0], key
	}
	_, _ = z.Write(row)
	_ = z.Close()
	return out.Bytes(), size + len(row)
}

// unpackAll reads what packAll has written.
func unpackAll(packed []byte) (values map[string]string, err error) {
	values = make(map[string]string)
	if len(packed) == 0 {
		return values, nil // nobody has written it yet
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, packedMost))
	if err != nil {
		return nil, err
	}
	r, ok := bytes.CutPrefix(text, []byte(packedMagic))
	if !ok {
		return nil, errPacked
	}
	length := func(most int) int {
		n, size := binary.Uvarint(r)
		if size <= 0 || n > uint64(most) { //nolint:gosec // a length
			err = errPacked
			return 0
		}
		r = r[size:]
		return int(n) //nolint:gosec // at most most
	}
	before := ""
	for count := length(packedMost); count > 0 && err == nil; count-- {
		head := length(len(before))
		tail := length(len(before) - head)
		middle := length(len(r))
		size := length(len(r))
		if err != nil || middle+size > len(r) {
			return nil, errPacked
		}
		key := before[:head] + string(r[:middle]) + before[len(before)-tail:]
		value := string(r[middle : middle+size])
		r = r[middle+size:]
		if !strings.HasPrefix(key, "#") {
			if _, err := unpackEntry(value); err != nil {
				return nil, fmt.Errorf("position of %s: %w", key, err)
			}
		}
		values[key], before = value, key
	}
	if err != nil || len(r) > 0 {
		return nil, errPacked
	}
	return values, nil
}
