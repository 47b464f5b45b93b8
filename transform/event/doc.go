// Package event writes one event: [EventTime, map] in msgpack. It knows how values and names are
// written. A format decides which of them belong into an event.
//
//	writer.go  begin, nested maps, end, size limit
//	value.go   a value of the record as msgpack: by its class, or by its own type
//	names.go   the name of a field, found once and then copied
//	indexed.go a value for an index: objects as maps, without empty values and giant texts
//	refs.go    $ref, kept or replaced by its object
//	quote.go   text as a JSON string
//	device.go  the device that goes onto a record
package event
