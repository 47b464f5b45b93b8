package eventhub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// watch checks, at the start and from then on, that the hubs of the source exist: franz-go waits in
// silence for a missing one. It also asks for the ends of partitions while nothing is fetched from
// them. And it tries commits again that failed, where no newer one follows.
//
// It comes back from a panic, after a wait.
func (s *Source) watch(ctx context.Context) {
	var wait input.Backoff
	for ctx.Err() == nil {
		s.look(ctx)
		_ = input.Sleep(ctx, wait.Next())
	}
}

// look is watch until it panics.
func (s *Source) look(ctx context.Context) {
	defer input.CatchAndLog(s.log, "look after hubs")
	var known []string
	for {
		hubs, err := s.readHubs(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Debug("read metadata", "error", err) // the connection's trouble is logged where it is noticed
		} else if !slices.Equal(hubs, known) {
			s.log.Info("hubs found", "namespace", s.cfg.Namespace, "hubs", listText(hubs), "group", s.cfg.Group)
			known = hubs
		}
		s.readEnds(ctx)
		s.retry(ctx)
		wait := calmWait
		if err != nil || s.troubles.Any() {
			wait = s.waits.trouble
		}
		if input.Sleep(ctx, min(wait, s.cfg.HubsEvery)) != nil {
			return
		}
	}
}

// readHubs returns the hubs of the configuration that are there, with their number of partitions,
// and says which are not.
func (s *Source) readHubs(ctx context.Context) (found []string, err error) {
	patterns := slices.ContainsFunc(s.cfg.Hubs, isPattern)
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	if !patterns {
		req.Topics = make([]kmsg.MetadataRequestTopic, 0, len(s.cfg.Hubs))
		for _, h := range s.cfg.Hubs {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(h)
			req.Topics = append(req.Topics, t)
		}
	}
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	missing := slices.Clone(s.cfg.Hubs)
	partitions := make(map[string]int)
	for _, t := range resp.Topics {
		if t.Topic == nil || t.IsInternal || !matchHub(s.cfg.Hubs, *t.Topic) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(h string) bool { return matchHub([]string{h}, *t.Topic) })
		what := "hub " + *t.Topic
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			kind, advice := s.cfg.explainHub(err)
			s.troubles.Begin(what, "", kind, slog.LevelError, advice, "hub", *t.Topic, "namespace", s.cfg.Namespace, "error", err)
			continue
		}
		s.troubles.End(what, "")
		partitions[*t.Topic] = len(t.Partitions)
		found = append(found, fmt.Sprintf("%s (%d)", *t.Topic, len(t.Partitions)))
	}
	for _, h := range s.cfg.Hubs {
		switch {
		case !isPattern(h):
		case slices.Contains(missing, h):
			s.troubles.Begin("hub "+h, "", "no_match", slog.LevelWarn, "no hub of the namespace matches the pattern yet: check eventhub.hubs and that the connection string is one of the whole namespace (Defender creates its hubs with the first events)",
				"pattern", h, "namespace", s.cfg.Namespace)
		default:
			s.troubles.End("hub "+h, "")
		}
	}
	s.mu.Lock()
	s.partitions = partitions
	s.mu.Unlock()
	slices.Sort(found)
	return found, nil
}

// readEnds refreshes how far the partitions reach, for the lag.
func (s *Source) readEnds(ctx context.Context) {
	s.mu.Lock()
	lanes := make([]*lane, 0, len(s.lanes))
	for _, l := range s.lanes {
		lanes = append(lanes, l)
	}
	s.mu.Unlock()
	if len(lanes) == 0 {
		return
	}
	ends := s.list(ctx, lanes, atEnd, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lanes {
		if end, ok := ends[l.name]; ok {
			l.end = max(end, l.next)
		}
	}
}

// retry commits and copies again what failed before.
func (s *Source) retry(ctx context.Context) {
	s.giving.Lock()
	defer s.giving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, commitWait)
	defer cancel()
	if err := s.flush(ctx); err != nil {
		s.log.Debug("commit again", "error", err)
	}
}

// listText joins names, the first twenty of them: a log line must not grow with the namespace.
func listText(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), len(names)-most)
}

func startText(st input.Start) string {
	switch {
	case st.Latest:
		return "latest"
	case st.At.IsZero():
		return "earliest"
	}
	return st.At.Format(time.RFC3339)
}
