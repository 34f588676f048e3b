// Package target is the game server behind every tunnel that the bench
// measures. It speaks first, as many games do, and then does what the player
// asks for; what it receives it verifies, see package pattern.
//
// Over TCP it sends [Greeting] and waits for a [Request]:
//
//	download  sends the pattern, at so many bytes a second or as fast as it can
//	upload    verifies the pattern and acknowledges every so many bytes
//	echo      sends back what it gets
//	count     reads up to the end of the stream, then says how much that was
//
// Acknowledgements and counts are 8 bytes, little-endian. Over UDP it sends
// every datagram back.
package target

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
)

// Greeting is the byte that the game says first.
const Greeting = 0x45

// Op is what a player asks for.
type Op byte

// The requests that a player can make.
const (
	OpDownload Op = 'D'
	OpUpload   Op = 'U'
	OpEcho     Op = 'E'
	OpCount    Op = 'C'
)

// RequestSize is the size of an encoded Request.
const RequestSize = 9

// Request is the first thing a player says.
type Request struct {
	Op Op
	// Arg is a download's bytes per second, 0 for as fast as it goes, and how
	// many bytes of an upload are acknowledged at a time.
	Arg uint64
}

// Encode returns what is sent.
func (r Request) Encode() []byte {
	return binary.LittleEndian.AppendUint64([]byte{byte(r.Op)}, r.Arg)
}

func decodeRequest(b []byte) Request {
	return Request{Op: Op(b[0]), Arg: binary.LittleEndian.Uint64(b[1:])}
}

// Server is a running game server.
type Server struct {
	tcp  *net.TCPListener
	udp  *net.UDPConn
	done sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*net.TCPConn]struct{}
}

// Listen starts a game server on addr ("host:port"; port 0 picks one that is
// free for both protocols).
func Listen(ctx context.Context, addr string) (*Server, error) {
	tcp, udp, err := listenBoth(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	s := &Server{tcp: tcp, udp: udp, conns: make(map[*net.TCPConn]struct{})}
	s.done.Go(s.accept)
	s.done.Go(func() { echoDatagrams(udp) })
	return s, nil
}

// attempts bounds the search for a port that is free for both protocols.
const attempts = 20

func listenBoth(ctx context.Context, addr string) (*net.TCPListener, *net.UDPConn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	var config net.ListenConfig
	for attempt := 1; ; attempt++ {
		tcp, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		chosen := strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := config.ListenPacket(ctx, "udp", net.JoinHostPort(host, chosen))
		if err == nil {
			return tcp.(*net.TCPListener), udp.(*net.UDPConn), nil
		}
		tcp.Close()
		if port != "0" || attempt == attempts {
			return nil, nil, err
		}
	}
}

// Addr is where it listens, for both protocols.
func (s *Server) Addr() string { return s.tcp.Addr().String() }

// Close stops it, hangs up on every player and waits.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *Server) accept() {
	for {
		conn, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // this player was gone before being taken
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.done.Go(func() {
			//nolint:errcheck // the player sees that the stream has ended, and fails the sample
			play(conn)
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}
