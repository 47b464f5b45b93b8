package examples_test

// A detection is a query of an analyst, in the fields that Elastic's rules read, and the record
// that it must find.
type detection struct {
	name, table, properties, query string
}

// windows are columns that the records of one host share.
const windows = `"DeviceId":"aa11","DeviceName":"WS-17.corp.example","AccountName":"maria","AccountDomain":"corp","AccountSid":"S-1-5-21-1-2-3-1104",` +
	`"InitiatingProcessAccountName":"maria","InitiatingProcessAccountSid":"S-1-5-21-1-2-3-1104","InitiatingProcessId":4711,` +
	`"InitiatingProcessCreationTime":"2026-03-04T10:00:00.1234567Z",`

// detections are of five kinds: process, registry, file, network and logon.
var detections = []detection{
	{"a document starts a shell", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"powershell.exe","FolderPath":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe","ProcessId":1,"ProcessCommandLine":"powershell.exe -nop -enc aQBlAHgA","InitiatingProcessFileName":"WINWORD.EXE","InitiatingProcessFolderPath":"c:\\program files\\office\\winword.exe"`,
		`event.category:process AND event.type:start AND host.os.type:windows AND process.name:powershell.exe AND process.parent.name:WINWORD.EXE AND process.args:"-enc"`},
	{"a renamed tool", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"svch0st.exe","FolderPath":"C:\\Users\\Public\\svch0st.exe","ProcessId":2,"ProcessCommandLine":"svch0st.exe \"a b\" c","ProcessVersionInfoOriginalFileName":"psexec.c","InitiatingProcessFileName":"cmd.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\cmd.exe"`,
		`event.type:start AND process.pe.original_file_name:psexec.c AND NOT process.name:psexec.exe AND process.args:"a b"`},
	{"shadow copies are deleted", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"vssadmin.exe","FolderPath":"C:\\Windows\\System32","ProcessId":3,"ProcessCommandLine":"vssadmin.exe delete shadows /all /quiet","InitiatingProcessFileName":"cmd.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\cmd.exe"`,
		`event.action:start AND process.executable:"C:\\Windows\\System32\\vssadmin.exe" AND process.args:delete AND process.args:shadows AND process.args_count:5`},
	{"a process of the system from a user's folder", "DeviceProcessEvents",
		`"ActionType":"ProcessCreated","FileName":"x.exe","FolderPath":"C:\\Users\\maria\\AppData\\Local\\Temp\\x.exe","ProcessId":4,"ProcessIntegrityLevel":"System","ProcessCommandLine":"x.exe","InitiatingProcessFileName":"services.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\services.exe","InitiatingProcessSignatureStatus":"Valid"`,
		`process.executable:C\:\\Users\\* AND process.Ext.token.integrity_level_name:System AND process.parent.code_signature.trusted:true AND process.parent.executable:*services.exe`},
	{"lsass is opened", "DeviceEvents",
		`"ActionType":"OpenProcessApiCall","FileName":"lsass.exe","FolderPath":"C:\\Windows\\System32\\lsass.exe","ProcessId":700,"AdditionalFields":"{\"DesiredAccess\":5136}","InitiatingProcessFileName":"dump.exe","InitiatingProcessFolderPath":"c:\\temp\\dump.exe"`,
		`event.category:api AND process.Ext.api.name:OpenProcess AND Target.process.name:lsass.exe AND NOT process.name:MsMpEng.exe AND process.Ext.api.parameters.desired_access_numeric:5136`},
	{"a key that starts programs", "DeviceRegistryEvents",
		`"ActionType":"RegistryValueSet","RegistryKey":"HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run","RegistryValueName":"Updater","RegistryValueData":"C:\\Users\\Public\\u.exe","RegistryValueType":"String","InitiatingProcessFileName":"reg.exe"`,
		`event.category:registry AND event.type:change AND host.os.type:windows AND registry.path:HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run\\* AND registry.data.strings:*Public*`},
	{"a debugger for another program", "DeviceRegistryEvents",
		`"ActionType":"RegistryValueSet","RegistryKey":"HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Image File Execution Options\\sethc.exe","RegistryValueName":"Debugger","RegistryValueData":"cmd.exe","InitiatingProcessFileName":"reg.exe"`,
		`registry.value:Debugger AND registry.hive:HKLM AND registry.data.strings:cmd.exe AND winlog.event_data.EventType:SetValue`},
	{"a service is hidden", "DeviceRegistryEvents",
		`"ActionType":"RegistryKeyDeleted","PreviousRegistryKey":"HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\Sense","InitiatingProcessFileName":"reg.exe"`,
		`event.category:registry AND event.type:deletion AND registry.key:SYSTEM\\ControlSet001\\Services\\Sense`},
	{"a policy of a user", "DeviceRegistryEvents",
		`"ActionType":"RegistryKeyCreated","RegistryKey":"HKEY_USERS\\S-1-5-21-1-2-3-1104\\Software\\Classes\\ms-settings\\shell\\open\\command","InitiatingProcessFileName":"fodhelper.exe"`,
		`event.action:creation AND event.type:creation AND registry.path:HKU\\S\-1\-5\-21*ms\-settings* AND process.name:fodhelper.exe`},
	{"an archive in a start-up folder", "DeviceFileEvents",
		`"ActionType":"FileCreated","FileName":"run.lnk","FolderPath":"C:\\Users\\maria\\AppData\\Roaming\\Microsoft\\Windows\\Start Menu\\Programs\\Startup\\run.lnk","FileSize":12,"InitiatingProcessFileName":"winrar.exe"`,
		`event.category:file AND event.type:creation AND file.extension:lnk AND file.path:*Startup* AND user.name:maria`},
	{"a note of ransom", "DeviceFileEvents",
		`"ActionType":"FileRenamed","FileName":"plan.docx.locked","FolderPath":"C:\\Shares\\plan.docx.locked","PreviousFileName":"plan.docx","FileSize":900000,"InitiatingProcessFileName":"enc.exe"`,
		`event.action:rename AND file.extension:locked AND file.size:>500000`},
	{"logs are deleted", "DeviceFileEvents",
		`"ActionType":"FileDeleted","FileName":"Security.evtx","FolderPath":"C:\\Windows\\System32\\winevt\\Logs","InitiatingProcessFileName":"wevtutil.exe"`,
		`event.type:deletion AND file.name:Security.evtx AND file.directory:"C:\\Windows\\System32\\winevt\\Logs"`},
	{"a library from a share", "DeviceImageLoadEvents",
		`"ActionType":"ImageLoaded","FileName":"evil.dll","FolderPath":"\\\\files\\public\\evil.dll","SHA256":"11ff","InitiatingProcessFileName":"rundll32.exe"`,
		`event.category:library AND event.action:load AND dll.name:evil.dll AND dll.hash.sha256:11ff AND related.hash:11ff`},
	{"a shell of another network", "DeviceNetworkEvents",
		`"ActionType":"ConnectionSuccess","RemoteIP":"203.0.113.66","RemotePort":4444,"LocalIP":"10.1.2.3","LocalPort":51000,"Protocol":"TcpV4","RemoteUrl":"https://c2.example/x","InitiatingProcessFileName":"mshta.exe","InitiatingProcessFolderPath":"c:\\windows\\system32\\mshta.exe"`,
		`event.category:network AND event.type:start AND network.direction:outbound AND destination.ip:"203.0.113.0/24" AND destination.port:4444 AND destination.domain:c2.example AND process.name:mshta.exe`},
	{"a desktop from outside", "DeviceNetworkEvents",
		`"ActionType":"InboundConnectionAccepted","RemoteIP":"198.51.100.9","RemotePort":50123,"LocalIP":"10.1.2.3","LocalPort":3389,"Protocol":"TcpV4"`,
		`network.direction:inbound AND destination.port:3389 AND source.ip:"198.51.100.9" AND NOT source.ip:"10.0.0.0/8" AND network.transport:tcp`},
	{"a name that is made up", "DeviceNetworkEvents",
		`"ActionType":"DnsConnectionInspected","RemoteIP":"10.1.2.53","RemotePort":53,"LocalIP":"10.1.2.3","LocalPort":51001,"Protocol":"Udp","AdditionalFields":"{\"direction\":\"Out\",\"query\":\"x7f3.tunnel.example\",\"qtype_name\":\"TXT\",\"answers\":\"[\\\"203.0.113.99\\\"]\",\"TTLs\":\"[1.0]\"}"`,
		`network.protocol:dns AND dns.question.type:TXT AND dns.question.name:*.tunnel.example AND dns.resolved_ip:"203.0.113.99" AND dns.answers.ttl:1`},
	{"a connection is refused", "DeviceNetworkEvents",
		`"ActionType":"ConnectionFailed","RemoteIP":"2001:db8::66","RemotePort":445,"LocalIP":"2001:db8::1","LocalPort":51002,"Protocol":"TcpV6","InitiatingProcessFileName":"scan.exe"`,
		`event.outcome:failure AND event.type:denied AND destination.port:445 AND network.type:ipv6`},
	{"a password is guessed", "DeviceLogonEvents",
		`"ActionType":"LogonFailed","LogonType":"Network","RemoteIP":"198.51.100.44","RemoteDeviceName":"KALI","FailureReason":"InvalidUserNameOrPassword","Protocol":"NTLM"`,
		`event.category:authentication AND event.outcome:failure AND source.ip:"198.51.100.44" AND source.domain:KALI AND network.protocol:ntlm AND event.reason:InvalidUserNameOrPassword`},
	{"an administrator from afar", "DeviceLogonEvents",
		`"ActionType":"LogonSuccess","LogonType":"RemoteInteractive","IsLocalAdmin":true,"RemoteIP":"198.51.100.45"`,
		`event.outcome:success AND m365_defender.event.logon.type:RemoteInteractive AND m365_defender.event.is_local_admin:true AND user.id:S\-1\-5\-21\-1\-2\-3\-1104`},
	{"a logon of the directory", "IdentityLogonEvents",
		`"ActionType":"LogonFailed","Application":"Active Directory","AccountUpn":"maria@corp.example","IPAddress":"198.51.100.46","Protocol":"Kerberos","DestinationDeviceName":"dc1","ReportId":"r1"`,
		`event.category:authentication AND event.outcome:failure AND user.email:maria@corp.example AND source.ip:"198.51.100.46" AND destination.domain:dc1 AND network.protocol:kerberos AND event.id:r1`},
}

// record is a detection's record, whole.
func (d detection) record() []byte {
	return []byte(`{"time":"2026-03-04T10:20:31Z","tenantId":"0a1b2c3d-0000-4000-8000-000000000001","category":"AdvancedHunting-` + d.table + `","properties":{` +
		windows + d.properties + `,"Timestamp":"2026-03-04T10:18:02.7654321Z"}}`)
}
