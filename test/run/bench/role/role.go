//go:build linux

// Package role runs parts of the bench as processes of their own, so that each
// is scheduled, and counted, like the programs it is compared with. A process
// is the bench's own binary with a role's name and its options as arguments. It
// says on its standard output that it is ready, and ends when its standard input
// does: with the bench, however that ends.
package role

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Role is what such a process does until ctx ends. It calls ready once, with
// what the bench has to know.
type Role func(ctx context.Context, options []byte, ready func(any) error) error

// Play plays a role; for the process's main.
func Play(r Role, options string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		//nolint:errcheck // however it ends, it has ended
		io.Copy(io.Discard, os.Stdin)
	}()
	return r(ctx, []byte(options), func(v any) error { return json.NewEncoder(os.Stdout).Encode(v) })
}

// ExitOn is how a program's main ends: with an exit status of 2 where its usage
// was asked for, and 1 after an error.
func ExitOn(program string, err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

// stopPatience is how long a role may take to end before it is killed. One that
// has started a panel stops that first.
const stopPatience = 45 * time.Second

// Process is a role being played.
type Process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
}

// Start starts a role and waits until it is ready; what it says is decoded into
// ready. With ownNetwork it has a network namespace of its own, which takes root.
func Start(ctx context.Context, name string, options, ready any, ownNetwork bool) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, name, string(encoded))
	cmd.Stderr = os.Stderr
	// A Ctrl-C is the bench's to act on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if ownNetwork {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Asked to end, not killed: it may have started others.
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = stopPatience
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, stdin: stdin}
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(ready); err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not get ready: %w", name, err), p.Stop())
	}
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process and waits.
func (p *Process) Stop() error {
	p.stdin.Close()
	// The bench being told to end is how a role's process ends, and no failure of it.
	if err := p.cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}
