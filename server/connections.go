package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/eclitunnel/eclitunnel/internal/connlimit"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

const (
	// maxConnections is the maximum number of connections that are no control channels:
	// from people and programs, and twice as many again from trusted proxies and this
	// machine.
	maxConnections, minConnections = 8192, 64
	// maxChannels is the maximum number of control channels.
	maxChannels = 1 << 16
)

// connectionBounds returns how many connections a process may have that may have some
// files open, 0 for as many as it likes: each kind leaves files to the others, to players
// on the embedded tunnel server, and to the database.
func connectionBounds(files int) (connections, channels int) {
	if files == 0 {
		return maxConnections, maxChannels
	}
	return max(minConnections, min(maxConnections, files/8)), max(minConnections, min(maxChannels, files/2))
}

// connections bounds the connections of the HTTP listener. An upgrade to a control channel
// takes a device's token, and is bounded by the hub.
type connections struct {
	proxies []netip.Prefix // And this machine.
	people  *connlimit.Limiter
	// proxied are those of trusted proxies, each of which carries many people, and of this
	// machine, whose health checks wait for nobody: they count in all, and not as one source.
	proxied *connlimit.Limiter
}

// thisMachine are the addresses that no other machine can have.
var thisMachine = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newConnections(proxies []netip.Prefix) *connections {
	limit, _ := connectionBounds(openfiles.Limit())
	return &connections{
		proxies: slices.Concat(proxies, thisMachine),
		people:  connlimit.New(connlimit.Options{Limit: limit, PerSource: limit / 2, ReplaceIdle: true}),
		proxied: connlimit.New(connlimit.Options{Limit: 2 * limit, ReplaceIdle: true}),
	}
}

// of returns the limiter of a connection.
func (c *connections) of(conn net.Conn) *connlimit.Limiter {
	address := netaddr.OfTCP(conn.RemoteAddr()).Addr().WithZone("")
	for _, prefix := range c.proxies {
		if prefix.Contains(address) {
			return c.proxied
		}
	}
	return c.people
}

// track is http.Server.ConnState. A connection that has sent a part of a request is as
// good as idle: see serve.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.of(conn).Add(conn)
	case http.StateHijacked, http.StateClosed:
		c.of(conn).Remove(conn)
	}
}

type connKey struct{}

// withConn is http.Server.ConnContext.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// serve notes that a request is being served, until the function that it returns is called.
func (c *connections) serve(r *http.Request) (end func()) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return func() {}
	}
	limiter := c.of(conn)
	limiter.Begin(conn)
	return func() { limiter.End(conn) }
}
