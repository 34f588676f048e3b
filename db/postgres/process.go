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

// process is a child and the goroutine that waits for it.
type process struct {
	cmd  *exec.Cmd
	pid  int
	done chan struct{} // closed when the child has been reaped
}

// spawn starts cmd in a process group of its own, so that Ctrl-C in a terminal reaches only us: we
// decide when it ends. Where the system can, it gets parentDeath when this process dies.
func spawn(cmd *exec.Cmd, parentDeath syscall.Signal) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	setParentDeathSignal(cmd.SysProcAttr, parentDeath)

	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent's death is, to Linux, that of the thread which made the child: this one
		// stays here, and alive, as long as the child is.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// How it ended is in cmd.ProcessState.
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// state says how the process ended. It may be called once done is closed.
func (p *process) state() string { return p.cmd.ProcessState.String() }

// wait returns whether the process ended before ctx and limit did.
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

// stop ends a Postgres server: a fast shutdown until ctx is over, then an immediate one.
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
	return errors.Join(errors.New("it did not shut down in time and was ended"), ctx.Err())
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// run runs cmd to its end and kills it, with its children, when ctx is over.
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
