package machines

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// Check asks the machines API for one device, which shows that it can be reached, that sign-in
// works and that the permission is there. It returns within half a minute; without an API to ask it
// finds nothing.
func Check(ctx context.Context, cfg Config) []input.Finding {
	if !cfg.On() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	f := input.Finding{What: "machines API " + cfg.URL}
	f.Err = check(ctx, cfg)
	if f.Err == nil {
		f.Detail = "signed in by " + cfg.Auth
	}
	return []input.Finding{f}
}

func check(ctx context.Context, cfg Config) error {
	u, err := url.Parse(cfg.URL + "/api/machines?$top=1")
	if err != nil {
		return fmt.Errorf("device_info.api.url: %w", err)
	}
	cred, err := cfg.Identity.Credential(cfg.Auth)
	if err != nil {
		return err
	}
	hc := web.Guard(cfg.Identity.HTTP, web.AtMost(lookupLimit))
	defer hc.CloseIdleConnections()
	a := &api{base: u, scope: cfg.Scope, http: hc, cred: cred, codes: make(map[int]uint64),
		newCredential: func() (azcore.TokenCredential, error) { return cfg.Identity.Credential(cfg.Auth) }}
	err = a.get(ctx, u, forPage, 20*time.Second, lookupLimit, func(b *bounded) error {
		_, err := io.Copy(io.Discard, b)
		return err
	})
	if isNotFound(err) {
		return nil // how the API says that the tenant has no devices
	}
	return err
}
