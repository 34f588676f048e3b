package agent

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// timeout bounds every wait for a signal: no test waits that long unless it
// fails.
const timeout = 10 * time.Second

func next[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(timeout):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// fakeLinks records what is applied and reports what the test sets.
type fakeLinks struct {
	applied chan []types.ClientAllocation
	servers chan []types.ClientServer
	final   chan error
	change  func()

	mu      sync.Mutex
	reports []types.AllocationReport
	links   []link.Link
	carried map[int64]target.Carried
}

func (l *fakeLinks) Apply(servers []types.ClientServer, allocations []types.ClientAllocation) {
	l.applied <- allocations
	l.servers <- servers
}

func (l *fakeLinks) Reports() []types.AllocationReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reports)
}

func (l *fakeLinks) Links() []link.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.links)
}

func (l *fakeLinks) Carried() map[int64]target.Carried {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.carried)
}

func (l *fakeLinks) Run(ctx context.Context) error {
	select {
	case err := <-l.final:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (l *fakeLinks) report(reports ...types.AllocationReport) {
	l.mu.Lock()
	l.reports = reports
	l.mu.Unlock()
	l.change()
}

// panel is a panel whose side of each control channel the test plays.
type panel struct {
	*httptest.Server
	channels chan *panelChannel
	refuse   chan types.Problem // Answers for the next upgrades.
	mute     chan struct{}      // Nothing is read after the next upgrade.
	devices  chan types.Device  // Answers for agents that ask about their device.

	allocations chan []types.Allocation // Answers for agents that ask about their ports; one that is missing is empty.
}

// refusalStatus is the status of a panel's refusal by its code.
var refusalStatus = map[types.ErrorCode]int{
	types.CodeUnauthorized: 401, types.CodeTokenRevoked: 401, types.CodeDeviceDeleted: 401, types.CodeForbidden: 403,
	types.CodeNotFound: 404, types.CodeFeatureDisabled: 503, types.CodeUnknownDevice: 503,
}

type panelChannel struct {
	*channel.Conn
	received chan any
	ended    chan error
}

func newPanel(t *testing.T) *panel {
	t.Helper()
	p := &panel{channels: make(chan *panelChannel, 8), refuse: make(chan types.Problem, 8), mute: make(chan struct{}, 1), devices: make(chan types.Device), allocations: make(chan []types.Allocation, 8)}
	stop := make(chan struct{})
	var running sync.WaitGroup
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		select {
		case refusal := <-p.refuse:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(cmp.Or(refusalStatus[refusal.Error], 400))
			_ = json.NewEncoder(w).Encode(refusal)
			return
		default:
		}
		if r.URL.Path == "/api/tunnel/allocations" {
			list := []types.Allocation{}
			select {
			case list = <-p.allocations:
			default:
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(list)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/tunnel/devices/") {
			select {
			case device := <-p.devices:
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(device)
			case <-r.Context().Done():
			case <-stop:
			}
			return
		}
		upgrader := websocket.Upgrader{}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		select {
		case <-p.mute:
			<-stop
			_ = ws.Close()
		default:
			p.serve(channel.New(ws, channel.Options{}))
		}
	}))
	t.Cleanup(running.Wait)
	t.Cleanup(func() { close(stop) })
	t.Cleanup(p.Close)
	return p
}

func (p *panel) serve(conn *channel.Conn) {
	c := &panelChannel{Conn: conn, received: make(chan any, 64), ended: make(chan error, 1)}
	p.channels <- c
	for {
		data, err := c.Receive()
		if err != nil {
			c.ended <- err
			break
		}
		var message types.ControlMessage
		if err := json.Unmarshal(data, &message); err != nil {
			c.received <- err
			continue
		}
		value, err := message.ValueByDiscriminator()
		if err != nil {
			value = err
		}
		c.received <- value
	}
	c.Wait()
}

// running is an agent under test.
type running struct {
	*panel
	agent   *Agent
	links   *fakeLinks
	metrics *prometheus.Registry
	events  chan Event
	result  chan error
	stop    context.CancelFunc
	done    chan struct{} // Closed once Run has returned.
}

// standbyTimes let another agent be gone after two answers of the panel.
var standbyTimes = controlclient.StandbyTimes{Poll: time.Millisecond, Grace: time.Nanosecond}

// deviceToken is a token of a client, issued by the panel with the identity tokenPanel.
var (
	tokenPanel  = uuid.New()
	deviceToken = "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"sub":%q,"kind":"client","panel":%q}`, uuid.New(), tokenPanel)) + ".c2ln"
)

func start(t *testing.T) *running { return startAt(t, newPanel(t), nil) }

// startAt starts an agent of a panel. Options may be changed before; change may
// be nil.
func startAt(t *testing.T, p *panel, change func(*Options)) *running {
	t.Helper()
	client, err := tunnel.New(tunnel.Options{PanelURL: p.URL, Insecure: true, Token: func() string { return deviceToken }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{
		panel:   p,
		links:   &fakeLinks{applied: make(chan []types.ClientAllocation, 64), servers: make(chan []types.ClientServer, 64), final: make(chan error, 1)},
		metrics: prometheus.NewPedanticRegistry(),
		events:  make(chan Event, 64),
		result:  make(chan error, 1),
		stop:    cancel,
		done:    make(chan struct{}),
	}
	options := Options{
		Client: client, Version: "1.2.3", Platform: "test/arch",
		Metrics: r.metrics,
		OnEvent: func(e Event) { r.events <- e },
		Channel: channel.Options{PingInterval: 50 * time.Millisecond, Deadline: 2 * time.Second},
		Backoff: backoff.Exponential{Min: time.Millisecond, Max: 10 * time.Millisecond},
		Standby: standbyTimes,
	}
	if change != nil {
		change(&options)
	}
	a, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	a.links, r.agent = r.links, a
	r.links.change = a.signal
	go func() {
		r.result <- a.Run(ctx)
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		client.Close()
	})
	return r
}

// channel returns the next control channel, after its hello.
func (r *running) channel(t *testing.T) *panelChannel {
	t.Helper()
	c := next(t, r.channels, "a control channel")
	hello, ok := next(t, c.received, "hello").(types.Hello)
	if !ok || hello.AgentVersion != "1.2.3" || hello.Platform != "test/arch" || hello.Relay != nil {
		t.Fatalf("hello %+v", hello)
	}
	return c
}

func (r *running) event(t *testing.T, want EventType) Event {
	t.Helper()
	for {
		if e := next(t, r.events, string(want)); e.Type == want {
			return e
		}
	}
}

func (r *running) appliedIDs(t *testing.T) []int64 {
	t.Helper()
	ids := []int64{}
	for _, a := range next(t, r.links.applied, "Apply") {
		ids = append(ids, a.ID)
	}
	return ids
}

func (c *panelChannel) send(t *testing.T, message any) {
	t.Helper()
	if err := c.Send(message); err != nil {
		t.Fatal(err)
	}
}

func (c *panelChannel) status(t *testing.T) types.StatusReport {
	t.Helper()
	m := next(t, c.received, "a status report")
	report, ok := m.(types.StatusReport)
	if !ok {
		t.Fatalf("got %#v, want a status report", m)
	}
	return report
}

func allocation(id int64) types.ClientAllocation {
	return types.ClientAllocation{
		ID: id, Protocol: types.ProtocolTCP, PublicAddress: fmt.Sprintf("play.test:%d", 20000+id),
		LocalHost: "127.0.0.1", LocalPort: 25565,
	}
}

func snapshot(revision int64, ids ...int64) types.ClientSnapshot {
	m := types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: revision, Allocations: []types.ClientAllocation{}, Servers: []types.ClientServer{}}
	for _, id := range ids {
		m.Allocations = append(m.Allocations, allocation(id))
	}
	return m
}

func change(revision int64, add, remove []int64) types.ClientChange {
	m := types.ClientChange{
		Type: types.TypeClientChange, Revision: revision, Allocations: []types.ClientAllocation{},
		RemovedAllocations: append([]int64{}, remove...), Servers: []types.ClientServer{}, RemovedServers: []uuid.UUID{},
	}
	for _, id := range add {
		m.Allocations = append(m.Allocations, allocation(id))
	}
	return m
}

func readyReport(id int64) types.AllocationReport {
	return types.AllocationReport{ID: id, State: types.ReportReady}
}

func failedReport(id int64, reason string) types.AllocationReport {
	return types.AllocationReport{ID: id, State: types.ReportFailed, Reason: &reason}
}

func wantIDs(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("applied %v, want %v", got, want)
	}
}
