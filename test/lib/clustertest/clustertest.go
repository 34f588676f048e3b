// Package clustertest is what tests of the built binaries have in common; see
// package cluster.
package clustertest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// Main runs a package's tests with binaries set to a directory of the built
// binaries, and ends the process. ECLITUNNEL_BIN names that directory; without it
// they are built first. With -short it runs nothing. Shortly before the tests' time
// limit, upon which nothing is cleaned up, what they have started is ended. after is
// called when all have run; nil calls nothing.
func Main(m *testing.M, binaries *string, after func() error) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipped: these tests run whole systems")
		os.Exit(0)
	}
	if limit := flag.Lookup("test.timeout"); limit != nil {
		if d, err := time.ParseDuration(limit.Value.String()); err == nil && d > 0 {
			time.AfterFunc(d-min(d/10, 30*time.Second), func() {
				fmt.Fprintln(os.Stderr, "the time limit is near: what the tests have started is ended")
				cluster.EndAll()
			})
		}
	}
	code, err := run(m, binaries, after)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M, binaries *string, after func() error) (code int, err error) {
	if *binaries = os.Getenv("ECLITUNNEL_BIN"); *binaries == "" {
		if *binaries, err = os.MkdirTemp("", "eclitunnel-bin-"); err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*binaries)) }()
		if err := Build(*binaries); err != nil {
			return 1, err
		}
	}
	code = m.Run()
	if after != nil {
		err = after()
	}
	return code, err
}

// Build builds both binaries into a directory, from the module that the working
// directory is in.
func Build(dir string) error {
	//nolint:noctx // tests have a time limit of their own, and TestMain no context
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir,
		"github.com/eclitunnel/eclitunnel/server/eclitunneld", "github.com/eclitunnel/eclitunnel/clients/eclitunnel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// Dir is a directory of the test's that every user may enter; see cluster.NewDir.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := cluster.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// StopAtEnd stops a process with the test, and prints the end of its output if that
// fails.
func StopAtEnd(t testing.TB, process *cluster.Process) {
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(process.LastLines(40))
		}
	})
}
