package controlclient_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

func TestClient_AppliesSnapshotAndChanges(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.snapshot(7, 1, 2)
	d.want(t, 1, 2)
	p.change(8, []int64{3}, []int64{1})
	d.want(t, 2, 3)
	p.change(9, nil, []int64{2})
	d.want(t, 3)
}

func TestClient_ConnectsWithTheFirstSnapshot(t *testing.T) {
	order := make(chan string, 16)
	d := run(t, func(d *device, o *options) {
		on, apply := o.OnChannel, o.Apply
		o.OnChannel = func(err error, retry time.Duration) {
			order <- fmt.Sprintf("channel: %v", err)
			on(err, retry)
		}
		o.Apply = func(s state) {
			order <- "apply"
			apply(s)
		}
	})
	p := d.next(t)
	if d.Connected() || d.Channels() != 0 {
		t.Error("connected before the snapshot")
	}
	p.snapshot(1)
	p.snapshot(2)
	d.want(t)
	d.want(t)
	for _, want := range []string{"channel: <nil>", "apply", "apply"} {
		if got := await.Receive(t, order, "callback"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !d.Connected() || d.Channels() != 1 {
		t.Errorf("connected %v, %d channels", d.Connected(), d.Channels())
	}
}

func TestClient_GapAsksOnceForASnapshot(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
	p.change(3, []int64{3}, nil)
	p.change(4, []int64{4}, nil)
	if m := p.next(); m != (types.ResyncRequest{Type: types.TypeResync}) {
		t.Fatalf("got %#v, want a resync", m)
	}
	d.is(ready(1))
	p.snapshot(5, 1, 2)
	d.want(t, 1, 2)
	wantReport(t, p, 5, 1) // And no second resync before.
	p.change(6, []int64{1, 6}, nil)
	d.want(t, 1, 2, 6)
	wantReport(t, p, 6, 1)
}

func TestClient_ChangeBeforeTheSnapshotIsLeftOut(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.change(1, []int64{9}, nil)
	p.snapshot(2, 1)
	d.want(t, 1)
}

func TestClient_MessagesForOthersAreSkipped(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.send(map[string]any{"type": "server.greeting", "text": "of a later panel"})
	p.send(map[string]any{"type": "client.snapshot", "allocations": "not even well formed"})
	p.send(types.ClientChange{Type: types.TypeClientChange, Revision: 1})
	p.send(types.Hello{Type: types.TypeHello})
	p.snapshot(1, 1)
	d.want(t, 1)
	for _, kind := range []string{"server.greeting", "client.snapshot", "client.change", "hello"} {
		if d.log.Count("type="+kind) == 0 {
			t.Errorf("%s is not logged", kind)
		}
	}
}

func TestClient_BadMessageEndsTheChannelOnly(t *testing.T) {
	d := run(t, nil)
	for name, send := range map[string]func(*panel){
		"no object":            func(p *panel) { p.send("text") },
		"no snapshot":          func(p *panel) { p.send(map[string]any{"type": "server.snapshot", "revision": "one"}) },
		"refused by the owner": func(p *panel) { p.snapshot(-1) },
	} {
		p := d.next(t)
		send(p)
		if err := await.Receive(t, d.ends, "end of the channel"); err == nil {
			t.Errorf("%s: connected", name)
		}
		_ = await.Receive(t, p.ended, "the panel's end")
	}
	p := d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
	if err := await.Receive(t, d.ends, "connection"); err != nil {
		t.Error(err)
	}
	p.change(2, []int64{-1}, nil)
	if err := await.Receive(t, d.ends, "end of the channel"); err == nil {
		t.Error("a change that the owner refuses does not end the channel")
	}
}

func TestClient_SwitchedOffByCloseCodeAndByRefusal(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.snapshot(1)
	d.want(t)
	p.Close(channel.CloseRestarting, "")
	p = d.next(t)
	select {
	case <-d.off:
		t.Error("switched off by a restart of the panel")
	default:
	}
	d.refusals <- fmt.Errorf("refused: %w", channel.ErrFeatureOff)
	p.Close(channel.CloseFeatureOff, "off")
	await.Receive(t, d.off, "call for the close code")
	await.Receive(t, d.off, "call for the refusal")
	p = d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
}

func TestClient_FinalErrorsEndRun(t *testing.T) {
	for code, revoked := range map[int]bool{channel.CloseTokenDead: true, channel.CloseDeleted: true, channel.CloseTakenOver: false} {
		d := run(t, nil)
		d.next(t).Close(code, "why")
		err := await.Receive(t, d.result, "end of Run")
		var final *channel.FinalError
		if !errors.As(err, &final) || final.Code != code || final.Reason != "why" || controlclient.Revoked(err) != revoked {
			t.Errorf("%d: ended with %v, revoked %v", code, err, controlclient.Revoked(err))
		}
	}
	d := run(t, nil)
	p := d.next(t)
	d.refusals <- &channel.FinalError{Code: channel.CloseDeleted}
	p.Close(channel.CloseRestarting, "")
	if err := await.Receive(t, d.result, "end of Run"); !controlclient.Revoked(err) {
		t.Errorf("ended with %v after a refusal", err)
	}
	if controlclient.Revoked(nil) {
		t.Error("no error is a revocation")
	}
}

func TestClient_StopsCleanly(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.snapshot(1)
	d.want(t)
	d.stop()
	if err := await.Receive(t, d.result, "end of Run"); err != nil {
		t.Error(err)
	}
	if err := await.Receive(t, p.ended, "the panel's end"); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the panel received %v", err)
	}
	if d.Connected() {
		t.Error("connected after Run")
	}
}

func TestClient_ReconnectBringsAnotherHello(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
	d.Reconnect("another key")
	var closed *websocket.CloseError
	if err := await.Receive(t, p.ended, "the panel's end"); !errors.As(err, &closed) || closed.Text != "another key" {
		t.Errorf("the panel received %v", err)
	}
	d.next(t)
}

// What a hello is made of may change at any time. Reconnect must end every channel
// whose hello does not include it.
func TestClient_ReconnectFindsAChannelFromItsHelloOn(t *testing.T) {
	var d *device
	hellos := 0
	d = run(t, func(made *device, o *options) {
		hello, apply := o.Hello, o.Apply
		o.Hello = func() types.Hello {
			if hellos++; hellos == 1 {
				made.Reconnect("while the hello is made")
			}
			return hello()
		}
		o.Apply = func(s state) {
			apply(s)
			if len(s) == 2 {
				made.Reconnect("while a state is applied")
			}
		}
	})
	_ = await.Receive(t, await.Receive(t, d.channels, "first channel").ended, "end of the first channel")
	p := d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
	p.change(2, []int64{2}, nil)
	d.want(t, 1, 2)
	_ = await.Receive(t, p.ended, "end of the second channel")
	d.next(t)
}

func TestClient_LateCloseKeepsTheNewerChannel(t *testing.T) {
	d := run(t, nil)
	d.is(ready(1))
	old := d.next(t)
	old.snapshot(1, 1)
	d.want(t, 1)
	wantReport(t, old, 1, 1)
	d.Reconnect("again")
	p := d.next(t)
	p.snapshot(1, 1)
	d.want(t, 1)
	wantReport(t, p, 1, 1)
	old.Close(channel.CloseDeleted, "late")
	old.Close(channel.CloseFeatureOff, "late")
	_ = await.Receive(t, old.ended, "end of the old channel")
	p.change(2, []int64{1}, nil)
	d.want(t, 1)
	wantReport(t, p, 2, 1)
	if !d.Connected() || d.Channels() != 2 {
		t.Errorf("connected %v, %d channels", d.Connected(), d.Channels())
	}
}

func TestNew_RefusesMissingOptions(t *testing.T) {
	if _, err := controlclient.New(options{}); err == nil {
		t.Error("no error")
	}
}

func TestMerge_ReplacesAddsAndRemoves(t *testing.T) {
	one, two, three := uuid.New(), uuid.New(), uuid.New()
	entry := func(c types.ServerClient) (uuid.UUID, int64) { return c.ID, c.TokenVersion }
	before := controlclient.Merge(nil, nil, []types.ServerClient{{ID: one, TokenVersion: 1}, {ID: two, TokenVersion: 1}}, entry)
	after := controlclient.Merge(before, []uuid.UUID{one}, []types.ServerClient{{ID: two, TokenVersion: 2}, {ID: three, TokenVersion: 1}}, entry)
	if len(before) != 2 || before[one] != 1 || before[two] != 1 {
		t.Errorf("the values merged are now %v", before)
	}
	if len(after) != 2 || after[two] != 2 || after[three] != 1 {
		t.Errorf("merged %v", after)
	}
}

// A tunnel client takes the other two messages of the contract.
func TestClient_OfATunnelClient(t *testing.T) {
	applied := make(chan []int64, 4)
	s := newPanels()
	c, err := controlclient.New(controlclient.Options[[]int64, types.ClientSnapshot, types.ClientChange]{
		Dial:         func(context.Context) (*websocket.Conn, error) { return s.dial(t) },
		Hello:        func() types.Hello { return types.Hello{Type: types.TypeHello, AgentVersion: "1.2.3"} },
		FromSnapshot: func(m types.ClientSnapshot) ([]int64, error) { return []int64{m.Revision}, nil },
		WithChange: func(s []int64, m types.ClientChange) ([]int64, error) {
			return append(slices.Clone(s), m.Allocations[0].ID), nil
		},
		Apply:       func(s []int64) { applied <- s },
		SwitchedOff: func() {},
		Reports:     func() []types.AllocationReport { return []types.AllocationReport{ready(5)} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	p := s.next(t)
	p.send(types.ServerSnapshot{Type: types.TypeServerSnapshot, Revision: 9})
	p.send(types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1})
	if got := await.Receive(t, applied, "snapshot"); !slices.Equal(got, []int64{1}) {
		t.Errorf("applied %v", got)
	}
	if r := p.status(); r.Revision != 1 || !slices.Equal(reported(r), []int64{5}) || r.Players != nil {
		t.Errorf("report %+v", r)
	}
	p.send(types.ClientChange{Type: types.TypeClientChange, Revision: 2, Allocations: []types.ClientAllocation{{ID: 5}}})
	if got := await.Receive(t, applied, "change"); !slices.Equal(got, []int64{1, 5}) {
		t.Errorf("applied %v", got)
	}
	if r := p.status(); r.Revision != 2 || !slices.Equal(reported(r), []int64{5}) {
		t.Errorf("report %+v of what the change names", r)
	}
	stop()
	if err := await.Receive(t, ended, "end of Run"); err != nil {
		t.Error(err)
	}
}
