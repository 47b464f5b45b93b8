package eventhub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// commitWait bounds commits that nobody else bounds.
const commitWait = 10 * time.Second

// flush commits and copies what is safe and not yet known to the group, or the state file. giving is held.
func (s *Source) flush(ctx context.Context) error {
	type step struct {
		l     *lane
		term  uint64
		safe  int64
		proof []byte // nil when there is none
	}
	var commits, copies []step
	s.mu.Lock()
	for _, l := range s.lanes {
		st := step{l: l, term: l.term, safe: l.safe}
		if l.committed < l.safe {
			commits = append(commits, st)
		}
		if l.copied < l.safe && l.check == nil { // its proof may have to stay
			if p, ok := l.proven(); ok {
				st.proof = []byte(p.String())
			}
			copies = append(copies, st)
		}
	}
	s.mu.Unlock()
	if len(commits) == 0 && len(copies) == 0 {
		return nil
	}

	offsets := make(positions)
	for _, c := range commits {
		if offsets[c.l.hub] == nil {
			offsets[c.l.hub] = make(map[int32]kgo.EpochOffset)
		}
		offsets[c.l.hub][c.l.partition] = kgo.EpochOffset{Epoch: -1, Offset: c.safe}
	}
	refused, err := s.commit(ctx, offsets)
	s.mu.Lock()
	for _, c := range commits {
		if !refused[c.l.name] && c.l.term == c.term {
			c.l.committed, c.l.anew = c.safe, false
		}
	}
	s.moved.Broadcast()
	s.mu.Unlock()

	// The copy moves whether or not the group took the offsets: the marks are safe either way. But not while the group may still have an
	// offset of another hub, which would count after a restart, and against which only the old proof tells. And a copy that cannot be
	// written does not keep the group from moving: it is said, and tried again with the next commit.
	s.mu.Lock()
	copies = slices.DeleteFunc(copies, func(c step) bool { return c.l.term == c.term && c.l.anew })
	s.mu.Unlock()
	changes := make([]input.Change, 0, 2*len(copies))
	for _, c := range copies {
		key := s.copyKey(c.l.hub, c.l.partition)
		changes = append(changes, input.Change{Key: key, Value: strconv.AppendInt(nil, c.safe, 10)}, input.Change{Key: key + proofSuffix, Value: c.proof})
	}
	if e := s.state.Write(bucket, changes); e != nil {
		s.troubles.Begin("copy of offsets", "", "copy", slog.LevelWarn, "the copy of offsets in the state file cannot be written; should Event Hubs lose the group's offsets, events will be repeated", "error", e)
		return err
	}
	s.troubles.End("copy of offsets", "")
	s.mu.Lock()
	for _, c := range copies {
		if c.l.term == c.term {
			c.l.copied = c.safe
		}
	}
	s.mu.Unlock()
	return err
}

// commit sends offsets to the group as the member that we are at the moment; the broker refuses them if we are none. refused names
// the lanes whose offsets the group did not take, if any; all of them when there was no answer.
func (s *Source) commit(ctx context.Context, offsets positions) (refused map[string]bool, err error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = s.cfg.Group
	req.MemberID, req.Generation = s.client.GroupMetadata()
	refused = make(map[string]bool)
	for hub, partitions := range offsets {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = hub
		for partition, o := range partitions {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset = partition, o.Offset
			p.LeaderEpoch = -1 // Event Hubs reports none, or some that it does not know later
			t.Partitions = append(t.Partitions, p)
			refused[laneName(hub, partition)] = true
		}
		req.Topics = append(req.Topics, t)
	}
	defer func() {
		if err != nil {
			s.troubles.Count("commit")
			err = fmt.Errorf("commit offsets of group %s: %w", s.cfg.Group, err)
		}
	}()
	if req.MemberID == "" {
		return refused, errors.New("not a member of the group at the moment") // an offset without member would be taken from anybody
	}
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return refused, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				err = e // of one partition: they rarely differ
				continue
			}
			delete(refused, laneName(t.Topic, p.Partition))
		}
	}
	if err == nil && len(refused) > 0 {
		err = errors.New("the broker did not answer for all partitions")
	}
	return refused, err
}

// bound is where a partition begins and ends, and where eventhub.start says to begin in it.
type bound struct{ start, end, fresh int64 }

// Special times of ListOffsets.
const (
	atEnd   = -1
	atStart = -2
)

// listTries is how often partitions are asked about before they are left to franz-go: one that cannot be read must not
// keep the others waiting.
const listTries = 5

// readBounds asks the broker where lanes begin and end, until ctx ends. Lanes that it cannot be asked about are left out.
func (s *Source) readBounds(ctx context.Context, lanes []*lane) (map[string]bound, error) {
	bounds := make(map[string]bound, len(lanes))
	wait := input.Backoff{First: 500 * time.Millisecond, Max: 4 * time.Second}
	for try := 1; ; try++ {
		var left []*lane
		for _, l := range lanes {
			if _, ok := bounds[l.name]; !ok {
				left = append(left, l)
			}
		}
		if len(left) == 0 || try > listTries {
			return bounds, ctx.Err()
		}
		// In this order: should messages come meanwhile, "latest" and a time after all messages mean a place before them.
		ends := s.list(ctx, left, atEnd)
		starts := s.list(ctx, left, atStart)
		var times map[string]int64
		if !s.cfg.Start.At.IsZero() {
			times = s.list(ctx, left, s.cfg.Start.At.UnixMilli())
		}
		for _, l := range left {
			end, ok1 := ends[l.name]
			start, ok2 := starts[l.name]
			if !ok1 || !ok2 {
				continue
			}
			b := bound{start: start, end: max(start, end), fresh: start}
			if s.cfg.Start.Latest {
				b.fresh = b.end
			} else if times != nil {
				at, ok := times[l.name]
				if !ok {
					continue
				}
				if b.fresh = at; at < 0 { // no message is as young as that
					b.fresh = b.end
				}
			}
			bounds[l.name] = b
		}
		if len(bounds) < len(lanes) && try < listTries {
			if err := input.Sleep(ctx, wait.Next()); err != nil {
				return nil, err
			}
		}
	}
}

// list returns, for lanes that the broker answers for, the first offset whose message is not older than millis, or -1.
// atEnd and atStart are special.
func (s *Source) list(ctx context.Context, lanes []*lane, millis int64) map[string]int64 {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	topics := make(map[string]int)
	for _, l := range lanes {
		i, ok := topics[l.hub]
		if !ok {
			i = len(req.Topics)
			topics[l.hub] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = l.hub
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = l.partition, millis, -1
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	offsets := make(map[string]int64, len(lanes))
	for _, shard := range s.client.RequestSharded(ctx, req) {
		resp, ok := shard.Resp.(*kmsg.ListOffsetsResponse)
		if shard.Err != nil || !ok {
			s.log.Debug("list offsets", "error", shard.Err)
			continue
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					s.log.Debug("list offsets", "hub", t.Topic, "partition", p.Partition, "error", err)
					continue
				}
				offsets[laneName(t.Topic, p.Partition)] = p.Offset
			}
		}
	}
	return offsets
}
