package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

// control is the tunnel server's end of its control channel: desired state in,
// status out.
type control struct {
	*controlclient.Client[desiredState, types.ServerSnapshot, types.ServerChange]
	server      *Server
	fingerprint string       // Of the last hello. Only Run's goroutine uses it.
	forgotten   bool         // Nothing is kept. Only Run's goroutine uses it.
	kept        desiredState // What is kept. Only resume and then Run's goroutine use it.

	host *types.ServerHost // That OnHost knows. Only Run's goroutine uses it.
}

func newControl(s *Server) (*control, error) {
	c := &control{server: s}
	var err error
	c.Client, err = controlclient.New(controlclient.Options[desiredState, types.ServerSnapshot, types.ServerChange]{
		Dial:         s.opts.Dial,
		Hello:        c.hello,
		FromSnapshot: s.checked,
		WithChange:   desiredState.with,
		Apply:        c.apply,
		SwitchedOff:  c.switchedOff,
		Reports:      func() []types.AllocationReport { return s.ports.Reports() },
		Players:      func() int { return int(s.ports.Players() + s.clients.Flows()) },
		Refusals:     func() iter.Seq[types.AllocationRefusals] { return s.ports.Refusals() },
		Usage:        s.usage,
		Connections:  s.ports,
		Probe:        s.probe,
		OnChannel:    c.onChannel,
		Standby:      c.standby(s.opts.Standby),
		Logger:       s.log,
		Channel:      s.opts.Channel,
		Backoff:      s.opts.Backoff,
	})
	return c, err
}

// run keeps the control channel.
func (c *control) run(ctx context.Context) error {
	err := c.Run(ctx)
	if controlclient.Revoked(err) {
		c.server.opts.Keep(nil)
	}
	return err
}

// resume serves the last desired state of an earlier process.
func (c *control) resume(last *types.ServerSnapshot) {
	if last == nil {
		return
	}
	state, err := fromSnapshot(*last)
	if err != nil {
		c.server.log.Warn("the last desired state cannot be served", slog.Any("error", err))
		return
	}
	c.server.log.Info("serving the last desired state until the panel sends the current one", slog.Int("allocations", len(state.allocations)))
	c.kept = state
	c.server.apply(state)
}

func (c *control) hello() types.Hello {
	c.fingerprint = c.server.clients.Identity.ToAnnounce()
	return types.Hello{
		Type:         types.TypeHello,
		AgentVersion: c.server.opts.Version,
		Platform:     c.server.opts.Platform,
		Rules:        &publicport.KnownRules,
		Relay:        &types.RelayEndpoint{Port: c.server.opts.AdvertisedPort, Fingerprint: c.fingerprint},
	}
}

// apply makes a desired state real. That there is one shows that the panel has
// taken the hello.
func (c *control) apply(state desiredState) {
	if state.restricts(c.kept) {
		// First: the next process, after a crash in between, must not let them in again.
		c.server.opts.KeepNow(state.snapshot())
		c.server.apply(state)
	} else {
		c.server.apply(state)
		c.server.opts.Keep(state.snapshot())
	}
	c.kept, c.forgotten = state, false
	c.server.clients.Identity.Announced(c.fingerprint)
	if state.host != nil && !reflect.DeepEqual(c.host, state.host) {
		c.host = state.host
		c.server.opts.OnHost(*state.host)
	}
}

// switchedOff closes everything because tunnels are switched off.
func (c *control) switchedOff() {
	if !c.forgotten {
		c.server.opts.KeepNow(nil) // First: a crash in between must not bring it back.
		c.kept, c.forgotten = desiredState{}, true
	}
	c.server.suspend("tunnels are switched off")
}

// standby returns o with a Begin that closes everything first. What is kept stays, for
// a start while the panel cannot be reached.
func (c *control) standby(o controlclient.Standby) controlclient.Standby {
	if o.Presence == nil {
		return o
	}
	begin := o.Begin
	o.Begin = func(reason string) {
		c.server.suspend("another process of this tunnel server took over")
		if begin != nil {
			begin(reason)
		}
	}
	return o
}

// onChannel logs the end of a control channel and passes it on.
func (c *control) onChannel(err error, retry time.Duration) {
	if err != nil {
		c.server.log.Info("no control channel to the panel", slog.Any("error", err), slog.Duration("retry", retry))
	}
	c.server.opts.OnChannel(err, retry)
}

// desiredState is what the panel wants of this tunnel server. A value does not
// change once made.
type desiredState struct {
	revision    int64
	allocations map[int64]types.ServerAllocation
	clients     map[uuid.UUID]int64 // The version of each one's token.
	keys        types.JWKS
	host        *types.ServerHost // nil: the panel has not named it.
}

// errForeignPanel ends a channel that is not one of the panel that issued the token.
var errForeignPanel = errors.New("another panel answers at this address; the last ports are kept")

// checked returns the state in a snapshot of a control channel.
func (s *Server) checked(m types.ServerSnapshot) (desiredState, error) {
	if m.PanelID != nil && s.opts.Panel != uuid.Nil && *m.PanelID != s.opts.Panel {
		return desiredState{}, errForeignPanel
	}
	return fromSnapshot(m)
}

func fromSnapshot(m types.ServerSnapshot) (desiredState, error) {
	return desiredState{}.with(types.ServerChange{Revision: m.Revision, Allocations: m.Allocations, Clients: m.Clients, Keys: &m.Keys, Host: m.Host})
}

// with returns the state after a change.
func (d desiredState) with(m types.ServerChange) (desiredState, error) {
	for _, a := range m.Allocations {
		if !a.Protocol.Valid() || a.Port < 1 || a.Port > types.MaxPort || a.ID < 1 {
			return d, fmt.Errorf("allocation %d: %s port %d", a.ID, a.Protocol, a.Port)
		}
	}
	next := desiredState{
		revision: m.Revision,
		allocations: controlclient.Merge(d.allocations, m.RemovedAllocations, m.Allocations,
			func(a types.ServerAllocation) (int64, types.ServerAllocation) { return a.ID, a }),
		clients: controlclient.Merge(d.clients, m.RemovedClients, m.Clients,
			func(c types.ServerClient) (uuid.UUID, int64) { return c.ID, c.TokenVersion }),
		keys: d.keys,
		host: d.host,
	}
	if m.Keys != nil {
		next.keys = *m.Keys
	}
	if m.Host != nil {
		next.host = m.Host
	}
	return next, nil
}

// restricts reports whether the state may shut out a player or a tunnel client whom the
// one before lets in.
func (d desiredState) restricts(before desiredState) bool {
	for id, was := range before.allocations {
		a, ok := d.allocations[id]
		if !ok || !reflect.DeepEqual(a.Rules, was.Rules) || !reflect.DeepEqual(a.KeptOut, was.KeptOut) {
			return true
		}
	}
	for id, version := range before.clients {
		if now, ok := d.clients[id]; !ok || now != version {
			return true
		}
	}
	return false
}

// snapshot is the message that describes the state; equal states make equal ones.
func (d desiredState) snapshot() *types.ServerSnapshot {
	m := &types.ServerSnapshot{
		Type:        types.TypeServerSnapshot,
		Revision:    d.revision,
		Allocations: make([]types.ServerAllocation, 0, len(d.allocations)),
		Clients:     make([]types.ServerClient, 0, len(d.clients)),
		Keys:        d.keys,
	}
	for _, id := range slices.Sorted(maps.Keys(d.allocations)) {
		m.Allocations = append(m.Allocations, d.allocations[id])
	}
	for id, version := range d.clients {
		m.Clients = append(m.Clients, types.ServerClient{ID: id, TokenVersion: version})
	}
	slices.SortFunc(m.Clients, func(a, b types.ServerClient) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return m
}
