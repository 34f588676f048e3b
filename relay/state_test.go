package relay_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/session"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// kept records what a tunnel server has kept for it, as if on a disk.
type kept chan []byte

func (k kept) options(o *relay.Options) {
	o.Keep = func(m *types.ServerSnapshot) {
		data, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		k <- data
	}
}

// next returns what is kept next; nil where that is nothing.
func (k kept) next(t *testing.T) *types.ServerSnapshot {
	t.Helper()
	select {
	case data := <-k:
		var m *types.ServerSnapshot
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		return m
	case <-time.After(relaytest.Patience):
		t.Fatal("nothing is kept")
		return nil
	}
}

// until returns what is kept once it fulfils a condition.
func (k kept) until(t *testing.T, met func(*types.ServerSnapshot) bool) *types.ServerSnapshot {
	t.Helper()
	for {
		if m := k.next(t); met(m) {
			return m
		}
	}
}

func TestServer_KeepsWhatIsToBeServed(t *testing.T) {
	k := make(kept, 16)
	p, _, client, port := start(t, k.options)
	last := k.until(t, func(m *types.ServerSnapshot) bool { return len(m.Allocations) == 1 })
	if last.Allocations[0].Port != port || len(last.Clients) != 1 || last.Clients[0].ID != client || len(last.Keys.Keys) != 1 {
		t.Errorf("kept %+v", last)
	}
	p.RemoveClient(client)
	if last := k.next(t); len(last.Clients) != 0 || len(last.Allocations) != 1 || len(last.Keys.Keys) != 1 {
		t.Errorf("kept %+v after a change", last)
	}
}

func TestServer_ServesItsLastStateWithoutThePanel(t *testing.T) {
	k := make(kept, 16)
	p, s, client, port := start(t, k.options)
	last := k.until(t, func(m *types.ServerSnapshot) bool { return len(m.Allocations) == 1 })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	p.Disconnect(channel.CloseRestarting, errTest)
	again := relaytest.Start(t, p, func(o *relay.Options) {
		k.options(o)
		o.Last = last
	})
	l := openLink(t, p, again, client, 1)
	player := join(t, port)
	if m := l.next(wire.LinkDial); m.Kind != wire.KindStream {
		t.Fatalf("asked for %+v", m)
	}
	if _, _, err := dial(again, wire.PathLink, p.Ticket(client, 0, nil)); err == nil {
		t.Error("a ticket of another version is taken")
	}
	// The panel's return changes nothing that it still wants.
	p.Reconnect()
	p.AwaitReport(1, types.ReportReady)
	ws, _, err := l.data(wire.KindStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := player.Read(make([]byte, 1)); err != nil {
		t.Errorf("the player who joined meanwhile: %v", err)
	}
}

func TestServer_KeepsNothingThatIsOverForGood(t *testing.T) {
	for name, end := range map[string]struct {
		code    int
		refusal error
		forgets bool
	}{
		"switched off":         {channel.CloseFeatureOff, channel.ErrFeatureOff, true},
		"refused: off":         {channel.CloseRestarting, channel.ErrFeatureOff, true},
		"token dead":           {channel.CloseTokenDead, errTest, true},
		"deleted":              {channel.CloseDeleted, errTest, true},
		"refused: dead":        {channel.CloseRestarting, &channel.FinalError{Code: channel.CloseTokenDead}, true},
		"taken over":           {channel.CloseTakenOver, errTest, false},
		"the panel restarting": {channel.CloseRestarting, errTest, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := make(kept, 16)
			p, s, _, port := start(t, k.options)
			k.until(t, func(m *types.ServerSnapshot) bool { return len(m.Allocations) == 1 })
			p.Disconnect(end.code, end.refusal)
			if end.forgets {
				if m := k.next(t); m != nil {
					t.Errorf("kept %+v", m)
				}
				return
			}
			p.AwaitDisconnected()
			if end.code == channel.CloseRestarting && refused(port) {
				t.Error("the port is closed")
			}
			_ = s.Stop()
			if len(k) > 0 {
				t.Errorf("kept %+v", k.next(t))
			}
		})
	}
}

func TestServer_MalformedStateIsIgnored(t *testing.T) {
	p := relaytest.NewPanel(t)
	relaytest.Start(t, p, func(o *relay.Options) {
		o.Last = &types.ServerSnapshot{Allocations: []types.ServerAllocation{{ID: 1, Port: 70000, Protocol: "tcp"}}}
	})
	p.AwaitHellos(1)
}

// shownKey is the fingerprint of the key that a tunnel server shows.
func shownKey(t *testing.T, s *relaytest.Server) string {
	t.Helper()
	c, err := tls.Dial("tcp", s.Address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	c, err := session.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServer_AnotherKeyIsServedOnceThePanelKnowsIt(t *testing.T) {
	p, s, client, _ := start(t, nil)
	l := openLink(t, p, s, client, 1)
	before := s.Fingerprint()
	p.Disconnect(channel.CloseRestarting, errTest)
	p.AwaitDisconnected()
	if err := s.Renew(selfSigned(t)); err != nil {
		t.Fatal(err)
	}
	if shownKey(t, s) != before {
		t.Error("another key is shown while tunnel clients cannot know it")
	}
	p.Reconnect()
	announced := p.AwaitHellos(2).Relay.Fingerprint
	p.AwaitReport(1, types.ReportReady)
	s.AwaitFingerprint(t, announced)
	if announced == before || shownKey(t, s) != announced {
		t.Error("the key that was announced is not shown")
	}

	// With the panel there, it is told at once.
	if err := s.Renew(selfSigned(t)); err != nil {
		t.Fatal(err)
	}
	if third := p.AwaitHellos(3).Relay.Fingerprint; third == announced {
		t.Error("the key before is announced again")
	}
	// Links outlive all of it.
	if ws, _, err := l.data(wire.KindStream); err != nil {
		t.Error(err)
	} else {
		_ = ws.Close()
	}
}

func TestServer_KeyRenewedWhileAChangeIsMadeRealIsAnnounced(t *testing.T) {
	var s atomic.Pointer[relaytest.Server]
	next := selfSigned(t)
	p := relaytest.NewPanel(t)
	s.Store(relaytest.Start(t, p, func(o *relay.Options) {
		o.Keep = func(m *types.ServerSnapshot) {
			if len(m.Clients) == 1 {
				if err := s.Load().Renew(next); err != nil {
					t.Error(err)
				}
			}
		}
	}))
	before := p.AwaitHellos(1).Relay.Fingerprint
	p.PutClient(uuid.New(), 1)
	if after := p.AwaitHellos(2).Relay.Fingerprint; after == before {
		t.Error("the key before is announced again")
	}
}

func TestServer_CertificateForTheSameKeyIsServedAtOnce(t *testing.T) {
	first := selfSigned(t)
	p, s, _, _ := start(t, func(o *relay.Options) { o.Certificate = &first })
	second := first
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "renewed"}}
	key := first.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	second.Certificate = [][]byte{der}
	if err := s.Renew(second); err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", s.Address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if name := c.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "renewed" {
		t.Errorf("the certificate of %q is shown", name)
	}
	if shownKey(t, s) != p.AwaitHellos(1).Relay.Fingerprint {
		t.Error("another key is shown")
	}
	if err := s.Renew(tls.Certificate{}); err == nil {
		t.Error("an empty certificate, and no error")
	}
}

func TestServer_ReportsTheStateOfItsChannel(t *testing.T) {
	events := make(chan error, 64)
	p, _, _, _ := start(t, func(o *relay.Options) { o.OnChannel = func(err error, _ time.Duration) { events <- err } })
	if err := <-events; err != nil {
		t.Errorf("the first event is %v", err)
	}
	p.Disconnect(channel.CloseRestarting, nil)
	if err := <-events; !websocket.IsCloseError(err, channel.CloseRestarting) {
		t.Errorf("the end is reported as %v", err)
	}
	for err := range events {
		if err == nil {
			return
		}
	}
}
