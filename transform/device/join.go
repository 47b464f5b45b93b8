package device

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/fluent-bit-defender/fluent-bit-defender/transform/event"
	"github.com/fluent-bit-defender/fluent-bit-defender/transform/record"
)

// Status tells how much is known of the device of a record.
type Status uint8

const (
	statusNone    Status = iota // the record has no device
	statusHit                   // known
	statusStale                 // known, but from reports older than device_info.ttl
	statusUnknown               // nothing is known of it, and nobody to ask knows more
	statusPending               // asked for, and the answer is still to come
)

// Statuses are the values of DeviceInfo.status.
var Statuses = [...]string{"none", "hit", "stale", "unknown", "pending"}

// Role is the part that the records of a table have in finding devices.
type Role uint8

// The roles.
const (
	RoleNone     Role = iota
	RoleReport        // DeviceInfo: reports of devices
	RoleAlert         // AlertInfo: titles and severities of alerts
	RoleEvidence      // AlertEvidence: names the devices of an alert
	RoleBehavior      // BehaviorEntities: names those of a behavior
	RoleAdapter       // DeviceNetworkInfo: addresses of devices
)

// RoleOf is the role of a table of Advanced Hunting.
func RoleOf(table string) Role {
	switch table {
	case "DeviceInfo":
		return RoleReport
	case "AlertInfo":
		return RoleAlert
	case "AlertEvidence":
		return RoleEvidence
	case "DeviceNetworkInfo":
		return RoleAdapter
	case "BehaviorEntities":
		return RoleBehavior
	}
	return RoleNone
}

// A Sighting is a device that a record names, or the place for one in a record.
type Sighting struct {
	tenant   uint32 // 0 for no tenant
	key      string // of the device, or ""
	match    Match
	name     string   // of a host without an id
	account  user     // of a row without a host
	resource string   // in Azure, of a row without a host
	hosts    []string // keys of the devices that the row itself names, if they are more than one
	several  []string // keys of the devices among which none is guessed
	alert    []byte   // the AlertId, in the text of the payload until Keep
	at       int64    // time of the event, in nanoseconds
	lacks    bool     // an AlertEvidence without a title
	own      bool     // the row itself names its device

	behavior  bool // alert is the id of a behavior
	workspace bool // tenant is a workspace of Log Analytics

	since    time.Time // when it was first resolved, or the warm-up was over
	warms    bool      // it waits for the warm-up
	until    time.Time // when the row's wait ends or is to be looked at again; zero if it does not wait
	wants    string    // key of the device that should be asked for, or ""
	question *question // nil if it was not asked for
	awaits   string    // key of the alert that it waits for, or ""
}

// A Joiner is the way of one Transformer to the memory. It is not safe for concurrent use.
type Joiner struct {
	memory  *Memory
	scanner *record.Scanner
	text    []byte
	values  []byte // of the device that Describe returned
	extra   []byte // of our fields, which no report has
	id, url []byte
	texts   [][]byte      // of a list
	nodes   []record.Node // of tags in JSON
	device  event.Device
	now     int64 // of this call of Append, in nanoseconds; 0 until it is asked for
}

// NewJoiner returns a Joiner, which scans with s.
func (m *Memory) NewJoiner(s *record.Scanner) *Joiner {
	return &Joiner{memory: m, scanner: s}
}

// Tables are the names and patterns of the tables whose records get a device.
func (j *Joiner) Tables() []string { return j.memory.cfg.Tables }

// End ends a call of Append.
func (j *Joiner) End() {
	j.now = 0
	if cap(j.values) > record.KeepBytes {
		j.values = nil
		clear(j.device.Columns[:cap(j.device.Columns)])
	}
	if cap(j.text) > record.KeepBytes {
		j.text = nil
	}
	clear(j.texts[:cap(j.texts)]) // they point into values
}

// Observe learns from a record. s, which is nil for a record that gets no device, then points into
// the record's text.
func (j *Joiner) Observe(r *record.Record, role Role, s *Sighting) {
	m := j.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learner.scanner.MaxNodes = j.scanner.MaxNodes
	j.text = r.AppendTenant(j.text[:0])
	tenant := m.tenants.get(j.text)
	if tenant != 0 && role == RoleReport {
		m.report(r, tenant, true)
	}
	if tenant != 0 && role == RoleAdapter {
		m.adapter(r, tenant)
	}
	if tenant != 0 && role == RoleAlert {
		m.inform(r, tenant)
		alert, _ := alertID(r)
		m.heard(tenant, alert)
	}
	if s == nil && role != RoleEvidence && role != RoleBehavior {
		return
	}
	alert, behavior := alertID(r)
	h := findHost(j.scanner, r, role == RoleEvidence || role == RoleBehavior || len(alert) > 0)
	if j.now == 0 {
		j.now = m.now().UnixNano()
	}
	at := stampBy(r, j.now)
	var key []byte
	var dev *device // of key, if it is known
	if tenant != 0 && h.match != matchNone {
		j.text, _ = record.AppendText(j.text[:0], h.id)
		if key = appendKey(m.reportKey[:0], tenant, j.text); key != nil {
			m.reportKey = key
			m.names(tenant, alert, key, h.leading)
			dev = m.witness(r, &h, key)
			if !behavior {
				m.noteAlert(key, dev, alert, at, m.severity(r, tenant, alert))
			}
		}
	}
	several := j.several(&h, tenant)
	for _, key := range several {
		m.names(tenant, alert, []byte(key), false)
	}
	if tenant != 0 && key == nil && len(alert) > 0 && len(h.name) > 0 {
		j.text = appendHostName(j.text[:0], h.name, h.domain)
		if name := appendNameKey(m.reportKey[:0], tenant, j.text); name != nil {
			m.reportKey = name
			m.names(tenant, alert, name, false)
		}
	}
	if s == nil {
		return
	}
	*s = Sighting{tenant: tenant, alert: alert, at: at, hosts: several, behavior: behavior, workspace: r.Bare}
	if role == RoleEvidence && len(alert) > 0 {
		n := r.Columns.Find(r.Props, "Title")
		s.lacks = n == 0 || r.Columns.Nothing(n)
	}
	if tenant != 0 && key == nil {
		j.strangers(r, &h, s)
	}
	if key != nil {
		s.match, s.own = h.match, true
		if dev != nil {
			s.key = dev.key
		} else {
			s.key = string(key)
		}
	}
}

// alertID is the AlertId of a row, or for behaviors the BehaviorId, or nil if it has none.
func alertID(r *record.Record) (id []byte, behavior bool) {
	for i, name := range [...]string{"AlertId", "BehaviorId"} {
		n := r.Columns.Find(r.Props, name)
		if n == 0 || r.Columns.Nodes[n].Kind != record.KindString || isText(&r.Columns, n, isNoAlert) {
			continue
		}
		if r.Columns.Nodes[n].Flags&record.FlagEscaped != 0 {
			id, _ = record.AppendText(nil, r.Columns.Inner(n))
			return id, i > 0
		}
		return r.Columns.Inner(n), i > 0
	}
	return nil, false
}

// isNoAlert reports whether a text in the place of an alert's id is none. Products that number
// their alerts may begin with 0.
func isNoAlert(text []byte) bool { return isNoID(text) && string(text) != "0" }

// several are the keys of the hosts of a row that names more than one.
func (j *Joiner) several(h *host, tenant uint32) (keys []string) {
	if tenant == 0 {
		return nil
	}
	for _, id := range h.several {
		j.text, _ = record.AppendText(j.text[:0], id)
		if key := appendKey(j.memory.reportKey[:0], tenant, j.text); key != nil {
			j.memory.reportKey = key
			keys = append(keys, string(key))
		}
	}
	return keys
}

// strangers notes the name, the resource and the user of a row's host without an id.
func (j *Joiner) strangers(r *record.Record, h *host, s *Sighting) {
	if len(h.name) > 0 {
		j.text = appendHostName(j.text[:0], h.name, h.domain)
		s.name = string(j.text)
	}
	s.resource = j.resourceOf(r)
	if j.memory.byUser != nil {
		s.account = j.accountOf(r)
	}
}

// accountOf is the account that a row is about.
func (j *Joiner) accountOf(r *record.Record) user {
	column := func(name string) string {
		j.text, _ = record.AppendText(j.text[:0], nameAt(&r.Columns, r.Props, name, isNoID))
		return string(bytes.TrimSpace(j.text))
	}
	u := user{name: column("AccountName"), domain: column("AccountDomain"), sid: column("AccountSid")}
	upn, suffix, _ := strings.Cut(column("AccountUpn"), "@")
	if u.name == "" {
		u.name = upn
	}
	if domain, name, ok := strings.Cut(u.name, `\`); ok {
		u.domain, u.name = domain, name
	}
	if name, domain, ok := strings.Cut(u.name, "@"); ok {
		u.name, suffix = name, domain
	}
	if u.domain == "" {
		u.domain = suffix
	}
	if u.isMachine() {
		return user{}
	}
	return u
}

// resourceOf is the id of the resource in Azure that a row is about, or "".
func (j *Joiner) resourceOf(r *record.Record) string {
	const prefix = "/subscriptions/"
	is := func(text []byte) bool {
		j.text, _ = record.AppendText(j.text[:0], text)
		return len(j.text) > len(prefix) && bytes.EqualFold(j.text[:len(prefix)], []byte(prefix))
	}
	for _, name := range [...]string{"ResourceID", "AzureResourceId", "CloudResource"} {
		if is(stringAt(&r.Columns, r.Props, name)) {
			return string(j.text)
		}
	}
	tr, at, ok := r.Column(j.scanner, "AdditionalFields")
	if !ok || tr.Nodes[at].Kind != record.KindObject {
		return ""
	}
	for _, name := range [...]string{"ResourceId", "AzureResourceId", "AzureID", "ResourceID"} {
		if is(stringAt(&tr, at, name)) {
			return string(j.text)
		}
	}
	return ""
}

// guess finds the device of a row that has no id of one: by its name, by its alert, by its user,
// the surest first. Where there are several, none is taken.
func (m *Memory) guess(s *Sighting) {
	take := func(how Match, key string, several []string) bool {
		switch {
		case key != "":
			s.key, s.match, s.several = key, how, nil
		case len(several) > 0 && len(s.several) == 0:
			s.several = several
		}
		return key != ""
	}
	if len(s.hosts) > 0 {
		if s.key, s.several = m.oneOf(s.hosts); s.key != "" {
			s.match = matchEvidence
		} else {
			s.match = matchSeveral
		}
		return
	}
	if s.resource != "" {
		if key, several := m.resource(s.tenant, s.resource, s.at); take(matchName, key, several) {
			return
		}
	}
	if s.name != "" {
		if key, several := m.named(s.tenant, s.name, s.at); !m.isAnother(key, s.resource) && take(matchName, key, several) {
			return
		}
	}
	if al := m.alerts.get(s.tenant, s.alert); al != nil {
		key, several := m.deviceOf(al, s.name, s.at)
		if !m.isAnother(key, s.resource) && take(matchAlert, key, several) {
			return
		}
	}
	if s.account != (user{}) {
		key, several := m.loggedOn(s.tenant, s.account, s.at)
		fits := (s.name == "" || m.isNamed(key, s.name, false)) && !m.isAnother(key, s.resource)
		if fits && (len(s.several) == 0 || slices.Contains(s.several, key)) && take(matchUser, key, several) {
			return
		}
	}
	if len(s.several) > 0 {
		s.match = matchSeveral
	}
}

// wanting is the key of the device that should be asked for: an unknown one, or one with too few
// facts. It is "" for none.
func (m *Memory) wanting(s *Sighting) string {
	dev, at, missing := m.find(s.key, true)
	if missing != "" {
		return missing
	}
	if f := factsOf(dev.groups); !f.reported || m.stale(f, s) {
		return at
	}
	return ""
}

// stale reports whether the facts of a device are too old for an event.
func (m *Memory) stale(f facts, s *Sighting) bool {
	last := f.newest()
	return m.cfg.TTL > 0 && last > 0 && s.at-last > int64(m.cfg.TTL)
}

// Ids of columns that no report has. They are above those of columns.
const (
	idAge = 256 + iota
	idCandidates
	idTags
	idAlerts
	idAlertsSeverity
	idURL
)

// maxCandidates is how many devices are shown if there are several.
const maxCandidates = 5

// Describe returns the fields of the device of a sighting of the record r. They are valid until the
// next.
func (j *Joiner) Describe(r *record.Record, role Role, s *Sighting) *event.Device {
	m, d := j.memory, &j.device
	*d = event.Device{Columns: d.Columns[:0], Alert: d.Alert[:0]}
	j.values, j.extra = j.values[:0], j.extra[:0]
	m.mu.Lock()
	defer m.mu.Unlock()
	st := statusNone
	if s.key != "" {
		st = j.describe(r, s)
	} else if s.match == matchSeveral {
		j.candidates(s)
	}
	if s.match != matchNone {
		d.Match = matchNames[s.match]
		m.matched[s.match]++
	}
	d.Status = Statuses[st]
	m.found[st]++
	if s.tenant != 0 && role != RoleAlert {
		if al := m.alerts.get(s.tenant, s.alert); al != nil && al.info != nil {
			j.describeAlert(r, al)
		}
	}
	j.alertURL(r, s)
	return d
}

// extraColumn adds a column whose value is in extra behind from.
func (j *Joiner) extraColumn(id int, name string, from int) {
	j.device.Columns = append(j.device.Columns, event.Column{Name: name, ID: id, Value: j.extra[from:len(j.extra):len(j.extra)]})
}

// candidates shows the devices if there are several.
func (j *Joiner) candidates(s *Sighting) {
	list := j.texts[:0]
	j.id = j.id[:0]
	for _, key := range s.several[:min(len(s.several), maxCandidates)] {
		from := len(j.id)
		j.id = appendID(j.id, key)
		list = append(list, j.id[from:])
	}
	j.texts = list
	j.list(idCandidates, "candidates", list)
}

func (j *Joiner) describe(r *record.Record, s *Sighting) Status {
	m, d := j.memory, &j.device
	dev, at, _ := m.find(s.key, true)
	if dev == nil {
		at = s.key
	}
	j.id = appendID(j.id[:0], at)
	d.ID = j.id
	unknown := statusUnknown
	if s.question != nil && !s.question.answered {
		unknown = statusPending
	}
	m.recents.move(s.key, at) // if it was merged since
	if !s.own && !s.behavior && s.tenant != 0 {
		m.recents.note(at, s.alert, s.at, m.severity(r, s.tenant, s.alert)) // of others Observe has noted it
	}
	defer j.beside(s, at)
	if dev == nil {
		return unknown
	}
	j.values = append(j.values, dev.groups...) // the memory's own may change once it is unlocked
	var f facts
	var tags [3][]byte
	for w := (walker{rest: j.values}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		f.add(c.id, w.stamp)
		if c.id == columnFull || len(c.value) == 1 && c.value[0] == nobody {
			continue
		}
		switch c.id {
		case columnRegistryTag:
			tags[0] = c.value
		case columnManualTags:
			tags[1] = c.value
		case columnDynamicTags:
			tags[2] = c.value
		}
		name := m.fields.names[c.id]
		if m.cfg.ArraysAsJSON && name != "" && (c.id == columnIPs || c.id == columnMACs) {
			j.texts = appendTexts(j.texts[:0], c.value)
			j.list(int(c.id), name, j.texts)
			continue
		}
		if name != "" {
			d.Columns = append(d.Columns, event.Column{Name: name, ID: int(c.id), Value: c.value})
		}
	}
	if !f.reported {
		return unknown
	}
	j.tags(tags)
	from := len(j.extra)
	j.extra = msgp.AppendInt64(j.extra, (s.at-f.newest())/1e9)
	j.extraColumn(idAge, "age_s", from)
	if m.stale(f, s) {
		return statusStale
	}
	return statusHit
}

// beside adds the facts that come from no report: recent alerts, and the link to the device in the
// portal.
func (j *Joiner) beside(s *Sighting, key string) {
	m := j.memory
	if n, highest := m.recents.count(key, s.at); n > 0 {
		from := len(j.extra)
		j.extra = msgp.AppendInt(j.extra, n)
		j.extraColumn(idAlerts, "alerts_24h", from)
		if highest > 0 {
			from = len(j.extra)
			j.extra = msgp.AppendString(j.extra, severities[highest])
			j.extraColumn(idAlertsSeverity, "alerts_24h_severity", from)
		}
	}
	if m.cfg.Portal == "" {
		return
	}
	j.url = append(append(j.url[:0], m.cfg.Portal...), "/machines/v2/"...)
	j.url = append(appendEscaped(j.url, j.device.ID), "/overview"...)
	j.tenant(s)
	from := len(j.extra)
	j.extra = msgp.AppendStringFromBytes(j.extra, j.url)
	j.extraColumn(idURL, "url", from)
}

// tenant adds the tenant to a link.
func (j *Joiner) tenant(s *Sighting) {
	if s.tenant == 0 || s.workspace {
		return
	}
	j.text = appendTenant(j.text[:0], s.tenant)
	name, _ := j.memory.tenants.name(record.View(j.text))
	if len(name) == 0 || strings.ContainsFunc(name, func(c rune) bool { return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') }) {
		return // a tenant is a GUID: anything else has no place in a link
	}
	j.url = append(append(j.url, "?tid="...), name...)
}

// alertURL adds where the portal shows the alert.
func (j *Joiner) alertURL(r *record.Record, s *Sighting) {
	m := j.memory
	if m.cfg.Portal == "" {
		return
	}
	id := nameAt(&r.Columns, r.Props, "AlertId", isNoID)
	if len(id) == 0 {
		return
	}
	j.text, _ = record.AppendText(j.text[:0], id)
	j.url = append(append(j.url[:0], m.cfg.Portal...), "/alerts/"...)
	j.url = appendEscaped(j.url, j.text)
	j.tenant(s)
	from := len(j.extra)
	j.extra = msgp.AppendStringFromBytes(j.extra, j.url)
	j.device.Alert = append(j.device.Alert, event.Column{Name: "alert_url", ID: len(alertColumns), Value: j.extra[from:len(j.extra):len(j.extra)]})
}

// appendEscaped appends text as one part of the path of a link.
func appendEscaped(dst, text []byte) []byte {
	for _, c := range text {
		if c <= ' ' || c >= 0x7f || c == '/' || c == '?' || c == '#' || c == '%' || c == '"' || c == '<' || c == '>' {
			const digits = "0123456789ABCDEF"
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// tags adds the tags of a device, of all kinds, as one list.
func (j *Joiner) tags(values [3][]byte) {
	tags := j.texts[:0]
	for _, value := range values {
		from := len(tags)
		switch msgp.NextType(value) {
		case msgp.StrType:
			text, _, _ := msgp.ReadStringZC(value)
			if list, ok := j.appendListed(tags, text); ok {
				tags = list
			} else {
				tags = append(tags, text)
			}
		case msgp.ArrayType:
			tags = appendTexts(tags, value)
		}
		for _, tag := range tags[from:] {
			if tags = tags[:from]; len(tag) > 0 && len(tags) < maxTags && !hasText(tags, tag) {
				tags = append(tags, tag)
				from++
			}
		}
	}
	if j.texts = tags; len(tags) > 0 {
		j.list(idTags, "Tags", tags)
	}
}

const maxTags = 64 // of a device

// appendListed appends the texts of a list in JSON. It returns false where lists are not written as
// that, or text is none.
func (j *Joiner) appendListed(dst [][]byte, text []byte) ([][]byte, bool) {
	if !j.memory.cfg.ArraysAsJSON || len(text) == 0 || text[0] != '[' {
		return dst, false
	}
	nodes, end, err := j.scanner.Parse(text, 0, j.nodes[:0])
	if err != nil || end != len(text) {
		return dst, false
	}
	j.nodes = nodes
	tr := record.Tree{Src: text, Nodes: nodes}
	for n := range nodes {
		if nodes[n].Kind != record.KindString {
			continue
		}
		tag := tr.Inner(uint32(n))
		if nodes[n].Flags&record.FlagEscaped != 0 {
			tag, _ = record.AppendText(nil, tag)
		}
		dst = append(dst, tag)
	}
	return dst, true
}

// appendTexts appends the texts of a list in msgpack.
func appendTexts(dst [][]byte, list []byte) [][]byte {
	if msgp.NextType(list) != msgp.ArrayType {
		return dst
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(list)
	for ; err == nil && n > 0; n-- {
		if msgp.NextType(rest) != msgp.StrType {
			rest, err = msgp.Skip(rest)
			continue
		}
		var text []byte
		if text, rest, err = msgp.ReadStringZC(rest); err == nil {
			dst = append(dst, text)
		}
	}
	return dst
}

func hasText(texts [][]byte, text []byte) bool {
	for _, t := range texts {
		if bytes.Equal(t, text) {
			return true
		}
	}
	return false
}

// list adds a column that is a list of texts, as JSON text where lists are that.
func (j *Joiner) list(id int, name string, texts [][]byte) {
	from := len(j.extra)
	if j.memory.cfg.ArraysAsJSON {
		j.text = append(j.text[:0], '[')
		for i, text := range texts {
			if i > 0 {
				j.text = append(j.text, ',')
			}
			j.text = event.AppendQuoted(j.text, text)
		}
		j.extra = msgp.AppendStringFromBytes(j.extra, append(j.text, ']'))
	} else {
		j.extra = msgp.AppendArrayHeader(j.extra, uint32(len(texts)))
		for _, text := range texts {
			j.extra = msgp.AppendStringFromBytes(j.extra, text)
		}
	}
	j.extraColumn(id, name, from)
}

// describeAlert takes the columns that the row lacks from the AlertInfo of its alert.
func (j *Joiner) describeAlert(r *record.Record, al *alert) {
	from := len(j.values)
	// Columns point into a copy that does not move: append may move the rest only.
	j.values = append(j.values, al.info...)
	for w := (walker{rest: j.values[from:]}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		name := alertColumns[c.id]
		if n := r.Columns.Find(r.Props, name); n != 0 && !nothingInside(&r.Columns, n) {
			continue
		}
		j.device.Alert = append(j.device.Alert, event.Column{Name: name, ID: int(c.id), Value: c.value})
	}
	if len(j.device.Alert) > 0 {
		j.memory.stats.AlertsFilled++
	}
}

// nothingInside reports whether a column is empty, also as JSON in a string.
func nothingInside(tr *record.Tree, n uint32) bool {
	if tr.Nothing(n) {
		return true
	}
	if tr.Nodes[n].Kind != record.KindString {
		return false
	}
	switch string(tr.Inner(n)) {
	case "[]", "{}", "null":
		return true
	}
	return false
}

// Platform returns the known OSPlatform, else the OSFamily, of the device of a record's DeviceId.
// It asks nobody, waits for nothing and counts nothing. It is valid until the next call of a
// method.
func (j *Joiner) Platform(r *record.Record) []byte {
	if !r.Lifted {
		return nil
	}
	n := r.Columns.Find(r.Props, "DeviceId")
	if n == 0 || r.Columns.Nodes[n].Kind != record.KindString {
		return nil
	}
	m := j.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	j.text = r.AppendTenant(j.text[:0])
	tenant := m.tenants.byName[string(j.text)]
	if tenant == nil {
		return nil
	}
	j.text, _ = record.AppendText(j.text[:0], r.Columns.Inner(n))
	key := appendKey(m.reportKey[:0], tenant.number, j.text)
	if key == nil {
		return nil
	}
	m.reportKey = key
	dev, _, _ := m.find(record.View(key), false)
	if dev == nil {
		return nil
	}
	j.text = j.text[:0]
	for w := (walker{rest: dev.groups}); ; {
		c, ok := w.next()
		if !ok {
			return j.text
		}
		name := m.fields.names[c.id]
		if name != "OSPlatform" && (name != "OSFamily" || len(j.text) > 0) {
			continue
		}
		if text, _, err := msgp.ReadStringZC(c.value); err == nil {
			j.text = append(j.text[:0], text...)
		}
		if name == "OSPlatform" {
			return j.text
		}
	}
}
