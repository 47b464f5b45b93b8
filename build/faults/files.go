package main

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// openFiles counts the open files of a process by kind: a few more descriptors say nothing until
// one knows of what.
type openFiles map[string]int

// The kinds that are the host's and come and go with its work: chunks that are mapped, connections
// that are kept alive to where it delivers, and the timers of its retries.
var hostFiles = []string{"chunk", "output", "timer"}

// own is how many are not of those kinds. The rest of the host's stay as many as they are.
func (f openFiles) own() (n int) {
	for kind, count := range f {
		if !slices.Contains(hostFiles, kind) {
			n += count
		}
	}
	return n
}

func (f openFiles) String() string {
	var b strings.Builder
	for i, kind := range slices.Sorted(maps.Keys(f)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", f[kind], kind)
	}
	return b.String()
}

// most keeps the larger number of each kind.
func (f openFiles) most(g openFiles) {
	for kind, n := range g {
		f[kind] = max(f[kind], n)
	}
}

// openFiles lists those of the host. The port at the other end tells connections apart.
func (h *host) openFiles() (openFiles, error) {
	ports := map[string]string{}
	name := func(kind string, addresses ...string) {
		for _, a := range addresses {
			if _, port, err := net.SplitHostPort(a); err == nil {
				ports[port] = kind
			}
		}
	}
	if h.r.hub != nil {
		name("hub", strings.Split(h.r.hub.Brokers(), ",")...)
	}
	if h.r.blob != nil {
		if u, err := url.Parse(h.r.blob.URL()); err == nil {
			name("blob", u.Host)
		}
	}
	if h.real {
		name("output", h.r.sink().address)
	}
	dir := fmt.Sprintf("/proc/%d", h.pid())
	sockets, err := connections(dir + "/net/tcp")
	if err != nil {
		return nil, err
	}
	fds, err := os.ReadDir(dir + "/fd")
	files := openFiles{}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		what, rest, _ := strings.Cut(target, ":")
		switch {
		case strings.HasPrefix(target, h.storage()):
			files["chunk"]++
		case strings.HasPrefix(target, h.r.dir) && strings.HasSuffix(target, ".db"):
			files["state"]++
		case what == "pipe":
			files["pipe"]++
		case rest == "[timerfd]":
			files["timer"]++
		case what == "anon_inode":
			files[strings.Trim(rest, "[]")]++
		case what == "socket":
			kind := "socket"
			if port, ok := sockets[strings.Trim(rest, "[]")]; ok {
				if kind = ports[port]; kind == "" {
					kind = "other TCP"
				}
			}
			files[kind]++
		default:
			files["other"]++
		}
	}
	return files, err
}

// connections lists TCP sockets by inode, with the port at the other end, which is 0 for one that
// listens. The table is that of proc_net_tcp(5): addresses and ports in hexadecimal in the third
// column, the inode in the tenth.
func connections(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ports := make(map[string]string)
	for line := range bytes.Lines(b) {
		columns := strings.Fields(string(line))
		if len(columns) < 10 || columns[0] == "sl" {
			continue
		}
		_, hex, _ := strings.Cut(columns[2], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports[columns[9]] = strconv.FormatUint(port, 10)
		}
	}
	return ports, nil
}
