package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// startWith starts a section with these settings in a host that only keeps the log, and returns its
// errors.
func startWith(t *testing.T, values map[string]string) (errors []string) {
	t.Helper()
	in, err := newInstance(host{
		name:   "defender.0",
		get:    func(key string) string { return values[key] },
		append: func(string, []byte) bool { return false },
		quit:   func() {},
		log: func(level slog.Level, line string) {
			for _, secret := range []string{"bm90LWEtcmVhbC1rZXk", "hunter2"} {
				if strings.Contains(line, secret) {
					t.Errorf("the log shows a secret: %s", line)
				}
			}
			if level >= slog.LevelError {
				errors = append(errors, line)
			}
		},
	})
	if err == nil {
		in.stop()
		<-in.stopped
		t.Errorf("a section with %v starts", values)
	}
	return errors
}

// Each of these is a mistake that users make. Each has one line of the log, which names the setting
// and what to do.
func TestTypicalMistakes(t *testing.T) {
	t.Parallel()
	h := startHub(t, 1)
	const container = "insights-logs-advancedhunting-alertinfo"
	account := startAccount(t, container, []byte("{}\r\n"))
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	held := filepath.Join(dir, "held.db")
	state, err := input.OpenState(held, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()

	authority := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base := "https://" + r.Host + strings.TrimSuffix(strings.Split(r.URL.Path, "/v2.0")[0], "/oauth2")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			fmt.Fprintf(w, `{"token_endpoint":%q,"authorization_endpoint":%q,"issuer":%q}`, base+"/oauth2/v2.0/token", base+"/a", base+"/v2.0")
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}`)
	}))
	defer authority.Close()
	authorityCA := file("authority.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw})))

	type set = map[string]string
	const key = "bm90LWEtcmVhbC1rZXk=" // no key of anything
	cs := func(s string) string { return s + "SharedAccessKeyName=listen;SharedAccessKey=" + key }
	good := set{"eventhub.connection_string": h.ConnectionString(), "eventhub.brokers": h.Brokers(), "eventhub.ca_file": h.CAFile()}
	reachable := cs("Endpoint=sb://contoso.servicebus.windows.net/;EntityPath=defender;")
	tried := set{"check_only": "on"}
	blobs := set{"check_only": "on", "blob.connection_string": account.ConnectionString()}
	entra := set{"check_only": "on", "azure.tenant_id": "11111111-2222-3333-4444-555555555555", "azure.client_id": "x",
		"azure.client_secret": "hunter2", "azure.authority_host": authority.URL, "azure.ca_file": authorityCA}

	n := 0
	f := func(mistake string, want []string, sets ...set) {
		t.Helper()
		n++
		values := set{}
		for _, s := range sets {
			for k, v := range s {
				values[k] = v
			}
		}
		errors := startWith(t, values)
		found := 0
		for _, line := range errors {
			all := !strings.Contains(strings.TrimSpace(line), "\n")
			for _, w := range want {
				all = all && strings.Contains(line, w)
			}
			if all {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d lines say %q:\n%s", mistake, found, want, strings.Join(errors, "\n"))
		}
	}

	f("nothing set", []string{"eventhub.connection_string", "no source is configured", "blob.connection_string"})
	f("misspelt key", []string{"eventhub.hub:", "did you mean eventhub.hubs?"}, good, set{"eventhub.hub": "x"})
	f("a key of another plugin", []string{"connection_string:", "did you mean"}, good, set{"connection_string": "x"})
	f("misspelt start", []string{"eventhub.start", `"lastest"`, "did you mean latest?"}, good, set{"eventhub.start": "lastest"})
	f("misspelt choice", []string{"blob.auth", "did you mean managed_identity?"}, good, set{"blob.auth": "manged_identity", "blob.account_url": "https://x.blob.core.windows.net"})
	f("no size", []string{"memory_limit", `"lots"`, "such as 256M"}, good, set{"memory_limit": "lots"})
	f("too little memory", []string{"memory_limit", "at least 64M"}, good, set{"memory_limit": "1M"})
	f("neither on nor off", []string{"keep_nulls", "neither on nor off"}, good, set{"keep_nulls": "maybe"})
	f("tag without a place for the table", []string{"tag_pattern", "*"}, good, set{"tag_pattern": "defender"})
	f("no Endpoint", []string{"eventhub.connection_string", "Endpoint"}, set{"eventhub.connection_string": cs("")})
	f("string of the namespace without a hub", []string{"eventhub.hubs", "EntityPath"}, set{"eventhub.connection_string": cs("Endpoint=sb://contoso.servicebus.windows.net/;")})
	f("variable that is not set", []string{"eventhub.connection_string", "environment variable"}, set{"eventhub.connection_string": "${EVENTHUB}"})
	f("secret twice", []string{"eventhub.connection_string", "set twice", "eventhub.connection_string_file"}, good, set{"eventhub.connection_string_file": "x"})
	f("no secret file", []string{"eventhub.connection_string_file", "no such file"}, set{"eventhub.connection_string_file": "/nowhere/cs"})
	f("plaintext over the network", []string{"eventhub.tls", "eventhub.allow_plaintext"}, set{"eventhub.connection_string": reachable, "eventhub.tls": "off"})
	f("no certificate", []string{"eventhub.ca_file", "certificate"}, good, set{"eventhub.ca_file": file("ca.pem", "nothing")})
	f("no folder for the state file", []string{"db", "/nowhere/defender.db", "does not exist"}, good, set{"db": "/nowhere/defender.db"})
	f("two sections on one state file", []string{held, "give each its own db"}, good, set{"db": held})
	f("somebody's file as state file", []string{"a text file", "change db"}, good, set{"db": file("fluent-bit.conf", strings.Repeat("[SERVICE]\n", 100))})
	f("secret is missing", []string{"blob.auth", "azure.client_secret"}, set{"blob.auth": "client_secret", "blob.account_url": "https://x.blob.core.windows.net", "azure.tenant_id": "t", "azure.client_id": "c"})
	f("account without TLS", []string{"blob.account_url", "https"}, set{"blob.auth": "entra", "blob.account_url": "http://x.blob.core.windows.net"})
	f("hub and Entra without a namespace", []string{"eventhub.brokers", "is not set", "servicebus.windows.net"}, set{"eventhub.auth": "entra", "eventhub.hubs": "x"})

	f("wrong hub", []string{"hub defnder", "there is no such hub", "eventhub.hubs"}, tried, good, set{"eventhub.hubs": "defnder"})
	f("wrong key", []string{"sign-in was refused", "eventhub.connection_string"}, tried, good, set{"eventhub.connection_string": strings.Replace(h.ConnectionString(), "SharedAccessKey=Zm", "SharedAccessKey=Xm", 1)})
	f("nobody there", []string{"127.0.0.1:1", "cannot be reached", "eventhub.brokers"}, tried, good, set{"eventhub.brokers": "127.0.0.1:1"})
	f("private authority", []string{"authority that is not trusted", "eventhub.ca_file"}, tried, good, set{"eventhub.ca_file": ""})
	f("wrong container", []string{"container insights-logs", "does not exist", "blob.containers"}, blobs, set{"blob.containers": "insights-logs-advancedhunting-alertinf"})
	f("expired secret", []string{"the client secret has expired"}, entra, set{"blob.auth": "client_secret", "blob.account_url": account.URL()})

	account.SetFault(mayOnlyList)
	f("may list and not read", []string{"container " + container, "read "}, blobs)
	account.SetFault(func(fakeblob.Request) *fakeblob.Fault {
		return &fakeblob.Fault{Status: http.StatusForbidden, Code: "AuthenticationFailed"}
	})
	f("rotated account key", []string{"list containers", "the account key is wrong"}, blobs)
	if n < 20 {
		t.Errorf("only %d mistakes", n)
	}
}
