package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/azurite"
	"github.com/fluent-bit-defender/fluent-bit-defender/build/kafka"
)

const (
	kafkaSource   = "Kafka " + kafka.Version
	azuriteSource = "Azurite " + azurite.Version
)

func needsKafka(ctx context.Context) error {
	if err := kafka.Prepare(ctx); err != nil {
		return fmt.Errorf("needs %s: %w", kafkaSource, err)
	}
	return nil
}

func needsAzurite(ctx context.Context) error {
	if err := azurite.Prepare(ctx); err != nil {
		return fmt.Errorf("needs %s: %w", azuriteSource, err)
	}
	return nil
}

// realServers has the Kafka that rows share, one at a time, because it takes seconds to start and a
// row may take it down.
type realServers struct {
	preparing sync.Mutex

	turn  sync.Mutex // held by the row that uses Kafka
	dir   string
	kafka *kafka.Server
}

// prepare does one preparation at a time: nothing is downloaded twice.
func (s *realServers) prepare(ctx context.Context, needs func(context.Context) error) error {
	s.preparing.Lock()
	defer s.preparing.Unlock()
	return needs(ctx)
}

func (s *realServers) close() {
	if s.kafka != nil {
		s.kafka.Close()
	}
	_ = os.RemoveAll(s.dir)
	s.kafka, s.dir = nil, ""
}

// startKafka makes the hub in the real Kafka, and returns hubSection. At the end of the row nothing
// of it is left there.
func (r *run) startKafka(partitions int32) section {
	real := r.opt.real
	if real.kafka == nil {
		dir, err := os.MkdirTemp("", "faults-kafka-")
		if err != nil {
			r.fatalf("%v", err)
		}
		real.dir = dir
		if real.kafka, err = kafka.Start(r.ctx, dir); err != nil {
			real.close()
			r.fatalf("%v", err)
		}
	}
	r.kafka, r.partitions = real.kafka, partitions
	r.useBroker(r.kafka)
	r.cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := real.clear(ctx); err != nil {
			r.failf("clean up %s: %v", kafkaSource, err)
			real.close()
		}
	})
	if err := r.kafka.CreateHub(r.ctx, hubName, partitions); err != nil {
		r.fatalf("%v", err)
	}
	return r.hubSection()
}

// clear deletes the topics and groups of a row from Kafka.
func (s *realServers) clear(ctx context.Context) error {
	if !s.kafka.Running() {
		return errors.New("it was left stopped")
	}
	client, err := kgo.NewClient(s.kafka.ClientOpts()...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := evict(ctx, client); err != nil {
		return err
	}
	if _, err := kadm.NewClient(client).DeleteGroup(ctx, group); err != nil && !errors.Is(err, kerr.GroupIDNotFound) && !errors.Is(err, kerr.CoordinatorNotAvailable) {
		return err
	}
	return s.kafka.DeleteHub(ctx, hubName)
}

// kafkaDown takes the real Kafka down as down does it, for d, and up again. Nothing is put in
// meanwhile.
func (r *run) kafkaDown(down func(*kafka.Server), d time.Duration) {
	r.withoutFeed(func() {
		down(r.kafka)
		r.sleep(d)
		if err := r.kafka.Run(r.ctx); err != nil {
			r.fatalf("start Kafka again: %v", err)
		}
		if err := r.toHub(hubName)(4 * perMessage); err != nil { // so that there is something to recover
			r.fatalf("%v", err)
		}
		r.ledger.heal()
	})
}

// startAzurite starts an Azurite of the row's own, with the container, and returns blobSection.
func (r *run) startAzurite() section {
	const account = "defender"
	dir := filepath.Join(r.dir, "azurite")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		r.azurite, err = azurite.Start(r.ctx, dir, account)
	}
	if err != nil {
		r.fatalf("%v", err)
	}
	r.cleanup(r.azurite.Close)
	r.account = r.azurite.ConnectionString(account)
	r.keepSecret(r.account, "AccountKey=")
	// A second attempt could append a block twice, which would look like duplicates.
	client, err := service.NewClientFromConnectionString(r.account, &service.ClientOptions{
		ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		r.fatalf("%v", err)
	}
	container := client.NewContainerClient(blobContainer)
	if _, err := container.Create(r.ctx, nil); err != nil {
		r.fatalf("create container: %v", err)
	}
	created := map[string]bool{}
	r.append = func(_, name string, data []byte) error {
		blob := container.NewAppendBlobClient(name)
		if !created[name] {
			if _, err := blob.Create(r.ctx, nil); err != nil {
				return fmt.Errorf("create %s: %w", name, err)
			}
			created[name] = true
		}
		if _, err := blob.AppendBlock(r.ctx, streaming.NopCloser(bytes.NewReader(data)), nil); err != nil {
			return fmt.Errorf("append to %s: %w", name, err)
		}
		return nil
	}
	return r.blobSection()
}

// azuriteDown stops Azurite for d, and starts it again over its data.
func (r *run) azuriteDown(d time.Duration) {
	r.withoutFeed(func() {
		r.azurite.Stop()
		r.sleep(d)
		if err := r.azurite.Run(r.ctx); err != nil {
			r.fatalf("start Azurite again: %v", err)
		}
		if err := r.toBlob(100); err != nil { // so that there is something to recover
			r.fatalf("%v", err)
		}
		r.ledger.heal()
	})
}
