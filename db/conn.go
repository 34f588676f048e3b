package db

import (
	"context"
	"database/sql/driver"
	"net"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// lib/pq waits for a response regardless of the context. If the peer vanished without closing the
// connection (power cut, dropped NAT entry), the kernel must detect it: by keepalive probes while a
// response is awaited, and by the user timeout while sent bytes are unacknowledged.
const (
	keepAliveIdle     = 3 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 8 * time.Second
)

// dialer implements pq.Dialer and pq.DialerContext.
type dialer struct {
	// dialled, if not nil, is called with each connection.
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

// connector creates connections for the pool that detect, before they are reused, that the server has
// closed them. Otherwise each pooled connection would fail one request after a restart of the server,
// since a statement that was written must not be repeated.
type connector struct{ config pq.Config }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := pq.NewConnectorConfig(c.config)
	if err != nil {
		return nil, err
	}
	var socket atomic.Pointer[net.Conn]
	var connected atomic.Bool
	inner.Dialer(dialer{dialled: func(conn net.Conn) {
		// pq dials again, from its own goroutines, for each statement that it cancels.
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

// connectError is an error of connecting, as opposed to one of a statement.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

func (connector) Driver() driver.Driver { return &pq.Driver{} }

// pqConn is the set of interfaces that database/sql uses of a connection of lib/pq.
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
	// The server sends nothing to an idle session, except when it closes it.
	if hasInput(c.socket) {
		return driver.ErrBadConn
	}
	return c.pqConn.ResetSession(ctx)
}
