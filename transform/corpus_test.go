package transform_test

import (
	"encoding/json"
	"fmt"
	"strings"
)

// envelope makes a message of n records from ten tables, with invented values of the real shapes.
// These have columns in table order, many nulls, spaces in the envelope of some, JSON in strings
// and 18-digit ids.
func envelope(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"records":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		table, columns := record(i)
		fmt.Fprintf(&b, `{"time":"2026-03-04T10:%02d:31.1234567Z","tenantId":"0a1b2c3d-0000-4000-8000-000000000001","operationName":"Publish",`+
			`"category":"AdvancedHunting-%s","_TimeReceivedBySvc":"2026-03-04T10:%02d:30.0990000Z","properties":{%s},"Tenant":"DefaultTenant"}`,
			i%60, table, i%60, columns)
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

// inString encodes JSON as a JSON string, as .NET does: quotes and backslashes, nothing else.
func inString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func record(i int) (table, columns string) {
	stamp := fmt.Sprintf(`"Timestamp":"2026-03-04T10:%02d:02.%07dZ"`, i%60, i)
	device := fmt.Sprintf(`"DeviceId":"%040x","DeviceName":"ws-%04d.corp.example"`, i%97+0x1234567, i%97)
	process := fmt.Sprintf(`"InitiatingProcessSHA1":"%040x","InitiatingProcessSHA256":"%064x","InitiatingProcessMD5":"%032x",`+
		`"InitiatingProcessFileName":"powershell.exe","InitiatingProcessFileSize":452608,"InitiatingProcessVersionInfoCompanyName":"Microsoft Corporation",`+
		`"InitiatingProcessVersionInfoProductName":"Microsoft® Windows® Operating System","InitiatingProcessVersionInfoProductVersion":"10.0.22621.3085",`+
		`"InitiatingProcessVersionInfoInternalFileName":"POWERSHELL","InitiatingProcessVersionInfoOriginalFileName":"PowerShell.EXE",`+
		`"InitiatingProcessVersionInfoFileDescription":"Windows PowerShell","InitiatingProcessId":%d,`+
		`"InitiatingProcessCommandLine":"powershell.exe -NoProfile -File \"C:\\Scripts\\inventory %d.ps1\"",`+
		`"InitiatingProcessCreationTime":"2026-03-04T10:00:02.1234567Z","InitiatingProcessFolderPath":"c:\\windows\\system32\\windowspowershell\\v1.0\\powershell.exe",`+
		`"InitiatingProcessParentFileName":"explorer.exe","InitiatingProcessParentId":%d,"InitiatingProcessParentCreationTime":"2026-03-04T08:00:00.7654321Z",`+
		`"InitiatingProcessAccountDomain":"corp","InitiatingProcessAccountName":"kim","InitiatingProcessAccountSid":"S-1-5-21-1111111111-2222222222-333333333-1001",`+
		`"InitiatingProcessAccountUpn":"kim@corp.example","InitiatingProcessAccountObjectId":null,"InitiatingProcessIntegrityLevel":"Medium",`+
		`"InitiatingProcessTokenElevation":"TokenElevationTypeDefault"`, i, i, i, i+1000, i, i+500)
	session := fmt.Sprintf(`"ReportId":%d,"AppGuardContainerId":"","InitiatingProcessSessionId":1,"IsInitiatingProcessRemoteSession":false,`+
		`"InitiatingProcessRemoteSessionDeviceName":null,"InitiatingProcessRemoteSessionIP":null,"InitiatingProcessUniqueId":"13510798882%06d","MachineGroup":"UnassignedGroup"`, i, i)
	file := fmt.Sprintf(`"FileName":"report %d.docx","FolderPath":"C:\\Users\\kim\\Documents\\report %d.docx","SHA1":"%040x","SHA256":"%064x","MD5":null,"FileSize":%d`, i, i, i*7, i*7, i*1000)
	switch i % 10 {
	case 0:
		return "AlertEvidence", stamp + fmt.Sprintf(`,"AlertId":"da%d_1","EntityType":"Process","EvidenceRole":"Related","SHA1":"%040x","SHA256":"%064x","RemoteIP":null,`+
			`"LocalIP":null,"RemoteUrl":null,"AccountName":"kim","AccountDomain":"corp","AccountSid":"S-1-5-21-1111111111-2222222222-333333333-1001","AccountObjectId":null,`+
			`"DeviceId":null,"ThreatFamily":null,"EvidenceDirection":null,"AdditionalFields":%s,"MachineGroup":null,"NetworkMessageId":null,`+
			`"ServiceSource":"Microsoft Defender for Endpoint","FileName":"powershell.exe","FolderPath":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0",`+
			`"ProcessCommandLine":"powershell.exe -enc SQBFAFgA","EmailSubject":null,"ApplicationId":null,"Application":null,"DeviceName":null,"FileSize":452608,`+
			`"RegistryKey":null,"RegistryValueName":null,"RegistryValueData":null,"AccountUpn":null,"OAuthApplicationId":null,"Categories":"[\"Execution\"]",`+
			`"Title":"[SOC] Suspicious PowerShell","AttackTechniques":"[\"PowerShell (T1059.001)\",\"Obfuscated Files or Information (T1027)\"]",`+
			`"DetectionSource":"EDR","Severity":"Medium","CloudResource":null,"CloudPlatform":"","ResourceType":null,"ResourceID":null,"SubscriptionId":""`,
			1000+i/10, i, i, inString(evidence(i)))
	case 1:
		return "DeviceProcessEvents", stamp + "," + device + `,"ActionType":"ProcessCreated",` + file + fmt.Sprintf(`,"ProcessVersionInfoCompanyName":"Example","ProcessVersionInfoProductName":null,`+
			`"ProcessId":%d,"ProcessCommandLine":"\"C:\\Program Files\\Example\\agent.exe\" --scan","ProcessIntegrityLevel":"High","ProcessTokenElevation":"TokenElevationTypeFull",`+
			`"ProcessCreationTime":"2026-03-04T10:18:02.7654321Z","AccountDomain":"corp","AccountName":"kim","AccountSid":null,"AccountUpn":null,"AccountObjectId":null,"LogonId":999,`, i) +
			process + "," + session + `,"AdditionalFields":null,"ProcessUniqueId":"13510798882112217"`
	case 2:
		return "DeviceNetworkEvents", stamp + "," + device + `,"ActionType":"ConnectionSuccess","RemoteIP":"203.0.113.7","RemotePort":443,"RemoteUrl":"cdn.example.net","LocalIP":"10.1.2.3",` +
			`"LocalPort":50123,"Protocol":"Tcp","LocalIPType":null,"RemoteIPType":"Public",` + process + "," + session + `,"AdditionalFields":"{\"Source Mac\":\"00-00-5e-00-53-01\",\"Tcp Flags\":2}"`
	case 3:
		return "DeviceFileEvents", stamp + "," + device + `,"ActionType":"FileCreated",` + file + `,"FileOriginUrl":null,"FileOriginReferrerUrl":null,"FileOriginIP":null,"PreviousFolderPath":"","PreviousFileName":"",` +
			process + `,"RequestProtocol":"Local","RequestSourceIP":null,"RequestSourcePort":null,"RequestAccountName":"kim","RequestAccountDomain":"corp","RequestAccountSid":null,"ShareName":null,` +
			`"SensitivityLabel":null,"SensitivitySubLabel":null,"IsAzureInfoProtectionApplied":null,` + session + `,"AdditionalFields":"{\"FileType\":\"Docx\"}"`
	case 4:
		return "DeviceEvents", stamp + "," + device + `,"ActionType":"PowerShellCommand",` + file + `,"AccountDomain":null,"AccountName":null,"AccountSid":null,"RemoteUrl":null,"RemoteDeviceName":null,` +
			`"ProcessId":null,"ProcessCommandLine":null,"ProcessCreationTime":null,"ProcessTokenElevation":null,"LogonId":null,"RegistryKey":null,"RegistryValueName":null,"RegistryValueData":null,` +
			`"RemoteIP":null,"RemotePort":null,"LocalIP":null,"LocalPort":null,"FileOriginUrl":null,"FileOriginIP":null,` + process + "," + session +
			`,"AdditionalFields":"{\"Command\":\"Get-ChildItem -Path C:\\\\Users -Recurse | Where-Object { $_.Length -gt 1MB }\"}"`
	case 5:
		return "DeviceLogonEvents", stamp + "," + device + `,"ActionType":"LogonSuccess","LogonType":"Network","AccountDomain":"corp","AccountName":"svc","AccountSid":"S-1-5-18","Protocol":"Kerberos",` +
			`"FailureReason":null,"IsLocalAdmin":null,"LogonId":123456789,"RemoteDeviceName":"ws-0042","RemoteIP":"10.1.2.9","RemoteIPType":"Private","RemotePort":0,` + process + "," + session +
			`,"AdditionalFields":"{\"IsLocalLogon\":false}"`
	case 6:
		return "DeviceInfo", stamp + fmt.Sprintf(`,"ClientVersion":"10.8560.25364.1036","PublicIP":"198.51.100.4",%s,"ReportId":6391998037704%05d,"OSArchitecture":"64-bit","OSPlatform":"Windows11","OSBuild":22631,`+
			`"IsAzureADJoined":true,"LoggedOnUsers":"[{\"UserName\":\"kim\",\"DomainName\":\"CORP\",\"Sid\":\"S-1-5-21-1\"}]","RegistryDeviceTag":null,"OSVersion":"10.0","AdditionalFields":"[]",`+
			`"AadDeviceId":"6b1d0f3e-0000-4000-8000-00000000000a","MergedDeviceIds":"","MergedToDeviceId":"","Vendor":"Example","Model":"X1","OnboardingStatus":"Onboarded","DeviceCategory":"Endpoint",`+
			`"DeviceType":"Workstation","DeviceSubtype":null,"OSVersionInfo":"23H2","OSDistribution":"Windows11","JoinType":"AAD Joined","SensorHealthState":"Active","IsInternetFacing":null,"IsExcluded":false,`+
			`"ExclusionReason":null,"ExposureLevel":"Medium","AssetValue":null,"IsTransient":false,"OsBuildRevision":"3085","MachineGroup":"Servers"`, device, i)
	case 7:
		return "CloudAppEvents", stamp + fmt.Sprintf(`,"ActionType":"FileDownloaded","Application":"Microsoft OneDrive for Business","ApplicationId":15600,"AppInstanceId":0,"AccountObjectId":"5c0e0000-0000-4000-8000-000000000007",`+
			`"AccountId":"5c0e0000-0000-4000-8000-000000000007","AccountDisplayName":"Kim Doe","IsAdminOperation":false,"DeviceType":"Desktop","OSPlatform":"Windows 11","IPAddress":"198.51.100.4","IsAnonymousProxy":null,`+
			`"CountryCode":"DE","City":"Köln","ISP":null,"UserAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64)","ActivityType":"Download","ActivityObjects":[{"Type":"File","Role":"Target object","Name":"plan %d.xlsx","Id":"a1"},`+
			`{"Type":"User","Role":"Actor","Name":"Kim Doe","Id":"5c0e","ServiceObjectType":null}],"ObjectName":"plan.xlsx","ObjectType":"File","ObjectId":"a1","ReportId":"7_%d","AccountType":"Regular","IsExternalUser":false,`+
			`"IsImpersonated":false,"IPTags":["Corporate"],"IPCategory":"Corporate","UserAgentTags":null,"RawEventData":{"CreationTime":"2026-03-04T10:18:02","Id":"e%d","Operation":"FileDownloaded","Version":1,`+
			`"RecordType":6,"ListItemUniqueId":"li","Sizes":[1,2,3],"Item":{"Path":"/personal/kim","Size":9007199254740993,"Score":0.25}},"AdditionalFields":{}`, i, i, i)
	case 8:
		return "EmailEvents", stamp + fmt.Sprintf(`,"NetworkMessageId":"nm-%d","InternetMessageId":"<%d@mail.example>","SenderMailFromAddress":"news@shop.example","SenderFromAddress":"news@shop.example",`+
			`"SenderDisplayName":"Shop","SenderObjectId":null,"SenderMailFromDomain":"shop.example","SenderFromDomain":"shop.example","SenderIPv4":"192.0.2.11","SenderIPv6":null,"RecipientEmailAddress":"kim@corp.example",`+
			`"RecipientObjectId":"5c0e0000-0000-4000-8000-000000000007","Subject":"Offers \u0026 more: 50 %% off","EmailClusterId":2889421513,"EmailDirection":"Inbound","DeliveryAction":"Delivered","DeliveryLocation":"Inbox/folder",`+
			`"ThreatTypes":null,"ThreatNames":null,"DetectionMethods":null,"ConfidenceLevel":null,"BulkComplaintLevel":4,"EmailAction":null,"AuthenticationDetails":"{\"SPF\":\"pass\",\"DKIM\":\"pass\",\"DMARC\":\"pass\",\"CompAuth\":\"pass\"}",`+
			`"AttachmentCount":0,"UrlCount":12,"EmailLanguage":"en","Connectors":null,"OrgLevelAction":null,"ReportId":"r-%d","AdditionalFields":null,"To":["kim@corp.example"],"Cc":[],"EmailSize":34567,"IsFirstContact":false`, i, i, i)
	default:
		return "IdentityLogonEvents", stamp + fmt.Sprintf(`,"ActionType":"LogonSuccess","LogonType":"Credentials validation","Protocol":"Ntlm","AccountDisplayName":"Kim Doe","AccountUpn":"kim@corp.example","AccountName":"kim",`+
			`"AccountDomain":"corp.example","AccountSid":"S-1-5-21-1","AccountObjectId":null,"IPAddress":"10.1.2.3","Location":null,"DeviceName":"WS-0042","OSPlatform":"Windows 11","DeviceType":null,"ISP":null,`+
			`"DestinationDeviceName":"dc-1.corp.example","TargetDeviceName":null,"FailureReason":null,"Port":null,"DestinationPort":null,"DestinationIPAddress":"10.1.0.1","TargetAccountDisplayName":null,"ReportId":"i-%d",`+
			`"Application":"Active Directory","AdditionalFields":{"Count":"1","TO.DEVICE":"dc-1","FROM.DEVICE":"WS-0042","ACTOR.ENTITY_USER":"kim","AttackTechniques":"","SourceComputerId":"computer-%d"}`, i, i)
	}
}

func evidence(i int) string {
	return fmt.Sprintf(`{"$id":"1","ProcessId":"%d","CommandLine":"powershell.exe -enc SQBFAFgA","ElevationToken":"Default","CreationTimeUtc":"2026-03-04T10:18:02.7654321Z",`+
		`"ImageFile":{"$id":"2","Directory":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0","Name":"powershell.exe","SizeInBytes":452608,"Host":{"$id":"3","HostName":"ws-%04d","NetBiosName":"WS-%04d","DnsDomain":"corp.example",`+
		`"MachineId":"%040x","OSFamily":"Windows","OSVersion":"22H2","IsDomainJoined":true,"MachineIdType":3,"DetectionStatus":"Detected","SuspicionLevel":"Suspicious","Type":"host","LeadingHost":true,`+
		`"Asset":true,"RbacScopes":{"$id":"4","ScopesPerType":{"Workloads":{"$id":"5","Scopes":["Mtp"],"IncludesAll":false}}}},"FileHashes":[{"$id":"6","Algorithm":"SHA1","Value":"%040x","Type":"filehash"},`+
		`{"$id":"7","Algorithm":"SHA256","Value":"%064x","Type":"filehash"}],"CreatedTimeUtc":"0001-01-01T00:00:00","IsPe":true,"Type":"file"},"Account":{"$id":"8","Name":"kim","NTDomain":"corp","Host":{"$ref":"3"},`+
		`"Sid":"S-1-5-21-1111111111-2222222222-333333333-1001","IsDomainJoined":true,"Type":"account"},"ParentProcess":{"$id":"9","ProcessId":"500","CommandLine":"","CreationTimeUtc":"2026-03-04T08:00:00Z",`+
		`"ImageFile":{"$id":"10","Directory":"C:\\Windows","Name":"explorer.exe","Host":{"$ref":"3"},"Type":"file"},"Host":{"$ref":"3"},"Type":"process"},"Host":{"$ref":"3"},"DetectionStatus":"Detected",`+
		`"LastRemediationState":"Active","RemediationProviders":[{"$id":"11","Type":"remediation","Name":"mde"}],"ThreatAnalysisSummary":[{"$id":"12","AnalyzersResult":[],"Verdict":"Suspicious"}],"MergeByKey":"a%d=","MergeByKeyHex":"%x","Type":"process"}`,
		i, i%97, i%97, i%97+0x1234567, i, i, i, i)
}

func validJSON(b []byte) bool { return json.Valid(b) }
