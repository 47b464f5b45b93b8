package main

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "cmt.h"
#include "flb.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unsafe"

	flb "github.com/fluent/fluent-bit-go/input"
)

// version and commit say which build this is. The Makefile sets them when it links the library.
var version, commit = "dev", "unknown"

// current is the only state of the package: the instances that the host has. The host's callbacks
// say little or nothing about which instance they mean, so there has to be one place that knows
// them all.
var current generation

// main is never called: the host loads a library.
func main() {}

// FLBPluginRegister tells the host what this is. Called again, before the old instances exit, when
// the host reloads.
//
//export FLBPluginRegister
func FLBPluginRegister(def unsafe.Pointer) (result C.int) {
	defer blockSignals()()
	defer guard("register", &result, -1)
	C.defender_keep_handlers()
	C.defender_clear(def)
	return C.int(flb.FLBPluginRegister(def, "defender", "Microsoft Defender XDR events from Azure Event Hubs and Blob Storage"))
}

// FLBPluginUnregister frees what registration allocated.
//
//export FLBPluginUnregister
func FLBPluginUnregister(def unsafe.Pointer) {
	defer blockSignals()()
	defer guard("unregister", nil, 0)
	flb.FLBPluginUnregister(def)
}

// FLBPluginInit starts an instance, for one [INPUT] section. After an error the host gives up its
// whole start and calls no exit. So the instances that were started before are stopped here, too.
//
//export FLBPluginInit
func FLBPluginInit(plugin unsafe.Pointer) (result C.int) {
	defer blockSignals()()
	defer guard("init", &result, flb.FLB_ERROR)
	C.defender_keep_handlers()
	p := (*C.struct_defender_plugin)(plugin)
	if err := start(p); err != nil {
		current.exit()
		return flb.FLB_ERROR
	}
	return flb.FLB_OK
}

func start(p *C.struct_defender_plugin) (err error) {
	functions := C.defender_functions()
	if p.context.remote_context != 0 {
		// Its api may be shorter than ours, so nothing of it is called.
		err := fmt.Errorf("refused: this Fluent Bit is older than 4.1; the plugin needs 4.1 or later, please upgrade")
		fmt.Fprintln(os.Stderr, "[error] [input:defender]", err)
		return err
	}
	h := newHost(p, functions)
	var thread [16]C.char
	C.defender_thread_name(&thread[0])
	switch {
	case C.defender_missing(functions) != nil:
		err = fmt.Errorf("refused: this fluent-bit does not export %s, without which the plugin cannot hand over events and know what was "+
			"stored; use an official build of Fluent Bit 4.1 or later", C.GoString(C.defender_missing(functions)))
	case strings.HasPrefix(C.GoString(&thread[0]), "flb-in-"): // set in src/flb_input_thread.c
		err = fmt.Errorf("refused: this section runs in a thread of its own, where Fluent Bit loses events silently; " +
			"set \"threaded: off\" (in a classic configuration \"threaded off\") in this section")
	}
	if err != nil {
		h.log(slog.LevelError, h.prefix()+err.Error())
		return err
	}
	in, err := newInstance(h)
	if err != nil {
		return err // its log has said it
	}
	id := C.uintptr_t(current.add(in))
	if C.defender_start_timer(functions, id, C.int(tickEvery.Milliseconds())) != 0 {
		err := fmt.Errorf("start a timer: Fluent Bit would not make one; it may have run out of file descriptors (ulimit -n)")
		h.log(slog.LevelError, h.prefix()+err.Error())
		return err
	}
	p.context.remote_context = id
	return nil
}

// newHost returns the instance's access to the host. The struct that init is given belongs to all
// instances and is overwritten, so nothing here refers to it.
func newHost(p *C.struct_defender_plugin, functions C.struct_defender_functions) host {
	api, instance := p.api, p.instance
	var tagBytes []byte // with the final zero that some filters count on
	return host{
		name: C.GoString(C.defender_name(functions, instance)),
		get: func(key string) string {
			// Only api and instance of the struct are read.
			again := C.struct_defender_plugin{api: api, instance: instance}
			if value := flb.FLBPluginConfigKey(unsafe.Pointer(&again), key); value != "" {
				return value
			}
			name := C.CString(key)
			defer C.free(unsafe.Pointer(name))
			if C.defender_is_empty(api, instance, name) != 0 {
				return " " // Settings.IsBlank
			}
			return ""
		},
		append: func(tag string, data []byte) bool {
			var t *C.char
			if tag != "" {
				tagBytes = append(append(tagBytes[:0], tag...), 0)
				t = (*C.char)(unsafe.Pointer(&tagBytes[0]))
			}
			return C.defender_append(functions, instance, t, C.size_t(len(tag)), unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data))) == 0
		},
		log: func(level slog.Level, line string) {
			if n := logLevel(level); C.defender_log_check(api, instance, n) != 0 {
				text := C.CString(line)
				defer C.free(unsafe.Pointer(text))
				C.defender_log(api, n, text)
			}
		},
		metric:  newMetrics(C.defender_cmt(api, instance), C.GoString(C.defender_name(functions, instance))),
		quit:    func() { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) },
		debugOn: C.defender_log_check(api, instance, logLevel(slog.LevelDebug)) != 0,
	}
}

// newMetrics returns what sets a series of the section called name, or nil when the host offers no
// metrics.
func newMetrics(cmt C.struct_defender_cmt, name string) func(m *metric, f figure) {
	if cmt.context == nil {
		return nil
	}
	families := make(map[*metric]unsafe.Pointer)
	return func(m *metric, f figure) {
		family, there := families[m]
		if !there {
			own, help := C.CString(m.name), C.CString(m.help)
			defer C.free(unsafe.Pointer(own))
			defer C.free(unsafe.Pointer(help))
			keys, free := cStrings("name", m.labels)
			defer free()
			bounds := make([]C.double, len(m.bounds))
			for i, b := range m.bounds {
				bounds[i] = C.double(b)
			}
			family = C.defender_series(cmt, C.int(m.kind), own, help, C.int(1+len(m.labels)), keys, unsafe.SliceData(bounds), C.size_t(len(bounds)))
			families[m] = family
		}
		if family == nil {
			return // the host would not make it; it has said why
		}
		values, free := cStrings(name, f.labels)
		defer free()
		if m.kind != histogram {
			C.defender_set(cmt, C.int(m.kind), family, C.double(f.value), C.int(1+len(f.labels)), values)
			return
		}
		buckets := make([]C.uint64_t, len(f.buckets))
		for i, n := range f.buckets {
			buckets[i] = C.uint64_t(n)
		}
		C.defender_set_histogram(cmt, family, unsafe.SliceData(buckets), C.double(f.value), buckets[len(buckets)-1], C.int(1+len(f.labels)), values)
	}
}

// cStrings makes a C array of first and the others, which free frees.
//
// Where Go writes a pointer while it collects garbage, it looks at the old value. Memory of C that
// is not cleared may hold an old value of the host's. That may be a pointer into a buffer of ours
// that is gone. Then the runtime ends the process: "found bad pointer in Go heap" (see cmd/cgo,
// "Passing pointers").
func cStrings(first string, others []string) (array **C.char, free func()) {
	memory := C.calloc(C.size_t(1+len(others)), C.size_t(unsafe.Sizeof(uintptr(0))))
	items := unsafe.Slice((**C.char)(memory), 1+len(others))
	items[0] = C.CString(first)
	for i, s := range others {
		items[1+i] = C.CString(s)
	}
	return (**C.char)(memory), func() {
		for _, item := range items {
			C.free(unsafe.Pointer(item))
		}
		C.free(memory)
	}
}

// logLevel is the host's number for a level: include/fluent-bit/flb_log.h.
func logLevel(level slog.Level) C.int {
	switch {
	case level >= slog.LevelError:
		return 1
	case level >= slog.LevelWarn:
		return 2
	case level >= slog.LevelInfo:
		return 3
	}
	return 4
}

// defenderTick is called from our own timer, every tickEvery, and is where all work on the host's
// thread is done.
//
//export defenderTick
func defenderTick(id C.uintptr_t) {
	defer guard("tick", nil, 0)
	current.tick(uintptr(id), time.Now())
}

// FLBPluginInputPause comes when some instance is over a limit, or at the beginning of a shutdown
// or reload.
//
//export FLBPluginInputPause
func FLBPluginInputPause() {
	defer blockSignals()()
	defer guard("pause", nil, 0)
	current.pause()
}

// FLBPluginInputResume comes when some instance is no longer over its limit.
//
//export FLBPluginInputResume
func FLBPluginInputResume() {
	defer blockSignals()()
	defer guard("resume", nil, 0)
	current.resume()
}

// FLBPluginExit comes once for each instance, without saying for which, all together.
//
//export FLBPluginExit
func FLBPluginExit() (result C.int) {
	defer blockSignals()()
	defer guard("exit", &result, flb.FLB_ERROR)
	current.exit()
	return flb.FLB_OK
}

// blockSignals keeps the host's signal handlers off this thread until restore is called: see
// signals.c. Ticks do it in C.
func blockSignals() (restore func()) {
	before := new(C.sigset_t)
	C.defender_block_signals(before)
	return func() { C.defender_restore_signals(before) }
}

// guard ends every export: a panic would end the host. Its text goes to standard error, because the
// code behind the log may have panicked. Instances catch their own panics before, and log them.
func guard(doing string, result *C.int, failed C.int) {
	if r := recover(); r != nil {
		fmt.Fprintf(os.Stderr, "[error] [input:defender] %s: panic: %s\n%s", doing, mask(fmt.Sprint(r)), debug.Stack())
		if result != nil {
			*result = failed
		}
	}
}
