package link_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// plainAt returns options that let these ends do without encryption.
func plainAt(server, client bool) linktest.Options {
	return linktest.Options{
		Server: func(o *relay.Options) { o.PlainStreams = server },
		Links:  func(o *link.Options) { o.PlainStreams = client },
	}
}

// recordingProxy forwards TCP connections and records their bytes.
type recordingProxy struct {
	address string

	mu   sync.Mutex
	seen bytes.Buffer
}

func newRecordingProxy(t *testing.T, target string) *recordingProxy {
	t.Helper()
	w := new(recordingProxy)
	note := writerFunc(func(p []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.seen.Write(p)
	})
	port := linktest.Game(t, "127.0.0.1", func(near *net.TCPConn) {
		far, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.MultiWriter(near, note), far)
			_ = near.Close()
		}()
		_, _ = io.Copy(io.MultiWriter(far, note), near)
		_ = far.Close()
		<-done
	})
	w.address = fmt.Sprintf("127.0.0.1:%d", port)
	return w
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestPlain_TakesBothEnds(t *testing.T) {
	for _, ends := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("server %v client %v", ends[0], ends[1]), func(t *testing.T) {
			d := linktest.New(t, plainAt(ends[0], ends[1]))
			proxy := newRecordingProxy(t, d.Server.Address)
			d.Servers[0].Address = proxy.address
			t.Cleanup(func() { _ = d.Stop() }) // Before the proxy goes.
			port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
			player := d.Join(port)
			const secret = "for the player and the game only"
			linktest.Write(t, player, secret)
			linktest.Expect(t, player, secret)
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			if plain := bytes.Contains(proxy.seen.Bytes(), []byte(secret)); plain != (ends[0] && ends[1]) {
				t.Errorf("in plain: %v", plain)
			}
			if bytes.Contains(proxy.seen.Bytes(), []byte("Bearer")) {
				t.Error("a ticket or secret went over the wire in plain")
			}
		})
	}
}

func TestPlain_MovesEveryByteOfOnePlayerAfterAnother(t *testing.T) {
	d := linktest.New(t, plainAt(true, true))
	const size = 24<<20 + 11
	seed := [32]byte{1}
	sum := func(r io.Reader) [sha256.Size]byte {
		h := sha256.New()
		if n, err := io.Copy(h, r); err != nil || n != size {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
		return [sha256.Size]byte(h.Sum(nil))
	}
	want := sum(io.LimitReader(rand.NewChaCha8(seed), size))
	var verdicts sync.Map
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.Copy(c, io.LimitReader(rand.NewChaCha8(seed), size))
			_ = c.CloseWrite()
		}()
		verdicts.Store(c.RemoteAddr().String(), sum(c))
		<-sent
	}), nil)
	for range 3 {
		player := d.Join(port)
		said := make(chan struct{})
		go func() {
			defer close(said)
			// In pieces of every size, below and above what is worth splicing.
			source, buffer := io.LimitReader(rand.NewChaCha8(seed), size), make([]byte, 300<<10)
			for n := 1; ; n = n*3%len(buffer) + 1 {
				read, err := io.ReadFull(source, buffer[:n])
				if _, failed := player.Write(buffer[:read]); failed != nil || err != nil {
					break
				}
			}
			_ = player.CloseWrite()
		}()
		if got := sum(player); got != want {
			t.Fatal("the player got something else than the game sent")
		}
		<-said // Either direction may be the slower one.
		_ = player.Close()
	}
	await.Until(t, "the game's verdict", func() bool {
		n := 0
		verdicts.Range(func(_, got any) bool {
			if got.([sha256.Size]byte) != want {
				t.Error("the game got something else than the player sent")
			}
			n++
			return true
		})
		return n == 3
	})
}

func TestPlain_HalfCloseAndResetPass(t *testing.T) {
	d := linktest.New(t, plainAt(true, true))
	ended := make(chan error, 1)
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		n, err := io.Copy(io.Discard, c)
		if err == nil {
			_, err = fmt.Fprintf(c, "%d bytes", n)
		}
		ended <- err
	}), nil)
	player := d.Join(port)
	const size = 5<<20 + 1
	_, _ = player.Write(make([]byte, size))
	_ = player.CloseWrite()
	linktest.Expect(t, player, fmt.Sprintf("%d bytes", size))
	if err := linktest.ReadToEnd(player); err != nil {
		t.Errorf("the player sees %v, want EOF", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// In the midst of a transfer.
	player = d.Join(port)
	_, _ = player.Write(make([]byte, size))
	tcpstream.Reset(player)
	if err := <-ended; err == nil {
		t.Error("the game takes a reset for a close in order")
	}
}

func TestPlain_PlayerWhoLeavesOrStallsDoesNotAffectOthers(t *testing.T) {
	d := linktest.New(t, plainAt(true, true))
	cut := make(chan error, 8)
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil || first[0] != 'd' {
			_, _ = c.Write(first)
			return
		}
		for data := make([]byte, 1<<20); ; {
			if _, err := c.Write(data); err != nil {
				cut <- err
				return
			}
		}
	}), nil)
	stalled := d.Join(port)
	linktest.Write(t, stalled, "d")
	for range 3 {
		leaving := d.Join(port)
		linktest.Write(t, leaving, "d")
		if _, err := io.ReadFull(leaving, make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		tcpstream.Reset(leaving)
		if err := <-cut; err == nil {
			t.Error("the game does not learn that the player left")
		}
		d.Greet(port)
	}
	_ = d.Stop()
	select {
	case err := <-cut:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(relaytest.Patience):
		t.Error("the game of a stalled player does not learn that the tunnel ended")
	}
	if err := linktest.ReadToEnd(stalled); err == nil || errors.Is(err, io.EOF) {
		t.Error("the stalled player is closed in order")
	}
}
