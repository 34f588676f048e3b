package relay_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTest = errors.New("the test says no")

// dial opens a WebSocket to a tunnel server as a tunnel client would. It
// returns the status of the answer, 0 if there was none.
func dial(s *relaytest.Server, path, credential string) (ws *websocket.Conn, status int, err error) {
	return dialFor(s, path, credential, wire.Subprotocol)
}

// dialFor is dial with subprotocols.
func dialFor(s *relaytest.Server, path, credential string, subprotocols ...string) (ws *websocket.Conn, status int, err error) {
	dialer := websocket.Dialer{
		TLSClientConfig:  &tls.Config{InsecureSkipVerify: true},
		Subprotocols:     subprotocols,
		HandshakeTimeout: relaytest.Patience,
	}
	ws, response, err := dialer.Dial("wss://"+s.Address+path, http.Header{"Authorization": {"Bearer " + credential}})
	if response != nil {
		_ = response.Body.Close()
		status = response.StatusCode
	}
	return ws, status, err
}

// link is a tunnel client's link in the hands of a test.
type link struct {
	t      *testing.T
	server *relaytest.Server
	ws     *websocket.Conn
	secret string
}

func openLink(t *testing.T, p *relaytest.Panel, s *relaytest.Server, client uuid.UUID, version int64) *link {
	t.Helper()
	return openLinkAt(t, p, s, client, version, wire.PathLink)
}

// openLinkAt is openLink with a path, and the query that is in it.
func openLinkAt(t *testing.T, p *relaytest.Panel, s *relaytest.Server, client uuid.UUID, version int64, path string) *link {
	t.Helper()
	ws, _, err := dial(s, path, p.Ticket(client, version, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	l := &link{t: t, server: s, ws: ws}
	l.secret = l.next(wire.LinkWelcome).Secret
	return l
}

// next returns the next message of the link, which must be of a type.
func (l *link) next(want wire.LinkType) wire.LinkMessage {
	l.t.Helper()
	_ = l.ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
	_, data, err := l.ws.ReadMessage()
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := wire.DecodeLink(data)
	if err != nil || m.Type != want {
		l.t.Fatalf("link message %s (%v), want %s", data, err, want)
	}
	return m
}

// closeCode reads the link to its end.
func (l *link) closeCode() int {
	l.t.Helper()
	_ = l.ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
	for {
		_, _, err := l.ws.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) {
			return closed.Code
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *link) data(kind wire.Kind) (ws *websocket.Conn, status int, err error) {
	return l.sessionData(kind, "")
}

func (l *link) sessionData(kind wire.Kind, session string, also ...string) (ws *websocket.Conn, status int, err error) {
	subprotocols := append(also, wire.Subprotocol)
	ws, status, err = dialFor(l.server, wire.PathData+"?kind="+string(kind)+"&"+wire.SessionParam+"="+session, l.secret, subprotocols...)
	if err == nil {
		l.t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, status, err
}

// join connects a player.
func join(t *testing.T, port int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	return c
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the player sees %v, want a reset", err)
	}
}

// wantRefusal connects a player who must be reset at once, be it while he
// connects.
func wantRefusal(t *testing.T, port int) {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	wantReset(t, c)
}

func refused(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// start returns a tunnel server with one client, and a port of a TCP allocation
// of it with id 1.
func start(t *testing.T, change func(*relay.Options)) (*relaytest.Panel, *relaytest.Server, uuid.UUID, int) {
	t.Helper()
	p := relaytest.NewPanel(t)
	s := relaytest.Start(t, p, change)
	p.AwaitHellos(1)
	client, port := uuid.New(), relaytest.FreePort(t)
	p.PutClient(client, 1)
	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
	p.AwaitReport(1, types.ReportReady)
	return p, s, client, port
}

// startUDP starts a tunnel server with a linked client and a UDP port to which a player
// has sent a datagram.
func startUDP(t *testing.T) (*relaytest.Server, *link, *net.UDPConn) {
	t.Helper()
	p, s, client, _ := start(t, nil)
	port := relaytest.FreePort(t)
	p.Put(relaytest.Allocation(2, client, types.ProtocolUDP, port))
	p.AwaitReport(2, types.ReportReady)
	l := openLink(t, p, s, client, 1)
	player, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = player.Close() })
	_, _ = player.Write([]byte("hello"))
	return s, l, player
}
