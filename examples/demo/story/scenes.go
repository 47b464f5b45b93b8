package story

// attack is the story of one user, scene by scene; between scenes there is ordinary traffic. The
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

// aftermath is the story of two other laptops when the attack is over, in the same form. One was
// isolated, is released, and is merged with its old self when it is set up again. An alert is about
// its old id. Another is about both laptops, with a row that knows its device by name only.
var aftermath = [][]string{
	{"DeviceInfo.isolated", "DeviceInfo.other"},
	{"DeviceInfo.released"},
	{"DeviceInfo.merged"},
	{"AlertInfo.after", "AlertEvidence.old"},
	{"AlertInfo.pair", "AlertEvidence.pair1", "AlertEvidence.pair2", "AlertEvidence.pairip", "AlertEvidence.byname"},
}

// alertRows are an alert and its evidence. Only the Machine row has a DeviceId, and it is not the
// first.
var alertRows = []string{
	"AlertInfo.case", "AlertEvidence.process", "AlertEvidence.file", "AlertEvidence.machine", "AlertEvidence.user",
}
