package udptunnel_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// epochs returns the highest epoch of the packets that a line has forwarded since.
func (l *line) epochs(lose bool) (last func() uint64) {
	var highest atomic.Uint64
	l.lose(func(packet []byte) bool {
		highest.Store(max(highest.Load(), binary.BigEndian.Uint64(packet[8:])>>24))
		return lose
	})
	return highest.Load
}

// exchange sends a datagram in each direction.
func exchange(t *testing.T, client, server *end) {
	t.Helper()
	for from, to := range map[*end]*end{client: server, server: client} {
		if !from.Put(datagram([]byte("x"))) {
			t.Fatal("a datagram is not taken")
		}
		from.Flush()
		to.next(t)
	}
}

func TestPath_RatchetsItsKeysEveryTwoMinutes(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			client, server, over := newEnd(), newEnd(), new(line)
			connect(t, "127.0.0.1", over, client, server)
			aging := map[string]*end{"client": client, "server": server}[side]
			last := over.epochs(false)
			exchange(t, client, server)
			const epochs = 5
			for age := time.Second; age < epochs*wire.EpochTime+time.Minute; age += 10 * time.Second {
				received, sent := aging.counters.Received.Load(), aging.counters.Sent.Load()
				aging.Use(age)
				if aging.counters.Sent.Load() > sent {
					await.Until(t, "the answer", func() bool { return aging.counters.Received.Load() > received && aging.Up() })
				}
				exchange(t, client, server)
			}
			if n := last(); n < epochs-1 || n > epochs {
				t.Errorf("epoch %d after %v", n, epochs*wire.EpochTime)
			}
			at, of := server.counters.Stats(), client.counters.Stats()
			if at.Forged+at.Replayed+of.Forged+of.Replayed != 0 {
				t.Errorf("%+v, %+v", at, of)
			}
		})
	}
}

func TestPath_DoesNotRatchetFurtherThanTheOtherEndFollows(t *testing.T) {
	client, server, over := newEnd(), newEnd(), new(line)
	connect(t, "127.0.0.1", over, client, server)
	exchange(t, client, server)
	last := over.epochs(true)
	var age time.Duration
	for ; age < time.Hour; age += 30 * time.Second { // Nothing arrives.
		client.Age(age)
	}
	if client.Up() {
		t.Fatal("up although nothing arrives")
	}
	over.lose(nil)
	await.Until(t, "the path", func() bool {
		age += time.Second
		client.Age(age)
		return client.Up()
	})
	client.Put(datagram([]byte("x")))
	client.Flush()
	server.next(t)
	if n := last(); n > 1 {
		t.Errorf("epoch %d", n)
	}
}

func TestPath_DoesNotRatchetForAnOldEnd(t *testing.T) {
	p := newPlayed(t) // Its keys are those of ends without a ratchet.
	var last uint64
	p.drop = func(packet []byte) bool {
		last = max(last, binary.BigEndian.Uint64(packet[8:])>>24)
		return false
	}
	p.play(3*wire.EpochTime, nil)
	if last != 0 || !p.Up() {
		t.Errorf("epoch %d, up: %t", last, p.Up())
	}
}
