// Package record has one record as it was received: its tree of values, the members around its
// columns, its columns, its time and its id. It is complete before anything of it is written.
//
//	scan.go      text to tree: Scanner, Tree, Node
//	record.go    tree to record: the envelope, and where the columns are
//	columns.go   what each documented column may hold: Class
//	workspace.go a record of a Log Analytics workspace
//	tables.go    the names of all documented tables
//	time.go      when it happened
//	id.go        event_id
//	ref.go       $ref
//	text.go      the text of a JSON string
//	number.go    numbers that keep every digit
package record
