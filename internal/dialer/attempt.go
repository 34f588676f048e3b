package dialer

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync"
)

// Attempt is one try to reach a host: a connection, the handshakes on it and the first
// answer. Its methods are safe for concurrent use.
type Attempt struct {
	dialer *Dialer

	mu     sync.Mutex
	remote net.Addr // The other end of the connection; nil: none was made.
	ready  bool     // The request could be sent.
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// Begin starts an attempt. A connection that DialContext, http.Transport or
// websocket.Dialer opens or reuses with the returned context is that of the attempt.
func (d *Dialer) Begin(ctx context.Context) (context.Context, *Attempt) {
	a := &Attempt{dialer: d}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			a.connected(got.Conn)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.ready = true
		},
	})
	return context.WithValue(ctx, attemptKey{}, a), a
}

func (a *Attempt) connected(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remote = conn.RemoteAddr()
}

// Ready reports whether http.Transport had a connection for the request, its TLS
// handshake done: some of the request may have been sent.
func (a *Attempt) Ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}

// End records the outcome: nil if the host answered as it should. An error after the
// connection was made, in the TLS handshake for example, makes the next DialContext
// begin with another address, unless it is that of a cancelled context.
func (a *Attempt) End(err error) {
	a.mu.Lock()
	remote := a.remote
	a.mu.Unlock()
	switch {
	case remote == nil, errors.Is(err, context.Canceled):
	case err != nil:
		a.dialer.Failed(remote)
	default:
		a.dialer.Worked(remote)
	}
}
