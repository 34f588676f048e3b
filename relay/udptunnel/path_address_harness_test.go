package udptunnel_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// place is an address on the network: packets name it as their source, whoever sends
// them, and others are sent to it.
type place struct {
	t     testing.TB
	conn  *net.UDPConn
	named int // Bytes of packets that name it,
	sent  int // and of those that were sent to it.
}

func newPlace(t testing.TB) *place {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &place{t: t, conn: conn}
}

// name sends a packet that names the place.
func (p *place) name(packet []byte, server netip.AddrPort) {
	n, err := p.conn.WriteToUDPAddrPort(packet, server)
	if err != nil {
		p.t.Error(err)
	}
	p.named += n
}

// next returns the next packet that was sent to the place, or nil if there is none.
func (p *place) next() []byte {
	b := make([]byte, 2048)
	// What was sent has arrived: this is the loopback interface.
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	n, err := p.conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.sent += n
	return b[:n]
}

// want fails the test unless the place was sent what a place may be that answers nothing.
func (p *place) want(what string) {
	p.t.Helper()
	for p.next() != nil {
	}
	if p.sent > 3*p.named {
		p.t.Errorf("%s: %d bytes were sent to an address that %d bytes named", what, p.sent, p.named)
	}
}

// liar is a tunnel client with the keys of a path, which names sources as it likes.
type liar struct {
	t       *testing.T
	path    *end // The tunnel server's end.
	address netip.AddrPort
	sealer  *seal.Sealer
	opener  *seal.Opener
	own     *place
	got     int    // Datagrams of players that have arrived at its own place.
	probe   uint64 // The number of the last probe that did.
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	theirs, ours, err := sealtest.Handshake(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{t: t, path: newEnd(), own: newPlace(t)}
	l.sealer, l.opener = theirs.Client()
	socket, err := udptunnel.ListenPackets(t.Context(), "127.0.0.1:0", &l.path.counters)
	if err != nil {
		t.Fatal(err)
	}
	l.address = socket.Address()
	if l.path.Path, err = socket.NewPath(l.path.options(ours)); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(socket.Serve)
	t.Cleanup(func() {
		l.path.Close()
		socket.Close()
		serving.Wait()
	})
	return l
}

// seal makes a packet.
func (l *liar) seal(records ...wire.Record) []byte {
	l.t.Helper()
	content := make([]byte, seal.HeaderSize, 2048)
	for _, r := range records {
		content = wire.AppendRecord(content, r)
	}
	packet, err := l.sealer.Seal(content)
	if err != nil {
		l.t.Fatal(err)
	}
	return packet
}

// send sends a packet that names a place, and waits until the tunnel server has done what
// follows from the packet before.
func (l *liar) send(from *place, records ...wire.Record) {
	l.t.Helper()
	before := l.path.counters.Received.Load()
	from.name(l.seal(records...), l.address)
	await.Until(l.t, "packet", func() bool { return l.path.counters.Received.Load() > before })
}

// settle returns once the tunnel server has done what follows from every packet.
func (l *liar) settle() {
	l.t.Helper()
	stale, behind := newPlace(l.t), l.seal(closing)
	done := func() uint64 { return l.path.counters.Received.Load() + l.path.counters.Replayed.Load() }
	for range 2 { // The second is not read before the first has been dealt with.
		before := done()
		stale.name(behind, l.address)
		await.Until(l.t, "packet", func() bool { return done() > before })
	}
}

// challenge returns the number of the next probe that was sent to a place.
func (l *liar) challenge(at *place) uint64 {
	l.t.Helper()
	var number uint64
	await.Until(l.t, "probe", func() bool {
		for packet := at.next(); packet != nil; packet = at.next() {
			if r := l.open(packet); r.Kind == wire.RecordProbe {
				number = r.Flow
				return true
			}
		}
		return false
	})
	return number
}

// open returns the first record of a packet.
func (l *liar) open(packet []byte) wire.Record {
	l.t.Helper()
	records, _, err := l.opener.Open(packet)
	if err != nil {
		l.t.Fatal(err)
	}
	r, _, err := wire.NextRecord(records)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// connect validates its own place and brings the path up.
func (l *liar) connect() {
	l.t.Helper()
	l.send(l.own, probe(1, 1180))
	l.send(l.own, answerTo(l.challenge(l.own)))
	await.Until(l.t, "path", func() bool { l.play(); return l.path.Up() })
}

// play acts as an honest client does with what has arrived at its own place.
func (l *liar) play() {
	l.t.Helper()
	for packet := l.own.next(); packet != nil; packet = l.own.next() {
		switch r := l.open(packet); r.Kind {
		case wire.RecordProbe:
			l.probe = r.Flow
			l.send(l.own, answerTo(r.Flow))
		case wire.RecordDatagram:
			l.got++
		}
	}
}

var closing = wire.Record{Kind: wire.RecordClose, Flow: 1}

func probe(number uint64, padding int) wire.Record {
	return wire.Record{Kind: wire.RecordProbe, Flow: number, Payload: make([]byte, padding)}
}

func answerTo(number uint64) wire.Record { return wire.Record{Kind: wire.RecordAnswer, Flow: number} }
