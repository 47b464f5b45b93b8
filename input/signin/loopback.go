package signin

import (
	"net"
	"strings"
)

// IsLoopback reports whether host, a name or an address without port and brackets, is this machine. Only there may secrets and
// events go unencrypted, to an emulator. No name but localhost counts: what others resolve to is not known when settings
// are read, and may change.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
