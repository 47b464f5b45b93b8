package format

// nextArgument returns the first argument of a command line and the rest behind it. ok is false at
// the end.
//
// The rules are those of Windows' CommandLineToArgvW, as in Elastic's integration, whose rules ask
// for arguments. Blanks and tabs separate, and quotes group. 2n backslashes before a quote are n
// backslashes, 2n+1 are n and a plain quote. Other backslashes are themselves. Two quotes inside
// quotes are a plain one and end the group: here newer C runtimes differ, which stay in it.
// (https://devblogs.microsoft.com/oldnewthing/20100917-00/?p=12833) A quote that is never closed
// reaches to the end. The first argument, the program, follows the same rules here: Defender shows
// command lines in which it is quoted, or a name without blanks.
//
// arg is a part of line, or where quotes had to be taken out, of the returned buffer, to which it
// was appended.
func nextArgument(buf, line []byte) (arg, rest, _ []byte, ok bool) {
	for len(line) > 0 && isBlank(line[0]) {
		line = line[1:]
	}
	if len(line) == 0 {
		return nil, nil, buf, false
	}
	end := 0
	for end < len(line) && line[end] != '"' && !isBlank(line[end]) {
		end++
	}
	if end == len(line) {
		return line, nil, buf, true
	}
	if line[end] != '"' {
		return line[:end], line[end:], buf, true
	}
	from, quoted := len(buf), false
	i := 0
	for i < len(line) && (quoted || !isBlank(line[i])) {
		switch line[i] {
		case '\\':
			n := i
			for n < len(line) && line[n] == '\\' {
				n++
			}
			count := n - i
			if n < len(line) && line[n] == '"' {
				plain := count%2 == 1
				count /= 2
				if plain {
					buf = append(buf, line[i:i+count]...)
					buf = append(buf, '"')
					i = n + 1
					continue
				}
			}
			buf = append(buf, line[i:i+count]...)
			i = n
		case '"':
			if quoted && i+1 < len(line) && line[i+1] == '"' {
				buf = append(buf, '"')
				i++
			}
			quoted = !quoted
			i++
		default:
			n := i + 1
			for n < len(line) && line[n] != '\\' && line[n] != '"' && (quoted || !isBlank(line[n])) {
				n++
			}
			buf = append(buf, line[i:n]...)
			i = n
		}
	}
	return buf[from:len(buf):len(buf)], line[i:], buf, true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
