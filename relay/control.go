package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

const (
	// maxControlMessage bounds one message of the panel. A snapshot spends about
	// 200 bytes on an allocation, so that it holds every port there is.
	maxControlMessage = 32 << 20
	// reportsPerMessage and maxReason are the contract's limits of a StatusReport.
	reportsPerMessage = 1000
	maxReason         = 500
)

// control is the tunnel server's end of its control channel.
type control struct {
	server   *Server
	channels atomic.Uint64 // Those that have ever brought a desired state.

	mu sync.Mutex
	// conn is the channel on which a snapshot was applied; nil while there is
	// none. The rest belongs to it.
	conn      *channel.Conn
	revision  int64
	reported  map[int64]report
	players   int // As last told, -1 where it was not.
	playersAt time.Time
}

func newControl(s *Server) *control { return &control{server: s} }

// run keeps the control channel.
func (c *control) run(ctx context.Context) error {
	options := c.server.opts.Channel
	if options.MaxMessage == 0 {
		options.MaxMessage = maxControlMessage
	}
	err := channel.Keep(ctx, channel.KeepOptions{
		Dial:    c.server.opts.Dial,
		Serve:   c.serve,
		Ended:   c.ended,
		Backoff: c.server.opts.Backoff,
		Channel: options,
	})
	var final *channel.FinalError
	if errors.As(err, &final) && final.Code != channel.CloseTakenOver {
		c.server.opts.Keep(nil) // The one that took over may keep it in the same place.
	}
	return err
}

// resume serves what a process before this one was told to.
func (c *control) resume(last *types.ServerSnapshot) {
	if last == nil {
		return
	}
	state, err := fromSnapshot(*last)
	if err != nil {
		c.server.log.Warn("the last desired state cannot be served", slog.Any("error", err))
		return
	}
	c.server.log.Info("serving the last desired state until the panel says more", slog.Int("allocations", len(state.allocations)))
	c.server.apply(state)
}

// reconnect makes the control channel anew.
func (c *control) reconnect(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close(websocket.CloseNormalClosure, reason)
	}
}

// announced notes that the panel knows a fingerprint, and makes the control channel
// anew if there has been a renewal since hello, which is said once on a channel.
func (c *control) announced(fingerprint string) {
	if !c.server.clients.Identity.Announced(fingerprint) {
		c.reconnect("the tunnel server has another key")
	}
}

// ended hears of every end of the channel that another try follows.
func (c *control) ended(err error, wait time.Duration) {
	c.server.log.Info("no control channel to the panel", slog.Any("error", err), slog.Duration("retry", wait))
	if channel.IsFeatureOff(err) {
		c.server.suspend()
	}
	c.server.opts.OnChannel(err, wait)
}

// serve speaks one control channel.
func (c *control) serve(_ context.Context, conn *channel.Conn, ready func()) error {
	defer c.detach()
	fingerprint := c.server.clients.Identity.ToAnnounce()
	if err := conn.Send(c.hello(fingerprint)); err != nil {
		return err
	}
	var state desiredState
	connected, awaiting := false, true // Awaiting a snapshot: hello asks for one.
	for {
		message, err := receive(conn)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case types.ServerSnapshot:
			if state.revision == 0 { // The first on this channel.
				c.channels.Add(1)
			}
			if state, err = fromSnapshot(m); err != nil {
				return err
			}
			awaiting = false
			c.apply(conn, state, nil)
			if !connected {
				connected = true
				ready()
				c.server.opts.OnChannel(nil, 0)
			}
			c.announced(fingerprint)
		case types.ServerChange:
			if awaiting {
				continue // The snapshot will hold it.
			}
			if m.Revision != state.revision+1 {
				c.server.log.Warn("a revision was missed", slog.Int64("have", state.revision), slog.Int64("got", m.Revision))
				awaiting = true
				if err := conn.Send(types.ResyncRequest{Type: types.TypeResync}); err != nil {
					return err
				}
				continue
			}
			if state, err = state.with(m); err != nil {
				return err
			}
			c.apply(conn, state, m.Allocations)
			c.announced(fingerprint) // While it was applied, Renew found no channel.
		default:
			c.server.log.Warn("the panel sent a message that is not for a tunnel server", slog.Any("type", m))
		}
	}
}

func (c *control) hello(fingerprint string) types.Hello {
	return types.Hello{
		Type:         types.TypeHello,
		AgentVersion: c.server.opts.Version,
		Platform:     c.server.opts.Platform,
		Relay:        &types.RelayEndpoint{Port: c.server.opts.AdvertisedPort, Fingerprint: fingerprint},
	}
}

// receive returns the next message: a snapshot, a change, or the type of a
// message that a tunnel server has no use for, such as one of a later panel's.
func receive(conn *channel.Conn) (any, error) {
	data, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("decode a control message: %w", err)
	}
	var snapshot types.ServerSnapshot
	var change types.ServerChange
	switch head.Type {
	case string(types.TypeServerSnapshot):
		err = json.Unmarshal(data, &snapshot)
		return snapshot, err
	case string(types.TypeServerChange):
		err = json.Unmarshal(data, &change)
		return change, err
	default:
		return head.Type, nil
	}
}

// apply makes a desired state real and reports on it: on everything after a
// snapshot, otherwise on what has changed or was named in the change, whose
// status the panel may have forgotten.
func (c *control) apply(conn *channel.Conn, state desiredState, named []types.ServerAllocation) {
	c.detach() // No report may name this revision before it is applied.
	c.server.apply(state)
	c.server.opts.Keep(state.snapshot())

	c.mu.Lock()
	if named == nil {
		c.reported, c.players = map[int64]report{}, -1
	}
	for _, a := range named {
		delete(c.reported, a.ID)
	}
	c.conn, c.revision = conn, state.revision
	c.mu.Unlock()
	c.report()
	c.reportPlayers(time.Now())
}

// detach stops reporting.
func (c *control) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
}

// attached reports whether there is a channel on which a snapshot was applied.
func (c *control) attached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// report tells the panel what it has not been told on this channel. An error
// needs no care: the channel has ended, and the next one is told everything.
func (c *control) report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return
	}
	now := map[int64]report{}
	var reports []types.AllocationReport
	for _, r := range c.server.ports.Reports() {
		if r.Reason != nil && len(*r.Reason) > maxReason {
			cut := strings.ToValidUTF8((*r.Reason)[:maxReason], "")
			r.Reason = &cut
		}
		is := reportOf(r)
		now[r.ID] = is
		if was, ok := c.reported[r.ID]; !ok || was != is {
			reports = append(reports, r)
		}
	}
	c.reported = now
	for part := range slices.Chunk(reports, reportsPerMessage) {
		if c.conn.Send(types.StatusReport{Type: types.TypeStatus, Revision: c.revision, Allocations: part}) != nil {
			return
		}
	}
}

// report is an AllocationReport in a form that can be compared.
type report struct {
	state   types.AllocationReportState
	reason  string
	drained bool
}

func reportOf(r types.AllocationReport) report {
	is := report{state: r.State}
	if r.Reason != nil {
		is.reason = *r.Reason
	}
	if r.Drained != nil {
		is.drained = *r.Drained
	}
	return is
}

// playersInterval is the least time between two reports of how many players there
// are. That there are none is reported at once.
const playersInterval = 5 * time.Second

// reportPlayers tells the panel how many players there are, where that differs from
// the last report.
func (c *control) reportPlayers(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	players := int(c.server.ports.Players() + c.server.clients.Flows())
	if c.conn == nil || players == c.players || players > 0 && now.Sub(c.playersAt) < playersInterval {
		return
	}
	c.players, c.playersAt = players, now
	// An error means that the channel has ended; the next one is told.
	_ = c.conn.Send(types.StatusReport{
		Type: types.TypeStatus, Revision: c.revision, Allocations: []types.AllocationReport{}, Players: &players,
	})
}

// desiredState is what the panel wants of this tunnel server.
type desiredState struct {
	revision    int64
	allocations map[int64]types.ServerAllocation
	clients     map[uuid.UUID]int64
	keys        types.JWKS
}

func fromSnapshot(m types.ServerSnapshot) (desiredState, error) {
	empty := desiredState{revision: m.Revision - 1}
	return empty.with(types.ServerChange{Revision: m.Revision, Allocations: m.Allocations, Clients: m.Clients, Keys: &m.Keys})
}

// with returns the state after a change.
func (d desiredState) with(m types.ServerChange) (desiredState, error) {
	next := desiredState{revision: m.Revision, keys: d.keys, allocations: map[int64]types.ServerAllocation{}, clients: map[uuid.UUID]int64{}}
	maps.Copy(next.allocations, d.allocations)
	maps.Copy(next.clients, d.clients)
	for _, id := range m.RemovedAllocations {
		delete(next.allocations, id)
	}
	for _, id := range m.RemovedClients {
		delete(next.clients, id)
	}
	for _, a := range m.Allocations {
		if !a.Protocol.Valid() || a.Port < 1 || a.Port > 65535 || a.ID < 1 {
			return d, fmt.Errorf("allocation %d: %s port %d", a.ID, a.Protocol, a.Port)
		}
		next.allocations[a.ID] = a
	}
	for _, client := range m.Clients {
		next.clients[client.ID] = client.TokenVersion
	}
	if m.Keys != nil {
		next.keys = *m.Keys
	}
	return next, nil
}

// snapshot is the message that says the same; equal states make equal ones.
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
