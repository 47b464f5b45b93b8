// Package fakehub is an Event Hubs namespace inside the process, for the demo, tests and
// benchmarks. It is kfake (a Kafka broker in Go) behind the front of Event Hubs. That has TLS, SASL
// PLAIN as $ConnectionString with the connection string as the password, and only request versions
// that Event Hubs answers.
//
// The broker listens on loopback, on a port of its own. Its certificate is signed by an authority
// that is made for it and thrown away. So clients need both [Hub.Brokers] (eventhub.brokers) and
// [Hub.CAFile] (eventhub.ca_file).
package fakehub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// User is the name that Event Hubs expects from clients that sign in with a connection string.
const User = "$ConnectionString"

// Options of a namespace. The zero value is a namespace without hubs.
type Options struct {
	Hubs       map[string]int32 // how many partitions each hub has
	EntityPath string           // the hub that the connection string names; "" for a string of the whole namespace
	Plaintext  bool             // no TLS, as the Event Hubs emulator

	// Token makes clients sign in with Entra ID (OAUTHBEARER) instead of the connection string. It
	// says whether a token is good, and for how long the broker trusts it. It is called from one
	// goroutine of the broker.
	Token func(token string) (lifetime time.Duration, good bool)

	Kfake []kfake.Opt // more options of the broker
}

// Hub is a running namespace.
type Hub struct {
	*kfake.Cluster // for faults, group and partition information

	options  Options
	password string
	dir      string
	ca       *authority
	gate     gate
	refuse   atomic.Bool // every sign-in
	producer *kgo.Client
}

// Start starts a namespace with the hubs of o.
func Start(o Options) (h *Hub, err error) {
	h = &Hub{options: o}
	defer func() {
		if err != nil {
			h.Close()
			h, err = nil, fmt.Errorf("start fake event hub: %w", err)
		}
	}()
	if h.dir, err = os.MkdirTemp("", "fakehub-"); err != nil {
		return h, err
	}
	h.password = "Endpoint=sb://localhost/;SharedAccessKeyName=defender-listen;SharedAccessKey=ZmFrZWh1Yi1ub3QtYS1yZWFsLWtleS0xMjM0NTY3OD0="
	if o.EntityPath != "" {
		h.password += ";EntityPath=" + o.EntityPath
	}

	opts := []kfake.Opt{
		kfake.NumBrokers(1), // Event Hubs shows one address for every partition
		kfake.ListenFn(h.gate.listen),
		kfake.MaxVersions(eventHubsVersions()),
	}
	if !o.Plaintext {
		if h.ca, err = newAuthority(); err != nil {
			return h, err
		}
		if err = os.WriteFile(h.CAFile(), h.ca.pem, 0o600); err != nil {
			return h, err
		}
		opts = append(opts, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{h.ca.leaf}, MinVersion: tls.VersionTLS12}))
	}
	if o.Token == nil {
		opts = append(opts, kfake.EnableSASL(), kfake.Superuser("PLAIN", User, h.password))
	}
	for name, partitions := range o.Hubs {
		opts = append(opts, kfake.SeedTopics(partitions, name))
	}
	if h.Cluster, err = kfake.NewCluster(append(opts, o.Kfake...)...); err != nil {
		return h, err
	}
	if o.Token == nil {
		h.ControlKey(kmsg.SASLAuthenticate.Int16(), h.signIn)
	} else {
		h.ControlKey(kmsg.SASLHandshake.Int16(), h.offerToken)
		h.ControlKey(kmsg.SASLAuthenticate.Int16(), h.takeToken)
	}
	h.producer, err = kgo.NewClient(append(h.ClientOpts(),
		kgo.RecordPartitioner(partitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(64<<20),
		kgo.BrokerMaxWriteBytes(100<<20),
		kgo.MaxBufferedBytes(64<<20),
		kgo.DisableIdempotentWrite(), // so that it survives anything that a test does to the broker
		kgo.AlwaysRetryEOF(),         // likewise
	)...)
	return h, err
}

// signIn refuses wrong passwords as Event Hubs and Kafka do, with an answer; kfake would close the
// connection.
func (h *Hub) signIn(r kmsg.Request) (kmsg.Response, error, bool) {
	h.KeepControl()
	req := r.(*kmsg.SASLAuthenticateRequest)
	if !h.refuse.Load() && string(req.SASLAuthBytes) == "\x00"+User+"\x00"+h.password {
		return nil, nil, false
	}
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
	resp.ErrorMessage = kmsg.StringPtr("Invalid SASL PLAIN credentials")
	return resp, nil, true
}

// offerToken and takeToken stand in for kfake, which has no OAUTHBEARER: it runs without sign-in,
// and these answer clients that do sign in. A client that does not gets through.
func (h *Hub) offerToken(r kmsg.Request) (kmsg.Response, error, bool) {
	h.KeepControl()
	req := r.(*kmsg.SASLHandshakeRequest)
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.SupportedMechanisms = []string{"OAUTHBEARER"}
	if req.Mechanism != "OAUTHBEARER" {
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
	}
	return resp, nil, true
}

func (h *Hub) takeToken(r kmsg.Request) (kmsg.Response, error, bool) {
	h.KeepControl()
	req := r.(*kmsg.SASLAuthenticateRequest)
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	_, token, _ := strings.Cut(string(req.SASLAuthBytes), "auth=Bearer ")
	token, _, _ = strings.Cut(token, "\x01")
	lifetime, good := h.options.Token(token)
	if !good || h.refuse.Load() {
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		resp.ErrorMessage = kmsg.StringPtr("{\"status\":\"invalid_token\"}")
	}
	resp.SessionLifetimeMillis = lifetime.Milliseconds()
	return resp, nil, true
}

// RefuseSignIn makes the namespace refuse every sign-in, as after its key was regenerated (true),
// or take good ones again (false). As with Event Hubs, connections that are signed in stay.
func (h *Hub) RefuseSignIn(refuse bool) { h.refuse.Store(refuse) }

// eventHubsVersions is Kafka 2.4 with what Event Hubs was seen to cap below that or to answer above
// (twmb/franz-go issues 1312 and 1022): Metadata at most 9, OffsetFetch at most 8.
func eventHubsVersions() *kversion.Versions {
	v := kversion.V2_4_0()
	v.SetMaxKeyVersion(kmsg.Metadata.Int16(), 9)
	v.SetMaxKeyVersion(kmsg.OffsetFetch.Int16(), 8)
	v.SetMaxKeyVersion(kmsg.ApiVersions.Int16(), 3)
	return v
}

// partitioner keeps to the partition of a record when that is not negative, and else goes round.
func partitioner() kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		next := -1
		return func(r *kgo.Record, n int) int {
			if r.Partition >= 0 {
				return int(r.Partition)
			}
			next++
			return next % n
		}
	})
}

// ConnectionString is the namespace's eventhub.connection_string.
func (h *Hub) ConnectionString() string { return h.password }

// Brokers is the address to use for eventhub.brokers.
func (h *Hub) Brokers() string { return strings.Join(h.ListenAddrs(), ",") }

// CAFile is the path of the certificate to use for eventhub.ca_file, or "" without TLS. Close
// removes it.
func (h *Hub) CAFile() string {
	if h.ca == nil {
		return ""
	}
	return filepath.Join(h.dir, "ca.pem")
}

// CA is the content of CAFile.
func (h *Hub) CA() []byte {
	if h.ca == nil {
		return nil
	}
	return h.ca.pem
}

// ClientOpts are the options of a franz-go client of the namespace.
func (h *Hub) ClientOpts() []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(h.ListenAddrs()...)}
	if h.options.Token == nil {
		opts = append(opts, kgo.SASL(plain.Auth{User: User, Pass: h.password}.AsMechanism()))
	}
	if h.ca != nil {
		pool := x509.NewCertPool()
		pool.AddCert(h.ca.cert)
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
	}
	return opts
}

// Produce puts messages into hub, one after the other over its partitions, and returns when the
// broker has them all.
func (h *Hub) Produce(ctx context.Context, hub string, messages ...[]byte) error {
	return h.ProduceTo(ctx, hub, -1, messages...)
}

// ProduceTo is Produce for one partition.
func (h *Hub) ProduceTo(ctx context.Context, hub string, partition int32, messages ...[]byte) error {
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Topic: hub, Partition: partition, Value: m}
	}
	return h.ProduceRecords(ctx, records...)
}

// ProduceRecords is Produce for records with headers, times and partitions of their own; a negative
// partition is any.
func (h *Hub) ProduceRecords(ctx context.Context, records ...*kgo.Record) error {
	// No more at once than what the broker takes as one batch; a larger record is a batch of its
	// own.
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+len(records[n].Value) < 900_000) {
			size += len(records[n].Value)
			n++
		}
		if err := h.producer.ProduceSync(ctx, records[:n]...).FirstErr(); err != nil {
			return fmt.Errorf("produce to fake event hub: %w", err)
		}
		records = records[n:]
	}
	return nil
}

// SetDown cuts every connection and keeps new ones from getting anywhere (true), or lets them in
// again (false). The content of the namespace stays.
func (h *Hub) SetDown(down bool) { h.gate.setDown(down) }

// CutConnections closes every connection. New ones get through.
func (h *Hub) CutConnections() { h.gate.cut() }

// SetIdleCut makes connections that were idle for longer than d go dead silently, as Azure's load
// balancers do after 240 s. Bytes that are sent on them afterwards get lost without an error. 0
// ends that for connections that still live.
func (h *Hub) SetIdleCut(d time.Duration) {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	h.gate.idleCut = d
}

// Forgotten is how many connections were used again after they had gone dead.
func (h *Hub) Forgotten() int { h.gate.mu.Lock(); defer h.gate.mu.Unlock(); return h.gate.forgotten }

// Close stops the namespace and drops its content. It waits for what Start started.
func (h *Hub) Close() {
	if h.producer != nil {
		h.producer.Close()
	}
	if h.Cluster != nil {
		h.Cluster.Close()
	}
	if h.dir != "" {
		_ = os.RemoveAll(h.dir)
	}
}

// A gate has every connection, and can close or delay it.
type gate struct {
	mu        sync.Mutex
	down      bool
	conns     map[net.Conn]struct{}
	idleCut   time.Duration
	forgotten int
}

func (g *gate) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address) // kfake gives a loopback address
	if err != nil {
		return nil, err
	}
	return gatedListener{l, g}, nil
}

func (g *gate) setDown(down bool) {
	g.mu.Lock()
	g.down = down
	g.mu.Unlock()
	if down {
		g.cut()
	}
}

func (g *gate) cut() {
	g.mu.Lock()
	conns := slices.Collect(maps.Keys(g.conns))
	g.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // takes the lock
	}
}

type gatedListener struct {
	net.Listener
	gate *gate
}

func (l gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.gate.mu.Lock()
		down := l.gate.down
		if !down {
			if l.gate.conns == nil {
				l.gate.conns = make(map[net.Conn]struct{})
			}
			c = &gatedConn{Conn: c, gate: l.gate, used: time.Now(), closed: make(chan struct{})}
			l.gate.conns[c] = struct{}{}
		}
		l.gate.mu.Unlock()
		if !down {
			return c, nil
		}
		_ = c.Close()
	}
}

type gatedConn struct {
	net.Conn
	gate *gate
	once sync.Once

	closed chan struct{}

	// Covered by gate.mu.
	used time.Time
	dead bool
}

// alive notes that c is used, and tells whether it may still be.
func (c *gatedConn) alive() bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	now := time.Now()
	if !c.dead && c.gate.idleCut > 0 && now.Sub(c.used) > c.gate.idleCut {
		c.dead = true
		c.gate.forgotten++
	}
	c.used = now
	return !c.dead
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.alive() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if !c.alive() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
