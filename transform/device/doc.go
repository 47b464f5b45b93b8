// Package device remembers devices and recent alerts, and finds the device of a record.
//
//	memory.go    devices by tenant and id, bounded in bytes
//	cache.go     the device that gives way when there is no room
//	names.go     devices by host name, resource and user
//	tenants.go   numbers for tenants, as long as they have a device or an alert
//	groups.go    the facts of one device: columns, and the time of each
//	fields.go    the columns that are kept
//	report.go    from a report to columns
//	adapter.go   from rows of DeviceNetworkInfo to the addresses of a device
//	host.go      the device that a row names, and the row's own facts of it
//	alert.go     the devices of an alert, and its title
//	recent.go    the alerts of the last day of each device
//	join.go      from a row to its device: find, ask, describe
//	wait.go      the answers that a row waits for, and for how long
//	snapshot.go  to the state file and back
package device
