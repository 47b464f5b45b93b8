package blob_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/blob"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

func readConfig(set map[string]string) (blob.Config, bool, error) {
	s := input.NewSettings(func(k string) string { return set[k] }, append(append([]input.Setting(nil), blob.Settings...), signin.Settings...))
	cfg, configured := blob.ReadConfig(s, signin.Read(s))
	if cfg.SignIn.HTTP != nil {
		cfg.SignIn.HTTP.CloseIdleConnections()
	}
	return cfg, configured, s.Err()
}

const goodConnection = "DefaultEndpointsProtocol=https;AccountName=contoso;AccountKey=aW52ZW50ZWQ=;EndpointSuffix=core.windows.net"

func TestNotConfigured(t *testing.T) {
	if _, configured, err := readConfig(map[string]string{"blob.workers": "4"}); configured || err != nil {
		t.Errorf("configured %v, %v", configured, err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		want string // auth, URL, containers
	}{
		"connection string": {map[string]string{"blob.connection_string": goodConnection}, "connection_string  [insights-logs-advancedhunting-*]"},
		"SAS":               {map[string]string{"blob.account_url": "https://contoso.blob.core.windows.net", "blob.sas_token": "?sv=1&sig=x"}, "sas https://contoso.blob.core.windows.net [insights-logs-advancedhunting-*]"},
		"SAS URL of a container": {map[string]string{"blob.sas_token": "https://contoso.blob.core.windows.net/alerts?sv=1&sig=x"},
			"sas https://contoso.blob.core.windows.net [alerts]"},
		"SAS URL of an emulator": {map[string]string{"blob.sas_token": "http://127.0.0.1:10000/devstoreaccount1?sv=1&sig=x", "blob.containers": "$logs, b-*, [a-c]??, x\\*"},
			"sas http://127.0.0.1:10000/devstoreaccount1 [$logs b-* [a-c]?? x\\*]"},
		"an address of one's own": {map[string]string{"blob.auth": "entra", "blob.account_url": "https://storage.example/path"}, "entra https://storage.example/path [insights-logs-advancedhunting-*]"},
		"private address":         {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.privatelink.blob.core.windows.net/"}, "entra https://c.privatelink.blob.core.windows.net/ [insights-logs-advancedhunting-*]"},
		"zone":                    {map[string]string{"blob.auth": "entra", "blob.account_url": "https://file.z01.blob.storage.azure.net"}, "entra https://file.z01.blob.storage.azure.net [insights-logs-advancedhunting-*]"},
		"Entra": {map[string]string{"blob.auth": "managed_identity", "blob.account_url": "https://contoso.blob.core.usgovcloudapi.net"},
			"managed_identity https://contoso.blob.core.usgovcloudapi.net [insights-logs-advancedhunting-*]"},
	} {
		cfg, configured, err := readConfig(c.set)
		if got := fmt.Sprint(cfg.Auth, " ", cfg.AccountURL, " ", cfg.Containers); err != nil || !configured || got != c.want {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
		if strings.Contains(cfg.SAS.Reveal(), "?") {
			t.Errorf("%s: SAS keeps its question mark", name)
		}
	}
}

// Each mistake gives one message that names the setting and what to do, and no secret.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		want string
	}{
		"containers alone":     {map[string]string{"blob.containers": "abc"}, "set blob.connection_string, or another blob.auth"},
		"hub's string":         {map[string]string{"blob.connection_string": "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=secret1=;EntityPath=h"}, "is the connection string of an Event Hub"},
		"half a string":        {map[string]string{"blob.connection_string": "AccountName=contoso"}, "has neither AccountKey nor SharedAccessSignature"},
		"no string":            {map[string]string{"blob.connection_string": "secret1"}, "is not a connection string"},
		"http":                 {map[string]string{"blob.connection_string": strings.Replace(goodConnection, "=https", "=http", 1)}, "write https"},
		"http endpoint":        {map[string]string{"blob.connection_string": "AccountName=c;AccountKey=secret1;BlobEndpoint=http://blob.contoso.com/"}, "its BlobEndpoint is http"},
		"signature in the URL": {map[string]string{"blob.auth": "sas", "blob.sas_token": "sv=1&sig=x", "blob.account_url": "https://c.blob.core.windows.net/?sig=secret1"}, "blob.account_url carries a signature: put the text after the ? here"},
		"Data Lake":            {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.dfs.core.windows.net"}, "the blob endpoint of the same account is c.blob.core.windows.net"},
		"no account":           {map[string]string{"blob.auth": "entra"}, "set blob.account_url"},
		"Entra and a key":      {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.blob.core.windows.net", "blob.connection_string": goodConnection}, "remove blob.connection_string"},
		"no secret":            {map[string]string{"blob.auth": "client_secret", "blob.account_url": "https://c.blob.core.windows.net", "azure.tenant_id": "t", "azure.client_id": "c"}, "azure.client_secret"},
		"SAS without a token":  {map[string]string{"blob.auth": "sas", "blob.account_url": "https://c.blob.core.windows.net"}, "set blob.sas_token"},
		"misspelt auth":        {map[string]string{"blob.auth": "conection_string", "blob.connection_string": goodConnection}, "did you mean connection_string"},
		"folder as container":  {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "logs/folder"}, "folders go into blob.prefix"},
		"upper case":           {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "Logs"}, "in lower case"},
		"upper case pattern":   {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "AdvancedHunting-*"}, "in lower case"},
		"leading slash":        {map[string]string{"blob.connection_string": goodConnection, "blob.prefix": "/tenantId=1/"}, "begins with a slash"},
		"look-back":            {map[string]string{"blob.connection_string": goodConnection, "blob.lookback": "5m"}, "blob.lookback"},
		"poll":                 {map[string]string{"blob.connection_string": goodConnection, "blob.poll_interval": "0"}, "blob.poll_interval"},
		"start":                {map[string]string{"blob.connection_string": goodConnection, "blob.start": "lastest"}, "did you mean latest"},
		"key and signature":    {map[string]string{"blob.connection_string": goodConnection, "blob.sas_token": "sv=1&sig=secret1"}, "blob.sas_token: is not used beside blob.connection_string"},
		"signature and key":    {map[string]string{"blob.auth": "sas", "blob.sas_token": "https://c.blob.core.windows.net/?sv=1&sig=secret1", "blob.connection_string": goodConnection}, "remove blob.connection_string"},
		"quoted string":        {map[string]string{"blob.connection_string": `"` + goodConnection + `"`}, "blob.connection_string: is in quotes; remove them"},
		"quoted signature":     {map[string]string{"blob.account_url": "https://c.blob.core.windows.net", "blob.sas_token": `'sv=1&sig=secret1'`}, "blob.sas_token: is in quotes; remove them"},
		"variable":             {map[string]string{"blob.connection_string": "${BLOB}"}, "environment variable"},
		"other letters":        {map[string]string{"blob.connection_string": strings.ToLower(goodConnection)}, "has a part in other letters; write it DefaultEndpointsProtocol"},
		"half a signature":     {map[string]string{"blob.account_url": "https://c.blob.core.windows.net", "blob.sas_token": "sv=1&se=2030-01-01"}, "blob.sas_token: is no shared access signature"},
		"encoded signature":    {map[string]string{"blob.account_url": "https://c.blob.core.windows.net", "blob.sas_token": "sv%3D1%26sig%3Dsecret1"}, "blob.sas_token: is no shared access signature"},
		"string as signature":  {map[string]string{"blob.account_url": "https://c.blob.core.windows.net", "blob.sas_token": goodConnection}, "blob.sas_token: is a connection string"},
		"signature of another": {map[string]string{"blob.account_url": "https://c.blob.core.windows.net", "blob.sas_token": "https://d.blob.core.windows.net/?sv=1&sig=secret1"}, "is for d.blob.core.windows.net, and blob.account_url is another account"},
		"URL with a signature": {map[string]string{"blob.account_url": "https://c.blob.core.windows.net/?sv=1&sig=secret1"}, "blob.account_url carries a signature"},
		"Data Lake of US Gov":  {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.dfs.core.usgovcloudapi.net"}, "the blob endpoint of the same account is c.blob.core.usgovcloudapi.net"},
		"Data Lake of a zone":  {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.z01.dfs.storage.azure.net"}, "the blob endpoint of the same account is c.z01.blob.storage.azure.net"},
		"files":                {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.file.core.windows.net"}, "is the file endpoint; the blob endpoint"},
		"queues":               {map[string]string{"blob.connection_string": "BlobEndpoint=https://c.queue.core.windows.net;SharedAccessSignature=sig=secret1"}, "its BlobEndpoint is the queue endpoint"},
		"namespace as account": {map[string]string{"blob.auth": "entra", "blob.account_url": "https://ns.servicebus.windows.net"}, "is a namespace of Event Hubs"},
		"container in the URL": {map[string]string{"blob.auth": "entra", "blob.account_url": "https://c.blob.core.windows.net/logs/"}, "has a path, which belongs into blob.containers"},
		"address as container": {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "https://c.blob.core.windows.net/x"}, "folders go into blob.prefix"},
		"container and folder": {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "logs/tenantId=1"}, "folders go into blob.prefix"},
		"semicolon":            {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "abc;def"}, "separate names by commas"},
		"braces":               {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "logs-{a}"}, "separate names by commas"},
		"short name":           {map[string]string{"blob.connection_string": goodConnection, "blob.containers": "ab"}, "3 to 63"},
		"quoted container":     {map[string]string{"blob.connection_string": goodConnection, "blob.containers": `"abc"`}, "is in quotes"},
		"twice":                {map[string]string{"blob.connection_string": goodConnection, "blob.account_url": "https://c.blob.core.windows.net"}, "remove one of them"},
	} {
		_, _, err := readConfig(c.set)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 0 || strings.Contains(err.Error(), "secret1") {
			t.Errorf("%s: got %q, want one message with %q", name, fmt.Sprint(err), c.want)
		}
	}
}

func TestSharedConfig(t *testing.T) {
	base := map[string]string{"blob.auth": "managed_identity", "blob.account_url": "https://contoso.blob.core.windows.net", "blob.shared": "defender-workers"}
	cfg, _, err := readConfig(base)
	if err != nil || cfg.Shared != "defender-workers" || cfg.Shards != 32 || cfg.SharedURL != "" {
		t.Errorf("%q, %d shards, account %q, %v", cfg.Shared, cfg.Shards, cfg.SharedURL, err)
	}
	for _, c := range []struct{ key, value, want string }{
		{"blob.shared", "workers-*", "without patterns"},
		{"blob.shared", "defender/workers", "not the name of a container"},
		{"blob.shared", "insights-logs-advancedhunting-x", "is among blob.containers"},
		{"blob.shards", "0", "from 1 to 256"},
		{"blob.shards", "257", "from 1 to 256"},
		{"blob.shared_account_url", "http://other.blob.core.windows.net", "blob.shared_account_url"},
		{"blob.shared_account_url", "https://other.blob.core.windows.net", ""},
	} {
		set := map[string]string{c.key: c.value}
		for k, v := range base {
			if k != c.key {
				set[k] = v
			}
		}
		_, _, err := readConfig(set)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
	_, _, err = readConfig(map[string]string{"blob.connection_string": goodConnection, "blob.shared": "w", "blob.shared_account_url": "https://other.blob.core.windows.net"})
	if err == nil || !strings.Contains(err.Error(), "a key or a signature is good for one account") {
		t.Errorf("another account with a key: %v", err)
	}
}
