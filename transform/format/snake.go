package format

// snake appends a column's name in snake case: NetworkMessageId is network_message_id, SHA256
// sha256, OSPlatform os_platform.
func snake(dst, name []byte) []byte {
	for i, c := range name {
		upper := 'A' <= c && c <= 'Z'
		if upper && i > 0 {
			before := name[i-1]
			beforeUpper := 'A' <= before && before <= 'Z'
			afterLower := i+1 < len(name) && 'a' <= name[i+1] && name[i+1] <= 'z'
			if 'a' <= before && before <= 'z' || isDigit(before) || beforeUpper && afterLower {
				dst = append(dst, '_')
			}
		}
		dst = append(dst, lowerByte(c))
	}
	return dst
}
