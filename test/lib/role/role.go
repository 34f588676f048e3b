//go:build linux

// Package role runs parts of a program as processes of their own, so that each
// is scheduled, and counted, like the programs it is compared with. A process
// is the program's own binary with a role's name and its options as arguments. It
// prints on its standard output that it is ready, and ends when its standard input
// does: with the program, however that ends.
package role

import (
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
// what the program has to know.
type Role func(ctx context.Context, options []byte, ready func(any) error) error

// Of makes a role of a function that takes options of type T and returns what is
// ready and how to end it.
func Of[T, R any](start func(context.Context, T) (R, func() error, error)) Role {
	return func(ctx context.Context, encoded []byte, ready func(any) error) error {
		var options T
		if err := json.Unmarshal(encoded, &options); err != nil {
			return err
		}
		result, stop, err := start(ctx, options)
		if err != nil {
			return err
		}
		if err := ready(result); err != nil {
			return errors.Join(err, stop())
		}
		<-ctx.Done()
		return stop()
	}
}

// Main plays the role that the command line names, if it does, and ends the
// process; otherwise it returns. It comes first in main.
func Main(program string, roles map[string]Role) {
	if len(os.Args) != 3 || roles[os.Args[1]] == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		//nolint:errcheck // however it ends, it has ended
		io.Copy(io.Discard, os.Stdin)
	}()
	Exit(program, roles[os.Args[1]](ctx, []byte(os.Args[2]), json.NewEncoder(os.Stdout).Encode))
}

// Exit ends a program: with an exit status of 2 where its usage was asked for,
// and 1 after an error.
func Exit(program string, err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
	os.Exit(0)
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

// Start starts a role and waits until it is ready; what it reports is decoded into
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
	// A Ctrl-C is the program's to act on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if ownNetwork {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Asked to end, not killed: it may have started others.
	cmd.Cancel, cmd.WaitDelay = stdin.Close, stopPatience
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, stdin: stdin}
	if err := json.NewDecoder(stdout).Decode(ready); err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not get ready: %w", name, err), p.Stop())
	}
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process and waits.
func (p *Process) Stop() error {
	p.stdin.Close()
	// The end of the program's context ends a role's process, which is no failure.
	if err := p.cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}
