// Package udpsock is UDP sockets that are read and written many datagrams at a
// time.
package udpsock

// maxDatagram takes any datagram, and shows which ones are too long.
const maxDatagram = 64 << 10

// SocketBuffer is how many bytes of datagrams UDP sockets should be asked to
// hold: a burst is lost where it finds no room. The system may give less.
const SocketBuffer = 4 << 20

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
