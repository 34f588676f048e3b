// Package cluster runs the built binaries on this machine: a panel with its
// embedded Postgres and tunnel server, and agents enrolled with it. The demo
// and the end-to-end tests share it, so what people are shown is what is tested.
//
// Everything listens on loopback, keeps its files in one directory, and is
// ended by its own process id.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// pollInterval is how often Until asks again.
const pollInterval = 50 * time.Millisecond

// Until asks again and again until met says yes. It returns met's error at
// once, and names what it waited for when ctx ends first.
func Until(ctx context.Context, what string, met func(context.Context) (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		yes, err := met(ctx)
		if yes && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// NewDir makes a directory for a panel and its agents. The embedded Postgres
// runs as an unprivileged user where the panel runs as root, so every user may
// enter it; secret files inside have their own modes.
func NewDir() (string, error) {
	dir, err := os.MkdirTemp("", "eclitunnel-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// FreePorts finds n neighbouring ports that are free for TCP and UDP on every
// address, and returns the first. It looks below 20000: the system hands out
// ports above 32768 to outgoing connections, which may take one between two
// starts of a process, and the panel's default range lies between. A port that it
// has returned, which may not be used yet, is one of the last that it returns again.
func FreePorts(ctx context.Context, n int) (int, error) {
	const lowest, highest, attempts = 10000, 19999, 100
	given.Lock()
	defer given.Unlock()
	for attempt := range attempts {
		first := lowest + rand.IntN(highest-lowest-n)
		if attempt < attempts/2 && given.any(first, n) || !free(ctx, first, n) {
			continue
		}
		for port := first; port < first+n; port++ {
			given.ports[port] = true
		}
		return first, nil
	}
	return 0, fmt.Errorf("find %d free ports between %d and %d", n, lowest, highest)
}

// given are the ports that FreePorts has returned: tests that run at once must not have the same.
var given = givenPorts{ports: make(map[int]bool)}

type givenPorts struct {
	sync.Mutex
	ports map[int]bool
}

func (g *givenPorts) any(first, n int) bool {
	for port := first; port < first+n; port++ {
		if g.ports[port] {
			return true
		}
	}
	return false
}

// FreePort returns wanted where it is free, otherwise a port that is.
func FreePort(ctx context.Context, wanted int) (int, error) {
	if free(ctx, wanted, 1) {
		return wanted, nil
	}
	return FreePorts(ctx, 1)
}

func free(ctx context.Context, first, n int) bool {
	var config net.ListenConfig
	for port := first; port < first+n; port++ {
		addr := ":" + strconv.Itoa(port)
		tcp, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			return false
		}
		tcp.Close()
		udp, err := config.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return false
		}
		udp.Close()
	}
	return true
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
