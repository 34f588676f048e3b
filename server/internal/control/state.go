package control

import (
	"fmt"
	"net"
	"reflect"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
)

// desired is the desired state of a device, as last read.
type desired interface {
	// snapshot returns the message with the whole state.
	snapshot(_ types.Revision, panel *uuid.UUID, _ issueTicket) (any, error)
	// change returns the message with the difference from before, which must have
	// the same concrete type, or nil if there is none.
	change(before desired, _ types.Revision, _ issueTicket) (any, error)
	// allocations returns the allocations that the device may report on, by id.
	allocations() map[int64]binding
}

// issueTicket issues a ticket of the session's client for a tunnel server that was
// last connected at seen.
type issueTicket func(serverID uuid.UUID, seen time.Time) (string, error)

// clientState is the desired state of a tunnel client. Its servers carry no tickets:
// tickets are issued when the state is sent, so that a new one is not a difference.
type clientState struct {
	bindings []types.ClientAllocation
	servers  []types.ClientServer
	seen     map[uuid.UUID]time.Time // When each server was last connected.
	pending  map[int64]bool          // Allocations without a report in the database.
}

func newClientState(rows db.ClientState) *clientState {
	s := &clientState{
		bindings: make([]types.ClientAllocation, 0, len(rows.Allocations)),
		servers:  make([]types.ClientServer, 0, len(rows.Servers)),
		seen:     make(map[uuid.UUID]time.Time, len(rows.Servers)),
		pending:  map[int64]bool{},
	}
	for _, a := range rows.Allocations {
		var leaving *[]uuid.UUID
		if servers := rows.Leaving[a.ID]; len(servers) > 0 {
			leaving = &servers
		}
		if a.ClientState == db.StatePending {
			s.pending[a.ID] = true
		}
		s.bindings = append(s.bindings, types.ClientAllocation{
			ID:            a.ID,
			Protocol:      types.Protocol(a.Protocol),
			ServerID:      a.ServerID,
			PublicAddress: hostPort(a.PublicHost, a.Port),
			LocalHost:     a.LocalHost,
			LocalPort:     a.LocalPort,
			Name:          a.Name,
			Options:       options(a),
			Leaving:       leaving,
		})
	}
	for _, d := range rows.Servers {
		if d.RelayPort == 0 {
			continue // It has not reported its relay address yet.
		}
		if d.LastSeenAt != nil {
			s.seen[d.ID] = *d.LastSeenAt
		}
		s.servers = append(s.servers, types.ClientServer{
			ID:          d.ID,
			Address:     hostPort(d.PublicHost, d.RelayPort),
			Fingerprint: d.Fingerprint,

			PublicAddresses: addresses(d),
		})
	}
	return s
}

// addresses returns the addresses of a tunnel server, or nil if none is known.
func addresses(d db.ClientServer) *[]string {
	list := publichost.Addresses(d.PublicHost, d.PublicAddresses)
	if len(list) == 0 {
		return nil
	}
	return &list
}

func (s *clientState) snapshot(revision types.Revision, panel *uuid.UUID, issue issueTicket) (any, error) {
	servers, err := s.withTickets(s.servers, issue)
	return types.ClientSnapshot{
		Type:        types.TypeClientSnapshot,
		Revision:    revision,
		PanelID:     panel,
		Allocations: s.bindings,
		Servers:     servers,
	}, err
}

func (s *clientState) change(before desired, revision types.Revision, issue issueTicket) (any, error) {
	was := before.(*clientState)
	bindings, removed := diff(was.bindings, s.bindings, func(a types.ClientAllocation) int64 { return a.ID })
	servers, removedServers := diff(was.servers, s.servers, func(d types.ClientServer) uuid.UUID { return d.ID })
	if len(bindings)+len(removed)+len(servers)+len(removedServers) == 0 {
		return nil, nil
	}
	servers, err := s.withTickets(servers, issue)
	return types.ClientChange{
		Type:               types.TypeClientChange,
		Revision:           revision,
		Allocations:        bindings,
		RemovedAllocations: removed,
		Servers:            servers,
		RemovedServers:     removedServers,
	}, err
}

// renewal returns a change that contains only new tickets, or nil if the client needs
// none.
func (s *clientState) renewal(revision types.Revision, issue issueTicket) (any, error) {
	if len(s.servers) == 0 {
		return nil, nil
	}
	servers, err := s.withTickets(s.servers, issue)
	return types.ClientChange{
		Type:               types.TypeClientChange,
		Revision:           revision,
		Allocations:        []types.ClientAllocation{},
		RemovedAllocations: []int64{},
		Servers:            servers,
		RemovedServers:     []uuid.UUID{},
	}, err
}

func (s *clientState) allocations() map[int64]binding {
	bindings := make(map[int64]binding, len(s.bindings))
	for _, a := range s.bindings {
		bindings[a.ID] = binding{subject: subject{server: a.ServerID, target: hostPort(a.LocalHost, a.LocalPort)}, pending: s.pending[a.ID]}
	}
	return bindings
}

func (s *clientState) withTickets(servers []types.ClientServer, issue issueTicket) ([]types.ClientServer, error) {
	out := make([]types.ClientServer, len(servers))
	for i, server := range servers {
		ticket, err := issue(server.ID, s.seen[server.ID])
		if err != nil {
			return nil, fmt.Errorf("issue ticket for server %s: %w", server.ID, err)
		}
		out[i] = server
		out[i].Ticket = ticket
	}
	return out, nil
}

// serverState is the desired state of a tunnel server.
type serverState struct {
	bindings []types.ServerAllocation
	withheld []withheld
	clients  []types.ServerClient
	keys     types.JWKS
	host     types.ServerHost
	pending  map[int64]bool // Allocations without a report in the database.
}

// newServerState returns the state of a tunnel server that keeps the rules of the given names. It has
// no allocation with other rules, except those built in: a port would be open to what somebody has
// ruled out.
func newServerState(rows db.ServerState, keys types.JWKS, keeps []types.RuleName) *serverState {
	s := &serverState{
		bindings: make([]types.ServerAllocation, 0, len(rows.Allocations)),
		clients:  make([]types.ServerClient, 0, len(rows.Clients)),
		keys:     keys,
		host:     types.ServerHost{PublicHost: rows.Host.PublicHost, PublicHostGuessed: rows.Host.HostGuessed},
		pending:  map[int64]bool{},
	}
	if warning := publichost.Warning(rows.Host, time.Now()); warning != "" {
		s.host.PublicHostWarning = &warning
	}
	book := newRuleBook(rows, keeps)
	for _, a := range rows.Allocations {
		rules := book.of(a)
		bound := types.ServerAllocation{
			ID:       a.ID,
			Protocol: types.Protocol(a.Protocol),
			Port:     a.Port,
			ClientID: a.DeviceID,
			Options:  options(a),
			Rules:    rules.effective,
		}
		if a.Retires != nil { // The former port of an allocation, which keeps its id.
			bound.ID = *a.Retires
		} else if a.ServerState == db.StatePending {
			s.pending[a.ID] = true
		}
		bound.KeptOut = keptOut(rows.KeptOut[bound.ID])
		if a.Draining {
			bound.DrainUntil = a.DrainUntil
		}
		if rules.refusal != "" {
			s.withheld = append(s.withheld, withheld{bound, rules.refusal})
			continue
		}
		s.bindings = append(s.bindings, bound)
	}
	for _, c := range rows.Clients {
		s.clients = append(s.clients, types.ServerClient{ID: c.ID, TokenVersion: c.TokenVersion})
	}
	return s
}

func (s *serverState) snapshot(revision types.Revision, panel *uuid.UUID, _ issueTicket) (any, error) {
	takes := true
	return types.ServerSnapshot{
		Type:        types.TypeServerSnapshot,
		Revision:    revision,
		PanelID:     panel,
		Allocations: s.bindings,
		Clients:     s.clients,
		Keys:        s.keys,
		Host:        &s.host,
		Usage:       &takesUsage,
		Connections: &takes,
	}, nil
}

// takesUsage tells tunnel servers to report usage.
var takesUsage = true

func (s *serverState) change(before desired, revision types.Revision, _ issueTicket) (any, error) {
	was := before.(*serverState)
	bindings, removed := diff(was.bindings, s.bindings, func(a types.ServerAllocation) int64 { return a.ID })
	clients, removedClients := diff(was.clients, s.clients, func(c types.ServerClient) uuid.UUID { return c.ID })
	var keys *types.JWKS
	if !reflect.DeepEqual(was.keys, s.keys) {
		keys = &s.keys
	}
	var host *types.ServerHost
	if !reflect.DeepEqual(was.host, s.host) {
		host = &s.host
	}
	if keys == nil && host == nil && len(bindings)+len(removed)+len(clients)+len(removedClients) == 0 {
		return nil, nil
	}
	return types.ServerChange{
		Type:               types.TypeServerChange,
		Revision:           revision,
		Allocations:        bindings,
		RemovedAllocations: removed,
		Clients:            clients,
		RemovedClients:     removedClients,
		Keys:               keys,
		Host:               host,
	}, nil
}

func (s *serverState) allocations() map[int64]binding {
	bindings := make(map[int64]binding, len(s.bindings)+len(s.withheld))
	add := func(a types.ServerAllocation, refusal string) {
		b := binding{
			subject: subject{protocol: a.Protocol, port: a.Port, client: a.ClientID, refusal: refusal},
			pending: s.pending[a.ID],
		}
		if a.DrainUntil != nil {
			b.drainUntil = *a.DrainUntil
		}
		bindings[a.ID] = b
	}
	for _, a := range s.bindings {
		add(a, "")
	}
	for _, w := range s.withheld {
		add(w.ServerAllocation, w.refusal)
	}
	return bindings
}

// diff returns the items of after that are new or differ from before, and the keys of
// the items that only before contains, both in the order of their lists. Neither is
// nil, because the contract's arrays are not nullable.
func diff[K comparable, V any](before, after []V, key func(V) K) (changed []V, removed []K) {
	was := make(map[K]V, len(before))
	for _, v := range before {
		was[key(v)] = v
	}
	changed, removed = []V{}, []K{}
	for _, v := range after {
		if old, ok := was[key(v)]; !ok || !reflect.DeepEqual(old, v) {
			changed = append(changed, v)
		}
	}
	is := keySet(after, key)
	for _, v := range before {
		if _, ok := is[key(v)]; !ok {
			removed = append(removed, key(v))
		}
	}
	return changed, removed
}

func keySet[K comparable, V any](list []V, key func(V) K) map[K]struct{} {
	set := make(map[K]struct{}, len(list))
	for _, v := range list {
		set[key(v)] = struct{}{}
	}
	return set
}

// options returns the options without the rules: agents do not need them, and tunnel servers get those in
// effect.
func options(a db.Allocation) types.AllocationOptions {
	proxy := types.ProxyProtocol(a.ProxyProtocol)
	return types.AllocationOptions{ProxyProtocol: &proxy, UDPIdleSeconds: &a.UDPIdleSeconds, PlayerAddresses: &a.PlayerAddresses}
}

// keptOut returns the sources that an allocation keeps out, or nil.
func keptOut(rows []db.KeptOut) *[]types.ServerKeptOut {
	if len(rows) == 0 {
		return nil
	}
	list := make([]types.ServerKeptOut, len(rows))
	for i, row := range rows {
		list[i] = types.ServerKeptOut{Source: row.Source, Until: row.Until.UTC()}
	}
	return &list
}

func hostPort(host string, port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}
