package controlclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/internal/wstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state is the desired state of the tests: the ids of the allocations, sorted.
type state []int64

type (
	options = controlclient.Options[state, types.ServerSnapshot, types.ServerChange]
	client  = controlclient.Client[state, types.ServerSnapshot, types.ServerChange]
)

// panels are the panel's ends of the control channels that are dialled.
type panels struct {
	channels chan *panel
	refusals chan error // Of the next dials.
}

func newPanels() panels {
	return panels{channels: make(chan *panel, 16), refusals: make(chan error, 1)}
}

// device is a tunnel server under test and the panel that it dials.
type device struct {
	*client
	panels
	applied chan state
	ends    chan error // What OnChannel was called with.
	off     chan struct{}
	result  chan error
	stop    context.CancelFunc

	mu      sync.Mutex
	reports []types.AllocationReport
	players int
	log     testlog.Buffer
}

// run starts a device. Options may be changed before; change may be nil.
func run(t *testing.T, change func(*device, *options)) *device {
	t.Helper()
	d := &device{
		panels:  newPanels(),
		applied: make(chan state, 16),
		ends:    make(chan error, 64),
		off:     make(chan struct{}, 16),
		result:  make(chan error, 1),
	}
	o := options{
		Dial:  func(context.Context) (*websocket.Conn, error) { return d.dial(t) },
		Hello: func() types.Hello { return types.Hello{Type: types.TypeHello, AgentVersion: "1.2.3"} },
		FromSnapshot: func(m types.ServerSnapshot) (state, error) {
			if m.Revision < 0 {
				return nil, errors.New("a revision below 0")
			}
			return ids(m.Allocations), nil
		},
		WithChange: func(s state, m types.ServerChange) (state, error) {
			if len(m.Allocations) == 1 && m.Allocations[0].ID < 0 {
				return nil, errors.New("an id below 0")
			}
			next := slices.Concat(s, ids(m.Allocations))
			next = slices.DeleteFunc(next, func(id int64) bool { return slices.Contains(m.RemovedAllocations, id) })
			slices.Sort(next)
			return slices.Compact(next), nil
		},
		Apply:       func(s state) { d.applied <- s },
		SwitchedOff: func() { d.off <- struct{}{} },
		Reports: func() []types.AllocationReport {
			d.mu.Lock()
			defer d.mu.Unlock()
			return slices.Clone(d.reports)
		},
		OnChannel: func(err error, _ time.Duration) { d.ends <- err },
		Logger:    slog.New(slog.NewTextHandler(&d.log, nil)),
		Backoff:   backoff.Exponential{Min: time.Millisecond, Max: 10 * time.Millisecond},
	}
	if change != nil {
		change(d, &o)
	}
	var err error
	if d.client, err = controlclient.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.result <- d.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return d
}

func ids(allocations []types.ServerAllocation) state {
	s := state{}
	for _, a := range allocations {
		s = append(s, a.ID)
	}
	slices.Sort(s)
	return s
}

func (s panels) dial(t *testing.T) (*websocket.Conn, error) {
	select {
	case err := <-s.refusals:
		return nil, err
	default:
	}
	ws, dialled := wstest.Pair(t, wstest.Options{})
	p := &panel{Conn: channel.New(ws, channel.Options{}), t: t, received: make(chan any, 64), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read()
	}()
	t.Cleanup(func() {
		p.Close(websocket.CloseGoingAway, "the test is over")
		<-done
	})
	s.channels <- p
	return dialled, nil
}

// is makes reports the ones that are true from now on.
func (d *device) is(reports ...types.AllocationReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reports = reports
}

// next returns the panel's end of the next channel, after its hello.
func (s panels) next(t *testing.T) *panel {
	t.Helper()
	p := await.Receive(t, s.channels, "control channel")
	if hello, ok := p.next().(types.Hello); !ok || hello.AgentVersion != "1.2.3" {
		t.Fatalf("the first message is %+v", hello)
	}
	return p
}

// want returns once the device has applied a state.
func (d *device) want(t *testing.T, want ...int64) {
	t.Helper()
	if got := await.Receive(t, d.applied, "state to be applied"); !slices.Equal(got, want) {
		t.Fatalf("applied %v, want %v", got, want)
	}
}

// panel is the panel's end of a control channel.
type panel struct {
	*channel.Conn
	t        *testing.T
	received chan any
	ended    chan error
}

func (p *panel) read() {
	defer p.Wait()
	for {
		data, err := p.Receive()
		if err != nil {
			p.ended <- err
			return
		}
		var message types.ControlMessage
		var value any
		if err = json.Unmarshal(data, &message); err == nil {
			value, err = message.ValueByDiscriminator()
		}
		if err != nil {
			value = err
		}
		p.received <- value
	}
}

func (p *panel) next() any {
	p.t.Helper()
	return await.Receive(p.t, p.received, "message")
}

func (p *panel) status() types.StatusReport {
	p.t.Helper()
	message := p.next()
	report, ok := message.(types.StatusReport)
	if !ok {
		p.t.Fatalf("received %#v, want a status report", message)
	}
	return report
}

func (p *panel) send(message any) {
	p.t.Helper()
	if err := p.Send(message); err != nil {
		p.t.Fatal(err)
	}
}

func (p *panel) snapshot(revision int64, ids ...int64) {
	p.t.Helper()
	m := types.ServerSnapshot{
		Type: types.TypeServerSnapshot, Revision: revision, Allocations: allocations(ids),
		Clients: []types.ServerClient{}, Keys: types.JWKS{Keys: []types.JWK{}},
	}
	p.send(m)
}

func (p *panel) change(revision int64, ids, removed []int64) {
	p.t.Helper()
	p.send(types.ServerChange{Type: types.TypeServerChange, Revision: revision, Allocations: allocations(ids), RemovedAllocations: removed})
}

func allocations(ids []int64) []types.ServerAllocation {
	all := []types.ServerAllocation{}
	for _, id := range ids {
		all = append(all, types.ServerAllocation{ID: id, Protocol: types.ProtocolTCP, Port: 20000})
	}
	return all
}

func ready(id int64) types.AllocationReport {
	return types.AllocationReport{ID: id, State: types.ReportReady}
}

func failed(id int64, reason string) types.AllocationReport {
	return types.AllocationReport{ID: id, State: types.ReportFailed, Reason: &reason}
}

func reported(r types.StatusReport) []int64 {
	var all []int64
	for _, a := range r.Allocations {
		all = append(all, a.ID)
	}
	return all
}
