package db

import (
	"context"
	"net"
	"time"
)

// lib/pq waits for an answer whatever the context says, so a connection whose peer vanished without
// a word (power cut, dropped NAT entry) must be found dead by the kernel: by keepalive probes while
// an answer is awaited, by the user timeout while sent bytes stay unacknowledged.
const (
	keepAliveIdle     = 3 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 8 * time.Second
)

// dialer makes the connections of the pool: a pq.Dialer and pq.DialerContext.
type dialer struct{}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	netDialer := net.Dialer{
		Timeout: connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
		},
		Control: setUserTimeout,
	}
	return netDialer.DialContext(ctx, network, address)
}
