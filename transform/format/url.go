package format

import (
	"bytes"
	"strconv"
)

// urlParts are the parts of a URL: pieces of its text, with unchanged escapes. port is 0 if the
// text names none.
type urlParts struct {
	scheme, username, password, domain, path, query, fragment []byte
	port                                                      int
}

// splitURL splits the text of a URL. A bare host, as Defender writes it for TLS connections, with
// or without a port and a path, has no scheme. ok is false for any other text: an empty one, one
// with blanks, an impossible host. A defanged scheme (hxxp) is a scheme like any other.
func splitURL(text []byte) (u urlParts, ok bool) {
	if len(text) == 0 {
		return u, false
	}
	for _, c := range text {
		if c <= ' ' || c == 0x7f || c == '\\' || c == '"' || c == '<' || c == '>' {
			return urlParts{}, false
		}
	}
	rest := text
	if scheme, after, found := bytes.Cut(rest, []byte("://")); found && isScheme(scheme) {
		u.scheme, rest = scheme, after
	}
	rest, u.fragment, _ = bytes.Cut(rest, []byte{'#'})
	rest, u.query, _ = bytes.Cut(rest, []byte{'?'})
	host := rest
	if at := bytes.IndexByte(rest, '/'); at >= 0 {
		host, u.path = rest[:at], rest[at:]
	}
	if at := bytes.LastIndexByte(host, '@'); at >= 0 {
		if u.scheme == nil {
			return urlParts{}, false // an address of mail
		}
		u.username, u.password, _ = bytes.Cut(host[:at], []byte{':'})
		host = host[at+1:]
	}
	at := bytes.LastIndexByte(host, ':')
	if at >= 0 && at > bytes.LastIndexByte(host, ']') && (bytes.IndexByte(host, ':') == at || host[0] == '[') { // no bare IPv6
		if at+1 < len(host) {
			port, err := strconv.ParseUint(view(host[at+1:]), 10, 16)
			if err != nil {
				return urlParts{}, false
			}
			u.port = int(port)
		}
		host = host[:at]
	}
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if !isHost(host) || u.scheme == nil && len(u.path) == 0 && bytes.IndexByte(host, '.') < 0 && bytes.IndexByte(host, ':') < 0 {
		return urlParts{}, false
	}
	u.domain = host
	return u, true
}

// splitRequest splits the URL of an inspected request. target is a path, or a whole URL as a proxy
// gets it. host is of the header. A target that names a host has precedence (RFC 9112, 3.2.2).
func splitRequest(target, host []byte) (u urlParts) {
	if len(target) > 0 && target[0] == '/' {
		u.path, u.query, _ = bytes.Cut(target, []byte{'?'})
	} else {
		u, _ = splitURL(target)
	}
	if u.domain == nil {
		if h, ok := splitURL(host); ok && len(h.path) == 0 {
			u.domain, u.port = h.domain, h.port
		}
	}
	return u
}

func isScheme(b []byte) bool {
	if len(b) == 0 || !isLetter(b[0]) {
		return false
	}
	for _, c := range b {
		if !isLetter(c) && !isDigit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// isHost reports whether b can be a name or an address of a host. Names in other scripts come
// unencoded.
func isHost(b []byte) bool {
	if len(b) == 0 || len(b) > 255 || b[0] == '.' {
		return false
	}
	for _, c := range b {
		if !isLetter(c) && !isDigit(c) && c != '.' && c != '-' && c != '_' && c != ':' && c < 0x80 {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// withoutPrefix cuts what alerts have in front of some URLs.
func withoutPrefix(url []byte) []byte { return bytes.TrimPrefix(url, []byte("uri=")) }
