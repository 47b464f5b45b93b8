package transform_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform"
)

// classOf has the class and activity of OCSF for tables and ActionTypes. AlertEvidence and
// BehaviorEntities go by EntityType, EmailEvents by EmailDirection, GraphAPIAuditEvents by
// RequestMethod: then that is in the place of ActionType.
var classOf = []struct {
	table, word     string
	class, activity int64
}{
	{"DeviceProcessEvents", "ProcessCreated", 1007, 1},
	{"DeviceProcessEvents", "processcreated", 1007, 1},
	{"DeviceProcessEvents", "OpenProcess", 1007, 3},
	{"DeviceProcessEvents", "SomethingNew", 1007, 99},
	{"CloudProcessEvents", "ProcessCreated", 1007, 1},
	{"DeviceFileEvents", "FileCreated", 1001, 1},
	{"DeviceFileEvents", "FileModified", 1001, 3},
	{"DeviceFileEvents", "FileDeleted", 1001, 4},
	{"DeviceFileEvents", "FileRenamed", 1001, 5},
	{"DeviceFileEvents", "SomethingNew", 1001, 99},
	{"DeviceImageLoadEvents", "ImageLoaded", 1005, 1},
	{"DeviceRegistryEvents", "RegistryKeyCreated", 201001, 1},
	{"DeviceRegistryEvents", "RegistryKeyDeleted", 201001, 4},
	{"DeviceRegistryEvents", "RegistryKeyRenamed", 201001, 5},
	{"DeviceRegistryEvents", "RegistryValueSet", 201002, 2},
	{"DeviceRegistryEvents", "RegistryValueDeleted", 201002, 4},
	{"DeviceNetworkEvents", "ConnectionSuccess", 4001, 1},
	{"DeviceNetworkEvents", "ConnectionRequest", 4001, 1},
	{"DeviceNetworkEvents", "ConnectionAttempt", 4001, 1},
	{"DeviceNetworkEvents", "ConnectionAcknowledged", 4001, 1},
	{"DeviceNetworkEvents", "InboundConnectionAccepted", 4001, 1},
	{"DeviceNetworkEvents", "InboundConnectionAttempt", 4001, 1},
	{"DeviceNetworkEvents", "ConnectionFailed", 4001, 4},
	{"DeviceNetworkEvents", "InboundConnectionBlocked", 4001, 5},
	{"DeviceNetworkEvents", "ConnectionFound", 4001, 6},
	{"DeviceNetworkEvents", "NetworkSignatureInspected", 4001, 6},
	{"DeviceNetworkEvents", "IcmpConnectionInspected", 4001, 6},
	{"DeviceNetworkEvents", "ListeningConnectionCreated", 4001, 7},
	{"DeviceNetworkEvents", "DnsConnectionInspected", 4003, 6},
	{"DeviceNetworkEvents", "SshConnectionInspected", 4007, 6},
	{"DeviceNetworkEvents", "HttpConnectionInspected", 4002, 3},
	{"DeviceLogonEvents", "LogonSuccess", 3002, 1},
	{"DeviceLogonEvents", "LogonFailed", 3002, 1},
	{"DeviceLogonEvents", "LogonAttempted", 3002, 1},
	{"IdentityDirectoryEvents", "Group membership Changed", 3006, 3},
	{"IdentityDirectoryEvents", "Account Password Changed", 3001, 3},
	{"IdentityLogonEvents", "LogonSuccess", 3002, 1},
	{"IdentityLogonEvents", "LogonFailed", 3002, 1},
	{"IdentityDirectoryEvents", "Account Password changed", 3001, 3},
	{"IdentityDirectoryEvents", "Security Principal created", 3001, 1},
	{"IdentityDirectoryEvents", "Account Deleted", 3001, 6},
	{"IdentityDirectoryEvents", "Account Disabled", 3001, 5},
	{"IdentityDirectoryEvents", "Account Locked", 3001, 9},
	{"IdentityQueryEvents", "LDAP query", 6003, 2},
	{"IdentityInfo", "", 5003, 2},
	{"DeviceInfo", "", 5001, 2},
	{"DeviceNetworkInfo", "", 5001, 2},
	{"AlertInfo", "", 2004, 1},
	{"AlertEvidence", "Process", 2004, 2},
	{"AlertEvidence", "File", 2004, 2},
	{"AlertEvidence", "User", 2004, 2},
	{"BehaviorInfo", "", 2004, 1},
	{"BehaviorEntities", "Process", 2004, 2},
	{"EmailEvents", "Outbound", 4009, 1},
	{"EmailEvents", "Inbound", 4009, 2},
	{"EmailAttachmentInfo", "", 4009, 3},
	{"EmailUrlInfo", "", 4012, 3},
	{"EmailPostDeliveryEvents", "Phish ZAP", 4009, 99},
	{"UrlClickEvents", "ClickAllowed", 4002, 3},
	{"UrlClickEvents", "ClickBlocked", 4002, 3},
	{"CloudAppEvents", "FileUploaded", 6006, 1},
	{"CloudAppEvents", "FileDownloaded", 6006, 2},
	{"CloudAppEvents", "FileAccessed", 6006, 14},
	{"CloudAppEvents", "UserLoggedIn", 3002, 1},
	{"CloudAppEvents", "UserLoginFailed", 3002, 1},
	{"CloudAppEvents", "Add member to role.", 6003, 1},
	{"CloudAppEvents", "MailItemsAccessed", 6003, 2},
	{"CloudAppEvents", "Set-Mailbox", 6003, 3},
	{"CloudAppEvents", "Remove-Mailbox", 6003, 4},
	{"CloudAppEvents", "Something", 6003, 99},
	{"CloudAuditEvents", "Delete", 6003, 4},
	{"GraphAPIAuditEvents", "GET", 6003, 2},
	{"GraphAPIAuditEvents", "PATCH", 6003, 3},
	{"DeviceEvents", "DnsQueryRequest", 4003, 1},
	{"DeviceEvents", "DnsQueryResponse", 4003, 2},
	{"DeviceEvents", "FirewallInboundConnectionBlocked", 4001, 5},
	{"DeviceEvents", "FirewallOutboundConnectionBlocked", 4001, 5},
	{"DeviceEvents", "ExploitGuardNetworkProtectionAudited", 4001, 6},
	{"DeviceEvents", "RemoteDesktopConnection", 4001, 1},
	{"DeviceEvents", "AntivirusScanCompleted", 6007, 2},
	{"DeviceEvents", "AntivirusScanCancelled", 6007, 3},
	{"DeviceEvents", "AntivirusScanFailed", 6007, 6},
	{"DeviceEvents", "SecurityLogCleared", 1008, 1},
	{"DeviceEvents", "AntivirusDefinitionsUpdated", 5019, 1},
	{"DeviceEvents", "AuditPolicyModification", 5019, 1},
	{"DeviceEvents", "TamperingAttempt", 5019, 1},
	{"DeviceEvents", "PowerShellCommand", 1009, 1},
	{"DeviceEvents", "ScriptContent", 1009, 1},
	{"DeviceEvents", "AmsiScriptDetection", 1009, 1},
	{"DeviceEvents", "UsbDriveMounted", 1010, 1},
	{"DeviceEvents", "UsbDriveUnmounted", 1010, 2},
	{"DeviceEvents", "PnpDeviceConnected", 1010, 1},
	{"DeviceEvents", "ScheduledTaskCreated", 1006, 1},
	{"DeviceEvents", "ScheduledTaskUpdated", 1006, 2},
	{"DeviceEvents", "ScheduledTaskDeleted", 1006, 3},
	{"DeviceEvents", "ScheduledTaskEnabled", 1006, 4},
	{"DeviceEvents", "ScheduledTaskDisabled", 1006, 5},
	{"DeviceEvents", "ServiceInstalled", 201004, 1},
	{"DeviceEvents", "UserAccountCreated", 3001, 1},
	{"DeviceEvents", "UserAccountDeleted", 3001, 6},
	{"DeviceEvents", "PasswordChangeAttempt", 3001, 3},
	{"DeviceEvents", "UserAccountAddedToLocalGroup", 3006, 3},
	{"DeviceEvents", "UserAccountRemovedFromLocalGroup", 3006, 4},
	{"DeviceEvents", "SecurityGroupDeleted", 3006, 5},
	{"DeviceEvents", "SecurityGroupCreated", 3006, 6},
	{"DeviceEvents", "DriverLoad", 1005, 1},
	{"DeviceEvents", "NtAllocateVirtualMemoryApiCall", 1004, 1},
	{"DeviceEvents", "NtAllocateVirtualMemoryRemoteApiCall", 1004, 1},
	{"DeviceEvents", "NtProtectVirtualMemoryApiCall", 1004, 2},
	{"DeviceEvents", "MemoryRemoteProtect", 1004, 2},
	{"DeviceEvents", "ReadProcessMemoryApiCall", 1004, 7},
	{"DeviceEvents", "WriteToLsassProcessMemory", 1004, 8},
	{"DeviceEvents", "NtMapViewOfSectionRemoteApiCall", 1004, 9},
	{"DeviceEvents", "CreateRemoteThreadApiCall", 1007, 4},
	{"DeviceEvents", "QueueUserApcRemoteApiCall", 1007, 4},
	{"DeviceEvents", "SetThreadContextRemoteApiCall", 1007, 4},
	{"DeviceEvents", "OpenProcessApiCall", 1007, 3},
	{"DeviceEvents", "ProcessPrimaryTokenModified", 1007, 5},
	{"DeviceEvents", "ProcessCreatedUsingWmiQuery", 1007, 1},
	{"DeviceEvents", "SensitiveFileRead", 1001, 2},
	{"DeviceEvents", "ShellLinkCreateFileEvent", 1001, 1},
	{"DeviceEvents", "FileTimestampModificationEvent", 1001, 6},
	{"DeviceEvents", "AntivirusDetection", 1001, 99},
	{"DeviceEvents", "SomethingNew", 1007, 99},
	{"DeviceFileCertificateInfo", "", 0, 0},
	{"MessageEvents", "SomethingNew", 0, 99},
	{"CampaignInfo", "", 0, 0},
	{"SomethingNew", "SomethingNew", 0, 99},
}

// The class and activity follow the table and the ActionType, if the record has what its class
// needs.
func TestOCSFClassByActionType(t *testing.T) {
	by := map[string]string{"AlertEvidence": "EntityType", "BehaviorEntities": "EntityType", "EmailEvents": "EmailDirection", "GraphAPIAuditEvents": "RequestMethod"}
	for _, want := range classOf {
		column := by[want.table]
		if column == "" {
			column = "ActionType"
		}
		everything := []any{
			"Timestamp", noon, "DeviceId", "aa11", "DeviceName", "ws-17.corp.example", "ReportId", 7, "AlertId", "da1_1", "BehaviorId", "bd1_1", "Title", "T", "Severity", "High",
			"ProcessId", 4711, "ProcessCommandLine", "b.exe /x", "FileName", "b.exe", "FolderPath", `C:\x\b.exe`, "PreviousFileName", "a.exe", "PreviousFolderPath", `C:\x`,
			"InitiatingProcessId", 815, "InitiatingProcessFileName", "c.exe", "InitiatingProcessFolderPath", `C:\x\c.exe`, "InitiatingProcessAccountName", "jdoe",
			"AccountName", "jdoe", "AccountSid", "S-1-5-21-1-2-3-1001", "AccountObjectId", "00000000-0000-4000-8000-000000000001", "AccountUpn", "jdoe@corp.example", "AccountDisplayName", "J Doe",
			"TargetAccountUpn", "target@corp.example", "TargetAccountDisplayName", "Target",
			"LocalIP", "192.0.2.1", "RemoteIP", "198.51.100.2", "RemotePort", 443, "LocalPort", 50123, "IPAddress", "198.51.100.2", "MacAddress", "02-00-00-00-00-01",
			"SenderFromAddress", "a@corp.example", "RecipientEmailAddress", "b@corp.example", "NetworkMessageId", "m1", "Url", "https://x.example/a", "Application", "App", "ObjectName", "o",
			"HostName", "h1", "ResourceId", "r1", "DataSource", "Azure", "OperationName", "op", "QueryTarget", "q.example", "RequestUri", "https://graph.example/v1.0/users", "ServicePrincipalId", "sp1",
			"AdditionalFields", map[string]any{"query": "q.example", "DnsQueryString": "q.example", "method": "GET", "uri": "/a", "host": "x.example", "TaskName": "task", "ServiceName": "svc",
				"GroupName": "g", "TO.GROUP": "g", "DeviceDescription": "Stick", "ProductName": "Stick", "ClassName": "USB", "Command": "Get-Process", "ScriptContent": "1", "ThreatName": "x",
				"ServiceFileName": "svc.exe", "ScanId": "s1", "BaseAddress": 1},
		}
		if want.table == "DeviceRegistryEvents" {
			everything = append(everything, "RegistryKey", `HKEY_LOCAL_MACHINE\x`, "PreviousRegistryKey", `HKEY_LOCAL_MACHINE\y`, "RegistryValueName", "v", "RegistryValueData", "d", "RegistryValueType", "String")
		}
		if want.word != "" {
			everything = append(everything, column, want.word)
		}
		e := one(t, transform.Config{Format: "ocsf"}, recordOf(want.table, everything...))
		if got := fmt.Sprint(e.m["class_uid"], e.m["activity_id"]); got != fmt.Sprint(want.class, want.activity) {
			t.Errorf("%s %s is of class and activity %s, want %d %d", want.table, want.word, got, want.class, want.activity)
		}
	}
	if len(classOf) < 60 {
		t.Errorf("only %d rows", len(classOf))
	}
}

// The source of a connection is the side that began it: for an inbound one the remote side.
func TestOCSFDirection(t *testing.T) {
	for _, want := range []struct{ table, action, told, source string }{
		{"DeviceNetworkEvents", "InboundConnectionAccepted", "", "198.51.100.2"},
		{"DeviceNetworkEvents", "ListeningConnectionCreated", "", "198.51.100.2"},
		{"DeviceNetworkEvents", "InboundConnectionBlocked", "", "198.51.100.2"},
		{"DeviceNetworkEvents", "ConnectionSuccess", "", "192.0.2.1"},
		{"DeviceNetworkEvents", "ConnectionFound", "In", "198.51.100.2"},
		{"DeviceNetworkEvents", "SshConnectionInspected", "In", "198.51.100.2"},
		{"DeviceNetworkEvents", "ConnectionFound", "Out", "192.0.2.1"},
		{"DeviceEvents", "FirewallInboundConnectionBlocked", "", "198.51.100.2"},
		{"DeviceEvents", "FirewallOutboundConnectionBlocked", "", "192.0.2.1"},
	} {
		e := one(t, transform.Config{Format: "ocsf"}, recordOf(want.table, "ActionType", want.action, "DeviceId", "aa11", "InitiatingProcessId", 5,
			"LocalIP", "192.0.2.1", "LocalPort", 3389, "RemoteIP", "198.51.100.2", "RemotePort", 50123, "AdditionalFields", map[string]any{"direction": want.told}))
		source, _ := e.m["src_endpoint"].(map[string]any)
		target, _ := e.m["dst_endpoint"].(map[string]any)
		other := map[string]string{"192.0.2.1": "198.51.100.2", "198.51.100.2": "192.0.2.1"}[want.source]
		if source["ip"] != want.source || target["ip"] != other {
			t.Errorf("%s %s: from %v to %v", want.action, want.told, source, target)
		}
	}
}

func logonOf(columns ...any) string {
	return recordOf("DeviceLogonEvents", append([]any{"ActionType", "LogonSuccess", "DeviceId", "aa11", "AccountName", "jdoe"}, columns...)...)
}

func requestOf(uri, host string) string {
	return recordOf("DeviceNetworkEvents", "ActionType", "HttpConnectionInspected", "DeviceId", "aa11", "LocalIP", "192.0.2.1", "RemoteIP", "198.51.100.2",
		"AdditionalFields", map[string]any{"method": "GET", "uri": uri, "host": host})
}

func inspectedDNS(answers, lives any) string {
	return recordOf("DeviceNetworkEvents", "ActionType", "DnsConnectionInspected", "DeviceId", "aa11", "LocalIP", "192.0.2.1",
		"AdditionalFields", map[string]any{"query": "q.example", "answers": answers, "TTLs": lives})
}

// What stands where in an event: attributes that a table's own columns give.
func TestOCSFAttributes(t *testing.T) {
	for _, want := range []struct {
		record, path string
		value        any
	}{
		{recordOf("CloudAppEvents", "ActionType", "FileDownloaded", "AccountObjectId", "u1", "IPAddress", "198.51.100.2", "ObjectName", "https://corp.example/docs/plan.docx"),
			"file.path", "https://corp.example/docs/plan.docx"},
		{recordOf("CloudAppEvents", "ActionType", "FileDownloaded", "AccountObjectId", "u1", "IPAddress", "198.51.100.2", "ObjectName", "https://corp.example/docs/plan.docx"),
			"file.name", "plan.docx"},
		{recordOf("CloudAppEvents", "ActionType", "FileDownloaded", "AccountObjectId", "u1", "IPAddress", "198.51.100.2", "ObjectName", "plan.docx"), "file.path", "plan.docx"},
		{recordOf("CloudAppEvents", "ActionType", "FileDownloaded", "AccountObjectId", "u1", "AccountType", "Regular", "IPAddress", "198.51.100.2", "ObjectName", "plan.docx"), "actor.user.type", "User"},
		{recordOf("CloudAppEvents", "ActionType", "UserLoggedIn", "AccountObjectId", "u1", "AccountType", "Admin", "Application", "App"), "user.type", "Admin"},
		{recordOf("CloudAppEvents", "ActionType", "UserLoggedIn", "AccountObjectId", "u1", "AccountType", "Admin", "Application", "App"), "user.type_id", int64(2)},
		{recordOf("CloudAppEvents", "ActionType", "UserLoggedIn", "AccountObjectId", "u1", "AccountType", "Odd", "Application", "App"), "user.type", "Odd"},
		{recordOf("DeviceRegistryEvents", "ActionType", "RegistryValueDeleted", "DeviceId", "aa11", "InitiatingProcessId", 5, "PreviousRegistryKey", `HKEY_USERS\x`, "PreviousRegistryValueName", "v"),
			"reg_value.name", "v"},
		{recordOf("DeviceRegistryEvents", "ActionType", "RegistryValueSet", "DeviceId", "aa11", "InitiatingProcessId", 5, "RegistryKey", `HKEY_USERS\x`), "reg_value.name", "(Default)"},
		{logonOf("LogonType", "Network", "RemoteIP", "127.0.0.1", "AdditionalFields", `{"IsLocalLogon":false}`), "is_remote", true},
		{logonOf("LogonType", "Interactive", "RemoteIP", "", "AdditionalFields", `{"IsLocalLogon":true}`), "is_remote", false},
		{logonOf("LogonType", "Network", "RemoteIP", "127.0.0.1"), "is_remote", false},
		{logonOf("LogonType", "Unlock", "RemoteIP", "198.51.100.2"), "is_remote", true},
		{logonOf("ActionType", "LogonFailedAggregatedReport"), "status", "Failure"},
		{logonOf("LogonType", "RemoteInteractive"), "is_remote", true},
		{logonOf("LogonType", "CachedInteractive"), "is_remote", false},
		{logonOf("LogonType", "Unknown"), "is_remote", nil},
		{recordOf("DeviceNetworkInfo", "DeviceId", "aa11", "MacAddress", "00155d01020A"), "device.network_interfaces.mac", "00-15-5D-01-02-0A"},
		{recordOf("DeviceNetworkInfo", "DeviceId", "aa11", "MacAddress", "00:15:5d:01:02:0A"), "device.network_interfaces.mac", "00:15:5d:01:02:0A"},
		{recordOf("DeviceNetworkInfo", "DeviceId", "aa11", "NetworkAdapterName", "n", "MacAddress", "00155D010203-0000"), "device.network_interfaces.mac", nil},
		{recordOf("DeviceInfo", "DeviceId", "aa11", "OSPlatform", "Windows11", "OSArchitecture", "x64"), "device.os.cpu_bits", int64(64)},
		{recordOf("DeviceInfo", "DeviceId", "aa11", "OSPlatform", "Windows11", "OSArchitecture", "x86"), "device.os.cpu_bits", int64(32)},
		{recordOf("IdentityAccountInfo", "DisplayName", "J Doe", "Sid", "S-1-5-21-1"), "user.name", "J Doe"},
		{recordOf("IdentityAccountInfo", "DisplayName", "J Doe", "Sid", "S-1-5-21-1", "AccountUpn", "jdoe@corp.example"), "user.full_name", "J Doe"},
		{recordOf("IdentityAccountInfo", "DisplayName", "J Doe", "Sid", "S-1-5-21-1"), "user.uid", "S-1-5-21-1"},
		{recordOf("IdentityAccountInfo", "AccountUpn", "jdoe@corp.example", "AccountStatus", "Disabled"), "user.account.is_disabled", true},
		{recordOf("IdentityAccountInfo", "AccountUpn", "jdoe@corp.example", "SourceProvider", "ActiveDirectory"), "user.account.type_id", int64(19)},
		{inspectedDNS(`["192.0.2.7"]`, `[60.0]`), "answers.rdata", "192.0.2.7"},
		{inspectedDNS([]string{"192.0.2.7"}, []float64{60}), "answers.rdata", "192.0.2.7"},
		{inspectedDNS([]string{"192.0.2.7"}, []float64{60}), "answers.ttl", int64(60)},
		{recordOf("DeviceInfo", "DeviceId", "aa11", "OSPlatform", "RockyLinux"), "device.os.type_id", int64(200)},
		{recordOf("DeviceInfo", "DeviceId", "aa11", "OSPlatform", "Mac OS X"), "device.os.type_id", int64(300)},
		{recordOf("DeviceEvents", "ActionType", "AppLockerBlockScript", "DeviceId", "aa11", "InitiatingProcessId", 5, "FileName", "x.ps1"), "action", "Denied"},
		{requestOf("/a/b?c=d", "h.example:8080"), "http_request.url.url_string", "/a/b?c=d"},
		{requestOf("/a/b?c=d", "h.example:8080"), "http_request.url.hostname", "h.example"},
		{requestOf("/a/b?c=d", "h.example:8080"), "http_request.url.port", int64(8080)},
		{requestOf("/a/b?c=d", "h.example:8080"), "http_request.url.path", "/a/b"},
		{requestOf("/a/b?c=d", "h.example:8080"), "http_request.url.query_string", "c=d"},
		{requestOf("http://x.example/a", "h.example"), "http_request.url.hostname", "x.example"},
	} {
		var at any = one(t, transform.Config{Format: "ocsf"}, want.record).m
		for part := range strings.SplitSeq(want.path, ".") {
			if list, _ := at.([]any); len(list) == 1 {
				at = list[0]
			}
			object, _ := at.(map[string]any)
			at = object[part]
		}
		if fmt.Sprint(at) != fmt.Sprint(want.value) {
			t.Errorf("%s is %v, want %v, of %s", want.path, at, want.value, want.record)
		}
	}
}
