// Package child runs the servers of tests, such as Apache Kafka, as processes that end with the
// test, even if the test is killed.
package child

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopWait is how long a child may take to end in good order.
const stopWait = 20 * time.Second

// A Process is a child that runs.
type Process struct {
	cmd   *exec.Cmd
	alive io.WriteCloser // when it is closed, by us or because we died, the child is killed
	done  chan struct{}
}

// watch runs its arguments, ends them well when it is given a line, and kills them when its
// standard input ends.
const watch = `"$@" </dev/null & pid=$!; trap 'kill -9 $pid 2>/dev/null' EXIT; if read -r _; then kill $pid; wait $pid; fi; exit 0`

// Start starts a command in dir, with env besides our environment. Its output goes to output, which
// must not be read before the child has ended unless it locks.
func Start(dir string, env []string, output io.Writer, command ...string) (*Process, error) {
	cmd := exec.Command("sh", append([]string{"-c", watch, "sh"}, command...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	p := &Process{cmd: cmd, alive: in, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	return p, nil
}

// Stop ends the child with SIGTERM and waits for its end; when that takes too long, it kills it.
func (p *Process) Stop() {
	_, _ = io.WriteString(p.alive, "\n")
	select {
	case <-p.done:
	case <-time.After(stopWait):
		p.Kill()
	}
}

// Kill kills the child at once and waits for its end.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return // the number may be another's by now
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // the shell and the child
	_ = p.alive.Close()
	<-p.done
}
