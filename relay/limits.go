package relay

import (
	"net/netip"
	"time"
)

// Limits bound what peers can make a tunnel server hold. The zero value of each
// means its default.
type Limits struct {
	// Unauthenticated is how many connections to the listener may be open that
	// have not shown a ticket or secret; beyond it one is closed for each further
	// one, of the source that has most. Default 1024.
	Unauthenticated int
	// Handshake is how long such a connection may take. Default 10 s.
	Handshake time.Duration
	// Links is how many tunnel clients may be linked. Default 10,000.
	Links int
	// DataConnections is how many data connections one tunnel client may have
	// open. Default 16,384.
	DataConnections int
	// Warm is how many idle data connections are at most kept ready for a
	// tunnel client whose players come fast. Default 64; negative: none but
	// those that finished players leave.
	Warm int
	// WarmIdle is how long a data connection beyond those may be idle. Default
	// 30 s.
	WarmIdle time.Duration
	// Waiting is how many players of one tunnel client may wait for a data
	// connection, and JoinWait how long. Defaults 1024 and 10 s.
	Waiting  int
	JoinWait time.Duration
	// Players is how many TCP connections one allocation may have. Default
	// 10,000.
	Players int
	// Flows is how many UDP flows one allocation may have: source addresses of UDP
	// cost an attacker nothing, so that beyond it one that the game has never
	// answered gives way to the next. FlowsPerSource is how many of them may be
	// from one address, or of IPv6 from one /64. Defaults 16,384 and 8192.
	Flows, FlowsPerSource int
	// DatagramQueue is how many bytes of datagrams may wait for one tunnel
	// client. Default udptunnel.DefaultQueue.
	DatagramQueue int
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Unauthenticated, 1024)
	setDefault(&l.Handshake, 10*time.Second)
	setDefault(&l.Links, 10_000)
	setDefault(&l.DataConnections, 16_384)
	setDefault(&l.Warm, 64)
	setDefault(&l.WarmIdle, 30*time.Second)
	setDefault(&l.Waiting, 1024)
	setDefault(&l.JoinWait, 10*time.Second)
	setDefault(&l.Players, 10_000)
	setDefault(&l.Flows, 16_384)
	setDefault(&l.FlowsPerSource, 8192)
	return l
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// sourceOf is what counts as one source: an address, or of IPv6 the /64 that
// everybody has the whole of (RFC 4291 section 2.5.1).
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	network, _ := a.Prefix(64) // It fails for other lengths of address.
	return network.Addr()
}
