package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// lib/pq waits for a response regardless of the context. If the peer vanished without closing the
// connection (power cut, dropped NAT entry), the kernel must detect it: by keepalive probes while a
// response is awaited, and by the user timeout while sent bytes are unacknowledged. Statements do not
// wait that long: see guardedConn.
const (
	keepAliveIdle     = 3 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 8 * time.Second
)

// dialer implements pq.Dialer and pq.DialerContext.
type dialer struct {
	// dialled, if not nil, is called with each connection and returns the one to use.
	dialled func(net.Conn) net.Conn
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
		conn = d.dialled(conn)
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
	var socket atomic.Pointer[guardedConn]
	var connected atomic.Bool
	inner.Dialer(dialer{dialled: func(conn net.Conn) net.Conn {
		// pq dials again, from its own goroutines, for each statement that it cancels.
		if connected.Load() {
			return conn
		}
		guarded := &guardedConn{Conn: conn}
		guarded.watch(watchStatement, ctx) // The handshake's.
		socket.Store(guarded)
		return guarded
	}})
	conn, err := inner.Connect(ctx)
	connected.Store(true)
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return nil, connectError{fmt.Errorf("%w: if the way to it is safe, add sslmode=disable to the database URL "+
			"(its default is sslmode=require)", ErrNoTLS)}
	}
	if err != nil {
		return nil, connectError{err}
	}
	return &pooledConn{pqConn: conn.(pqConn), socket: socket.Load()}, nil
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

// pooledConn has its socket watch the context of what it does, until the next thing it does: the rows
// of a query are read after QueryContext has returned.
type pooledConn struct {
	pqConn
	socket *guardedConn
}

// ResetSession is called before a pooled connection is used again.
func (c *pooledConn) ResetSession(ctx context.Context) error {
	if c.socket.reset() != nil {
		return driver.ErrBadConn
	}
	// The server sends nothing to an idle session, except when it closes it.
	if hasInput(c.socket.Conn) {
		return driver.ErrBadConn
	}
	return c.pqConn.ResetSession(ctx)
}

// Close takes leave of the server, which need not hear it.
func (c *pooledConn) Close() error {
	c.socket.leave()
	if err := c.pqConn.Close(); err != nil && !c.socket.expired.Load() {
		return err
	}
	return nil
}

func (c *pooledConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.socket.watch(watchStatement, ctx)
	return c.pqConn.QueryContext(ctx, query, args)
}

func (c *pooledConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.socket.watch(watchStatement, ctx)
	return c.pqConn.ExecContext(ctx, query, args)
}

func (c *pooledConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.socket.watch(watchStatement, ctx)
	return c.pqConn.PrepareContext(ctx, query)
}

func (c *pooledConn) Ping(ctx context.Context) error {
	c.socket.watch(watchStatement, ctx)
	return c.pqConn.Ping(ctx)
}

func (c *pooledConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	c.socket.watch(watchTransaction, ctx)
	tx, err := c.pqConn.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return guardedTx{tx, c.socket}, nil
}
