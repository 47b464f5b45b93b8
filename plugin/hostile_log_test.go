package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
)

// A server may quote a secret back as it came over the wire: escaped, in JSON, in quotes. And the
// line of the log quotes the whole once more.
func TestSecretsAreHiddenHoweverTheyAreSpelt(t *testing.T) {
	known := []input.Setting{{Key: "s", Kind: input.SecretText}}
	for _, secret := range []string{`pa"ss\word HUSH`, "käse geheim HUSH", "ab+cd/ef=?HUSH", "a<b>c&d HUSH", "HUSH~tilde.only"} {
		marshalled, _ := json.Marshal(secret)
		for _, spelt := range []string{
			secret, url.QueryEscape(secret), url.PathEscape(secret), percent.ReplaceAllStringFunc(url.QueryEscape(secret), strings.ToLower),
			string(marshalled), fmt.Sprintf("%q", secret), fmt.Sprintf("%q", string(marshalled)),
		} {
			q := newLogQueue(false)
			q.hide(secrets(func(string) string { return secret }, known))
			log := slog.New(q.handler(""))
			log.Error("server says: " + spelt)
			log.Error("sign in", "error", errors.New("server says: "+spelt))
			log.Error("sign in", "error", fmt.Errorf("it says %q", "bad secret "+spelt))
			for _, line := range drained(q) {
				if strings.Contains(line, "HUSH") || !strings.Contains(line, "[secret]") {
					t.Errorf("%q as %s: %s", secret, spelt, line)
				}
			}
		}
	}
}

// A token that a server quotes back is none of our settings, and need not stand behind "Bearer".
func TestTokensAreHidden(t *testing.T) {
	q := newLogQueue(false)
	slog.New(q.handler("")).Error("x", "error", errors.New("invalid token 'eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodXNoIn0.c2lnbmVk-HUSH_x', eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodXNoI..."))
	for _, line := range drained(q) {
		if strings.Contains(line, "eyJ") || strings.Contains(line, "HUSH") || !strings.Contains(line, "invalid token '[secret]'") {
			t.Error(line)
		}
	}
}
