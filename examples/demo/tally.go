package main

import (
	"sync"
	"time"

	"github.com/valyala/fastjson"
)

// A tally takes the events of the pipeline: it counts everything and keeps the events worth
// showing.
type tally struct {
	feed  *feed
	shape shape

	mu          sync.Mutex // covers the fields below
	parser      fastjson.Parser
	records     map[string]int
	total       int
	numbers     []bool // which records of the story came
	distinct    int
	ids         map[string]struct{} // event_id, of replayed files: a story has numbers
	broken      string              // a line that was not JSON
	first, last time.Time
	tags        map[string]int
	kept        [][]byte
	keptOf      map[string]int
}

func newTally(f *feed, shape shape) *tally {
	return &tally{
		feed:    f,
		shape:   shape,
		records: make(map[string]int),
		numbers: make([]bool, f.numbers),
		ids:     make(map[string]struct{}),
		tags:    make(map[string]int),
		keptOf:  make(map[string]int),
	}
}

// add takes one record as JSON, the record itself at the given path (none: the whole). It does not
// keep text.
func (t *tally) add(text []byte, tag string, path ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, err := t.parser.ParseBytes(text)
	r := v
	if err == nil {
		if r = v.Get(path...); r == nil || r.Type() != fastjson.TypeObject {
			t.broken = string(text)
			return
		}
	} else {
		t.broken = string(text)
		return
	}
	if tag == "" {
		tag = string(v.GetStringBytes("tag"))
	}
	t.last = time.Now()
	if t.total == 0 {
		t.first = t.last
	}
	t.total++
	t.tags[tag]++
	s := t.shape.read(r)
	table := t.table(s)
	t.records[table]++

	if t.feed.numbers > 0 {
		if n := s.number(); n >= 0 && n < int64(len(t.numbers)) && !t.numbers[n] {
			t.numbers[n] = true
			t.distinct++
		}
	} else if id := s.id(); id != "" {
		t.ids[id] = struct{}{}
	}
	if t.worthShowing(s, table) {
		t.kept = append(t.kept, r.MarshalTo(nil))
		t.keptOf[table]++
	}
}

// table is the name under which the record counts. A record without a category of Defender's may be
// called anything.
func (t *tally) table(r seen) string {
	if r.unreadable() {
		return unreadable
	}
	table := r.table()
	if _, ok := t.feed.records[table]; !ok && t.feed.records[other] > 0 {
		return other
	}
	return table
}

const (
	storyBegins = 420 // the attack of the story and its aftermath are within so many records
	filesShown  = 300 // of replayed files
)

func (t *tally) worthShowing(r seen, table string) bool {
	if t.feed.numbers > 0 {
		return r.number() < storyBegins
	}
	return len(t.kept) < filesShown || t.keptOf[table] == 0
}

// progress is how many records have come, and when the last one did.
func (t *tally) progress() (total int, last time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total, t.last
}

// result is the summary at the end.
type result struct {
	missing    int // records that did not come
	again      int // records that came more than once
	unexpected int // records of tables that were not fed
	saved      int // records that came out of damaged messages
}

func (t *tally) result() (r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for table, in := range t.feed.records {
		if table == damaged {
			continue
		}
		r.missing += max(0, in-t.records[table])
		r.again += max(0, t.records[table]-in)
	}
	for table, out := range t.records {
		if _, ok := t.feed.records[table]; !ok {
			r.unexpected += out
		}
	}
	if n := t.feed.records[damaged]; n > 0 {
		// Records beyond the known ones are the rest of damaged messages.
		r.saved = r.again + r.unexpected
		r.missing += max(0, n-r.saved)
		r.again, r.unexpected = 0, 0
	}
	if t.feed.numbers > 0 {
		r.missing = max(r.missing, t.feed.numbers-t.distinct)
	}
	return r
}
