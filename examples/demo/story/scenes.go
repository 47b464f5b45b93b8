package story

// attack is what happens to one user, scene by scene; between scenes there is ordinary traffic. The
// records of a scene come one after the other.
var attack = [][]string{
	{"DeviceInfo.case", "DeviceNetworkInfo.usual"}, // the laptop reports itself in full, as it does every hour
	{"EmailEvents.phish", "EmailUrlInfo.phish", "EmailAttachmentInfo.phish"},
	{"UrlClickEvents.phish"},
	{"DeviceFileEvents.download"},
	{"DeviceInfo.partial"}, // a heartbeat without the system's columns: must not wipe out the full report
	{"DeviceProcessEvents.wscript", "DeviceProcessEvents.powershell"},
	{"DeviceImageLoadEvents.amsi", "DeviceEvents.blocked"},
	{"DeviceNetworkEvents.beacon"},
	{"DeviceRegistryEvents.runkey"},
	{"DeviceFileCertificateInfo.usual", "IdentityDirectoryEvents.usual"},
	{"IdentityQueryEvents.samr"},
	{"DeviceLogonEvents.lateral", "IdentityLogonEvents.ntlm"},
	{"CloudAppEvents.rule"},
	alertRows,
	{"EmailPostDeliveryEvents.phish"},
}

// alertRows are an alert and its evidence. Only the Machine row has a DeviceId, and it is not the
// first.
var alertRows = []string{
	"AlertInfo.case", "AlertEvidence.process", "AlertEvidence.file", "AlertEvidence.machine", "AlertEvidence.user",
}
