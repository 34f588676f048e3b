// Package traffic is a game server and players who measure a tunnel between them,
// or stay connected through it, and verify every byte.
//
// Over TCP the game speaks first, as many do: it sends a greeting of one byte and
// waits for a request of 9 bytes, an operation and its argument:
//
//	D  download  sends the pattern, at so many bytes a second; 0: as fast as it can
//	U  upload    verifies the pattern and acknowledges every so many bytes
//	E  echo      sends back what it gets
//	C  count     reads up to the end of the stream, then sends how much that was
//
// Arguments, acknowledgements and counts are 8 bytes, little-endian. Over UDP it
// sends every datagram back.
package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	greeting    = 0x45
	requestSize = 9

	opDownload = 'D'
	opUpload   = 'U'
	opEcho     = 'E'
	opCount    = 'C'

	// readBuffer is large, so that reading costs little beside what is measured.
	readBuffer = 256 << 10
	// gameUDPBuffer is the room for datagrams that wait, in bytes: the game must not
	// be what loses them.
	gameUDPBuffer = 8 << 20
	// udpBatch is how many datagrams one system call takes, and maxDatagram more than
	// the size of any, so that one that became too long shows.
	udpBatch    = 64
	maxDatagram = 2048
)

// Game is a running game server.
type Game struct {
	tcp  *net.TCPListener
	udp  *net.UDPConn
	done sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*net.TCPConn]struct{}
}

// Listen starts a game server on addr ("host:port"; port 0 picks one that is
// free for both protocols).
func Listen(ctx context.Context, addr string) (*Game, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	for attempt := 0; ; attempt++ {
		tcp, err := config.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		chosen := strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := config.ListenPacket(ctx, "udp", net.JoinHostPort(host, chosen))
		if err == nil {
			g := &Game{tcp: tcp.(*net.TCPListener), udp: udp.(*net.UDPConn), conns: make(map[*net.TCPConn]struct{})}
			g.done.Go(g.accept)
			g.done.Go(g.echoDatagrams)
			return g, nil
		}
		tcp.Close()
		if port != "0" || attempt == 20 {
			return nil, err
		}
	}
}

// Addr is where it listens, for both protocols.
func (g *Game) Addr() string { return g.tcp.Addr().String() }

// Close stops it, closes every player's connection and waits.
func (g *Game) Close() error {
	g.mu.Lock()
	g.closed = true
	err := errors.Join(g.tcp.Close(), g.udp.Close())
	for conn := range g.conns {
		conn.Close()
	}
	g.mu.Unlock()
	g.done.Wait()
	return err
}

func (g *Game) accept() {
	for {
		conn, err := g.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // This player was gone before being accepted.
		}
		g.mu.Lock()
		if g.closed {
			g.mu.Unlock()
			conn.Close()
			return
		}
		g.conns[conn] = struct{}{}
		g.mu.Unlock()
		g.done.Go(func() {
			//nolint:errcheck // the player sees that the stream has ended, and fails the sample
			serve(conn)
			conn.Close()
			g.mu.Lock()
			delete(g.conns, conn)
			g.mu.Unlock()
		})
	}
}

// serve serves one player until either is done.
func serve(conn *net.TCPConn) error {
	if _, err := conn.Write([]byte{greeting}); err != nil {
		return err
	}
	var request [requestSize]byte
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return err
	}
	switch arg := binary.LittleEndian.Uint64(request[1:]); request[0] {
	case opDownload:
		return sendPattern(conn, arg)
	case opUpload:
		return acknowledge(conn, arg)
	case opEcho:
		_, err := io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 4<<10))
		return err
	case opCount:
		n, err := verify(conn, func(uint64) error { return nil })
		if err == nil {
			_, err = conn.Write(binary.LittleEndian.AppendUint64(nil, n))
		}
		return err
	default:
		return fmt.Errorf("no such request: %q", request[0])
	}
}

// verify reads the pattern to the end and calls read with the position after each read.
func verify(r io.Reader, read func(position uint64) error) (position uint64, err error) {
	buf := make([]byte, readBuffer)
	for {
		n, err := r.Read(buf)
		if err := check(buf[:n], position); err != nil {
			return position, err
		}
		position += uint64(n)
		if errors.Is(err, io.EOF) {
			return position, nil
		}
		if err == nil {
			err = read(position)
		}
		if err != nil {
			return position, err
		}
	}
}

// tick is how often a download at a given rate sends.
const tick = time.Millisecond

// sendPattern sends until the player leaves.
func sendPattern(conn net.Conn, rate uint64) error {
	started := time.Now()
	// What is due grows while it is being sent. Less than a tick's worth waits for
	// the next tick, or the game would never sleep.
	step := rate * uint64(tick) / uint64(time.Second)
	for position := uint64(0); ; {
		n := maxSlice
		if rate > 0 {
			due := uint64(time.Since(started).Seconds() * float64(rate))
			if due < position+step {
				time.Sleep(tick)
				continue
			}
			n = int(min(due-position, maxSlice))
		}
		written, err := conn.Write(slice(position, n))
		if err != nil {
			return err
		}
		position += uint64(written)
	}
}

// acknowledge verifies the pattern and acknowledges every block.
func acknowledge(conn net.Conn, block uint64) error {
	if block == 0 {
		return errors.New("upload without a block size")
	}
	acknowledged := uint64(0)
	_, err := verify(conn, func(position uint64) error {
		if position/block*block == acknowledged {
			return nil
		}
		acknowledged = position / block * block
		_, err := conn.Write(binary.LittleEndian.AppendUint64(nil, acknowledged))
		return err
	})
	return err
}

// echoDatagrams sends every datagram back until the socket is closed.
func (g *Game) echoDatagrams() {
	//nolint:errcheck // the kernel's default is less room and no reason to stop
	g.udp.SetReadBuffer(gameUDPBuffer)
	batch, messages := ipv4.NewPacketConn(g.udp), newMessages(udpBatch, maxDatagram)
	for {
		n, err := batch.ReadBatch(messages, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // An ICMP error of an earlier answer.
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = messages[i].Buffers[0][:messages[i].N]
		}
		for out := messages[:n]; len(out) > 0; {
			sent, err := batch.WriteBatch(out, 0)
			if err != nil || sent == 0 {
				sent = 1 // One that the kernel refuses is skipped, as any game would.
			}
			out = out[sent:]
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = messages[i].Buffers[0][:maxDatagram]
		}
	}
}

func newMessages(n, size int) []ipv4.Message {
	m := make([]ipv4.Message, n)
	for i := range m {
		m[i].Buffers = [][]byte{make([]byte, size)}
	}
	return m
}
