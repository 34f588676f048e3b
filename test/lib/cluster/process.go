package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a process has after SIGTERM.
const stopPatience = 20 * time.Second

// Process is a running program and the end of what it printed.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
}

// Starter starts a program, as StartProcess does, which is one.
type Starter func(name string, cmd *exec.Cmd, copyTo io.Writer) (*Process, error)

// StartProcess starts a program in its own process group, so that a Ctrl-C
// meant for the caller does not reach it.
// What it prints is kept, and copied to copyTo unless that is nil.
func StartProcess(name string, cmd *exec.Cmd, copyTo io.Writer) (*Process, error) {
	p := &Process{name: name, cmd: cmd, log: &tail{copyTo: copyTo}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	separateGroup(cmd)
	if logs := Kept(); logs != nil {
		logs.noteSettings(cmd.Env)
		var err error
		if p.log.whole, err = logs.create(name); err != nil {
			return nil, fmt.Errorf("keep the log of %s: %w", name, err)
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.log.close())
	}
	running.Store(p, nil)
	go func() {
		defer close(p.done)
		defer running.Delete(p)
		//nolint:errcheck // ProcessState keeps how it ended
		cmd.Wait()
		//nolint:errcheck // a log that is incomplete shows nothing
		p.log.close()
	}()
	return p, nil
}

// running holds every Process that runs.
var running sync.Map

// EndAll asks every process that was started and runs to end, and does not wait.
func EndAll() {
	running.Range(func(p, _ any) bool {
		_ = p.(*Process).Signal(syscall.SIGTERM) // A process that cannot be signalled is left.
		return true
	})
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is the process's exit status, -1 while it runs or where a signal ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Output is what the process has printed, its last MiB at most.
func (p *Process) Output() string { return p.log.String() }

// LastLines are the last n lines of Output, each behind the process's name.
func (p *Process) LastLines(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	return p.name + " | " + strings.Join(lines, "\n"+p.name+" | ")
}

// Signal sends the process a signal. One that has ended already is no error.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Kill ends the process as a power cut would, and waits.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	<-p.done
	return err
}

// Stop asks the process to end and waits. It is an error if it does not end in
// time, whereupon it is killed.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
		return errors.Join(fmt.Errorf("%s did not stop within %v", p.name, stopPatience), p.Kill())
	}
}

// Wait waits for the process's own end and returns its exit status.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("wait for the end of %s: %w", p.name, ctx.Err())
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	copyTo io.Writer

	mu    sync.Mutex
	kept  []byte
	whole *os.File // Nil where nothing keeps the whole; see KeepLogs.
}

const tailLength = 1 << 20

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - tailLength; over > 0 {
		t.kept = bytes.Clone(t.kept[over:])
	}
	if t.whole != nil {
		if _, err := t.whole.Write(b); err != nil {
			return 0, err
		}
	}
	if t.copyTo != nil {
		return t.copyTo.Write(b)
	}
	return len(b), nil
}

func (t *tail) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.whole == nil {
		return nil
	}
	err := t.whole.Close()
	t.whole = nil
	return err
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
