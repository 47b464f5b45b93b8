package format

import "bytes"

var hives = [...]struct{ name, short string }{
	{"hkey_local_machine", "HKLM"},
	{"hkey_current_user", "HKCU"},
	{"hkey_users", "HKU"},
	{"hkey_classes_root", "HKCR"},
	{"hkey_current_config", "HKCC"},
}

// splitHive splits a registry key as Defender writes it, HKEY_LOCAL_MACHINE\SOFTWARE\..., into the
// short name of its hive and the key below. A key that names no hive has none. Short names are
// taken, too, in any case.
func splitHive(key []byte) (hive string, below []byte) {
	root, below, _ := bytes.Cut(key, []byte{'\\'})
	for i := range hives {
		if h := &hives[i]; equalFold(root, h.name) || sameFold(root, bytesOf(h.short)) {
			return h.short, below
		}
	}
	return "", key
}

// appendRegistryPath appends hive\key\value. Empty parts are left out.
func appendRegistryPath(dst []byte, hive string, key, value []byte) []byte {
	from := len(dst)
	dst = append(dst, hive...)
	for _, part := range [...][]byte{key, value} {
		if len(part) == 0 {
			continue
		}
		if len(dst) > from {
			dst = append(dst, '\\')
		}
		dst = append(dst, part...)
	}
	return dst
}

// sysmonEventType names the action of a registry ActionType in the words of Sysmon's events 12 to
// 14, which Sigma rules ask for. It is "" if Sysmon has no word for it.
func sysmonEventType(action []byte) string {
	for i := range sysmonWords {
		if equalFold(action, sysmonWords[i].action) {
			return sysmonWords[i].word
		}
	}
	return ""
}

var sysmonWords = [...]struct{ action, word string }{
	{"registryvalueset", "SetValue"},
	{"registrykeycreated", "CreateKey"},
	{"registrykeydeleted", "DeleteKey"},
	{"registryvaluedeleted", "DeleteValue"},
	{"registrykeyrenamed", "RenameKey"},
}
