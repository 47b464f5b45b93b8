package format

import (
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strconv"
	"testing"
)

func TestArguments(t *testing.T) {
	for line, want := range map[string][]string{
		``:                                  nil,
		"  \t":                              nil,
		`cmd.exe`:                           {`cmd.exe`},
		`cmd.exe /c  dir`:                   {`cmd.exe`, `/c`, `dir`},
		`"C:\Program Files\a b.exe" -x "y"`: {`C:\Program Files\a b.exe`, `-x`, `y`},
		`a "" b`:                            {`a`, ``, `b`},
		`a "b""c" d`:                        {`a`, `b"c d`},
		`a "b "" c d`:                       {`a`, `b "`, `c`, `d`},
		`a """b c""" d`:                     {`a`, `"b`, `c"`, `d`},
		`cmd /c ""C:\a b\c.bat" x"`:         {`cmd`, `/c`, `C:\a`, `b\c.bat x`},
		`a b\"c d`:                          {`a`, `b"c`, `d`},
		`a "b\\" c`:                         {`a`, `b\`, `c`},
		`a "b\\\" c"`:                       {`a`, `b\" c`},
		`a \\server\share`:                  {`a`, `\\server\share`},
		`a x="y z"w v`:                      {`a`, `x=y zw`, `v`},
		`a "never closed \`:                 {`a`, `never closed \`},
		"a\r\nb c":                          {"a\r\nb", `c`},
		`a \`:                               {`a`, `\`},
	} {
		var got []string
		var buf []byte
		for rest := []byte(line); ; {
			arg, after, b, ok := nextArgument(buf, rest)
			if !ok {
				break
			}
			got, rest, buf = append(got, string(arg)), after, b
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ folder, name, path, dir, base, ext, system string }{
		{`C:\Windows\System32`, `cmd.exe`, `C:\Windows\System32\cmd.exe`, `C:\Windows\System32`, `cmd.exe`, `exe`, "windows"},
		{`C:\Windows\System32\CMD.EXE`, `cmd.exe`, `C:\Windows\System32\CMD.EXE`, `C:\Windows\System32`, `CMD.EXE`, `EXE`, "windows"},
		{`C:\`, `a.txt`, `C:\a.txt`, `C:\`, `a.txt`, `txt`, "windows"},
		{`\Device\HarddiskVolume3\x`, `y`, `\Device\HarddiskVolume3\x\y`, `\Device\HarddiskVolume3\x`, `y`, ``, "windows"},
		{`/usr/bin`, `curl`, `/usr/bin/curl`, `/usr/bin`, `curl`, ``, "linux"},
		{`/Users/x/.zshrc`, `.zshrc`, `/Users/x/.zshrc`, `/Users/x`, `.zshrc`, ``, "macos"},
		{`/Systematic`, `a.tar.gz`, `/Systematic/a.tar.gz`, `/Systematic`, `a.tar.gz`, `gz`, "linux"},
		{`/`, `init`, `/init`, `/`, `init`, ``, "linux"},
		{``, `cmd.exe`, `cmd.exe`, ``, `cmd.exe`, `exe`, ""},
		{`x`, ``, `x`, ``, `x`, ``, ""},
		{``, ``, ``, ``, ``, ``, ""},
		{``, `dot.`, `dot.`, ``, `dot.`, ``, ""},
	} {
		path := appendPath(nil, []byte(c.folder), []byte(c.name))
		base := baseName(path)
		if got := [...]string{string(path), string(directory(path)), string(base), string(extension(base)), pathSystem(path)}; got != [...]string{c.path, c.dir, c.base, c.ext, c.system} {
			t.Errorf("%q, %q: %q", c.folder, c.name, got)
		}
	}
}

func TestPlatform(t *testing.T) {
	for platform, want := range map[string]string{
		"Windows11": "windows", "WindowsServer2022": "windows", "macOS": "macos", "Linux": "linux", "Ubuntu": "linux", "iOS": "ios",
		"iPadOS": "ios", "Android": "android", "unknown": "", "": "", "WindowsPhone": "windows",
	} {
		if got := platformSystem([]byte(platform)); got != want {
			t.Errorf("%s: %q, want %q", platform, got, want)
		}
	}
}

func TestRegistry(t *testing.T) {
	for _, c := range []struct{ key, value, hive, below, path string }{
		{`HKEY_LOCAL_MACHINE\SOFTWARE\x`, `v`, `HKLM`, `SOFTWARE\x`, `HKLM\SOFTWARE\x\v`},
		{`HKEY_CURRENT_USER\S-1-5-21-1\Run`, ``, `HKCU`, `S-1-5-21-1\Run`, `HKCU\S-1-5-21-1\Run`},
		{`hkey_users\x`, `v`, `HKU`, `x`, `HKU\x\v`},
		{`HKLM\x`, ``, `HKLM`, `x`, `HKLM\x`},
		{`hklm\x`, `v`, `HKLM`, `x`, `HKLM\x\v`},
		{`Hkcu\x`, ``, `HKCU`, `x`, `HKCU\x`},
		{`HKEY_CLASSES_ROOT`, ``, `HKCR`, ``, `HKCR`},
		{`HKEY_CURRENT_CONFIG\y`, ``, `HKCC`, `y`, `HKCC\y`},
		{`\REGISTRY\MACHINE\x`, `v`, ``, `\REGISTRY\MACHINE\x`, `\REGISTRY\MACHINE\x\v`},
		{``, `v`, ``, ``, `v`},
	} {
		hive, below := splitHive([]byte(c.key))
		path := appendRegistryPath([]byte("before"), hive, below, []byte(c.value)) // as in a sheet's buffer
		if hive != c.hive || string(below) != c.below || string(path) != "before"+c.path {
			t.Errorf("%s %s: %q %q %q", c.key, c.value, hive, below, path)
		}
	}
	for action, want := range map[string]string{
		"RegistryValueSet": "SetValue", "RegistryKeyCreated": "CreateKey", "RegistryKeyDeleted": "DeleteKey", "RegistryValueDeleted": "DeleteValue",
		"RegistryKeyRenamed": "RenameKey", "Other": "",
	} {
		if got := sysmonEventType([]byte(action)); got != want {
			t.Errorf("%s: %q, want %q", action, got, want)
		}
	}
}

func TestURL(t *testing.T) {
	for text, want := range map[string][8]string{
		`https://user:pass@a.example:8443/p/q.html?x=1#top`: {"https", "user", "pass", "a.example", "8443", "/p/q.html", "x=1", "top"},
		`http://a.example`:             {"http", "", "", "a.example", "0", "", "", ""},
		`a.example`:                    {"", "", "", "a.example", "0", "", "", ""},
		`a.example:443`:                {"", "", "", "a.example", "443", "", "", ""},
		`a.example/x`:                  {"", "", "", "a.example", "0", "/x", "", ""},
		`localhost/x`:                  {"", "", "", "localhost", "0", "/x", "", ""},
		`http://[2001:db8::1]:8080/`:   {"http", "", "", "2001:db8::1", "8080", "/", "", ""},
		`2001:db8::1`:                  {"", "", "", "2001:db8::1", "0", "", "", ""},
		`https://a.example?q=http://b`: {"https", "", "", "a.example", "0", "", "q=http://b", ""},
		`hxxps://a.example/`:           {"hxxps", "", "", "a.example", "0", "/", "", ""},
		`http://bücher.example/`:       {"http", "", "", "bücher.example", "0", "/", "", ""},
		`https://a.example:/`:          {"https", "", "", "a.example", "0", "/", "", ""},
		``:                             {},
		`user@a.example`:               {},
		`no url at all`:                {},
		`http://a.example:99999/`:      {},
		`word`:                         {},
		`C:\x`:                         {},
		`http://`:                      {},
		`https://a%20b/`:               {},
	} {
		u, ok := splitURL([]byte(text))
		got := [8]string{string(u.scheme), string(u.username), string(u.password), string(u.domain), itoa(u.port), string(u.path), string(u.query), string(u.fragment)}
		if !ok {
			got = [8]string{}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestDirection(t *testing.T) {
	for _, c := range []struct {
		action, told string
		want         direction
	}{
		{"ConnectionSuccess", "", directionOutbound},
		{"ConnectionSuccess", "In", directionInbound},
		{"InboundConnectionAccepted", "", directionInbound},
		{"InboundConnectionAccepted", "Out", directionOutbound},
		{"ConnectionFound", "", directionUnknown},
		{"DnsConnectionInspected", "", directionUnknown},
		{"ConnectionAcknowledged", "sideways", directionUnknown},
		{"ListeningConnectionCreated", "", directionUnknown},
		{"connectionfailed", "", directionOutbound},
		{"ConnectionSuccessAggregatedReport", "", directionOutbound},
		{"FirewallInboundConnectionToAppBlocked", "", directionInbound},
		{"FirewallOutboundConnectionBlocked", "", directionOutbound},
	} {
		if got := connectionDirection([]byte(c.action), []byte(c.told)); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestIP(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:DB8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "::1": "::1",
		"": "", "-": "", "::1%12": "", "192.0.2.1:443": "", "192.0.2.1,192.0.2.2": "", "192.0.2": "", "1.2.3.4.5": "", "[::1]": "", "fe80": "", "::1 ": "",
		"::ffff:1.2.3.4:5": "", "192.0.2.256": "", "..": "", "1:2:3:4:5:6:7:8:9": "",
	} {
		ip, mapped, ok := parseIP([]byte(text))
		if got := ip.String(); ok && got != want || ok != (want != "") || mapped != (text == "::ffff:192.0.2.1") {
			t.Errorf("%s: %s %t %t", text, got, mapped, ok)
		}
	}
}

func TestMAC(t *testing.T) {
	for text, want := range map[string]string{
		"00:15:5d:01:02:0a": "00-15-5D-01-02-0A", "00-15-5D-01-02-0A": "00-15-5D-01-02-0A", "00155d01020a": "00-15-5D-01-02-0A",
		"0015.5d01.020a": "00-15-5D-01-02-0A", "": "", "00:15": "", "00:15:5d:01:02:0g": "",
	} {
		if got, ok := appendMAC(nil, []byte(text)); string(got) != want || ok != (want != "") {
			t.Errorf("%s: %s %t", text, got, ok)
		}
	}
}

func TestProtocol(t *testing.T) {
	for text, want := range map[string][2]string{
		"Tcp": {"tcp", ""}, "TcpV4": {"tcp", ""}, "UdpV6": {"udp", ""}, "Icmp": {"icmp", ""}, "NTLM": {"", "ntlm"}, "Kerberos": {"", "kerberos"},
		"UnixSocketStream": {}, "": {},
	} {
		if transport, application := protocolWord([]byte(text)); [2]string{transport, application} != want {
			t.Errorf("%s: %q %q", text, transport, application)
		}
	}
	for action, want := range map[string]string{"DnsConnectionInspected": "dns", "SslConnectionInspected": "ssl", "ConnectionInspected": "", "DnsQueryResponse": ""} {
		if got := inspectedProtocol([]byte(action)); got != want {
			t.Errorf("%s: %q", action, got)
		}
	}
}

func TestTechnique(t *testing.T) {
	for text, want := range map[string][3]string{
		"PowerShell (T1059.001)": {"PowerShell", "T1059.001", "T1059"},
		"Phishing(T1566)":        {"Phishing", "T1566", "T1566"},
		"A (b) (T1003)":          {"A (b)", "T1003", "T1003"},
		"T1003":                  {}, "(T1003)": {}, "X (T)": {}, "X (T1.)": {}, "X (T1.2.3)": {}, "X (TA0001)": {}, "": {}, "X (T1003) y": {}, "X (T.1)": {},
	} {
		name, id, parent, ok := splitTechnique([]byte(text))
		got := [3]string{string(name), string(id), string(id[:parent])}
		if got != want || ok != (want[1] != "") {
			t.Errorf("%s: %q %t", text, got, ok)
		}
	}
	for category, want := range map[string]string{"InitialAccess": "Initial Access TA0001", "Command and Control": "Command and Control TA0011", "Malware": " ", "": " "} {
		if name, id := tacticOf([]byte(category)); name+" "+id != want {
			t.Errorf("%s: %s %s", category, name, id)
		}
	}
}

func TestAccount(t *testing.T) {
	for upn, want := range map[string][2]string{"a@b.example": {"a", "b.example"}, "a@b@c": {"a@b", "c"}, "a": {}, "@b": {}, "a@": {}, "": {}} {
		user, domain, ok := splitUPN([]byte(upn))
		if got := [2]string{string(user), string(domain)}; got != want || ok != (want[0] != "") {
			t.Errorf("%s: %q %t", upn, got, ok)
		}
	}
	if !isAuthority([]byte("NT Authority")) || isAuthority([]byte("CORP")) || !isSystemSID([]byte("S-1-5-18")) || isSystemSID([]byte("S-1-5-21-18")) {
		t.Error("whose account")
	}
}

func TestProcessRole(t *testing.T) {
	for _, c := range []struct {
		table, action string
		own           bool
		want          role
	}{
		{"DeviceProcessEvents", "ProcessCreated", true, initiatorIsParent},
		{"CloudProcessEvents", "", false, initiatorIsParent},
		{"DeviceEvents", "ProcessCreatedUsingWmiQuery", true, initiatorIsParent},
		{"DeviceEvents", "UsbDriveMounted", false, initiatorIsProcess},
		{"DeviceEvents", "OpenProcessApiCall", true, initiatorIsProcess},
		{"DeviceEvents", "DnsQueryResponse", true, initiatorIsProcess},
		{"DeviceEvents", "DriverLoad", true, initiatorIsProcess},
		{"DeviceFileEvents", "FileCreated", true, initiatorIsProcess},
	} {
		if got := processRole(c.table, []byte(c.action), c.own); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestElements(t *testing.T) {
	for text, want := range map[string][]string{
		`["192.0.2.1","a.example"]`: {"192.0.2.1", "a.example"},
		`[60.0,59.5]`:               {"60.0", "59.5"},
		`["a, b", 'c']`:             {"a, b", "c"},
		`192.0.2.1`:                 {"192.0.2.1"},
		`a, b`:                      {"a", "b"},
		`[]`:                        nil, ``: nil, `["open`: {"open"},
	} {
		var got []string
		for rest := []byte(text); ; {
			element, after, ok := nextElement(rest)
			if !ok {
				break
			}
			got, rest = append(got, string(element)), after
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]int64{"60": 60, "60.000000": 60, "0": 0, "59.5": -1, "": -1, "-1": -1, "1e3": -1, "99999999999": -1} {
		got, ok := wholeSeconds([]byte(text))
		if ok && got != want || ok != (want >= 0) {
			t.Errorf("%s: %d %t", text, got, ok)
		}
	}
}

func TestDate(t *testing.T) {
	for text, want := range map[string]struct{ ok, exact bool }{
		"2026-03-04T10:18:02.7654321Z": {true, true}, "2026-03-04T10:18:02Z": {true, true}, "2026-03-04T10:18:02": {true, true},
		"2026-03-04T10:18:02+02:00": {true, true}, "2026-03-04 10:18:02.5": {true, false}, "9999-12-31T23:59:59Z": {true, true},
		"0001-01-01T00:00:00": {}, "2026-02-29T00:00:00Z": {}, "2024-02-29T00:00:00Z": {true, true}, "2026-03-04T10:18:02.1234567890Z": {},
		"2026-03-04T10:18:02.Z": {}, "2026-03-04T10:18:02x": {}, "2026-03-04": {}, "": {}, "3/4/2026 10:18:02 AM": {}, "2026-13-04T10:18:02Z": {},
		"2026-03-04T24:18:02Z": {}, "2026-03-04T10:18:02+99:00": {}, "2026-03-04T10:18:60Z": {}, "2026-03-04T10:18:02z": {},
	} {
		if d, ok := splitDate([]byte(text)); ok != want.ok || ok && d.exact != want.exact {
			t.Errorf("%s: %+v %t", text, d, ok)
		}
		if got := isExact([]byte(text)); got != (want.ok && want.exact) {
			t.Errorf("%s: exact %t", text, got)
		}
	}
	for at := range len("2006-01-02T15:04:05.1234567Z") { // each byte of the usual form, as any other
		for c := range 256 {
			b := []byte("2006-01-02T15:04:05.1234567Z")
			b[at] = byte(c)
			if d, ok := splitDate(b); isExact(b) != (ok && d.exact) || isStamp(b) && b[27] != 'Z' {
				t.Errorf("%q: exact %t, want %t", b, isExact(b), ok && d.exact)
			}
		}
	}
}

func TestIsIPv4(t *testing.T) {
	check := func(text string) {
		t.Helper()
		ip, mapped, ok := parseIP([]byte(text))
		if got, want := isIPv4([]byte(text)), ok && !mapped && ip.Is4(); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
	for _, text := range []string{"0.0.0.0", "255.255.255.255", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.256", "01.2.3.4",
		"1.2.3.00", "1.2.3.4 ", "1.2.3.-4", "", "...", "1.2.3.99999999999999999999999999", "::1", "::ffff:1.2.3.4", "1.2.3.٤"} {
		check(text)
	}
	for at := range len("10.20.30.40") {
		for c := range 256 {
			b := []byte("10.20.30.40")
			b[at] = byte(c)
			check(string(b))
		}
	}
}

func TestEntityID(t *testing.T) {
	sum := sha1.Sum([]byte("\x004711|2026-03-04T10:18:02.760Z|aa11"))
	for start, want := range map[string]string{
		"2026-03-04T10:18:02.7609999Z": base64.StdEncoding.EncodeToString(sum[:]), "2026-03-04T10:18:02.76": base64.StdEncoding.EncodeToString(sum[:]),
		"": "", "2026-03-04T10:18:02.76+01:00": "",
	} {
		if got, ok := appendEntityID(nil, 4711, []byte(start), []byte("aa11")); string(got) != want || ok != (want != "") {
			t.Errorf("%s: %s, want %s", start, got, want)
		}
	}
	if got, ok := appendEntityID(nil, 1, []byte("2026-03-04T10:18:02Z"), nil); ok || len(got) > 0 {
		t.Errorf("without a device: %s", got)
	}
}

// Nothing here may cost an allocation: each of these runs for every record.
func TestValuesAllocateNothing(t *testing.T) {
	buf := make([]byte, 0, 1024)
	line, path, key := []byte(`"C:\a b\c.exe" -x "y z"`), []byte(`C:\Windows`), []byte(`HKEY_LOCAL_MACHINE\SOFTWARE`)
	url, ip, start := []byte(`https://a.example:8443/p`), []byte("2001:db8::1"), []byte("2026-03-04T10:18:02.7609999Z")
	if n := testing.AllocsPerRun(100, func() {
		b := buf[:0]
		for rest, ok := line, true; ok; {
			_, rest, b, ok = nextArgument(b, rest)
		}
		b = appendPath(b, path, []byte("cmd.exe"))
		hive, below := splitHive(key)
		b = appendRegistryPath(b[:0], hive, below, nil)
		splitURL(url)
		parseIP(ip)
		tacticOf(path)
		appendEntityID(b, 4711, start, ip)
		appendMAC(b, []byte("00:15:5d:01:02:0a"))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
