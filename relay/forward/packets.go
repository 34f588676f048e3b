package forward

// packetsAtOnce is how many datagrams one system call takes at most.
const packetsAtOnce = 32

// ControlSpace is room in bytes for the control messages of a datagram: which of
// this machine's addresses it came to, or is to come from.
const ControlSpace = 64

// Outgoing is a datagram to be sent: Head, which may be empty, and Data.
type Outgoing struct {
	To         *Endpoint // nil for a connected socket's other end.
	Head, Data []byte
}

func (o *Outgoing) size() int { return len(o.Head) + len(o.Data) }
