package eventhub_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
)

// soon is how long the first word about a trouble may take.
const soon = 3 * time.Second

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	// Bound and not listening: it refuses connections, and no test beside this one is given it.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", addr.(*syscall.SockaddrInet4).Port)
}

// Each trouble gives its own message within seconds, which says what to check, once however often
// the source tries; and the source goes on trying.
func TestTroubles(t *testing.T) {
	t.Parallel()
	wrong := func(h *fakehub.Hub) string { return strings.Replace(h.ConnectionString(), "ZmFr", "d3Jv", 1) }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, h *fakehub.Hub, set map[string]string)
		says   string
	}{
		{"wrong credentials", func(_ *testing.T, h *fakehub.Hub, set map[string]string) {
			set["eventhub.connection_string"] = wrong(h)
		}, "sign-in was refused: check that eventhub.connection_string is whole and current"},
		{"missing hub", func(_ *testing.T, _ *fakehub.Hub, set map[string]string) {
			set["eventhub.hubs"] = "alerst"
		}, "there is no such hub in the namespace: check eventhub.hubs"},
		{"no match", func(_ *testing.T, _ *fakehub.Hub, set map[string]string) {
			set["eventhub.hubs"] = "alerst*"
		}, "no hub of the namespace matches the pattern yet: check eventhub.hubs"},
		{"unreachable", func(t *testing.T, _ *fakehub.Hub, set map[string]string) {
			set["eventhub.brokers"] = closedPort(t)
		}, "the broker cannot be reached: check eventhub.brokers"},
		{"no such name", func(_ *testing.T, _ *fakehub.Hub, set map[string]string) {
			set["eventhub.brokers"] = "contoso.invalid"
		}, "the broker's name does not resolve"},
		{"unknown authority", func(_ *testing.T, _ *fakehub.Hub, set map[string]string) {
			delete(set, "eventhub.ca_file")
		}, "signed by an authority that is not trusted: give the certificate of a private authority, or of a proxy that inspects TLS, in eventhub.ca_file"},
		{"plaintext to TLS", func(_ *testing.T, _ *fakehub.Hub, set map[string]string) {
			set["eventhub.tls"] = "off"
			delete(set, "eventhub.ca_file")
		}, "set eventhub.tls on"},
		{"TLS to another service", func(t *testing.T, _ *fakehub.Hub, set map[string]string) {
			web := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(web.Close)
			set["eventhub.brokers"] = web.Listener.Addr().String()
		}, "the broker does not speak TLS at this port: check the port (Event Hubs: 9093)"},
		{"denied", func(_ *testing.T, h *fakehub.Hub, _ map[string]string) {
			h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "alerts", Err: kerr.TopicAuthorizationFailed, Count: -1})
		}, "the hub may not be read: the policy of eventhub.connection_string needs the Listen right"},
		{"plaintext to an address that the metadata name", func(_ *testing.T, h *fakehub.Hub, set map[string]string) {
			set["eventhub.tls"] = "off"
			h.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				h.KeepControl()
				resp := req.ResponseKind().(*kmsg.MetadataResponse)
				b := kmsg.NewMetadataResponseBroker()
				b.NodeID, b.Host, b.Port = 0, "192.0.2.1", 9092
				resp.Brokers = append(resp.Brokers, b)
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic, topic.Partitions = kmsg.StringPtr("alerts"), append(topic.Partitions, kmsg.NewMetadataResponseTopicPartition())
				resp.Topics = append(resp.Topics, topic)
				return resp, nil, true
			})
			h.ControlKey(kmsg.FindCoordinator.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				h.KeepControl()
				resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
				resp.NodeID, resp.Host, resp.Port = 0, "192.0.2.1", 9092
				return resp, nil, true
			})
		}, "a broker names an address on another machine, and the connection string would go there in the clear"},
		{"group denied", func(_ *testing.T, h *fakehub.Hub, _ map[string]string) {
			h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.GroupAuthorizationFailed, Count: -1})
		}, "the consumer group may not be used"},
		{"group in use by others", func(_ *testing.T, h *fakehub.Hub, _ map[string]string) {
			h.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.InconsistentGroupProtocol, Count: -1})
		}, "the consumer group is in use by a program that divides partitions in another way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts", Plaintext: strings.HasPrefix(c.name, "plaintext to an address")})
			set := settingsFor(h)
			c.change(t, h, set)
			cfg := readConfig(t, set)
			r := open(t, cfg, nil)
			go func() {
				for {
					if _, err := r.Fetch(ctx); err != nil {
						return
					}
				}
			}()
			r.log.wait(t, soon, c.says)
			time.Sleep(time.Second) // it keeps trying meanwhile
			r.log.times(t, 1, c.says)
			if n := strings.Count(r.log.String(), "level=ERROR") + strings.Count(r.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d errors and warnings, want 1", n)
			}
			started := time.Now()
			r.close()
			if d := time.Since(started); d > 8*time.Second {
				t.Errorf("Close took %v", d)
			}
		})
	}
}

// A trouble of the start may end while the source runs: credentials are renewed, a hub is created,
// a broker comes up.
func TestTroublesMended(t *testing.T) {
	t.Parallel()
	t.Run("credentials", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
		produce(ctx, t, h, "alerts", numbered(0, 5)...)
		h.RefuseSignIn(true)
		r := open(t, readConfig(t, settingsFor(h)), nil)
		r.log.wait(t, soon, "sign-in was refused")
		h.RefuseSignIn(false)
		r.fetch(ctx, 5)
		r.log.wait(t, soon, "works again")
	})
	t.Run("hub", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"other": 1}})
		r := open(t, readConfig(t, settingsFor(h), "eventhub.hubs", "alerts, other"), nil)
		r.log.wait(t, soon, "there is no such hub in the namespace")
		// The other is read all the same.
		produce(ctx, t, h, "other", numbered(0, 5)...)
		r.fetch(ctx, 5)
		if err := h.CreateTopic("alerts", 2, nil); err != nil {
			t.Fatal(err)
		}
		produce(ctx, t, h, "alerts", numbered(5, 10)...)
		r.fetch(ctx, 5)
		r.log.wait(t, 8*time.Second, "hub alerts works again")
	})
	t.Run("broker", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, EntityPath: "alerts"})
		r := open(t, readConfig(t, settingsFor(h)), nil)
		produce(ctx, t, h, "alerts", numbered(0, 10)...)
		ms := r.fetch(ctx, 10)
		h.SetDown(true)
		r.log.wait(t, 2*soon, "the broker closes connections as soon as they are made")
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if err := r.Commit(short, newest(ms)); err == nil {
			t.Error("a commit without a broker says that it worked")
		}
		time.Sleep(time.Second)
		h.SetDown(false)
		produce(ctx, t, h, "alerts", numbered(10, 20)...)
		same(t, "after", bodies(r.fetch(ctx, 10)), texts(numbered(10, 20)...))
		r.log.wait(t, soon, "works again\" after=")
		r.log.times(t, 1, "the broker closes connections as soon as they are made")
		eventually(t, 10*time.Second, func() error { return r.Commit(ctx, newest(r.got)) })
		for p := range int32(2) {
			if at := h.GroupInfo(group).Commits["alerts"][p].Offset; at != 10 {
				t.Errorf("the group has %d of partition %d, want 10", at, p)
			}
		}
	})
	t.Run("cut connections", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, EntityPath: "alerts"})
		r := open(t, readConfig(t, settingsFor(h)), nil)
		for i := range 20 {
			produce(ctx, t, h, "alerts", numbered(10*i, 10*i+10)...)
			h.CutConnections()
		}
		ms := r.fetch(ctx, 200)
		checkOrder(t, ms)
		same(t, "messages", bodies(ms), texts(numbered(0, 200)...))
	})
}

// Close does not wait for a broker that does not answer.
func TestCloseWithoutBroker(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	r := open(t, readConfig(t, settingsFor(h)), nil)
	produce(ctx, t, h, "alerts", numbered(0, 1)...)
	r.fetch(ctx, 1)
	h.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		h.KeepControl()
		return nil, nil, true // no answer to anything
	})
	started := time.Now()
	r.close()
	if d := time.Since(started); d > 8*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// Connections go through the proxy of the environment, and its refusals are named.
func TestProxy(t *testing.T) {
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	produce(ctx, t, h, "alerts", numbered(0, 3)...)
	p := startProxy(t, h.ListenAddrs()[0])
	t.Setenv("HTTPS_PROXY", "http://user:geheim@"+p.addr)
	t.Setenv("NO_PROXY", "elsewhere.test")

	// Loopback addresses never go through a proxy, so the broker gets another name, which the proxy
	// resolves. The broker's own name for itself is a loopback address, which is where the client
	// goes from there.
	cfg := readConfig(t, settingsFor(h), "eventhub.brokers", "contoso.servicebus.windows.net:9093", "eventhub.ca_file", "")
	cfg.Roots = nil
	r := open(t, cfg, nil)
	r.log.wait(t, soon, "the broker's certificate is for another name")
	if got := p.asked(); got != "contoso.servicebus.windows.net:9093 Basic dXNlcjpnZWhlaW0=" {
		t.Errorf("the proxy was asked for %q", got)
	}
	r.close()

	p.refuse.Store(true)
	r = open(t, cfg, nil)
	r.log.wait(t, soon, "the proxy of HTTPS_PROXY does not connect to the broker")
	r.log.wait(t, soon, "403 Forbidden")
	if strings.Contains(r.log.String(), "geheim") {
		t.Error("the log has the proxy's password in it")
	}
}

// Through a proxy, all the way.
func TestProxyTunnel(t *testing.T) {
	ctx := testContext(t)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 1}, EntityPath: "alerts"})
	p := startProxy(t, h.ListenAddrs()[0])
	t.Setenv("HTTPS_PROXY", p.addr)
	t.Setenv("NO_PROXY", "")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.CA())
	conn, err := eventhub.Dial(ctx, roots, "localhost.:9093") // the trailing dot keeps it from being taken for loopback
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := p.asked(); got != "localhost.:9093 " {
		t.Errorf("the proxy was asked for %q", got)
	}
}

// proxy connects everybody to one address.
type proxy struct {
	addr   string
	refuse atomic.Bool
	mu     sync.Mutex
	last   string
}

func (p *proxy) asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	var working sync.WaitGroup
	working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			working.Go(func() { p.serve(c, to) })
		}
	})
	t.Cleanup(func() { l.Close(); working.Wait() })
	return p
}

func (p *proxy) serve(c net.Conn, to string) {
	defer c.Close()
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.last = req.Host + " " + req.Header.Get("Proxy-Authorization")
	p.mu.Unlock()
	if p.refuse.Load() || req.Method != http.MethodConnect {
		fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\n\r\n")
		return
	}
	b, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer b.Close()
	fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(c, b)
		_ = c.Close()
	}()
	_, _ = io.Copy(b, in)
}

// Every address that is dialled is held to the rule for plaintext, from any source.
func TestPlaintextRule(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		addr       string
		tls, allow bool
		refused    bool
	}{
		{"192.0.2.1:9092", false, false, true},
		{"broker.example.net:9092", false, false, true},
		{"localhost.example.net:9092", false, false, true},
		{"[2001:db8::1]:9092", false, false, true},
		{"0.0.0.0:9092", false, false, true},
		{"192.0.2.1:9092", false, true, false},
		{"192.0.2.1:9092", true, false, false},
		{"127.0.0.1:1", false, false, false},
		{"localhost:1", false, false, false},
		{"[::1]:1", false, false, false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is connected to
		err := eventhub.DialPlain(ctx, c.addr, c.tls, c.allow)
		if got := err != nil && strings.Contains(err.Error(), "on another machine"); got != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
