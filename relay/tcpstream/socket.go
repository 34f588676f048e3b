package tcpstream

import (
	"net"
	"sync"
	"syscall"
)

// errWouldBlock is what a Socket returns where a read must not wait. TLS treats a
// temporary error as a pause: it keeps the part of a record that it has and goes on
// with the next read.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "tcpstream: nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Socket is the TCP connection below a data connection's TLS. It saves system
// calls: TLS writes each record of 16 kB by itself, and cannot tell whether another
// one is there to be read.
type Socket struct {
	*net.TCPConn

	// Of the reader.
	raw  syscall.RawConn
	poll func(fd uintptr) bool // Made once: a closure for each read would be garbage.
	into []byte
	n    int
	err  error
	// noWait makes reads return errWouldBlock instead of waiting.
	noWait bool
	// drained means that the last read took all there was. What has arrived since is
	// left to the next read that waits.
	drained bool
	// records makes reads end where TLS records end.
	records bool
	header  []byte // Of the current record, as far as it has been read.
	payload int    // How much of the current record's payload has not been read.

	mu        sync.Mutex
	gathering bool
	gathered  *Buffer
}

// NewSocket makes a Socket of a connection, which it owns from then on.
func NewSocket(c *net.TCPConn) (*Socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{TCPConn: c, raw: raw}
	s.poll = s.tryRead
	return s, nil
}

// NewListener returns a listener that accepts Sockets.
func NewListener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	s, err := NewSocket(tcp)
	if err != nil {
		return c, nil // It is closed already, which its reader finds.
	}
	return s, nil
}

// socketBelow returns the Socket that a connection is made on, or nil.
func socketBelow(conn net.Conn) *Socket {
	for {
		switch c := conn.(type) {
		case *Socket:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (n int, err error) {
	if s.records {
		return s.readRecords(p)
	}
	switch {
	case !s.noWait:
		n, err = s.TCPConn.Read(p)
	case s.drained:
		return 0, errWouldBlock
	default:
		n, err = s.readNow(p)
	}
	s.drained = n < len(p)
	return n, err
}

// readNow reads what is there. It leaves the end of the stream to the next read that
// waits.
func (s *Socket) readNow(p []byte) (int, error) {
	s.into = p
	err := s.raw.Read(s.poll)
	s.into = nil
	switch {
	case err != nil:
		return 0, err
	case s.err == nil && s.n == 0 && len(p) > 0:
		return 0, errWouldBlock
	default:
		return s.n, s.err
	}
}

// Write implements net.Conn. While a message is gathered it may report an error
// later, in flush.
func (s *Socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gathering {
		return s.TCPConn.Write(p)
	}
	taken := 0
	for taken < len(p) {
		if s.gathered == nil {
			s.gathered = borrow(gatherBuffers)
		}
		b := s.gathered
		n := copy(b.room[len(b.Data):], p[taken:])
		b.Data = b.room[:len(b.Data)+n]
		taken += n
		if len(b.Data) == len(b.room) {
			if err := s.flushLocked(); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// gather makes writes collect in larger pieces until flush, which writes the rest.
func (s *Socket) gather() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = true
}

func (s *Socket) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = false
	return s.flushLocked()
}

func (s *Socket) flushLocked() error {
	if s.gathered == nil {
		return nil
	}
	_, err := s.TCPConn.Write(s.gathered.Data)
	s.gathered.Release()
	s.gathered = nil
	return err
}
