//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child process and the goroutine that waits for it.
type process struct {
	cmd  *exec.Cmd
	pid  int
	done chan struct{} // closed when the child has been reaped
}

// spawn starts cmd in its own process group, so that Ctrl-C in a terminal reaches only this process,
// which then stops cmd. On systems that support it, cmd receives the signal parentDeath when this
// process dies.
func spawn(cmd *exec.Cmd, parentDeath syscall.Signal) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	setParentDeathSignal(cmd.SysProcAttr, parentDeath)

	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Linux sends the signal when the thread that created the child ends, so this goroutine
		// keeps its thread as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// cmd.ProcessState describes how it ended.
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// state describes how the process ended. It may be called after done is closed.
func (p *process) state() string { return p.cmd.ProcessState.String() }

// wait waits for the process until ctx or limit ends, and reports whether the process has ended.
func (p *process) wait(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// stop stops a Postgres server with a fast shutdown, and once ctx ends with an immediate one.
func (p *process) stop(ctx context.Context) error {
	if err := p.signal(syscall.SIGINT); err != nil {
		return err
	}
	if p.wait(ctx, fastLimit) {
		return nil
	}
	if err := p.signal(syscall.SIGQUIT); err != nil {
		return err
	}
	if !p.wait(context.WithoutCancel(ctx), immediateLimit) {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
	return errors.Join(errors.New("it did not shut down in time and was terminated"), ctx.Err())
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// run runs cmd until it ends. When ctx ends, run kills it and its children.
func run(ctx context.Context, cmd *exec.Cmd) error {
	p, err := spawn(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
		return ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return errors.New(p.state())
	}
	return nil
}
