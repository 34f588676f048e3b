package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// statementTimeout bounds a statement or transaction, the wait for a connection included, of a
	// caller whose context has no deadline. With cancelGrace it is below the 3 s within which a
	// request ends while the database is away.
	statementTimeout = 2400 * time.Millisecond
	// cancelGrace is how long the server may take to answer once the context of a statement has
	// ended, which lib/pq tells it by a request to cancel. Then the connection is given up.
	cancelGrace = 400 * time.Millisecond
)

// guardedConn is a connection whose reads and writes end when a context has ended and the server
// has not answered within cancelGrace. lib/pq waits for an answer whatever the context says: without
// this, a server that stalls would hold callers for as long as it does.
type guardedConn struct {
	net.Conn
	expired atomic.Bool // An operation ran into a deadline: the protocol is out of step.

	mu      sync.Mutex
	watches [2]watch
}

// watch is a context that a guardedConn watches.
type watch struct {
	number int // Of this watch, to tell it from an earlier one that ends late.
	stop   func() bool
}

// A connection watches the contexts of its statement and of its transaction.
const (
	watchStatement = iota
	watchTransaction
)

// watch replaces the context of a kind. A nil ctx only removes the old one.
func (c *guardedConn) watch(kind int, ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.watches[kind]
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	w.number++
	if ctx == nil {
		return
	}
	number := w.number
	w.stop = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if w.number == number {
			// An error means that the connection is closed.
			_ = c.SetDeadline(time.Now().Add(cancelGrace))
		}
	})
}

// reset prepares an idle connection for its next use. The contexts of its last use may have ended
// meanwhile, which does not concern the next.
func (c *guardedConn) reset() error {
	c.watch(watchStatement, nil)
	c.watch(watchTransaction, nil)
	if c.expired.Load() {
		return driver.ErrBadConn
	}
	return c.SetDeadline(time.Time{})
}

// leave prepares the connection for its end: the contexts of its last use do not concern it.
func (c *guardedConn) leave() {
	c.watch(watchStatement, nil)
	c.watch(watchTransaction, nil)
	// An error means that the connection is closed.
	_ = c.SetDeadline(time.Now().Add(cancelGrace))
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if c.expired.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Read(p)
	return n, c.note(err)
}

func (c *guardedConn) Write(p []byte) (int, error) {
	if c.expired.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Write(p)
	return n, c.note(err)
}

// note makes a deadline final: a later answer would be taken for that of a later statement.
func (c *guardedConn) note(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.expired.Store(true)
	}
	return err
}

func (c *guardedConn) Close() error {
	c.watch(watchStatement, nil)
	c.watch(watchTransaction, nil)
	return c.Conn.Close()
}

// guardedTx is a transaction whose context its connection watches until it has ended.
type guardedTx struct {
	driver.Tx
	conn *guardedConn
}

func (t guardedTx) Commit() error {
	defer t.conn.watch(watchTransaction, nil)
	return t.Tx.Commit()
}

func (t guardedTx) Rollback() error {
	defer t.conn.watch(watchTransaction, nil)
	return t.Tx.Rollback()
}
