package eventhub

import (
	"context"
	"crypto/x509"
	"net"
	"time"
)

// SetDrain sets how long a partition that is given away may wait for its commits.
func (s *Source) SetDrain(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits.drain = d
}

// Dial connects to a broker as the source does.
func Dial(ctx context.Context, roots *x509.CertPool, addr string) (net.Conn, error) {
	return newDialer(&Config{TLS: true, Roots: roots}, newBudget(0), nil).dial(ctx, "tcp", addr)
}

// SetLargestBatch sets what a batch may expand to.
func (s *Source) SetLargestBatch(n int64) { s.budget.largest = n }

// SetIdle sets how long Fetch waits after an error.
func (s *Source) SetIdle(d time.Duration) { s.idle.First, s.idle.Max = d, d }

// Give gives partitions away as a rebalance does, without waiting for their commits.
func (s *Source) Give(gone map[string][]int32) { s.lose(gone) }

// DialPlain connects to an address, with eventhub.tls and eventhub.allow_plaintext as given.
func DialPlain(ctx context.Context, addr string, tls, allow bool) error {
	conn, err := newDialer(&Config{TLS: tls, AllowPlaintext: allow, Brokers: []string{"127.0.0.1:1", addr}}, newBudget(0), nil).dial(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err
}

// Shorten makes sources wait less than users want them to.
func Shorten() {
	defaultWaits.leave, defaultWaits.trouble, defaultWaits.join = time.Second, 500*time.Millisecond, 2*time.Second
}
