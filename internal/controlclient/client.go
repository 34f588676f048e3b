// Package controlclient is a device's end of its control channel, the same for
// tunnel clients and tunnel servers.
//
// In come the desired state, as a snapshot and numbered changes, and the ends of
// the channel. Out go the hello, a request for a snapshot where a revision was
// missed, and status reports: what is true of the allocations, as it changes. One
// channel follows another for as long as the panel allows it; package channel does
// that.
//
// [Client.Run] starts no goroutine that outlives it. Its goroutine calls every
// callback but Probe, and Reports, Players, Refusals and those of Connections, which are called by whichever reports.
package controlclient

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// maxMessage bounds one message of the panel, in bytes. A snapshot spends 300 to
// 600 bytes on an allocation, so that this holds every port of a tunnel server, or
// thousands with long address lists.
const maxMessage = 128 << 20

// Options say what a Client speaks for. State is the device's desired state, whose
// values must not change once made; S and C are its messages.
type Options[State any, S Snapshot, C Change] struct {
	// Dial opens a control channel. An error that wraps channel.ErrFeatureOff means
	// that tunnels are switched off, a *channel.FinalError ends Run, and any other
	// is retried. Required.
	Dial func(ctx context.Context) (*websocket.Conn, error)
	// Hello is the first message on a new channel. Reconnect ends a channel whose
	// hello was made before it. Required.
	Hello func() types.Hello
	// FromSnapshot is the state that a snapshot describes, and WithChange the state
	// that a change turns another into. An error ends the channel. Required.
	FromSnapshot func(S) (State, error)
	WithChange   func(State, C) (State, error)
	// Apply makes a desired state real. Reports are held back until it returns.
	// Required.
	Apply func(State)
	// SwitchedOff is called, before OnChannel, each time that a channel ends or is
	// refused because tunnels are switched off. The next snapshot brings back what
	// it closes. Required.
	SwitchedOff func()
	// Reports returns what is true of the allocations now, each at most once and in
	// any order. An allocation that it leaves out is not reported on. A reason may
	// have any length. It is called with a lock held and must not call the Client,
	// except Connected and Channels. Required.
	Reports func() []types.AllocationReport
	// Players is the number of players to report; nil reports none. The rules of
	// Reports hold.
	Players func() int
	// Refusals yields what public ports have refused since it last yielded it; what a loop
	// leaves out is yielded again. nil reports none. The rules of Reports hold.
	Refusals func() iter.Seq[types.AllocationRefusals]
	// Usage is what the device reports of its traffic, to a panel that takes it; nil: it
	// reports none. The rules of Reports hold.
	Usage Usage
	// Connections are those of players, for a panel that takes reports of them; nil: there
	// are no players.
	Connections Connections
	// Probe finds out what the panel asks for, until ctx ends. It is called by goroutines of
	// their own. Type and ID of its result are filled in. nil: the panel is told not to ask.
	Probe func(ctx context.Context, m types.Probe) types.ProbeResult
	// OnChannel is called with nil when the first snapshot of a channel arrives,
	// before Apply, and with the error and the wait until the next attempt when a
	// channel ends or cannot be opened. It is not called for the end of Run. It must
	// not block. nil: not called.
	OnChannel func(err error, retry time.Duration)
	// Standby says what to do after another process of the device took over.
	Standby Standby
	// Logger; nil discards. The ends of channels are left to OnChannel.
	Logger *slog.Logger
	// Channel and Backoff tune the channel and its reconnects; the zero values are
	// for use, with messages of up to 32 MiB.
	Channel channel.Options
	Backoff backoff.Exponential
}

func (o Options[State, S, C]) withDefaults() (Options[State, S, C], error) {
	if o.Dial == nil || o.Hello == nil || o.FromSnapshot == nil || o.WithChange == nil ||
		o.Apply == nil || o.SwitchedOff == nil || o.Reports == nil ||
		(o.Standby.Presence == nil) != (o.Standby.Begin == nil) {
		return o, errors.New("controlclient: a required option is missing")
	}
	if o.OnChannel == nil {
		o.OnChannel = func(error, time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Channel.MaxMessage == 0 {
		o.Channel.MaxMessage = maxMessage
	}
	return o, nil
}

// Client keeps one device's control channel. Its methods may be called from any
// goroutine; Run may be called once.
type Client[State any, S Snapshot, C Change] struct {
	opts      Options[State, S, C]
	connected atomic.Bool
	channels  atomic.Uint64
	returning bool // From standby, and not connected yet. Belongs to Run.

	mu    sync.Mutex
	leave context.CancelCauseFunc // Ends keep; nil while it does not run.
	conn  *channel.Conn           // nil while there is no channel.
	sent  sent
}

// New makes a Client. Its error means that a required option is missing.
func New[State any, S Snapshot, C Change](o Options[State, S, C]) (*Client[State, S, C], error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client[State, S, C]{opts: o}, nil
}

// Revoked reports whether an error of Run says that the device's token is dead or
// the device deleted, so that no later process may serve its last desired state.
// Where another process took over it is false: that one may keep its state in the
// same place.
func Revoked(err error) bool {
	var final *channel.FinalError
	return errors.As(err, &final) && final.Code != channel.CloseTakenOver
}

// Connected reports whether there is a channel on which a snapshot has arrived.
func (c *Client[State, S, C]) Connected() bool { return c.connected.Load() }

// Channels returns the number of channels on which a snapshot has ever arrived.
func (c *Client[State, S, C]) Channels() uint64 { return c.channels.Load() }

// Reconnect ends the channel, if there is one, for a new one with a new hello. The
// panel is sent the reason.
func (c *Client[State, S, C]) Reconnect(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close(websocket.CloseNormalClosure, reason)
	}
}

func (c *Client[State, S, C]) ended(err error, retry time.Duration) {
	if channel.IsFeatureOff(err) {
		c.opts.SwitchedOff()
	}
	if c.returning {
		// The panel may have been away since it was asked, and the other process must
		// have the time to be back first.
		c.opts.Logger.Debug("cannot return from standby", slog.Any("error", err))
		c.StandBy(err.Error())
		return
	}
	c.opts.OnChannel(err, retry)
}

// attach makes conn the channel that Reconnect ends. It must come before the hello
// is made: a Reconnect is then either early enough for the hello to include its
// cause, or finds the channel.
func (c *Client[State, S, C]) attach(conn *channel.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.sent = conn, sent{}
}

func (c *Client[State, S, C]) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	if c.sent.connections {
		c.opts.Connections.StopConnections()
	}
	c.connected.Store(false)
}

// session is what one channel has brought so far.
type session[State any] struct {
	conn     *channel.Conn
	ready    func()
	state    State
	revision types.Revision
	awaiting bool // A snapshot has been asked for.
}

// serve runs one control channel until it ends.
func (c *Client[State, S, C]) serve(ctx context.Context, conn *channel.Conn, ready func()) error {
	c.attach(conn)
	defer c.detach()
	probes := newProbes(conn, c.opts.Probe)
	defer probes.wait.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hello := c.opts.Hello()
	if takes := c.opts.Probe != nil; takes {
		hello.Probes = &takes
	}
	if c.returning {
		hello.IfOffline = &c.returning
	}
	if err := conn.Send(hello); err != nil {
		return err
	}
	// The hello asks for a snapshot.
	s := session[State]{conn: conn, ready: ready, awaiting: true}
	for {
		data, err := conn.Receive()
		if err != nil {
			return err
		}
		message, kind, err := decode[S, C](data)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case S:
			err = c.snapshot(&s, m)
		case C:
			err = c.change(&s, m)
		case types.UsageAck:
			c.usageStored(m)
		case types.ConnectionsClose:
			if c.opts.Connections != nil {
				c.opts.Connections.CloseConnections(m.Ids)
			}
		case types.Probe:
			probes.start(ctx, m)
		default:
			c.opts.Logger.Warn("the panel sent a message that is not for this kind of device", slog.String("type", kind))
		}
		if err != nil {
			return err
		}
	}
}

func (c *Client[State, S, C]) snapshot(s *session[State], m S) error {
	state, err := c.opts.FromSnapshot(m)
	if err != nil {
		return err
	}
	s.awaiting = false
	if !c.connected.Load() {
		s.ready()
		c.returning = false
		c.channels.Add(1)
		c.connected.Store(true)
		c.opts.OnChannel(nil, 0)
	}
	c.apply(s, state, describe(m))
	return nil
}

func (c *Client[State, S, C]) change(s *session[State], m C) error {
	if s.awaiting {
		return nil // The snapshot will include it.
	}
	u := describe(m)
	if u.revision != s.revision+1 {
		c.opts.Logger.Warn("a revision was missed", slog.Int64("have", s.revision), slog.Int64("got", u.revision))
		s.awaiting = true
		return s.conn.Send(types.ResyncRequest{Type: types.TypeResync})
	}
	state, err := c.opts.WithChange(s.state, m)
	if err != nil {
		return err
	}
	c.apply(s, state, u)
	return nil
}

// apply makes a desired state real and reports on it.
func (c *Client[State, S, C]) apply(s *session[State], state State, u update) {
	s.state, s.revision = state, u.revision
	c.mu.Lock()
	c.sent.applied = false // No report may name the new revision before it is applied.
	c.mu.Unlock()
	c.opts.Apply(state)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.begin(u)
	if u.snapshot {
		c.sent.takesUsage = u.usage
	}
	c.report()
	c.reportPlayers(time.Now())
}
