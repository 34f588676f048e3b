package udptunnel

import "sync/atomic"

// DatagramCounters count what datagram data connections have moved and dropped.
// Any number of them share one; the zero value is ready, and may be read at any
// time.
type DatagramCounters struct {
	Sent, Received           atomic.Uint64 // Datagrams queued for the peer and come from it,
	SentBytes, ReceivedBytes atomic.Uint64 // and their payloads' bytes.

	Overflowed atomic.Uint64 // Datagrams dropped because the queue was full.
	Late       atomic.Uint64 // Datagrams dropped because the data connection had ended.
}

// Dropped is how many datagrams were dropped, for whatever reason.
func (c *DatagramCounters) Dropped() uint64 { return c.Overflowed.Load() + c.Late.Load() }
