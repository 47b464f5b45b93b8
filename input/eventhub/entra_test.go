package eventhub_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
)

const tenant = "11111111-1111-1111-1111-111111111111"

// authority is Entra's token endpoint. Tokens are good for lifetime, and for the audience that they
// were asked for.
type authority struct {
	lifetime time.Duration
	refuse   atomic.Bool

	mu     sync.Mutex
	tokens map[string]time.Time // until when
	scopes map[string]bool
}

func (a *authority) good(token string) (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := time.Until(a.tokens[token])
	return left, left > 0
}

func (a *authority) issued() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.tokens)
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	base := "https://" + r.Host + "/" + tenant
	switch strings.TrimPrefix(r.URL.Path, "/"+tenant) {
	case "/v2.0/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]string{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
	case "/oauth2/v2.0/token":
		if _ = r.ParseForm(); a.refuse.Load() || r.Form.Get("client_secret") != "geheim" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}`)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		token := fmt.Sprintf("token-%d", len(a.tokens)+1)
		a.tokens[token] = time.Now().Add(a.lifetime)
		for _, s := range strings.Fields(r.Form.Get("scope")) {
			a.scopes[s] = true
		}
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":%d,"access_token":%q}`, int(a.lifetime.Seconds()), token)
	default:
		http.NotFound(w, r)
	}
}

func startAuthority(t *testing.T, lifetime time.Duration) (*authority, map[string]string) {
	t.Helper()
	a := &authority{lifetime: lifetime, tokens: make(map[string]time.Time), scopes: make(map[string]bool)}
	srv := httptest.NewTLSServer(a)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a, map[string]string{
		"eventhub.auth":        "client_secret",
		"azure.tenant_id":      tenant,
		"azure.client_id":      "22222222-2222-2222-2222-222222222222",
		"azure.client_secret":  "geheim",
		"azure.authority_host": srv.URL + "/",
		"azure.ca_file":        ca,
	}
}

// With Entra ID the source signs in with tokens for the namespace, and renews them while it reads.
// When one expires, no connection is lost and nothing is read again.
func TestEntra(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	a, set := startAuthority(t, 3*time.Second)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, Token: a.good})
	set["eventhub.brokers"], set["eventhub.ca_file"], set["eventhub.hubs"] = h.Brokers(), h.CAFile(), "alerts"
	cfg := readConfig(t, set)
	r := open(t, cfg, nil)
	t.Cleanup(cfg.SignIn.HTTP.CloseIdleConnections)
	for i := range 16 {
		produce(ctx, t, h, "alerts", numbered(10*i, 10*i+10)...)
		r.commit(ctx, r.fetch(ctx, 10))
		time.Sleep(400 * time.Millisecond)
	}
	checkOrder(t, r.got)
	same(t, "messages", bodies(r.got), texts(numbered(0, 160)...))
	if n := a.issued(); n < 3 {
		t.Errorf("%d tokens were issued in 6 s, although each is good for 3 s", n)
	}
	if want := "https://127.0.0.1/.default"; !a.scopes[want] {
		t.Errorf("tokens were asked for %v, want %s", a.scopes, want)
	}
	if n := r.Stats().Rebalances; n != 1 {
		t.Errorf("%d rebalances, want 1", n)
	}
	r.log.times(t, 0, "level=ERROR")
}

// An expired secret and a missing role have different errors; both may be mended while the source
// runs.
func TestEntraTroubles(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	a, set := startAuthority(t, time.Minute)
	h := startHub(t, fakehub.Options{Hubs: map[string]int32{"alerts": 2}, Token: a.good})
	set["eventhub.brokers"], set["eventhub.ca_file"], set["eventhub.hubs"] = h.Brokers(), h.CAFile(), "alerts"
	produce(ctx, t, h, "alerts", numbered(0, 10)...)
	a.refuse.Store(true)
	cfg := readConfig(t, set)
	r := open(t, cfg, nil)
	t.Cleanup(cfg.SignIn.HTTP.CloseIdleConnections)
	r.log.wait(t, soon, "Entra ID gave no token")
	r.log.wait(t, soon, "the client secret has expired")
	h.RefuseSignIn(true)
	a.refuse.Store(false)
	r.log.wait(t, 10*time.Second, "the identity has the role Azure Event Hubs Data Receiver on it")
	h.RefuseSignIn(false)
	r.fetch(ctx, 10)
	r.log.times(t, 1, "Entra ID gave no token")
	r.log.wait(t, soon, "works again")
}
