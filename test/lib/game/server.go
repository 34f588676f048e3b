package game

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pires/go-proxyproto"
)

// Server answers pings over TCP and UDP on one port.
//
// It believes a PROXY protocol header, version 1 or 2, wherever one comes
// first, so it must listen only where only the tunnel's agent reaches it.
type Server struct {
	motd    string
	guid    uint64
	tcp     net.Listener
	udp     net.PacketConn
	pings   atomic.Uint64
	closing chan struct{}
	done    sync.WaitGroup
}

// Listen starts a server on addr ("host:port"; port 0 picks one that is free
// for both protocols) and answers until Close.
func Listen(ctx context.Context, addr, motd string) (*Server, error) {
	tcp, udp, err := listenBoth(ctx, addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		motd:    motd,
		guid:    rand.Uint64() >> 1, // players read it as a signed number
		tcp:     &proxyproto.Listener{Listener: tcp, ReadHeaderTimeout: patience},
		udp:     udp,
		closing: make(chan struct{}),
	}
	s.done.Go(s.serveTCP)
	s.done.Go(s.serveUDP)
	return s, nil
}

// listenBoth opens addr for TCP and UDP. A free TCP port may be taken for UDP,
// so with port 0 it tries a few.
func listenBoth(ctx context.Context, addr string) (net.Listener, net.PacketConn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	var config net.ListenConfig
	for attempt := 1; ; attempt++ {
		tcp, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		chosen := tcp.Addr().(*net.TCPAddr).Port
		udp, err := config.ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.Itoa(chosen)))
		if err == nil {
			return tcp, udp, nil
		}
		if port != "0" || attempt == 10 {
			return nil, nil, errors.Join(err, tcp.Close())
		}
		if err := tcp.Close(); err != nil {
			return nil, nil, err
		}
	}
}

// Addr is where the server listens, for both protocols.
func (s *Server) Addr() string { return s.tcp.Addr().String() }

// Pings counts the statuses given out, over both protocols.
func (s *Server) Pings() uint64 { return s.pings.Load() }

// Close stops listening, cuts conversations off and waits for their end.
func (s *Server) Close() error {
	close(s.closing)
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	s.done.Wait()
	return err
}

func (s *Server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return // closed: nothing else ends a loopback listener
		}
		s.done.Go(func() { s.converse(conn) })
	}
}

// converse serves one player, who is hung up on when misbehaving or at Close.
func (s *Server) converse(conn net.Conn) {
	served := make(chan struct{})
	defer close(served)
	s.done.Go(func() {
		select {
		case <-s.closing:
		case <-served:
		}
		conn.Close()
	})
	//nolint:errcheck // whatever the player did wrong, hanging up is all there is to do
	serveJava(conn, func() Status {
		// RemoteAddr reads the PROXY protocol header where there is one.
		return s.status(conn.RemoteAddr(), javaVersion, javaProtocol)
	})
}

func (s *Server) serveUDP() {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		datagram, player := unwrap(buf[:n], from)
		clock, ok := parsePing(datagram)
		if !ok {
			continue
		}
		pong := appendPong(nil, clock, s.guid, s.status(player, bedrockVersion, bedrockProtocol))
		s.udp.WriteTo(pong, from) //nolint:errcheck // a datagram may get lost anywhere; the player asks again
	}
}

// unwrap takes a PROXY protocol header off a datagram and returns the address
// it names, or from where there is none.
func unwrap(datagram []byte, from net.Addr) ([]byte, net.Addr) {
	r := bufio.NewReaderSize(bytes.NewReader(datagram), len(datagram)+1)
	header, err := proxyproto.Read(r)
	if err != nil {
		return datagram, from
	}
	rest, err := r.Peek(r.Buffered())
	if err != nil {
		return datagram, from
	}
	return rest, header.SourceAddr
}

func (s *Server) status(player net.Addr, version string, protocol int) Status {
	return Status{
		MOTD:     line(s.motd, s.pings.Add(1), player),
		Version:  version,
		Protocol: protocol,
		Online:   0,
		Max:      maxPlayers,
	}
}
