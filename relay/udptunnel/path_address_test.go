package udptunnel_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

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
