package blob

import (
	"time"
)

// counts are kept under Source.mu.
type counts struct {
	found, replaced, gone int64
	cut, skipped          int64
	asleep, asleepBytes   int64
}

// Stats are the counts of a source since it was opened, and its present state.
type Stats struct {
	Lists, Reads   int64            // requests to the service
	Retries        map[string]int64 // by kind of trouble: throttled, denied, network, changed, ...
	Blobs          int64            // that were taken up
	Replaced, Gone int64
	LinesCut       int64 // lines and values beyond LineLimit
	BytesSkipped   int64 // what followed in those lines, or behind damage in gzip
	Archived       int64 // blobs left out because they are in the archive tier
	ArchivedBytes  int64
	Containers     map[string]ContainerStats
	Shared         *SharedStats // nil without blob.shared
}

// SharedStats is how the blobs are shared, as this worker sees it.
type SharedStats struct {
	Shards    int   // in all
	Owned     int   // that this worker reads
	Claimed   int64 // so far
	Takeovers int64 // of those, that were another worker's before
	Lost      int64 // leases that ended before they were given back
}

// ContainerStats is the present state of a container.
type ContainerStats struct {
	Open   int           // blobs that are followed or wait to be read
	Behind int64         // bytes listed whose events are not safe yet; of gzip blobs the compressed size
	Newest time.Duration // since the newest blob was changed; 0 when none is known
	Failed int           // blobs that cannot be read at present
}

// Stats may be called at any time.
func (s *Source) Stats() Stats {
	now := s.account.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Lists: s.account.lists.Load(), Reads: s.account.reads.Load(),
		Retries: s.troubles.Retries(),
		Blobs:   s.counts.found, Replaced: s.counts.replaced, Gone: s.counts.gone,
		LinesCut: s.counts.cut, BytesSkipped: s.counts.skipped, Archived: s.counts.asleep, ArchivedBytes: s.counts.asleepBytes,
		Containers: make(map[string]ContainerStats, len(s.containers)),
	}
	if sh := s.shared; sh != nil {
		st.Shared = &SharedStats{Shards: len(s.shards), Claimed: sh.counts.claimed, Takeovers: sh.counts.takeovers, Lost: sh.counts.lost}
		for _, h := range s.shards {
			if h.reading {
				st.Shared.Owned++
			}
		}
	}
	for name, c := range s.containers {
		cs := ContainerStats{Open: len(c.blobs), Failed: c.failing}
		var newest int64
		for _, b := range c.blobs {
			cs.Behind += b.behind()
			newest = max(newest, b.modified)
		}
		if newest > 0 {
			cs.Newest = max(now.Sub(time.Unix(newest, 0)), 0)
		}
		st.Containers[name] = cs
	}
	return st
}

// behind is how many bytes of b are not read, or not safe. s.mu is held.
func (b *tail) behind() int64 {
	switch {
	case b.archived && b.safe >= b.given:
		return 0 // left out
	case b.form == gzipped && b.done && b.safe >= b.given:
		return 0
	case b.form == gzipped:
		return b.size
	case b.safe >= b.given:
		return max(b.size-b.pos, 0) // the skipped bytes behind the last message count as read
	}
	return max(b.size-b.safe, 0)
}
