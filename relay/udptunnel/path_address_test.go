package udptunnel_test

import (
	"encoding/binary"
	"errors"
	"fmt"
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

func TestPath_VictimsOfAClientGetAtMostThreeTimesWhatNamedThem(t *testing.T) {
	for _, test := range []struct {
		name      string
		connected bool
	}{{"as the first address of a path", false}, {"as another address of a path", true}} {
		t.Run(test.name, func(t *testing.T) {
			l := newLiar(t)
			if test.connected {
				l.connect()
			}
			datagrams, got := 0, l.got
			for i := range 40 {
				victim := newPlace(t)
				for number, content := range [][]wire.Record{
					{closing}, // The shortest that there is.
					{probe(uint64(2+i), 0)},
					{datagram(make([]byte, 20+7*i)), probe(uint64(1000+i), 0)},
					{probe(uint64(2000+i), 1180), closing},
				} {
					for guess := uint64(1); guess < 64 && (number+i)%2 == 0; guess++ {
						content = append(content, answerTo(guess), answerTo(l.probe+guess), answerTo(l.probe>>2<<2+4*guess))
					}
					l.send(victim, content...)
					if l.path.Put(datagram([]byte("for the player"))) {
						datagrams++
					}
					l.path.Flush()
					l.path.Tick(time.Now())
				}
				if l.settle(); test.connected {
					l.play()
				}
				victim.want(fmt.Sprintf("victim %d", i))
			}
			if moved := l.path.counters.Moved.Load(); moved != 0 {
				t.Errorf("the path has moved %d times to addresses that answer nothing", moved)
			}
			if !test.connected {
				if l.path.Up() || datagrams != 0 {
					t.Errorf("up: %t, %d datagrams were taken for an address that was never validated", l.path.Up(), datagrams)
				}
				l.connect() // Nothing of it keeps an honest client away.
				return
			}
			if got := l.got - got; datagrams != 160 || got != datagrams || !l.path.Up() {
				t.Errorf("%d of %d datagrams have arrived at the address in use; up: %t", got, datagrams, l.path.Up())
			}
		})
	}
}

func TestPath_RepeatedChallengesKeepToTheLimit(t *testing.T) {
	for _, connected := range []bool{false, true} {
		t.Run(fmt.Sprintf("connected: %t", connected), func(t *testing.T) {
			l := newLiar(t)
			if connected {
				l.connect()
			}
			named, other := newPlace(t), newPlace(t)
			l.send(named, closing)
			// Time passes, and other addresses are challenged again and again.
			challenges := 0
			await.Until(t, "challenges", func() bool {
				l.send(other, probe(1, 1180))
				for packet := other.next(); packet != nil; packet = other.next() {
					challenges++
				}
				return challenges >= 6
			})
			for packet := named.next(); packet != nil; packet = named.next() {
				if r := l.open(packet); r.Kind != wire.RecordProbe {
					t.Errorf("a record of kind %d was sent there", r.Kind)
				}
			}
			named.want("named once")
			other.want("named often")
			if named.sent == 0 {
				t.Error("it was not challenged")
			}
		})
	}
}

func TestPath_AnswerValidatesOnlyTheAddressThatItComesFrom(t *testing.T) {
	l := newLiar(t)
	b, c := newPlace(t), newPlace(t)
	// The first address, by a challenge that says nothing of packets of the least size.
	l.send(l.own, closing)
	number := l.challenge(l.own)
	l.send(b, answerTo(number))
	l.send(c, answerTo(number))
	if l.settle(); l.path.Up() {
		t.Error("up by an answer from elsewhere")
	}
	l.send(l.own, answerTo(number))
	l.send(l.own, probe(7, 0))
	number = l.challenge(l.own) // Of the least size: it is to bring the path up.
	l.send(b, answerTo(number))
	if l.settle(); l.path.Up() {
		t.Error("up by an answer from elsewhere to a probe")
	}
	l.send(l.own, answerTo(number))
	await.Until(t, "path", l.path.Up)

	b, c = newPlace(t), newPlace(t)
	l.send(b, probe(8, 1180))
	number = l.challenge(b)
	l.send(c, answerTo(number))
	if l.settle(); l.path.counters.Moved.Load() != 0 {
		t.Fatal("moved by an answer from elsewhere")
	}
	l.send(b, answerTo(number))
	await.Until(t, "move", func() bool { return l.path.counters.Moved.Load() == 1 })
	l.path.Put(datagram([]byte("x")))
	l.path.Flush()
	await.Until(t, "datagram at the new address", func() bool {
		packet := b.next()
		return packet != nil && l.open(packet).Kind == wire.RecordDatagram
	})
}

func TestPath_NewerPacketFromTheAddressInUseEndsAMove(t *testing.T) {
	l := newLiar(t)
	l.connect()
	b := newPlace(t)
	l.send(b, closing)
	number := l.challenge(b)
	l.send(l.own, closing) // The client is here.
	l.send(b, answerTo(number))
	if l.settle(); l.path.counters.Moved.Load() != 0 {
		t.Error("moved although a newer packet had come from the address in use")
	}
	if again := l.challenge(b); again == number {
		t.Error("the next challenge has the same number")
	}
}

// victims has one packet to the server of so many sent from another place, a new one
// each time, and the line drop it or forward it after that. The function returns them.
func (l *line) victims(t *testing.T, each int, drop bool) (of func() []*place) {
	var mu sync.Mutex
	var all []*place
	count := 0
	l.stealing(func(packet []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if count++; count%each != 0 {
			return false
		}
		victim := newPlace(t)
		all = append(all, victim)
		victim.name(packet, l.server)
		return drop
	})
	return func() []*place {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestPath_PacketsThatOthersSendElsewhereGainAChallengeAtMost(t *testing.T) {
	for _, test := range []struct {
		name string
		drop bool
	}{{"held back", true}, {"copied and faster", false}} {
		t.Run(test.name, func(t *testing.T) {
			client, server, over := newEnd(), newEnd(), new(line)
			connect(t, "127.0.0.1", over, client, server)
			victims := over.victims(t, 5, test.drop)
			const n = 300
			for i := range uint32(n) {
				for from, to := range map[*end]*end{client: server, server: client} {
					if !from.Put(datagram(binary.BigEndian.AppendUint32(nil, i))) {
						t.Fatalf("datagram %d is not taken", i)
					}
					from.Flush()
					if got := binary.BigEndian.Uint32(to.next(t)); got != i {
						t.Fatalf("datagram %d in place of %d", got, i)
					}
				}
			}
			over.stealing(nil)
			if moved := server.counters.Moved.Load(); moved != 0 || !server.Up() || !client.Up() {
				t.Errorf("moved %d times; up: %t, %t", moved, server.Up(), client.Up())
			}
			all := victims()
			for i, victim := range all {
				victim.want(fmt.Sprintf("victim %d", i))
			}
			if len(all) < n/5 {
				t.Errorf("%d packets were sent from elsewhere", len(all))
			}
		})
	}
}

func TestPath_FollowsAClientThatMovesWithOneMoreRoundTrip(t *testing.T) {
	client, server, over := newEnd(), newEnd(), new(line)
	connect(t, "127.0.0.1", over, client, server)
	grow(t, client, server)
	for moves := uint64(1); moves <= 3; moves++ {
		over.rebind()
		// A single packet: the rest is a challenge and its answer.
		client.Put(datagram([]byte("up")))
		client.Flush()
		server.next(t)
		await.Until(t, "move", func() bool { return server.counters.Moved.Load() == moves })
		server.Put(datagram([]byte("down")))
		server.Flush()
		client.next(t)
		if !server.Up() || !client.Up() {
			t.Errorf("up: %t, %t", server.Up(), client.Up())
		}
		grow(t, client, server) // Its packet size is found again.
	}
}
