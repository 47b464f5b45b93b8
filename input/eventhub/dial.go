package eventhub

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// dialTimeout bounds each step of a connection: TCP, the proxy's answer, TLS.
const dialTimeout = 10 * time.Second

// dialer connects to brokers, through the environment's proxy where one applies.
type dialer struct {
	budget  *budget
	members *members    // nil where no group is joined
	tls     *tls.Config // nil for plaintext
	plain   bool        // plaintext may leave this machine
	only    bool        // there is but one address to connect to
	proxy   func(*url.URL) (*url.URL, error)
	net     net.Dialer
}

func newDialer(cfg *Config, b *budget, m *members) *dialer {
	d := &dialer{
		budget:  b,
		members: m,
		plain:   cfg.AllowPlaintext,
		only:    len(cfg.Brokers) == 1,
		// HTTPS_PROXY and NO_PROXY, as for every other connection that is made over TLS.
		proxy: web.Proxies(),
		net: net.Dialer{
			Timeout: dialTimeout,
			// Azure's load balancers drop connections that were silent for 240 s, without a word to
			// either side.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 30 * time.Second, Count: 4},
		},
	}
	if cfg.TLS {
		d.tls = &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12}
	}
	return d
}

// proxyFor returns the proxy to use for addr, or nil.
func (d *dialer) proxyFor(addr string) (*url.URL, error) {
	p, err := d.proxy(&url.URL{Scheme: "https", Host: addr})
	if err != nil {
		return nil, &proxyError{"", errors.New("HTTPS_PROXY is not a URL")} // which may hold a password
	}
	return p, nil
}

// dial makes the connections of franz-go.
func (d *dialer) dial(ctx context.Context, network, addr string) (_ net.Conn, err error) {
	defer input.Catch("connect", &err)
	conn, err := d.connect(ctx, network, addr)
	switch {
	case err == nil:
		return newWire(conn, d.budget, d.members), nil
	case d.only && ctx.Err() == nil:
		err = &dialError{err}
	}
	return nil, err
}

func (d *dialer) connect(ctx context.Context, network, addr string) (_ net.Conn, err error) {
	if host, _, _ := net.SplitHostPort(addr); d.tls == nil && !d.plain && !web.IsLoopback(host) {
		return nil, &plaintextError{addr}
	}
	proxy, err := d.proxyFor(addr)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if proxy == nil {
		conn, err = d.net.DialContext(ctx, network, addr)
	} else {
		conn, err = d.tunnel(ctx, network, proxy, addr)
	}
	if err != nil || d.tls == nil {
		return conn, err
	}
	return d.secure(ctx, conn, addr, d.tls)
}

// secure speaks TLS over conn, which it closes when that fails.
func (d *dialer) secure(ctx context.Context, conn net.Conn, addr string, base *tls.Config) (net.Conn, error) {
	cfg := base.Clone()
	cfg.ServerName, _, _ = net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &tlsError{err}
	}
	return c, nil
}

// tunnel asks proxy for a connection to addr.
func (d *dialer) tunnel(ctx context.Context, network string, proxy *url.URL, addr string) (_ net.Conn, err error) {
	at := proxy.Host
	if proxy.Port() == "" {
		port := "80"
		if proxy.Scheme == "https" {
			port = "443"
		}
		at = net.JoinHostPort(proxy.Hostname(), port)
	}
	defer func() {
		if err != nil {
			err = &proxyError{at, err}
		}
	}()
	if proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, fmt.Errorf("a proxy of kind %q is not supported, only http and https", proxy.Scheme)
	}
	conn, err := d.net.DialContext(ctx, network, at)
	if err != nil {
		return nil, err
	}
	if proxy.Scheme == "https" {
		roots := &tls.Config{MinVersion: tls.VersionTLS12}
		if d.tls != nil {
			roots = d.tls
		}
		if conn, err = d.secure(ctx, conn, at, roots); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	// The deadline ends a proxy that says nothing; a context that ends earlier does the same.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err = conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err = req.Write(conn); err != nil {
		return nil, err
	}
	// One byte at a time, so that only the answer is read. A broker does not speak first, but a
	// proxy may forward more bytes.
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{conn}, 16), req)
	if err != nil {
		return nil, fmt.Errorf("read its answer to CONNECT: %w", err)
	}
	_ = resp.Body.Close() // an answer to CONNECT has none
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answered CONNECT %s with %s", addr, resp.Status)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return conn, conn.SetDeadline(time.Time{})
}

// oneByte reads one byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return o.r.Read(p)
}

// dialError keeps from franz-go what kind of error it holds. After a refused connection, franz-go
// turns to another broker. If there is none, it gives up at once: such a heartbeat loses the group,
// and all partitions are read again from their last commit. Event Hubs has one address for
// everything, so it is tried again while the session lasts.
type dialError struct{ err error }

func (e *dialError) Error() string   { return e.err.Error() }
func (e *dialError) Temporary() bool { return true }

// plaintextError is an address that must not be connected to without TLS. The metadata of a broker
// may name any.
type plaintextError struct{ addr string }

func (e *plaintextError) Error() string {
	return "the broker names the address " + e.addr + ", on another machine, and eventhub.tls is off"
}

// tlsError is a failed handshake.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// proxyError is a proxy that cannot be used.
type proxyError struct {
	proxy string
	err   error
}

func (e *proxyError) Error() string { return "proxy " + e.proxy + ": " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }
