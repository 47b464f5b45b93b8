package machines

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

// The whole way over TLS: a token from azidentity, the list, a look-up, a token that is taken back,
// a secret that is wrong.
func TestSignIn(t *testing.T) {
	const secret = "s3cret-value"
	var issued atomic.Int64
	f := &fakeAPI{devices: ids(30), tokens: map[string]bool{}, pageMax: 10}
	mux := http.NewServeMux()
	mux.Handle("/api/", f)
	var srv *httptest.Server
	mux.HandleFunc("/"+tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": srv.URL + "/" + tenant + "/v2.0",
			"authorization_endpoint": srv.URL + "/authorize", "token_endpoint": srv.URL + "/token"})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.FormValue("scope") == "" || !strings.Contains(r.FormValue("scope"), "https://api.securitycenter.microsoft.com/.default") {
			t.Errorf("scope %q", r.FormValue("scope"))
		}
		if r.FormValue("client_secret") != secret {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: x"}`))
			return
		}
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"token-%d"}`, issued.Add(1))
	})
	srv = httptest.NewTLSServer(mux)
	defer srv.Close()

	config := func(s string) Config {
		return Config{Auth: signin.ClientSecret, Tenant: tenant, URL: srv.URL, Scope: places["commercial"].scope, Refresh: time.Hour,
			Identity: signin.Config{TenantID: tenant, ClientID: "app", Secret: input.NewSecret(s), AuthorityHost: srv.URL + "/", HTTP: srv.Client()}}
	}
	t.Run("works", func(t *testing.T) {
		f.tokens["token-2"] = true // the first is refused, and a fresh one fetched
		var l learned
		var log syncBuffer
		c, err := Open(config(secret), l.learn, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		eventually(t, "a whole list", func() bool { return c.Stats().Lists == 1 })
		if p := lookUp(c, within(t, 10*time.Second), tenant, f.devices[20:]); len(p) != 0 || l.count() != 20 {
			t.Errorf("pending %v, %d devices\n%s", p, l.count(), log.String())
		}
		if n := issued.Load(); n != 2 {
			t.Errorf("%d tokens", n)
		}
	})
	t.Run("wrong secret", func(t *testing.T) {
		var l learned
		var log syncBuffer
		c, err := Open(config("wr0ng-value"), l.learn, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		lookUp(c, within(t, 10*time.Second), tenant, f.devices[:1])
		eventually(t, "said", func() bool { return strings.Contains(log.String(), "the client secret is wrong") })
		if strings.Contains(log.String(), "wr0ng") || strings.Count(log.String(), "\n") != 1 {
			t.Error(log.String())
		}
	})
}
