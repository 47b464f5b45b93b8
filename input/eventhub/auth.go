package eventhub

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// tokenWait bounds how long a connection waits for its token.
const tokenWait = 30 * time.Second

// entra tells whether connections sign in with Entra ID.
func (cfg *Config) entra() bool { return cfg.Auth != "" && cfg.Auth != byConnectionString }

// mechanism is how connections sign in.
func (cfg *Config) mechanism() (sasl.Mechanism, error) {
	if !cfg.entra() {
		return plain.Auth{User: "$ConnectionString", Pass: cfg.ConnectionString.Reveal()}.AsMechanism(), nil
	}
	credential, err := cfg.SignIn.Credential(cfg.Auth)
	if err != nil {
		return nil, err
	}
	// The audience is the namespace, not https://eventhubs.azure.net as with AMQP.
	host, _, err := net.SplitHostPort(cfg.Brokers[0])
	if err != nil {
		return nil, fmt.Errorf("read eventhub.brokers: %w", err)
	}
	scope := "https://" + host + "/.default"
	// franz-go asks for every connection, and again before the broker's word for how long it trusts
	// a token is over. azidentity keeps tokens and renews them before they expire.
	return oauth.Oauth(func(ctx context.Context) (_ oauth.Auth, err error) {
		defer input.Catch("get a token", &err)
		ctx, cancel := context.WithTimeout(ctx, tokenWait)
		defer cancel()
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		if err != nil {
			return oauth.Auth{}, &tokenError{signin.Explain(err)}
		}
		return oauth.Auth{Token: token.Token}, nil
	}), nil
}

// tokenError is a token that was not to be had. It is temporary, so that franz-go tries again.
type tokenError struct{ err error }

func (e *tokenError) Error() string   { return "get a token: " + e.err.Error() }
func (e *tokenError) Temporary() bool { return true }
