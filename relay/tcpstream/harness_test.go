package tcpstream_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/wstest"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// webSockets returns the two ends of a WebSocket over TLS, as they are between
// tunnel server and client.
func webSockets(t testing.TB) (server, client *websocket.Conn) {
	t.Helper()
	return wstest.Pair(t, wstest.Options{
		Listener: tcpstream.NewListener,
		Conn:     func(c *net.TCPConn) (net.Conn, error) { return tcpstream.NewSocket(c) },
	})
}

// tcp returns the two ends of a TCP connection.
func tcp(t testing.TB) (far, near *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = a.Close() })
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

var openMessage = wire.Control{
	Type: wire.ControlOpen, Allocation: 1,
	Source:      netip.MustParseAddrPort("203.0.113.9:1"),
	Destination: netip.MustParseAddrPort("198.51.100.1:2"),
}

// pair is both ends of a stream data connection in service. Connections to the
// game come from games; a nil one is a game that refuses.
type pair struct {
	server, client *tcpstream.Conn
	counted        tcpstream.Counters // Of the server's end,
	played         tcpstream.Counters // and of the streams at the client's.
	games          chan *net.TCPConn
	opened         chan wire.Control
	left           atomic.Int64 // Connections to games that have been closed.
}

func newPair(t testing.TB) *pair {
	t.Helper()
	s, c := webSockets(t)
	return newPairOver(t, s.NetConn(), c.NetConn())
}

// newPlainPair is a pair whose data connection has no encryption.
func newPlainPair(t testing.TB) *pair {
	t.Helper()
	far, near := tcp(t)
	server, err := tcpstream.NewSocket(near)
	if err != nil {
		t.Fatal(err)
	}
	client, err := tcpstream.NewSocket(far)
	if err != nil {
		t.Fatal(err)
	}
	return newPairOver(t, server, client)
}

// eachWay tests what holds with encryption and without.
func eachWay(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	t.Run("encrypted", func(t *testing.T) { test(t, newPair(t)) })
	t.Run("plain", func(t *testing.T) { test(t, newPlainPair(t)) })
}

// newPairOver is a pair over any connection.
func newPairOver(t testing.TB, server, client net.Conn) *pair {
	t.Helper()
	p := &pair{games: make(chan *net.TCPConn, 64), opened: make(chan wire.Control, 64)}
	p.server = tcpstream.NewServer(server, &p.counted)
	p.client = tcpstream.NewClient(client, func(open wire.Control) (tcpstream.Game, error) {
		p.opened <- open
		if game := <-p.games; game != nil {
			return tcpstream.Game{Conn: game, Left: func() { p.left.Add(1) }, Counters: &p.played}, nil
		}
		return tcpstream.Game{}, net.ErrClosed
	})
	var ends sync.WaitGroup
	ends.Go(func() { _ = p.server.Serve() })
	ends.Go(func() { _ = p.client.Serve() })
	t.Cleanup(func() {
		p.server.Close()
		p.client.Close()
		ends.Wait()
	})
	return p
}

// join brings a player to a game and returns their ends, and the outcome.
func (p *pair) join(t testing.TB) (player, game *net.TCPConn, over <-chan error) {
	t.Helper()
	player, accepted := tcp(t)
	dialled, game := tcp(t)
	p.games <- dialled
	return player, game, p.carry(accepted)
}

func (p *pair) carry(accepted *net.TCPConn) <-chan error {
	over := make(chan error, 1)
	go func() { over <- p.server.Carry(&tcpstream.Player{Conn: accepted, Open: openMessage}) }()
	return over
}

func send(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(await.Timeout))
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q (%v), want %q", b, err, want)
	}
}

// ending reads the rest of c and returns how it ended: nil at EOF.
func ending(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(await.Timeout))
	_, err := io.Copy(io.Discard, c)
	return err
}
