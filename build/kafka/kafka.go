// Package kafka runs Apache Kafka for integration tests and the fault matrix. It is one broker in
// KRaft mode, on loopback, with the sign-in of Event Hubs (SASL PLAIN as $ConnectionString). Kafka
// comes from its Maven artifacts (pom.xml) and runs in the machine's Java.
package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/child"
)

// User is the name that clients sign in with; the password is the connection string.
const User = "$ConnectionString"

// Version is that of pom.xml.
const Version = "3.9.1"

// startWait is how long the broker may take to answer.
const startWait = 90 * time.Second

// Server is a broker.
type Server struct {
	dir, jars string
	addr      string
	password  string
	output    bytes.Buffer // what Kafka said, for errors

	run   *child.Process
	admin *kgo.Client

	partitions map[string]int32 // of each hub
	next       int32
}

// Start makes a broker with its data in dir, and waits until it answers. The first time it has
// Maven fetch Kafka.
func Start(ctx context.Context, dir string) (_ *Server, err error) {
	s := &Server{dir: dir, partitions: make(map[string]int32), password: "Endpoint=sb://localhost/;SharedAccessKeyName=defender-listen;SharedAccessKey=a2Fma2Etbm90LWEtcmVhbC1rZXktMTIzNDU2Nzg5MDEyMzQ="}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("start Apache Kafka: %w", err)
		}
	}()
	if s.jars, err = prepare(ctx); err != nil {
		return nil, err
	}
	if err = s.configure(); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	id[0] &= 0x7f // StorageTool takes an id that begins with - for an option
	format := s.java(ctx, "kafka.tools.StorageTool", "format", "-t", base64.RawURLEncoding.EncodeToString(id), "-c", s.config())
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format storage: %w\n%s", err, out)
	}
	if err = s.Run(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Prepare has Maven fetch Kafka unless it is there. Its error names the missing tool and the way to
// get it.
func Prepare(ctx context.Context) error {
	_, err := prepare(ctx)
	return err
}

func prepare(ctx context.Context) (jars string, err error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", errors.New("java is missing: install a Java runtime, 17 or later (on Debian and Ubuntu: apt-get install default-jdk-headless)")
	}
	return fetch(ctx)
}

// fetch returns a folder with Kafka and its dependencies.
func fetch(ctx context.Context) (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(root)
		if up == root {
			return "", errors.New("not inside the module")
		}
		root = up
	}
	pom := filepath.Join(root, "build", "kafka", "pom.xml")
	wanted, err := os.ReadFile(pom)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "build", ".cache", "kafka")
	if have, err := os.ReadFile(filepath.Join(dir, "pom.xml")); err == nil && bytes.Equal(have, wanted) {
		return dir, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", errors.New("mvn is missing, which fetches Kafka the first time: install Maven (on Debian and Ubuntu: apt-get install maven)")
	}
	// Several tests may do this at once: each makes its own folder, and one gets the name.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "kafka-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-ntp", "-f", pom,
		"org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies", "-DoutputDirectory="+fresh)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Kafka with Maven: %w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(fresh, "pom.xml"), wanted, 0o644); err != nil {
		return "", err
	}
	_ = os.RemoveAll(dir)
	if err := os.Rename(fresh, dir); err != nil {
		if have, e := os.ReadFile(filepath.Join(dir, "pom.xml")); e != nil || !bytes.Equal(have, wanted) {
			return "", err
		}
	}
	return dir, nil
}

func (s *Server) config() string { return filepath.Join(s.dir, "server.properties") }

// configure writes the broker's settings.
func (s *Server) configure() error {
	var ports []string
	for range 2 { // both at once, so that they differ
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		ports = append(ports, l.Addr().String())
	}
	s.addr = ports[0]
	login := "org.apache.kafka.common.security.plain.PlainLoginModule required username=broker password=broker user_broker=broker user_" + User + `="` + s.password + `";`
	return os.WriteFile(s.config(), []byte(strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + ports[1],
		"controller.listener.names=CONTROLLER",
		"listeners=CLIENT://" + s.addr + ",CONTROLLER://" + ports[1],
		"advertised.listeners=CLIENT://" + s.addr,
		"listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name=CLIENT",
		"sasl.enabled.mechanisms=PLAIN",
		"sasl.mechanism.inter.broker.protocol=PLAIN",
		"listener.name.client.plain.sasl.jaas.config=" + login,
		"log.dirs=" + filepath.Join(s.dir, "data"),
		"auto.create.topics.enable=false",
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=2",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"log.retention.check.interval.ms=1000",
		"num.network.threads=2",
		"num.io.threads=2",
		"",
	}, "\n")), 0o600)
}

// java returns a command that runs a class of Kafka, with little memory and without much
// optimization.
func (s *Server) java(ctx context.Context, class string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "java", append([]string{
		"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(s.jars, "*"), class,
	}, args...)...)
}

// Run starts the broker, after Start or Kill, and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	java := s.java(ctx, "kafka.Kafka", s.config())
	s.output.Reset()
	run, err := child.Start(s.dir, nil, &s.output, java.Args...)
	if err != nil {
		return err
	}
	s.run = run
	if err := s.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		meta, err := kadm.NewClient(s.admin).BrokerMetadata(attempt)
		cancel()
		if err == nil && len(meta.Brokers) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("the broker does not answer: %w\n%s", err, s.output.String())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Server) connect() (err error) {
	s.admin, err = kgo.NewClient(append(s.ClientOpts(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1_000_000))...)
	return err
}

// Running tells whether the broker was started and not ended.
func (s *Server) Running() bool { return s.run != nil }

// Stop ends the broker with SIGTERM, in good order, and waits for its end. Its data stay, see Run.
func (s *Server) Stop() { s.end((*child.Process).Stop) }

// Kill kills the broker at once and waits for its end. Its data stay, see Run.
func (s *Server) Kill() { s.end((*child.Process).Kill) }

func (s *Server) end(how func(*child.Process)) {
	if s.admin != nil {
		s.admin.Close()
		s.admin = nil
	}
	if s.run != nil {
		how(s.run)
		s.run = nil
	}
}

// Close kills the broker. Its data stay in its folder.
func (s *Server) Close() { s.Kill() }

// ConnectionString is the broker's eventhub.connection_string, with eventhub.tls off.
func (s *Server) ConnectionString() string { return s.password }

// Brokers is the address to use for eventhub.brokers.
func (s *Server) Brokers() string { return s.addr }

// Admin returns a client with which a test changes the broker, valid until Kill.
func (s *Server) Admin() *kadm.Client { return kadm.NewClient(s.admin) }

// ClientOpts are the options of a franz-go client of the broker.
func (s *Server) ClientOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(s.addr),
		kgo.SASL(plain.Auth{User: User, Pass: s.password}.AsMechanism()),
	}
}

// CreateHub creates a topic.
func (s *Server) CreateHub(ctx context.Context, name string, partitions int32) error {
	r, err := s.Admin().CreateTopic(ctx, partitions, 1, nil, name)
	if err = errors.Join(err, r.Err); err != nil {
		return fmt.Errorf("create hub %s: %w", name, err)
	}
	s.partitions[name] = partitions
	return nil
}

// DeleteHub deletes a topic, which may be created again.
func (s *Server) DeleteHub(ctx context.Context, name string) error {
	if _, err := s.Admin().DeleteTopic(ctx, name); err != nil {
		return fmt.Errorf("delete hub %s: %w", name, err)
	}
	s.admin.Close() // a producer's sequence numbers are the old topic's
	return s.connect()
}

// Produce puts messages into hub, going round its partitions, and returns when the broker has them.
func (s *Server) Produce(ctx context.Context, hub string, messages ...[]byte) error {
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Topic: hub, Partition: s.next % s.partitions[hub], Value: m}
		s.next++
	}
	return s.produce(ctx, hub, records)
}

// ProduceTo puts messages into a partition of hub, and returns when the broker has them.
func (s *Server) ProduceTo(ctx context.Context, hub string, partition int32, messages ...[]byte) error {
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Topic: hub, Partition: partition, Value: m}
	}
	return s.produce(ctx, hub, records)
}

func (s *Server) produce(ctx context.Context, hub string, records []*kgo.Record) error {
	if err := s.admin.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce to %s: %w", hub, err)
	}
	return nil
}
