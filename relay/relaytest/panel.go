// Package relaytest runs tunnel servers in tests. It plays the panel to them:
// the control channel and the key that signs tickets.
package relaytest

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Patience is how long anything awaited may take before the test fails.
const Patience = 10 * time.Second

const keyID = "relaytest"

// Panel plays the panel to one tunnel server. Its methods may be called from
// any goroutine; they fail the test where they cannot do what they say.
type Panel struct {
	Server uuid.UUID // The tunnel server's device id.

	t    testing.TB
	key  ed25519.PrivateKey
	http *httptest.Server

	mu          sync.Mutex
	conn        *channel.Conn // nil while the tunnel server is not connected.
	revision    int64
	refusal     error // Of Dial; nil: none.
	allocations map[int64]types.ServerAllocation
	clients     map[uuid.UUID]int64
	reports     map[int64]types.AllocationReport
	hello       types.Hello
	hellos      int
	resyncs     int
	players     *int
	refused     map[int64]map[string]int64 // Players and datagrams, by allocation and reason.
	usage       usage
	takes       bool // It takes reports of players.
	connections connections
	changed     chan struct{} // Closed and replaced when any of these changes.
}

// NewPanel starts a panel that wants nothing served. It ends with the test.
func NewPanel(t testing.TB) *Panel {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Panel{
		Server:      uuid.New(),
		t:           t,
		key:         key,
		allocations: map[int64]types.ServerAllocation{},
		clients:     map[uuid.UUID]int64{},
		reports:     map[int64]types.AllocationReport{},
		refused:     map[int64]map[string]int64{},
		usage:       newUsage(),
		takes:       true,
		connections: newConnections(),
		changed:     make(chan struct{}),
	}
	var channels sync.WaitGroup
	p.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channels.Add(1)
		defer channels.Done()
		var upgrader websocket.Upgrader
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade the control channel: %v", err)
			return
		}
		p.speak(channel.New(ws, channel.Options{}))
	}))
	t.Cleanup(func() {
		p.Disconnect(channel.CloseRestarting, errors.New("the test is over"))
		p.http.Close()
		channels.Wait()
	})
	return p
}

// Dial is for relay.Options.
func (p *Panel) Dial(ctx context.Context) (*websocket.Conn, error) {
	p.mu.Lock()
	refusal := p.refusal
	p.mu.Unlock()
	if refusal != nil {
		return nil, refusal
	}
	ws, response, err := websocket.DefaultDialer.DialContext(ctx, "ws"+p.http.URL[len("http"):], nil)
	if response != nil {
		_ = response.Body.Close()
	}
	return ws, err
}

func (p *Panel) speak(c *channel.Conn) {
	defer c.Wait()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.conn == c {
			p.conn = nil
		}
		p.signal()
	}()
	for {
		data, err := c.Receive()
		if err != nil {
			return
		}
		var message types.ControlMessage
		if err := json.Unmarshal(data, &message); err != nil {
			p.t.Errorf("control message: %v", err)
			return
		}
		value, err := message.ValueByDiscriminator()
		if err != nil {
			p.t.Errorf("control message: %v", err)
			return
		}
		p.take(c, value)
	}
}

func (p *Panel) take(c *channel.Conn, message any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m := message.(type) {
	case types.Hello:
		p.hello = m
		p.hellos++
		p.conn, p.revision = c, 0
		clear(p.reports)
		p.connections = newConnections()
		p.snapshot()
	case types.ResyncRequest:
		p.resyncs++
		p.snapshot()
	case types.StatusReport:
		for _, r := range m.Allocations {
			p.reports[r.ID] = r
		}
		if m.Players != nil {
			p.players = m.Players
		}
		if m.Refusals != nil {
			p.addRefusals(*m.Refusals)
		}
	case types.UsageReport:
		p.takeUsage(m)
	case types.ConnectionsReport:
		if unknown := p.connections.take(m); !p.takes || len(unknown) > 0 {
			p.t.Errorf("a report of players, of %q unknown", unknown)
		}
	default:
		p.t.Errorf("unexpected control message %T", m)
	}
	p.signal()
}

func (p *Panel) addRefusals(refusals []types.AllocationRefusals) {
	for _, of := range refusals {
		sums := p.refused[of.ID]
		if sums == nil {
			sums = map[string]int64{}
			p.refused[of.ID] = sums
		}
		for _, counts := range []types.RefusalCounts{of.Players, of.Datagrams} {
			for why, n := range counts {
				sums[why] += n
			}
		}
	}
}

func (p *Panel) snapshot() {
	p.revision++
	takes := p.takes
	m := types.ServerSnapshot{Type: types.TypeServerSnapshot, Revision: p.revision, Keys: p.jwks(), Usage: p.usage.wanted(), Connections: &takes}
	for _, a := range p.allocations {
		m.Allocations = append(m.Allocations, a)
	}
	for id, version := range p.clients {
		m.Clients = append(m.Clients, types.ServerClient{ID: id, TokenVersion: version})
	}
	_ = p.conn.Send(m)
}

func (p *Panel) jwks() types.JWKS {
	x := base64.RawURLEncoding.EncodeToString(p.key.Public().(ed25519.PublicKey))
	return types.JWKS{Keys: []types.JWK{{Kty: "OKP", Crv: "Ed25519", Alg: "EdDSA", Use: "sig", Kid: keyID, X: x}}}
}

// signal wakes all waits. It is called with mu held.
func (p *Panel) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Put adds or changes allocations. Their reports are forgotten.
func (p *Panel) Put(allocations ...types.ServerAllocation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range allocations {
		p.allocations[a.ID] = a
		delete(p.reports, a.ID)
	}
	p.change(types.ServerChange{Allocations: allocations})
}

// Remove takes allocations away.
func (p *Panel) Remove(ids ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		delete(p.allocations, id)
	}
	p.change(types.ServerChange{RemovedAllocations: ids})
}

// PutClient admits tickets of a client and one version of its token.
func (p *Panel) PutClient(id uuid.UUID, version int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[id] = version
	p.change(types.ServerChange{Clients: []types.ServerClient{{ID: id, TokenVersion: version}}})
}

// RemoveClient refuses a client's tickets from now on.
func (p *Panel) RemoveClient(id uuid.UUID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, id)
	p.change(types.ServerChange{RemovedClients: []uuid.UUID{id}})
}

// LoseRevision has the tunnel server miss a revision.
func (p *Panel) LoseRevision() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision++
}

func (p *Panel) change(m types.ServerChange) {
	if p.conn == nil {
		return
	}
	p.revision++
	m.Type, m.Revision = types.TypeServerChange, p.revision
	_ = p.conn.Send(m)
}

// Disconnect closes the control channel and refuses the next ones with err.
func (p *Panel) Disconnect(code int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusal = err
	if p.conn != nil {
		p.conn.Close(code, "the test says so")
	}
}

// Reconnect lets the tunnel server connect again, and forgets what it reported
// before.
func (p *Panel) Reconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusal = nil
	clear(p.reports)
}

func (p *Panel) forgetReports() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.reports)
}

// AwaitReport returns once an allocation has been reported in a state.
func (p *Panel) AwaitReport(id int64, state types.AllocationReportState) types.AllocationReport {
	p.t.Helper()
	var report types.AllocationReport
	p.await("the report", func() bool {
		report = p.reports[id]
		return report.State == state
	})
	return report
}

// AwaitDrained returns once an allocation that drains has been reported to have no
// player left.
func (p *Panel) AwaitDrained(id int64) {
	p.t.Helper()
	p.await("the report of a drained port", func() bool { return p.drained(id) })
}

// drained reports whether an allocation was last reported to be. It is called with
// mu held.
func (p *Panel) drained(id int64) bool {
	d := p.reports[id].Drained
	return d != nil && *d
}

// Drained reports whether an allocation was last reported to have drained.
func (p *Panel) Drained(id int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drained(id)
}

// AwaitPlayers returns once the tunnel server has said that it has n players.
func (p *Panel) AwaitPlayers(n int) {
	p.t.Helper()
	p.await("the number of players", func() bool { return p.players != nil && *p.players == n })
}

// AwaitRefused returns once the reports of an allocation have added up to n players and
// datagrams refused for a reason.
func (p *Panel) AwaitRefused(id int64, reason string, n int64) {
	p.t.Helper()
	p.await("the sum of refusals", func() bool { return p.refused[id][reason] == n })
}

// AwaitHellos returns once the tunnel server has connected n times, with its
// last hello.
func (p *Panel) AwaitHellos(n int) types.Hello {
	p.t.Helper()
	var hello types.Hello
	p.await("the hello", func() bool {
		hello = p.hello
		return p.hellos >= n
	})
	return hello
}

// AwaitResync returns once the tunnel server has asked for a snapshot.
func (p *Panel) AwaitResync() {
	p.t.Helper()
	p.await("the resync", func() bool { return p.resyncs > 0 })
}

// AwaitDisconnected returns once there is no control channel.
func (p *Panel) AwaitDisconnected() {
	p.t.Helper()
	p.await("the end of the control channel", func() bool { return p.conn == nil })
}

func (p *Panel) await(what string, true func() bool) {
	p.t.Helper()
	deadline := time.After(Patience)
	for {
		p.mu.Lock()
		met, changed := true(), p.changed
		p.mu.Unlock()
		if met {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("%s does not come", what)
		}
	}
}
