//go:build linux

package load

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// probeInterval is how often the balancer asks whether a panel is ready: it has
// to notice within the grace that panels here leave with.
const probeInterval = 100 * time.Millisecond

// balancer passes TCP connections on to the panels that say that they are ready,
// one after the other.
type balancer struct {
	address string

	mu       sync.Mutex
	replicas []*replica
	ready    map[*replica]bool
	next     int
}

func startBalancer(t *testing.T, replicas ...*replica) *balancer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	b := &balancer{address: listener.Addr().String(), replicas: replicas, ready: map[*replica]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, r := range replicas {
		running.Go(func() { b.probe(ctx, r) })
	}
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { b.pass(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	return b
}

func (b *balancer) probe(ctx context.Context, r *replica) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		yes := ready(ctx, r.url)
		b.mu.Lock()
		b.ready[r] = yes
		b.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// sends reports whether connections go to a panel.
func (b *balancer) sends(r *replica) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready[r]
}

// choose returns the next panel that is ready, "" for none.
func (b *balancer) choose() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.replicas {
		b.next++
		if r := b.replicas[b.next%len(b.replicas)]; b.ready[r] {
			return r.address
		}
	}
	return ""
}

// pass copies both ways until both directions have ended.
func (b *balancer) pass(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	address := b.choose()
	if address == "" {
		return
	}
	panel, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer panel.Close()
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		panel.Close()
	})
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, panel}, {panel, conn}} {
		both.Go(func() {
			// How it ended the two ends see for themselves.
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}
