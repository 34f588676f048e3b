package link_test

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// breakableProxy forwards TCP connections to a target until it is cut: then they stay
// open and nothing passes, as when a cable is pulled.
type breakableProxy struct {
	address string
	cut     atomic.Bool
	refuse  atomic.Int64 // How many of the next connections are closed at once.

	mu   sync.Mutex
	open []net.Conn
}

func newBreakableProxy(t *testing.T, target string) *breakableProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &breakableProxy{address: l.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			if w.refuse.Add(-1) >= 0 {
				_ = near.Close()
				continue
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				_ = near.Close()
				continue
			}
			w.mu.Lock()
			w.open = append(w.open, near, far)
			w.mu.Unlock()
			// A connection that existed when the proxy was cut stays lost.
			var lost atomic.Bool
			work.Go(func() { w.pass(near, far, &lost) })
			work.Go(func() { w.pass(far, near, &lost) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.sever()
		work.Wait()
	})
	return w
}

// sever closes every connection, so that both ends notice.
func (w *breakableProxy) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

func (w *breakableProxy) pass(from, to net.Conn, lost *atomic.Bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if w.cut.Load() {
			lost.Store(true)
		}
		if err != nil {
			if !lost.Load() {
				_ = to.Close()
			}
			return
		}
		if !lost.Load() {
			if _, err := to.Write(b[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
	}
}

// slow makes an agent that has lost a link wait long enough for the test to see it.
func slow(o *link.Options) {
	o.Backoff = backoff.Exponential{Min: time.Second, Max: time.Second, Rand: func() float64 { return 1 }}
}

// requestLate sends what the system still had queued of a link that an agent gave up
// dialling, and nothing more.
func requestLate(d *linktest.DataPlane) {
	d.T.Helper()
	c, err := tls.Dial("tcp", d.Server.Address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		d.T.Fatal(err)
	}
	linktest.Write(d.T, c, "GET "+wire.PathLink+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"+
		"Sec-WebSocket-Protocol: "+wire.Subprotocol+"\r\nAuthorization: Bearer "+d.Servers[0].Ticket+"\r\n\r\n")
	_ = c.NetConn().(*net.TCPConn).CloseWrite()
	d.T.Cleanup(func() { _ = c.Close() })
}

func TestLinks_AbandonedDialThatArrivesLateDoesNotEndTheAgent(t *testing.T) {
	d := linktest.New(t, linktest.Options{Links: slow})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	requestLate(d)
	d.AwaitReport(1, types.ReportFailed)
	d.AwaitReport(1, types.ReportReady)
	d.Greet(port)
}

func TestLinks_NoTunnelServerEndsTheAgentWhileThePanelIsConnected(t *testing.T) {
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
		slow(o)
		o.PanelConnected = func() bool { return true }
	}})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	for range 3 {
		requestLate(d)
		d.AwaitReport(1, types.ReportFailed)
		d.AwaitReport(1, types.ReportReady)
	}
	d.Greet(port)
}

func TestLinks_DataConnectionThatFailsIsDialledAgain(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	w := newBreakableProxy(t, d.Server.Address)
	d.Mu.Lock()
	d.Servers[0].Address = w.address
	d.Mu.Unlock()
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	w.refuse.Store(8) // More than are asked for when a player joins.
	start := time.Now()
	d.Greet(port)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the player was served after %v", took)
	}
}
