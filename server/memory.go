package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// memoryListener is a net.Listener whose connections both end in this process:
// the embedded tunnel server reaches the panel's own HTTP server over it, as a
// stand-alone one does over the network, whatever address and certificate that
// server has.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// DialContext opens a connection; network and address do not matter. It waits
// for Accept, until ctx ends or the listener is closed.
func (l *memoryListener) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs, err := connectedPair(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect in memory: %w", err)
	}
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, ours.Close(), theirs.Close())
}

// connectedPair returns both ends of a connection. It is one over loopback and
// not a net.Pipe: a pipe holds no byte, so that two readers who answer each
// other's ping at the same time would wait for each other until they time out.
func connectedPair(ctx context.Context) (ours, theirs net.Conn, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = listener.Close() }()
	ours, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	// Ours is in the backlog, so that no Accept below waits for longer than it
	// takes to drop somebody else who found the port.
	for {
		theirs, err = listener.Accept()
		if err != nil {
			return nil, nil, errors.Join(err, ours.Close())
		}
		if theirs.RemoteAddr().String() == ours.LocalAddr().String() {
			return ours, theirs, nil
		}
		_ = theirs.Close()
	}
}

// Accept waits for a DialContext. After Close it returns net.ErrClosed.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and DialContext; open connections stay. It may be called
// again.
func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr names the listener.
func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }
