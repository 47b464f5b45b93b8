package format

// role tells whose process the initiating process (the InitiatingProcess* columns) is in a row: the
// actor itself, or the parent of a process of which the row has the columns, too.
type role uint8

const (
	initiatorIsProcess role = iota // process: InitiatingProcess*; its parent: InitiatingProcessParent*
	initiatorIsParent              // process: ProcessId, ProcessCommandLine, FileName...; its parent: InitiatingProcess*
)

// processRole tells which process a row is of. ownProcess: ProcessId or ProcessCommandLine is set.
func processRole(table string, action []byte, ownProcess bool) role {
	switch table {
	case "DeviceProcessEvents", "CloudProcessEvents":
		return initiatorIsParent
	case "DeviceEvents":
		if ownProcess && !actsItself(action) {
			return initiatorIsParent
		}
	}
	return initiatorIsProcess
}

// actsItself reports whether the initiating process is what an ActionType of DeviceEvents is about,
// whatever other process the row names: calls of an API, loading a driver, and a list that
// Elastic's integration has, too.
func actsItself(action []byte) bool {
	if hasSuffixFold(action, "apicall") {
		return true
	}
	switch string(action) {
	case "DriverLoad",
		"NamedPipeEvent", "DpapiAccessed", "GetClipboardData", "BrowserLaunchedToOpenUrl", "ProcessPrimaryTokenModified",
		"PowerShellCommand", "ClrUnbackedModuleLoaded", "LdapSearch", "DnsQueryResponse", "MemoryRemoteProtect",
		"ScreenshotTaken", "AntivirusScanCompleted", "AntivirusScanCancelled", "AntivirusScanFailed",
		"ExploitGuardWin32SystemCallBlocked", "ExploitGuardAcgEnforced", "ControlFlowGuardViolation",
		"WriteToLsassProcessMemory", "AppControlPolicyApplied", "AuditPolicyModification", "AppGuardCreateContainer",
		"AppGuardLaunchedWithUrl", "AppGuardResumeContainer", "AppGuardBrowseToUrl", "SmartScreenUrlWarning",
		"OtherAlertRelatedActivity":
		return true
	}
	return false
}
