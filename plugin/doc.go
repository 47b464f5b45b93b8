// Package main is the plugin itself, built as a C library. It has the functions that Fluent Bit
// calls, and makes running goroutines from the settings of a section.
//
//	main.go        the exported functions, and the only import "C"
//	flb.h          the part of Fluent Bit's ABI that they use
//	cmt.h          the same for its metrics
//	callback.c     the export that the host demands and that does nothing
//	signals.c      keeps the host's signal handlers off the stacks of goroutines
//	generation.go  the instances of one start or reload, since most callbacks do not name their instance
//	instance.go    one section: its sources, transformers and outbox, from start to stop
//	handover.go    the section's work on the host's thread: events go from the outbox to the host
//	host.go        the functions of the host that an instance may call
//	config.go      the settings of a section as a whole; input/settings.go reads and refuses each
//	device.go      the settings of the join, the snapshot of devices in the state file, and the machines API
//	repeats.go     the settings of repeats, and the newest ids in the state file
//	check.go       check_only: every connection is tried once
//	tables.go      the names of tables that settings give
//	tags.go        a tag for each table
//	log.go         log lines wait for the host's thread, and secrets are masked in them
//	metrics.go     every figure that users see; the counters are in the stats.go of each package
//
// All of the host's calls come on one thread, and block it: no flush and no other input runs
// meanwhile. So they do little. Everything else is done by goroutines that start with an instance
// and have ended when its exit returns.
//
// The host would call a Go input once a second, from a collector. When one of several sections is
// over its limit, the host stops the collector of the wrong one. So the work is done from a timer
// of our own on the same thread, like those of the host's C plugins. It fires forty times a second.
// The work takes some 20 ms at most, and at most half of the time. The host's calls to pause and
// resume still count.
//
// A panic would end the host, so each export and each goroutine turns it into an error. A signal
// handler of the host's on the stack of a goroutine would end it, too, so signals are blocked where
// Go runs.
package main
