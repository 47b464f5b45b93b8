package eventhub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Check tries, once, everything that reading needs: the broker, sign-in, each hub, the right to
// read it. It joins no group, moves no offset and returns within half a minute.
func Check(ctx context.Context, cfg Config) []input.Finding {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	broker := "broker " + strings.Join(cfg.Brokers, ", ")
	opts, err := cfg.connection(ctx, slog.New(slog.DiscardHandler), newBudget(0), nil)
	if err != nil {
		return []input.Finding{{What: broker, Err: err}}
	}
	tried := &attempts{cfg: &cfg}
	client, err := kgo.NewClient(append(opts, kgo.WithHooks(tried), kgo.RetryTimeout(10*time.Second), kgo.RequestRetries(2))...)
	if err != nil {
		return []input.Finding{{What: broker, Err: err}}
	}
	defer client.Close()

	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		if failed := tried.last(); failed != nil {
			err = failed
		}
		return []input.Finding{{What: broker, Err: err}}
	}
	findings := []input.Finding{{What: broker, Detail: "signed in by " + cfg.Auth}}

	seen := make(map[string]bool) // by name or pattern of the configuration
	for _, t := range resp.Topics {
		if t.Topic == nil || !matchHub(cfg.Hubs, *t.Topic) {
			continue
		}
		for _, h := range cfg.Hubs {
			seen[h] = seen[h] || matchHub([]string{h}, *t.Topic)
		}
		findings = append(findings, checkHub(ctx, client, &cfg, t))
	}
	for _, h := range cfg.Hubs {
		switch {
		case seen[h]:
		case isPattern(h):
			findings = append(findings, input.Finding{What: "hubs " + h, Err: errors.New("no hub of the namespace matches yet; check eventhub.hubs, or wait: Defender creates its hubs with the first events")})
		default:
			_, advice := cfg.explainHub(kerr.UnknownTopicOrPartition)
			findings = append(findings, input.Finding{What: "hub " + h, Err: errors.New(advice)})
		}
	}
	return findings
}

// checkHub reads the metadata of a hub. It asks where its partitions begin and end, which needs the
// right to read, and how much the group has left to read.
func checkHub(ctx context.Context, client *kgo.Client, cfg *Config, t kmsg.MetadataResponseTopic) input.Finding {
	f := input.Finding{What: "hub " + *t.Topic}
	explain := func(code int16) bool {
		err := kerr.ErrorForCode(code)
		if err != nil {
			_, advice := cfg.explainHub(err)
			f.Err = fmt.Errorf("%s (%w)", advice, err)
		}
		return err != nil
	}
	if explain(t.ErrorCode) {
		return f
	}
	// ask returns an offset of each partition, or nil with the reason in f.
	ask := func(at int64) map[int32]int64 {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = *t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewListOffsetsRequestTopicPartition()
			part.Partition, part.Timestamp = p.Partition, at
			topic.Partitions = append(topic.Partitions, part)
		}
		req.Topics = append(req.Topics, topic)
		offsets := make(map[int32]int64)
		for _, shard := range client.RequestSharded(ctx, req) {
			if shard.Err != nil {
				f.Err = fmt.Errorf("ask for its offsets: %w", shard.Err)
				return nil
			}
			for _, rt := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
				for _, p := range rt.Partitions {
					if explain(p.ErrorCode) {
						return nil
					}
					offsets[p.Partition] = p.Offset
				}
			}
		}
		return offsets
	}
	ends := ask(atEnd)
	if ends == nil {
		return f
	}
	starts := ask(atStart)
	if starts == nil {
		return f
	}
	committed, err := groupOffsets(ctx, client, cfg, t)
	if err != nil {
		f.Err = err
		return f
	}
	var messages, left int64
	fresh := 0
	for p, end := range ends {
		messages += end
		at, known := committed[p]
		if !known {
			fresh++
			continue
		}
		left += max(0, end-max(at, starts[p]))
	}
	f.Detail = fmt.Sprintf("%d partitions, %d messages written so far, ", len(t.Partitions), messages)
	switch {
	case fresh == len(ends):
		f.Detail += fmt.Sprintf("none read by group %s: eventhub.start %s decides", cfg.Group, startText(cfg.Start))
	case fresh > 0:
		f.Detail += fmt.Sprintf("%d left for group %s, and all of the %d partitions that it has not read: eventhub.start %s decides there", left, cfg.Group, fresh, startText(cfg.Start))
	default:
		f.Detail += fmt.Sprintf("%d left for group %s", left, cfg.Group)
	}
	return f
}

// groupOffsets returns the group's offsets of a hub. Partitions without one are left out.
func groupOffsets(ctx context.Context, client *kgo.Client, cfg *Config, t kmsg.MetadataResponseTopic) (map[int32]int64, error) {
	var partitions []int32
	for _, p := range t.Partitions {
		partitions = append(partitions, p.Partition)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = cfg.Group // before version 8
	topic := kmsg.NewOffsetFetchRequestTopic()
	topic.Topic, topic.Partitions = *t.Topic, partitions
	req.Topics = append(req.Topics, topic)
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = cfg.Group
	of := kmsg.NewOffsetFetchRequestGroupTopic()
	of.Topic, of.Partitions = *t.Topic, partitions
	group.Topics = append(group.Topics, of)
	req.Groups = append(req.Groups, group)
	offsets := make(map[int32]int64)
	fail := func(code int16) error {
		err := kerr.ErrorForCode(code)
		if err == nil || errors.Is(err, kerr.GroupIDNotFound) {
			return nil
		}
		_, advice := cfg.explainGroup(err)
		return fmt.Errorf("%s (%w)", advice, err)
	}
	for _, shard := range client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("ask what group %s has read: %w", cfg.Group, shard.Err)
		}
		resp := shard.Resp.(*kmsg.OffsetFetchResponse)
		err := fail(resp.ErrorCode)
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				if err = errors.Join(err, fail(p.ErrorCode)); p.Offset >= 0 {
					offsets[p.Partition] = p.Offset
				}
			}
		}
		for _, g := range resp.Groups {
			err = errors.Join(err, fail(g.ErrorCode))
			for _, rt := range g.Topics {
				for _, p := range rt.Partitions {
					if err = errors.Join(err, fail(p.ErrorCode)); p.Offset >= 0 {
						offsets[p.Partition] = p.Offset
					}
				}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

// attempts keeps why the last connection failed: the client's own error only says that it gave up.
type attempts struct {
	cfg *Config
	mu  sync.Mutex
	err error
}

// OnBrokerConnect is called after every attempt to connect and sign in.
func (a *attempts) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	defer func() { _ = recover() }() // in a goroutine of the client
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	_, advice := a.cfg.explainConnection(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = fmt.Errorf("%s (%s: %w)", advice, net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port))), err)
}

func (a *attempts) last() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
