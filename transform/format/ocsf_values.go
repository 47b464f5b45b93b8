package format

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// ocsfKind is a way to write one attribute from columns.
type ocsfKind struct {
	write  func(o *ocsf, st *ocsfStep)
	suffix string // [] for lists
	twin   bool   // it has a twin with _dt
}

// ocsfSplat is a way to write several attributes of the object around it.
type ocsfSplat struct {
	write   func(o *ocsf, st *ocsfStep)
	writes  func(args []string) []string
	needs   []string // one of these is there if anything was written
	columns int      // how many arguments it has
	enum    bool     // before them a name and an enum
}

var ocsfKinds = map[string]ocsfKind{
	"=":         {write: (*ocsf).constant},
	"text":      {write: (*ocsf).textual},
	"texts":     {write: (*ocsf).texts, suffix: "[]"},
	"base_name": {write: (*ocsf).baseName},
	"int":       {write: (*ocsf).integer},
	"long":      {write: (*ocsf).long},
	"pid":       {write: (*ocsf).pid},
	"port":      {write: (*ocsf).port},
	"time":      {write: (*ocsf).moment, twin: true},
	"ip":        {write: (*ocsf).ip},
	"mac":       {write: (*ocsf).mac},
	"email":     {write: (*ocsf).email},
	"emails":    {write: (*ocsf).emails, suffix: "[]"},
	"attacks":   {write: (*ocsf).attacks, suffix: "[]"},
	"json":      {write: (*ocsf).json},
	"method":    {write: (*ocsf).method},
	"inspected": {write: (*ocsf).inspected},
}

func writes(names ...string) func([]string) []string { return func([]string) []string { return names } }

// idAndCaption are the names of an enum and its caption.
func idAndCaption(args []string) []string { return []string{args[0] + "_id", args[0]} }

var ocsfSplats = map[string]ocsfSplat{
	"+enum":                    {write: (*ocsf).enum, writes: idAndCaption, columns: 1, enum: true},
	"+enum_or_unknown":         {write: (*ocsf).enumOrUnknown, writes: idAndCaption, columns: 1, enum: true},
	"+user":                    {write: (*ocsf).user, writes: writes("name", "domain", "uid", "uid_alt", "email_addr", "full_name", "type_id", "type"), needs: []string{"name", "uid"}, columns: 6},
	"+file":                    {write: (*ocsf).file, writes: writes("name", "path", "ext", "type_id", "type", "hashes[]"), needs: []string{"name"}, columns: 5},
	"+url":                     {write: (*ocsf).url, writes: writes("url_string", "scheme", "hostname", "port", "path", "query_string"), needs: []string{"url_string"}, columns: 1},
	"+request_url":             {write: (*ocsf).requestURL, writes: writes("url_string", "scheme", "hostname", "port", "path", "query_string"), needs: []string{"url_string"}, columns: 2},
	"+is_remote":               {write: (*ocsf).isRemote, writes: writes("is_remote"), columns: 3},
	"+value_name":              {write: (*ocsf).valueName, writes: writes("name", "is_default"), needs: []string{"name"}, columns: 1},
	"+direction":               {write: (*ocsf).writeDirection, writes: writes("direction_id", "direction"), needs: []string{"direction_id"}},
	"+protocol":                {write: (*ocsf).protocol, writes: writes("protocol_name", "protocol_num", "protocol_ver_id", "protocol_ver"), columns: 1},
	"+answers":                 {write: (*ocsf).answers, writes: writes("answers[]"), columns: 2},
	"+outcome":                 {write: (*ocsf).outcome, writes: writes("status_id", "status", "status_code"), columns: 1},
	"+delivery":                {write: (*ocsf).delivery, writes: writes("action_id", "action", "disposition_id", "disposition", "status_detail"), columns: 1},
	"+result":                  {write: (*ocsf).result, writes: writes("status_id", "status", "status_detail"), columns: 1},
	"+is_managed":              {write: (*ocsf).isManaged, writes: writes("is_managed"), columns: 1},
	"+is_disabled":             {write: (*ocsf).isDisabled, writes: writes("is_disabled"), columns: 1},
	"+cpu_bits":                {write: (*ocsf).cpuBits, writes: writes("cpu_bits"), columns: 1},
	"+service_without_address": {write: (*ocsf).serviceWithoutAddress, writes: writes("svc_name", "ip"), columns: 1},
	"+provider":                {write: (*ocsf).provider, writes: writes("provider"), needs: []string{"provider"}, columns: 4},
	"+found_device": {write: (*ocsf).foundDevice, writes: writes("uid", "hostname", "type_id", "type", "uid_alt", "ip", "model", "vendor_name", "is_managed",
		"risk_level_id", "risk_level", "groups.name", "os.name", "os.type_id", "os.type", "os.version", "os.build", "agent_list.version"), needs: []string{"uid"}},
	"+parent_process": {write: (*ocsf).parentProcess, writes: writes("parent_process.pid", "parent_process.cmd_line", "parent_process.name",
		"parent_process.created_time", "parent_process.created_time_dt")},
}

// find returns the id and caption for a word of Defender. An unknown word has the id 99, and the
// word is its caption.
func (e ocsfEnum) find(text []byte) (id int64, caption string, known bool) {
	for i := range e {
		if w := &e[i]; w.prefix && hasPrefixFold(text, w.word) || equalFold(text, w.word) {
			return w.id, w.caption, true
		}
	}
	return 99, "", false
}

func appendInteger(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

func (o *ocsf) constant(st *ocsfStep) { o.sheet.setEncoded(st.field, st.text, noSource) }

func (o *ocsf) textual(st *ocsfStep) {
	text, source := o.first(st.args[0])
	o.sheet.setText(st.field, text, source)
}

func (o *ocsf) texts(st *ocsfStep) {
	texts, source, whole := o.list(st.args[0])
	for i, text := range texts {
		if i < len(texts)-1 || !whole {
			o.sheet.setText(st.field, text, noSource)
		} else {
			o.sheet.setText(st.field, text, source)
		}
	}
}

func (o *ocsf) baseName(st *ocsfStep) {
	text, source := o.first(st.args[0])
	base := baseName(text)
	if len(base) < len(text) {
		source = noSource
	}
	o.sheet.setText(st.field, base, source)
}

// number reads an integer within bounds.
func (o *ocsf) number(slots []ocsfSlot, least, most int64) (n int64, source uint16, ok bool) {
	text, source := o.first(slots)
	n, ok = record.ParseInteger(text)
	return n, source, ok && least <= n && n <= most
}

func (o *ocsf) integer(st *ocsfStep) {
	if n, source, ok := o.number(st.args[0], math.MinInt32, math.MaxInt32); ok {
		o.sheet.setInteger(st.field, n, source)
	}
}

func (o *ocsf) long(st *ocsfStep) {
	if n, source, ok := o.number(st.args[0], math.MinInt64, math.MaxInt64); ok {
		o.sheet.setInteger(st.field, n, source)
	}
}

// pid: in rows of the network, 0 means no process.
func (o *ocsf) pid(st *ocsfStep) {
	if n, source, ok := o.number(st.args[0], 1, math.MaxInt32); ok {
		o.sheet.setInteger(st.field, n, source)
	}
}

func (o *ocsf) port(st *ocsfStep) {
	if n, source, ok := o.number(st.args[0], 0, 65535); ok {
		o.sheet.setInteger(st.field, n, source)
	}
}

// moment writes a time in milliseconds and the text beside it, which keeps the digits. A number
// before 1971 is no time.
func (o *ocsf) moment(st *ocsfStep) {
	text, source := o.first(st.args[0])
	o.setMoment(st.field, st.fields[0], text, source)
}

func (o *ocsf) setMoment(field, twin fieldID, text []byte, source uint16) {
	t := readTime(text)
	if !t.ok || t.sec < 365*86400 {
		return
	}
	if o.sheet.setInteger(field, milliseconds(t.sec, t.nsec), noSource) && t.exact {
		o.sheet.setText(twin, text, source)
	}
}

func (o *ocsf) ip(st *ocsfStep) {
	text, source := o.first(st.args[0])
	o.setIP(st.field, text, source)
}

func (o *ocsf) setIP(field fieldID, text []byte, source uint16) {
	addr, mapped, ok := parseIP(text)
	if !ok {
		return
	}
	if mapped {
		from := len(o.text)
		o.text = addr.AppendTo(o.text)
		text, source = o.text[from:len(o.text):len(o.text)], noSource
	}
	if len(text) <= 40 {
		o.sheet.setText(field, text, source)
	}
}

// mac writes a hardware address as it is, if a mac_t takes it, and in the usual form otherwise.
func (o *ocsf) mac(st *ocsfStep) {
	text, source := o.first(st.args[0])
	from := len(o.text)
	var ok bool
	if o.text, ok = appendMAC(o.text, text); !ok || len(o.text)-from != len("00-15-5D-01-02-03") {
		return
	}
	if !isMAC(text) {
		text, source = o.text[from:len(o.text):len(o.text)], noSource
	}
	o.sheet.setText(st.field, text, source)
}

// isMAC reports whether a text is a mac_t of OCSF: six pairs of digits with colons or dashes.
func isMAC(text []byte) bool {
	if len(text) != 17 {
		return false
	}
	for i := 2; i < len(text); i += 3 {
		if text[i] != ':' && text[i] != '-' {
			return false
		}
	}
	return true
}

// isEmail reports whether a text is an email_t of OCSF, whose pattern is
// [a-zA-Z0-9!#$%&'*+-/=?^_`{|}~.]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9-.]+.
func isEmail(text []byte) bool {
	local, domain, ok := bytes.Cut(text, []byte{'@'})
	dot := bytes.IndexByte(domain, '.')
	if !ok || len(local) == 0 || dot <= 0 || dot == len(domain)-1 {
		return false
	}
	for _, c := range local {
		if !isLetter(c) && !isDigit(c) && bytes.IndexByte([]byte("!#$%&'*+,-./=?^_`{|}~"), c) < 0 {
			return false
		}
	}
	for _, c := range domain {
		if !isLetter(c) && !isDigit(c) && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func (o *ocsf) email(st *ocsfStep) {
	if text, source := o.first(st.args[0]); isEmail(text) {
		o.sheet.setText(st.field, text, source)
	}
}

func (o *ocsf) emails(st *ocsfStep) {
	if text, source := o.first(st.args[0]); isEmail(text) {
		o.sheet.setText(st.field, text, source)
	}
}

// attacks writes techniques and tactics, one element each: the row does not say which technique
// belongs to which tactic.
func (o *ocsf) attacks(st *ocsfStep) {
	s := o.sheet
	pair := func(b []byte, name, id []byte) []byte {
		b = msgp.AppendMapHeader(b, 2)
		b = msgp.AppendStringFromBytes(msgp.AppendString(b, "name"), name)
		return msgp.AppendStringFromBytes(msgp.AppendString(b, "uid"), id)
	}
	texts, _, _ := o.list(st.args[0])
	for _, text := range texts {
		name, id, parent, ok := splitTechnique(text)
		if !ok {
			continue
		}
		from := len(s.text)
		if parent == len(id) {
			s.text = pair(msgp.AppendString(msgp.AppendMapHeader(s.text, 1), "technique"), name, id)
		} else {
			s.text = pair(msgp.AppendString(msgp.AppendMapHeader(s.text, 2), "sub_technique"), name, id)
			s.text = msgp.AppendMapHeader(msgp.AppendString(s.text, "technique"), 1)
			s.text = msgp.AppendStringFromBytes(msgp.AppendString(s.text, "uid"), id[:parent])
		}
		s.setEncoded(st.field, s.text[from:len(s.text):len(s.text)], noSource)
	}
	if len(st.args) < 2 {
		return
	}
	texts, _, _ = o.list(st.args[1])
	for _, text := range texts {
		name, id := tacticOf(text)
		if id == "" {
			continue
		}
		from := len(s.text)
		s.text = msgp.AppendString(msgp.AppendMapHeader(s.text, 1), "tactic")
		s.text = msgp.AppendMapHeader(s.text, 2)
		s.text = msgp.AppendString(msgp.AppendString(s.text, "name"), name)
		s.text = msgp.AppendString(msgp.AppendString(s.text, "uid"), id)
		s.setEncoded(st.field, s.text[from:len(s.text):len(s.text)], noSource)
	}
}

// json writes a column that is an object, unchanged.
func (o *ocsf) json(st *ocsfStep) {
	tree, n, ok := o.container(&o.values[st.args[0][0]])
	if !ok || tree.Empty(n) || o.w.Compact {
		return
	}
	s := o.sheet
	from := len(s.text)
	s.text = o.w.AppendIndexed(s.text, &tree, n, 4)
	s.setEncoded(st.field, s.text[from:len(s.text):len(s.text)], noSource)
}

func (o *ocsf) method(st *ocsfStep) {
	text, source := o.first(st.args[0])
	switch string(text) {
	case "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE":
		o.sheet.setText(st.field, text, source)
	}
}

func (o *ocsf) inspected(st *ocsfStep) {
	text, _ := o.first(st.args[0])
	if word := inspectedProtocol(text); word != "" {
		o.sheet.setWord(st.field, word)
	}
}

func (o *ocsf) enum(st *ocsfStep) {
	text, source := o.first(st.args[0])
	o.setEnum(st.fields[0], st.fields[1], st.enum, text, source)
}

func (o *ocsf) enumOrUnknown(st *ocsfStep) {
	text, source := o.first(st.args[0])
	if len(text) == 0 {
		text, source = bytesOf("Unknown"), noSource
	}
	o.setEnum(st.fields[0], st.fields[1], st.enum, text, source)
}

// setEnum writes an id and its caption. A caption that is another word than the column's leaves the
// column where it is.
func (o *ocsf) setEnum(id, caption fieldID, e ocsfEnum, text []byte, source uint16) {
	if len(text) == 0 {
		return
	}
	n, word, known := e.find(text)
	switch {
	case known:
		if word != string(text) {
			source = noSource
		}
		if o.sheet.setInteger(id, n, noSource) {
			o.sheet.setText(caption, bytesOf(word), source)
		}
	case string(text) == "Unknown":
		if o.sheet.setInteger(id, 0, noSource) {
			o.sheet.setText(caption, text, source)
		}
	case o.sheet.setInteger(id, 99, noSource) && string(text) != "Other": // that word is kept for those who do not know better
		o.sheet.setText(caption, text, source)
	}
}

// user writes an account. arguments: name, domain, SID, object id, UPN, name for people.
func (o *ocsf) user(st *ocsfStep) {
	name, nameSource := o.first(st.args[0])
	domain, domainSource := o.first(st.args[1])
	sid, sidSource := o.first(st.args[2])
	object, objectSource := o.first(st.args[3])
	upn, upnSource := o.first(st.args[4])
	full, fullSource := o.first(st.args[5])
	s := o.sheet
	if len(name) == 0 {
		if name, nameSource = upn, upnSource; len(name) == 0 {
			name, nameSource = full, fullSource
			full = nil
		}
	}
	if len(sid) == 0 {
		sid, sidSource, object = object, objectSource, nil
	}
	if len(name) == 0 && len(sid) == 0 {
		return
	}
	s.setText(st.fields[0], name, nameSource)
	s.setText(st.fields[1], domain, domainSource)
	s.setText(st.fields[2], sid, sidSource)
	s.setText(st.fields[3], object, objectSource)
	if len(upn) > 0 && isEmail(upn) {
		s.setText(st.fields[4], upn, upnSource)
	}
	s.setText(st.fields[5], full, fullSource)
	if isSystemSID(sid) {
		s.setInteger(st.fields[6], 3, noSource)
		s.setWord(st.fields[7], "System")
	}
}

var ocsfHashes = [...]struct {
	id   int64
	name string
}{{2, "SHA-1"}, {3, "SHA-256"}, {1, "MD5"}}

// file writes a file. arguments: name, folder or path, SHA1, SHA256, MD5. A file needs a name:
// without one it is the last part of the path, or a hash.
func (o *ocsf) file(st *ocsfStep) {
	s := o.sheet
	name, nameSource := o.first(st.args[0])
	folder, folderSource := o.first(st.args[1])
	whole, base := name, baseName(name)
	if len(whole) == 0 {
		whole, base = folder, baseName(folder)
	}
	if len(base) == 0 {
		base = whole // it ends in a separator
	}
	kind, caption := int64(1), "Regular File"
	if len(base) == 0 {
		for _, arg := range st.args[2:] {
			if hash, _ := o.first(arg); len(hash) > 0 {
				base, kind, caption = hash, 0, "Unknown"
				break
			}
		}
		if len(base) == 0 {
			return
		}
	}
	if len(base) < len(name) {
		if len(folder) == 0 {
			folder, folderSource = name, nameSource
		}
		nameSource = noSource
	}
	if len(name) == 0 {
		nameSource = noSource
	}
	s.setText(st.fields[0], base, nameSource)
	if len(folder) > 0 {
		if len(name) > 0 && !sameFold(baseName(folder), base) {
			from := len(o.text)
			o.text = appendPath(o.text, folder, base)
			folder, folderSource = o.text[from:len(o.text):len(o.text)], noSource
		}
		s.setText(st.fields[1], folder, folderSource)
	}
	if kind == 1 {
		s.setText(st.fields[2], extension(base), noSource)
	}
	s.setInteger(st.fields[3], kind, noSource)
	s.setWord(st.fields[4], caption)
	for i, arg := range st.args[2:] {
		hash, source := o.first(arg)
		if len(hash) == 0 {
			continue
		}
		from := len(s.text)
		s.text = msgp.AppendInt64(msgp.AppendString(msgp.AppendMapHeader(s.text, 3), "algorithm_id"), ocsfHashes[i].id)
		s.text = msgp.AppendString(msgp.AppendString(s.text, "algorithm"), ocsfHashes[i].name)
		s.text = msgp.AppendStringFromBytes(msgp.AppendString(s.text, "value"), hash)
		if s.setEncoded(st.fields[5], s.text[from:len(s.text):len(s.text)], source) {
			o.hashes = append(o.hashes, ocsfHash{st.fields[5], hash})
		}
	}
}

func (o *ocsf) url(st *ocsfStep) {
	text, source := o.urlText(st)
	if o.sheet.setText(st.fields[0], text, source) {
		if u, ok := splitURL(text); ok {
			o.setURL(st, &u)
		}
	}
}

// urlText returns the text of a URL. A text that it shortens has no source: the whole stays, too.
func (o *ocsf) urlText(st *ocsfStep) (text []byte, source uint16) {
	text, source = o.first(st.args[0])
	if cut := withoutPrefix(text); len(cut) < len(text) {
		return cut, noSource
	}
	return text, source
}

// requestURL is url for a request that names its path and its host apart.
func (o *ocsf) requestURL(st *ocsfStep) {
	target, source := o.urlText(st)
	if o.sheet.setText(st.fields[0], target, source) {
		host, _ := o.first(st.args[1])
		u := splitRequest(target, host)
		o.setURL(st, &u)
	}
}

// setURL sets the attributes of a URL but for its whole text.
func (o *ocsf) setURL(st *ocsfStep, u *urlParts) {
	s := o.sheet
	s.setText(st.fields[1], u.scheme, noSource)
	s.setText(st.fields[2], u.domain, noSource)
	if u.port > 0 {
		s.setInteger(st.fields[3], int64(u.port), noSource)
	}
	s.setText(st.fields[4], u.path, noSource)
	s.setText(st.fields[5], u.query, noSource)
}

// isRemote tells whether a logon came from another machine. arguments: IsLocalLogon, the remote
// address, the type of logon. The sensor knows best. A type that says neither is left out.
func (o *ocsf) isRemote(st *ocsfStep) {
	local, _ := o.first(st.args[0])
	if yes, ok := record.ParseBoolean(local); ok {
		o.sheet.setBoolean(st.fields[0], !yes, noSource)
		return
	}
	address, _ := o.first(st.args[1])
	if ip, _, ok := parseIP(address); ok {
		o.sheet.setBoolean(st.fields[0], !ip.IsLoopback(), noSource)
		return
	}
	kind, _ := o.first(st.args[2])
	switch {
	case hasPrefixFold(kind, "network"), hasPrefixFold(kind, "remoteinteractive"), hasPrefixFold(kind, "cachedremote"):
		o.sheet.setBoolean(st.fields[0], true, noSource)
	case equalFold(kind, "interactive"), equalFold(kind, "batch"), equalFold(kind, "service"), equalFold(kind, "unlock"), hasPrefixFold(kind, "cached"):
		o.sheet.setBoolean(st.fields[0], false, noSource)
	}
}

// valueName writes the name of a registry value: the default value has none.
func (o *ocsf) valueName(st *ocsfStep) {
	if text, source := o.first(st.args[0]); len(text) > 0 {
		o.sheet.setText(st.fields[0], text, source)
		return
	}
	o.sheet.setWord(st.fields[0], "(Default)")
	o.sheet.setBoolean(st.fields[1], true, noSource)
}

func (o *ocsf) writeDirection(st *ocsfStep) {
	o.isInbound()
	id, caption := int64(0), "Unknown"
	switch o.direction {
	case directionInbound:
		id, caption = 1, "Inbound"
	case directionOutbound:
		id, caption = 2, "Outbound"
	}
	o.sheet.setInteger(st.fields[0], id, noSource)
	o.sheet.setWord(st.fields[1], caption)
}

func (o *ocsf) protocol(st *ocsfStep) {
	text, source := o.first(st.args[0])
	if len(text) == 0 {
		return
	}
	s := o.sheet
	transport, _ := protocolWord(text)
	switch transport {
	case "tcp":
		s.setInteger(st.fields[1], 6, noSource)
	case "udp":
		s.setInteger(st.fields[1], 17, noSource)
	case "icmp":
		s.setInteger(st.fields[1], 1, noSource)
	default:
		s.setText(st.fields[0], text, source)
		return
	}
	if transport != string(text) {
		source = noSource
	}
	s.setText(st.fields[0], bytesOf(transport), source)
	switch {
	case hasSuffixFold(text, "v4"):
		s.setInteger(st.fields[2], 4, noSource)
		s.setWord(st.fields[3], "Internet Protocol version 4 (IPv4)")
	case hasSuffixFold(text, "v6"):
		s.setInteger(st.fields[2], 6, noSource)
		s.setWord(st.fields[3], "Internet Protocol version 6 (IPv6)")
	}
}

// listText returns a list as JSON text: it comes as one in a string, or natively.
func (o *ocsf) listText(slots []ocsfSlot) []byte {
	for _, s := range slots {
		if tree, n, ok := o.container(&o.values[s]); ok {
			raw := tree.Raw(n)
			if utf8.Valid(raw) {
				return raw
			}
			from := len(o.text)
			var repairs int
			o.text, repairs = record.AppendJSONText(o.text, raw)
			o.repairs += repairs
			return o.text[from:len(o.text):len(o.text)]
		}
	}
	text, _ := o.first(slots)
	return text
}

// answers writes the answers of a DNS query, which are two lists.
func (o *ocsf) answers(st *ocsfStep) {
	s := o.sheet
	answers, lives := o.listText(st.args[0]), o.listText(st.args[1])
	for range 100 {
		answer, rest, ok := nextElement(answers)
		if !ok {
			return
		}
		answers = rest
		life, rest, _ := nextElement(lives)
		lives = rest
		if len(answer) == 0 {
			continue
		}
		seconds, hasLife := wholeSeconds(life)
		from := len(s.text)
		if hasLife = hasLife && seconds <= math.MaxInt32; hasLife {
			s.text = msgp.AppendInt64(msgp.AppendString(msgp.AppendMapHeader(s.text, 2), "ttl"), seconds)
		} else {
			s.text = msgp.AppendMapHeader(s.text, 1)
		}
		s.text = msgp.AppendStringFromBytes(msgp.AppendString(s.text, "rdata"), answer)
		s.setEncoded(st.fields[0], s.text[from:len(s.text):len(s.text)], noSource)
	}
}

// setStatus writes an outcome: fields are status_id and status.
func (o *ocsf) setStatus(st *ocsfStep, success bool) {
	if success {
		o.sheet.setInteger(st.fields[0], 1, noSource)
		o.sheet.setWord(st.fields[1], "Success")
	} else {
		o.sheet.setInteger(st.fields[0], 2, noSource)
		o.sheet.setWord(st.fields[1], "Failure")
	}
}

func (o *ocsf) outcome(st *ocsfStep) {
	if code, source := o.first(st.args[0]); len(code) > 0 {
		o.setStatus(st, string(code) == "0")
		o.sheet.setText(st.fields[2], code, source)
	}
}

func (o *ocsf) result(st *ocsfStep) {
	if text, source := o.first(st.args[0]); len(text) > 0 {
		o.setStatus(st, equalFold(text, "success"))
		o.sheet.setText(st.fields[2], text, source)
	}
}

func (o *ocsf) delivery(st *ocsfStep) {
	text, source := o.first(st.args[0])
	if len(text) == 0 {
		return
	}
	s := o.sheet
	s.setText(st.fields[4], text, source)
	set := func(action int64, word string, disposition int64, caption string) {
		s.setInteger(st.fields[0], action, noSource)
		s.setWord(st.fields[1], word)
		s.setInteger(st.fields[2], disposition, noSource)
		s.setWord(st.fields[3], caption)
	}
	switch string(text) {
	case "Delivered":
		set(1, "Allowed", 1, "Allowed")
	case "Blocked":
		set(2, "Denied", 2, "Blocked")
	case "Junked":
		set(2, "Denied", 3, "Quarantined")
	case "Replaced":
		set(4, "Modified", 11, "Corrected")
	}
}

func (o *ocsf) isManaged(st *ocsfStep) {
	if text, _ := o.first(st.args[0]); len(text) > 0 {
		o.sheet.setBoolean(st.fields[0], equalFold(text, "onboarded"), noSource)
	}
}

func (o *ocsf) isDisabled(st *ocsfStep) {
	text, _ := o.first(st.args[0])
	if enabled, ok := record.ParseBoolean(text); ok {
		o.sheet.setBoolean(st.fields[0], !enabled, noSource)
	} else if equalFold(text, "enabled") || equalFold(text, "disabled") {
		o.sheet.setBoolean(st.fields[0], equalFold(text, "disabled"), noSource)
	}
}

func (o *ocsf) cpuBits(st *ocsfStep) {
	switch text, _ := o.first(st.args[0]); {
	case bytes.HasPrefix(text, []byte("64")), bytes.HasSuffix(text, []byte("64")):
		o.sheet.setInteger(st.fields[0], 64, noSource)
	case bytes.HasPrefix(text, []byte("32")), equalFold(text, "x86"):
		o.sheet.setInteger(st.fields[0], 32, noSource)
	}
}

// serviceWithoutAddress names the service of an endpoint that has no address, since the class needs
// one.
func (o *ocsf) serviceWithoutAddress(st *ocsfStep) {
	if !o.sheet.has(st.fields[1]) {
		text, _ := o.first(st.args[0])
		o.sheet.setText(st.fields[0], text, noSource)
	}
}

// provider names a cloud. arguments: the source of the data, and the columns for resources of
// Azure, AWS and GCP.
func (o *ocsf) provider(st *ocsfStep) {
	text, _ := o.first(st.args[0])
	for i, name := range [...]string{"Azure", "AWS", "GCP"} {
		if id, _ := o.first(st.args[i+1]); len(id) > 0 {
			o.sheet.setWord(st.fields[0], name)
			return
		}
	}
	switch {
	case containsFold(text, "azure"):
		o.sheet.setWord(st.fields[0], "Azure")
	case containsFold(text, "aws"):
		o.sheet.setWord(st.fields[0], "AWS")
	case containsFold(text, "gcp"):
		o.sheet.setWord(st.fields[0], "GCP")
	}
}

// The places of foundDevice's values in its fields.
const (
	foundUID = iota
	foundHostname
	foundTypeID
	foundType
	foundUIDAlt
	foundIP
	foundModel
	foundVendor
	foundManaged
	foundRiskID
	foundRisk
	foundGroup
	foundOS
	foundOSTypeID
	foundOSType
	foundOSVersion
	foundOSBuild
	foundAgent
)

// foundDevice writes the facts of the device that was found. The row's own columns stay.
func (o *ocsf) foundDevice(st *ocsfStep) {
	d := o.own.Device
	if d == nil || d.ID == nil {
		return
	}
	s := o.sheet
	s.setText(st.fields[foundUID], d.ID, noSource)
	for i := range d.Columns {
		c := &d.Columns[i]
		to := -1
		switch c.Name {
		case "DeviceName":
			to = foundHostname
		case "AadDeviceId":
			to = foundUIDAlt
		case "Model":
			to = foundModel
		case "Vendor":
			to = foundVendor
		case "MachineGroup":
			to = foundGroup
		case "OSVersion":
			to = foundOSVersion
		case "OSBuild":
			to = foundOSBuild
		case "ClientVersion":
			to = foundAgent
		case "PublicIP", "DeviceType", "OSPlatform", "OnboardingStatus", "RiskScore":
		default:
			continue
		}
		text := o.unpacked(c.Value)
		switch {
		case len(text) == 0:
		case to >= 0:
			s.setText(st.fields[to], text, noSource)
		case c.Name == "PublicIP":
			o.setIP(st.fields[foundIP], text, noSource)
		case c.Name == "DeviceType":
			o.setEnum(st.fields[foundTypeID], st.fields[foundType], o.m.enums["device"], text, noSource)
		case c.Name == "OSPlatform":
			s.setText(st.fields[foundOS], text, noSource)
			o.setEnum(st.fields[foundOSTypeID], st.fields[foundOSType], o.m.enums["os"], text, noSource)
		case c.Name == "OnboardingStatus":
			s.setBoolean(st.fields[foundManaged], equalFold(text, "onboarded"), noSource)
		case !equalFold(text, "none"):
			o.setEnum(st.fields[foundRiskID], st.fields[foundRisk], o.m.enums["risk"], text, noSource)
		}
	}
}

// device writes the facts of the device, and how it was found, as an enrichment.
func (o *ocsf) device() {
	d := o.own.Device
	if d == nil || d.ID == nil {
		return
	}
	s := o.sheet
	from := len(s.text)
	b := msgp.AppendMapHeader(s.text, 5)
	b = msgp.AppendString(msgp.AppendString(b, "name"), "device.uid")
	b = msgp.AppendStringFromBytes(msgp.AppendString(b, "value"), d.ID)
	b = msgp.AppendString(msgp.AppendString(b, "type"), "device")
	b = msgp.AppendString(msgp.AppendString(b, "provider"), "Microsoft Defender XDR DeviceInfo")
	b = msgp.AppendString(b, "data")
	n := len(d.Columns)
	for _, own := range [...]string{d.Match, d.Status} {
		if own != "" {
			n++
		}
	}
	b = msgp.AppendMapHeader(b, uint32(n))
	for i := range d.Columns {
		b = append(msgp.AppendString(b, d.Columns[i].Name), d.Columns[i].Value...)
	}
	if d.Match != "" {
		b = msgp.AppendString(msgp.AppendString(b, "match"), d.Match)
	}
	if d.Status != "" {
		b = msgp.AppendString(msgp.AppendString(b, "status"), d.Status)
	}
	s.text = b
	s.setEncoded(o.m.enrichments, b[from:len(b):len(b)], noSource)
}

// parentProcess writes the parent of an alert's process, which is an object in AdditionalFields, or
// a reference to one.
func (o *ocsf) parentProcess(st *ocsfStep) {
	v := &o.values[slotParentProcess]
	if v.state == 0 || v.packed != nil {
		return
	}
	tr := &o.trees[v.tree]
	n := o.target(tr, v.node)
	if tr.Nodes[n].Kind != record.KindObject {
		return
	}
	text := func(of uint32, name string) []byte {
		if at := tr.Find(of, name); at != 0 {
			return o.scalar(tr, at)
		}
		return nil
	}
	pid, ok := record.ParseInteger(text(n, "ProcessId"))
	if !ok || pid <= 0 || pid > math.MaxInt32 {
		return
	}
	s := o.sheet
	s.setInteger(st.fields[0], pid, noSource)
	s.setText(st.fields[1], text(n, "CommandLine"), noSource)
	if image := tr.Find(n, "ImageFile"); image != 0 {
		if image = o.target(tr, image); tr.Nodes[image].Kind == record.KindObject {
			s.setText(st.fields[2], text(image, "Name"), noSource)
		}
	}
	o.setMoment(st.fields[3], st.fields[4], text(n, "CreationTimeUtc"), noSource)
}

// target follows a reference of Json.NET, once.
func (o *ocsf) target(tr *record.Tree, n uint32) uint32 {
	ref := uint32(0)
	if tr.Nodes[n].Kind == record.KindObject {
		ref = tr.Ref(n)
	}
	if ref == 0 {
		return n
	}
	id := tr.Inner(ref)
	for at := range tr.Nodes {
		at := uint32(at)
		if tr.Nodes[at].Kind == record.KindObject && !tr.Empty(at) && string(tr.Inner(at+1)) == "$id" && tr.Nodes[at+2].Kind == record.KindString &&
			bytes.Equal(tr.Inner(at+2), id) {
			return at
		}
	}
	return n
}
