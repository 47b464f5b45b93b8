package eventhub_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/eventhub"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

const (
	key       = "c2VjcmV0LXRoYXQtbXVzdC1ub3QtYmUtc2hvd24tYW55d2hlcmU="
	namespace = "Endpoint=sb://Contoso.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=" + key
	hub       = namespace + ";EntityPath=alerts"
	emulator  = "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
)

func read(set ...string) (eventhub.Config, bool, error) {
	m := make(map[string]string)
	for i := 0; i < len(set); i += 2 {
		k := set[i]
		if !strings.Contains(k, ".") {
			k = "eventhub." + k
		}
		m[k] = set[i+1]
	}
	s := input.NewSettings(func(k string) string { return m[k] }, declared)
	cfg, configured := eventhub.ReadConfig(s, signin.Read(s))
	return cfg, configured, s.Err()
}

// What good settings mean.
func TestReadConfig(t *testing.T) {
	f := func(want string, set ...string) {
		t.Helper()
		cfg, configured, err := read(set...)
		got := fmt.Sprintf("%s %v %v %s tls=%v", cfg.Namespace, cfg.Brokers, cfg.Hubs, cfg.Group, cfg.TLS)
		if err != nil || !configured || got != want {
			t.Errorf("%v:\ngot  %s (%v)\nwant %s", set[2:], got, err, want)
		}
	}
	const contoso = "contoso.servicebus.windows.net [contoso.servicebus.windows.net:9093] "
	f(contoso+"[alerts] fluent-bit-defender tls=true", "connection_string", hub)
	f(contoso+"[alerts] fluent-bit-defender tls=true", "connection_string", hub+";")
	f(contoso+"[devices] fluent-bit-defender tls=true", "connection_string", hub, "hubs", "devices")
	f(contoso+"[a b-* c?] soc tls=true", "connection_string", namespace, "hubs", "a, b-* c?", "group", "soc")
	f("contoso.servicebus.windows.net [one:9093 two:19093] [alerts] fluent-bit-defender tls=true", "connection_string", hub, "brokers", "one,two:19093")
	f("contoso.servicebus.windows.net [[::1]:9093] [alerts] fluent-bit-defender tls=true", "connection_string", hub, "brokers", "[::1]:9093")
	f("localhost [localhost:9092] [alerts] fluent-bit-defender tls=false", "connection_string", emulator, "hubs", "alerts")
	f("localhost [eventhubs:9092] [alerts] fluent-bit-defender tls=false", "connection_string", emulator, "hubs", "alerts", "brokers", "eventhubs", "allow_plaintext", "on")
	f(contoso+"[alerts] fluent-bit-defender tls=true", "connection_string", strings.Replace(hub, "windows.net/", "windows.net:9093", 1))
	f(contoso+"[alerts] fluent-bit-defender tls=true", "auth", "managed_identity", "brokers", "contoso.servicebus.windows.net", "hubs", "alerts")
	for _, suffix := range []string{"servicebus.usgovcloudapi.net", "servicebus.chinacloudapi.cn", "servicebus.cloudapi.de", "eh.example.org"} {
		f("contoso."+suffix+" [contoso."+suffix+":9093] [alerts] fluent-bit-defender tls=true",
			"connection_string", strings.Replace(hub, "servicebus.windows.net", suffix, 1))
	}

	if _, configured, err := read(); configured || err != nil {
		t.Errorf("without any setting: configured=%v, %v", configured, err)
	}
	// The password that is sent is the string as it was given.
	cfg, _, _ := read("connection_string", hub)
	if cfg.ConnectionString.Reveal() != hub {
		t.Error("the connection string was changed")
	}
}

// Each mistake gives one error that names the setting, says what is wrong and what to do, and shows
// nothing of the key.
func TestReadConfigMistakes(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(want string, set ...string) {
		t.Helper()
		_, configured, err := read(set...)
		if err == nil || !configured {
			t.Errorf("%.40q...: no error, want %q", set, want)
			return
		}
		lines := strings.Split(err.Error(), "\n")
		if !strings.Contains(lines[0], want) || len(lines) != 1 {
			t.Errorf("%s:\ngot  %s\nwant %s", set[0], err, want)
		}
		if strings.Contains(err.Error(), key[:8]) || strings.Contains(err.Error(), key[20:30]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	cs := func(want, text string) {
		t.Helper()
		f("eventhub.connection_string: "+want, "connection_string", text, "hubs", "alerts")
	}
	cs("has no Endpoint; it must begin with Endpoint=sb://", strings.TrimPrefix(hub, "Endpoint=sb://Contoso.servicebus.windows.net/;"))
	cs("is in quotes; remove them", `"`+hub+`"`)
	cs("is in quotes; remove them", `'`+hub)
	cs("spans several lines", strings.Replace(hub, ";", ";\n", 1))
	cs("has an empty part (number 2", strings.Replace(hub, ";", ";;", 1))
	cs("is broken: part 3 of those between ; is none of Endpoint", strings.Replace(hub, ";SharedAccessKey=", ";"+key[:8]+"=", 1))
	cs("is broken: part 3 of those between ; has no =", strings.Replace(hub, ";SharedAccessKey=", ";", 1)[:110])
	cs("has EntityPath twice", hub+";EntityPath=devices")
	cs("has no value for SharedAccessKey", strings.Replace(hub, key, "", 1))
	cs("has no value for SharedAccessKey", strings.Replace(hub, key, "<key>", 1))
	cs("has no SharedAccessKeyName", strings.Replace(hub, "SharedAccessKeyName=listen;", "", 1))
	cs("has no SharedAccessKey;", "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen")
	cs("has a SharedAccessSignature (a token)", "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessSignature=SharedAccessSignature sr=x&sig="+key)
	cs("is the connection string of a storage account", "DefaultEndpointsProtocol=https;AccountName=contoso;AccountKey="+key+";EndpointSuffix=core.windows.net")
	cs("is the connection string of an IoT Hub", "HostName=contoso.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey="+key)
	cs("has an Endpoint that is not of the form sb://", strings.Replace(hub, "sb://", "https://", 1))
	cs("has an Endpoint that is not of the form sb://", strings.Replace(hub, "sb://", "", 1))
	cs("has an Endpoint with a path; the hub belongs in EntityPath", strings.Replace(hub, ".net/", ".net/alerts", 1))
	cs("has an Endpoint with port 5671", strings.Replace(hub, ".net/", ".net:5671/", 1))
	cs("has an Endpoint in privatelink", strings.Replace(hub, "servicebus", "privatelink.servicebus", 1))
	cs("has an Endpoint without a domain; it should be sb://contoso.servicebus.windows.net/", strings.Replace(hub, ".servicebus.windows.net", "", 1))
	cs("has an EntityPath that cannot be the name of a hub", hub+"!")
	cs("looks like an environment variable that Fluent Bit has not replaced", "${EVENTHUB}")

	f("eventhub.auth \"entra\": signs in with Entra ID: remove eventhub.connection_string", "connection_string", hub, "auth", "entra", "brokers", "contoso.servicebus.windows.net", "hubs", "alerts")
	f("eventhub.brokers: is not set; with Entra ID it names the namespace", "auth", "managed_identity", "hubs", "alerts")
	f("eventhub.hubs: is not set; list the hubs", "auth", "managed_identity", "brokers", "contoso.servicebus.windows.net")
	f("eventhub.auth \"client_secret\": is client_secret, which needs its secret", "auth", "client_secret", "brokers", "contoso.servicebus.windows.net", "hubs", "alerts", "azure.tenant_id", "t", "azure.client_id", "c")
	f("eventhub.auth \"entr\": is none of connection_string, entra", "connection_string", hub, "auth", "entr")
	f("eventhub.connection_string: is not set; copy it", "hubs", "alerts")
	f("eventhub.hubs: is not set, and the connection string is for the whole namespace", "connection_string", namespace)
	f(`"insights/logs" cannot be the name of a hub`, "connection_string", namespace, "hubs", "alerts,insights/logs")
	f("is not an address; write host or host:port", "connection_string", hub, "brokers", "sb://contoso.servicebus.windows.net/")
	f("has the port of another protocol (AMQP); remove it for 9093", "connection_string", hub, "brokers", "contoso.servicebus.windows.net:5671")
	f("eventhub.hubs \"\\\"alerts\\\"\": is in quotes; remove them", "connection_string", namespace, "hubs", `"alerts"`)
	f("has no valid port", "connection_string", hub, "brokers", "contoso:port")
	f("is longer than 256 characters", "connection_string", hub, "group", strings.Repeat("g", 257))
	f("is none of latest, earliest and an RFC 3339 time", "connection_string", hub, "start", "lastest")
	f("eventhub.tls \"off\": without TLS the connection string would cross the network to contoso.servicebus.windows.net:9092 in the clear", "connection_string", hub, "tls", "off")
	f("eventhub.tls: without TLS", "connection_string", emulator, "hubs", "alerts", "brokers", "eventhubs:9092")
	f("eventhub.tls \"of\": is neither on nor off", "connection_string", hub, "tls", "of")
	f("no such file or directory; give the path of a file", "connection_string", hub, "ca_file", "/nowhere/ca.pem")
	f("has no certificate in PEM form", "connection_string", hub, "ca_file", empty)
}

// Several mistakes are reported at once.
func TestReadConfigAllMistakes(t *testing.T) {
	_, _, err := read("connection_string", "Endpoint", "start", "now", "hubs", "a/b", "ca_file", "/nowhere")
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != 4 {
		t.Errorf("%d mistakes are told, want 4: %v", n, err)
	}
}

// The keys of the settings stay clear of those that Fluent Bit takes for itself.
func TestSettingsKeys(t *testing.T) {
	var keys []string
	for _, s := range eventhub.Settings {
		if !strings.HasPrefix(s.Key, "eventhub.") || s.Doc == "" || !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("setting %+v", s)
		}
		keys = append(keys, s.Key)
	}
	for _, k := range []string{"connection_string", "brokers", "hubs", "group", "start", "tls", "ca_file"} {
		if !slices.Contains(keys, "eventhub."+k) {
			t.Errorf("there is no eventhub.%s", k)
		}
	}
}
