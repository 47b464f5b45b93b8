package transform

import (
	"context"
	"strings"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// deviceStatus is what is known of the device of a record.
type deviceStatus uint8

const (
	statusNone    deviceStatus = iota // the record has no device
	statusHit                         // known
	statusStale                       // known, but from reports older than device_info.ttl
	statusUnknown                     // nothing is known of it, and nobody to ask knows more
	statusPending                     // asked for, and the answer is still to come
)

var deviceStatuses = [...]string{"none", "hit", "stale", "unknown", "pending"}

// An enricher adds devices to the records of one Transformer. It holds back the rows that get one until all payloads
// of the call have been read, so that it makes no difference in which order a device and its alert arrive, and so that all
// devices that are missing are asked for at once.
type enricher struct {
	devices *Devices
	t       *Transformer

	held  []*heldRow // of this call
	free  []*heldRow
	bytes int             // that the rows held take
	ctx   context.Context // of this call
	left  time.Duration   // that it may still wait

	// names of our fields, by columnID, and the two of our own; from names, valid for its era
	era           uint32
	names         []nameID
	id, how, what nameID
	alertNames    [len(alertColumns)]nameID
	out           []byte
}

// A heldRow is a record that waits for its device.
type heldRow struct {
	row     row
	payload *Payload
	body    []byte
	at, end int
	tenant  uint16
	known   bool   // tenant is one
	key     string // of the device, or ""
	match   deviceMatch
	pending bool
	alert   []byte // its AlertId, in the text of its payload
}

// maxHeld bounds the trees of rows that are held, in bytes. A payload of nothing but alerts takes about twice its size.
const maxHeld = 16 << 20

func newEnricher(d *Devices, t *Transformer) *enricher { return &enricher{devices: d, t: t} }

// observe learns from the record in t.row, which begins at body[at], and reports whether it is now held.
func (e *enricher) observe(body []byte, at, end int) bool {
	r := &e.t.row
	if !r.lifted {
		return false
	}
	table, wanted := r.table.name, r.table.device
	report, info, evidence := table == "DeviceInfo", table == "AlertInfo", table == "AlertEvidence" || table == "BehaviorEntities"
	if !wanted && !report && !info && !evidence {
		return false
	}
	d := e.devices
	d.mu.Lock()
	defer d.mu.Unlock()
	tenant, known := d.tenant(r.tenantText(&e.out))
	if known && report {
		d.report(r, tenant, true)
	}
	if known && info {
		d.inform(r, tenant)
		d.informs[e] = d.now()
		if d.news != nil {
			close(d.news)
			d.news = nil
		}
	}
	if !wanted && !evidence {
		return false
	}
	alert := alertID(r)
	h := findHost(&e.t.scanner, r)
	var key []byte
	if known && h.match != matchNone {
		var text []byte
		text, _ = appendText(e.out[:0], h.id)
		e.out = text
		if key = appendDeviceKey(d.reportKey[:0], tenant, text); key != nil {
			d.reportKey = key
			if al := d.alerts.make(tenant, alert); al != nil {
				d.alerts.names(al, key, h.leading)
			}
			d.witness(r, &h, key)
		}
	}
	if !wanted || r.table.excluded {
		return false
	}
	hr := e.take()
	hr.payload, hr.body, hr.at, hr.end = e.t.payload, body, at, end
	hr.tenant, hr.known, hr.match, hr.pending, hr.alert = tenant, known, matchNone, false, alert
	hr.key = ""
	if key != nil {
		hr.match = h.match
		if dev, ok := d.cache.Peek(view(key)); ok {
			hr.key = dev.key
		} else {
			hr.key = string(key)
		}
	}
	hr.row, e.t.row = e.t.row, hr.row
	e.held = append(e.held, hr)
	e.bytes += hr.row.size()
	return true
}

// size is how many bytes the trees of r take.
func (r *row) size() int { return 16*cap(r.nodes) + cap(r.text) }

// wants reports whether the records of a table get a device.
func (e *enricher) wants(table string) bool { return e.devices.tables[strings.ToLower(table)] }

func (e *enricher) take() *heldRow {
	if n := len(e.free); n > 0 {
		hr := e.free[n-1]
		e.free = e.free[:n-1]
		return hr
	}
	return &heldRow{}
}

// tenantText is the tenant of a record, in lower case.
func (r *row) tenantText(scratch *[]byte) []byte {
	if r.tenantID == 0 {
		return nil
	}
	*scratch, _ = appendText((*scratch)[:0], r.doc.inner(r.tenantID))
	for i, c := range *scratch {
		if 'A' <= c && c <= 'Z' {
			(*scratch)[i] = c + 'a' - 'A'
		}
	}
	return *scratch
}

// alertID is the AlertId, or for behaviors the BehaviorId, of a row.
func alertID(r *row) []byte {
	for _, name := range [...]string{"AlertId", "BehaviorId"} {
		if n := r.columns.find(r.props, name); n != 0 && r.columns.nodes[n].kind == kindString {
			return r.columns.inner(n)
		}
	}
	return nil
}

// begin begins a call of Append.
func (e *enricher) begin(ctx context.Context) { e.ctx, e.left = ctx, e.devices.cfg.Wait }

// flush finds the devices of the rows that are held, waits for those that are missing, and has all rows written.
func (e *enricher) flush() {
	if len(e.held) == 0 {
		return
	}
	e.tryResolve()
	payload, walk := e.t.payload, e.t.walk
	for i, hr := range e.held {
		e.t.payload = hr.payload
		e.t.finish(&hr.row, hr.body, hr.at, hr.end)
		e.held[i] = nil
		e.put(hr)
	}
	e.held, e.bytes = e.held[:0], 0
	e.t.payload, e.t.walk = payload, walk
}

// release lets go of a call of Append. Rows are held then only if emit has panicked.
func (e *enricher) release() {
	for _, hr := range e.held {
		if hr != nil {
			e.put(hr)
		}
	}
	clear(e.held)
	e.held, e.bytes, e.ctx = e.held[:0], 0, nil
	if cap(e.held) > 4096 {
		e.held = nil
	}
}

// put gives a row back, with its buffers unless they are of a giant.
func (e *enricher) put(hr *heldRow) {
	hr.row.release()
	hr.payload, hr.body, hr.alert, hr.key = nil, nil, nil, ""
	if len(e.free) < 256 && hr.row.size() < 64<<10 {
		e.free = append(e.free, hr)
	}
}

// tryResolve is resolve, with a panic as no devices.
func (e *enricher) tryResolve() {
	var err error
	defer caught(&err)
	e.resolve()
	e.awaitAlerts()
}

// resolve gives the rows that are held the device of their alert where they have none, and asks for all that are missing,
// once.
func (e *enricher) resolve() {
	d := e.devices
	var missing map[string]bool // keys
	d.mu.Lock()
	for _, hr := range e.held {
		if hr.match == matchNone && hr.known {
			if al := d.alerts.get(hr.tenant, hr.alert); al != nil {
				if key, ok := al.device(); ok {
					hr.key, hr.match = key, matchAlert
				}
			}
		}
		hr.row.held = hr
		if hr.key == "" || d.cfg.Lookup == nil {
			continue
		}
		if want := d.wanting(hr); want != "" && !missing[want] {
			if missing == nil {
				missing = make(map[string]bool)
			}
			missing[strings.Clone(want)] = true
		}
	}
	byTenant := make(map[string][]string)
	for key := range missing {
		tenant := d.tenantOf(key)
		byTenant[tenant] = append(byTenant[tenant], string(appendDeviceID(nil, key)))
	}
	d.mu.Unlock()
	if len(missing) == 0 {
		return
	}

	start := time.Now()
	ctx, cancel := context.WithTimeout(e.ctx, e.left)
	defer cancel()
	pending := make(map[string]bool)
	for tenant, ids := range byTenant {
		for _, id := range d.cfg.Lookup(ctx, tenant, ids) {
			pending[tenant+"/"+strings.ToLower(id)] = true
		}
	}
	e.left -= min(e.left, time.Since(start))
	if len(pending) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, hr := range e.held {
		if hr.key == "" {
			continue
		}
		if want := d.wanting(hr); want != "" {
			hr.pending = pending[d.tenantOf(want)+"/"+string(appendDeviceID(nil, want))]
		}
	}
}

// awaitAlerts waits for the AlertInfo of rows that do not repeat it, as those before 2023, if it is read beside them, by another
// Transformer, so that it may be about to come. It waits no longer than this call still may.
func (e *enricher) awaitAlerts() {
	news := e.news()
	if news == nil || e.left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.left)
	defer cancel()
	start := time.Now()
	for news != nil && ctx.Err() == nil {
		select {
		case <-news:
		case <-ctx.Done():
		}
		news = e.news()
	}
	e.left -= min(e.left, time.Since(start))
}

// news is closed when another Transformer has had an AlertInfo. It is nil if there is nothing to wait for.
func (e *enricher) news() chan struct{} {
	d := e.devices
	d.mu.Lock()
	defer d.mu.Unlock()
	expected := false
	for at, last := range d.informs {
		expected = expected || at != e && d.now().Sub(last) < informsFor
	}
	if !expected || !e.lacksAlert() {
		return nil
	}
	if d.news == nil {
		d.news = make(chan struct{})
	}
	return d.news
}

// informsFor is how long after its last AlertInfo a Transformer is still expected to have another.
const informsFor = 10 * time.Minute

// lacksAlert reports whether a row that is held has no title, and nothing is known of its alert.
func (e *enricher) lacksAlert() bool {
	for _, hr := range e.held {
		r := &hr.row
		if !hr.known || r.table.name != "AlertEvidence" || len(hr.alert) == 0 {
			continue
		}
		if n := r.columns.find(r.props, "Title"); n != 0 && !nothing(&r.columns, n) {
			continue
		}
		if al := e.devices.alerts.get(hr.tenant, hr.alert); al == nil || al.info == nil {
			return true
		}
	}
	return false
}

// wanting is the key of the device that should be asked for, or "": one of which nothing or too little is known.
func (d *Devices) wanting(hr *heldRow) string {
	dev, at, missing := d.find(hr.key, true)
	switch {
	case missing != "":
		return missing
	case isEvidence(dev.groups), d.stale(dev, &hr.row):
		return at
	}
	return ""
}

// stale reports whether what is known of a device is too old for an event.
func (d *Devices) stale(dev *device, r *row) bool {
	last := newest(dev.groups)
	return d.cfg.TTL > 0 && last > 0 && eventNanos(r, d.now().UnixNano())-last > int64(d.cfg.TTL)
}

// write adds the fields of the device, and of the alert where the row lacks them, to the map that f is writing.
func (e *enricher) write(f *flat, r *row) {
	hr := r.held
	if hr == nil {
		return
	}
	if e.era != f.names.era || len(e.names) != len(e.devices.fields.names) {
		e.rename(f)
	}
	d := e.devices
	d.mu.Lock()
	defer d.mu.Unlock()
	st := statusNone
	if hr.key != "" {
		st = e.writeDevice(f, hr)
		f.name(e.how)
		f.out = msgp.AppendString(f.out, deviceMatches[hr.match])
		d.matched[hr.match]++
	}
	f.name(e.what)
	f.out = msgp.AppendString(f.out, deviceStatuses[st])
	d.found[st]++
	if !hr.known || r.table.name == "AlertInfo" {
		return
	}
	if al := d.alerts.get(hr.tenant, hr.alert); al != nil && al.info != nil {
		e.writeAlert(f, r, al)
	}
}

func (e *enricher) writeDevice(f *flat, hr *heldRow) deviceStatus {
	d := e.devices
	dev, at, _ := d.find(hr.key, true)
	if dev == nil {
		at = hr.key
	}
	f.name(e.id)
	e.out = appendDeviceID(e.out[:0], at)
	f.out = msgp.AppendStringFromBytes(f.out, e.out)
	if dev == nil {
		if hr.pending {
			return statusPending
		}
		return statusUnknown
	}
	for w := (walker{rest: dev.groups}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if int(c.id) < len(e.names) && e.names[c.id] != 0 {
			f.name(e.names[c.id])
			f.out = append(f.out, c.value...)
		}
	}
	switch {
	case d.stale(dev, &hr.row):
		return statusStale
	case hr.pending && isEvidence(dev.groups):
		return statusPending
	}
	return statusHit
}

// writeAlert fills in what the row does not say and the AlertInfo of its alert does.
func (e *enricher) writeAlert(f *flat, r *row, al *alert) {
	filled := false
	for w := (walker{rest: al.info}); ; {
		c, ok := w.next()
		if !ok {
			break
		}
		if n := r.columns.find(r.props, alertColumns[c.id]); n != 0 && !nothingInside(&r.columns, n) {
			continue
		}
		f.name(e.alertNames[c.id])
		f.out = append(f.out, c.value...)
		filled = true
	}
	if filled {
		e.devices.stats.AlertsFilled++
	}
}

// nothingInside reports whether a column says nothing, also when it does so as JSON in a string.
func nothingInside(tr *tree, n uint32) bool {
	if nothing(tr, n) {
		return true
	}
	if tr.nodes[n].kind != kindString {
		return false
	}
	switch string(tr.inner(n)) {
	case "[]", "{}", "null":
		return true
	}
	return false
}

// rename finds the names of our fields anew.
func (e *enricher) rename(f *flat) {
	name := func(text string) nameID { return f.names.id(root(0), []byte(text)) }
	e.era = f.names.era
	d := e.devices
	d.mu.Lock()
	defer d.mu.Unlock()
	e.names = e.names[:0]
	for _, text := range d.fields.names {
		if text == "" {
			e.names = append(e.names, 0)
		} else {
			e.names = append(e.names, name(d.cfg.Prefix+text))
		}
	}
	e.id, e.how, e.what = name(d.cfg.Prefix+"DeviceId"), name(d.cfg.Prefix+"match"), name(d.cfg.Prefix+"status")
	for i, text := range alertColumns {
		e.alertNames[i] = name(text)
	}
}
