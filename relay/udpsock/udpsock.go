// Package udpsock reads and writes UDP sockets many datagrams at a time.
//
// In come datagrams in a [Batch], each with the [Endpoint] it came from; out go
// [Datagram] values. The package starts no goroutine: a caller's goroutine reads
// a [Conn], any goroutine writes it, and Close ends both. Memory that datagrams
// are read into is borrowed while there is something to read, so an idle socket
// holds none. Linux gets batched system calls, segmentation and coalescing by the
// kernel, and a [Poller]; other systems get one datagram per call by the same API.
package udpsock

import (
	"context"
	"fmt"
	"net"
)

const (
	// SocketBuffer is a size in bytes for [Options.ReadBuffer] and
	// [Options.WriteBuffer] that takes a burst of datagrams.
	SocketBuffer = 4 << 20
	// maxDatagram is longer than any datagram.
	maxDatagram = 64 << 10
)

// Options say how a socket is set up. The zero value leaves the system's defaults.
type Options struct {
	// Destinations has the socket learn which local address each datagram was
	// sent to. An answer to the Endpoint of a received datagram leaves from that
	// address. Otherwise the route chooses the address, and a peer that reached
	// another one drops the answer. Without effect on systems other than Linux:
	// there, bind the socket to one address.
	Destinations bool
	// Coalesce lets the kernel join received datagrams of one source and length
	// (UDP_GRO), which Read takes apart again. It pays where many datagrams of
	// the same source follow each other. Without effect elsewhere than on Linux.
	Coalesce bool
	// ProbeMTU sends every datagram unfragmented, and ignores path MTUs learned
	// from ICMP, which anyone can forge: the caller probes which sizes arrive.
	// Without effect on systems other than Linux.
	ProbeMTU bool
	// Refusals has reads of a socket that is not connected report that a peer's machine
	// refused an earlier datagram, as those of a connected one do, and has writes go on
	// after such an error. Without effect on systems other than Linux.
	Refusals bool
	// ReadBuffer and WriteBuffer are the sizes in bytes of the socket's buffers;
	// 0: the system's default. The system may grant less.
	ReadBuffer, WriteBuffer int
}

// Datagram is a datagram to send. It carries Head, which may be empty, followed by
// Data. Write retains none of its memory.
type Datagram struct {
	// To is the receiver; nil: the peer of a connected socket. Datagrams to the
	// same receiver should share the pointer: the kernel is given runs of these
	// as one message.
	To         *Endpoint
	Head, Data []byte
}

func (d *Datagram) size() int { return len(d.Head) + len(d.Data) }

// Listen opens a socket on an address. Network is udp, udp4 or udp6.
func Listen(ctx context.Context, network, address string, o Options) (*Conn, error) {
	l, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := l.(*net.UDPConn)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("listen on %s %s: got a %T", network, address, l)
	}
	c, err := New(udp, o)
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, err)
	}
	return c, nil
}
