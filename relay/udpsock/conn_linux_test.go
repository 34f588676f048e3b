package udpsock_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

func listen(t *testing.T, network, address string, o udpsock.Options) *udpsock.Conn {
	t.Helper()
	c, err := udpsock.Listen(t.Context(), network, address, o)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// player returns a socket that is bound to an address, but not connected: it shows
// which address an answer comes from.
func player(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)))
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(await.Timeout))
	return c
}

func TestConn_AnswersLeaveFromTheAddressReached(t *testing.T) {
	for _, test := range []struct {
		network, bound, player string
		reached                []string
	}{
		{"udp4", ":0", "127.0.0.1", []string{"127.0.0.1", "127.0.0.2", "127.1.2.3"}},
		{"udp", ":0", "127.0.0.1", []string{"127.0.0.1", "127.0.0.2", "127.1.2.3"}},
		{"udp", ":0", "::1", []string{"::1"}},
	} {
		t.Run(test.network+" from "+test.player, func(t *testing.T) {
			server := listen(t, test.network, test.bound, udpsock.Options{Destinations: true})
			player := player(t, test.player)
			seen := map[udpsock.Endpoint]netip.Addr{}
			for range 2 { // The same endpoints again.
				for _, address := range test.reached {
					reached := netip.AddrPortFrom(netip.MustParseAddr(address), server.LocalAddr().Port())
					if _, err := player.WriteToUDPAddrPort([]byte("hello"), reached); err != nil {
						t.Fatal(err)
					}
					batch, err := server.Read()
					if err != nil {
						t.Fatal(err)
					}
					from, local := batch.Endpoint(0), batch.Local(0)
					batch.Release()
					if local != reached.Addr() {
						t.Errorf("a datagram to %s reached %s", reached, local)
					}
					seen[from] = local
					if refused := server.Write([]udpsock.Datagram{{To: &from, Data: []byte("a")}}); refused != 0 {
						t.Errorf("%d refused", refused)
					}
					if unsent, err := server.TryWrite([]udpsock.Datagram{{To: &from, Data: []byte("b")}, {To: &from, Data: []byte("c")}}); unsent != 0 {
						t.Errorf("%d not sent: %v", unsent, err)
					}
					for range 3 {
						_, source, err := player.ReadFromUDPAddrPort(make([]byte, 10))
						if err != nil {
							t.Fatal(err)
						}
						if source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port()); source != reached {
							t.Errorf("an answer from %s to a datagram to %s", source, reached)
						}
					}
				}
			}
			if len(seen) != len(test.reached) {
				t.Errorf("%d endpoints of %d addresses", len(seen), len(test.reached))
			}
		})
	}
}

func TestConn_EqualEndpointsDoNotDependOnBorrowedMemory(t *testing.T) {
	four := listen(t, "udp4", "127.0.0.1:0", udpsock.Options{Destinations: true})
	six := listen(t, "udp6", "[::1]:0", udpsock.Options{Destinations: true})
	seen := map[udpsock.Endpoint]bool{}
	fourPlayer, sixPlayer := player(t, "127.0.0.1"), player(t, "::1")
	for range 3 {
		for c, player := range map[*udpsock.Conn]*net.UDPConn{four: fourPlayer, six: sixPlayer} {
			if _, err := player.WriteToUDPAddrPort([]byte("hello"), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			batch, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			seen[batch.Endpoint(0)] = true
			batch.Release()
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d endpoints of two players", len(seen))
	}
}

func TestConn_CoalescedDatagramsAreSplit(t *testing.T) {
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	coalesces := true
	there := open(t, l, func(o *udpsock.Options) { o.Coalesce, o.Destinations = true, true })
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO)
		coalesces = err == nil
	}); err != nil || !coalesces {
		t.Skip("the kernel does not coalesce datagrams", err)
	}
	here := open(t, c, func(o *udpsock.Options) { o.ProbeMTU = true })
	sizes := bytes.Repeat([]byte{100}, 63) // More than one system call reads messages.
	all := datagrams()
	for i, size := range sizes {
		all = append(all, bytes.Repeat([]byte{byte(i)}, int(size)))
	}
	all = append(all, []byte("the last may be shorter"))
	out := make([]udpsock.Datagram, len(all))
	for i := range all {
		out[i].Data = all[i]
	}
	if unsent, err := here.TryWrite(out); unsent != 0 {
		t.Fatalf("%d not sent: %v", unsent, err)
	}
	batch, err := there.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	if batch.Len() != len(all) {
		t.Fatalf("%d datagrams, want %d in one batch", batch.Len(), len(all))
	}
	for i, want := range all {
		got := batch.Data(i)
		_ = append(got, "this must not overwrite the next"...)
		if !bytes.Equal(got, want) {
			t.Fatalf("datagram %d is %q, want %q", i, got, want)
		}
		if batch.Source(i).Port() != uint16(c.LocalAddr().(*net.UDPAddr).Port) || batch.Local(i) != netip.MustParseAddr("127.0.0.1") {
			t.Fatalf("datagram %d from %s to %s", i, batch.Source(i), batch.Local(i))
		}
	}
}

func TestConn_MixedSizesArriveWithProbedMTUAndCoalescing(t *testing.T) {
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	there := open(t, l, func(o *udpsock.Options) { o.Coalesce = true })
	here := open(t, c, func(o *udpsock.Options) { o.ProbeMTU = true })
	all := datagrams(mixed...)
	out := make([]udpsock.Datagram, len(all))
	for i := range all {
		out[i].Data = all[i]
	}
	if unsent, err := here.TryWrite(out); unsent != 0 {
		t.Fatalf("%d not sent: %v", unsent, err)
	}
	arrive(t, there, all)
}

func TestConn_OnlyWriteWaitsForRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	there, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	here, err := udpsock.NewUnix(conn)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	out := make([]udpsock.Datagram, n)
	for i := range out {
		out[i].Data = []byte{byte(i), byte(i >> 8)}
	}
	unsent, err := here.TryWrite(out)
	if unsent == 0 || unsent == n || !errors.Is(err, syscall.EAGAIN) || udpsock.IsTooLong(err) {
		t.Fatalf("%d of %d not sent without room: %v", unsent, n, err)
	}
	if again, err := here.TryWrite(out[n-unsent:]); again != unsent || !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("%d of %d not sent without room: %v", again, unsent, err)
	}
	refused := make(chan int, 1)
	go func() { refused <- here.Write(out[n-unsent:]) }()
	b := make([]byte, 10)
	for i := range out {
		if size, err := there.Read(b); err != nil || !bytes.Equal(b[:size], out[i].Data) {
			t.Fatalf("datagram %d is %x (%v)", i, b[:size], err)
		}
	}
	if n := await.Receive(t, refused, "end of Write"); n != 0 {
		t.Errorf("%d refused", n)
	}
}
