package signin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.uber.org/goleak"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = "11111111-1111-1111-1111-111111111111"

// authority is Entra's token endpoint for one tenant and one application, over TLS with a CA of its
// own.
func authority(t *testing.T) (url, caFile string, tokens *atomic.Int64) {
	t.Helper()
	tokens = new(atomic.Int64)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/" + tenant + "/v2.0/.well-known/openid-configuration":
			base := "https://" + r.Host + "/" + tenant
			_ = json.NewEncoder(w).Encode(map[string]string{
				"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
		case "/" + tenant + "/oauth2/v2.0/token":
			_ = r.ParseForm()
			if r.Form.Get("client_secret") != "righteous" && r.Form.Get("client_assertion") == "" {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
				return
			}
			fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"token-%d"}`, tokens.Add(1))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.URL + "/", caFile, tokens
}

func read(values map[string]string) (signin.Config, *input.Settings) {
	s := input.NewSettings(func(k string) string { return values[k] },
		append([]input.Setting{{Key: "blob.auth", Kind: input.Choice, Default: signin.Entra, Choices: signin.Methods}}, signin.Settings...))
	return signin.Read(s), s
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "app.pem")
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})...)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func token(t *testing.T, c signin.Config, method string) (string, error) {
	t.Helper()
	cred, err := c.Credential(method)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tok, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
	c.HTTP.CloseIdleConnections()
	return tok.Token, err
}

func TestTokensComeFromTheAuthority(t *testing.T) {
	url, ca, tokens := authority(t)
	base := map[string]string{"azure.tenant_id": tenant, "azure.client_id": "22222222-2222-2222-2222-222222222222",
		"azure.authority_host": url, "azure.ca_file": ca}
	f := func(method string, more map[string]string) {
		t.Helper()
		values := map[string]string{"blob.auth": method}
		for _, m := range []map[string]string{base, more} {
			for k, v := range m {
				values[k] = v
			}
		}
		c, s := read(values)
		c.Check(s, "blob.auth", method)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		before := tokens.Load()
		got, err := token(t, c, method)
		if err != nil || got != fmt.Sprintf("token-%d", before+1) {
			t.Errorf("%s: token %q, %v", method, got, err)
		}
	}
	f(signin.ClientSecret, map[string]string{"azure.client_secret": "righteous"})
	f(signin.ClientCertificate, map[string]string{"azure.client_certificate": certificate(t)})

	federated := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(federated, []byte("assertion"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", federated)
	f(signin.WorkloadIdentity, nil)
	t.Setenv("AZURE_TENANT_ID", tenant)
	t.Setenv("AZURE_CLIENT_ID", base["azure.client_id"])
	t.Setenv("AZURE_CLIENT_SECRET", "righteous")
	f(signin.Entra, nil)
}

func TestAWrongSecretIsExplainedInOneLine(t *testing.T) {
	url, ca, _ := authority(t)
	c, s := read(map[string]string{"azure.tenant_id": tenant, "azure.client_id": "22222222-2222-2222-2222-222222222222",
		"azure.client_secret": "wrong-S3cret", "azure.authority_host": url, "azure.ca_file": ca})
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	_, err := token(t, c, signin.ClientSecret)
	got := signin.Explain(err).Error()
	if !strings.Contains(got, "the client secret is wrong") || strings.Contains(got, "\n") || strings.Contains(got, "S3cret") {
		t.Errorf("%s", got)
	}
}

func TestMistakes(t *testing.T) {
	f := func(method string, values map[string]string, want string) {
		t.Helper()
		values["blob.auth"] = method
		c, s := read(values)
		c.Check(s, "blob.auth", method)
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", method, err, want)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := x509.MarshalPKCS8PrivateKey(key)
	lone := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(lone, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600); err != nil {
		t.Fatal(err)
	}
	f(signin.ClientSecret, map[string]string{}, "set azure.tenant_id")
	f(signin.ClientSecret, map[string]string{"azure.tenant_id": tenant, "azure.client_id": "x"}, "azure.client_secret_file")
	f(signin.ClientCertificate, map[string]string{"azure.tenant_id": tenant, "azure.client_id": "x"}, "set azure.client_certificate")
	f(signin.ClientCertificate, map[string]string{"azure.client_certificate": "/nowhere/app.pem"}, "no such file")
	f(signin.ClientCertificate, map[string]string{"azure.client_certificate": lone}, "certificate and key")
	f(signin.Entra, map[string]string{"azure.authority_host": "login.microsoftonline.us"}, "is not an https URL")
	f(signin.Entra, map[string]string{"azure.ca_file": "/nowhere/ca.pem"}, "no such file")
	f(signin.Entra, map[string]string{"azure.ca_file": lone}, "no certificate in PEM form")
	f(signin.Entra, map[string]string{"azure.cloud": "usgo"}, "did you mean usgov?")
}
