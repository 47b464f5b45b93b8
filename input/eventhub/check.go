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

// Check tries, once, everything that reading needs: the broker, sign-in, each hub, the right to read it. It joins no group,
// moves no offset and returns within half a minute.
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
			findings = append(findings, input.Finding{What: "hubs " + h, Err: errors.New("no hub of the namespace matches yet; check eventhub.hubs, or wait for the first events: Defender makes its hubs with them")})
		default:
			_, advice := cfg.explainHub(kerr.UnknownTopicOrPartition)
			findings = append(findings, input.Finding{What: "hub " + h, Err: errors.New(advice)})
		}
	}
	return findings
}

// checkHub reads the metadata of a hub and asks for the end of its partitions, for which the right to read is needed.
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
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = *t.Topic
	for _, p := range t.Partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = p.Partition, -1
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	var messages int64
	for _, shard := range client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			f.Err = fmt.Errorf("ask for its offsets: %w", shard.Err)
			return f
		}
		for _, rt := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range rt.Partitions {
				if explain(p.ErrorCode) {
					return f
				}
				messages += p.Offset
			}
		}
	}
	f.Detail = fmt.Sprintf("%d partitions, %d messages written so far", len(t.Partitions), messages)
	return f
}

// attempts keeps why the last connection failed: the client's own error only says that it gave up.
type attempts struct {
	cfg *Config
	mu  sync.Mutex
	err error
}

// OnBrokerConnect is told of every attempt to connect and sign in.
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
