package format

import "bytes"

// splitUPN splits user@domain. ok is false for a text with no @, or with nothing on one of its
// sides.
func splitUPN(upn []byte) (user, domain []byte, ok bool) {
	at := bytes.LastIndexByte(upn, '@')
	if at <= 0 || at == len(upn)-1 {
		return nil, nil, false
	}
	return upn[:at], upn[at+1:], true
}

// isAuthority reports whether an account's domain is one of Windows' own, which names no host and
// no domain.
func isAuthority(domain []byte) bool {
	for _, own := range [...]string{"nt authority", "nt service", "window manager", "font driver host", "builtin", "iis apppool", "nt virtual machine"} {
		if equalFold(domain, own) {
			return true
		}
	}
	return false
}

// isSystemSID reports whether a SID is that of LocalSystem, LocalService or NetworkService.
func isSystemSID(sid []byte) bool {
	switch string(sid) {
	case "S-1-5-18", "S-1-5-19", "S-1-5-20":
		return true
	}
	return false
}
