package record

import "strings"

// tableNames are the tables of Advanced Hunting, from Microsoft's documentation as of July 2026.
const tableNames = `
AIAgentsInfo AgentsInfo AlertEvidence AlertInfo BehaviorEntities BehaviorInfo CampaignInfo
CloudAppEvents CloudAuditEvents CloudDnsEvents CloudPolicyEnforcementEvents CloudProcessEvents
CloudStorageAggregatedEvents DataSecurityBehaviors DataSecurityEvents
DeviceBaselineComplianceAssessment DeviceBaselineComplianceAssessmentKB
DeviceBaselineComplianceProfiles DeviceEvents DeviceFileCertificateInfo DeviceFileEvents
DeviceImageLoadEvents DeviceInfo DeviceLogonEvents DeviceNetworkEvents DeviceNetworkInfo
DeviceProcessEvents DeviceRegistryEvents DeviceTvmBrowserExtensions DeviceTvmBrowserExtensionsKB
DeviceTvmCertificateInfo DeviceTvmHardwareFirmware DeviceTvmInfoGathering
DeviceTvmInfoGatheringKB DeviceTvmSecureConfigurationAssessment
DeviceTvmSecureConfigurationAssessmentKB DeviceTvmSoftwareEvidenceBeta
DeviceTvmSoftwareInventory DeviceTvmSoftwareVulnerabilities DeviceTvmSoftwareVulnerabilitiesKB
DisruptionAndResponseEvents EmailAttachmentInfo EmailEvents EmailPostDeliveryEvents EmailUrlInfo
EntraIdSignInEvents EntraIdSpnSignInEvents ExposureGraphEdges ExposureGraphNodes
FileMaliciousContentInfo GraphAPIAuditEvents IdentityAccountInfo IdentityDirectoryEvents
IdentityEvents IdentityInfo IdentityLogonEvents IdentityQueryEvents MessageEvents
MessagePostDeliveryEvents MessageUrlInfo OAuthAppInfo UrlClickEvents
`

var tables = func() map[string]string {
	names := make(map[string]string)
	for _, name := range strings.Fields(tableNames) {
		names[strings.ToLower(name)] = name
	}
	return names
}()

// huntingCategories has the category that the stream gives each documented table.
var huntingCategories = func() map[string]string {
	categories := make(map[string]string)
	for _, name := range Tables() {
		categories[name] = HuntingPrefix + name
	}
	return categories
}()

// Tables are the documented tables of Advanced Hunting.
func Tables() []string { return strings.Fields(tableNames) }

// TableName is the documented spelling of a table's name in any case. Other names stay unchanged.
func TableName(name string) string {
	if known, ok := tables[strings.ToLower(name)]; ok {
		return known
	}
	return name
}
