package agent

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// present tells an agent that stands by, for each value, whether another one is
// connected.
func (p *panel) present(t *testing.T, online ...bool) {
	t.Helper()
	for _, online := range online {
		select {
		case p.devices <- types.Device{
			Kind: types.DeviceKindClient, Online: online, LastSeenAt: nullable.NewNullableWithValue(time.Unix(1, 0)),
		}:
		case c := <-p.channels:
			t.Fatalf("it connects while another agent is there: %+v", next(t, c.received, "hello"))
		case <-time.After(timeout):
			t.Fatal("it does not ask for its device")
		}
	}
}

// returned returns the control channel with which an agent ends its standby.
func (p *panel) returned(t *testing.T) *panelChannel {
	t.Helper()
	c := next(t, p.channels, "a control channel after the standby")
	if hello, ok := next(t, c.received, "hello").(types.Hello); !ok || hello.IfOffline == nil || !*hello.IfOffline {
		t.Errorf("returns with the hello %+v", hello)
	}
	return c
}

func TestAgent_StandsByForANewerOneAndReturns(t *testing.T) {
	for name, takeOver := range map[string]func(*running, *panelChannel){
		"by its control channel": func(_ *running, c *panelChannel) { c.Close(channel.CloseTakenOver, "why") },
		"by a link": func(r *running, _ *panelChannel) {
			r.links.final <- &channel.FinalError{Code: channel.CloseTakenOver, Reason: "why"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			r := startAt(t, newPanel(t), func(o *Options) { o.StateFile = file })
			c := r.channel(t)
			c.send(t, snapshot(1, 1))
			wantIDs(t, r.appliedIDs(t), 1)
			r.links.report(readyReport(1))
			c.status(t)
			takeOver(r, c)
			if e := r.event(t, EventStandby); e.Reason != "why" {
				t.Errorf("event %+v", e)
			}
			wantIDs(t, r.appliedIDs(t))
			r.event(t, EventAllocationClosed)
			r.present(t, true, false, true, false, false)
			c = r.returned(t)
			c.send(t, snapshot(1, 1))
			r.event(t, EventConnected)
			wantIDs(t, r.appliedIDs(t), 1)
			r.stop()
			<-r.done
			if !exists(t, file) {
				t.Error("the state is not kept")
			}
		})
	}
}

func TestAgent_StopsInStandbyWhenItIsDeleted(t *testing.T) {
	for code, refusal := range map[int]types.ErrorCode{channel.CloseTokenDead: types.CodeTokenRevoked, channel.CloseDeleted: types.CodeDeviceDeleted} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			r := startAt(t, newPanel(t), func(o *Options) { o.StateFile = file })
			c := r.channel(t)
			c.send(t, snapshot(1, 1))
			c.Close(channel.CloseTakenOver, "why")
			r.event(t, EventStandby)
			r.refuse <- types.Problem{Error: refusal, Message: "why"}
			wantFinal(t, next(t, r.result, "the end"), code)
			if exists(t, file) {
				t.Error("the state is kept")
			}
		})
	}
}

func TestTunnelServer_StandsByForANewerOneAndReturns(t *testing.T) {
	p := newPanel(t)
	o := p.options(t, t.TempDir())
	s := serveAt(t, p, o)
	c, hello := s.channel(t)
	port := relaytest.FreePort(t)
	c.send(t, bindings(port))
	c.status(t)
	c.Close(channel.CloseTakenOver, "why")
	if e := s.event(t, EventStandby); e.Reason != "why" || open(port) {
		t.Errorf("event %+v, and its port is open: %v", e, open(port))
	}
	p.present(t, true, false, false)
	c = p.returned(t)
	c.send(t, bindings(port))
	s.event(t, EventConnected)
	if report := c.status(t); report.Allocations[0] != readyReport(1) || !open(port) {
		t.Errorf("report %+v", report)
	}
	c.Close(channel.CloseRestarting, "")
	if _, again := s.channel(t); *again.Relay != *hello.Relay {
		t.Errorf("endpoint %+v, then %+v", hello.Relay, again.Relay)
	}
	s.stop()
	if !exists(t, o.StateFile) {
		t.Error("the state is not kept")
	}
}
