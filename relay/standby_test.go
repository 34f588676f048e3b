package relay_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// presence is an answer to a tunnel server that stands by.
type presence struct {
	online bool
	err    error
}

func TestServer_StandsByAndReturns(t *testing.T) {
	k, answers, begun := make(kept, 16), make(chan presence), make(chan string, 4)
	p, s, client, port := start(t, func(o *relay.Options) {
		k.options(o)
		o.Standby = controlclient.Standby{
			Presence: func(ctx context.Context) (controlclient.Presence, error) {
				select {
				case a := <-answers:
					return controlclient.Presence{Online: a.online}, a.err
				case <-ctx.Done():
					return controlclient.Presence{}, ctx.Err()
				}
			},
			Begin:        func(reason string) { begun <- reason },
			StandbyTimes: controlclient.StandbyTimes{Poll: time.Millisecond, Grace: time.Nanosecond},
		}
	})
	k.until(t, func(m *types.ServerSnapshot) bool { return len(m.Allocations) == 1 })
	l := openLink(t, p, s, client, 1)
	fingerprint := s.Fingerprint()
	p.Disconnect(channel.CloseTakenOver, errTest) // And dials are refused until Reconnect.
	<-begun
	if !refused(port) {
		t.Error("the public port is open")
	}
	if _, _, err := l.data(wire.KindStream); err == nil {
		t.Error("the link is open")
	}
	if _, _, err := dial(s, wire.PathLink, p.Ticket(client, 1, nil)); err == nil {
		t.Error("a tunnel client is accepted")
	}
	answers <- presence{online: true}
	answers <- presence{err: errors.New("away")}
	if len(k) > 0 {
		t.Errorf("kept %+v", k.next(t))
	}
	// Switched off meanwhile, it would not be served after a start without the panel.
	for range 2 {
		answers <- presence{err: channel.ErrFeatureOff}
	}
	if m := k.next(t); m != nil || len(k) > 0 {
		t.Errorf("kept %+v", m)
	}
	p.Reconnect()
	answers <- presence{}
	answers <- presence{}
	if hello := p.AwaitHellos(2); hello.IfOffline == nil || hello.Relay.Fingerprint != fingerprint {
		t.Errorf("hello %+v", hello)
	}
	p.AwaitReport(1, types.ReportReady)
	k.until(t, func(m *types.ServerSnapshot) bool { return m != nil && len(m.Allocations) == 1 })
	l = openLink(t, p, s, client, 1)
	join(t, port)
	l.next(wire.LinkDial)
}
