package transform_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// event is one decoded event.
type event struct {
	table string // as given to emit
	time  time.Time
	keys  []string // in order
	m     map[string]any
	size  int
}

// decodeEvent reads one event more strictly than the host. It wants an event time, keys that are
// unique strings in UTF-8, minimal nesting, and nothing behind the event.
func decodeEvent(b []byte) (event, error) {
	size := len(b)
	if len(b) < 11 || b[0] != 0x92 || b[1] != 0xd7 || b[2] != 0 {
		return event{}, fmt.Errorf("not [EventTime, ...]: % x", b[:min(len(b), 12)])
	}
	sec := binary.BigEndian.Uint32(b[3:])
	nsec := binary.BigEndian.Uint32(b[7:])
	if sec >= 2147472000 || nsec >= 1e9 {
		return event{}, fmt.Errorf("event time %d.%09d", sec, nsec)
	}
	e := event{time: time.Unix(int64(sec), int64(nsec)).UTC(), size: size}
	d := decoder{b: b[11:]}
	v, err := d.value(2, &e.keys)
	if err != nil {
		return event{}, err
	}
	if len(d.b) != 0 {
		return event{}, fmt.Errorf("%d bytes behind the event", len(d.b))
	}
	m, ok := v.(map[string]any)
	if !ok {
		return event{}, fmt.Errorf("%T instead of a map", v)
	}
	e.m = m
	return e, nil
}

type decoder struct{ b []byte }

func (d *decoder) take(n int) ([]byte, error) {
	if n > len(d.b) {
		return nil, fmt.Errorf("%d bytes wanted, %d there", n, len(d.b))
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b, nil
}

func (d *decoder) uint(n int) (uint64, error) {
	b, err := d.take(n)
	if err != nil {
		return 0, err
	}
	u := uint64(0)
	for _, c := range b {
		u = u<<8 | uint64(c)
	}
	return u, nil
}

// value decodes one value. level is its own; keys takes the keys of a map in order, if not nil.
func (d *decoder) value(level int, keys *[]string) (any, error) {
	head, err := d.take(1)
	if err != nil {
		return nil, err
	}
	size := func(n int) (int, error) { u, err := d.uint(n); return int(u), err }
	c := head[0]
	switch {
	case c < 0x80:
		return int64(c), nil
	case c >= 0xe0:
		return int64(int8(c)), nil
	case c < 0x90:
		return d.dict(int(c&15), level, keys)
	case c < 0xa0:
		return d.list(int(c&15), level)
	case c < 0xc0:
		return d.str(int(c & 31))
	}
	switch c {
	case 0xc0:
		return nil, nil
	case 0xc2, 0xc3:
		return c == 0xc3, nil
	case 0xcb:
		u, err := d.uint(8)
		return math.Float64frombits(u), err
	case 0xcc, 0xcd, 0xce, 0xcf:
		u, err := d.uint(1 << (c - 0xcc))
		if u > math.MaxInt64 {
			return nil, fmt.Errorf("integer beyond int64: %d", u)
		}
		return int64(u), err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		n := 1 << (c - 0xd0)
		u, err := d.uint(n)
		shift := 64 - 8*n
		return int64(u<<shift) >> shift, err
	case 0xd9, 0xda, 0xdb:
		n, err := size(1 << (c - 0xd9))
		if err != nil {
			return nil, err
		}
		return d.str(n)
	case 0xdc, 0xdd:
		n, err := size(2 << (c - 0xdc))
		if err != nil {
			return nil, err
		}
		return d.list(n, level)
	case 0xde, 0xdf:
		n, err := size(2 << (c - 0xde))
		if err != nil {
			return nil, err
		}
		return d.dict(n, level, keys)
	}
	return nil, fmt.Errorf("unexpected msgpack byte %#x", c)
}

func (d *decoder) str(n int) (any, error) {
	b, err := d.take(n)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("string is not UTF-8: %q", b)
	}
	return string(b), nil
}

func (d *decoder) list(n, level int) (any, error) {
	if level > 16 {
		return nil, fmt.Errorf("array at level %d", level)
	}
	if n > len(d.b) {
		return nil, fmt.Errorf("array of %d in %d bytes", n, len(d.b))
	}
	l := make([]any, n)
	for i := range l {
		var err error
		if l[i], err = d.value(level+1, nil); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (d *decoder) dict(n, level int, keys *[]string) (any, error) {
	if level > 16 {
		return nil, fmt.Errorf("map at level %d", level)
	}
	if n > len(d.b) {
		return nil, fmt.Errorf("map of %d in %d bytes", n, len(d.b))
	}
	m := make(map[string]any, n)
	for range n {
		k, err := d.value(level+1, nil)
		if err != nil {
			return nil, err
		}
		s, ok := k.(string)
		if !ok {
			return nil, fmt.Errorf("key %v", k)
		}
		if _, ok := m[s]; ok {
			return nil, fmt.Errorf("key %q twice", s)
		}
		if m[s], err = d.value(level+1, nil); err != nil {
			return nil, err
		}
		if keys != nil {
			*keys = append(*keys, s)
		}
	}
	return m, nil
}

func (e event) String() string {
	b, err := json.Marshal(e.m)
	if err != nil {
		return err.Error()
	}
	return e.table + " " + e.time.Format(time.RFC3339Nano) + " " + string(b)
}
