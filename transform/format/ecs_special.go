package format

import (
	"bytes"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// ecsColumnNumbers are the columns that the functions below read.
type ecsColumnNumbers struct {
	ActionType, AdditionalFields, DeviceId, DeviceName, OSPlatform, Protocol, RequestProtocol           columnNumber
	ProcessId, ProcessCommandLine, FileName, FolderPath, SHA1, SHA256, MD5, FileSize                    columnNumber
	InitiatingProcessId, InitiatingProcessFileName, InitiatingProcessFolderPath                         columnNumber
	InitiatingProcessParentId, InitiatingProcessParentFileName                                          columnNumber
	InitiatingProcessSignatureStatus, InitiatingProcessCreationTime, ProcessCreationTime                columnNumber
	InitiatingProcessParentCreationTime                                                                 columnNumber
	AccountName, AccountDomain, AccountSid, AccountObjectId, AccountUpn, AccountDisplayName, AccountId  columnNumber
	InitiatingProcessAccountName, InitiatingProcessAccountDomain, InitiatingProcessAccountSid           columnNumber
	InitiatingProcessAccountObjectId, InitiatingProcessAccountUpn                                       columnNumber
	RequestAccountName, RequestAccountDomain, RequestAccountSid, SenderEmailAddress                     columnNumber
	RegistryKey, RegistryValueName, RegistryValueData, RegistryValueType                                columnNumber
	PreviousRegistryKey, PreviousRegistryValueName, PreviousRegistryValueData                           columnNumber
	RemoteIP, RemotePort, LocalIP, LocalPort, RemoteUrl, Url, EmailDirection                            columnNumber
	Severity, Category, Categories, AttackTechniques, EntityType, DetectionSource, Title, ServiceSource columnNumber
	IPAddresses, LoggedOnUsers, RawEventData, AppGuardContainerId                                       columnNumber
}

// ecsFieldIDs are the fields that the functions below write.
type ecsFieldIDs struct {
	event      fieldID `ecs:"m365_defender.event"`
	deviceInfo fieldID `ecs:"m365_defender.device_info"`

	ecsVersion   fieldID `ecs:"ecs.version"`
	module       fieldID `ecs:"event.module"`
	dataset      fieldID `ecs:"event.dataset"`
	kind         fieldID `ecs:"event.kind"`
	hash         fieldID `ecs:"event.hash"`
	created      fieldID `ecs:"event.created"`
	original     fieldID `ecs:"event.original"`
	severity     fieldID `ecs:"event.severity"`
	categories   fieldID `ecs:"event.category"`
	errorMessage fieldID `ecs:"error.message"`
	tags         fieldID `ecs:"tags"`

	category    fieldID `ecs:"m365_defender.event.category"`
	tenantID    fieldID `ecs:"m365_defender.event.tenant.id"`
	tenantName  fieldID `ecs:"m365_defender.event.tenant.name"`
	operation   fieldID `ecs:"m365_defender.event.operation_name"`
	time        fieldID `ecs:"m365_defender.event.time"`
	timeRaw     fieldID `ecs:"m365_defender.event.time_raw"`
	received    fieldID `ecs:"m365_defender.event.time_received_by_svc"`
	receivedRaw fieldID `ecs:"m365_defender.event.time_received_by_svc_raw"`
	repaired    fieldID `ecs:"m365_defender.event.repaired_text"`

	severityWord fieldID `ecs:"m365_defender.event.severity"`

	unreadableReason   fieldID `ecs:"m365_defender.event.unreadable.reason"`
	unreadableEncoding fieldID `ecs:"m365_defender.event.unreadable.encoding"`
	unreadableLane     fieldID `ecs:"m365_defender.event.unreadable.lane"`
	unreadableOffset   fieldID `ecs:"m365_defender.event.unreadable.offset"`
	unreadableAt       fieldID `ecs:"m365_defender.event.unreadable.at"`
	unreadablePart     fieldID `ecs:"m365_defender.event.unreadable.part"`
	unreadableParts    fieldID `ecs:"m365_defender.event.unreadable.parts"`

	hostID           fieldID `ecs:"host.id"`
	hostName         fieldID `ecs:"host.name"`
	hostHostname     fieldID `ecs:"host.hostname"`
	hostIP           fieldID `ecs:"host.ip"`
	hostType         fieldID `ecs:"host.type"`
	hostArchitecture fieldID `ecs:"host.architecture"`
	osType           fieldID `ecs:"host.os.type"`
	osName           fieldID `ecs:"host.os.name"`
	osFull           fieldID `ecs:"host.os.full"`
	osVersion        fieldID `ecs:"host.os.version"`
	osPlatform       fieldID `ecs:"host.os.platform"`
	deviceID         fieldID `ecs:"device.id"`
	manufacturer     fieldID `ecs:"device.manufacturer"`
	model            fieldID `ecs:"device.model.name"`
	instanceID       fieldID `ecs:"cloud.instance.id"`
	deviceMatch      fieldID `ecs:"m365_defender.device_info.match"`
	deviceStatus     fieldID `ecs:"m365_defender.device_info.status"`

	userName   fieldID `ecs:"user.name"`
	userDomain fieldID `ecs:"user.domain"`
	userID     fieldID `ecs:"user.id"`
	userEmail  fieldID `ecs:"user.email"`

	relatedHosts fieldID `ecs:"related.hosts"`
	relatedIP    fieldID `ecs:"related.ip"`
	relatedUser  fieldID `ecs:"related.user"`
	relatedHash  fieldID `ecs:"related.hash"`

	fileName      fieldID `ecs:"file.name"`
	filePath      fieldID `ecs:"file.path"`
	fileDirectory fieldID `ecs:"file.directory"`
	fileExtension fieldID `ecs:"file.extension"`
	fileSize      fieldID `ecs:"file.size"`
	fileMD5       fieldID `ecs:"file.hash.md5"`
	fileSHA1      fieldID `ecs:"file.hash.sha1"`
	fileSHA256    fieldID `ecs:"file.hash.sha256"`
	dllPath       fieldID `ecs:"dll.path"`
	targetPath    fieldID `ecs:"Target.process.executable"`
	apiName       fieldID `ecs:"process.Ext.api.name"`

	registryHive  fieldID `ecs:"registry.hive"`
	registryKey   fieldID `ecs:"registry.key"`
	registryValue fieldID `ecs:"registry.value"`
	registryPath  fieldID `ecs:"registry.path"`
	registryData  fieldID `ecs:"registry.data.strings"`
	registryType  fieldID `ecs:"registry.data.type"`
	sysmonType    fieldID `ecs:"winlog.event_data.EventType"`

	direction   fieldID `ecs:"network.direction"`
	transport   fieldID `ecs:"network.transport"`
	protocol    fieldID `ecs:"network.protocol"`
	networkType fieldID `ecs:"network.type"`

	urlOriginal  fieldID `ecs:"url.original"`
	urlFull      fieldID `ecs:"url.full"`
	urlScheme    fieldID `ecs:"url.scheme"`
	urlDomain    fieldID `ecs:"url.domain"`
	urlPort      fieldID `ecs:"url.port"`
	urlPath      fieldID `ecs:"url.path"`
	urlQuery     fieldID `ecs:"url.query"`
	urlFragment  fieldID `ecs:"url.fragment"`
	urlUsername  fieldID `ecs:"url.username"`
	urlExtension fieldID `ecs:"url.extension"`

	dnsName     fieldID `ecs:"dns.question.name"`
	dnsType     fieldID `ecs:"dns.question.type"`
	dnsClass    fieldID `ecs:"dns.question.class"`
	dnsCode     fieldID `ecs:"dns.response_code"`
	dnsAnswers  fieldID `ecs:"dns.answers"`
	dnsFlags    fieldID `ecs:"dns.header_flags"`
	dnsResolved fieldID `ecs:"dns.resolved_ip"`

	framework        fieldID `ecs:"threat.framework"`
	tacticName       fieldID `ecs:"threat.tactic.name"`
	tacticID         fieldID `ecs:"threat.tactic.id"`
	techniqueName    fieldID `ecs:"threat.technique.name"`
	techniqueID      fieldID `ecs:"threat.technique.id"`
	subtechniqueName fieldID `ecs:"threat.technique.subtechnique.name"`
	subtechniqueID   fieldID `ecs:"threat.technique.subtechnique.id"`

	emailDirection   fieldID `ecs:"email.direction"`
	containerRuntime fieldID `ecs:"container.runtime"`
	orchestratorType fieldID `ecs:"orchestrator.type"`
	resourceName     fieldID `ecs:"orchestrator.resource.name"`
	namespace        fieldID `ecs:"orchestrator.namespace"`
}

// ecsProcess are the fields of process, or of process.parent.
type ecsProcess struct {
	pid         fieldID `ecs:"pid"`
	entityID    fieldID `ecs:"entity_id"`
	name        fieldID `ecs:"name"`
	executable  fieldID `ecs:"executable"`
	commandLine fieldID `ecs:"command_line"`
	args        fieldID `ecs:"args"`
	argsCount   fieldID `ecs:"args_count"`
	start       fieldID `ecs:"start"`
	md5         fieldID `ecs:"hash.md5"`
	sha1        fieldID `ecs:"hash.sha1"`
	sha256      fieldID `ecs:"hash.sha256"`
	signature   fieldID `ecs:"code_signature.status"`
	signed      fieldID `ecs:"code_signature.exists"`
	trusted     fieldID `ecs:"code_signature.trusted"`
}

// ecsSide are the fields of source, or of destination.
type ecsSide struct {
	ip      fieldID `ecs:"ip"`
	address fieldID `ecs:"address"`
	port    fieldID `ecs:"port"`
	mac     fieldID `ecs:"mac"`
	domain  fieldID `ecs:"domain"`
}

// special fills in the fields that depend on more than one column.
func (e *ecs) special(table string, action []byte, as role) {
	s := e.sheet
	e.user(table)
	e.processes(table, as)
	if text := e.text(e.col.Severity); len(text) > 0 {
		e.set(e.field.severityWord, asLower, text, noSource) // as Elastic's integration has it
	}
	evidence := table == "AlertEvidence" || table == "BehaviorEntities"
	switch table {
	case "AlertInfo", "AlertEvidence", "BehaviorInfo", "BehaviorEntities":
		e.finding()
		if evidence {
			e.evidence()
		}
	case "DeviceFileEvents", "DeviceImageLoadEvents":
		e.file()
		if table == "DeviceImageLoadEvents" {
			e.path(e.field.dllPath)
		}
		e.requestProtocol()
	case "DeviceEvents":
		e.deviceEvent(action, as)
	case "DeviceNetworkEvents":
		e.dns()
		e.request(action)
	case "DeviceInfo":
		e.loggedOn()
	case "DeviceNetworkInfo":
		e.addresses()
	case "CloudProcessEvents":
		e.pod()
	case "EmailAttachmentInfo":
		s.setText(e.field.fileExtension, extension(s.textOf(e.field.fileName)), noSource) // without a FileType
	case "EmailEvents", "EmailPostDeliveryEvents":
		if text := e.text(e.col.EmailDirection); equalFold(text, "intra-org") {
			s.drop(e.field.emailDirection)
			s.setWord(e.field.emailDirection, "internal")
		}
	}
	e.registry()
	e.network(table, action)
	e.url(table)
	for i := range e.sources {
		side := &e.sources[i]
		s.setText(side.address, s.textOf(side.ip), noSource)
		s.setText(side.address, s.textOf(side.domain), noSource) // where there is no address
	}
	if len(e.text(e.col.AppGuardContainerId)) > 0 {
		s.setWord(e.field.containerRuntime, "Application Guard")
	}
}

// user fills in user.*, all of it of one account: that of the row. For a file that was asked for
// over the network it is the account that asked. For a row without an account it is that of the
// initiating process, unless the row is of another account: who logs on, or who a process runs as.
func (e *ecs) user(table string) {
	s, f, c := e.sheet, &e.field, &e.col
	name, domain, sid, object, upn := c.AccountName, c.AccountDomain, c.AccountSid, c.AccountObjectId, c.AccountUpn
	switch {
	case table == "DeviceFileEvents" && e.has(c.RequestAccountName):
		name, domain, sid, object, upn = c.RequestAccountName, c.RequestAccountDomain, c.RequestAccountSid, c.RequestAccountSid, c.AccountUpn
	case e.has(name), e.has(sid), e.has(upn), e.has(object), e.has(c.AccountDisplayName), e.has(c.AccountId):
	case table == "DeviceInfo", table == "DeviceLogonEvents", table == "DeviceProcessEvents":
	case record.HasPrefix(bytesOf(table), "Device"):
		name, domain, sid = c.InitiatingProcessAccountName, c.InitiatingProcessAccountDomain, c.InitiatingProcessAccountSid
		object, upn = c.InitiatingProcessAccountObjectId, c.InitiatingProcessAccountUpn
	}
	e.put2(f.userName, name)
	e.put2(f.userDomain, domain)
	e.put2(f.userID, sid)
	e.put2(f.userID, object)
	if text := e.text(upn); len(text) > 0 {
		e.set(f.userEmail, asEmail, text, upn)
	}
	if table == "CloudAppEvents" && !s.has(f.userName) {
		if tree, n, ok := e.open(c.RawEventData); ok {
			if v := tree.Find(n, "UserId"); v != 0 {
				s.setText(f.userName, e.scalar(&tree, v), noSource)
			}
		}
	}
	e.put2(f.userName, c.AccountDisplayName)
	if mail := s.textOf(f.userEmail); !s.has(f.userName) && mail != nil {
		if user, at, ok := splitUPN(mail); ok {
			s.setText(f.userName, user, noSource)
			s.setText(f.userDomain, at, noSource)
		}
	}
	s.setText(f.relatedUser, e.text(c.AccountDisplayName), noSource)
	if record.HasPrefix(bytesOf(table), "Identity") || record.HasPrefix(bytesOf(table), "Cloud") {
		s.setText(f.relatedUser, s.textOf(f.userID), noSource) // as Elastic's integration does
	}
	for _, domain := range [...]columnNumber{c.AccountDomain, c.InitiatingProcessAccountDomain, c.RequestAccountDomain} {
		if text := e.text(domain); len(text) > 0 && !isAuthority(text) {
			s.setText(f.relatedHosts, text, noSource)
		}
	}
}

// put2 gives a field the text of a column.
func (e *ecs) put2(f fieldID, c columnNumber) {
	if e.has(c) {
		e.sheet.setText(f, e.textThere(c), c)
	}
}

// processes fills in process and process.parent, each from the columns that are its own in this
// row.
func (e *ecs) processes(table string, as role) {
	c := &e.col
	initiator := &e.process[as] // process, or process.parent
	e.image(initiator, c.InitiatingProcessFolderPath, c.InitiatingProcessFileName)
	e.processID(initiator, c.InitiatingProcessId)
	e.signature(initiator, e.text(c.InitiatingProcessSignatureStatus), c.InitiatingProcessSignatureStatus)
	starts := [2][]byte{}
	starts[as] = e.text(c.InitiatingProcessCreationTime)
	switch {
	case as == initiatorIsParent:
		e.image(&e.process[0], c.FolderPath, c.FileName)
		starts[0] = e.text(c.ProcessCreationTime)
	default:
		e.programName(&e.process[1], c.InitiatingProcessParentFileName, baseName(e.text(c.InitiatingProcessParentFileName)))
		e.processID(&e.process[1], c.InitiatingProcessParentId)
		starts[1] = e.text(c.InitiatingProcessParentCreationTime)
	}
	for i := range e.process {
		e.complete(&e.process[i], starts[i])
	}
}

// image fills in the path and the name of a process.
func (e *ecs) image(p *ecsProcess, folder, name columnNumber) {
	bare := baseName(e.text(name))
	e.joined(p.executable, folder, bare)
	e.programName(p, name, bare)
}

// programName fills in the name of a process. bare is the last part of the column. A column that is
// a path is its executable, too, where nothing else is.
func (e *ecs) programName(p *ecsProcess, name columnNumber, bare []byte) {
	s, text := e.sheet, e.text(name)
	if len(bare) == len(text) {
		s.setText(p.name, bare, name)
		return
	}
	s.setText(p.name, bare, noSource)
	s.setText(p.executable, text, name)
}

// joined gives a field the path of the file name in a folder.
func (e *ecs) joined(f fieldID, folder columnNumber, name []byte) {
	s, dir := e.sheet, e.text(folder)
	if len(dir) == 0 {
		return
	}
	if len(name) == 0 || endsInName(dir, name) {
		s.setText(f, dir, folder)
		return
	}
	from := len(s.text)
	s.text = appendPath(s.text, dir, name)
	s.setText(f, e.made(from), noSource)
}

// processID leaves out 0 where no name is known: it means no process.
func (e *ecs) processID(p *ecsProcess, c columnNumber) {
	i, ok := record.ParseInteger(e.text(c))
	if ok && (i != 0 || e.sheet.has(p.name)) {
		e.sheet.setInteger(p.pid, i, c)
	}
}

func (e *ecs) signature(p *ecsProcess, status []byte, c columnNumber) {
	s := e.sheet
	switch {
	case len(status) == 0:
	case equalFold(status, "valid"):
		s.setWord(p.signature, "trusted")
		s.setBoolean(p.signed, true, noSource)
		s.setBoolean(p.trusted, true, noSource)
	case equalFold(status, "unsigned"):
		s.setText(p.signature, status, c)
		s.setBoolean(p.signed, false, noSource)
		s.setBoolean(p.trusted, false, noSource)
	default:
		s.setText(p.signature, status, c)
	}
}

// complete fills in the fields that follow from the other fields of a process.
func (e *ecs) complete(p *ecsProcess, start []byte) {
	s := e.sheet
	if line := s.textOf(p.commandLine); line != nil && !s.has(p.args) {
		e.arguments(p, line)
	}
	if !s.has(p.name) {
		switch {
		case s.has(p.executable):
			s.setText(p.name, baseName(s.textOf(p.executable)), noSource)
		case s.has(p.args):
			s.setText(p.name, baseName(s.textOf(p.args)), noSource)
		}
	}
	if pid, ok := s.integerOf(p.pid); ok {
		host := e.named
		if d := e.own.Device; len(host) == 0 && d != nil {
			host = d.ID
		}
		from := len(s.text)
		if s.text, ok = appendEntityID(s.text, pid, start, host); ok {
			s.setText(p.entityID, e.made(from), noSource)
		}
	}
}

func (e *ecs) arguments(p *ecsProcess, line []byte) {
	s, count := e.sheet, int64(0)
	for rest, ok := line, true; ok; {
		var arg []byte
		if arg, rest, s.text, ok = nextArgument(s.text, rest); ok && len(arg) > 0 {
			count++
			s.setText(p.args, arg, noSource)
		}
	}
	if count > 0 {
		s.setInteger(p.argsCount, count, noSource)
	}
}

// integerOf returns the value of a field, if it is an integer.
func (s *sheet) integerOf(f fieldID) (int64, bool) {
	if !s.has(f) {
		return 0, false
	}
	e := &s.entries[s.slot(f).first]
	return e.number, e.kind == entryInteger
}

// file fills in file.path, file.directory and file.extension.
func (e *ecs) file() {
	s, f := e.sheet, &e.field
	e.path(f.filePath)
	if path := s.textOf(f.filePath); path != nil {
		dir := directory(path)
		source := uint16(noSource)
		if bytes.Equal(dir, e.text(e.col.FolderPath)) {
			source = e.col.FolderPath
		}
		s.setText(f.fileDirectory, dir, source)
		if !s.has(f.fileName) {
			s.setText(f.fileName, baseName(path), noSource)
		}
	}
	if name := s.textOf(f.fileName); name != nil {
		s.setText(f.fileExtension, extension(name), noSource)
	}
}

// path gives a field the path of the row's file. Without a name, a folder is the path.
func (e *ecs) path(f fieldID) { e.joined(f, e.col.FolderPath, baseName(e.text(e.col.FileName))) }

// fileColumns gives file.* the columns of a file.
func (e *ecs) fileColumns() {
	f, c := &e.field, &e.col
	e.put2(f.fileSHA1, c.SHA1)
	e.put2(f.fileSHA256, c.SHA256)
	e.put2(f.fileMD5, c.MD5)
	if text := e.text(c.FileSize); len(text) > 0 {
		e.set(f.fileSize, asLong, text, c.FileSize)
	}
	if text := e.text(c.FileName); len(text) > 0 {
		e.set(f.fileName, asName, text, c.FileName)
	}
	e.file()
}

// requestProtocol: Local and Unknown are no protocols.
func (e *ecs) requestProtocol() {
	if text := e.text(e.col.RequestProtocol); len(text) > 0 && !equalFold(text, "local") && !equalFold(text, "unknown") {
		e.set(e.field.protocol, asLower, text, e.col.RequestProtocol)
	}
}

func (e *ecs) deviceEvent(action []byte, as role) {
	s, f := e.sheet, &e.field
	switch {
	case hasSuffixFold(action, "apicall"):
		s.setText(f.apiName, action[:len(action)-len("ApiCall")], noSource)
		for _, name := range [...]string{"createremotethreadapicall", "readprocessmemoryapicall", "ntallocatevirtualmemoryremoteapicall", "openprocessapicall"} {
			if equalFold(action, name) {
				e.path(f.targetPath)
			}
		}
	case containsFold(action, "driverload"):
		e.path(f.dllPath)
	case as == initiatorIsProcess:
		e.fileColumns()
	}
}

// registry fills in registry.*, in any table that has a key.
func (e *ecs) registry() {
	s, f, c := e.sheet, &e.field, &e.col
	key := e.text(c.RegistryKey)
	if len(key) == 0 {
		key = e.text(c.PreviousRegistryKey)
	}
	value, valueColumn := e.text(c.RegistryValueName), c.RegistryValueName
	if len(value) == 0 {
		value, valueColumn = e.text(c.PreviousRegistryValueName), c.PreviousRegistryValueName
	}
	if len(key) == 0 && len(value) == 0 {
		return
	}
	hive, below := splitHive(key)
	if hive != "" {
		s.setWord(f.registryHive, hive)
	}
	s.setText(f.registryKey, below, noSource)
	s.setText(f.registryValue, value, valueColumn)
	from := len(s.text)
	s.text = appendRegistryPath(s.text, hive, below, value)
	s.setText(f.registryPath, e.made(from), noSource)
	s.setText(f.registryData, e.text(c.RegistryValueData), c.RegistryValueData)
	s.setText(f.registryData, e.text(c.PreviousRegistryValueData), noSource)
	e.put2(f.registryType, c.RegistryValueType)
	if word := sysmonEventType(e.text(c.ActionType)); word != "" {
		s.setWord(f.sysmonType, word)
	}
}

// network fills in source, destination and network from the addresses of both sides: the source
// began the connection. Where nobody knows, it is the device.
func (e *ecs) network(table string, action []byte) {
	s, f, c := e.sheet, &e.field, &e.col
	connection := table == "DeviceNetworkEvents"
	e.networkProtocol(table, action)
	if table == "DeviceLogonEvents" || !e.has(c.RemoteIP) && !e.has(c.LocalIP) && !e.has(c.RemotePort) && !e.has(c.LocalPort) && !e.has(c.RemoteUrl) {
		return
	}
	dir := connectionDirection(action, e.member("direction"))
	local, remote := &e.sources[0], &e.sources[1]
	if dir == directionInbound {
		local, remote = remote, local
	}
	e.side(local, c.LocalIP, c.LocalPort)
	e.side(remote, c.RemoteIP, c.RemotePort)
	if connection {
		s.setWord(f.direction, [...]string{"unknown", "inbound", "outbound"}[dir])
		if mac := e.member("Source Mac"); mac != nil {
			e.set(local.mac, asMAC, mac, noSource)
		}
		if mac := e.member("Destination Mac"); mac != nil {
			e.set(remote.mac, asMAC, mac, noSource)
		}
	}
	for _, column := range [...]columnNumber{c.LocalIP, c.RemoteIP} {
		if ip, _, ok := parseIP(e.text(column)); ok {
			word := "ipv6"
			if ip.Is4() {
				word = "ipv4"
			}
			s.setWord(f.networkType, word)
		}
	}
	if u, ok := splitURL(withoutPrefix(e.text(c.RemoteUrl))); ok && len(u.domain) > 0 {
		if _, _, isIP := parseIP(u.domain); !isIP {
			s.setText(remote.domain, u.domain, noSource)
		}
	}
}

func (e *ecs) side(to *ecsSide, ip, port columnNumber) {
	if text := e.text(ip); len(text) > 0 {
		e.set(to.ip, asIP, text, ip)
	}
	if text := e.text(port); len(text) > 0 {
		e.set(to.port, asLong, text, port)
	}
}

func (e *ecs) networkProtocol(table string, action []byte) {
	s, f := e.sheet, &e.field
	switch word := inspectedProtocol(action); {
	case word != "" && word != "icmp":
		s.setWord(f.protocol, word)
	case hasPrefixFold(action, "dnsquery"): // of DeviceEvents
		s.setWord(f.protocol, "dns")
	}
	text := e.text(e.col.Protocol)
	if len(text) == 0 {
		return
	}
	transport, application := protocolWord(text)
	switch {
	case transport != "":
		s.setWord(f.transport, transport)
		if string(text) == transport {
			s.setText(f.transport, text, e.col.Protocol)
		}
	case application == "negotiate" && table == "DeviceLogonEvents", equalFold(text, "unknown"), equalFold(text, "microsoft_authentication_package_v1_0"):
	case application != "" || table != "DeviceNetworkEvents" && table != "DeviceEvents":
		e.set(f.protocol, asLower, text, e.col.Protocol)
	default:
		e.set(f.transport, asLower, text, e.col.Protocol)
	}
}

// url fills in url.* from the row's URL: Url, else RemoteUrl, else the first of an alert's mail.
func (e *ecs) url(table string) {
	s, f := e.sheet, &e.field
	text, source := e.text(e.col.Url), e.col.Url
	if len(text) == 0 {
		text, source = e.text(e.col.RemoteUrl), e.col.RemoteUrl
	}
	if cut := withoutPrefix(text); len(cut) < len(text) {
		text, source = cut, noSource
	}
	if len(text) == 0 && e.opened && (table == "AlertEvidence" || table == "BehaviorEntities") {
		source = noSource
		text = e.firstURL()
	}
	if len(text) == 0 {
		return
	}
	s.setText(f.urlOriginal, text, source)
	u, ok := splitURL(text)
	if !ok {
		return
	}
	if u.scheme != nil {
		s.setText(f.urlFull, text, noSource)
		s.setText(f.urlScheme, u.scheme, noSource)
	}
	s.setText(f.urlDomain, u.domain, noSource)
	s.setText(f.relatedHosts, u.domain, noSource)
	if u.port > 0 {
		s.setInteger(f.urlPort, int64(u.port), noSource)
	}
	s.setText(f.urlPath, u.path, noSource)
	s.setText(f.urlQuery, u.query, noSource)
	s.setText(f.urlFragment, u.fragment, noSource)
	s.setText(f.urlUsername, u.username, noSource)
	s.setText(f.urlExtension, extension(baseName(u.path)), noSource)
}

// request fills in the URL of an inspected request, which names its path and its host apart, unless
// RemoteUrl has a whole one. The host is the destination.
func (e *ecs) request(action []byte) {
	if !equalFold(action, "httpconnectioninspected") || !e.opened || e.has(e.col.RemoteUrl) {
		return
	}
	s, f := e.sheet, &e.field
	target := e.member("uri")
	u := splitRequest(target, e.member("host"))
	s.setText(f.urlOriginal, target, noSource)
	s.setText(f.urlScheme, u.scheme, noSource)
	s.setText(f.urlPath, u.path, noSource)
	s.setText(f.urlQuery, u.query, noSource)
	s.setText(f.urlExtension, extension(baseName(u.path)), noSource)
	if u.port > 0 {
		s.setInteger(f.urlPort, int64(u.port), noSource)
	}
	if u.domain == nil {
		return
	}
	s.setText(f.urlDomain, u.domain, noSource)
	s.setText(f.relatedHosts, u.domain, noSource)
	if _, _, isIP := parseIP(u.domain); !isIP {
		s.setText(e.sources[1].domain, u.domain, noSource)
	}
}

// firstURL returns the first URL of a mail or of a URL entity in an alert's AdditionalFields.
func (e *ecs) firstURL() []byte {
	tree, n := &e.additional, e.additional.Find(e.additionalAt, "Urls")
	if n == 0 || tree.Nodes[n].Kind != record.KindArray || tree.Empty(n) {
		return e.member("Url")
	}
	if tree.Nodes[n+1].Kind == record.KindObject {
		if n = tree.Find(n+1, "Url"); n == 0 {
			return nil
		}
		return e.scalar(tree, n)
	}
	return e.scalar(tree, n+1)
}

// dns fills in dns.* of an inspected connection.
func (e *ecs) dns() {
	s, f := e.sheet, &e.field
	if !hasPrefixFold(e.text(e.col.ActionType), "dns") || !e.opened {
		return
	}
	s.setText(f.dnsName, e.member("query"), noSource)
	s.setText(f.dnsType, e.member("qtype_name"), noSource)
	s.setText(f.dnsClass, e.member("qclass_name"), noSource)
	s.setText(f.dnsCode, e.member("rcode_name"), noSource)
	for _, flag := range [...]string{"AA", "TC", "RD", "RA", "AD", "CD", "DO"} {
		if equalFold(e.member(flag), "true") {
			s.setWord(f.dnsFlags, flag)
		}
	}
	answers, ttls := e.listText("answers"), e.listText("TTLs")
	for n := 0; n < maxElements; n++ {
		answer, rest, ok := nextElement(answers)
		if !ok {
			break
		}
		answers = rest
		var seconds int64
		ttl, rest, known := nextElement(ttls)
		ttls = rest
		if known {
			seconds, known = wholeSeconds(ttl)
		}
		if len(answer) == 0 {
			continue
		}
		from := len(s.text)
		members := uint32(1)
		if known {
			members++
		}
		s.text = msgp.AppendMapHeader(s.text, members)
		s.text = msgp.AppendString(s.text, "data")
		s.text = msgp.AppendStringFromBytes(s.text, answer)
		if known {
			s.text = msgp.AppendString(s.text, "ttl")
			s.text = msgp.AppendInt64(s.text, seconds)
		}
		s.setEncoded(f.dnsAnswers, e.made(from), noSource)
		if _, _, ok := parseIP(answer); ok {
			e.set(f.dnsResolved, asIP, answer, noSource)
			e.set(f.relatedIP, asIP, answer, noSource)
		}
	}
}

// listText returns a member of AdditionalFields that is a list, natively or in a string, as JSON
// text.
func (e *ecs) listText(name string) []byte {
	n := e.additional.Find(e.additionalAt, name)
	if n == 0 {
		return nil
	}
	if e.additional.Nodes[n].Kind == record.KindArray {
		return e.json(&e.additional, n)
	}
	return e.scalar(&e.additional, n)
}

// finding fills in what alerts and behaviors share.
func (e *ecs) finding() {
	s, f, c := e.sheet, &e.field, &e.col
	severity := e.text(c.Severity)
	for _, level := range [...]struct {
		word  string
		value int64
	}{{"informational", 21}, {"low", 21}, {"medium", 47}, {"high", 73}, {"critical", 99}} {
		if equalFold(severity, level.word) {
			s.setInteger(f.severity, level.value, noSource)
		}
	}
	e.tactic(e.text(c.Category))
	if tree, n, ok := e.list(c.Categories); ok {
		for at := n + 1; at < tree.Nodes[n].Next; at = tree.Nodes[at].Next {
			e.tactic(e.scalar(&tree, at))
		}
	}
	if tree, n, ok := e.list(c.AttackTechniques); ok {
		for at := n + 1; at < tree.Nodes[n].Next; at = tree.Nodes[at].Next {
			e.technique(e.scalar(&tree, at))
		}
	}
	if !s.has(f.categories) {
		s.setWord(f.categories, "intrusion_detection")
	}
}

func (e *ecs) tactic(word []byte) {
	if name, id := tacticOf(word); name != "" {
		e.sheet.setWord(e.field.tacticName, name)
		e.sheet.setWord(e.field.tacticID, id)
		e.sheet.setWord(e.field.framework, "MITRE ATT&CK")
	}
}

func (e *ecs) technique(text []byte) {
	s, f := e.sheet, &e.field
	name, id, parent, ok := splitTechnique(text)
	if !ok {
		return
	}
	s.setWord(f.framework, "MITRE ATT&CK")
	s.setText(f.techniqueID, id[:parent], noSource)
	if parent < len(id) {
		s.setText(f.subtechniqueID, id, noSource)
		s.setText(f.subtechniqueName, name, noSource)
	} else {
		s.setText(f.techniqueName, name, noSource)
	}
}

// evidence fills in what one row of evidence is of: a file always; a process from AdditionalFields,
// through its references.
func (e *ecs) evidence() {
	s, f, c := e.sheet, &e.field, &e.col
	e.fileColumns()
	if !s.has(f.fileDirectory) {
		e.put2(f.fileDirectory, c.FolderPath)
	}
	if !equalFold(e.text(c.EntityType), "process") {
		e.complete(&e.process[0], nil)
		return
	}
	p, parent := &e.process[0], &e.process[1]
	e.joined(p.executable, c.FolderPath, baseName(e.text(c.FileName)))
	if e.opened {
		s.setText(p.commandLine, e.member("CommandLine"), noSource)
		e.imageOf(p, e.additionalAt)
		if above, ok := e.object(e.additionalAt, "ParentProcess"); ok {
			if i, ok := record.ParseInteger(e.memberOf(above, "ProcessId")); ok {
				s.setInteger(parent.pid, i, noSource)
			}
			s.setText(parent.commandLine, e.memberOf(above, "CommandLine"), noSource)
			if text := e.memberOf(above, "CreationTimeUtc"); text != nil {
				e.set(parent.start, asDate, text, noSource)
			}
			e.imageOf(parent, above)
		}
	}
	e.complete(p, s.textOf(p.start))
	e.complete(parent, s.textOf(parent.start))
}

// imageOf fills in the program of a process that is an object in AdditionalFields.
func (e *ecs) imageOf(p *ecsProcess, of uint32) {
	image, ok := e.object(of, "ImageFile")
	if !ok {
		return
	}
	s := e.sheet
	name, dir := e.memberOf(image, "Name"), e.memberOf(image, "Directory")
	s.setText(p.name, baseName(name), noSource)
	if len(dir) > 0 && len(name) > 0 {
		from := len(s.text)
		s.text = appendPath(s.text, dir, name)
		s.setText(p.executable, e.made(from), noSource)
	}
	e.hashes(p, image)
}

func (e *ecs) hashes(p *ecsProcess, image uint32) {
	s, tree := e.sheet, &e.additional
	list := tree.Find(image, "FileHashes")
	if list == 0 || tree.Nodes[list].Kind != record.KindArray {
		return
	}
	for at := list + 1; at < tree.Nodes[list].Next; at = tree.Nodes[at].Next {
		value := e.memberOf(at, "Value")
		switch algorithm := e.memberOf(at, "Algorithm"); {
		case equalFold(algorithm, "md5"):
			s.setText(p.md5, value, noSource)
		case equalFold(algorithm, "sha1"):
			s.setText(p.sha1, value, noSource)
		case equalFold(algorithm, "sha256"):
			s.setText(p.sha256, value, noSource)
		default:
			continue
		}
		s.setText(e.field.relatedHash, value, noSource)
	}
}

// memberOf returns the text of a member of an object in AdditionalFields.
func (e *ecs) memberOf(object uint32, name string) []byte {
	if n := e.additional.Find(object, name); n != 0 {
		return e.scalar(&e.additional, n)
	}
	return nil
}

// object returns a member of an object in AdditionalFields that is an object, or the one that it
// refers to.
func (e *ecs) object(of uint32, name string) (uint32, bool) {
	tree := &e.additional
	n := tree.Find(of, name)
	if n == 0 || tree.Nodes[n].Kind != record.KindObject {
		return 0, false
	}
	ref := tree.Ref(n)
	if ref == 0 {
		return n, true
	}
	for at := range tree.Nodes {
		v := &tree.Nodes[at]
		if k := at + 1; v.Kind == record.KindObject && v.Next > uint32(k) && tree.Nodes[k+1].Kind == record.KindString &&
			string(tree.Inner(uint32(k))) == "$id" && bytes.Equal(tree.Inner(uint32(k+1)), tree.Inner(ref)) {
			return uint32(at), true
		}
	}
	return 0, false
}

// loggedOn adds the names of LoggedOnUsers to related.user.
func (e *ecs) loggedOn() { e.eachOf(e.col.LoggedOnUsers, "UserName", e.field.relatedUser, asText) }

// addresses adds the addresses of IPAddresses to host.ip.
func (e *ecs) addresses() {
	e.eachOf(e.col.IPAddresses, "IPAddress", e.field.hostIP, asIP)
	e.eachOf(e.col.IPAddresses, "IPAddress", e.field.relatedIP, asIP)
}

// eachOf adds a member of every object in a column's list to a field.
func (e *ecs) eachOf(c columnNumber, member string, f fieldID, how conversion) {
	tree, n, ok := e.list(c)
	if !ok {
		return
	}
	for at := n + 1; at < tree.Nodes[n].Next; at = tree.Nodes[at].Next {
		if v := tree.Find(at, member); v != 0 {
			if text := e.scalar(&tree, v); len(text) > 0 {
				e.set(f, how, text, noSource)
			}
		}
	}
}

func (e *ecs) pod() {
	if e.sheet.has(e.field.resourceName) || e.sheet.has(e.field.namespace) {
		e.sheet.setWord(e.field.orchestratorType, "kubernetes")
	}
}

// device writes the device of a row.
func (e *ecs) device() {
	d := e.own.Device
	if d == nil {
		return
	}
	s, f := e.sheet, &e.field
	s.setWord(f.deviceStatus, d.Status)
	if d.Match != "" {
		s.setWord(f.deviceMatch, d.Match)
	}
	if d.ID == nil {
		return
	}
	if !s.has(f.hostID) {
		s.setText(f.hostID, d.ID, noSource)
		s.setText(f.deviceID, d.ID, noSource)
		s.setText(f.instanceID, d.ID, noSource)
	}
	s.setText(f.relatedHosts, d.ID, noSource)
	var family []byte
	for i := range d.Columns {
		text := encodedText(d.Columns[i].Value)
		if len(text) == 0 {
			continue
		}
		switch d.Columns[i].Name {
		case "DeviceName":
			if !s.has(f.hostName) {
				e.set(f.hostName, asLower, text, noSource)
				e.set(f.hostHostname, asLower, text, noSource)
			}
			e.set(f.relatedHosts, asLower, text, noSource)
		case "OSPlatform":
			s.setText(f.osFull, text, noSource)
			s.setText(f.osName, text, noSource)
			if word := platformSystem(text); word != "" {
				s.setWord(f.osType, word)
			}
		case "OSFamily":
			family = text
		case "OSVersion":
			s.setText(f.osVersion, text, noSource)
		case "OSDistribution":
			s.setText(f.osPlatform, text, noSource)
		case "OSArchitecture":
			s.setText(f.hostArchitecture, text, noSource)
		case "PublicIP":
			e.set(f.hostIP, asIP, text, noSource)
			e.set(f.relatedIP, asIP, text, noSource)
		case "DeviceType":
			s.setText(f.hostType, text, noSource)
		case "Vendor":
			s.setText(f.manufacturer, text, noSource)
		case "Model":
			s.setText(f.model, text, noSource)
		}
	}
	if word := platformSystem(family); word != "" {
		s.setWord(f.osType, word)
	}
}

// found puts the device that was found in the place of the one that the row names. That one was
// merged into it, or the row has another form of its name. So a host has one id and one name, and
// no facts of another. What the row says is in related.hosts.
func (e *ecs) found() {
	id, name := e.text(e.col.DeviceId), e.text(e.col.DeviceName)
	e.named = id
	d := e.own.Device
	if d == nil || d.ID == nil {
		return
	}
	same := sameFold(id, d.ID)
	if len(id) > 0 {
		e.cells[e.col.DeviceId%maxColumns] = ecsCell{d.ID, told}
		if !same {
			e.sheet.setText(e.field.relatedHosts, id, noSource)
		}
	}
	if same || len(name) == 0 {
		return
	}
	if other := column(d, "DeviceName"); len(other) > 0 && !sameFold(name, other) {
		e.set(e.field.relatedHosts, asLower, name, noSource)
		e.cells[e.col.DeviceName%maxColumns] = ecsCell{other, told}
	}
}

// alert gives a row what its AlertInfo says and the row does not, as if it were columns of the row.
func (e *ecs) alert() {
	d := e.own.Device
	if d == nil {
		return
	}
	for i := range d.Alert {
		c, ok := e.mapping.byName[d.Alert[i].Name]
		if !ok || e.has(c) {
			continue
		}
		if text := encodedText(d.Alert[i].Value); len(text) > 0 {
			*e.take(c) = ecsCell{text, told}
			continue
		}
		e.sheet.setEncoded(e.mapping.columns[c].rest, d.Alert[i].Value, noSource)
		count, rest, err := msgp.ReadArrayHeaderBytes(d.Alert[i].Value)
		for ; err == nil && count > 0; count-- {
			var element []byte
			if element, rest, err = msgp.ReadStringZC(rest); err != nil {
				break
			}
			if c == e.col.AttackTechniques {
				e.technique(element)
			} else {
				e.tactic(element)
			}
		}
	}
}

// system fills in host.os.type, which most rules for hosts ask for. It comes from the row's
// platform, else from its device, else from a path, else from columns that only one system has.
func (e *ecs) system(table string) {
	s, f, c := e.sheet, &e.field, &e.col
	if s.has(f.osType) {
		return
	}
	word := platformSystem(e.text(c.OSPlatform))
	if word == "" && table == "IdentityQueryEvents" {
		word = systemWord(e.member("SourceComputerOperatingSystemType"))
	}
	if word == "" && e.own.Platform != nil && e.has(c.DeviceId) {
		word = platformSystem(e.own.Platform(e.r))
	}
	for _, path := range [...]columnNumber{c.FolderPath, c.InitiatingProcessFolderPath} {
		if word == "" {
			word = pathSystem(e.text(path))
		}
	}
	if word == "" {
		word = e.guess(table)
	}
	if word != "" {
		s.setWord(f.osType, word)
	}
}

// systemWord is one of ECS's words for a system, "" for any other text.
func systemWord(b []byte) string {
	for _, word := range [...]string{"windows", "linux", "macos", "unix", "ios", "android"} {
		if equalFold(b, word) {
			return word
		}
	}
	return ""
}

// guess is how Elastic's integration tells the system of a device event. A Mac's accounts have
// SIDs, too: the functions of POSIX tell it from Windows.
func (e *ecs) guess(table string) string {
	posix := 0
	for _, member := range [...]string{"InitiatingProcessPosixEffectiveGroup", "InitiatingProcessPosixEffectiveUser", "InitiatingProcessPosixFilePermissions",
		"InitiatingProcessPosixProcessGroupId", "InitiatingProcessPosixRealUser", "InitiatingProcessPosixSessionId"} {
		if e.opened && e.additional.Find(e.additionalAt, member) != 0 {
			posix++
		}
	}
	switch table {
	case "DeviceRegistryEvents", "DeviceImageLoadEvents":
		return "windows"
	case "DeviceEvents":
		action := e.text(e.col.ActionType)
		if hasSuffixFold(action, "apicall") || containsFold(action, "driverload") {
			return "windows"
		}
	case "DeviceFileEvents", "DeviceProcessEvents", "DeviceLogonEvents", "DeviceNetworkEvents":
		if posix < 6 && (len(e.text(e.col.AccountSid)) > 0 || len(e.text(e.col.InitiatingProcessAccountSid)) > 0) {
			return "windows"
		}
	default:
		return ""
	}
	if posix == 6 {
		return "unix"
	}
	return ""
}
