package eventhub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// explainConnection returns the kind of a failed connection, and the advice for the user.
func (cfg *Config) explainConnection(err error) (kind, advice string) {
	var hidden *dialError
	if errors.As(err, &hidden) {
		err = hidden.err
	}
	var (
		dns       *net.DNSError
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		handshake *tlsError
		proxy     *proxyError
		first     *kgo.ErrFirstReadEOF
		network   net.Error
		token     *tokenError
		plaintext *plaintextError
	)
	switch {
	case errors.As(err, &plaintext):
		return "plaintext", "a broker names an address on another machine, and the connection string would go there in the clear: set eventhub.tls on, or allow this with eventhub.allow_plaintext on"
	case errors.As(err, &token):
		return "token", "Entra ID gave no token: see the error, and check the azure.* settings and eventhub.auth"
	case errors.As(err, &proxy):
		return "proxy", "the proxy of HTTPS_PROXY does not connect to the broker: it must allow CONNECT to this host and port; name the host in NO_PROXY to go without it"
	case cfg.entra() && (errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.IllegalSaslState)):
		return "sign_in", "sign-in was refused: check that eventhub.brokers is the namespace's own name, and that the identity has the role Azure Event Hubs Data Receiver on it (a new role counts after minutes)"
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.IllegalSaslState):
		return "sign_in", "sign-in was refused: check that eventhub.connection_string is whole and current (its key was not regenerated), and that its policy has the Listen right"
	case errors.Is(err, kerr.UnsupportedSaslMechanism) && cfg.entra():
		return "sign_in", "the broker does not take sign-in by Entra ID: check that eventhub.brokers is an Event Hubs namespace, Standard tier or higher; the emulator takes eventhub.auth connection_string only"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "sign_in", "the broker does not take sign-in by connection string: check that eventhub.brokers is an Event Hubs namespace, Standard tier or higher (Basic has no Kafka endpoint), whose local authentication is not disabled"
	case errors.As(err, &dns):
		return "dns", "the broker's name does not resolve: check Endpoint in eventhub.connection_string (or eventhub.brokers), and the name server of this machine"
	case errors.As(err, &unknownCA):
		return "tls", "the broker's certificate is signed by an authority that is not trusted: give the certificate of a private authority, or of a proxy that inspects TLS, in eventhub.ca_file"
	case errors.As(err, &hostname):
		return "tls", "the broker's certificate is for another name: use the namespace's own name in eventhub.brokers"
	case errors.As(err, &invalid):
		return "tls", "the broker's certificate is not valid: check the clock of this machine, and whether something inspects TLS on the way"
	case errors.As(err, &record):
		return "tls", "the broker does not speak TLS at this port: check the port (Event Hubs: 9093); only the emulator goes with eventhub.tls off"
	case errors.As(err, &first), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF):
		if !cfg.TLS {
			return "closed", "the broker closes connections as soon as they are made: it probably wants TLS, so set eventhub.tls on (port 9093); else check eventhub.connection_string"
		}
		return "closed", "the broker closes connections as soon as they are made: check eventhub.connection_string, that eventhub.brokers is an Event Hubs namespace, Standard tier or higher, and that its network rules let this machine in"
	case errors.As(err, &alert), errors.As(err, &handshake):
		return "tls", "no TLS connection to the broker: check the port (Event Hubs: 9093), and whether a firewall or proxy interferes"
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return "unreachable", "the broker cannot be reached: check eventhub.brokers (or Endpoint in eventhub.connection_string), and that firewalls and the namespace's network rules allow this machine to connect to port 9093"
	case strings.Contains(err.Error(), "plaintext connection speaking to a tls endpoint"): // an untyped error of franz-go
		return "tls", "the broker wants TLS: set eventhub.tls on"
	}
	return "connect", "no connection to the broker"
}

// explainHub does the same for an error about one hub.
func (cfg *Config) explainHub(err error) (kind, advice string) {
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return "hub_missing", "there is no such hub in the namespace: check eventhub.hubs (or EntityPath in eventhub.connection_string) and that the connection string is of the right namespace"
	case errors.Is(err, kerr.TopicAuthorizationFailed) && cfg.entra():
		return "hub_denied", "the hub may not be read: the identity needs the role Azure Event Hubs Data Receiver on the namespace or this hub (a new role counts after minutes; Owner is not enough), and the namespace must be Standard tier or higher"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "hub_denied", "the hub may not be read: the policy of eventhub.connection_string needs the Listen right for it (a string with EntityPath opens that hub only), and the namespace must be Standard tier or higher"
	case errors.Is(err, kerr.InvalidTopicException):
		return "hub_missing", "this cannot be the name of a hub: check eventhub.hubs"
	}
	return "hub", "the hub cannot be read"
}

// explainGroup does the same for an error about the consumer group.
func (cfg *Config) explainGroup(err error) (kind, advice string) {
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return "group_denied", "the consumer group may not be used: the policy of eventhub.connection_string needs the Listen right"
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		return "group_protocol", "the consumer group is in use by a program that divides partitions in another way: give eventhub.group a name of its own"
	case errors.Is(err, kerr.GroupMaxSizeReached):
		return "group_full", "the consumer group has no room for another member: stop some instances, or use another eventhub.group"
	case errors.Is(err, kerr.InvalidGroupID):
		return "group_name", "the broker does not accept the name of the consumer group: check eventhub.group"
	}
	return "group", "the consumer group was lost; its partitions are read from their last safe positions once this section has joined again"
}

// kafkaLog passes what franz-go says on at debug level. Messages for users come from troubles, with
// the thing to check.
type kafkaLog struct{ log *slog.Logger }

func (l kafkaLog) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelNone
}

func (l kafkaLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	defer input.CatchAndLog(l.log, "log what the client says")
	for i, v := range keyvals {
		if s, ok := v.(fmt.Stringer); ok && i%2 == 1 {
			keyvals[i] = s.String() // now: some of them change later
		}
	}
	l.log.Debug("kafka: "+msg, keyvals...)
}
