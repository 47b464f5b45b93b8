package eventhub

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// counts are figures since Open.
type counts struct {
	messages, bytes, lost, unreadable, stale, rebalances int64
}

// Stats is how the source fares.
type Stats struct {
	Lanes []LaneStats // the partitions that are ours, by hub and number
	Hubs  []HubStats  // the hubs that are there, by name

	Messages   int64            // returned by Fetch
	Bytes      int64            // of their bodies
	Lost       int64            // messages that the hubs' retention deleted before they were read
	Unreadable int64            // messages that were passed over because the client could not decode them
	Stale      int64            // marks that were dropped because their partition was given away
	Rebalances int64            // times that partitions came or went
	Retries    map[string]int64 // failed attempts by kind: sign_in, unreachable, tls, hub_missing, commit, ...
}

// HubStats is how many partitions a hub has, and how many of them are ours. Those that are nobody's
// are read by nobody.
type HubStats struct {
	Hub        string
	Partitions int
	Assigned   int
}

// LaneStats is how one partition fares.
type LaneStats struct {
	Hub       string
	Partition int32
	Next      int64         // the offset to be fetched next
	Committed int64         // the offset that the group has, or -1
	End       int64         // the offset after the partition's last message (its high watermark), when we last heard of it
	Lag       int64         // messages that are not safe yet, fetched or not: they grow while an output is down
	Behind    time.Duration // age of the newest message that was fetched, while there is a lag; else 0
}

// NotCommitted is how many messages would come again after a crash. It is 0 while the group has no
// offset at all.
func (l LaneStats) NotCommitted() int64 {
	if l.Committed < 0 {
		return 0
	}
	return max(l.Next-l.Committed, 0)
}

// Stats returns a snapshot. It is bounded by the partitions that are ours and a fixed list of
// kinds.
func (s *Source) Stats() Stats {
	now := time.Now()
	retries := s.troubles.Retries()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Lanes:    make([]LaneStats, 0, len(s.lanes)),
		Messages: s.counts.messages, Bytes: s.counts.bytes,
		Lost: s.counts.lost, Unreadable: s.counts.unreadable,
		Stale: s.counts.stale, Rebalances: s.counts.rebalances,
		Retries: retries,
	}
	ours := make(map[string]int)
	for _, l := range s.lanes {
		ours[l.hub]++
		ls := LaneStats{Hub: l.hub, Partition: l.partition, Next: l.next, Committed: l.committed, End: l.end}
		if l.safe >= 0 {
			ls.Lag = max(l.end-l.safe, 0)
		}
		if ls.Lag > 0 && !l.newest.IsZero() {
			ls.Behind = max(now.Sub(l.newest), 0)
		}
		st.Lanes = append(st.Lanes, ls)
	}
	slices.SortFunc(st.Lanes, func(a, b LaneStats) int {
		return cmp.Or(cmp.Compare(a.Hub, b.Hub), cmp.Compare(a.Partition, b.Partition))
	})
	for _, hub := range slices.Sorted(maps.Keys(s.partitions)) {
		st.Hubs = append(st.Hubs, HubStats{hub, s.partitions[hub], ours[hub]})
	}
	return st
}

// names lists the lanes that are ours. mu is held.
func (s *Source) names() []string { return slices.Sorted(maps.Keys(s.lanes)) }
