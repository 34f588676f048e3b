//go:build linux

// Package attack attacks a whole system of built binaries from one machine, and
// measures what its victim notices: a player whose round trips and joins go on, or
// people and devices at a panel. docs/security.md says which attack is which.
//
// In make test each attack is short. ECLITUNNEL_ATTACK_TIME is how long each lasts;
// `make attack` runs them for longer. As root the package runs in a network namespace
// of its own, whose addresses it may choose; otherwise the attacks that take one are
// skipped. ECLITUNNEL_BIN is a directory of binaries, which are built first without it.
package attack

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

// apart is set in the process that has a network namespace of its own.
const apart = "ECLITUNNEL_ATTACK_APART"

var binaries string

func TestMain(m *testing.M) {
	role.Main("attack", roles)
	if os.Getenv(apart) == "" && cluster.CanPlace() == nil {
		os.Exit(rerun())
	}
	if os.Getenv(apart) != "" {
		if err := prepareNetwork(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	clustertest.Main(m, &binaries, stopWorld)
}

// rerun runs the tests again in a network namespace of their own, which takes a process
// of its own: all of its threads are then in it.
func rerun() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	return 0
}

// longAttack is from which time on an attack is one of make attack, not of make test.
const longAttack = 10 * time.Second

// attackTime is how long an attack lasts, and as long the calm before it.
func attackTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ECLITUNNEL_ATTACK_TIME")
	if text == "" {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		t.Fatalf("ECLITUNNEL_ATTACK_TIME: %q", text)
	}
	return d
}
