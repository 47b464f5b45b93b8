package ocsf

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
)

//go:embed tables.txt
var tablesText string

//go:embed actions.txt
var actionsText string

// Column of a table. Type is a letter: see tables.txt.
type Column struct {
	Name string
	Type byte
}

// Tables returns the documented tables and the columns of each.
func Tables() map[string][]Column {
	tables := make(map[string][]Column)
	for name, rest := range lines(tablesText) {
		for field := range strings.FieldsSeq(rest) {
			column, kind, _ := strings.Cut(field, ":")
			tables[name] = append(tables[name], Column{column, kind[0]})
		}
	}
	return tables
}

// Actions returns the known values of ActionType by table.
func Actions() map[string][]string {
	actions := make(map[string][]string)
	for name, rest := range lines(actionsText) {
		actions[name] = strings.Split(rest, " | ")
	}
	return actions
}

// lines yields the first word and the rest of each line that is not a comment.
func lines(text string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for line := range strings.Lines(text) {
			if name, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" && !yield(name, rest) {
				return
			}
		}
	}
}

// Records yields n records as the stream would deliver them, the same ones for the same seed. It
// goes round the tables and their values of ActionType, and fills the columns in one of five ways.
// It fills all of them, or about a third, or all except the names of devices, processes, users and
// files. Or it fills some with odd values, or most. Names and addresses are invented.
func Records(seed uint64, n int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		g := &generator{rand: rand.New(rand.NewPCG(seed, 17)), tables: Tables()}
		kinds := g.kinds()
		for i := range n {
			kind := kinds[i%len(kinds)]
			if !yield(g.record(kind.table, kind.action, (i/len(kinds)+i)%5)) {
				return
			}
		}
	}
}

type kind struct{ table, action string }

type generator struct {
	rand   *rand.Rand
	tables map[string][]Column
}

func (g *generator) kinds() (kinds []kind) {
	actions := Actions()
	for table := range lines(tablesText) {
		for _, action := range actions[table] {
			kinds = append(kinds, kind{table, action})
		}
		kinds = append(kinds, kind{table, "SomethingNew"})
		if len(actions[table]) == 0 {
			kinds = append(kinds, kind{table, ""})
		}
	}
	return kinds
}

const (
	full = iota
	sparse
	nameless
	someOdd
	mostOdd
)

func (g *generator) record(table, action string, filling int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"time":"2026-03-04T10:20:31.1234567Z","tenantId":"0a1b2c3d-0000-4000-8000-000000000001","operationName":"Publish",`+
		`"category":"AdvancedHunting-%s","_TimeReceivedBySvc":"2026-03-04T10:20:31.0990000Z","properties":{`, table)
	first := true
	add := func(name, value string) {
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteString(quote(name) + ":" + value)
	}
	for _, c := range g.tables[table] {
		if c.Name == "ActionType" {
			if action != "" {
				add(c.Name, quote(action))
			}
			continue
		}
		value := g.value(c)
		switch filling {
		case sparse:
			if g.rand.IntN(3) > 0 && c.Name != "Timestamp" {
				value = g.pick("null", `""`, "null")
			}
		case nameless:
			if strings.HasSuffix(c.Name, "Id") || strings.HasSuffix(c.Name, "Name") || strings.HasSuffix(c.Name, "Sid") || strings.HasPrefix(c.Name, "Remote") {
				value = "null"
			}
		case someOdd:
			if g.rand.IntN(4) == 0 {
				value = g.odd()
			}
		case mostOdd:
			if g.rand.IntN(5) > 0 {
				value = g.odd()
			}
		}
		add(c.Name, value)
	}
	if filling >= someOdd {
		add("NewColumn", g.odd())
		add("device", `{"uid":"x"}`)
		add("DeviceId", g.odd()) // a second time
	}
	b.WriteString(`},"Tenant":"DefaultTenant"}`)
	return []byte(b.String())
}

func quote(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

func (g *generator) pick(values ...string) string { return values[g.rand.IntN(len(values))] }

// odd returns a value that its column is not made for.
func (g *generator) odd() string {
	return g.pick(`null`, `""`, `0`, `-1`, `70000`, `4294967296`, `18446744073709551616`, `9007199254740993`, `1.5`, `1e400`, `true`, `"true"`, `false`,
		`[]`, `{}`, `[null]`, `[1,"a",{"b":null}]`, `{"a":{"b":[{"c":1}]},"$id":"7"}`, `{"$ref":"7"}`, `"[\"x\",\"y\"]"`, `"{\"ProcessId\":\"abc\"}"`, `"[not json"`,
		`"0001-01-01T00:00:00"`, `"2026-03-04T10:18:02"`, `"2026-02-30T10:18:02Z"`, `"9999-12-31T23:59:59.9999999Z"`, `"1960-01-01T00:00:00Z"`, `"not a time"`,
		`"1.1.1.1,2.2.2.2"`, `"::ffff:10.1.2.3"`, `"fe80::1%eth0"`, `"999.1.1.1"`, `"joe"`, `"joe@"`, `"joe@host"`, `"a b@c.example"`, `"@"`, `"\\"`, `"/"`, `"a\\"`, `"a/b/"`,
		`"http://"`, `"http://[::1"`, `"https://u:p@h.example:99999/p?q#f"`, `"//x"`, `"uri=http://h.example/"`, `"\ud800"`, `"\u0000"`, `"ä€𝄞"`, `" "`, `"  x "`,
		`"(T1059.001)"`, `"[\"(T1)\"]"`, `"[\"PowerShell (T1059.001)\",\"\",null,7]"`, `"None"`, `"N/A"`, `"00:1a:2b:3c:4d:5e"`, `"001A2B3C4D5E"`,
		quote(strings.Repeat("long ", 500)), strconv.Quote("S-1-5-18"), `"HKEY_LOCAL_MACHINE\\"`, `"Other"`, `"Unknown"`, `-0`, `1e3`)
}

// value returns a value that the column is made for.
func (g *generator) value(c Column) string {
	n := g.rand.IntN(1 << 30)
	switch name := c.Name; {
	case c.Type == 't':
		return quote(fmt.Sprintf("2026-03-%02dT10:18:%02d.%07dZ", 1+n%28, n%60, n%10_000_000))
	case c.Type == 'b':
		return g.pick("true", "false")
	case c.Type == 'r':
		return g.pick("1.5", "7", "0")
	case strings.HasSuffix(name, "Port"):
		return strconv.Itoa(n % 65536)
	case name == "IPAddresses":
		return quote(fmt.Sprintf(`[{"IPAddress":"10.0.%d.7","SubnetPrefix":24,"AddressType":"Private"},{"IPAddress":"fe80::%x","SubnetPrefix":64}]`, n%256, n%65535))
	case name == "ReportId" && c.Type == 's':
		return quote(fmt.Sprintf("%018d_x", n))
	case c.Type == 'i':
		return strconv.Itoa(n)
	case name == "AdditionalFields":
		return g.additional()
	case c.Type == 'd':
		return g.pick(`{"k":"v","n":1}`, `[{"k":"v"}]`, `"[\"a\",\"b\"]"`, `"{\"k\":{\"l\":\"m\"}}"`)
	}
	return quote(g.text(c.Name, n))
}

func (g *generator) text(name string, n int) string {
	has := func(part string) bool { return strings.Contains(name, part) }
	switch {
	case name == "Categories":
		return g.pick(`["Execution"]`, `["Defense evasion","Execution"]`, `["Malware"]`)
	case name == "Category":
		return g.pick("Execution", "CommandAndControl", "SuspiciousActivity")
	case name == "AttackTechniques":
		return g.pick(`["PowerShell (T1059.001)","Phishing (T1566)"]`, `[]`, ``, `["Odd"]`)
	case name == "DataSources", name == "DnsAddresses", name == "DefaultGateways":
		return `["Microsoft Defender","10.0.0.1"]`
	case name == "DetectionMethods", name == "ConfidenceLevel":
		return g.pick(`{"Phish":["URL detonation"]}`, `{"Spam":"High"}`)
	case name == "AuthenticationDetails":
		return `{"SPF":"pass","DKIM":"none","DMARC":"bestguesspass","CompAuth":"pass"}`
	case name == "Severity":
		return g.pick("Informational", "Low", "Medium", "High", "Critical", "Odd")
	case name == "EntityType":
		return g.pick("Process", "File", "User", "Machine", "Ip", "Url", "RegistryKey", "RegistryValue", "MailMessage", "MailCluster", "CloudApplication", "AzureResource", "Mailbox")
	case name == "LogonType":
		return g.pick("Interactive", "Network", "Batch", "Service", "RemoteInteractive", "CachedInteractive", "Unlock", "Resource access", "Unknown")
	case name == "Protocol":
		return g.pick("TcpV4", "Tcp", "UdpV6", "Udp", "Icmp", "NTLM", "Kerberos", "Ldap", "Negotiate", "UnixSocket")
	case has("IntegrityLevel"):
		return g.pick("Low", "Medium", "High", "System", "Untrusted", "Protected")
	case name == "RegistryValueType":
		return g.pick("String", "Dword", "Qword", "ExpandString", "MultiString", "Binary", "None", "Odd")
	case name == "DeviceType":
		return g.pick("Workstation", "Server", "Laptop", "Mobile", "NetworkDevice", "Odd")
	case has("OSPlatform"):
		return g.pick("Windows11", "WindowsServer2022", "Linux", "macOS", "iOS", "Android", "Odd")
	case name == "EmailDirection":
		return g.pick("Inbound", "Outbound", "Intra-org", "Unknown")
	case name == "DeliveryAction":
		return g.pick("Delivered", "Blocked", "Junked", "Replaced")
	case name == "ActionResult":
		return g.pick("Success", "Error")
	case name == "RequestMethod":
		return g.pick("GET", "POST", "PATCH", "DELETE", "ODD")
	case name == "MacAddress":
		return fmt.Sprintf("00:1a:2b:%02x:%02x:%02x", n%256, n>>8%256, n>>16%256)
	case has("IPv6"):
		return fmt.Sprintf("2001:db8::%x", n%65536)
	case has("IP") && !has("Type") && !has("Category") && !has("Tags") && name != "IPv4Dhcp", name == "IpAddress", has("IPAddress"):
		return g.pick(fmt.Sprintf("10.%d.%d.%d", n%256, n>>8%256, n>>16%256), fmt.Sprintf("fe80::%x", n%65536), "::ffff:10.1.2.3")
	case has("Url") && !has("Domain") && !has("Location"), name == "RequestUri":
		return g.pick(fmt.Sprintf("https://h%d.example:8443/p/a?q=%d#f", n%100, n), fmt.Sprintf("h%d.example", n%100), "http://10.1.2.3/x", "h.example/p")
	case has("Upn"), has("Address") && !has("IP"), name == "SipProxyAddress":
		return fmt.Sprintf("user%d@corp.example", n%100)
	case has("Sid"):
		return g.pick("S-1-5-18", fmt.Sprintf("S-1-5-21-1-2-3-%d", n%10000))
	case has("FolderPath"):
		return g.pick(fmt.Sprintf(`C:\Users\u%d\tool%d.exe`, n%9, n%100), `C:\Windows\System32`, "/usr/bin/bash")
	case has("FileName"):
		return fmt.Sprintf("tool%d.exe", n%100)
	case has("SHA256"):
		return fmt.Sprintf("%064x", n)
	case has("SHA1"):
		return fmt.Sprintf("%040x", n)
	case has("MD5"):
		return fmt.Sprintf("%032x", n)
	case has("RegistryKey"):
		return g.pick(`HKEY_LOCAL_MACHINE\SOFTWARE\Run`, `HKEY_CURRENT_USER\S-1-5-21-1\X`)
	case has("CommandLine"):
		return fmt.Sprintf(`"C:\tool%d.exe" -a "b c" %d`, n%100, n)
	case strings.HasSuffix(name, "Id"):
		return fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n)
	case strings.HasSuffix(name, "Time"):
		return "2026-03-04T10:18:02.1Z"
	}
	return fmt.Sprintf("%s %d", name, n%1000)
}

// additional returns AdditionalFields: members that a mapping takes, and others.
func (g *generator) additional() string {
	n := g.rand.IntN(1 << 20)
	members := []string{
		`"direction":"Out"`, `"direction":"In"`, `"ProcessId":"` + strconv.Itoa(n) + `"`, `"ProcessId":` + strconv.Itoa(n), `"CommandLine":"a.exe -x"`,
		`"DnsQueryString":"h.example"`, `"query":"h.example","qtype_name":"A","qclass_name":"C_INTERNET","rcode_name":"NOERROR","answers":["10.1.2.3"],"TTLs":["300"]`,
		`"DnsQueryResult":"[{\"Result\":\"10.1.2.3\",\"DnsQueryType\":1}]"`, `"method":"GET","uri":"/a?b=c","host":"h.example","user_agent":"curl/8","status_code":"200"`,
		`"TaskName":"\\T\\x","TaskContent":"<Task/>"`, `"ServiceName":"svc","ServiceAccount":"LocalSystem","ServiceStartType":2`,
		`"GroupName":"Admins","GroupSid":"S-1-5-32-544","GroupDomainName":"Builtin"`, `"Command":"Get-Item"`, `"ScriptContent":"echo"`,
		`"DeviceDescription":"Stick","ClassName":"DiskDrive","DeviceId":"USB\\X","VendorIds":["V"]`, `"ProductName":"Stick","Manufacturer":"M","SerialNumber":"S1","DriveLetter":"E:"`,
		`"BaseAddress":2098738167808,"RegionSize":262144,"ProtectionMask":64`, `"ThreatName":"Trojan:X"`, `"PipeName":"\\Device\\NamedPipe\\x"`,
		`"ImageFile":{"$id":"2","Name":"a.exe","Directory":"c:\\x","Host":{"$id":"3","MachineId":"aa11","HostName":"ws1"}},"ParentProcess":{"ProcessId":"77","ImageFile":{"Name":"p.exe"}},"Host":{"$ref":"3"}`,
		`"Sender":"s@corp.example","Recipient":"r@corp.example","InternetMessageId":"<x@y>"`, `"FROM.GROUP":"g1","TO.GROUP":"g2"`, `"TARGET_OBJECT.USER":"bob","TARGET_OBJECT.GROUP":"g"`,
		`"ScanTypeIndex":"Quick","ScanId":"{1}"`, `"InitiatingProcess":"x","Odd":{"deep":[{"er":[1,2,{"x":null}]}]}`, `"Unknown.dotted":"x"`,
		`"CreationTimeUtc":"2026-03-04T10:18:02.1234567Z"`, `"Count":"1","Category":"Credential Access"`, `"DesiredAccess":1024`, `"LogonId":"999"`,
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, at := range g.rand.Perm(len(members))[:1+g.rand.IntN(8)] {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(members[at])
	}
	b.WriteByte('}')
	if g.rand.IntN(2) == 0 {
		return b.String()
	}
	return quote(b.String())
}
