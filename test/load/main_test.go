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
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

const (
	// patience bounds every wait that nothing is asserted of.
	patience = 2 * time.Minute
	// fewDevices is how many there are unless the environment says otherwise.
	fewDevices = 600
)

var binaries string

func TestMain(m *testing.M) { clustertest.Main(m, &binaries, nil) }

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

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
