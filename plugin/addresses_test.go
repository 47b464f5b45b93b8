package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakehub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/machines"
)

// Every address that gets a credential is held to one rule: TLS, or this machine. No user, no
// query. What a broker's metadata names is held to it when it is dialled: see TestNetworkRules.
func TestAddresses(t *testing.T) {
	const guid = "0d5c1c9e-8a2b-4f5e-9a41-6f1e5f3c7b10"
	settings := map[string]map[string]string{ // what else the key needs
		"azure.authority_host": {"blob.account_url": "https://a.blob.core.windows.net", "blob.auth": "managed_identity"},
		"blob.account_url":     {"blob.auth": "managed_identity"},
		"device_info.api.url": {"blob.account_url": "https://a.blob.core.windows.net", "blob.auth": "managed_identity",
			"device_info.auth": "managed_identity", "azure.tenant_id": guid},
		"blob.sas_token": {"blob.containers": "ccc"},
	}
	rows := []struct {
		address string
		good    string // keys that take it; * for all
	}{
		{"https://host.example", "*"},
		{"https://host.example/", "*"},
		{"https://host.example:8443", "*"},
		{"http://localhost:10000", "blob.account_url device_info.api.url blob.sas_token"}, // an emulator; azidentity signs in by https only
		{"http://127.0.0.1:10000", "blob.account_url device_info.api.url blob.sas_token"},
		{"http://[::1]:10000", "blob.account_url device_info.api.url blob.sas_token"},
		{"http://host.example", ""},
		{"http://10.1.2.3", ""},
		{"http://169.254.169.254", ""},
		{"http://localhost.example", ""},
		{"http://127.0.0.1.example", ""},
		{"http://0.0.0.0:10000", ""},
		{"https://user:password@host.example", ""},
		{"https://user@host.example", ""},
		{"ftp://host.example", ""},
		{"file:///host.example", ""},
		{"//host.example", ""},
		{"https://", ""},
		{"https:host.example", ""},
	}
	read := func(values map[string]string) error {
		s := input.NewSettings(func(k string) string { return values[k] }, declared())
		readConfig(s)
		return s.Err()
	}
	for key, more := range settings {
		for _, row := range rows {
			values := maps.Clone(more)
			values[key] = row.address
			if key == "blob.sas_token" { // a whole SAS URL
				values[key] = row.address + "/c?sv=2022-11-02&sig=c2lnbmF0dXJl"
				if strings.HasSuffix(row.address, "/") || strings.Contains(row.address, ":10000") {
					continue // the path of an emulator begins with the account
				}
			}
			err := read(values)
			if good := row.good == "*" || strings.Contains(row.good, key); good != (err == nil) {
				t.Errorf("%s = %s: %v", key, row.address, err)
			}
			if strings.Contains(mask(fmt.Sprint(err)), "password@") {
				t.Errorf("%s = %s: shown: %v", key, row.address, err)
			}
		}
	}

	const cs = "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=defender"
	for _, row := range []struct {
		brokers, tls, plain string
		good                bool
	}{
		{"ns.example:9093", "on", "off", true},
		{"ns.example:9093", "off", "off", false},
		{"ns.example:9093", "off", "on", true}, // what the user says in so many words
		{"127.0.0.1:9092", "off", "off", true},
		{"localhost:9092", "off", "off", true},
		{"[::1]:9092", "off", "off", true},
		{"127.0.0.1:9092,10.0.0.1:9092", "off", "off", false},
		{"localhost.example:9092", "off", "off", false},
		{"169.254.169.254:9092", "off", "off", false},
		{"0.0.0.0:9092", "off", "off", false},
		{"http://127.0.0.1:9092", "off", "off", false},
		{"user:password@127.0.0.1:9092", "off", "off", false},
	} {
		values := map[string]string{"eventhub.connection_string": cs, "eventhub.brokers": row.brokers, "eventhub.tls": row.tls}
		if row.plain == "on" {
			values["eventhub.allow_plaintext"] = "on"
		}
		if err := read(values); row.good != (err == nil) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// thief: a server that no credential may come to.
type thief struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newThief(t *testing.T, secure bool) *thief {
	t.Helper()
	f := new(thief)
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, fmt.Sprintf("%s %s, authorization %t, referer %q", r.Method, r.Host, r.Header.Get("Authorization") != "", r.Referer()))
		f.mu.Unlock()
		http.Error(w, "no", http.StatusForbidden)
	}))
	if f.Start(); secure {
		f.Close()
		f.Server = httptest.NewTLSServer(f.Config.Handler)
	}
	t.Cleanup(f.Close)
	return f
}

// got returns what came since the last call.
func (f *thief) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

// Every server that gets a credential is held to the same rules, for each client. A redirect is not
// followed, and plain text does not leave this machine. The environment's proxy is used for other
// machines, and never for the link-local addresses of this one.
func TestNetworkRules(t *testing.T) {
	const (
		guid = "0d5c1c9e-8a2b-4f5e-9a41-6f1e5f3c7b10"
		cs   = "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=defender"
	)
	proxy := newThief(t, false)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")

	// The sign-in host gives tokens to all, or sends everybody elsewhere.
	var signInTo string
	signIn := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base := "https://" + r.Host + "/" + guid
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "openid-configuration"):
			_ = json.NewEncoder(w).Encode(map[string]string{"token_endpoint": base + "/oauth2/v2.0/token",
				"authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
		case signInTo != "":
			http.Redirect(w, r, signInTo, http.StatusTemporaryRedirect)
		default:
			fmt.Fprint(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"TOPSECRET"}`)
		}
	}))
	defer signIn.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signIn.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	app := map[string]string{"azure.tenant_id": guid, "azure.client_id": guid, "azure.client_secret": "TOPSECRET", "azure.ca_file": ca,
		"azure.authority_host": signIn.URL + "/"}
	with := func(more ...string) map[string]string {
		values := maps.Clone(app)
		for i := 0; i < len(more); i += 2 {
			values[more[i]] = more[i+1]
		}
		return values
	}
	// redirecting is an address whose server sends everybody to another.
	redirecting := func(to string) string {
		srv := httptest.NewServer(http.RedirectHandler(to, http.StatusTemporaryRedirect))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	// advertising is a broker on this machine whose metadata names addr as the one to ask.
	advertising := func(addr string) map[string]string {
		h, err := fakehub.Start(fakehub.Options{Hubs: map[string]int32{"defender": 1}, EntityPath: "defender", Plaintext: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		h.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
			h.KeepControl()
			m := r.ResponseKind().(*kmsg.MetadataResponse)
			b := kmsg.NewMetadataResponseBroker()
			b.Host, b.Port = host, int32(number)
			m.Brokers = append(m.Brokers, b)
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic = kmsg.StringPtr("defender")
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Replicas, p.ISR = []int32{0}, []int32{0}
			topic.Partitions = append(topic.Partitions, p)
			m.Topics = append(m.Topics, topic)
			return m, nil, true
		})
		return map[string]string{"eventhub.connection_string": h.ConnectionString(), "eventhub.brokers": h.Brokers(), "eventhub.tls": "off"}
	}

	elsewhere, plain := newThief(t, true), newThief(t, false)
	toSignIn := func(address string) map[string]string {
		return with("azure.authority_host", address, "blob.account_url", "https://account.example", "blob.auth", "client_secret", "blob.containers", "ccc")
	}
	toBlobs := func(address string) map[string]string {
		return with("blob.account_url", address, "blob.sas_token", "sv=2022-11-02&sp=rl&sig=TOPSECRET", "blob.containers", "ccc")
	}
	toAPI := func(address string) map[string]string {
		return with("device_info.api.url", address, "device_info.auth", "client_secret", "eventhub.connection_string", cs)
	}
	toBroker := func(address string) map[string]string {
		return map[string]string{"eventhub.connection_string": cs, "eventhub.brokers": address}
	}
	const (
		stays    = "is not followed"
		machine  = "on another machine"
		anything = ""
	)
	for _, row := range []struct {
		what    string
		values  map[string]string
		signIn  string // where the sign-in host sends everybody
		says    string
		proxied string // what the proxy is asked for
		hasty   bool   // nobody answers: it is not waited for
	}{
		{what: "azure.authority_host, redirect", values: toSignIn(signIn.URL + "/"), signIn: elsewhere.URL, says: stays},
		{what: "azure.authority_host, redirect to plain text", values: toSignIn(signIn.URL + "/"), signIn: plain.URL, says: stays},
		{what: "azure.authority_host, another machine", values: toSignIn("https://login.example/"), says: anything, proxied: "CONNECT login.example:443"},
		{what: "azure.authority_host, link-local", values: toSignIn("https://169.254.169.254/"), says: anything, hasty: true},

		{what: "blob.account_url, redirect", values: toBlobs(redirecting(elsewhere.URL)), says: stays},
		{what: "blob.account_url, redirect to plain text", values: toBlobs(redirecting(plain.URL)), says: stays},
		{what: "blob.account_url, another machine", values: toBlobs("https://account.example"), says: anything, proxied: "CONNECT account.example:443"},
		{what: "blob.account_url, link-local", values: toBlobs("https://169.254.169.254"), says: anything, hasty: true},

		{what: "device_info.api.url, redirect", values: toAPI(redirecting(elsewhere.URL)), says: stays},
		{what: "device_info.api.url, redirect to plain text", values: toAPI(redirecting(plain.URL)), says: stays},
		{what: "device_info.api.url, another machine", values: toAPI("https://api.example"), says: anything, proxied: "CONNECT api.example:443"},
		{what: "device_info.api.url, link-local", values: toAPI("https://169.254.169.254"), says: anything, hasty: true},

		{what: "metadata, another machine in plain text", values: advertising("192.0.2.1:9092"), says: machine},
		{what: "metadata, a name of another machine in plain text", values: advertising("localhost.example:9092"), says: machine},
		{what: "metadata, link-local in plain text", values: advertising("169.254.169.254:9092"), says: machine},
		{what: "eventhub.brokers, another machine", values: toBroker("ns.example:9093"), says: anything, proxied: "CONNECT ns.example:9093"},
		{what: "eventhub.brokers, link-local", values: toBroker("169.254.169.254:9093"), says: anything, hasty: true},
	} {
		t.Run(row.what, func(t *testing.T) {
			signInTo = row.signIn
			s := input.NewSettings(func(k string) string { return row.values[k] }, declared())
			c := readConfig(s)
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			limit := 30 * time.Second
			if row.hasty {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			var found []input.Finding
			switch {
			case strings.HasPrefix(row.what, "device_info"):
				found = machines.Check(ctx, c.devices.api)
			case c.blob != nil:
				found = blob.Check(ctx, *c.blob)
			default:
				found = eventhub.Check(ctx, *c.eventhub)
			}
			text, failed := "", false
			for _, f := range found {
				text += f.String() + "\n"
				failed = failed || f.Err != nil
			}
			if !failed || !strings.Contains(text, row.says) || strings.Contains(text, "TOPSECRET") {
				t.Errorf("want %q in:\n%s", row.says, text)
			}
			if seen := append(elsewhere.got(), plain.got()...); len(seen) > 0 {
				t.Errorf("this came to where a redirect points: %q", seen)
			}
			asked := strings.Join(proxy.got(), "\n")
			if (asked == "") != (row.proxied == "") || !strings.Contains(asked, row.proxied) {
				t.Errorf("the proxy was asked for %q, want %q", asked, row.proxied)
			}
		})
	}
}
