package blob

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

const (
	bucket  = "blob"
	headMax = 1024 // how many first bytes of a blob tell it from another
)

// What stands before a position, and so how reading goes on from it.
const (
	afterLine   = 'n' // a newline: a whole line begins
	insideLine  = 'i' // perhaps not a newline: what is left of the line is skipped
	afterTail   = 't' // the end of a line that was handed on without its newline
	afterObject = 'o' // the end of an object
	inGzip      = 'g' // the position counts decompressed bytes
	gzipDone    = 'G' // and nothing is left
)

// entry is what is remembered of a blob: its value in the state file, under its lane.
type entry struct {
	kind     byte
	offset   int64
	created  int64 // seconds; with the head, what tells the blob from one that replaced it
	modified int64 // seconds, as last listed: what pruning goes by
	head     head
	etag     string
}

// head is a hash of the first n bytes of a blob. n is 0 while they are not known.
type head struct {
	n   int
	sum [16]byte
}

// String is the stored form: short, and readable with any bbolt tool.
func (e entry) String() string {
	return fmt.Sprintf("1 %c %d %d %d %d %s %s", e.kind, e.offset, e.created, e.modified, e.head.n, hex.EncodeToString(e.head.sum[:]), e.etag)
}

func parseEntry(text string) (e entry, err error) {
	var version int
	var sum []byte
	if _, err = fmt.Sscanf(text, "%d %c %d %d %d %d %x %s", &version, &e.kind, &e.offset, &e.created, &e.modified, &e.head.n, &sum, &e.etag); err != nil {
		return entry{}, fmt.Errorf("stored position %q: %w", text, err)
	}
	if version != 1 || len(sum) != len(e.head.sum) || e.offset < 0 || e.head.n < 0 || e.head.n > headMax || !strings.ContainsRune("nitogG", rune(e.kind)) {
		return entry{}, fmt.Errorf("stored position %q: is not of a form that this version knows", text)
	}
	copy(e.head.sum[:], sum)
	return e, nil
}

// book keeps positions: in the state file, or in memory for the life of the source when there is none.
type book struct {
	state *input.State

	mu  sync.Mutex
	mem map[string]string
}

func newBook(state *input.State) *book { return &book{state: state, mem: make(map[string]string)} }

func (k *book) get(key string) (string, error) {
	if k.state == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.mem[key], nil
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
		if c.Value == nil {
			delete(k.mem, c.Key)
		} else {
			k.mem[c.Key] = string(c.Value)
		}
	}
	return nil
}

func (k *book) each(prefix string, f func(key, value string)) error {
	if k.state != nil {
		return ofState(k.state.Each(bucket, prefix, func(key, value []byte) error { f(string(key), string(value)); return nil }))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, value := range k.mem {
		if strings.HasPrefix(key, prefix) {
			f(key, value)
		}
	}
	return nil
}
