package machines

import (
	"strings"
	"testing"
	"time"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/signin"
)

func read(set map[string]string) (Config, error) {
	s := input.NewSettings(func(k string) string { return set[k] }, append(append([]input.Setting{}, Settings...), signin.Settings...))
	return ReadConfig(s, signin.Read(s), 2*time.Second), s.Err()
}

func TestConfig(t *testing.T) {
	secret := map[string]string{"device_info.auth": "client_secret", "azure.tenant_id": strings.ToUpper(tenant), "azure.client_id": "app", "azure.client_secret": "s3cret-value"}
	with := func(kv ...string) map[string]string {
		m := map[string]string{}
		for k, v := range secret {
			m[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	c, err := read(map[string]string{"azure.tenant_id": "for blobs"})
	if err != nil || c.On() {
		t.Errorf("off: %v, %v", c.On(), err)
	}
	for _, tt := range []struct {
		set        map[string]string
		url, scope string
	}{
		{with(), "https://api.security.microsoft.com", "https://api.securitycenter.microsoft.com/.default"},
		{with("device_info.api.cloud", "gcc"), "https://api-gcc.securitycenter.microsoft.us", "https://api-gcc.securitycenter.microsoft.us/.default"},
		{with("azure.cloud", "usgov"), "https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us/.default"},
		{with("device_info.api.url", "https://eu.api.security.microsoft.com/"), "https://eu.api.security.microsoft.com", "https://api.securitycenter.microsoft.com/.default"},
	} {
		c, err := read(tt.set)
		if err != nil || !c.On() || c.URL != tt.url || c.Scope != tt.scope || c.Tenant != tenant || c.Refresh != 6*time.Hour {
			t.Errorf("%v: %+v, %v", tt.set, c, err)
		}
	}
	for _, tt := range []struct {
		set  map[string]string
		want string
	}{
		{with("azure.client_secret", ""), "azure.client_secret"},
		{with("azure.tenant_id", "corp.example"), `azure.tenant_id "corp.example": must be the id of the tenant`},
		{with("device_info.api.url", "http://api.example"), "is not an https address"},
		{with("device_info.api.url", "https://api.example/api/machines"), "is not an https address without a path"},
		{with("device_info.api.url", "https://user:pass@api.example"), "is not an https address"},
		{with("device_info.api.cloud", "gcc_high"), "set azure.cloud to usgov too"},
		{with("device_info.api.refresh", "30s"), "is less than 10m"},
		{with("device_info.auth", "secret"), "device_info.auth"},
	} {
		_, err := read(tt.set)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("want %q, got %v", tt.want, err)
		}
	}
}
