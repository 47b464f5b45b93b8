package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// A setting that is set and has no effect beside the others is named, with the reason.
func TestUselessSettings(t *testing.T) {
	const reasonEntra = " has no effect: nothing signs in with Entra ID (eventhub.auth, blob.auth, device_info.auth)"
	f := func(more map[string]string, want ...string) {
		t.Helper()
		set := map[string]string{"eventhub.connection_string": "Endpoint=sb://ns.example/;SharedAccessKeyName=l;SharedAccessKey=dG9wc2VjcmV0;EntityPath=d"}
		maps.Copy(set, more)
		s := input.NewSettings(func(k string) string { return set[k] }, declared())
		c := readConfig(s)
		s.FindUnused(c.withoutUse)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if got := s.Warnings(); !slices.Equal(got, want) {
			t.Errorf("%v:\n%s\nwant\n%s", more, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	entra := map[string]string{"eventhub.connection_string": "", "eventhub.auth": "client_secret", "eventhub.brokers": "ns.servicebus.windows.net:9093", "eventhub.hubs": "d",
		"azure.tenant_id": "t", "azure.client_id": "c", "azure.client_secret": "TOPSECRET", "azure.authority_host": "https://login.example/"}
	f(map[string]string{})
	f(map[string]string{"splunk.mend": "on", "splunk.fill_device": "off"},
		"splunk.fill_device has no effect: format is flat", "splunk.mend has no effect: format is flat")
	f(map[string]string{"splunk.mend": "on", "splunk.fill_device": "off", "format": "Splunk"})
	f(map[string]string{"format": "raw", "resolve_refs": "on"}, "resolve_refs has no effect: format raw passes the text of a record on unchanged")
	f(map[string]string{"format": "splunk", "resolve_refs": "on", "keep_nulls": "on", "device_info.prefix": "dev_"},
		"device_info.prefix has no effect: format splunk has places of its own for the device", "resolve_refs has no effect: format splunk passes references on unchanged")
	f(map[string]string{"format": "elastic", "keep_nulls": "on", "device_info.prefix": "dev_", "device_info": "off"},
		"device_info.prefix has no effect: device_info is off", "keep_nulls has no effect: format elastic passes the text of a record on unchanged")
	f(map[string]string{"format": "ecs", "keep_nulls": "on"}, "keep_nulls has no effect: format ecs leaves out what is empty")
	f(map[string]string{"format": "ocsf", "device_info.prefix": "dev_"}, "device_info.prefix has no effect: format ocsf has places of its own for the device")
	f(map[string]string{"format": "raw", "device_info.prefix": "dev_"})
	f(map[string]string{"event_id": "off", "repeats.memory": "8M"}, "repeats.memory has no effect: event_id is off")
	f(map[string]string{"azure.tenant_id": "t", "azure.client_secret": "TOPSECRET", "azure.cloud": "usgov"},
		"azure.client_secret"+reasonEntra, "azure.tenant_id"+reasonEntra)
	f(entra)
	f(map[string]string{"device_info": "off", "device_info.wait": "5s", "device_info.auth": "off", "device_info.api.refresh": "1h"},
		"device_info.api.refresh has no effect: device_info is off", "device_info.auth has no effect: device_info is off", "device_info.wait has no effect: device_info is off")
	f(map[string]string{"device_info.api.refresh": "1h"}, "device_info.api.refresh has no effect: device_info.auth is off")
	other := maps.Clone(entra)
	other["eventhub.auth"] = "managed_identity"
	f(other, "azure.client_secret has no effect: no auth is client_secret")
}
