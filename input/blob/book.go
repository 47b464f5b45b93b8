package blob

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	bucket  = "blob"
	headMax = 1024 // bytes: the head of a blob, which tells it from another
	footMax = 1024 // bytes: the foot of a block blob, which shows that it only grew
)

// entry is the memory of a blob: its value in the state file, under its lane.
type entry struct {
	form     form
	place    place // at offset
	done     bool  // of gzip: nothing is left
	left     bool  // the bytes from offset on could not be read so far: it is not forgotten at any age
	offset   int64 // of gzip: of the text
	created  int64 // seconds; with the head, it tells the blob from one that replaced it
	modified int64 // seconds, as last listed; pruning goes by it
	head     head
	foot     foot
	etag     string
}

// head is a hash of the first n bytes of a blob. n is 0 while they are not known. Shards keep the
// first half of it.
type head struct {
	n   int
	sum [16]byte
}

const headKept = 8

// same tells whether two heads are of the same bytes, as far as is known.
func (h head) same(o head) bool {
	var none [len(h.sum) - headKept]byte
	if [len(none)]byte(h.sum[headKept:]) == none || [len(none)]byte(o.sum[headKept:]) == none {
		clear(h.sum[headKept:])
		clear(o.sum[headKept:])
	}
	return h == o
}

// foot is a hash of the n bytes before at. There the last value ends of a block blob that was read
// whole. When at and hash are the same in a new version of the blob, it only grew, and reading
// continues at at. n is 0 when that is not known.
type foot struct {
	at    int64
	place place
	n     int
	sum   [16]byte
}

const formLetters = "-pwWg" // by form

// String is the stored form: short, and readable with any SQLite tool.
func (e entry) String() string {
	state := "-"
	switch {
	case e.done:
		state = "d"
	case e.left:
		state = "u"
	}
	at := e.foot.place
	if at == 0 {
		at = atLine
	}
	return fmt.Sprintf("2 %c %c %s %d %d %d %d %s %d %c %d %s %s", formLetters[e.form], e.place, state, e.offset, e.created, e.modified,
		e.head.n, hex.EncodeToString(e.head.sum[:]), e.foot.at, at, e.foot.n, hex.EncodeToString(e.foot.sum[:]), e.etag)
}

func parseEntry(text string) (e entry, err error) {
	if strings.HasPrefix(text, "1 ") {
		return parseEntry1(text)
	}
	var version int
	var letter rune
	var state string
	var at, footAt rune
	var sum, footSum []byte
	n, err := fmt.Sscanf(text, "%d %c %c %s %d %d %d %d %x %d %c %d %x %s", &version, &letter, &at, &state, &e.offset, &e.created, &e.modified,
		&e.head.n, &sum, &e.foot.at, &footAt, &e.foot.n, &footSum, &e.etag)
	if n == 13 { // without an ETag
		err = nil
	}
	if err != nil {
		return entry{}, fmt.Errorf("stored position %q: %w", text, err)
	}
	form := strings.IndexRune(formLetters, letter)
	const places = "liarex"
	if version != 2 || form < 0 || len(sum) != len(e.head.sum) || len(footSum) != len(e.foot.sum) || e.offset < 0 || e.head.n < 0 || e.head.n > headMax ||
		e.foot.n < 0 || e.foot.n > footMax || e.foot.at < int64(e.foot.n) || !strings.ContainsRune("v"+places, at) || !strings.ContainsRune("v"+places, footAt) ||
		len(state) != 1 || !strings.Contains("-du", state) {
		return entry{}, fmt.Errorf("stored position %q: is not of a form that this version knows", text)
	}
	e.form, e.place, e.done, e.left = formOf(form), place(at), state == "d", state == "u"
	if e.foot.n > 0 {
		e.foot.place = place(footAt)
	} else {
		e.foot = foot{}
	}
	copy(e.head.sum[:], sum)
	if e.foot.n > 0 {
		copy(e.foot.sum[:], footSum)
	}
	return e, nil
}

func formOf(i int) form { return form(i) } //nolint:gosec // below 5

// parseEntry1 reads what versions before 2 of the form stored: they knew lines, and objects over a
// whole blob.
func parseEntry1(text string) (e entry, err error) {
	var version int
	var kind rune
	var sum []byte
	if _, err = fmt.Sscanf(text, "%d %c %d %d %d %d %x %s", &version, &kind, &e.offset, &e.created, &e.modified, &e.head.n, &sum, &e.etag); err != nil {
		return entry{}, fmt.Errorf("stored position %q: %w", text, err)
	}
	known := map[rune]entry{
		'n': {form: plain, place: atLine},  // after a newline
		'i': {form: plain, place: inLine},  // perhaps inside a line
		't': {form: plain, place: atValue}, // the end of a line without its newline
		'o': {form: plain, place: atValue}, // the end of an object
		'g': {form: gzipped, place: atLine},
		'G': {form: gzipped, place: atLine, done: true},
	}
	k, ok := known[kind]
	if version != 1 || !ok || len(sum) != len(e.head.sum) || e.offset < 0 || e.head.n < 0 || e.head.n > headMax {
		return entry{}, fmt.Errorf("stored position %q: is not of a form that this version knows", text)
	}
	e.form, e.place, e.done = k.form, k.place, k.done
	copy(e.head.sum[:], sum)
	return e, nil
}

// book keeps positions: in the state file, or in memory for the life of the source when there is
// none. That of a shard is in memory, in a short form, and from there in the shard's blob.
type book struct {
	state  *input.State
	packed bool // mem has entries in their short form

	mu      sync.Mutex
	mem     map[string]string
	changes uint64 // so far, of mem
}

func newBook(state *input.State) *book { return &book{state: state, mem: make(map[string]string)} }

func (k *book) get(key string) (string, error) {
	if k.state == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.value(key), nil
	}
	v, err := k.state.Get(bucket, key)
	return string(v), ofState(err)
}

// errState marks errors of the state file among those of the service.
var errState = errors.New("state file")

func ofState(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errState, err)
}

// write makes all changes or none. Keys beginning with "#" are not lanes: no container's name does.
func (k *book) write(changes []input.Change) error {
	if k.state != nil {
		return ofState(k.state.Write(bucket, changes))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range changes {
		value := string(c.Value)
		if k.packed && c.Value != nil && c.Key[0] != '#' {
			e, err := parseEntry(value)
			if err != nil {
				return ofState(err)
			}
			value = e.pack()
		}
		if c.Value == nil {
			delete(k.mem, c.Key)
		} else {
			k.mem[c.Key] = value
		}
		k.changes++
	}
	return nil
}

// value is that of a key of mem. mu is held.
func (k *book) value(key string) string {
	v, ok := k.mem[key]
	if !ok || !k.packed || key[0] == '#' {
		return v
	}
	e, err := unpackEntry(v)
	if err != nil {
		panic("BUG: a position that was checked cannot be read")
	}
	return e.String()
}

// pack makes the shard's blob, of so many bytes at most: what cannot be read is not written.
// changes tells which it holds. Of too many positions it leaves those out whose blobs changed
// longest ago: these blobs are read again, and not lost. Those of unread blobs stay, since old
// blobs without a position count as read. packed is nil when even these are too many.
func (k *book) pack(most int) (packed []byte, left int, changes uint64) {
	k.mu.Lock()
	values, changes := maps.Clone(k.mem), k.changes
	k.mu.Unlock() // compressing takes long, and reading goes on
	fits := func() bool {
		var size int
		packed, size = packText(values)
		return len(packed) <= most && size <= packedMost
	}
	all := len(values)
	if fits() {
		return packed, 0, changes
	}
	modified := make(map[string]int64)
	for key, value := range values {
		if e, err := unpackEntry(value); key[0] != '#' && err == nil && !e.left {
			modified[key] = e.modified
		}
	}
	oldest := slices.SortedFunc(maps.Keys(modified), func(a, b string) int { return cmp.Compare(modified[a], modified[b]) })
	for len(oldest) > 0 {
		for _, key := range oldest[:(len(oldest)+1)/2] {
			delete(values, key)
		}
		if oldest = oldest[(len(oldest)+1)/2:]; fits() {
			return packed, all - len(values), changes
		}
	}
	return nil, all, changes
}

// changed is how many changes there were.
func (k *book) changed() uint64 { k.mu.Lock(); defer k.mu.Unlock(); return k.changes }

func (k *book) each(prefix string, f func(key, value string)) error {
	if k.state != nil {
		return ofState(k.state.Each(bucket, prefix, func(key, value []byte) error { f(string(key), string(value)); return nil }))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.mem {
		if strings.HasPrefix(key, prefix) {
			f(key, k.value(key))
		}
	}
	return nil
}
