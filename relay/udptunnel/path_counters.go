package udptunnel

import "sync/atomic"

// PathCounters count what happens on paths. Any number of them share one; the zero
// value is ready.
type PathCounters struct {
	Up             atomic.Int64  // Paths that are up now.
	Sent, Received atomic.Uint64 // Packets sent, and come and opened.
	Moved          atomic.Uint64 // Changes of a tunnel client's address.

	SentDatagrams, ReceivedDatagrams atomic.Uint64 // Players' and games' datagrams in the packets.

	Forged     atomic.Uint64 // Packets dropped that the other end has not sealed,
	Replayed   atomic.Uint64 // that had come before,
	Unknown    atomic.Uint64 // that belong to no path.
	Unsendable atomic.Uint64 // Packets that the system would not send.
}

// PathStats are the counts at one time.
type PathStats struct {
	Up                                    int64
	Sent, Received                        uint64
	Moved                                 uint64
	SentDatagrams, ReceivedDatagrams      uint64
	Forged, Replayed, Unknown, Unsendable uint64
}

// Stats reads the counts. It may be called at any time.
func (c *PathCounters) Stats() PathStats {
	return PathStats{
		Up: c.Up.Load(), Sent: c.Sent.Load(), Received: c.Received.Load(), Moved: c.Moved.Load(),
		SentDatagrams: c.SentDatagrams.Load(), ReceivedDatagrams: c.ReceivedDatagrams.Load(),
		Forged: c.Forged.Load(), Replayed: c.Replayed.Load(), Unknown: c.Unknown.Load(), Unsendable: c.Unsendable.Load(),
	}
}

// Dropped is how many packets were dropped, by reason.
func (s PathStats) Dropped() map[string]uint64 {
	return map[string]uint64{
		"forged": s.Forged, "replayed": s.Replayed, "unknown": s.Unknown, "unsendable": s.Unsendable,
	}
}
