package blob

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// The ways to sign in that only storage accounts have; those of Entra ID are signin.Methods.
const (
	byConnectionString = "connection_string"
	bySAS              = "sas"
)

// Settings are the keys of the blob source.
var Settings = []input.Setting{
	{Key: "blob.connection_string", Kind: input.SecretText, Doc: "Connection string of the storage account, with its account key or a shared access signature."},
	{Key: "blob.account_url", Kind: input.Text, Doc: "Blob endpoint of the storage account, in place of a connection string, such as `https://account.blob.core.windows.net`."},
	{Key: "blob.sas_token", Kind: input.SecretText, Doc: "Shared access signature with the permissions read and list, or a whole SAS URL, for auth `sas`."},
	{Key: "blob.auth", Kind: input.Choice, Default: byConnectionString, Choices: append([]string{byConnectionString, bySAS}, signin.Methods...), Doc: "The way to sign in to the storage account. Entra ID needs the role Storage Blob Data Reader."},
	{Key: "blob.containers", Kind: input.List, Default: "insights-logs-advancedhunting-*", Doc: "Names or patterns (`*`) of the containers to read. The section waits for one that does not exist yet."},
	{Key: "blob.prefix", Kind: input.Text, Doc: "The beginning of the names of the blobs to read."},
	{Key: "blob.start", Kind: input.StartTime, Default: "latest", Doc: "The start in blobs without a stored position: `latest`, `earliest` or an RFC 3339 time."},
	{Key: "blob.lookback", Kind: input.Duration, Default: "48h", Doc: "The age up to which blobs may still grow. Polls look at the days of that time in turn, and a daily sweep at older blobs."},
	{Key: "blob.poll_interval", Kind: input.Duration, Default: "60s", Doc: "The time between two polls of a container. Each poll makes at most three billed list calls for a container and tenant."},
	{Key: "blob.workers", Kind: input.Number, Default: "8", Doc: "The number of blobs that are read at the same time."},
	{Key: "blob.shared", Kind: input.Text, Doc: "A container in which several machines or pods share the blobs and keep their positions. It must exist, and needs the role Storage Blob Data Contributor. `db` is then not needed."},
	{Key: "blob.shared_account_url", Kind: input.Text, Doc: "Blob endpoint of the account of `blob.shared`, if it is another one. It needs sign-in with Entra ID."},
	{Key: "blob.shards", Kind: input.Number, Default: "32", Doc: "The number of shares of the blobs with `blob.shared`, the same for all workers. More workers than shares have nothing to read."},
}

// Config has the settings of the source.
type Config struct {
	Auth             string // connection_string, sas or one of signin.Methods
	ConnectionString input.Secret
	AccountURL       string
	SAS              input.Secret // without "?"
	SignIn           signin.Config

	Containers   []string // names, or patterns of path.Match
	Prefix       string
	Start        input.Start
	Lookback     time.Duration
	PollInterval time.Duration
	Workers      int

	// FetchBytes bounds everything that the source holds: pieces that are being read, wait for
	// Fetch or were returned by it. A line that is larger than that is held alone.
	FetchBytes int64

	// LineLimit is the longest line, or value, that is handed on whole, at least a piece: see the
	// function of that name. 0 for 32 MB.
	LineLimit int

	// Shared names the container in which several workers share the blobs; "" for none. SharedURL
	// is its account, "" for that of the blobs. Shards is how many shares there are.
	Shared, SharedURL string
	Shards            int

	// Lease is how long a lease lasts that is not renewed, 0 for a minute. Tests have no time.
	Lease time.Duration

	// SetBack is called before events are read again that were given up: their lease was lost. They
	// are no repeats. May be nil.
	SetBack func()

	worker, agent string // what this process calls itself

	// WarmUp is the age up to which blobs of the containers that Warm names are read although Start
	// is Latest. The first alert needs the latest reports of devices.
	WarmUp time.Duration
	Warm   func(container string) bool // nil for none

	// Warmed is called once, from Fetch, when all that these blobs held at the start was returned
	// and worked on. It is not called while they cannot be listed or read. May be nil.
	Warmed func()

	// TailWait: an append blob counts as finished this long after its hour and its last change.
	// Then a last line without a newline is handed on. 0 for one hour: in steady state blobs freeze
	// within ten minutes of their hour.
	TailWait time.Duration
}

// ReadConfig reads the blob.* settings and notes every mistake in s. configured tells whether there
// are any: without them the section has no blob source.
func ReadConfig(s *input.Settings, id signin.Config) (cfg Config, configured bool) {
	for _, key := range []string{"blob.connection_string", "blob.account_url", "blob.sas_token", "blob.auth", "blob.containers"} {
		configured = configured || s.IsSet(key)
	}
	if !configured {
		return Config{}, false
	}
	cfg = Config{
		Auth:             s.Choice("blob.auth"),
		ConnectionString: s.Secret("blob.connection_string"),
		AccountURL:       s.Text("blob.account_url"),
		SAS:              s.Secret("blob.sas_token"),
		SignIn:           id,
		Containers:       s.List("blob.containers"),
		Prefix:           s.Text("blob.prefix"),
		Start:            s.Start("blob.start"),
		Lookback:         s.Duration("blob.lookback"),
		PollInterval:     s.Duration("blob.poll_interval"),
		Workers:          s.Number("blob.workers", 1, 64),
	}
	cfg.readSAS(s)
	if !s.IsSet("blob.auth") && cfg.SAS.IsSet() && !cfg.ConnectionString.IsSet() {
		cfg.Auth = bySAS
	}
	switch cfg.Auth {
	case byConnectionString:
		cfg.checkConnectionString(s)
	case bySAS:
		if !cfg.SAS.IsSet() {
			s.Reject("blob.auth", "is sas, which needs a shared access signature: set blob.sas_token or blob.sas_token_file")
		}
		if cfg.ConnectionString.IsSet() {
			s.Reject("blob.auth", "is sas: remove blob.connection_string")
		}
		cfg.checkAccountURL(s)
	default:
		if cfg.ConnectionString.IsSet() || cfg.SAS.IsSet() {
			s.Reject("blob.auth", "signs in with Entra ID: remove blob.connection_string and blob.sas_token, and set blob.account_url")
		}
		cfg.checkAccountURL(s)
		id.Check(s, "blob.auth", cfg.Auth)
	}
	for _, c := range cfg.Containers {
		if problem := containerProblem(c); problem != "" {
			s.Reject("blob.containers", fmt.Sprintf("%s: %s", c, problem))
		}
	}
	if strings.HasPrefix(cfg.Prefix, "/") {
		s.Reject("blob.prefix", "begins with a slash, which no blob's name does: remove it")
	}
	if cfg.Lookback < time.Hour || cfg.Lookback > 90*24*time.Hour {
		s.Reject("blob.lookback", "must be from 1h to 2160h (90 days); blobs of an hour grow for minutes after it, at most for two days")
	}
	if cfg.PollInterval < time.Second || cfg.PollInterval > time.Hour {
		s.Reject("blob.poll_interval", "must be from 1s to 1h")
	}
	if cfg.Shared = s.Text("blob.shared"); cfg.Shared != "" {
		cfg.checkShared(s)
	}
	return cfg, true
}

// checkShared reads the settings that go with blob.shared.
func (cfg *Config) checkShared(s *input.Settings) {
	cfg.SharedURL = strings.TrimSuffix(s.Text("blob.shared_account_url"), "/")
	cfg.Shards = s.Number("blob.shards", 1, maxShards)
	switch problem := containerProblem(cfg.Shared); {
	case isPattern(cfg.Shared):
		s.Reject("blob.shared", "is the name of one container, without patterns")
	case problem != "":
		s.Reject("blob.shared", problem)
	}
	for _, c := range cfg.Containers {
		if ok, _ := path.Match(c, cfg.Shared); ok {
			s.Reject("blob.shared", "is among blob.containers ("+c+"): workers write no events there; take another container")
		}
	}
	if cfg.SharedURL == "" {
		return
	}
	checkURL(s, "blob.shared_account_url", "", cfg.SharedURL)
	if cfg.Auth == byConnectionString || cfg.Auth == bySAS {
		s.Reject("blob.shared_account_url", "needs blob.auth with Entra ID: a key or a signature is good for one account")
	}
}

// readSAS takes a SAS URL apart, as the portal shows it, and a token that begins with "?".
func (cfg *Config) readSAS(s *input.Settings) {
	text := cfg.SAS.Reveal()
	switch {
	case text == "" || strings.HasPrefix(text, "${"): // noted already
		return
	case strings.Contains(text, "AccountName=") || strings.Contains(text, "Endpoint="):
		s.Reject("blob.sas_token", "is a connection string; set blob.connection_string to it")
		return
	case !strings.Contains(text, "sig="):
		s.Reject("blob.sas_token", "is no shared access signature (sv=...&sig=...): it has no sig; copy it as a whole")
		return
	}
	before, token, isURL := strings.Cut(text, "?")
	if !isURL {
		return
	}
	cfg.SAS = input.NewSecret(token)
	if before == "" {
		return
	}
	u, err := url.Parse(before)
	if err != nil || u.Host == "" || u.User != nil {
		s.Reject("blob.sas_token", "is neither a token (sv=...&sig=...) nor a SAS URL")
		return
	}
	if other, err := url.Parse(cfg.AccountURL); err == nil && other.Host != "" && !strings.EqualFold(other.Hostname(), u.Hostname()) {
		s.Reject("blob.sas_token", "is for "+u.Host+", and blob.account_url is another account: remove blob.account_url, or take the signature of that account")
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	account := u.Scheme + "://" + u.Host
	if web.IsLoopback(u.Hostname()) && parts[0] != "" { // an emulator has the account's name in the path
		account, parts = account+"/"+parts[0], parts[1:]
	}
	if cfg.AccountURL == "" {
		cfg.AccountURL = account
	}
	if len(parts) > 0 && parts[0] != "" && !s.IsSet("blob.containers") {
		cfg.Containers = parts[:1] // the signature is good for this container only
	}
}

func (cfg *Config) checkConnectionString(s *input.Settings) {
	const key = "blob.connection_string"
	if !cfg.ConnectionString.IsSet() {
		switch {
		case s.IsSet(key): // noted already
		case strings.Contains(cfg.AccountURL, "sig="):
			checkURL(s, "blob.account_url", "", cfg.AccountURL)
		default:
			s.Reject("blob.auth", "is connection_string, which is not set: set blob.connection_string, or another blob.auth with blob.account_url")
		}
		return
	}
	if strings.HasPrefix(cfg.ConnectionString.Reveal(), "${") {
		return // noted already
	}
	if cfg.AccountURL != "" {
		s.Reject("blob.account_url", "is in the connection string already: remove one of them")
	}
	if cfg.SAS.IsSet() {
		s.Reject("blob.sas_token", "is not used beside blob.connection_string: remove one of them")
	}
	parts, err := parseConnectionString(cfg.ConnectionString.Reveal())
	switch {
	case err != nil:
		s.Reject(key, err.Error())
	case parts["EntityPath"] != "" || strings.HasPrefix(parts["Endpoint"], "sb://"):
		s.Reject(key, "is the connection string of an Event Hub; take the storage account's, under Access keys")
	case misspeltPart(parts) != "":
		s.Reject(key, "has a part in other letters; write it "+misspeltPart(parts))
	case parts["AccountName"] == "" && parts["BlobEndpoint"] == "":
		s.Reject(key, "has neither AccountName nor BlobEndpoint; copy it as a whole from the storage account, under Access keys")
	case parts["AccountKey"] == "" && parts["SharedAccessSignature"] == "":
		s.Reject(key, "has neither AccountKey nor SharedAccessSignature; copy it as a whole from the storage account, under Access keys")
	case parts["AccountKey"] != "" && parts["AccountName"] == "":
		s.Reject(key, "has an AccountKey but no AccountName; copy it as a whole from the storage account, under Access keys")
	case parts["BlobEndpoint"] != "":
		checkURL(s, key, "its BlobEndpoint ", parts["BlobEndpoint"])
	case strings.EqualFold(parts["DefaultEndpointsProtocol"], "http"):
		s.Reject(key, "has DefaultEndpointsProtocol=http, which would send events and signatures in the clear; write https")
	}
}

// misspeltPart returns the name of a part that is written in other letters, or "". The SDK does not
// know it then.
func misspeltPart(parts map[string]string) string {
	for _, known := range [...]string{"DefaultEndpointsProtocol", "AccountName", "AccountKey", "EndpointSuffix", "BlobEndpoint", "SharedAccessSignature"} {
		for part := range parts {
			if part != known && strings.EqualFold(part, known) {
				return known
			}
		}
	}
	return ""
}

// parseConnectionString returns the parts. Errors never show the text.
func parseConnectionString(text string) (map[string]string, error) {
	parts := make(map[string]string)
	for part := range strings.SplitSeq(strings.Trim(text, "; \t\r\n"), ";") {
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("is not a connection string (Name=value;Name=value); copy it as a whole from the storage account, under Access keys")
		}
		parts[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return parts, nil
}

func (cfg *Config) checkAccountURL(s *input.Settings) {
	if cfg.AccountURL == "" {
		s.Reject("blob.auth", "needs to know the storage account: set blob.account_url to https://<account>.blob.core.windows.net")
		return
	}
	checkURL(s, "blob.account_url", "", cfg.AccountURL)
}

// checkURL holds an endpoint to the rules of web.CheckAddress.
func checkURL(s *input.Settings, key, what, text string) {
	u, err := url.Parse(text)
	switch problem := web.CheckAddress(text); {
	case err == nil && u.RawQuery != "":
		// The mistake is not noted under the key itself: its value would be shown.
		s.Reject("blob.sas_token", key+" carries a signature: put the text after the ? here, where it is never printed")
	case problem != "":
		s.Reject(key, what+problem)
	default:
		if problem := endpointProblem(u); problem != "" {
			s.Reject(key, what+problem)
		}
	}
}

// endpointProblem returns the mistake in an endpoint of Azure, or "". Others, such as an emulator's
// or a name of one's own, may look like anything.
func endpointProblem(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ".servicebus.") {
		return "is a namespace of Event Hubs; the storage account's is https://<account>.blob.core.windows.net"
	}
	_, service, _ := strings.Cut(host, ".")
	isAzure := strings.Contains(service, ".storage.azure.") || strings.Contains("."+service, ".core.")
	for _, other := range [...]struct{ label, name string }{{"dfs", "Data Lake"}, {"file", "file"}, {"queue", "queue"}, {"table", "table"}, {"web", "website"}} {
		if isAzure && slices.Contains(strings.Split(service, "."), other.label) {
			return "is the " + other.name + " endpoint; the blob endpoint of the same account is " + strings.Replace(host, "."+other.label+".", ".blob.", 1)
		}
	}
	if isAzure && strings.Trim(u.Path, "/") != "" {
		return "has a path, which belongs into blob.containers and blob.prefix; write https://" + u.Host
	}
	return ""
}

func containerProblem(name string) string {
	pattern := isPattern(name)
	if _, err := path.Match(name, ""); pattern && err != nil {
		return "is not a pattern; * stands for any letters, ? for one"
	}
	lower := strings.ToLower(name)
	wrong := func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '$' || pattern && strings.ContainsRune("*?[]^\\", r))
	}
	switch {
	case strings.ContainsAny(name, "/\\") && !pattern, strings.Contains(name, "/"):
		return "is not the name of a container; folders go into blob.prefix"
	case strings.ContainsFunc(lower, wrong), len(name) > 63, len(name) < 3 && !pattern:
		return "is not the name of a container: that has 3 to 63 lower-case letters, digits and -; separate names by commas"
	case lower != name:
		return "names of containers are in lower case"
	}
	return ""
}

func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }
