package format

// role is the part of the initiating process (the InitiatingProcess* columns) in a row. It is the
// actor itself, or the parent of another process whose columns the row has, too.
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

// actsItself reports whether an ActionType of DeviceEvents is about the initiating process, even if
// the row names another one. Such are calls of an API, loading a driver, and a list that Elastic's
// integration has, too.
func actsItself(action []byte) bool {
	if hasSuffixFold(action, "apicall") {
		return true
	}
	for _, name := range selfActions {
		if equalFold(action, name) {
			return true
		}
	}
	return false
}

// selfActions are the ActionTypes of that list, in lower case.
var selfActions = [...]string{
	"driverload", "namedpipeevent", "dpapiaccessed", "getclipboarddata", "browserlaunchedtoopenurl", "processprimarytokenmodified",
	"powershellcommand", "clrunbackedmoduleloaded", "ldapsearch", "dnsqueryresponse", "memoryremoteprotect", "screenshottaken",
	"antivirusscancompleted", "antivirusscancancelled", "antivirusscanfailed", "exploitguardwin32systemcallblocked",
	"exploitguardacgenforced", "controlflowguardviolation", "writetolsassprocessmemory", "appcontrolpolicyapplied",
	"auditpolicymodification", "appguardcreatecontainer", "appguardlaunchedwithurl", "appguardresumecontainer", "appguardbrowsetourl",
	"smartscreenurlwarning", "otheralertrelatedactivity",
}
