package blob

import (
	"hash/fnv"
	"regexp"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// shard is a share of the blobs, with their positions. Without blob.shared there is one, which is
// always read. Its fields are covered by Source.mu.
//
//	         claimed              asked for, or given up
//	nobody's -------> reading ------------------------> leaving --written, released--+
//	   ^                |                                                            |
//	   |                +--lease lost--> lost                                        |
//	   |                                   |                                         |
//	   +-----nothing of it is on its way---+<----------------------------------------+
type shard struct {
	n       int
	book    *book
	reading bool            // its blobs are taken up and read
	lease   *input.Lease    // of the shard; nil if blobs are not shared
	term    uint64          // of the time for which it is read; see part
	fresh   map[string]bool // names and patterns of the settings that were first looked for in this time
	claim   *claim          // of the lease; nil while it is nobody's, or nobody shares
	gave    time.Time       // when it was given to another worker, which has to see that first; zero since it was claimed
	tails   int             // its blobs that are followed, or have events on their way
}

// dated tells the names that Defender gives, as far as their day.
var dated = regexp.MustCompile(`(?i)^(?:tenantid=[^/]+/)?y=\d{4}/m=\d{2}/d=\d{2}/`)

// shardOf returns the share that a blob falls to. The blobs of a container, tenant and day fall to
// the same, so that one worker lists them, and reads all evidence of an alert. All blobs that are
// not filed by day fall to one share: they are found by listing all names.
func (s *Source) shardOf(containerName, name string) *shard {
	if len(s.shards) == 1 {
		return s.shards[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(containerName + "/" + dated.FindString(name)))
	return s.shards[h.Sum32()%uint32(len(s.shards))] //nolint:gosec // at most 256
}

// part is the state of a container's blobs of one shard, for as long as that is read. It belongs to
// the container's goroutine.
type part struct {
	shard    *shard
	book     *book
	term     uint64
	since    time.Time // blobs made before were there at the first start
	first    bool      // this poll is the first ever: all blobs that it finds were there before
	record   sweepRecord
	recorded time.Time // when record was stored
}

// live reports whether p's shard is still read. s.mu is held.
func (p *part) live() bool { return p != nil && p.shard.reading && p.shard.term == p.term }

// load reads the stored state of the container in the shards that are newly read. exists tells
// whether the container does.
func (c *container) load(exists bool) error {
	s := c.s
	for _, h := range s.shards {
		s.mu.Lock()
		reading, term, book := h.reading, h.term, h.book
		s.mu.Unlock()
		if old := c.parts[h.n]; !reading || old != nil && old.term == term {
			continue
		}
		p := &part{shard: h, book: book, term: term}
		var err error
		if p.since, err = s.since(h, book, c.origin, s.account.surely()); err != nil {
			return err
		}
		s.mu.Lock()
		p.first = exists && c.early && h.fresh[c.origin]
		s.mu.Unlock()
		v, err := book.get("#sweep/" + c.name)
		if err != nil {
			return err
		}
		p.record = parseSweepRecord(v, s.cfg.Prefix)
		c.parts[h.n] = p
		c.sweeper.passes = 0
	}
	return nil
}

// part returns the part of a blob or folder, or nil when another worker reads it. Blobs of devices
// are learnt from here, too.
func (c *container) part(name string) *part {
	p := c.parts[c.s.shardOf(c.name, name).n]
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if !p.live() {
		return c.learnt
	}
	return p
}

// ours returns the parts of the shards that are read.
func (c *container) ours() (parts []*part) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, p := range c.parts {
		if p.live() {
			parts = append(parts, p)
		}
	}
	return parts
}

// changes are those of the books of some shards.
type changes map[*book][]input.Change

func (ch changes) add(k *book, c input.Change) { ch[k] = append(ch[k], c) }

// write makes them, book by book.
func (ch changes) write() error {
	for k, list := range ch {
		if err := k.write(list); err != nil {
			return err
		}
	}
	return nil
}

// newLearnt is the part of blobs that another worker hands over, and that are read here for their
// devices. Their positions are in memory, and begin again with each start.
func (s *Source) newLearnt() *part {
	h := &shard{n: len(s.shards), book: newBook(nil), reading: true, lease: input.OnlyLearn}
	return &part{shard: h, book: h.book}
}
