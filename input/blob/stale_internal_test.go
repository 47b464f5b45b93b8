package blob

import (
	"log/slog"
	"testing"
	"time"
)

// A list that was asked for before the blob was read shows it smaller than it is known to be. That is no sign of another
// blob, which would be read again from its beginning; the same in a later list is.
func TestStaleListIsNoReplacement(t *testing.T) {
	s := &Source{log: slog.New(slog.DiscardHandler), account: &account{}, book: newBook(nil), cfg: Config{Lookback: 48 * time.Hour},
		counts: counts{retries: make(map[trouble]int64)}, queue: queue{changed: make(chan struct{}, 1)}}
	c := &containerState{s: s, name: "c", blobs: make(map[string]*blobState), said: make(map[trouble]bool)}
	s.containers = map[string]*containerState{"c": c}
	now := time.Now()
	b := &blobState{c: c, name: "x.json", lane: "c/x.json", term: 7, created: now.Unix() - 100, modified: now.Unix(), size: 150, append: true,
		pos: 150, end: 150, given: 150, safe: 150, etag: "2", heard: now}
	c.blobs["x.json"] = b
	older := []item{{name: "x.json", size: 100, etag: "1", created: b.created, modified: b.modified, append: true}}
	if err := c.take(older, nil, now.Add(-time.Second)); err != nil || b.term != 7 || b.pos != 150 || b.size != 150 {
		t.Errorf("a stale list: term %d, position %d, %v", b.term, b.pos, err)
	}
	if err := c.take(older, nil, now.Add(time.Second)); err != nil || b.term == 7 || b.pos != 0 {
		t.Errorf("a blob that is smaller now: term %d, position %d, %v", b.term, b.pos, err)
	}
}
