// Package device remembers devices and recent alerts, and finds the device of a record.
//
//	memory.go    devices by tenant and id, bounded in bytes
//	cache.go     which device gives way when there is no room
//	names.go     devices by host name, resource and user
//	tenants.go   numbers for tenants, as long as something is known of them
//	groups.go    what is known of one device: columns, and when each was said
//	fields.go    which columns are kept
//	report.go    from a report to columns
//	adapter.go   from rows of DeviceNetworkInfo to the addresses of a device
//	host.go      which device a row names, and what the row says of it
//	alert.go     which devices an alert is about, and its title
//	recent.go    the alerts of the last day of each device
//	join.go      from a row to its device: find, ask, describe
//	wait.go      what a row waits for, and for how long
//	snapshot.go  to the state file and back
package device
