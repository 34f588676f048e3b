//go:build linux

package postgres_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

// Root in a container usually lacks CAP_SYS_PTRACE and may not inspect processes of other users.
func TestStart_StopsAServerThatItMayNotInspect(t *testing.T) {
	needRoot(t)
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	stop(t, start(t, options))
	program, err := exec.LookPath("postgres")
	check(t, err)
	program, err = filepath.EvalSymlinks(program)
	check(t, err)
	leftover, ended := startLeftover(t, program, filepath.Join(dir, "cluster"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var server *postgres.Server
	withoutCapability(t, unix.CAP_SYS_PTRACE, func() { server, err = postgres.Start(ctx, options) })
	select {
	case end := <-ended:
		check(t, end)
	default:
		t.Error("the server of the earlier run still runs")
		check(t, leftover.Signal(syscall.SIGINT))
		check(t, <-ended)
	}
	check(t, err)
	stop(t, server)
}

// withoutCapability calls f on a thread that lacks a capability.
func withoutCapability(t *testing.T, capability int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			done <- err
			return
		}
		sets[capability/32].Effective &^= 1 << (capability % 32)
		if err := unix.Capset(&header, &sets[0]); err != nil {
			done <- err
			return
		}
		f()
	}()
	check(t, <-done)
}

func TestStart_WithAnEmptyPidFile(t *testing.T) {
	dir := sharedDir(t)
	s := start(t, postgres.Options{DataDir: dir})
	stop(t, s)
	check(t, os.WriteFile(filepath.Join(dir, "cluster", "postmaster.pid"), nil, 0o600))
	start(t, postgres.Options{DataDir: dir})
}

func TestStart_SaysThatRootMayNotBecomeAnotherUser(t *testing.T) {
	needRoot(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv")
	}
	program, err := os.Executable()
	check(t, err)
	for _, missing := range []string{"-setuid", "-setgid", "-setuid,-setgid"} {
		cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", missing, "--inh-caps", missing, program)
		cmd.Env = append(os.Environ(), hostDir+"="+sharedDir(t))
		output, err := cmd.Output()
		if err == nil || !strings.Contains(string(output), "CAP_SETUID") || strings.Contains(string(output), "apt install") {
			t.Errorf("without %s: %v, %q", missing, err, output)
		}
	}
}
