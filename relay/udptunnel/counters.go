package udptunnel

import "sync/atomic"

// Counters count what happens in UDP sessions. Any number of sessions share one.
// The zero value is ready to use and may be read at any time.
type Counters struct {
	Datagrams DatagramCounters
	Paths     PathCounters

	Flows       atomic.Int64  // Flows open now.
	FlowsOpened atomic.Uint64 // Flows ever opened.

	NoFlow  atomic.Uint64 // Datagrams dropped because their flow had ended or was refused.
	TooLong atomic.Uint64 // Datagrams dropped because they exceed wire.MaxDatagram.
}

// DatagramCounters count the datagrams of both transports. The zero value is ready
// to use and may be read at any time.
type DatagramCounters struct {
	Sent, Received           atomic.Uint64 // Datagrams queued for the peer and received from it,
	SentBytes, ReceivedBytes atomic.Uint64 // and the bytes of their payloads.

	Overflowed atomic.Uint64 // Datagrams dropped because the queue was full.
	Late       atomic.Uint64 // Datagrams dropped because there was no transport.
}

// Dropped is how many datagrams were dropped, for whatever reason.
func (c *DatagramCounters) Dropped() uint64 { return c.Overflowed.Load() + c.Late.Load() }
