//go:build linux

// Package load measures panels with many devices, and panels that are replaced
// under load: the built eclitunneld on a real Postgres, with thousands of devices
// that speak the control channel from one process.
//
// In make test it runs with few devices for a short while. ECLITUNNEL_LOAD_DEVICES
// is how many there shall be; `make load` runs it with 5,000. ECLITUNNEL_BIN is a
// directory of binaries, which are built first without it.
package load

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

const (
	// patience bounds every wait that nothing is asserted of.
	patience = 2 * time.Minute
	// fewDevices is how many there are unless the environment says otherwise.
	fewDevices = 600
)

var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipped: these tests run whole systems")
		return
	}
	os.Exit(cluster.RunWithBinaries(func(bin string) (int, error) {
		binaries = bin
		return m.Run(), nil
	}))
}

// devices is how many devices there shall be.
func devices(t *testing.T) int {
	t.Helper()
	text := os.Getenv("ECLITUNNEL_LOAD_DEVICES")
	if text == "" {
		return fewDevices
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("ECLITUNNEL_LOAD_DEVICES: %q", text)
	}
	return n
}

// newDir is a directory through which Postgres' own account may pass.
func newDir(t *testing.T) string {
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

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stopAtEnd stops a process with the test, and prints its log where that fails.
func stopAtEnd(t *testing.T, process *cluster.Process) {
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(process.LastLines(30))
		}
	})
}
