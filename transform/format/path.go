package format

import "bytes"

// baseName returns the last part of a path of Windows or POSIX, or the whole of a bare name.
func baseName(path []byte) []byte { return path[lastSeparator(path)+1:] }

// lastSeparator is where the last separator of a path is, or -1.
func lastSeparator(path []byte) int {
	i := len(path) - 1
	for i >= 0 && path[i] != '\\' && path[i] != '/' {
		i--
	}
	return i
}

// directory returns a path without its last part and the separator before that; nil for a bare
// name. The root of a drive or of a file system keeps its separator.
func directory(path []byte) []byte {
	at := lastSeparator(path)
	switch {
	case at < 0:
		return nil
	case at == 0, at == 2 && path[1] == ':':
		return path[:at+1]
	}
	return path[:at]
}

// extension returns the part of a file's name behind the last dot. It is nil without a dot, and for
// a name that begins with its only dot.
func extension(name []byte) []byte {
	at := bytes.LastIndexByte(name, '.')
	if at <= 0 || at == len(name)-1 {
		return nil
	}
	return name[at+1:]
}

// appendPath appends the path of the file name in folder. Defender's FolderPath is the folder in
// some tables and records and the whole path in others. If its last part is name already, in any
// case, it is appended unchanged. Either may be empty.
func appendPath(dst, folder, name []byte) []byte {
	switch {
	case len(folder) == 0:
		return append(dst, name...)
	case len(name) == 0 || endsInName(folder, name):
		return append(dst, folder...)
	}
	dst = append(dst, folder...)
	switch last := folder[len(folder)-1]; {
	case last == '\\' || last == '/':
	case bytes.IndexByte(folder, '\\') < 0 && bytes.IndexByte(folder, '/') >= 0:
		dst = append(dst, '/')
	default:
		dst = append(dst, '\\')
	}
	return append(dst, name...)
}

// endsInName reports whether the last part of a path is name, in any case.
func endsInName(path, name []byte) bool {
	at := len(path) - len(name)
	return at >= 0 && (at == 0 || isSeparator(path[at-1])) && sameFold(path[at:], name) && lastSeparator(name) < 0
}

func isSeparator(c byte) bool { return c == '\\' || c == '/' }

// pathSystem names the family of systems of a path, in the words of ECS's host.os.type: windows,
// macos, linux. It is "" where the path does not show it, as for a bare name and a URL.
func pathSystem(path []byte) string {
	switch {
	case len(path) == 0:
		return ""
	case path[0] == '\\', len(path) >= 3 && isLetter(path[0]) && path[1] == ':' && (path[2] == '\\' || path[2] == '/'):
		return "windows"
	case path[0] != '/':
		return ""
	}
	for _, root := range [...]string{"/Applications", "/System", "/Library", "/Users", "/private", "/opt/homebrew", "/Volumes"} {
		if rest, ok := bytes.CutPrefix(path, []byte(root)); ok && (len(rest) == 0 || rest[0] == '/') {
			return "macos"
		}
	}
	return "linux"
}

// platformSystem names the family of an OSPlatform such as Windows10, WindowsServer2022, macOS,
// Linux, iOS, in the same words. It is "" for an unknown one.
func platformSystem(platform []byte) string {
	switch {
	case containsFold(platform, "windows"):
		return "windows"
	case containsFold(platform, "macos"), containsFold(platform, "mac os"), equalFold(platform, "osx"):
		return "macos"
	case containsFold(platform, "android"):
		return "android"
	case hasPrefixFold(platform, "ios"), hasPrefixFold(platform, "ipados"):
		return "ios"
	}
	for _, word := range [...]string{"linux", "ubuntu", "centos", "debian", "redhat", "rhel", "suse", "fedora"} {
		if containsFold(platform, word) {
			return "linux"
		}
	}
	return ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
