package udpsock_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// open makes a Conn of a socket, whose reads fail the test if datagrams are lost.
func open(t testing.TB, c *net.UDPConn, options ...func(*udpsock.Options)) *udpsock.Conn {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(await.Timeout))
	o := udpsock.Options{ReadBuffer: udpsock.SocketBuffer}
	for _, set := range options {
		set(&o)
	}
	conn, err := udpsock.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// sockets returns a socket at an address and one connected to it.
func sockets(t testing.TB, network, address string) (listening, connected *net.UDPConn) {
	t.Helper()
	l, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	listening = l.(*net.UDPConn)
	port := listening.LocalAddr().(*net.UDPAddr).Port
	ip := net.IPv4(127, 0, 0, 1)
	if listening.LocalAddr().(*net.UDPAddr).IP.To4() == nil && network == "udp6" {
		ip = net.IPv6loopback
	}
	connected, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: ip, Port: port})
	if err != nil {
		t.Skipf("reach %s: %v", ip, err)
	}
	return listening, connected
}

// arrive reads until all of want has arrived, in order.
func arrive(t testing.TB, c *udpsock.Conn, want [][]byte) (sources []netip.AddrPort) {
	t.Helper()
	for len(want) > 0 {
		batch, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch.Len() {
			if got := batch.Data(i); len(want) == 0 || !bytes.Equal(got, want[0]) {
				t.Fatalf("%d bytes arrive, with %d datagrams still to come", len(got), len(want))
			}
			want = want[1:]
			sources = append(sources, batch.Source(i))
			if batch.Endpoint(i) == (udpsock.Endpoint{}) {
				t.Fatal("a datagram without an endpoint")
			}
		}
		batch.Release()
	}
	return sources
}

// datagrams returns one of each size, each of another content.
func datagrams(sizes ...int) [][]byte {
	all := make([][]byte, len(sizes))
	for i, size := range sizes {
		all[i] = bytes.Repeat([]byte{byte(i + 1)}, size)
		if size >= 4 {
			binary.BigEndian.PutUint32(all[i], uint32(i))
		}
	}
	return all
}

// mixed has runs of equal sizes, shorter and longer ones after them, empty ones
// and the largest.
var mixed = []int{
	200, 200, 200, 100, 200, 200, 300, 0, 0, 64, 64, 64, 64, 1400, 1400, 1401, 1401, 9000, 9000,
	wire.MaxDatagram, 1, 1, 1, 1, 0, 5, 1200, 1200, 1200, 1200, 1199,
}

func TestConn_DatagramsArriveWholeAndInOrder(t *testing.T) {
	for _, address := range []struct{ network, address string }{
		{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp", ":0"},
	} {
		t.Run(address.network, func(t *testing.T) {
			l, c := sockets(t, address.network, address.address)
			there, here := open(t, l), open(t, c)
			all := datagrams(mixed...)
			out := make([]udpsock.Datagram, len(all))
			for i, data := range all {
				out[i] = udpsock.Datagram{Data: data}
			}
			if n := here.Write(out); n != 0 {
				t.Errorf("%d refused", n)
			}
			for _, from := range arrive(t, there, all) {
				if from != c.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Fatalf("a datagram from %s, want %s", from, c.LocalAddr())
				}
			}
			player := there.Endpoint(c.LocalAddr().(*net.UDPAddr).AddrPort())
			for i := range out {
				out[i].To = &player
			}
			if n := there.Write(out); n != 0 {
				t.Errorf("%d refused", n)
			}
			arrive(t, here, all)
		})
	}
}

func TestConn_EachDatagramHasItsHead(t *testing.T) {
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	there, here := open(t, l), open(t, c)
	head := []byte("head")
	sizes := make([]int, 300) // More than one system call takes.
	var out []udpsock.Datagram
	var want [][]byte
	for i := range sizes {
		sizes[i] = 20 + i/100
	}
	for _, data := range datagrams(sizes...) {
		out = append(out, udpsock.Datagram{Head: head, Data: data})
		want = append(want, append(bytes.Clone(head), data...))
	}
	if n := here.Write(out); n != 0 {
		t.Errorf("%d refused", n)
	}
	arrive(t, there, want)
}

func TestConn_DatagramsReachTheirReceivers(t *testing.T) {
	l, first := sockets(t, "udp4", "127.0.0.1:0")
	second, err := net.DialUDP("udp", nil, l.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	there := open(t, l)
	to := []udpsock.Endpoint{
		there.Endpoint(first.LocalAddr().(*net.UDPAddr).AddrPort()),
		there.Endpoint(second.LocalAddr().(*net.UDPAddr).AddrPort()),
	}
	var out []udpsock.Datagram
	var want [2][][]byte
	for i, data := range datagrams(make([]int, 120)...) {
		data = binary.BigEndian.AppendUint32(data, uint32(i))
		flow := i / 3 % 2
		out = append(out, udpsock.Datagram{To: &to[flow], Data: data})
		want[flow] = append(want[flow], data)
	}
	if n := there.Write(out); n != 0 {
		t.Errorf("%d refused", n)
	}
	arrive(t, open(t, first), want[0])
	arrive(t, open(t, second), want[1])
}

func TestConn_RefusedDatagramsAffectNoOthers(t *testing.T) {
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	there, here := open(t, l), open(t, c)
	good := there.Endpoint(c.LocalAddr().(*net.UDPAddr).AddrPort())
	bad := there.Endpoint(netip.MustParseAddrPort("127.0.0.1:0")) // There is no such port.
	all := datagrams(50, 50, 50, 50)
	out := []udpsock.Datagram{
		{To: &good, Data: all[0]}, {To: &bad, Data: all[0]}, {To: &bad, Data: all[1]},
		{To: &good, Data: all[1]}, {To: &good, Data: all[2]}, {To: &bad, Data: make([]byte, wire.MaxDatagram+1)},
		{To: &good, Data: all[3]},
	}
	if n := there.Write(out); n != 3 {
		t.Errorf("%d refused, want 3", n)
	}
	arrive(t, here, all)
	if n, err := there.TryWrite(out); n != 3 || err == nil || udpsock.IsTooLong(err) != (runtime.GOOS == "linux") {
		t.Errorf("%d not sent, want 3, the last because it is too long: %v", n, err)
	}
	arrive(t, here, all)
}

func TestConn_ClosedPortFailsReadsAndNoWrites(t *testing.T) {
	l, c := sockets(t, "udp4", "127.0.0.1:0")
	_ = l.Close()
	here := open(t, c)
	for range 5 {
		if n := here.Write([]udpsock.Datagram{{Data: []byte("anybody")}, {Data: []byte("there?")}}); n != 0 {
			t.Fatalf("%d refused", n)
		}
	}
	if _, err := here.Read(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading what a closed port has answered: %v", err)
	}
	_ = c.Close()
	if _, err := here.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading a closed socket: %v", err)
	}
	if n := here.Write([]udpsock.Datagram{{Data: []byte("late")}}); n != 0 {
		t.Errorf("%d refused on a closed socket", n)
	}
	if n, err := here.TryWrite([]udpsock.Datagram{{Data: []byte("too")}, {Data: []byte("late")}}); n != 2 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%d not sent on a closed socket, want 2: %v", n, err)
	}
}

func BenchmarkConn(b *testing.B) {
	l, c := sockets(b, "udp4", "127.0.0.1:0")
	there, here := open(b, l), open(b, c)
	out := make([]udpsock.Datagram, 16)
	for i := range out {
		out[i].Data = make([]byte, 200)
	}
	b.ReportAllocs()
	for b.Loop() {
		here.Write(out)
		for got := 0; got < len(out); {
			batch, err := there.Read()
			if err != nil {
				b.Fatal(err)
			}
			got += batch.Len()
			batch.Release()
		}
	}
}
