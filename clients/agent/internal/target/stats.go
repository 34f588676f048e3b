package target

import "sync/atomic"

// counters count what happens to players on their way to local targets.
type counters struct {
	dialFailures                      atomic.Uint64
	tooLong, waitingLimit, unsendable atomic.Uint64
}

// Stats are counts since the Dialer was made.
type Stats struct {
	DialFailures uint64 // Local targets that could not be dialled.

	// Datagrams dropped,
	TooLong      uint64 // because the local target sent more than wire.MaxDatagram,
	WaitingLimit uint64 // because too many waited for a socket to open,
	Unsendable   uint64 // because the system refused to send them to the local target.
}

// Stats returns the counts.
func (d *Dialer) Stats() Stats {
	return Stats{
		DialFailures: d.counters.dialFailures.Load(),
		TooLong:      d.counters.tooLong.Load(),
		WaitingLimit: d.counters.waitingLimit.Load(),
		Unsendable:   d.counters.unsendable.Load(),
	}
}
