package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// sharedFor returns the shared world, and prints its log where the test fails.
func sharedFor(t testing.TB) *world {
	t.Helper()
	w, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	w.logOnFailure(t)
	return w
}

// ownWorld returns a world that the test may break.
func ownWorld(t testing.TB) *world {
	t.Helper()
	return makeWorld(t, embedded)
}

// ownFleet returns a world with a tunnel server of its own that the test may
// break.
func ownFleet(t testing.TB) *world {
	t.Helper()
	return makeWorld(t, standAlone)
}

func makeWorld(t testing.TB, where tunnelServer, change ...func(*cluster.PanelOptions)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w, err := newWorld(ctx, where, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	w.logOnFailure(t)
	return w
}

func (w *world) logOnFailure(t testing.TB) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		t.Log(w.panel.LastLines(40))
		for _, process := range []*cluster.Process{w.running, w.serving} {
			if process != nil { // nil where a test could not start it again
				t.Log(process.LastLines(40))
			}
		}
	})
}

// within returns a context that ends after d, or with the test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// expose allocates a public port for a local one and waits until players can
// join. It returns the public address, which for tcp+udp is that of both, and
// takes the allocation back after the test.
func (w *world) expose(t testing.TB, protocol types.AllocationCreateProtocol, localPort int, options *types.AllocationOptions) string {
	t.Helper()
	ctx := within(t, patience)
	answer, err := w.panel.API.CreateAllocationWithResponse(ctx, types.AllocationCreate{
		DeviceID: &w.agent.Device.ID, Protocol: protocol, LocalPort: localPort, Options: options,
	})
	if err != nil {
		t.Fatal(err)
	}
	if answer.JSON201 == nil {
		t.Fatalf("allocate: %s: %s", answer.Status(), answer.Body)
	}
	made := answer.JSON201.Allocations
	t.Cleanup(func() { w.withdraw(t, made) })
	for _, a := range made {
		w.awaitListening(t, a.ID)
	}
	return made[0].PublicAddress
}

// awaitListening waits until players can join an allocation.
func (w *world) awaitListening(t testing.TB, id types.AllocationID) {
	t.Helper()
	await.Within(t, patience, fmt.Sprintf("listening port of allocation %d", id), func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.GetAllocationWithResponse(ctx, id)
		if err != nil {
			return false, err // the panel may be on its way back
		}
		if answer.JSON200 == nil || answer.JSON200.Status != types.AllocationListening {
			return false, fmt.Errorf("it is %s", answer.Body)
		}
		return true, nil
	})
}

func (w *world) withdraw(t testing.TB, made []types.Allocation) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, a := range made {
		answer, err := w.panel.API.DeleteAllocationWithResponse(ctx, a.ID)
		if err != nil {
			t.Logf("delete allocation %d: %v", a.ID, err)
			continue
		}
		switch answer.StatusCode() {
		case http.StatusOK, http.StatusNotFound: // a deleted device takes its allocations with it
		default:
			t.Errorf("delete allocation %d: %s: %s", a.ID, answer.Status(), answer.Body)
		}
	}
}

// find returns the path of a program, or skips the test; with CI set it fails.
func find(t testing.TB, program string) string {
	t.Helper()
	for _, name := range []string{program, filepath.Join("/usr/sbin", program), filepath.Join("/usr/games", program)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed; scripts/setup installs it", program)
	}
	t.Skipf("%s is not installed; make setup installs it", program)
	return ""
}

// serve runs a server until the test ends, and waits until it accepts connections.
func serve(t testing.TB, port int, program string, args ...string) {
	t.Helper()
	process, err := cluster.StartProcess(program, exec.Command(find(t, program), args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	await.Within(t, patience, "connection to "+program, func(ctx context.Context) (bool, error) {
		select {
		case <-process.Done():
			t.Fatalf("%s ended with exit code %d:\n%s", program, process.ExitCode(), process.Output())
		default:
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", loopback(port))
		if err != nil {
			return false, nil
		}
		conn.Close()
		return true, nil
	})
}

// command runs a program to its end and returns what it printed.
func command(t testing.TB, d time.Duration, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(within(t, d), find(t, program), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	cluster.Kept().Received(out)
	return string(out)
}

// freePort returns a port that nothing listens on.
func freePort(t testing.TB) int {
	t.Helper()
	port, err := cluster.FreePorts(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func writeFile(t testing.TB, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// portOf returns an address's port.
func portOf(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
