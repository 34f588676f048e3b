package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// dataPlaneTest is a tunnel server, the agent's links to it, and the panel that
// both obey, on the loopback.
type dataPlaneTest struct {
	t      testing.TB
	panel  *relaytest.Panel
	server *relaytest.Server
	client uuid.UUID
	agent  *links
	stop   func() error    // Ends the agent's links and returns what Run returned.
	ended  <-chan struct{} // Closed when Run has returned, whoever ended it.

	mu          sync.Mutex
	servers     []types.ClientServer
	allocations []types.ClientAllocation
	changed     chan struct{}
}

type dataPlaneOptions struct {
	server func(*relay.Options)
	agent  func(*linkOptions)
}

func newDataPlane(t testing.TB, o dataPlaneOptions) *dataPlaneTest {
	t.Helper()
	d := &dataPlaneTest{t: t, panel: relaytest.NewPanel(t), client: uuid.New(), changed: make(chan struct{}, 1)}
	d.server = relaytest.Start(t, d.panel, o.server)
	d.panel.AwaitHellos(1)
	d.panel.PutClient(d.client, 1)
	d.servers = []types.ClientServer{{
		ID: d.panel.Server, Address: d.server.Address, Fingerprint: d.server.Fingerprint(),
		Ticket: d.panel.Ticket(d.client, 1, nil),
	}}
	d.agent, d.stop = d.startAgent(o.agent)
	return d
}

// startAgent runs links; the test ends them.
func (d *dataPlaneTest) startAgent(change func(*linkOptions)) (l *links, stop func() error) {
	options := linkOptions{
		Allow: func(host string) error {
			if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
				return nil
			}
			return fmt.Errorf("%s is not on this agent's allow-list", host)
		},
		OnChange: func() {
			select {
			case d.changed <- struct{}{}:
			default:
			}
		},
		Backoff: backoff.Exponential{Min: time.Millisecond, Max: 20 * time.Millisecond},
		Logger:  slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&options)
	}
	l = newLinks(options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	d.ended = done
	var err error
	go func() {
		defer close(done)
		err = l.Run(ctx)
	}()
	stop = func() error {
		cancel()
		<-done
		return err
	}
	d.t.Cleanup(func() { _ = stop() })
	return l, stop
}

// publish opens a public port for a local one, waits until players can come,
// and returns the public port.
func (d *dataPlaneTest) publish(protocol types.Protocol, local int, change func(*types.ClientAllocation)) int {
	d.t.Helper()
	d.mu.Lock()
	a := types.ClientAllocation{
		ID: int64(len(d.allocations) + 1), Protocol: protocol, ServerID: d.panel.Server,
		LocalHost: "127.0.0.1", LocalPort: local,
	}
	if change != nil {
		change(&a)
	}
	d.allocations = append(d.allocations, a)
	d.mu.Unlock()
	port := relaytest.FreePort(d.t)
	allocation := relaytest.Allocation(a.ID, d.client, protocol, port)
	allocation.Options = a.Options
	d.panel.Put(allocation)
	d.panel.AwaitReport(a.ID, types.ReportReady)
	d.apply()
	d.awaitReport(a.ID, types.ReportReady)
	return port
}

func (d *dataPlaneTest) apply() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent.Apply(d.servers, d.allocations)
}

func (d *dataPlaneTest) awaitReport(id int64, state types.AllocationReportState) types.AllocationReport {
	d.t.Helper()
	for {
		for _, r := range d.agent.Reports() {
			if r.ID == id && r.State == state {
				return r
			}
		}
		select {
		case <-d.changed:
		case <-time.After(relaytest.Patience):
			d.t.Fatalf("allocation %d does not become %s: %+v", id, state, d.agent.Reports())
		}
	}
}

// join connects a player to a public port.
func (d *dataPlaneTest) join(port int) *net.TCPConn {
	d.t.Helper()
	return dialTCP(d.t, "127.0.0.1", port)
}

// greet has a player join whose game echoes, and be answered.
func (d *dataPlaneTest) greet(port int) *net.TCPConn {
	d.t.Helper()
	player := d.join(port)
	say(d.t, player, "x")
	hear(d.t, player, "x")
	return player
}

func dialTCP(t testing.TB, host string, port int) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(6 * relaytest.Patience))
	return c.(*net.TCPConn)
}

// game runs a TCP server on host and returns its port.
func game(t testing.TB, host string, serve func(*net.TCPConn)) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("listen on %s: %v", host, err)
	}
	var players sync.WaitGroup
	players.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			players.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		players.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// echo answers with what it gets, and ends when that does.
func echo(c *net.TCPConn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 32<<10))
}

func say(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("heard %q (%v), want %q", b[:n], err, want)
	}
}

// howItEnds reads the rest of c and returns how it ended: nil at EOF.
func howItEnds(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
	_, err := io.Copy(io.Discard, c)
	return err
}

// refusal connects a player who is to be refused and returns how he finds out,
// be it while he connects.
func refusal(t testing.TB, port int) error {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer c.Close()
	return howItEnds(c)
}

// eventually looks again and again, for what gives no signal.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(relaytest.Patience); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come about", what)
		}
	}
}

// inUse returns how many goroutines and bytes of heap are in use.
func inUse() (goroutines int, heap uint64) {
	runtime.GC()
	runtime.GC() // Pools give up what they hold in two steps.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapInuse
}

var errTest = errors.New("the test says no")
