package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is one life of a host: started, watched, ended by its id.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how, once it has

	mu     sync.Mutex
	usage  usage
	killed time.Time // zero when it was not
}

// usage is the most that a process was seen to use.
type usage struct {
	resident int64 // bytes, as the kernel keeps the peak
	private  int64 // bytes, without mapped files; sampled
	threads  int
	files    int
}

func (u *usage) most(v usage) {
	u.resident = max(u.resident, v.resident)
	u.private = max(u.private, v.private)
	u.threads = max(u.threads, v.threads)
	u.files = max(u.files, v.files)
}

// start starts a command whose log goes to the end of the file log. It is killed should this
// process end.
func start(log string, env []string, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	go p.watch()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) watch() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		u, err := usageOf(p.pid())
		if err == nil {
			p.mu.Lock()
			p.usage.most(u)
			p.mu.Unlock()
		}
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
	}
}

func (p *process) peak() usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usage
}

// usageOf reads the present use of a process, from /proc.
func usageOf(pid int) (u usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(string(line), ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch key {
		case "VmHWM":
			u.resident = n << 10
		case "RssAnon":
			u.private = n << 10
		case "Threads":
			u.threads = int(n)
		}
	}
	files, err := os.ReadDir(dir + "/fd")
	u.files = len(files)
	return u, err
}

// kill ends the process at once.
func (p *process) kill() {
	if p.running() {
		p.killed = time.Now()
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// terminate asks the process to end and waits; the process must end by itself within d, and well.
func (p *process) terminate(d time.Duration) error {
	if p.running() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-time.After(d):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // the log then has every goroutine's stack
		time.Sleep(time.Second)
		p.kill()
		return fmt.Errorf("it did not end within %v of SIGTERM", d)
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return fmt.Errorf("it ended with %v", exit)
	}
	return p.err
}
