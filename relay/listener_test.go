package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestLink_OnlyAGoodTicketOpensOne(t *testing.T) {
	p, s, client, _ := start(t, nil)
	hour := time.Hour
	good := relaytest.Claims{
		"iss": "eclitunnel", "aud": p.Server.String(), "sub": client.String(), "use": "ticket", "ver": 1,
		"exp": time.Now().Add(hour).Unix(),
	}
	unsigned := func() string {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
		data, _ := json.Marshal(good)
		return header + "." + base64.RawURLEncoding.EncodeToString(data) + "."
	}
	unknown := relaytest.NewPanel(t)
	unknown.Server = p.Server
	for name, ticket := range map[string]string{
		"nothing":             "",
		"garbage":             "a.b.c",
		"another panel's":     unknown.Ticket(client, 1, nil),
		"expired":             p.Ticket(client, 1, relaytest.Claims{"exp": time.Now().Add(-hour).Unix()}),
		"without expiry":      p.Ticket(client, 1, relaytest.Claims{"exp": nil}),
		"another issuer":      p.Ticket(client, 1, relaytest.Claims{"iss": "someone"}),
		"another server's":    p.Ticket(client, 1, relaytest.Claims{"aud": uuid.NewString()}),
		"a device token":      p.Ticket(client, 1, relaytest.Claims{"aud": "device", "use": nil}),
		"another use":         p.Ticket(client, 1, relaytest.Claims{"use": "session"}),
		"another version":     p.Ticket(client, 2, nil),
		"without version":     p.Ticket(client, 1, relaytest.Claims{"ver": nil}),
		"version as text":     p.Ticket(client, 1, relaytest.Claims{"ver": "1"}),
		"an unknown client":   p.Ticket(uuid.New(), 1, nil),
		"without client":      p.Ticket(client, 1, relaytest.Claims{"sub": nil}),
		"unsigned":            unsigned(),
		"of another key id":   p.Sign(relaytest.Claims{"alg": "EdDSA", "kid": "other"}, good),
		"of another alg":      p.Sign(relaytest.Claims{"alg": "HS256", "kid": "relaytest"}, good),
		"oversized":           strings.Repeat("x", 64<<10),
		"with a changed body": strings.Replace(p.Ticket(client, 1, nil), ".", ".e30", 1),
	} {
		ws, status, err := dial(s, wire.PathLink, ticket)
		if err == nil {
			_ = ws.Close()
			t.Errorf("%s: linked", name)
			continue
		}
		want := http.StatusUnauthorized
		if name == "oversized" {
			want = http.StatusRequestHeaderFieldsTooLarge
		}
		if status != want {
			t.Errorf("%s: %d (%v), want %d", name, status, err, want)
		}
	}
	openLink(t, p, s, client, 1)
}

// onLog calls itself with every message that is logged.
type onLog func(message string)

func (onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f onLog) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f onLog) WithGroup(string) slog.Handler      { return f }

func TestLink_IsWelcomedBeforePlayersWhoWaitAskAnythingOfIt(t *testing.T) {
	port := relaytest.FreePort(t)
	player, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	running := make(chan *relaytest.Server, 1)
	p, s, client, _ := start(t, func(o *relay.Options) {
		o.Logger = slog.New(onLog(func(message string) {
			if message != "tunnel client linked" {
				return
			}
			// In this very moment a datagram comes for the tunnel client.
			if _, err := player.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			(<-running).AwaitStats(t, "a flow", func(s relay.Stats) bool { return s.FlowsOpened == 1 })
		}))
	})
	running <- s
	p.Put(relaytest.Allocation(2, client, types.ProtocolUDP, port))
	p.AwaitReport(2, types.ReportReady)
	l := openLink(t, p, s, client, 1)
	if m := l.next(wire.LinkDial); m.Kind != wire.KindDatagram {
		t.Errorf("asked for %q", m.Kind)
	}
}

func TestLink_TicketAheadOfTheDesiredStateWaitsForIt(t *testing.T) {
	p, s, client, _ := start(t, nil)
	unknown := uuid.New()
	for name, tc := range map[string]struct {
		client  uuid.UUID
		version int64
	}{"an unknown client": {unknown, 1}, "a newer token": {client, 2}} {
		linked := make(chan error, 1)
		go func() {
			ws, status, err := dial(s, wire.PathLink, p.Ticket(tc.client, tc.version, nil))
			if err == nil {
				_ = ws.Close()
			} else {
				err = fmt.Errorf("%d: %w", status, err)
			}
			linked <- err
		}()
		p.PutClient(tc.client, tc.version)
		if err := <-linked; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLink_TicketOutlivesThePanel(t *testing.T) {
	now := time.Now()
	p, s, client, _ := start(t, func(o *relay.Options) { o.Now = func() time.Time { return now } })
	ticket := p.Ticket(client, 1, relaytest.Claims{"exp": now.Add(24 * time.Hour).Unix()})
	p.Disconnect(channel.CloseRestarting, errTest)
	p.AwaitDisconnected()
	now = now.Add(23 * time.Hour)
	ws, _, err := dial(s, wire.PathLink, ticket)
	if err != nil {
		t.Fatal(err)
	}
	_ = ws.Close()
	now = now.Add(2 * time.Hour)
	if ws, _, err := dial(s, wire.PathLink, ticket); err == nil {
		_ = ws.Close()
		t.Error("linked with an expired ticket")
	}
}

func TestLink_ClosesSayWhy(t *testing.T) {
	p, s, client, _ := start(t, nil)
	first := openLink(t, p, s, client, 1)
	second := openLink(t, p, s, client, 1)
	if code := first.closeCode(); code != channel.CloseTakenOver {
		t.Errorf("a newer link: closed with %d", code)
	}
	p.PutClient(client, 2)
	if code := second.closeCode(); code != channel.CloseTokenDead {
		t.Errorf("a newer token: closed with %d", code)
	}
	third := openLink(t, p, s, client, 2)
	p.Disconnect(channel.CloseFeatureOff, channel.ErrFeatureOff)
	if code := third.closeCode(); code != channel.CloseFeatureOff {
		t.Errorf("the feature is off: closed with %d", code)
	}
	_, status, err := dial(s, wire.PathLink, p.Ticket(client, 2, nil))
	if status != http.StatusServiceUnavailable {
		t.Errorf("the feature is off: %d, %v", status, err)
	}
	p.Reconnect()
	p.AwaitHellos(2)
	var fourth *link
	for deadline := time.Now().Add(relaytest.Patience); fourth == nil; time.Sleep(time.Millisecond) {
		if ws, _, err := dial(s, wire.PathLink, p.Ticket(client, 2, nil)); err == nil {
			fourth = &link{t: t, server: s, ws: ws}
			defer ws.Close()
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	p.RemoveClient(client)
	if code := fourth.closeCode(); code != channel.CloseDeleted {
		t.Errorf("deleted: closed with %d", code)
	}
}

func TestLink_SilentOneIsGivenUp(t *testing.T) {
	p, s, client, port := start(t, func(o *relay.Options) {
		o.Channel = channel.Options{PingInterval: 20 * time.Millisecond, Deadline: 100 * time.Millisecond}
	})
	openLink(t, p, s, client, 1) // It answers no ping: nothing reads it.
	s.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 })
	wantRefusal(t, port)
}

func TestData_OnlyTheLinksSecretOpensOne(t *testing.T) {
	p, s, client, _ := start(t, nil)
	l := openLink(t, p, s, client, 1)
	for _, secret := range []string{"", "guess", p.Ticket(client, 1, nil)} {
		ws, status, err := dial(s, wire.PathData+"?kind=stream", secret)
		if err == nil {
			_ = ws.Close()
		}
		if status != http.StatusUnauthorized {
			t.Errorf("secret %.10q: %d (%v)", secret, status, err)
		}
	}
	if _, status, err := l.data("pigeon"); status != http.StatusBadRequest {
		t.Errorf("kind pigeon: %d, %v", status, err)
	}
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.ws.Close()
	if _, _, err := ws.ReadMessage(); err == nil {
		t.Error("a data connection outlives its link")
	}
	s.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 })
	if _, status, err := l.data(wire.KindStream); status != http.StatusUnauthorized {
		t.Errorf("the secret of a dead link: %d, %v", status, err)
	}
}

func TestData_ConnectionsAreLimited(t *testing.T) {
	p, s, client, _ := start(t, func(o *relay.Options) { o.Limits.DataConnections = 2 })
	l := openLink(t, p, s, client, 1)
	for i := range 3 {
		_, status, err := l.data(wire.KindStream)
		if full := i == 2; full != (err != nil) || full && status != http.StatusServiceUnavailable {
			t.Errorf("data connection %d: %d, %v", i+1, status, err)
		}
	}
}

func TestListener_LinksAreLimited(t *testing.T) {
	p, s, client, _ := start(t, func(o *relay.Options) { o.Limits.Links = 1 })
	openLink(t, p, s, client, 1)
	other := uuid.New()
	p.PutClient(other, 1)
	for deadline := time.Now().Add(relaytest.Patience); ; time.Sleep(time.Millisecond) {
		_, status, err := dial(s, wire.PathLink, p.Ticket(other, 1, nil))
		if err == nil {
			t.Fatal("linked beyond the limit")
		}
		if status == http.StatusServiceUnavailable {
			return
		}
		if time.Now().After(deadline) { // Until then, the client is not known yet.
			t.Fatal(err)
		}
	}
}

func TestListener_UnauthenticatedConnectionsAreLimitedInNumberAndTime(t *testing.T) {
	p, s, client, _ := start(t, func(o *relay.Options) {
		o.Limits.Unauthenticated, o.Limits.Handshake = 8, 300*time.Millisecond
	})
	var open []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	// All are closed: those beyond the limit at once, the others in time.
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
		if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
			t.Fatal("a silent connection stays open")
		}
	}
	openLink(t, p, s, client, 1)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestListener_BearsGarbage(t *testing.T) {
	p, s, client, _ := start(t, func(o *relay.Options) { o.Limits.Handshake = time.Second })
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	endlessHeader := "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20)
	for name, garbage := range map[string][]byte{
		"noise": noise, "plain HTTP": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "zeros": make([]byte, 1<<20),
	} {
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(garbage)
		drain(t, name, c)
	}
	for name, request := range map[string]string{
		"endless header": endlessHeader, "noise": string(noise), "slow": "GET / HT",
		"no upgrade": "GET " + wire.PathLink + " HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: " + wire.Subprotocol + "\r\n\r\n",
		"other path": "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
		"post":       "POST " + wire.PathLink + " HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
		"older":      "GET " + wire.PathLink + " HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: eclitunnel.v0\r\n\r\n",
	} {
		c, err := tls.Dial("tcp", s.Address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, request)
		drain(t, name, c)
	}
	openLink(t, p, s, client, 1)
}

// drain reads a connection to its end, which must come soon.
func drain(t *testing.T, name string, c net.Conn) {
	t.Helper()
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
	if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
		t.Errorf("%s: the connection stays open", name)
	}
}

func TestLink_BadMessagesEndItAlone(t *testing.T) {
	p, s, client, port := start(t, nil)
	for name, message := range map[string]struct {
		kind int
		data []byte
	}{
		"not JSON":  {websocket.TextMessage, []byte("{")},
		"binary":    {websocket.BinaryMessage, []byte("{}")},
		"oversized": {websocket.TextMessage, bytes.Repeat([]byte(" "), wire.MaxLinkMessage+1)},
	} {
		l := openLink(t, p, s, client, 1)
		_ = l.ws.WriteMessage(message.kind, message.data)
		s.AwaitStats(t, fmt.Sprintf("the end of a link with a message that is %s", name), func(s relay.Stats) bool { return s.Links == 0 })
	}
	l := openLink(t, p, s, client, 1)
	_ = l.ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"of a later version"}`))
	join(t, port)
	l.next(wire.LinkDial)
}

func TestData_BadFramesEndThatConnectionAlone(t *testing.T) {
	p, s, client, port := start(t, nil)
	p.Put(relaytest.Allocation(2, client, types.ProtocolUDP, port))
	p.AwaitReport(2, types.ReportReady)
	l := openLink(t, p, s, client, 1)
	if _, status, _ := l.data(wire.KindDatagram); status != http.StatusNotFound {
		t.Errorf("a data connection of no UDP session is answered %d", status)
	}
	player, err := net.Dial("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	if _, err := player.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	session := l.next(wire.LinkDial).Session
	for _, kind := range []wire.Kind{wire.KindStream, wire.KindDatagram} {
		ws, _, err := l.sessionData(kind, session)
		if err != nil {
			t.Fatal(err)
		}
		_ = ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
		_ = ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
		for err == nil {
			_, _, err = ws.ReadMessage() // What waited for it comes first.
		}
		if isTimeout(err) {
			t.Errorf("%s: %v after an oversized message", kind, err)
		}
	}
	join(t, port)
	l.next(wire.LinkDial)
}
