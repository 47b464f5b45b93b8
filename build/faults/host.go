package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A section is an [INPUT] of the plugin: its settings.
type section map[string]string

func (s section) with(key, value string) section {
	c := section{key: value}
	for k, v := range s {
		if k != key {
			c[k] = v
		}
	}
	return c
}

// A host loads the plugin: the small C host, or Fluent Bit. It is started, ended and started again
// over the same storage.
type host struct {
	r        *run
	real     bool // Fluent Bit
	name     string
	sections []section
	env      []string
	library  string

	flags         []string // of the C host
	forget        bool     // of the C host: counted events are cut out of its storage
	memoryStorage bool     // of Fluent Bit: storage.type memory
	limits        []string // of Fluent Bit: mem_buf_limit of the first sections, which have memory storage then
	outputs       []output // of Fluent Bit; without any, all goes to the run's sink
	service       string   // further lines of its service
	filters       string   // its filters
	httpPort      int
	disk          *disk

	*process
	tail *tail
}

// An output is where Fluent Bit delivers the events of some tags.
type output struct {
	match string
	sink  *sink
}

// A disk is a small one of the host's own, mounted in a namespace of the host's own: that needs no
// privilege where user namespaces are allowed, and it is gone when the host ends.
type disk struct {
	dir     string
	options string // of tmpfs
	before  string // a command of the shell to run in dir before the host starts
}

// command returns how to start name with args and the disk.
func (d *disk) command(name string, args []string) (string, []string) {
	script := fmt.Sprintf(`mount -t tmpfs -o '%s' tmpfs '%s' && cd '%s' && { %s; } && cd / && exec "$0" "$@"`, d.options, d.dir, d.dir, cmp.Or(d.before, "true"))
	return "unshare", append([]string{"--map-root-user", "--mount", "sh", "-c", script, name}, args...)
}

// outside is the path of a file of the host's disk, as seen from here.
func (h *host) outside(path string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid(), path) }

// host makes a host of the kind that the run is for, with a section of the settings given.
func (r *run) host(sections ...section) *host {
	h := &host{r: r, real: r.real, name: fmt.Sprintf("host%d", len(r.hosts)+1), sections: sections, library: r.opt.library}
	for i, s := range sections {
		if s["tag"] == "" {
			h.sections[i] = s.with("tag", fmt.Sprintf("defender.%s.%d", h.name, i))
		}
	}
	r.hosts = append(r.hosts, h)
	r.cleanup(func() {
		if h.process != nil {
			h.process.kill()
		}
		if h.tail != nil {
			h.tail.close()
		}
	})
	return h
}

func (h *host) dir() string     { return filepath.Join(h.r.dir, h.name) }
func (h *host) storage() string { return filepath.Join(h.dir(), "storage") }
func (h *host) logFile() string { return filepath.Join(h.dir(), "log") }

// start starts the host, also again after it has ended.
func (h *host) start() {
	if err := os.MkdirAll(h.storage(), 0o700); err != nil {
		h.r.fatalf("make storage: %v", err)
	}
	const said = "starting version" // by each section, once its settings are read
	before := strings.Count(h.log(), said)
	var err error
	if h.real {
		err = h.startFluentBit()
	} else {
		err = h.startC()
	}
	if err != nil {
		h.r.fatalf("%v", err)
	}
	h.r.lives = append(h.r.lives, h.process)
	h.r.until(2*time.Minute, h.name+" to start the plugin", func() bool {
		return !h.running() || strings.Count(h.log(), said) > before
	})
}

func (h *host) startC() error {
	args := []string{"-quiet", "-log-level", "debug", "-storage", h.storage()}
	args = append(args, h.flags...)
	for i, s := range h.sections {
		if i > 0 {
			args = append(args, "-instance")
		}
		for k, v := range s {
			args = append(args, "-set", k+"="+v)
		}
	}
	if h.tail == nil {
		h.tail = follow(h.storage(), len(h.sections), h.forget, h.r.ledger, h.r.fatalLater)
	}
	return h.launch(h.r.opt.cHost, append(args, h.library))
}

func (h *host) launch(name string, args []string) (err error) {
	if h.disk != nil {
		if err := os.MkdirAll(h.disk.dir, 0o700); err != nil {
			return fmt.Errorf("make a disk: %w", err)
		}
		name, args = h.disk.command(name, args)
	}
	h.process, err = start(h.logFile(), h.env, name, args...)
	return err
}

func (h *host) startFluentBit() error {
	if h.httpPort == 0 {
		h.httpPort = freePort()
	}
	config := filepath.Join(h.dir(), "fluent-bit.yaml")
	if err := os.WriteFile(config, []byte(h.fluentBitConfig()), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	name, args := h.r.opt.fluentBit, []string{"-e", h.library, "-c", config}
	return h.launch(name, args)
}

// fluentBitConfig is the recipe of the README, with an output that retries soon, so that a row
// lasts seconds.
func (h *host) fluentBitConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, `service:
  flush: 0.5
  grace: 10
  log_level: debug
  hot_reload: on
  http_server: on
  http_listen: 127.0.0.1
  http_port: %d
  storage.path: %q
  storage.max_chunks_up: 512
  scheduler.base: 1
  scheduler.cap: 2
%spipeline:
  inputs:
`, h.httpPort, h.storage(), h.service)
	for i, s := range h.sections {
		b.WriteString("    - name: defender\n      threaded: off\n")
		switch {
		case i < len(h.limits):
			fmt.Fprintf(&b, "      storage.type: memory\n      mem_buf_limit: %s\n", h.limits[i])
		case h.memoryStorage:
			b.WriteString("      storage.type: memory\n")
		default:
			b.WriteString("      storage.type: filesystem\n      storage.pause_on_chunks_overlimit: on\n")
		}
		for k, v := range s {
			quoted, _ := json.Marshal(v)
			fmt.Fprintf(&b, "      %s: %s\n", k, quoted)
		}
	}
	if h.filters != "" {
		fmt.Fprintf(&b, "  filters:\n%s", h.filters)
	}
	b.WriteString("  outputs:\n")
	outputs := h.outputs
	if outputs == nil {
		outputs = []output{{"*", h.r.sink()}}
	}
	for _, o := range outputs {
		address, port, _ := net.SplitHostPort(o.sink.address)
		fmt.Fprintf(&b, `    - name: http
      match: %q
      host: %s
      port: %s
      format: json_lines
      json_date_key: false
      retry_limit: no_limits
`, o.match, address, port)
	}
	return b.String()
}

// stop ends the host with SIGTERM, which it must obey, with a status that says nothing was wrong.
func (h *host) stop() {
	if err := h.terminate(60 * time.Second); err != nil {
		h.r.fatalf("%s: %v; the end of its log:\n%s", h.name, err, h.lastLog(12))
	}
}

func (h *host) reload() {
	if err := h.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		h.r.fatalf("%s: reload: %v; the end of its log:\n%s", h.name, err, h.lastLog(12))
	}
}

// emptyStorage counts the rest of the events that an ended C host has stored, and removes them. So
// the next start need not read them.
func (h *host) emptyStorage() {
	if h.real {
		return
	}
	h.tail.close()
	h.tail = nil
	if err := os.RemoveAll(h.storage()); err != nil {
		h.r.fatalf("%v", err)
	}
}

// crash kills the host, and lets the broker know.
func (h *host) crash() {
	h.kill()
	if h.r.broker != nil {
		h.r.evict()
	}
}

// repeatedWithin: all events handed over so long before a SIGKILL may come again. Marks are
// written five times a second.
const repeatedWithin = 300 * time.Millisecond

// repeatsAreBounded fails the row when more came again than was handed over just before each
// SIGKILL. Of Fluent Bit we see the deliveries, not when events were handed over.
func (r *run) repeatsAreBounded() {
	if r.real {
		return
	}
	got := r.ledger.count().duplicates
	r.notef("%d could have come again", r.repeatable)
	if got > r.repeatable {
		r.failf("%d duplicates, but in the last %v before each SIGKILL only %d events were handed over", got, repeatedWithin, r.repeatable)
	}
}

// again starts the host after it has ended: from here on it recovers.
func (h *host) again() {
	ended := time.Now()
	if h.process != nil && !h.process.killed.IsZero() {
		ended = h.process.killed
	}
	if h.tail != nil {
		h.tail.catchUp() // events handed over before are no recovery
	}
	if ended == h.killed && !h.real {
		h.r.repeatable += h.r.ledger.handedFrom(ended.Add(-repeatedWithin), time.Now())
	}
	h.r.ledger.healAt(ended)
	h.start()
}

func (h *host) log() string {
	b, err := os.ReadFile(h.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.r.fatalf("%v", err)
	}
	return string(b)
}

func (h *host) lastLog(lines int) string {
	all := strings.Split(strings.TrimSpace(h.log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// expectLog fails the row unless the log has text, soon.
func (h *host) expectLog(text string) {
	for range 600 {
		if strings.Contains(h.log(), text) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.r.fatalf("%s: the log does not say %q; its end:\n%s", h.name, text, h.lastLog(12))
}

// stored tells whether anything was handed over since mark, which it moves: the content of the
// storage has changed.
func (h *host) stored(mark *string) bool {
	var now strings.Builder
	_ = filepath.WalkDir(h.storage(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&now, path, info.Size(), info.ModTime().UnixNano())
			}
		}
		return nil
	})
	changed := now.String() != *mark
	*mark = now.String()
	return changed
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

// Of linux/falloc.h.
const (
	fallocKeepSize  = 1
	fallocPunchHole = 2
)

// A tail reads the storage of the C host while it grows: every whole frame there was taken,
// whatever comes after.
type tail struct {
	stop, done chan struct{}
	passes     atomic.Int64 // over all files
}

// follow begins to read the files of so many sections into l; wrong gets the parts that cannot be
// read. With forget, read frames take no room any more.
func follow(storage string, sections int, forget bool, l *ledger, wrong func(error)) *tail {
	t := &tail{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		files := make([]tailFile, sections)
		for i := range files {
			files[i] = tailFile{path: filepath.Join(storage, fmt.Sprintf("defender.%d", i), "chunk.flb"), forget: forget}
		}
		for last := false; ; {
			for i := range files {
				if err := files[i].read(l); err != nil {
					wrong(err)
					return
				}
			}
			t.passes.Add(1)
			if last {
				return
			}
			select {
			case <-t.stop:
				last = true
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return t
}

// catchUp returns when all that is in the files now was read.
func (t *tail) catchUp() {
	for n := t.passes.Load(); t.passes.Load() < n+2; {
		select {
		case <-t.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (t *tail) close() {
	select {
	case <-t.stop:
	default:
		close(t.stop)
	}
	<-t.done
}

type tailFile struct {
	path   string
	forget bool
	at     int64
	buf    []byte
}

// read takes all whole frames from where the last read ended: two 32-bit lengths, the tag, the
// events.
func (f *tailFile) read(l *ledger) error {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if began := f.at; f.forget {
		defer func() {
			if f.at > began {
				_ = syscall.Fallocate(int(file.Fd()), fallocKeepSize|fallocPunchHole, began, f.at-began)
			}
		}()
	}
	for {
		var head [8]byte
		if _, err := file.ReadAt(head[:], f.at); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		tag, size := int64(binary.NativeEndian.Uint32(head[:])), int64(binary.NativeEndian.Uint32(head[4:]))
		f.buf = append(f.buf[:0], make([]byte, size)...)
		if _, err := file.ReadAt(f.buf, f.at+8+tag); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := l.outEvents(f.buf); err != nil {
			return fmt.Errorf("%s at %d: %w", f.path, f.at, err)
		}
		f.at += 8 + tag + size
	}
}
