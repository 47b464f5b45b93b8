// Package format has the shapes of an event. It also has facts about values of Defender's columns
// that more than one shape needs.
//
//	format.go        Format, and the list of formats
//	flat.go          flat: one map, nested objects joined into names
//	raw.go           raw: the record's own text in one field
//	splunk.go        splunk: nested as received, in an order for the add-on; splunk.txt lists the
//	                 columns that it reads
//	elastic.go       elastic: the text, and the device beside it, for Elastic's pipeline
//	ecs.go           ecs: Elastic Common Schema; ecs.txt is its mapping, ecs_columns.txt and
//	                 ecs_fields.txt the names and types (ecs_mapping.go). The rules of a table
//	                 are chosen once (ecs_plan.go). Rules about more than one column are in
//	                 ecs_special.go, values without a field in ecs_rest.go
//	ocsf.go          ocsf: OCSF 1.8.0; ocsf.txt is its mapping (ocsf_mapping.go), ocsf_values.go
//	                 the conversions
//
//	form.go          the tree of all fields of a format, and a sheet filled in for one record
//	command_line.go  arguments as Windows splits them
//	path.go          paths, file names, and the system that a path is of
//	registry.go      hives and keys
//	url.go           the parts of a URL
//	network.go       addresses, directions, protocols
//	technique.go     ATT&CK techniques and tactics
//	account.go       names of accounts
//	process_role.go  the role of the initiating process in a row
//	dns.go           lists in texts
//	date.go          times as an index takes them, and Elastic's id of a process
//	text.go          letters without case
//	snake.go         a column's name in snake case
//
// The files below form.go append to a buffer or return a part of their input. None allocates.
//
// A value of the wrong type in one format: for flat and splunk see record/columns.go and
// event/value.go, for ecs ecs_columns.txt and ecs_fields.txt, for ocsf ocsf.txt.
package format
