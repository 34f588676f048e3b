package dialer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"sync"
)

// Attempt is one try to reach a host: a connection, the handshakes on it and the first
// answer. Its methods are safe for concurrent use.
type Attempt struct {
	dialer      *Dialer
	destination string

	mu      sync.Mutex
	remote  net.Addr   // The other end of the connection; nil: none was made.
	local   netip.Addr // This machine's end.
	ready   bool       // The request could be sent.
	served  bool       // It got a connection since it asked for one last,
	reused  bool       // one that is not new.
	classic bool       // The TLS hello is a classic one.
	resumes bool       // It is one that resumes a session, whatever reaches the host.
	started bool       // The TLS handshake has begun,
	secured bool       // and has succeeded.
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// Begin starts an attempt to reach a destination, which stands for all attempts that
// must have the same kind of TLS hello: a host and port. A connection that DialContext,
// http.Transport or websocket.Dialer opens or reuses with the returned context is that
// of the attempt.
func (d *Dialer) Begin(ctx context.Context, destination string) (context.Context, *Attempt) {
	a := &Attempt{dialer: d, destination: destination}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.served, a.reused = false, false
		},
		GotConn: func(got httptrace.GotConnInfo) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.connected(got.Conn)
			a.ready, a.served = true, true
			if a.reused = got.Reused; a.reused {
				a.started, a.secured = false, false
			}
		},
		TLSHandshakeStart: func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.started = !a.reused
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.secured = err == nil && !a.reused
		},
	})
	return context.WithValue(ctx, attemptKey{}, a), a
}

// dialed records a new connection. http.Transport may have begun it for the attempt, and
// then have served that with another one, which became idle.
func (a *Attempt) dialed(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.served {
		a.connected(conn)
	}
}

// connected is called with mu locked.
func (a *Attempt) connected(conn net.Conn) {
	a.remote, a.local = conn.RemoteAddr(), localOf(conn)
}

// Ready reports whether http.Transport had a connection for the request, its TLS
// handshake done: some of the request may have been sent.
func (a *Attempt) Ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}

// End records the outcome: nil if the host answered, be it with a refusal. An error
// after the connection was made, in the TLS handshake for example, makes the next
// DialContext begin with another address, unless it is that of a cancelled context. If
// the TLS handshake got no answer, the next attempt has another kind of hello; see
// Classic.
func (a *Attempt) End(err error) {
	a.mu.Lock()
	remote := a.remote
	a.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	a.shaken(err)
	switch {
	case remote == nil:
	case err != nil:
		a.dialer.Failed(remote)
	default:
		a.dialer.Worked(remote)
	}
}
