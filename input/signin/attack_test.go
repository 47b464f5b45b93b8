package signin_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// hostile is a sign-in host whose token endpoint is the attacker's.
func hostile(t *testing.T, answer http.HandlerFunc) signin.Config {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			base := "https://" + r.Host + "/" + tenant
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]string{"token_endpoint": base + "/oauth2/v2.0/token",
				"authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
			return
		}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, s := read(map[string]string{"azure.tenant_id": tenant, "azure.client_id": "22222222-2222-2222-2222-222222222222",
		"azure.authority_host": srv.URL + "/", "azure.ca_file": ca, "azure.client_secret": "TOPSECRET-client"})
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

// The secret does not follow a redirect: not to plain http, and not to another port.
func TestSecretFollowsNoRedirect(t *testing.T) {
	var got atomic.Int64
	thief := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		fmt.Fprint(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"of the thief"}`)
	})
	plain, port := httptest.NewServer(thief), httptest.NewTLSServer(thief)
	defer plain.Close()
	defer port.Close()
	for _, to := range []string{plain.URL, port.URL} {
		for _, code := range []int{302, 303, 307, 308} {
			c := hostile(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to+"/x", code) })
			text, err := token(t, c, signin.ClientSecret)
			if err == nil || text != "" || !strings.Contains(err.Error(), "is not followed") {
				t.Errorf("%d to %s: token %q, %v", code, to, text, err)
			}
			if err != nil && strings.Contains(signin.Explain(err).Error(), "TOPSECRET") {
				t.Error(err)
			}
		}
	}
	if n := got.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// A token answer without end is given up after a megabyte, also where it is an error.
func TestTokenAnswerWithoutEnd(t *testing.T) {
	for _, code := range []int{200, 400} {
		var sent atomic.Int64
		c := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			block := []byte(strings.Repeat(" ", 1<<16))
			for sent.Load() < 1<<30 {
				n, err := w.Write(block)
				if err != nil {
					return
				}
				sent.Add(int64(n))
			}
		})
		began := time.Now()
		_, err := token(t, c, signin.ClientSecret)
		var long *web.LengthError
		if err == nil || !errors.As(err, &long) && !strings.Contains(err.Error(), "is longer than 1 MB") {
			t.Errorf("%d: %.200v", code, err)
		}
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%d: %d MB were read in %v", code, n>>20, time.Since(began))
		}
	}
}

// The metadata service is asked directly: a proxy would fetch the token of its own machine, and
// could keep it.
func TestManagedIdentityHasNoProxy(t *testing.T) {
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{"token_type":"Bearer","expires_in":"3600","access_token":"of the proxy"}`)
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "")
	for _, method := range []string{signin.ManagedIdentity, signin.Entra} {
		c, _ := read(nil)
		cred, err := c.Credential(method)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		tok, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
		cancel()
		c.HTTP.CloseIdleConnections()
		if err == nil || tok.Token != "" {
			t.Errorf("%s: token %q, %v", method, tok.Token, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the proxy was asked %d times", n)
	}
}
