//go:build linux

package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// The agent's own times; see internal/channel.
const (
	pingInterval = 3 * time.Second
	deadline     = 9 * time.Second
	backoffMin   = 250 * time.Millisecond
	backoffMax   = 4 * time.Second
)

// device holds the control channel of an enrolled device, and does nothing
// but report that everything it is asked for is done.
type device struct {
	id    uuid.UUID
	token string
	relay *types.RelayEndpoint // nil for a tunnel client.
	live  *livePlayers         // Whom a tunnel server reports; nil: nobody.

	mu        sync.Mutex
	listening map[int64]time.Time // When it received each allocation.
}

// fleet is devices that are kept connected to one address.
type fleet struct {
	address string
	devices []*device
	// platform is what they say to run on, and by which their rows are found.
	platform string
	slow     bool // On slow lines.

	connected atomic.Int64 // Those that have a snapshot.
	connects  atomic.Int64 // Snapshots ever.
	failures  sync.Map     // Why connecting failed, or channels ended: a string to an *atomic.Int64.
	dead      atomic.Int64 // Those that were closed for good.
}

// run keeps the devices connected until ctx ends, and returns once they are not.
func (f *fleet) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, d := range f.devices {
		group.Go(func() { f.keep(ctx, d) })
	}
	group.Wait()
}

// keep reconnects as an agent does: with full jitter.
func (f *fleet) keep(ctx context.Context, d *device) {
	failures := 0
	for ctx.Err() == nil {
		served, err := f.serve(ctx, d)
		if served {
			failures = 0
		}
		if ctx.Err() != nil {
			return
		}
		f.count(err)
		if final(err) {
			f.dead.Add(1)
			return
		}
		ceiling := min(backoffMin<<min(failures, 10), backoffMax)
		failures++
		timer := time.NewTimer(time.Duration(rand.Float64() * float64(ceiling)))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// final reports whether an agent would stop for good.
func final(err error) bool {
	return websocket.IsCloseError(err, 4401, 4404, 4409) || strings.HasPrefix(err.Error(), "HTTP 401") ||
		strings.HasPrefix(err.Error(), "HTTP 403") || strings.HasPrefix(err.Error(), "HTTP 404")
}

func (f *fleet) count(err error) {
	text := err.Error()
	switch {
	case strings.Contains(text, "connection refused"):
		text = "connection refused"
	case strings.Contains(text, "connection reset"), strings.Contains(text, "EOF"):
		text = "connection reset"
	case strings.Contains(text, "i/o timeout"):
		text = "timeout"
	}
	n, _ := f.failures.LoadOrStore(text, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// unexpected lists failures other than those named.
func (f *fleet) unexpected(expected ...string) []string {
	var list []string
	f.failures.Range(func(key, n any) bool {
		for _, e := range expected {
			if strings.Contains(key.(string), e) {
				return true
			}
		}
		list = append(list, fmt.Sprintf("%d of %s", n.(*atomic.Int64).Load(), key))
		return true
	})
	return list
}

func (f *fleet) String() string {
	var list []string
	f.failures.Range(func(key, n any) bool {
		list = append(list, fmt.Sprintf("%d %s", n.(*atomic.Int64).Load(), key))
		return true
	})
	return strings.Join(list, ", ")
}

// serve runs one control channel. It reports whether it was served.
func (f *fleet) serve(ctx context.Context, d *device) (served bool, err error) {
	dialer := websocket.Dialer{HandshakeTimeout: 15 * time.Second, ReadBufferSize: 1024, WriteBufferSize: 1024}
	if f.slow {
		dialer.NetDialContext = dialSlowly
	}
	ws, resp, err := dialer.DialContext(ctx, "ws://"+f.address+"/api/tunnel/ws", http.Header{"Authorization": {"Bearer " + d.token}})
	if err != nil {
		if resp != nil {
			return false, fmt.Errorf("HTTP %s", resp.Status)
		}
		return false, err
	}
	defer ws.Close()
	// A WebSocket read knows no context.
	stop := context.AfterFunc(ctx, func() { _ = ws.Close() })
	defer stop()
	extend := func() { _ = ws.SetReadDeadline(time.Now().Add(deadline)) }
	pong := ws.PingHandler()
	ws.SetPingHandler(func(data string) error { extend(); return pong(data) })
	ws.SetPongHandler(func(string) error { extend(); return nil })
	extend()
	var pings *time.Timer
	set := make(chan struct{})
	pings = time.AfterFunc(time.Duration(rand.Float64()*float64(pingInterval)), func() {
		<-set
		if ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(deadline)) == nil {
			pings.Reset(pingInterval)
		}
	})
	close(set)
	defer pings.Stop()
	if err := ws.WriteJSON(types.Hello{Type: types.TypeHello, AgentVersion: "load", Platform: f.platform, Relay: d.relay}); err != nil {
		return false, err
	}
	writes := &messages{ws: ws}
	stopReports := func() {}
	defer func() { stopReports() }()
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			if served {
				f.connected.Add(-1)
			}
			return served, err
		}
		extend()
		if !served {
			served = true
			f.connected.Add(1)
			f.connects.Add(1)
			stopReports = d.startReports(ctx, writes)
		}
		if err := d.report(writes, data); err != nil {
			f.connected.Add(-1)
			return served, err
		}
	}
}

// messages writes to a control channel. It is safe for concurrent use.
type messages struct {
	mu sync.Mutex
	ws *websocket.Conn
}

func (m *messages) write(message any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ws.WriteJSON(message)
}

// startReports has the players of a tunnel server reported until stop is called.
func (d *device) startReports(ctx context.Context, writes *messages) (stop func()) {
	if d.live == nil {
		return func() {}
	}
	reporting, end := context.WithCancel(ctx)
	var reports sync.WaitGroup
	reports.Go(func() { d.live.report(reporting, writes) })
	return func() {
		end()
		_ = writes.ws.Close() // A write knows no context.
		reports.Wait()
	}
}

// report reports what a message asks for as done.
func (d *device) report(writes *messages, data []byte) error {
	var message struct {
		Type        string
		Revision    int64
		Allocations []struct{ ID int64 }
	}
	if err := json.Unmarshal(data, &message); err != nil {
		return err
	}
	if message.Type == string(types.TypeUsageAck) && d.live != nil {
		d.live.acknowledged()
	}
	var reports []types.AllocationReport
	now := time.Now()
	d.mu.Lock()
	for _, a := range message.Allocations {
		if _, ok := d.listening[a.ID]; !ok {
			d.listening[a.ID] = now
		}
		reports = append(reports, types.AllocationReport{ID: a.ID, State: types.ReportReady})
	}
	d.mu.Unlock()
	for part := range slices.Chunk(reports, types.MaxStatusReportAllocations) {
		report := types.StatusReport{Type: types.TypeStatus, Revision: message.Revision, Allocations: part}
		if err := writes.write(report); err != nil {
			return err
		}
	}
	return nil
}

// enroll makes n devices, each of which the admin approves; relay is nil for
// tunnel clients.
func enroll(t *testing.T, admin *client.ClientWithResponses, n int, relay *types.RelayEndpoint) []*device {
	t.Helper()
	kind := types.DeviceKindClient
	if relay != nil {
		kind = types.DeviceKindServer
	}
	made := make([]*device, n)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range made {
		group.Go(func() (err error) {
			made[i], err = enrollOne(ctx, admin, fmt.Sprintf("%s-%d", kind, i), kind)
			if err == nil {
				made[i].relay = relay
			}
			return err
		})
	}
	check(t, group.Wait())
	return made
}

func enrollOne(ctx context.Context, admin *client.ClientWithResponses, name string, kind types.DeviceKind) (*device, error) {
	start, err := admin.StartEnrollmentWithResponse(ctx, types.EnrollmentStart{Name: name, Kind: &kind})
	if err != nil {
		return nil, err
	}
	if start.JSON200 == nil {
		return nil, fmt.Errorf("start: %s", start.Body)
	}
	approval, err := admin.ApproveDeviceWithResponse(ctx, types.DeviceApproval{UserCode: start.JSON200.UserCode})
	if err != nil {
		return nil, err
	}
	if approval.JSON200 == nil {
		return nil, fmt.Errorf("approve: %s", approval.Body)
	}
	poll, err := admin.PollEnrollmentWithResponse(ctx, &types.PollEnrollmentParams{DeviceCode: start.JSON200.DeviceCode})
	if err != nil {
		return nil, err
	}
	if poll.JSON200 == nil || poll.JSON200.Token == nil {
		return nil, fmt.Errorf("poll: %s", poll.Body)
	}
	return &device{id: approval.JSON200.Device.ID, token: *poll.JSON200.Token, listening: map[int64]time.Time{}}, nil
}

// allocate gives each device a port on a tunnel server.
func allocate(t *testing.T, admin *client.ClientWithResponses, devices []*device, server *device) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for _, d := range devices {
		group.Go(func() error {
			made, err := admin.CreateAllocationWithResponse(ctx, types.AllocationCreate{
				DeviceID: &d.id, ServerID: &server.id, Protocol: types.CreateTCP, LocalPort: 25565,
			})
			if err == nil && made.JSON201 == nil {
				err = fmt.Errorf("allocate: %s", made.Body)
			}
			return err
		})
	}
	check(t, group.Wait())
}
