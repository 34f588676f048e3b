package relay_test

import (
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestLink_TicketOfAPanelWhoseClockIsAheadOpensOne(t *testing.T) {
	p, s, client, _ := start(t, nil)
	for name, later := range map[string]time.Duration{"iat": time.Hour, "nbf": 30 * time.Second} {
		ws, _, err := dial(s, wire.PathLink, p.Ticket(client, 1, relaytest.Claims{name: time.Now().Add(later).Unix()}))
		if err != nil {
			t.Errorf("%s in the future: %v", name, err)
			continue
		}
		_ = ws.Close()
	}
	for name, bad := range map[string]time.Duration{"exp": -2 * time.Minute, "nbf": time.Hour} {
		ws, _, err := dial(s, wire.PathLink, p.Ticket(client, 1, relaytest.Claims{name: time.Now().Add(bad).Unix()}))
		if err == nil {
			_ = ws.Close()
			t.Errorf("%s by %v: linked", name, bad)
		}
	}
}
