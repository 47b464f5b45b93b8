package eventhub

import (
	"crypto/x509"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// DefaultGroup is the consumer group when none is set.
const DefaultGroup = "fluent-bit-defender"

// byConnectionString is the way to sign in that only Event Hubs have; those of Entra ID are
// signin.Methods.
const byConnectionString = "connection_string"

// Settings declares the keys of the Event Hubs source.
var Settings = []input.Setting{
	{Key: "eventhub.auth", Kind: input.Choice, Default: byConnectionString, Choices: append([]string{byConnectionString}, signin.Methods...),
		Doc: "The way to sign in. Entra ID needs eventhub.brokers, eventhub.hubs and the role Azure Event Hubs Data Receiver."},
	{Key: "eventhub.connection_string", Kind: input.SecretText,
		Doc: "Connection string of the Event Hubs namespace or of one hub, with a policy that has the Listen right."},
	{Key: "eventhub.brokers", Kind: input.List,
		Doc: "Addresses (host or host:port) of the Kafka endpoint. By default port 9093 of the host in the connection string."},
	{Key: "eventhub.hubs", Kind: input.List,
		Doc: "Names or patterns of the hubs to read, such as insights-logs-advancedhunting-*. By default the EntityPath of the connection string."},
	{Key: "eventhub.group", Kind: input.Text, Default: DefaultGroup,
		Doc: "Consumer group. It spans the namespace, so every destination of the events needs a group of its own. Instances that share the work have the same group."},
	{Key: "eventhub.start", Kind: input.StartTime, Default: "earliest",
		Doc: "The start in a partition without a position in the group or the state file: earliest, latest or an RFC 3339 time."},
	{Key: "eventhub.tls", Kind: input.Switch, Default: "on",
		Doc: "Encrypt connections. Set off only for a broker on this machine, such as the Event Hubs emulator."},
	{Key: "eventhub.allow_plaintext", Kind: input.Switch, Default: "off",
		Doc: "Allow eventhub.tls off with a broker on another machine. The connection string and all events then cross the network in the clear."},
	{Key: "eventhub.ca_file", Kind: input.Text,
		Doc: "PEM file with certificate authorities to trust besides those of the system, for a private authority or a proxy that inspects TLS."},
}

// Config configures the source. ReadConfig makes it from settings.
type Config struct {
	Auth             string         // connection_string or one of signin.Methods
	ConnectionString input.Secret   //
	SignIn           signin.Config  // of Entra ID
	Namespace        string         // host name of the namespace: part of the keys in the state file
	Brokers          []string       // host:port
	Hubs             []string       // names and patterns
	Group            string         //
	Start            input.Start    // for lanes without any position
	TLS              bool           //
	AllowPlaintext   bool           // without TLS, addresses on other machines are connected to as well
	Roots            *x509.CertPool // nil for those of the system

	// FetchBytes is the hard bound of the source's memory: the messages of the last Fetch and those
	// that were read ahead. Only a single larger message may exceed it. See budget.
	FetchBytes int64

	// SetBack is called when somebody has set the group back to read events again. Then its offset
	// is before that of the state file, and not this file's last commit. The call comes before the
	// events. It may be called from any goroutine. May be nil.
	SetBack func()

	// HubsEvery is how often new hubs and partitions are looked for; 0 for 3 minutes.
	HubsEvery time.Duration
}

// DefaultFetchBytes is the FetchBytes of a Config that has 0.
const DefaultFetchBytes = 64 << 20

// ReadConfig reads the settings of the source and notes every mistake in s. configured is false
// when none is set that names a hub: those that are left have no effect.
func ReadConfig(s *input.Settings, id signin.Config) (cfg Config, configured bool) {
	for _, key := range []string{"eventhub.connection_string", "eventhub.brokers", "eventhub.auth", "eventhub.hubs"} {
		configured = configured || s.IsSet(key)
	}
	if !configured {
		return Config{}, false
	}
	cfg = Config{
		Auth:       s.Choice("eventhub.auth"),
		SignIn:     id,
		Hubs:       s.List("eventhub.hubs"),
		Group:      s.Text("eventhub.group"),
		Start:      s.Start("eventhub.start"),
		TLS:        s.Switch("eventhub.tls"),
		FetchBytes: DefaultFetchBytes,

		AllowPlaintext: s.Switch("eventhub.allow_plaintext"),
	}

	const key = "eventhub.connection_string"
	cfg.ConnectionString = s.Secret(key)
	brokers := s.List("eventhub.brokers")
	var cs connectionString
	if cfg.entra() {
		cfg.checkEntra(s, brokers)
	} else if !s.IsSet(key) {
		s.Reject(key, "is not set; copy it from the namespace's (or hub's) Shared access policies in the Azure portal")
	} else if text := cfg.ConnectionString.Reveal(); text != "" && !strings.HasPrefix(text, "${") { // those are noted already
		var err error
		if cs, err = parseConnectionString(text); err != nil {
			s.Reject(key, err.Error())
		}
	}
	cfg.Namespace = cs.host
	if cs.emulator && !s.IsSet("eventhub.tls") {
		cfg.TLS = false
	}

	port := kafkaPort
	if !cfg.TLS {
		port = emulatorPort
	}
	if len(brokers) == 0 && cs.host != "" {
		if problem := cs.brokerProblem(); problem != "" {
			s.Reject(key, problem)
		}
		brokers = []string{net.JoinHostPort(cs.host, port)}
	}
	for _, b := range brokers {
		addr, err := brokerAddress(b, port)
		if err != nil {
			s.Reject("eventhub.brokers", err.Error())
			continue
		}
		cfg.Brokers = append(cfg.Brokers, addr)
		host, _, _ := net.SplitHostPort(addr)
		if !cfg.TLS && !web.IsLoopback(host) && !cfg.AllowPlaintext {
			s.Reject("eventhub.tls", fmt.Sprintf("without TLS the connection string would cross the network to %s in the clear; set eventhub.tls on, or allow this with eventhub.allow_plaintext on", addr))
		}
	}
	if cfg.Namespace == "" && len(cfg.Brokers) > 0 {
		cfg.Namespace, _, _ = net.SplitHostPort(cfg.Brokers[0])
	}

	if len(cfg.Hubs) == 0 {
		switch {
		case cs.hub != "":
			cfg.Hubs = []string{cs.hub}
		case cs.host != "":
			s.Reject("eventhub.hubs", "is not set, and the connection string is for the whole namespace (it has no EntityPath); list the hubs to read, or a pattern such as insights-logs-advancedhunting-*")
		}
	}
	for _, h := range cfg.Hubs {
		if problem := hubProblem(h); problem != "" {
			s.Reject("eventhub.hubs", fmt.Sprintf("%q %s", h, problem))
		}
	}
	if len(cfg.Group) > 256 { // the limit of Event Hubs
		s.Reject("eventhub.group", "is longer than 256 characters")
	}
	if file := s.Text("eventhub.ca_file"); file != "" {
		var err error
		if cfg.Roots, err = web.CertPool(file); err != nil {
			s.Reject("eventhub.ca_file", err.Error())
		} else if !cfg.TLS {
			s.Reject("eventhub.ca_file", "has no use with eventhub.tls off; remove one of the two")
		}
	}
	return cfg, true
}

// checkEntra notes what sign-in with Entra ID lacks.
func (cfg *Config) checkEntra(s *input.Settings, brokers []string) {
	if s.IsSet("eventhub.connection_string") {
		s.Reject("eventhub.auth", "signs in with Entra ID: remove eventhub.connection_string, or set eventhub.auth connection_string")
	}
	if len(brokers) == 0 {
		s.Reject("eventhub.brokers", "is not set; with Entra ID it names the namespace: contoso.servicebus.windows.net")
	}
	if len(cfg.Hubs) == 0 {
		s.Reject("eventhub.hubs", "is not set; list the hubs to read, or a pattern such as insights-logs-advancedhunting-*")
	}
	cfg.SignIn.Check(s, "eventhub.auth", cfg.Auth)
}

// brokerAddress completes the user's address of a broker to host:port.
func brokerAddress(b, port string) (string, error) {
	if strings.Contains(b, "://") || strings.Contains(b, "/") {
		return "", fmt.Errorf("%q is not an address; write host or host:port, such as contoso.servicebus.windows.net:9093", b)
	}
	host := b
	if h, p, err := net.SplitHostPort(b); err == nil {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return "", fmt.Errorf("%q has no valid port; write host or host:port, such as contoso.servicebus.windows.net:9093", b)
		}
		host, port = h, p
	} else if strings.Count(b, ":") == 1 {
		return "", fmt.Errorf("%q is not an address; write host or host:port", b)
	}
	if host = strings.Trim(host, "[]"); host == "" {
		return "", fmt.Errorf("%q names no host; write host or host:port", b)
	}
	if strings.Contains(host, ".servicebus.") && slices.Contains(amqpPorts, port) {
		return "", fmt.Errorf("%q has the port of another protocol (AMQP); remove it for %s", b, kafkaPort)
	}
	return net.JoinHostPort(host, port), nil
}

// amqpPorts are the ports of a namespace that other clients of Event Hubs are told to open.
var amqpPorts = []string{"443", "5671", "5672"}

// hubProblem returns the mistake in a hub's name or pattern, or "".
func hubProblem(hub string) string {
	for _, r := range hub {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("._-*?", r) {
			return fmt.Sprintf("cannot be the name of a hub: it has a %q; patterns are written with * and ?", r)
		}
	}
	if len(hub) > 256 {
		return "is longer than 256 characters"
	}
	return ""
}

// isPattern reports whether hub is a pattern that many hubs may match.
func isPattern(hub string) bool { return strings.ContainsAny(hub, "*?") }

// matchHub tells whether one of hubs is or matches name. The names of hubs hold no slash, so
// path.Match is enough.
func matchHub(hubs []string, name string) bool {
	for _, h := range hubs {
		if ok, _ := path.Match(h, name); ok {
			return true
		}
	}
	return false
}
