package format

import "net/netip"

// direction: which side of a connection the device is.
type direction uint8

const (
	directionUnknown  direction = iota
	directionInbound            // the remote side began it
	directionOutbound           // the device began it
)

// connectionDirection tells the direction of a row about a connection. told is
// AdditionalFields.direction, In or Out, and counts first. Else the ActionType has it: a report of
// several connections has more behind it. A connection that was only found or inspected has no
// direction, and neither has a port that was opened.
func connectionDirection(action, told []byte) direction {
	switch {
	case equalFold(told, "in"), equalFold(told, "inbound"):
		return directionInbound
	case equalFold(told, "out"), equalFold(told, "outbound"):
		return directionOutbound
	case hasPrefixFold(action, "inbound"), hasPrefixFold(action, "firewallinbound"):
		return directionInbound
	case hasPrefixFold(action, "firewalloutbound"):
		return directionOutbound
	}
	for _, begun := range [...]string{"connectionsuccess", "connectionfailed", "connectionrequest", "connectionattempt"} {
		if hasPrefixFold(action, begun) {
			return directionOutbound
		}
	}
	return directionUnknown
}

// parseIP reads an address without a zone. ok is false for anything else: an empty text, host:port,
// a list. mapped is true for ::ffff:1.2.3.4, which is returned as the IPv4 address that it is.
func parseIP(b []byte) (ip netip.Addr, mapped, ok bool) {
	if len(b) < 2 || len(b) > 45 {
		return netip.Addr{}, false, false
	}
	separators := 0
	for _, c := range b {
		switch {
		case c == '.' || c == ':':
			separators++
		case !isDigit(c) && (lowerByte(c) < 'a' || lowerByte(c) > 'f'):
			return netip.Addr{}, false, false
		}
	}
	if separators < 2 {
		return netip.Addr{}, false, false // ParseAddr's error would be an allocation
	}
	ip, err := netip.ParseAddr(view(b))
	if err != nil {
		return netip.Addr{}, false, false
	}
	return ip.Unmap(), ip.Is4In6(), true
}

// isIPv4 reports whether parseIP reads a text as four numbers with dots, as it reads most.
func isIPv4(b []byte) bool {
	numbers, digits, number := 0, 0, 0
	for _, c := range b {
		switch d := int(c) - '0'; {
		case c == '.':
			if digits == 0 {
				return false
			}
			numbers++
			digits, number = 0, 0
		case d < 0 || d > 9 || digits > 0 && number == 0: // no zero in front
			return false
		default:
			digits++
			if number = 10*number + d; number > 255 {
				return false
			}
		}
	}
	return numbers == 3 && digits > 0
}

// appendMAC appends a hardware address as ECS and RFC 7042 write it, 00-15-5D-01-02-03. It takes
// colons, dashes, dots and none; ok is false for anything else, and then nothing is appended.
func appendMAC(dst, b []byte) (_ []byte, ok bool) {
	from, digits := len(dst), 0
	for _, c := range b {
		switch low := lowerByte(c); {
		case isDigit(c) || 'a' <= low && low <= 'f':
			if digits > 0 && digits%2 == 0 {
				dst = append(dst, '-')
			}
			dst = appendUpper(dst, []byte{c})
			digits++
		case c == ':' || c == '-' || c == '.':
		default:
			return dst[:from], false
		}
	}
	if digits != 12 && digits != 16 {
		return dst[:from], false
	}
	return dst, true
}

// protocolWord splits Defender's Protocol: the transport in ECS's words (tcp, udp, icmp), or an
// application protocol such as ntlm or kerberos, as lower-case constants. Both are empty for a word
// that is neither: the caller writes that unchanged.
func protocolWord(b []byte) (transport, application string) {
	switch {
	case hasPrefixFold(b, "tcp"):
		return "tcp", ""
	case hasPrefixFold(b, "udp"):
		return "udp", ""
	case hasPrefixFold(b, "icmp"):
		return "icmp", ""
	}
	for _, word := range [...]string{"ntlm", "kerberos", "negotiate", "ldap", "dns", "http", "https", "ssl", "tls", "ftp", "ssh", "smtp", "smb", "rdp", "samr"} {
		if equalFold(b, word) {
			return "", word
		}
	}
	return "", ""
}

// inspectedProtocol names the application protocol in an ActionType of network inspection, such as
// DnsConnectionInspected; "" if it names none.
func inspectedProtocol(action []byte) string {
	if !hasSuffixFold(action, "connectioninspected") {
		return ""
	}
	for _, word := range [...]string{"dns", "http", "ssl", "ftp", "ssh", "smtp", "icmp", "ntlm", "kerberos", "smb", "rdp", "ldap"} {
		if hasPrefixFold(action, word) {
			return word
		}
	}
	return ""
}
