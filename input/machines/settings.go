package machines

import (
	"net/url"
	"strings"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// Settings declares the keys of the machines API: how to sign in, and where it is.
var Settings = []input.Setting{
	{Key: "device_info.auth", Kind: input.Choice, Default: "off", Choices: append([]string{"off"}, signin.Methods...),
		Doc: "The way to sign in to the machines API, as the identity of the azure.* settings; off never asks it. The identity needs the permission Machine.Read.All of WindowsDefenderATP."},
	{Key: "device_info.api.cloud", Kind: input.Choice, Default: "auto", Choices: []string{"auto", "commercial", "gcc", "gcc_high"},
		Doc: "The Defender service of the tenant. auto is gcc_high where azure.cloud is usgov, and commercial otherwise. gcc_high is also for DoD."},
	{Key: "device_info.api.url", Kind: input.Text, Doc: "The API's address if it is not the service's own, such as https://eu.api.security.microsoft.com for a region."},
	{Key: "device_info.api.refresh", Kind: input.Duration, Default: "6h", Doc: "The time between two fetches of the whole list of devices, one call for 10,000 devices. 0 asks for single devices only."},
}

// place is where a service keeps its API, and the audience of its tokens
// (learn.microsoft.com/defender-endpoint/gov). That of the commercial one is not its host.
type place struct{ url, scope string }

var places = map[string]place{
	"commercial": {"https://api.security.microsoft.com", "https://api.securitycenter.microsoft.com/.default"},
	"gcc":        {"https://api-gcc.securitycenter.microsoft.us", "https://api-gcc.securitycenter.microsoft.us/.default"},
	"gcc_high":   {"https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us/.default"},
}

// Config is how to reach the machines API of one tenant.
type Config struct {
	Auth     string // off, or one of signin.Methods
	Identity signin.Config
	Tenant   string        // a GUID, in lower case
	URL      string        // without a final slash
	Scope    string        // the scope of its tokens
	Refresh  time.Duration // of the list of all devices; 0 for never
	Wait     time.Duration // what takes longer than that is too slow; 0 for nothing
}

// On tells whether there is an API to ask.
func (c Config) On() bool { return c.Auth != "off" }

// ReadConfig reads the settings for reaching the API as identity, and notes mistakes in s. wait:
// how long rows wait for an answer.
func ReadConfig(s *input.Settings, identity signin.Config, wait time.Duration) Config {
	c := Config{
		Auth:     s.Choice("device_info.auth"),
		Identity: identity,
		Tenant:   strings.ToLower(identity.TenantID),
		URL:      strings.TrimRight(s.Text("device_info.api.url"), "/"),
		Refresh:  s.Duration("device_info.api.refresh"),
		Wait:     wait,
	}
	service := s.Choice("device_info.api.cloud")
	if !c.On() {
		return c
	}
	identity.Check(s, "device_info.auth", c.Auth)
	if !isGUID(c.Tenant) {
		s.Reject("azure.tenant_id", "must be the id of the tenant whose devices are looked up, a GUID: records name their tenant by it")
	}
	if service == "auto" {
		service = "commercial"
		if identity.Cloud == "usgov" {
			service = "gcc_high"
		}
	}
	if service == "gcc_high" && identity.Cloud != "usgov" {
		s.Reject("device_info.api.cloud", "signs in at another host: set azure.cloud to usgov too")
	}
	c.Scope = places[service].scope
	if c.URL == "" {
		c.URL = places[service].url
	}
	if u, err := url.Parse(c.URL); web.CheckAddress(c.URL) != "" || err != nil || u.Path != "" {
		s.Reject("device_info.api.url", "is not an https address without a path, such as https://eu.api.security.microsoft.com")
	}
	if c.Refresh > 0 && c.Refresh < 10*time.Minute {
		s.Reject("device_info.api.refresh", "is less than 10m; the API allows 1,500 calls an hour in all")
	}
	return c
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}
