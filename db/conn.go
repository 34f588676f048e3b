package db

import (
	"context"
	"database/sql/driver"
	"net"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
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

// dialer is a pq.Dialer and pq.DialerContext.
type dialer struct {
	// dialled, where it is not nil, is told of the connection.
	dialled func(net.Conn)
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	netDialer := net.Dialer{
		Timeout: connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
		},
		Control: setUserTimeout,
	}
	conn, err := netDialer.DialContext(ctx, network, address)
	if err == nil && d.dialled != nil {
		d.dialled(conn)
	}
	return conn, err
}

// connector makes the pool's connections such that one the server has ended meanwhile is noticed
// before it is used again. Without it, after a restart of the server, each pooled connection would
// fail one request: once a statement has been written, nothing may repeat it.
type connector struct{ config pq.Config }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := pq.NewConnectorConfig(c.config)
	if err != nil {
		return nil, err
	}
	var socket atomic.Pointer[net.Conn]
	var connected atomic.Bool
	inner.Dialer(dialer{dialled: func(conn net.Conn) {
		// pq dials again, from goroutines of its own, for each statement it cancels.
		if !connected.Load() {
			socket.Store(&conn)
		}
	}})
	conn, err := inner.Connect(ctx)
	connected.Store(true)
	if err != nil {
		return nil, connectError{err}
	}
	return &pooledConn{pqConn: conn.(pqConn), socket: *socket.Load()}, nil
}

// connectError is why there is no connection: it is not about a statement.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

func (connector) Driver() driver.Driver { return &pq.Driver{} }

// pqConn is all that database/sql finds in a connection of lib/pq.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

type pooledConn struct {
	pqConn
	socket net.Conn
}

// ResetSession is called before a pooled connection is used again.
func (c *pooledConn) ResetSession(ctx context.Context) error {
	// A server has nothing to say to an idle session, but that it ends it.
	if hasInput(c.socket) {
		return driver.ErrBadConn
	}
	return c.pqConn.ResetSession(ctx)
}
