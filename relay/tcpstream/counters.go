package tcpstream

import "sync/atomic"

// Counters count what stream data connections have carried. Any number of
// connections share one. The zero value is ready to use and may be read at any
// time.
type Counters struct {
	Sent, Received atomic.Uint64 // Bytes to and from the peer.
}
