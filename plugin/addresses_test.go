package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// Every address that gets a credential is held to one rule: TLS, or this machine. No user, no
// query. What a broker's metadata names is held to it when it is dialled: TestPlaintextRule in
// input/eventhub.
func TestAddresses(t *testing.T) {
	const guid = "0d5c1c9e-8a2b-4f5e-9a41-6f1e5f3c7b10"
	settings := map[string]map[string]string{ // what else the key needs
		"azure.authority_host": {"blob.account_url": "https://a.blob.core.windows.net", "blob.auth": "managed_identity"},
		"blob.account_url":     {"blob.auth": "managed_identity"},
		"device_info.api.url": {"blob.account_url": "https://a.blob.core.windows.net", "blob.auth": "managed_identity",
			"device_info.auth": "managed_identity", "azure.tenant_id": guid},
		"blob.sas_token": {"blob.containers": "c"},
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
