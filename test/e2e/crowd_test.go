package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

const (
	crowdSize = 200
	// residentGrowth is what a process may keep after a second crowd that it did
	// not after the first: the collector's slack, and no more.
	residentGrowth = 48 << 20
	// residentLimit bounds a process after a crowd has left.
	residentLimit = 512 << 20
)

func TestCrowd_NothingLostNothingMixedNothingKept(t *testing.T) {
	t.Parallel() // Most of its time it waits for idle connections to be closed.
	crowds(t, ownWorld(t), 10<<20, 2<<20)
}

func TestCrowd_NothingLostWithoutEncryptionEither(t *testing.T) {
	t.Parallel()
	crowds(t, makeWorld(t, plain), 4<<20, 2<<20)
}

// crowds has one crowd after another play, each player moving so many bytes both
// ways, and looks at what they leave behind.
func crowds(t *testing.T, w *world, sizes ...int64) {
	t.Helper()
	game := startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	processes := map[string]*cluster.Process{"panel": w.panel.Process, "agent": w.running}
	if err := plays(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	quiet := make(map[string]int)
	for name, p := range processes {
		quiet[name] = openFiles(t, p)
	}

	// The second crowd must find room in what the first one left.
	resident := make(map[string][]int)
	for round, size := range sizes {
		started := time.Now()
		crowd(t, public, size)
		took := time.Since(started)
		t.Logf("round %d: %d players, %d MiB each way, in %.1f s: %.0f MiB/s", round+1, crowdSize, size>>20,
			took.Seconds(), float64(2*crowdSize*(size>>20))/took.Seconds())
		for name, p := range processes {
			// A warm pool may stay for a while; the players' connections may not.
			await.Within(t, 2*time.Minute, "release of players' sockets by the "+name, func(context.Context) (bool, error) {
				return openFiles(t, p) <= quiet[name]+20, nil
			})
			resident[name] = append(resident[name], residentBytes(t, p))
		}
	}
	for name, bytes := range resident {
		t.Logf("%s: %d open files at first; resident after each round %d and %d MiB", name, quiet[name], bytes[0]>>20, bytes[1]>>20)
		if bytes[0] > residentLimit || bytes[1] > bytes[0]+residentGrowth {
			t.Errorf("the %s keeps memory", name)
		}
	}
	for name, p := range processes {
		if n := goroutines(t, p); n > 150 {
			t.Errorf("the %s has %d goroutines without players", name, n)
		} else {
			t.Logf("%s: %d goroutines", name, n)
		}
	}
}

// crowd has all players play at once.
func crowd(t *testing.T, addr string, size int64) {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	var players sync.WaitGroup
	failures := make(chan error, crowdSize)
	for i := range crowdSize {
		players.Go(func() {
			if err := stream(ctx, addr, byte(i), size); err != nil {
				failures <- fmt.Errorf("player %d: %w", i, err)
			}
		})
	}
	players.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func openFiles(t *testing.T, p *cluster.Process) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.PID()), "fd"))
	if err != nil {
		t.Skipf("this system does not tell about other processes: %v", err)
	}
	return len(entries)
}

func residentBytes(t *testing.T, p *cluster.Process) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// goroutines ends a process by the signal upon which a Go program prints all
// of them, and counts.
func goroutines(t *testing.T, p *cluster.Process) int {
	t.Helper()
	if err := p.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	return strings.Count("\n"+p.Output(), "\ngoroutine ")
}

// A player who stops reading fills what lies between, and no more; the game's
// writes stop, and all others play on.
func TestCrowd_StalledReaderSlowsNobodyElse(t *testing.T) {
	w, game, firehose := sharedFor(t), startEcho(t), startFirehose(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	other := w.expose(t, types.CreateTCP, firehose.port, nil)
	player := join(t, public)
	before := roundTrips(t, player)

	// Through the same link as the player, through an allocation of its own…
	join(t, other)
	await.Within(t, patience, "back-pressure on the stalled reader's game", func(context.Context) (bool, error) {
		return firehose.stalled(), nil
	})
	if sent := firehose.sent(); sent > 64<<20 {
		t.Errorf("%d MiB were buffered for a player who does not read", sent>>20)
	}
	// …and through the player's allocation.
	stalled := join(t, public)
	if err := stalled.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The echo stops reading once its answers are not read, and so this write blocks.
	buffered, err := stalled.Write(make([]byte, 256<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes to a game whose answers are not read: %v", buffered, err)
	}

	after := roundTrips(t, player)
	t.Logf("median round trip %v before, %v beside two stalled readers; 95th percentile %v and %v",
		before[len(before)/2], after[len(after)/2], before[len(before)*95/100], after[len(after)*95/100])
	if after[len(after)/2] > 3*before[len(before)/2]+2*time.Millisecond {
		t.Error("the stalled readers slow another player")
	}
	if err := plays(t.Context(), public); err != nil {
		t.Errorf("another player cannot join: %v", err)
	}
}

// roundTrips measures many, and returns them sorted.
func roundTrips(t *testing.T, conn net.Conn) []time.Duration {
	t.Helper()
	trips := make([]time.Duration, 500)
	for i := range trips {
		took, err := exchange(conn, uint64(i), 10*time.Second)
		if err != nil {
			t.Fatalf("round trip %d: %v", i, err)
		}
		trips[i] = took
	}
	slices.Sort(trips)
	return trips
}
