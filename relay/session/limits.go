package session

import (
	"time"

	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// Limits bound what tunnel clients can make a tunnel server hold. The zero value of
// each means its default.
type Limits struct {
	// Unauthenticated is how many connections to the listener may be open that have
	// not shown a ticket or secret. For each further one, another one is closed: see
	// unauthenticated.go. Default 1024, or an eighth of the files that
	// the system lets the process open if that is less.
	Unauthenticated int
	// Handshake is how long such a connection may take. Default 10 s.
	Handshake time.Duration
	// Links is how many tunnel clients may be linked. Default 10,000.
	Links int
	// DataConnections is how many data connections one tunnel client may have open.
	// Default 20,480, or half of those files if that is less. Players of one allocation
	// may take half of what those of others leave.
	DataConnections int
	// Warm is how many idle data connections are kept ready, at most, for a tunnel
	// client whose players come fast. Default 64; negative: only those that finished
	// players leave behind.
	Warm int
	// WarmIdle is how long a data connection beyond those may be idle. Default 30 s.
	WarmIdle time.Duration
	// Waiting is how many players of one tunnel client may wait for a data
	// connection, and JoinWait how long. For a further one of an allocation, or of a
	// source, with fewer than another, one of those gives way. Defaults 1024 and 10 s.
	Waiting  int
	JoinWait time.Duration
	// DatagramQueue is how many bytes of datagrams may wait for one tunnel client.
	// Default [udptunnel.DefaultQueue].
	DatagramQueue int
}

func (l Limits) withDefaults() Limits {
	unauthenticated, dataConnections := 1024, 20_480
	if share := openfiles.Share(openfiles.Limit()); share > 0 {
		unauthenticated, dataConnections = max(16, min(unauthenticated, share/8)), min(dataConnections, share/2)
	}
	setDefault(&l.Unauthenticated, unauthenticated)
	setDefault(&l.Handshake, 10*time.Second)
	setDefault(&l.Links, 10_000)
	setDefault(&l.DataConnections, dataConnections)
	setDefault(&l.Warm, 64)
	setDefault(&l.WarmIdle, 30*time.Second)
	setDefault(&l.Waiting, 1024)
	setDefault(&l.JoinWait, 10*time.Second)
	setDefault(&l.DatagramQueue, udptunnel.DefaultQueue)
	return l
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
