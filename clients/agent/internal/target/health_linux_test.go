package target

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// watched is a Dialer whose Watch runs until the test's end.
type watched struct {
	t *testing.T
	*Dialer
	server  uuid.UUID
	changed chan struct{} // Has a value for each call of changed.
}

func watch(t *testing.T, o Options, allocations ...types.ClientAllocation) *watched {
	t.Helper()
	o.Allow = func(string, int) error { return nil }
	w := &watched{t: t, Dialer: NewDialer(o), server: uuid.New(), changed: make(chan struct{}, 10_000)}
	w.health.lookInterval = minLookInterval
	w.set(allocations...)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Watch(ctx, func() { w.changed <- struct{}{} }) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w
}

// set replaces the allocations, whose IDs are 1, 2 and so on.
func (w *watched) set(allocations ...types.ClientAllocation) {
	for i := range allocations {
		allocations[i].ID, allocations[i].ServerID = int64(i+1), w.server
	}
	w.SetAllocations(allocations)
}

// await waits until the n-th allocation is in a state, of which changed must tell, and
// returns the reason.
func (w *watched) await(what string, n int, state types.TargetState) string {
	w.t.Helper()
	deadline := time.After(await.Timeout)
	for {
		got, reason := w.State(int64(n + 1))
		if got == state {
			return reason
		}
		select {
		case <-w.changed:
		case <-deadline:
			w.t.Fatalf("%s: the target is %s (%s), want %s", what, got, reason, state)
		}
	}
}

// looks waits until the sockets have been read twice more: once may have begun before.
func (w *watched) looks() {
	w.t.Helper()
	for range 2 {
		before := w.nextLook()
		await.Until(w.t, "a look at the sockets", func() bool { return w.nextLook().After(before) })
	}
}

func (w *watched) nextLook() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health.nextLook
}

// betweenProbes waits until no probe of the first allocation's target is about to
// start or running: it may follow the look that it needs by a moment.
func (w *watched) betweenProbes() {
	w.t.Helper()
	await.Until(w.t, "a pause between probes", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		c := w.conditions[1]
		return !c.probing && c.probe.After(time.Now().Add(time.Second))
	})
}

// join connects a player to the first allocation.
func (w *watched) join() (net.Conn, error) {
	game, err := w.DialTCP(w.t.Context(), w.server, wire.Control{
		Allocation: 1, Source: netip.MustParseAddrPort("198.51.100.7:40000"), Destination: netip.MustParseAddrPort("192.0.2.1:25565"),
	})
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(game.Left)
	w.t.Cleanup(func() { _ = game.Conn.Close() })
	return game.Conn, nil
}

// program is one that waits for players, and counts what it gets.
type program struct {
	port  int
	got   atomic.Int64
	stop  func()
	first chan []byte // What the first connection has sent.
}

// start starts a program. Port 0 is any. Only6 has it wait at IPv6 alone.
func start(t *testing.T, protocol types.Protocol, host string, port int, only6 bool) *program {
	t.Helper()
	p := &program{first: make(chan []byte, 1)}
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if only6 {
			_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) })
		}
		return err
	}}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	var socket io.Closer
	var receive func() error
	if protocol == types.ProtocolTCP {
		l, err := listen.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Skipf("listen on %s: %v", address, err)
		}
		p.port, socket = l.Addr().(*net.TCPAddr).Port, l
		receive = func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			p.got.Add(1)
			defer c.Close()
			sent, _ := io.ReadAll(c)
			select {
			case p.first <- sent:
			default:
			}
			return nil
		}
	} else {
		c, err := listen.ListenPacket(t.Context(), "udp", address)
		if err != nil {
			t.Skipf("listen on %s: %v", address, err)
		}
		p.port, socket = c.LocalAddr().(*net.UDPAddr).Port, c
		receive = func() error {
			_, _, err := c.ReadFrom(make([]byte, 100))
			if err == nil {
				p.got.Add(1)
			}
			return err
		}
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			if err := receive(); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	p.stop = sync.OnceFunc(func() {
		_ = socket.Close()
		running.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// freePort returns a port at which nothing waits for players.
func freePort(t *testing.T, protocol types.Protocol) int {
	t.Helper()
	p := start(t, protocol, "127.0.0.1", 0, false)
	p.stop()
	return p.port
}

func TestState_FollowsAGameThatNoticesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		protocol     types.Protocol
		listen, host string
	}{
		"TCP":                   {types.ProtocolTCP, "127.0.0.1", "127.0.0.1"},
		"TCP at all addresses":  {types.ProtocolTCP, "", "127.0.0.1"},
		"TCP over IPv6":         {types.ProtocolTCP, "::1", "::1"},
		"TCP by a name":         {types.ProtocolTCP, "127.0.0.1", "game.test"},
		"TCP, another loopback": {types.ProtocolTCP, "127.9.9.9", "::ffff:127.9.9.9"},
		"UDP":                   {types.ProtocolUDP, "127.0.0.1", "127.0.0.1"},
		"UDP at all addresses":  {types.ProtocolUDP, "", "127.0.0.1"},
		"UDP over IPv6":         {types.ProtocolUDP, "::1", "::1"},
		"UDP by a name":         {types.ProtocolUDP, "127.0.0.1", "game.test"},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t, c.protocol)
			w := watch(t, Options{Resolver: linetest.Resolver(t, "127.0.0.1")}, types.ClientAllocation{Protocol: c.protocol, LocalHost: c.host, LocalPort: port})
			reason := w.await("no game yet", 0, types.TargetDown)
			if want := "nothing listens on " + net.JoinHostPort(c.host, strconv.Itoa(port)) + ": start the game"; reason != want {
				t.Errorf("the reason is %q", reason)
			}
			for range 2 {
				w.betweenProbes()
				game := start(t, c.protocol, c.listen, port, false)
				w.await("the game is there", 0, types.TargetUp)
				w.looks()
				game.stop()
				w.await("the game has ended", 0, types.TargetDown)
				if n := game.got.Load(); n != 0 {
					t.Errorf("the game got %d connections or datagrams", n)
				}
			}
		})
	}
}

func TestState_OfAnAddressOfThisMachine(t *testing.T) {
	addr := ownAddress(t)
	game := start(t, types.ProtocolTCP, addr, 0, false)
	w := watch(t, Options{}, types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: addr, LocalPort: game.port})
	w.await("the game is there", 0, types.TargetUp)
	game.stop()
	w.await("the game has ended", 0, types.TargetDown)
	if n := game.got.Load(); n != 0 {
		t.Errorf("the game got %d connections", n)
	}
}

// ownAddress returns an address of this machine that is not on the loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for addr := range unicast(addrs) {
		if addr.Is4() && !addr.IsLinkLocalUnicast() {
			return addr.String()
		}
	}
	t.Skip("this machine has the loopback alone")
	return ""
}

func TestState_AGameThatServesOnePlayerIsNotRobbed(t *testing.T) {
	for name, c := range map[string]struct{ listen, host string }{
		"at its address":   {"127.0.0.1:0", "127.0.0.1"},
		"at all addresses": {":0", "127.0.0.1"},
		"by a name":        {"127.0.0.1:0", "game.test"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan string, 1)
			go func() {
				defer close(served)
				one, err := l.Accept()
				_ = l.Close()
				if err != nil {
					return
				}
				defer one.Close()
				text := make([]byte, 5)
				_, _ = io.ReadFull(one, text)
				served <- string(text)
			}()
			t.Cleanup(func() { _ = l.Close() })
			w := watch(t, Options{Resolver: linetest.Resolver(t, "127.0.0.1")},
				types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: c.host, LocalPort: l.Addr().(*net.TCPAddr).Port})
			w.await("the game is there", 0, types.TargetUp)
			w.looks()
			player, err := w.join()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(player, "hello")
			if got := await.Receive(t, served, "player"); got != "hello" {
				t.Errorf("the game served %q", got)
			}
			w.await("the game takes no more", 0, types.TargetDown)
		})
	}
}

// A game that waits at IPv6 alone looks in the table like one for both.
func TestState_PlayersCountMoreThanTheSockets(t *testing.T) {
	game := start(t, types.ProtocolTCP, "::", 0, true)
	w := watch(t, Options{}, types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: "127.0.0.1", LocalPort: game.port})
	w.await("the sockets show one", 0, types.TargetUp)
	if _, err := w.join(); err == nil {
		t.Fatal("the player was let in")
	}
	if reason := w.await("a player was refused", 0, types.TargetDown); !strings.HasPrefix(reason, "nothing listens on 127.0.0.1:") {
		t.Errorf("the reason is %q", reason)
	}
	w.looks()
	if state, _ := w.State(1); state != types.TargetDown {
		t.Errorf("the target is %s while players are refused", state)
	}
	right := start(t, types.ProtocolTCP, "127.0.0.1", game.port, false)
	w.await("the game waits at the right address", 0, types.TargetUp)
	player, err := w.join()
	if err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the player", func() bool { return right.got.Load() >= 2 }) // After the probe.
	_ = player.Close()
	// The sockets count again: both have to end before it is down.
	right.stop()
	game.stop()
	w.await("both have ended", 0, types.TargetDown)

	// Another target is another matter.
	other := start(t, types.ProtocolTCP, "127.0.0.1", 0, false)
	w.set(types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: "127.0.0.1", LocalPort: other.port})
	w.await("another target", 0, types.TargetUp)
	w.looks()
	if n := other.got.Load(); n != 0 {
		t.Errorf("the game got %d connections", n)
	}
}

// The machine does not know the address as its own: the sockets say nothing.
func TestState_OfAnotherMachine(t *testing.T) {
	addr := ownAddress(t)
	elsewhere := Options{Interfaces: func() ([]net.Addr, error) { return nil, nil }}
	tcp, udp := freePort(t, types.ProtocolTCP), start(t, types.ProtocolUDP, addr, 0, false)
	v2 := types.ProxyProtocolV2
	w := watch(t, elsewhere,
		types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: addr, LocalPort: tcp, Options: types.AllocationOptions{ProxyProtocol: &v2}},
		types.ClientAllocation{Protocol: types.ProtocolUDP, LocalHost: addr, LocalPort: udp.port},
	)
	w.await("no game yet", 0, types.TargetDown)
	game := start(t, types.ProtocolTCP, addr, tcp, false)
	w.await("the game is there", 0, types.TargetUp)
	const local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" // Version 2, LOCAL, no addresses.
	if sent := await.Receive(t, game.first, "probe"); string(sent) != local {
		t.Errorf("the probe sent %q", sent)
	}

	if state, _ := w.State(2); state != types.TargetUnknown || udp.got.Load() != 0 {
		t.Errorf("a UDP game that no player has asked is %s, and got %d datagrams", state, udp.got.Load())
	}
	// A player's datagram is refused. The probe that follows is not.
	w.reached(types.ClientAllocation{ID: 2, Protocol: types.ProtocolUDP, LocalHost: addr, LocalPort: udp.port}, syscall.ECONNREFUSED)
	w.await("a player was refused", 1, types.TargetDown)
	w.await("nobody is refused", 1, types.TargetUnknown)
	udp.stop()
}

func TestWatch_ReadsTheSocketsForAllAllocationsAtOnce(t *testing.T) {
	game := start(t, types.ProtocolTCP, "127.0.0.1", 0, false)
	many := make([]types.ClientAllocation, 1000)
	for i := range many {
		many[i] = types.ClientAllocation{Protocol: types.ProtocolTCP, LocalHost: "127.0.0.1", LocalPort: game.port}
	}
	w := watch(t, Options{}, many...)
	w.await("the last one", len(many)-1, types.TargetUp)
	for i := range many {
		w.await("each", i, types.TargetUp)
	}
	w.looks()
	if n := len(w.changed); n != 0 {
		t.Errorf("%d more changes are reported", n)
	}
	game.stop()
	for i := range many {
		w.await("the end of each", i, types.TargetDown)
	}
	if n := len(w.changed); n > 100 {
		t.Errorf("%d changes are reported", n)
	}
	if n := game.got.Load(); n != 0 {
		t.Errorf("the game got %d connections", n)
	}
}
