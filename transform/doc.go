// Package transform turns the payloads of Microsoft Defender XDR into events for Fluent Bit.
//
// # One record, before and after
//
// A message of an Event Hub, with one record in it (shortened):
//
//	{"records":[{
//	  "time": "2026-03-04T10:20:31.1234567Z",
//	  "tenantId": "0a1b2c3d-0000-4000-8000-000000000001",
//	  "operationName": "Publish",
//	  "category": "AdvancedHunting-AlertEvidence",
//	  "_TimeReceivedBySvc": "2026-03-04T10:20:31.0990000Z",
//	  "properties": {
//	    "Timestamp": "2026-03-04T10:18:02.7654321Z",
//	    "AlertId": "da0102030405_1",
//	    "EntityType": "Process",
//	    "DeviceId": null,
//	    "FileSize": 640920,
//	    "ApplicationId": 11161,
//	    "AttackTechniques": "[\"PowerShell (T1059.001)\"]",
//	    "AdditionalFields": "{\"ImageFile\":{\"$id\":\"2\",\"Host\":{\"$id\":\"3\",\"MachineId\":\"aa11\",\"OSFamily\":\"Windows\"}},\"Host\":{\"$ref\":\"3\"}}"
//	  },
//	  "Tenant": "DefaultTenant"
//	}]}
//
// becomes one event in the format "flat", [2026-03-04T10:18:02.7654321Z, map] in msgpack:
//
//	"table":            "AlertEvidence"
//	"tenant_id":        "0a1b2c3d-0000-4000-8000-000000000001"
//	"exported_at":      "2026-03-04T10:20:31.1234567Z"
//	"received_at":      "2026-03-04T10:20:31.0990000Z"
//	"event_id":         "39ac7b7419eca3605586c8b5e93a5516"
//	"Timestamp":        "2026-03-04T10:18:02.7654321Z"
//	"AlertId":          "da0102030405_1"
//	"EntityType":       "Process"
//	"FileSize":         640920
//	"ApplicationId":    "11161"
//	"AttackTechniques": ["PowerShell (T1059.001)"]
//	"AdditionalFields.ImageFile.Host.MachineId": "aa11"
//	"AdditionalFields.ImageFile.Host.OSFamily":  "Windows"
//
// # The rooms
//
//	transform/          the way of a payload: records, tables, rows that wait, unreadable text
//	  |          \
//	format/    device/  the shape of an event; the memory of devices. Neither knows the other
//	  |          /
//	event/              one event being written     repeats/  the ids of what was emitted
//	  |
//	record/             one record as received
//
// Each room imports only rooms below it (build/arch).
//
// # Files
//
//	transform.go   Transformer, Config, Append: from a payload to events
//	body.go        the records of a payload, and where the next whole one begins after damage
//	wrapped.go     payloads and records that are packed: gzip, UTF-16, JSON inside a string
//	table.go       the table of a record, and whether it is wanted
//	hold.go        rows that get a device: they wait until the end of their Append
//	late.go        rows whose device is still to come after that
//	unreadable.go  text that cannot be read or written, passed on with the reason
//	delay.go       how old events are when they come
//	stats.go       figures
//
// # How a payload flows
//
//	Append -> body, values, object: find the records, one by one (body.go)
//	            | Record.Read: the record's tree, its envelope, its columns (record/)
//	            | table: which table it is of, and whether it is wanted (table.go)
//	            | keep: a row that gets a device waits until all payloads are read (hold.go),
//	            |       and one whose device is still to come longer (late.go)
//	            v
//	          write: a Format writes it with a Writer (format/, event/)
//	            | text that cannot be read or written: unreadable (unreadable.go)
//	            v
//	          emit(table, event)
//
// A [Transformer] writes each record into one buffer that the next one uses again. In steady state
// nothing is allocated.
//
// # How a device is found
//
// An alert's Process, File and User rows have no DeviceId: the host is inside their
// AdditionalFields. Its columns are added to the row, with the way in which it was found:
//
//	"DeviceInfo.DeviceId":    "aa11"
//	"DeviceInfo.DeviceName":  "ws-17.corp.example"
//	"DeviceInfo.OSPlatform":  "Windows11"
//	"DeviceInfo.match":       "evidence"
//	"DeviceInfo.status":      "hit"
//
//	DeviceInfo record --report--+                    +--> Learn <-- machines API, snapshot
//	AlertInfo record  --inform--|--> Memory <--------+
//	Machine row, host --witness-+    devices: tenant, id -> groups of columns (device/groups.go)
//	                                 alerts: tenant, AlertId -> its devices, title (alert.go)
//	                                      ^
//	AlertEvidence row -observe-> hold ----|- 1. its DeviceId            match: row
//	  (device/join.go)             |      |- 2. its host, through $ref  match: evidence
//	                               |      |     (device/host.go)
//	                               |      |- 3. its resource, its host name    match: name
//	                               |      |- 4. the devices of its alert         match: alert
//	                               |      |- 5. its account (by_user)            match: user
//	                               |      |     of several none is guessed       match: several
//	  all payloads are read:       v      |
//	                             flush ---+- ask for devices that are missing, stale or known from evidence
//	                               |         alone: Ask, all at once
//	             nothing to wait for     what is to come
//	                               |        |
//	                               v        v
//	                             write     late: until the answer or the rest of the alert has come,
//	                                        |    or the wait is over; then write
//	                                        v
//	                                      status: hit, stale, unknown, pending, none
//
// Only rows that wait for something wait, and Append waits for nothing:
//
//	a row that                                 waits for                at most
//	names a device that no report speaks for   an answer of the API     device_info.wait
//	has an AlertId and no host, or no Title    other rows of its alert  device_info.wait and 1 s
//	may have a device, at the first start      blobs of the last hours  device_info.warm_up_wait
//
// Rows that wait have a copy of their text, in a bounded number of bytes. Rows beyond it get only
// the facts known so far. The mark of a message stays back while a row of its lane waits, and so do
// all later marks of that lane (input/withheld.go). So a crash loses none of them, and repeats the
// later messages of their lanes.
//
// What speaks for what, and as of when:
//
//	source                           speaks for                                 as of
//	full report (it has OSPlatform)  all columns that it names: what it has     its Timestamp
//	                                 empty is cleared; stale and age_s go by it
//	other report                     the columns that it has, and LoggedOnUsers its Timestamp
//	                                 as an empty list
//	machines API                     the columns that it has; full with a       lastSeen, else now
//	                                 system; it clears tags and the merge only
//	row of evidence, its host        name, group, system of a host, where no    older than any report
//	                                 report says or clears them
//	row of DeviceNetworkInfo         addresses of an adapter that is up; of a   its Timestamp
//	                                 newer report they replace those before;
//	                                 of one that was up and is not, none
//	MergedToDeviceId                 the device is the other one, once that     its report
//	                                 has reported, and so on; of a circle the
//	                                 newest; empty in a full report, no longer
//	MergedDeviceIds of the survivor  the same, for each of them                 its report
//
// For each column the newest wins, in any order of arrival, also if it says that the column is
// empty. Texts such as null, N/A, - and blanks are empty. Nothing counts as of later than the
// time of its envelope, which no device writes, and without one as of now.
//
//	match    the device is
//	row      that of the row's own DeviceId
//	evidence that of the host in AdditionalFields
//	name     the one of the tenant that has the row's host name or Azure resource, and whose newest
//	         report is within device_info.ttl of the event; a whole name before one without a
//	         domain; never an address
//	alert    the one that other rows of the alert name, by id or by name; of that name, if the row
//	         names a host
//	user     the one that the row's account is logged on to, by a report within device_info.ttl of
//	         the event (device_info.by_user)
//	several  not guessed: there is more than one
//
//	status   meaning
//	hit      a report speaks for the device
//	stale    the newest full report is older than the event by more than device_info.ttl
//	unknown  no report does, and the API, if set up, does not know it; the facts of evidence are added
//	pending  as unknown, and the answer had not come when the wait was over
//	none     the row has no device, or several of which none is guessed
//
// All times are the service's, so a replay has the same outcome. Null, zeros, blanks and the like
// do not count as ids. age_s is negative where the report is newer than the event.
//
// A device is kept as values without names: 640 bytes in all for 22 columns
// (BenchmarkMillionDevices). Whole encoded fragments, names and all, would be one copy instead of
// one for each column, but take twice the memory. Their names would depend on the Transformer.
//
// # Why our own scanner
//
// An event_id is computed from a record's raw text. Damage must stay within its record. And text
// must be passed on unchanged. The obvious library, fastjson, keeps no raw text and parses a
// payload as a whole. It accepts malformed escapes, leading zeros and numbers such as 1-2, and
// guesses at half surrogate pairs. It gives up at 300 levels, and copies the rest of the text into
// its error at each of them. Working around that takes a second scanner in front of it, and then
// the tree is there already. BenchmarkFastjson and BenchmarkScan compare the two.
//
// # What is not obvious
//
//   - Damage costs one record. Records are parsed one at a time, from where the last one ended.
//     When one does not parse, the next is found by the first keys of records. They cannot be found
//     inside a string, since quotes are escaped there. The search is bounded: nested garbage cannot
//     make it quadratic.
//   - Each record is read whole before any of it is written. Rows that get a device wait for the
//     end of the call, and some wait longer. So rows may overtake each other.
//   - JSON in a string is opened by a list of columns, never by its first character, and each
//     column has a declared kind. JSON of another kind goes to <column>_raw. So do values that do
//     not fit the documented type of a column: one name has one type.
//   - A repeat is a hunting record whose event_id came before. An id is known once its event is
//     queued, so a batch that was given up is no repeat when it is read again. If two sources make
//     batches at the same moment, each with a copy, both copies are passed on. Rows of devices and
//     alerts are learned from even when they are dropped.
//   - An integer is exact or a string. A number that float64 would change is a string.
//   - Strings may hold bytes that are no text: not UTF-8, or half surrogate pairs. Those are
//     written as the escape that shows them (\xe9, \ud83d), and repaired_text counts the strings.
//     In unreadable_raw such bytes go out as base64 (unreadable_encoding), so the text can be
//     restored.
//   - {"$ref":"3"} writes nothing, and the target's "$id" is dropped. A reference to nothing in its
//     record is kept unchanged.
//   - Records whose category begins with AdvancedHunting- have columns. So have records of the same
//     tables from the export of a Log Analytics workspace, with the same names and types. There
//     TenantId is the workspace, and devices are looked up by it in place of the tenant. Every
//     other record, with or without properties, is flattened without columns. Its table is its
//     category. Without a category it is SecurityAlert, SecurityRecommendation and so on for
//     Defender for Cloud, else unknown. SecurityAlert has one type a name, too: Microsoft Sentinel
//     has as text what Defender for Cloud has as lists and objects (record.AlertClass).
//   - In names, a dot inside a key becomes _, and other characters that an index refuses are
//     avoided: see join in event/names.go. Two members that end up with one name are both kept: the
//     later one gets _2, _3. A long key is cut, and kept whole in the value.
//   - Elements of lists are never dropped, not even null or empty ones: their position may matter.
//     Lists that mix scalars and objects become lists of text.
//   - Output is bounded: 16 levels, names of about a thousand bytes, events of 8 times their record
//     and 1 MB. The events of one Append are bounded together (Config.Memory). Deeper or longer
//     becomes JSON text. An event that is still too large is written again, with all objects and
//     lists of its record as JSON text in <name>_raw. So its columns can be searched. A record is
//     passed on raw if it is too large even then, or has more values than there is memory for.
//   - The names of our own fields and of a device's fields are ours in every record, even if we do
//     not write them. So are all names with unreadable_ at the beginning. A member of the record
//     with such a name gets _2.
//   - Names, tables, tenants and references come from outside, so their caches are bounded in
//     bytes. Text longer than any real name is not cached. Append gives back a giant payload's
//     buffers.
package transform
