// Package device has what is known of devices and of recent alerts, and finds the device of a
// record.
//
//	memory.go    devices by tenant and id, bounded in bytes
//	tenants.go   numbers for tenants, as long as something is known of them
//	groups.go    what is known of one device: columns, and when each was said
//	fields.go    which columns are kept
//	report.go    from a report to columns
//	host.go      which device a row names, and what the row says of it
//	alert.go     which devices an alert is about, and its title
//	join.go      from a row to its device: find, ask, wait, describe
//	snapshot.go  to the state file and back
package device
