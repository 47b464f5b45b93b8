// Package format has the shapes in which an event can be written, and what they share: the facts
// about values of Defender's columns that more than one shape needs.
//
//	flat.go          flat: one map, nested objects joined into names
//	ecs.go           ecs: Elastic Common Schema, by the mapping in ecs.txt (ecs_mapping.go), with what is no matter of one
//	                 column (ecs_special.go) and all that no field holds (ecs_rest.go)
//
//	form.go          the tree of all fields of a format, and a sheet filled in for one record
//	command_line.go  arguments as Windows splits them
//	path.go          paths, file names, and the system that a path is of
//	registry.go      hives and keys
//	url.go           the parts of a URL
//	network.go       addresses, directions, protocols
//	technique.go     ATT&CK techniques and tactics
//	account.go       names of accounts
//	process_role.go  whose process the initiating process is
//	dns.go           lists in texts
//	date.go          times as an index takes them, and Elastic's id of a process
//	text.go          letters without case
//
// The rest append to a buffer or return a part of what they were given. None allocates.
package format
