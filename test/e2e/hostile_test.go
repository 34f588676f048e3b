package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// hangers is how many silent and slow connections each port is given.
const hangers = 100

// Each of these is sent to the panel's port, the tunnel server's port for
// agents and a public port, in plain text and (where the port speaks it) TLS.
var garbage = map[string]string{
	"nothing":            "",
	"binary":             string(noise(4 << 10)),
	"a huge header":      "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
	"endless headers":    "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 1<<17),
	"a huge body":        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4194304\r\n\r\n" + strings.Repeat(" ", 4<<20),
	"a lying length":     "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
	"two lengths":        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
	"a bare upgrade":     "GET /api/tunnel/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"an unsigned token":  "GET /api/tunnel/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
	"a TLS hello, cut":   "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"a PROXY header":     "PROXY TCP4 203.0.113.7 203.0.113.8 1 2\r\n",
	"another's protocol": "SSH-2.0-OpenSSH_9.2\r\n",
}

func TestHostile_PeersLeaveTheSystemServing(t *testing.T) {
	t.Parallel() // Most of its time it waits to be hung up on.
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	server := w.embeddedServer(t)
	ports := map[string]string{
		"panel":  strings.TrimPrefix(w.panel.URL, "http://"),
		"relay":  server,
		"public": public,
	}
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	files, resident := openFiles(t, w.panel.Process), residentBytes(t, w.panel.Process)

	for name, sent := range garbage {
		var peers sync.WaitGroup
		for port, addr := range ports {
			peers.Go(func() {
				if err := throw(t.Context(), addr, sent); err != nil {
					t.Errorf("%s: the %s port refuses connections: %v", name, port, err)
				}
			})
			peers.Go(func() { throwTLS(t.Context(), addr, sent) })
		}
		peers.Wait()
		w.stillServes(t, player, public, name)
	}

	// Half-open and slow: all at once, on every port, while the others go on.
	var hanging []net.Conn
	for _, addr := range ports {
		for i := range hangers {
			conn := join(t, addr)
			if i%2 == 0 {
				_, _ = io.WriteString(conn, "GET /heal") // one that was hung up on already has done its part
			}
			hanging = append(hanging, conn)
		}
	}
	w.stillServes(t, player, public, "hundreds of half-open connections")

	// The panel and the tunnel server hang up on those who say nothing; players may be silent.
	started := time.Now()
	for i, conn := range hanging {
		if addr := conn.RemoteAddr().String(); addr != public {
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("silent connection %d to %s was kept for a minute", i, addr)
			}
		}
		conn.Close()
	}
	t.Logf("the last silent connection was hung up on after %v", time.Since(started))
	await.Within(t, time.Minute, "release of idle connections", func(context.Context) (bool, error) {
		return openFiles(t, w.panel.Process) <= files+20, nil
	})
	grown := residentBytes(t, w.panel.Process) - resident
	t.Logf("the panel grew by %d MiB", grown>>20)
	if grown > 128<<20 {
		t.Error("hostile peers cost the panel memory")
	}
	w.stillServes(t, player, public, "all connections ended")
}

// embeddedServer returns where the panel's own tunnel server takes agents.
func (w *world) embeddedServer(t *testing.T) string {
	t.Helper()
	devices, err := w.panel.API.ListDevicesWithResponse(within(t, patience), nil)
	if err != nil || devices.JSON200 == nil {
		t.Fatalf("list devices: %v", err)
	}
	for _, d := range *devices.JSON200 {
		if server, err := d.Server.Get(); err == nil {
			return net.JoinHostPort(server.PublicHost, fmt.Sprint(server.RelayPort))
		}
	}
	t.Fatal("the panel has no tunnel server")
	return ""
}

// misbehaviorTimeout is how long a peer that threw something stays to see what happens.
const misbehaviorTimeout = time.Second

// throw sends what no well-behaved peer would, and closes the connection. Only a
// connection that is refused is an error.
func throw(ctx context.Context, addr, sent string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	misbehave(conn, sent)
	return nil
}

// throwTLS does the same under TLS, where the port speaks it.
func throwTLS(ctx context.Context, addr, sent string) {
	ctx, cancel := context.WithTimeout(ctx, misbehaviorTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // the server's identity does not matter for garbage
	if conn, err := dialer.DialContext(ctx, "tcp", addr); err == nil {
		misbehave(conn, sent)
	}
}

// misbehave ignores every error: the other end may close the connection.
func misbehave(conn net.Conn, sent string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(misbehaviorTimeout))
	_, _ = io.WriteString(conn, sent)
	_, _ = conn.Read(make([]byte, 512))
}

// stillServes checks that a player plays on, others can join, and the
// panel answers.
func (w *world) stillServes(t *testing.T, player net.Conn, public, after string) {
	t.Helper()
	if _, err := exchange(player, 2, 5*time.Second); err != nil {
		t.Fatalf("after %s the player was cut off: %v", after, err)
	}
	if err := plays(within(t, 5*time.Second), public); err != nil {
		t.Fatalf("after %s no player can join: %v", after, err)
	}
	ready, err := w.panel.API.GetReadinessWithResponse(within(t, 5*time.Second))
	if err != nil || ready.StatusCode() != http.StatusOK {
		t.Fatalf("after %s the panel is not ready: %v", after, err)
	}
}

func TestHostile_DatagramsLeaveTheSystemServing(t *testing.T) {
	w := sharedFor(t)
	game := startUDPEcho(t)
	public := w.expose(t, types.CreateUDP, game, nil)
	conn, err := net.Dial("udp", public)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, size := range []int{1, 508, 1472, 9000, 32 << 10, 65507} {
		await.Within(t, patience, fmt.Sprintf("echo of %d bytes", size), func(context.Context) (bool, error) {
			return sameDatagram(t, conn, noise(size)), nil
		})
	}
	// An empty one and a flood from many ports, and the player plays on.
	for range 500 {
		flood, err := net.Dial("udp", public)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			_, _ = flood.Write(noise(1000)) // a flood does not look back
		}
		_, _ = flood.Write(nil)
		flood.Close()
	}
	await.Within(t, patience, "echo after the flood", func(context.Context) (bool, error) {
		return sameDatagram(t, conn, []byte("still here")), nil
	})
}

// sameDatagram sends a datagram to an echo and reports whether it came back as
// it was. One that was lost on the way is no error.
func sameDatagram(t *testing.T, conn net.Conn, sent []byte) bool {
	t.Helper()
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return false
		}
		if n == len(sent) { // otherwise an earlier one, late
			return string(buf[:n]) == string(sent)
		}
	}
}

// startUDPEcho starts a game that sends back every datagram, and returns its port.
func startUDPEcho(t testing.TB) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteTo(buf[:n], from) // a datagram may get lost
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).Port
}
