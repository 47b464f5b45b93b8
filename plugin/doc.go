// Package main is the plugin itself, built as a C library: what Fluent Bit calls, and what a section's settings become.
//
//	main.go        the exports, and the only import "C"; flb.h is what they need of the host's ABI
//	generation.go  the instances of one start or reload: what callbacks mean that do not say which instance they are for
//	instance.go    one section: settings -> sources, transformer and outbox, and the hand-over on the host's thread
//	device.go      what is known of devices: the snapshot in the state file, the machines API
//	host.go        what an instance may ask of the host
//	tags.go        a tag for each table
//	log.go         log lines wait for the host's thread
//	signals.c      the host's signal handlers must not run on a goroutine's stack
//
// All of the host's calls come on one thread, and nothing else runs there meanwhile: no flush, no other input. So they do
// little, and everything else is done by goroutines that start with an instance and have ended when its exit returns.
//
// The host calls a Go input once a second, from a collector that it stops for the wrong section when one of several is over its
// limit. So the work is done from a timer of our own on the same thread, made as the host's C plugins make theirs: forty
// times a second, some 20 ms at most, and not more than half of the time. The host's calls to pause and resume still count.
//
// A panic would end the host; each export and each goroutine turns it into an error. So would a signal handler of the host's on the
// stack of a goroutine: signals are blocked where Go runs.
package main
