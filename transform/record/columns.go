package record

import "strings"

// Class is the type of a column, the same in every table and record. So an index never sees two
// types under one name. Values that do not fit go to <column>_raw, as text.
type Class uint8

// The classes.
const (
	ClassAny     Class = iota // as it comes: not documented, or documented as dynamic
	ClassText                 // any scalar as its text; an array or object as JSON text
	ClassInteger              // an integer, also when it comes in quotes
	ClassBoolean              // true or false, also as 0 and 1 and in quotes
	ClassReal                 // a number, always as float64
	ClassObject               // an object, also as JSON in a string
	ClassObjects              // a list of objects, also as JSON in a string
	ClassScalars              // a list of scalars, also as JSON in a string
)

// columnClasses has the class of each documented column. It is the same in all tables: an index
// sees the name alone. The source is Microsoft's documentation of the advanced hunting tables as of
// July 2026. For JSON columns it is records of the stream, since the documentation calls most of
// them strings. Datetimes are text: a time is passed on as received.
var columnClasses = func() map[string]Class {
	classes := make(map[string]Class)
	for c, names := range map[Class]string{
		ClassText:    textColumns + differingColumns,
		ClassInteger: integerColumns,
		ClassBoolean: booleanColumns,
		ClassReal:    realColumns,
		ClassObject:  objectColumns,
		ClassObjects: objectsColumns,
		ClassScalars: scalarsColumns,
	} {
		for _, name := range strings.Fields(names) {
			classes[name] = c
		}
	}
	return classes
}()

// ClassOf is the class of a column.
func ClassOf(column string) Class { return columnClasses[column] }

// Columns that hold JSON, native or in a string: both occur for one column, and both give the same
// event. They are listed and never guessed from the first character: adapter names are {GUID}s, and
// alert titles begin with [SOC].
const objectColumns = `
AdditionalFields AuthenticationDetails ConfidenceLevel DetectionMethods LastSeenForUser RawEventData`

const objectsColumns = `
ActivityObjects ConnectedNetworks IPAddresses LoggedOnUsers RecipientDetails`

const scalarsColumns = `
AttackTechniques Categories CrlDistributionPointUrls DataSources DefaultGateways DnsAddresses IPTags
OperationNamesList UncommonForUser UrlChain UserAgentTags`

// Columns whose documented type differs between tables. AdditionalFields, Categories,
// ConfidenceLevel and DetectionMethods do, too, and are opened.
const differingColumns = `
AadDeviceId AccountType ApplicationId EmailClusterId ExtensionVersion InitiatingProcessId IsCompliant IsExternalUser
LastSeenTime NetworkMessageId OSPlatform Port PrinterName RawAgentInfo ReportId SessionId ThreatTypes UrlDomainInfo
`

const integerColumns = `
AccountTenantId ActivityCount AnonymousSuccessfulOperations AppInstanceId AttachmentCount BulkComplaintLevel
CompromisedAccountCount ConditionalAccessStatus ConsentedUsersCount CreatedProcessSessionId CriticalityLevel
DefenderRiskLevel DestinationPort DeviceDestinationLocationType DeviceSourceLocationType DistinctGetOperations
DlpPolicyEnforcementMode DnsNetworkDuration EmailAttachmentCount ErrorCode FailedOperationsCount FileSize
InitiatingProcessFileSize InitiatingProcessLogonId InitiatingProcessParentId InitiatingProcessSessionId InstanceCount
IsManaged LocalPort LogonID LogonId OSBuild ObjectSize OperationsCount ProcessId RemotePort RequestSourcePort
ResponseSize RiskDetails RiskLevelAggregated RiskState SourcePort SuccessfulOperationsCount SuccessfulReadOperations
TokenIssuerType TotalResponseLength UrlCount`

const booleanColumns = `
HasAnonymousResourceNotFoundFailures IsAccountEnabled IsAdminConsented IsAdminOperation IsAnomalous IsAnonymousProxy
IsApplicable IsAzureADJoined IsAzureInfoProtectionApplied IsBlocked IsClickedThrough IsConfidentialClient
IsContentHidden IsExcluded IsExempt IsExpectedUserImpact IsExploitAvailable IsExternalThread
IsGenerativeOrchestrationEnabled IsGuestUser IsHidden IsImpersonated IsInitiatingProcessRemoteSession IsInternetFacing
IsKnownSuspiciousIp IsLocalAdmin IsManagedDevice IsManagedIdentity IsOwnedThread IsPolicyOn IsPrimary IsPrivateIp
IsProcessRemoteSession IsRootSignerMicrosoft IsSigned IsTorExitNode IsTransient IsTrusted Status`

const realColumns = `
ConfigurationImpact`

const textColumns = `
AIAgentId AIAgentName AIModel AccessControlPolicy AccountApplicationId AccountDisplayName AccountDomain AccountEmail
AccountId AccountName AccountObjectId AccountSid AccountStatus AccountUpn Action ActionCategory ActionFailureReason
ActionResult ActionTrigger ActionType ActivityId ActivityType AddedOnTime Address AgentActionTriggers AgentAppId
AgentCreationTime AgentDescription AgentId AgentName AgentStatus AgentUsers AlertId AlternateSignInName ApiVersion
AppGuardContainerId AppName AppOrigin AppOwnerTenantId AppStatus AppVersion Application ApplicationEventId
ApplicationInstanceId ApplicationNames ApplicationSessionId AssetValue AuditSource AuthenticationMethod
AuthenticationProcessingDetails AuthenticationProtocol AuthenticationRequirement AuthenticationSourceAcccountId
AuthenticationTrigger AuthenticationType Availability AwsResourceName AzureResourceId AzureVmId AzureVmSubscriptionId
BaseBenchmark BehaviorId BenchmarkProfileLevel BenchmarkVersion BlastRadius Browser BrowserName CCEReference
CampaignId CampaignName CampaignSubtype CampaignType Category CertificateCountersignatureTime CertificateCreationTime
CertificateExpirationTime CertificateSerialNumber ChangeSource City CityName ClientAppUsed ClientCloudPlatformName
ClientRequestId ClientSystemServiceName ClientVersion CloudAppAlertId CloudPlatform CloudPlatforms CloudResource
CloudResourceId CloudResourceType CloudSid CloudSubscriptionId CompanyName ComponentFamily ComponentName ComponentType
ComponentVersion ConditionalAccessPolicies ConfigurationBenchmark ConfigurationCategory ConfigurationDescription
ConfigurationId ConfigurationName ConfigurationRationale ConfigurationSubcategory ConnectivityType Connectors
ContainerId ContainerImageName ContainerName CorrelationId Country CountryCode CountryName CreatedBy CreatedDateTime
CreatedOn CreatorAccountUpn CveId CvssScore DataAggregationEndTime DataAggregationStartTime DataSource DataStructure
DefenderRiskUpdateTime DeletedDateTime DeliveryAction DeliveryLocation Department Description DestinationDeviceName
DestinationIPAddress DetailedEntityRole DetectionSource DeviceCategory DeviceDynamicTags DeviceId DeviceManualTags
DeviceName DeviceSubtype DeviceTrustType DeviceType DiscoverySources DisplayName DistinguishedName DistributionList
DlpPolicyMatchInfo DnsEventSubType DnsEventType DnsQuery DnsQueryTypeName DnsResponseCodeName DocumentId DomainName
EdgeId EdgeLabel EmailAction EmailActionPolicy EmailActionPolicyGuid EmailAddress EmailDirection EmailLanguage
EmailSubject EmployeeId EndOfSupportDate EndOfSupportStatus EndTime EndpointCall EntityRole EntityType EntraAgentId
EntraBlueprintId EntraIdDeviceId EntraObjectId EnvironmentId EvidenceDirection EvidenceRole ExclusionReason
ExpirationDate ExposureLevel ExtendedKeyUsage ExtensionDescription ExtensionId ExtensionName ExtensionRisk
ExtensionVendor ExternalUrlDomains FailureReason FieldName FileCreationTime FileName FileOriginIP
FileOriginReferrerUrl FileOriginUrl FileOwnerDisplayName FileOwnerUpn FileRenameInfo FileType FirstEventTimestamp
FolderPath FriendlyName GcpFullResourceName GivenName GroupId GroupName HardwareUuid HostDeviceId HostName IPAddress
IPCategory IPv4Dhcp IPv6Dhcp ISP IdentityEnvironment IdentityId IdentityLinkBy IdentityLinkReason IdentityLinkTime
IdentityLinkType IdentityProvider IgId ImageDigest ImageName InitiatingProcessAccountDomain
InitiatingProcessAccountName InitiatingProcessAccountObjectId InitiatingProcessAccountSid InitiatingProcessAccountUpn
InitiatingProcessCommandLine InitiatingProcessCreationTime InitiatingProcessFileName InitiatingProcessFolderPath
InitiatingProcessIntegrityLevel InitiatingProcessMD5 InitiatingProcessParentCreationTime
InitiatingProcessParentFileName InitiatingProcessRemoteSessionDeviceName InitiatingProcessRemoteSessionIP
InitiatingProcessSHA1 InitiatingProcessSHA256 InitiatingProcessSignatureStatus InitiatingProcessSignerType
InitiatingProcessTokenElevation InitiatingProcessUniqueId InitiatingProcessVersionInfoCompanyName
InitiatingProcessVersionInfoFileDescription InitiatingProcessVersionInfoInternalFileName
InitiatingProcessVersionInfoOriginalFileName InitiatingProcessVersionInfoProductName
InitiatingProcessVersionInfoProductVersion InstallationTime Instructions InterfaceFriendlyName InterfaceUuid
InternetMessageId IpAddress IrmActionCategory IsActivated IsPermissionRequired Isp IssueDate Issuer IssuerHash
JobTitle JoinType KeySize KeyUsage KnowledgeDetails KubernetesNamespace KubernetesPodName KubernetesResource
LastEditedTime LastEventTimestamp LastModifiedByUpn LastModifiedTime LastModifyingAccountUpn LastPasswordChangeTime
LastPasswordChangeTimestamp LastPublishedByUpn LastPublishedDateTime LastPublishedTime LastUpdatedBy
LastUpdatedDateTime LastUpdatedOn LastUsedTime LatestDeliveryAction LatestDeliveryLocation Latitude LifecycleStatus
LocalIP LocalIPType Location LogonType Longitude MD5 MacAddress MachineGroup Manager Manufacturer MergedDeviceIds
MergedToDeviceId MessageFormatSubtype MessageFormatType MessageId MessageSubject MessageVersion MitigationStatus Model
NetworkAdapterDnsSuffix NetworkAdapterName NetworkAdapterStatus NetworkAdapterType NetworkAdapterVendor
NetworkLocationDetails NodeId NodeLabel NodeName OAuthAppId OAuthApplicationId OSArchitecture OSDistribution OSVersion
OSVersionInfo ObjectId ObjectName ObjectType OnPremObjectId OnPremSid OnboardingStatus Operation OperationId
OperationName OrgLevelAction OrgLevelPolicy OsBuildRevision OwnerAccountUpns ParentMessageId ParentProcessId
ParentProcessName Path PermissionDescription PermissionId PermissionName PermissionRisk Phone PhysicalAccessPointId
PhysicalAccessPointName PhysicalAccessStatus PhysicalAssetTag Platform PolicyHash PolicyId PolicyName PolicyVersion
PreviousFileName PreviousFolderPath PreviousRegistryKey PreviousRegistryValueData PreviousRegistryValueName
PreviousSensitivityLabelId PrivilegeLevel ProcessCommandLine ProcessCreationTime ProcessCurrentWorkingDirectory
ProcessIntegrityLevel ProcessName ProcessRemoteSessionDeviceName ProcessRemoteSessionIP ProcessTokenElevation
ProcessUniqueId ProcessVersionInfoCompanyName ProcessVersionInfoFileDescription ProcessVersionInfoInternalFileName
ProcessVersionInfoOriginalFileName ProcessVersionInfoProductName ProcessVersionInfoProductVersion ProductCodeCpe
ProfileDescription ProfileId ProfileName Protocol ProvinceName PublicIP PublishedDate PublishedStatus Query
QueryTarget QueryType Reason RecipientEmailAddress RecipientObjectId RecommendedSecurityUpdate
RecommendedSecurityUpdateId Region RegistryDeviceTag RegistryKey RegistrySource RegistryValueData RegistryValueName
RegistryValueType RemediationOptions RemoteDeviceName RemoteIP RemoteIPType RemoteUrl RemovableMediaManufacturer
RemovableMediaModel RemovableMediaSerialNumber ReportType RequestAccountDomain RequestAccountName RequestAccountSid
RequestDuration RequestId RequestMethod RequestProtocol RequestSourceIP RequestUri ResourceDisplayName ResourceGroup
ResourceID ResourceId ResourceKind ResourceName ResourceTenantId ResourceType ResponseStatusCode RiskDescription
RiskLevel RiskLevelDetails RiskStatus SHA1 SHA256 SafetyTip Scopes SenderDisplayName SenderEmailAddress
SenderFromAddress SenderFromDomain SenderIPv4 SenderIPv6 SenderMailFromAddress SenderMailFromDomain SenderObjectId
SenderType SensitivityLabel SensitivityLabelId SensitivitySubLabel SensorHealthState SequenceCorrelationId
SerialNumber Service ServicePrincipalId ServicePrincipalName ServiceSource ServiceType Severity ShareName
SharepointSiteSensitivityLabelIds Sid SignatureAlgorithm SignatureType Signer SignerHash SipProxyAddress Site SiteUrl
SoftwareName SoftwareVendor SoftwareVersion SourceAgentId SourceCodeInfo SourceDeviceId SourceDeviceName
SourceDomainName SourceId SourceIpAddress SourceLocation SourceNodeId SourceNodeLabel SourceNodeName SourceProvider
SourceProviderAccountId SourceProviderInstanceDisplayName SourceProviderInstanceId SourceRelativeUrl SourceSystem
SourceUrlDomain SourceUserDomainName SourceUserName SourceUserSid StartTime State StorageAccount StorageContainer
StorageFileShare Subject SubjectType SubscriptionId Surname SuspiciousUserAgentName TargetAccountDisplayName
TargetAccountUpn TargetDeviceId TargetDeviceName TargetDomainName TargetFilePath TargetNodeId TargetNodeLabel
TargetNodeName TargetUrlDomain TargetWorkload TeamsChannelName TeamsChannelType TeamsMessageId TeamsTeamName TenantId
TenantMembershipType ThreadId ThreadSubtype ThreatFamily ThreatNames Thumbprint TimeGenerated Timestamp Title
TransactionIdHex TunnelType Type UnallowedUrlDomains UniqueTokenIdentifier Url UrlDomain UrlLocation
UserAccountControl UserAgent UserAgentHeader UserAlternateEmails UserAuthenticationType UserLevelAction
UserLevelPolicy Vendor Version VulnerabilityDescription VulnerabilitySeverityLevel Workload
`

// Nothing reports whether a value is null, "", [] or {}.
func (tr *Tree) Nothing(n uint32) bool {
	v := &tr.Nodes[n]
	return v.Kind == KindNull || v.Kind == KindString && v.End-v.Start == 2 || v.Kind >= KindArray && tr.Empty(n)
}

// Fits reports whether a JSON value fits a column of class c. Null and empty values always do.
func (tr *Tree) Fits(n uint32, c Class) bool {
	k := tr.Nodes[n].Kind
	if k == KindNull || k >= KindArray && tr.Empty(n) {
		return true
	}
	if c == ClassObject {
		return k == KindObject
	}
	if k != KindArray {
		return false
	}
	for e, end := n+1, tr.Nodes[n].Next; e < end; e = tr.Nodes[e].Next {
		switch k := tr.Nodes[e].Kind; {
		case k == KindNull:
		case (k == KindObject) != (c == ClassObjects), k == KindArray:
			return false
		}
	}
	return true
}
