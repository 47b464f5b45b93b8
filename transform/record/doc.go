// Package record reads one received record: its tree of values, its envelope, its columns, its time
// and its id. The record is complete before any of it is written.
//
//	scan.go      text to tree: Scanner, Tree, Node
//	record.go    tree to record: the envelope, and where the columns are
//	columns.go   Class: the values that a documented column may hold
//	workspace.go a record of a Log Analytics workspace
//	tables.go    the names of all documented tables
//	time.go      the time of the event
//	id.go        event_id
//	ref.go       $ref
//	text.go      the text of a JSON string
//	number.go    numbers that keep every digit
package record
