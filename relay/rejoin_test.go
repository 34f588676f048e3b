package relay_test

import (
	"net"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// wantServed carries a player's bytes to the end of a data connection that a test holds.
func wantServed(t *testing.T, ws *websocket.Conn, player net.Conn) {
	t.Helper()
	_, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if open, err := wire.DecodeControl(text); err != nil || open.Source.String() != player.LocalAddr().String() {
		t.Errorf("opened with %s, want player %s", text, player.LocalAddr())
	}
	_, _ = player.Write([]byte("hello"))
	if _, data, err := ws.ReadMessage(); err != nil || string(data) != "hello" {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestServer_AsksAgainForAPlayerWhoseDataConnectionDoesNotCome(t *testing.T) {
	p, s, client, port := start(t, nil)
	l := openLink(t, p, s, client, 1)
	first := join(t, port)
	began := time.Now()
	l.next(wire.LinkDial) // It is lost.
	l.next(wire.LinkDial)
	if took := time.Since(began); took > relaytest.Patience/2 {
		t.Errorf("asked again after %v", took)
	}
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	wantServed(t, ws, first)

	// What was lost for one player does not count for another.
	second := join(t, port)
	l.next(wire.LinkDial)
	if ws, _, err = l.data(wire.KindStream); err != nil {
		t.Fatal(err)
	}
	wantServed(t, ws, second)
}

func TestServer_TheNextLinkServesPlayersWhoWait(t *testing.T) {
	p, s, client, port := start(t, nil)
	before := openLink(t, p, s, client, 1)
	player := join(t, port)
	before.next(wire.LinkDial)
	l := openLink(t, p, s, client, 1)
	l.next(wire.LinkDial)
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	wantServed(t, ws, player)
}

func TestServer_AsksAgainForTheDataConnectionOfAUDPSession(t *testing.T) {
	s, l, player := startUDP(t)
	began := time.Now()
	lost := l.next(wire.LinkDial)
	again := l.next(wire.LinkDial)
	if took := time.Since(began); took > relaytest.Patience/2 || again.Session != lost.Session || again.Kind != wire.KindDatagram {
		t.Errorf("asked for %+v after %v, and before for %+v", again, took, lost)
	}
	// The client never learns of the first one, whose answer is lost, and opens another.
	if _, _, err := l.sessionData(wire.KindDatagram, again.Session); err != nil {
		t.Fatal(err)
	}
	s.AwaitStats(t, "the data connection", func(s relay.Stats) bool { return s.DataConnections == 1 })
	ws, _, err := l.sessionData(wire.KindDatagram, again.Session)
	if err != nil {
		t.Fatal(err)
	}
	s.AwaitStats(t, "the end of the first", func(s relay.Stats) bool { return s.DataConnections == 1 && s.Handshakes == 2 })
	_, _ = player.Write([]byte("again"))
	_ = ws.SetReadDeadline(time.Now().Add(relaytest.Patience))
	_, batch, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	for len(batch) > 0 {
		var r wire.Record
		if r, batch, err = wire.NextRecord(batch); err != nil {
			t.Fatal(err)
		}
		if r.Kind == wire.RecordDatagram && string(r.Payload) == "again" {
			return
		}
	}
	t.Error("the second data connection does not carry the datagram")
}
