package link

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/pacing"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// newTestDialer dials without a proxy.
func newTestDialer(address string, timeout time.Duration) *serverDialer {
	o := Options{Dialer: pacing.New().Dialer, Limits: Limits{DialTimeout: timeout}}
	return newServerDialer(newConfig(o), address, "")
}

// answering dials a data connection to a server that responds to the upgrade with
// what answer returns.
func answering(t *testing.T, answer func(key string) string) (io.ReadCloser, error) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + acceptGUID))
		_, _ = io.WriteString(conn, strings.ReplaceAll(answer(base64.StdEncoding.EncodeToString(accept[:])), "\n", "\r\n"))
	}))
	t.Cleanup(s.Close)
	d := newTestDialer(s.Listener.Addr().String(), relaytest.Patience)
	d.http.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	d.http.TLSClientConfig.NextProtos = nil
	return d.stream(context.Background(), "secret")
}

const switching = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n"

func TestUpgrade_KeepsBytesThatArriveWithTheResponse(t *testing.T) {
	conn, err := answering(t, func(accept string) string {
		return switching + "Sec-WebSocket-Accept: " + accept + "\nSec-WebSocket-Protocol: " + wire.Subprotocol + "\n\nthe first frames"
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, err := io.ReadAll(conn)
	if string(b) != "the first frames" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestUpgrade_RefusesAnyOtherAnswer(t *testing.T) {
	protocol := "Sec-WebSocket-Protocol: " + wire.Subprotocol + "\n\n"
	for name, answer := range map[string]func(accept string) string{
		"another key": func(string) string { return switching + "Sec-WebSocket-Accept: AAAA\n" + protocol },
		"another protocol": func(a string) string {
			return switching + "Sec-WebSocket-Accept: " + a + "\nSec-WebSocket-Protocol: mqtt\n\n"
		},
		"no protocol": func(a string) string { return switching + "Sec-WebSocket-Accept: " + a + "\n\n" },
		"an extension": func(a string) string {
			return switching + "Sec-WebSocket-Accept: " + a + "\nSec-WebSocket-Extensions: permessage-deflate\n" + protocol
		},
		"no upgrade": func(string) string { return "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi" },
		"nothing":    func(string) string { return "" },
	} {
		if conn, err := answering(t, answer); err == nil {
			_ = conn.Close()
			t.Errorf("%s: accepted as an upgrade", name)
		}
	}
	_, err := answering(t, func(string) string {
		return fmt.Sprintf("HTTP/1.1 %d Unauthorized\nContent-Length: 9\n\nnot today", http.StatusUnauthorized)
	})
	if refused := new(refusedError); !errors.As(err, &refused) || refused.status != http.StatusUnauthorized || refused.message != "not today" {
		t.Errorf("refused with %v", err)
	}
}

func TestServerDialer_KeepsAnAddressThatRefuses(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]bool{}
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()] = true
		mu.Unlock()
		http.Error(w, "not now", http.StatusServiceUnavailable)
	})
	port := linetest.Port(linetest.Server(t, "127.0.0.1", 0, true, refuse))
	linetest.Server(t, "127.0.0.2", port, true, refuse)
	for name, dial := range map[string]func(*serverDialer) error{
		"link":                     func(d *serverDialer) error { _, err := d.link(t.Context(), "ticket", ""); return err },
		"data connection for UDP":  func(d *serverDialer) error { _, err := d.datagrams(t.Context(), "", "secret"); return err },
		"data connections for TCP": func(d *serverDialer) error { _, err := d.stream(t.Context(), "secret"); return err },
	} {
		clear(asked)
		d := newServerDialer(newConfig(Options{
			Dialer:   pacing.New().Dialer,
			Resolver: linetest.Resolver(t, "127.0.0.1", "127.0.0.2"),
			Limits:   Limits{DialTimeout: relaytest.Patience},
		}), net.JoinHostPort("relay.test", strconv.Itoa(port)), "")
		for _, c := range []*tls.Config{d.websocket.TLSClientConfig, d.http.TLSClientConfig, d.resuming.TLSClientConfig} {
			c.InsecureSkipVerify = true
		}
		for range 3 {
			if err := dial(d); !errors.As(err, new(*refusedError)) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(asked) != 1 {
			t.Errorf("%s: asked %v", name, asked)
		}
	}
}

func TestLink_SecondWelcomeIsRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		for _, m := range []wire.LinkMessage{
			{Type: wire.LinkWelcome, Secret: "one"},
			{Type: wire.LinkDial, Kind: wire.KindStream, Count: 20},
			{Type: wire.LinkWelcome, Secret: "another"},
		} {
			if err := ws.WriteJSON(m); err != nil {
				return
			}
		}
		_, _, _ = ws.ReadMessage()
	}))
	defer s.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws"+s.URL[len("http"):], nil)
	if err != nil {
		t.Fatal(err)
	}
	m := New(Options{Targets: target.NewDialer(target.Options{})})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := newLink(m.config, types.ClientServer{ID: uuid.New(), Address: s.Listener.Addr().String()}, cancel)
	l.remote = ws.RemoteAddr()
	c := channel.New(ws, channel.Options{})
	err = l.serve(ctx, c, func() {})
	c.Close(websocket.CloseNormalClosure, "")
	c.Wait()
	if !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("served until %v", err)
	}
}

// A cancelled request must not leave a handshake running, which would outlive the agent.
func TestUpgrade_DatagramsTakeWhatTheTunnelServerSupports(t *testing.T) {
	for name, test := range map[string]struct {
		server []string
		want   string // "": refused.
	}{
		"new":   {[]string{wire.SubprotocolSplit, wire.Subprotocol}, wire.SubprotocolSplit},
		"old":   {[]string{wire.Subprotocol}, wire.Subprotocol},
		"other": {[]string{"other.v1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				upgrader := websocket.Upgrader{Subprotocols: test.server}
				if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
					_ = ws.Close()
				}
			}))
			defer s.Close()
			d := newTestDialer(s.Listener.Addr().String(), relaytest.Patience)
			d.websocket.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			d.websocket.TLSClientConfig.NextProtos = nil
			ws, err := d.datagrams(t.Context(), "S", "secret")
			if (err == nil) != (test.want != "") {
				t.Fatalf("dialled with %v", err)
			}
			if err != nil {
				return
			}
			defer ws.Close()
			if got := ws.Subprotocol(); got != test.want {
				t.Errorf("subprotocol %q, want %q", got, test.want)
			}
		})
	}
}

func TestUpgrade_UnansweredHandshakeEnds(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ended := make(chan error, 1)
	go func() {
		c, err := silent.Accept()
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
			_, err = io.Copy(io.Discard, c)
			_ = c.Close()
		}
		ended <- err
	}()
	d := newTestDialer(silent.Addr().String(), 100*time.Millisecond)
	if _, err := d.stream(t.Context(), "secret"); err == nil {
		t.Error("opened")
	}
	if err := <-ended; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the handshake goes on")
	}
}
