// Package event has one event as it is being written: [EventTime, map] in msgpack. It knows values
// and names, and not which of them belong into an event: that is a format's business.
//
//	writer.go  begin, nested maps, end, size limit
//	value.go   a value of the record as msgpack: by its class, or as it comes
//	names.go   the name of a field, found once and then copied
//	indexed.go a value for an index: objects as maps, without empty values and giant texts
//	refs.go    what becomes of $ref
//	device.go  what goes onto a record of its device
package event
