package web

import (
	"net"
	"net/url"
	"strings"
)

// IsLoopback reports whether host is this machine. host is a name or an address without port and
// brackets. Only there may secrets and events go unencrypted, to an emulator. No name but localhost
// counts: what others resolve to is not known when settings are read, and may change.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// CheckAddress returns the mistake in the address of a service that gets a credential, or "". It
// must be https; plain http is for an emulator on this machine. It names a host and, perhaps, a
// path.
func CheckAddress(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return "is not an address such as https://host.example"
	case u.User != nil:
		return "holds a user or password; remove it, credentials have settings of their own"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "has something after its path (? or #); remove that"
	case u.Scheme == "https", u.Scheme == "http" && IsLoopback(u.Hostname()):
		return ""
	case u.Scheme == "http":
		return "is http, which would send events and credentials in the clear; write https"
	}
	return "must begin with https://"
}
