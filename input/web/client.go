// Package web makes the HTTP clients of all sources. They follow no redirect, because a credential
// would go along. They bound every answer. They reach the machine's own metadata service without a
// proxy.
//
// It also holds the one rule for the address of a service that gets a credential: see
// [CheckAddress].
package web

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// NewClient returns a client that goes through the environment's proxy. It trusts the system's
// authorities and those of caFile, if one is given. It has no timeout for a whole exchange, which
// may be a large download: contexts end those. Its Transport is an [*http.Transport], so that a
// source can tune a clone of it. Answers are bounded by [Guard].
func NewClient(caFile string) (*http.Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pool, err := CertPool(caFile)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = pool
	}
	proxy := Proxies()
	return &http.Client{
		CheckRedirect: stay,
		Transport: &http.Transport{
			Proxy:                  func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
			DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    15 * time.Second,
			ResponseHeaderTimeout:  60 * time.Second,
			IdleConnTimeout:        90 * time.Second,
			MaxIdleConnsPerHost:    16,
			MaxResponseHeaderBytes: 1 << 20,
			ForceAttemptHTTP2:      true,
		},
	}, nil
}

// stay has a client return a redirect and not follow it.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Proxies returns the current rule of the environment for proxies: which address has one.
// Link-local addresses have none, since they are of this machine's own network. The metadata
// service at 169.254.169.254 hands out tokens, and a proxy would fetch those of its own machine.
func Proxies() func(*url.URL) (*url.URL, error) {
	environment := httpproxy.FromEnvironment().ProxyFunc()
	return func(u *url.URL) (*url.URL, error) {
		if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
			return nil, nil
		}
		return environment(u)
	}
}

// CertPool returns the system's authorities and those of a PEM file.
func CertPool(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a minimal image without any: the file may be all that is needed
	}
	pem, err := input.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w; give the path of a file that Fluent Bit's user can read", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("has no certificate in PEM form (-----BEGIN CERTIFICATE-----); convert it with openssl x509 -inform der")
	}
	return pool, nil
}

// Limit is the most bytes that the body of an answer may have, unpacked; 0 for any number.
type Limit func(*http.Response) int64

// AtMost is a Limit of n bytes for every answer.
func AtMost(n int64) Limit { return func(*http.Response) int64 { return n } }

// Guard returns a client that makes its requests as c does. A redirect is a [RedirectError], and a
// body that is longer than limit allows ends with a [LengthError].
func Guard(c *http.Client, limit Limit) *http.Client {
	guarded := *c
	guarded.CheckRedirect = stay
	guarded.Transport = &guard{base: c.Transport, limit: limit}
	return &guarded
}

type guard struct {
	base  http.RoundTripper
	limit Limit
}

// RoundTrip implements [http.RoundTripper].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		_ = resp.Body.Close()
		to, _ := resp.Location()
		e := &RedirectError{Status: resp.StatusCode}
		if to != nil {
			e.To = to.Scheme + "://" + to.Host
		}
		return nil, e
	}
	if n := g.limit(resp); n > 0 {
		if resp.ContentLength > n {
			_ = resp.Body.Close()
			return nil, &LengthError{Limit: n}
		}
		resp.Body = &bounded{ReadCloser: resp.Body, limit: n, left: n}
	}
	return resp, nil
}

// CloseIdleConnections has [http.Client.CloseIdleConnections] reach the transport below.
func (g *guard) CloseIdleConnections() {
	if c, ok := g.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RedirectError is an answer that points to another address.
type RedirectError struct {
	Status int
	To     string // scheme and host of that address; the rest may hold secrets of the request
}

func (e *RedirectError) Error() string {
	return fmt.Sprintf("the answer is a redirect (%d) to %q, which is not followed, since the credential would go along", e.Status, e.To)
}

// NonRetriable keeps Azure's SDK from asking again.
func (e *RedirectError) NonRetriable() {}

// LengthError is an answer that is longer than any real one.
type LengthError struct{ Limit int64 }

func (e *LengthError) Error() string {
	if e.Limit < 1<<20 {
		return fmt.Sprintf("the answer is longer than %d kB", e.Limit>>10)
	}
	return fmt.Sprintf("the answer is longer than %d MB", e.Limit>>20)
}

// NonRetriable keeps Azure's SDK from asking again.
func (e *LengthError) NonRetriable() {}

// bounded is a body that fails after limit bytes.
type bounded struct {
	io.ReadCloser
	limit, left int64
}

// Read implements [io.Reader].
func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, &LengthError{Limit: b.limit}
	}
	// One byte more than allowed tells an answer that ends here from a longer one.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, &LengthError{Limit: b.limit}
	}
	return n, err
}
