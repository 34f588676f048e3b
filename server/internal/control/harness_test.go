package control_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// replica is a hub behind a real HTTP server. A header identifies the device; in the
// panel, the API's middleware stores it in the context.
type replica struct {
	t   *testing.T
	hub *control.Hub
	url string

	mu      sync.Mutex
	tickets int
	keys    []types.JWK
	revoked bool // What the next ReloadKeys reports.
	clocks  map[time.Duration]chan time.Time
}

type deviceKey struct{}

func startReplica(t *testing.T, d *db.DB, change ...func(*control.Options)) *replica {
	t.Helper()
	r := &replica{t: t, keys: []types.JWK{{Kid: "k1"}}, clocks: map[time.Duration]chan time.Time{}}
	opts := control.Options{
		Store:  d,
		Ticket: r.ticket,
		Keys: func() types.JWKS {
			r.mu.Lock()
			defer r.mu.Unlock()
			return types.JWKS{Keys: r.keys}
		},
		ReloadKeys: func(context.Context) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.revoked, nil
		},
		Caller: func(ctx context.Context) (control.Device, bool) {
			device, ok := ctx.Value(deviceKey{}).(control.Device)
			return device, ok
		},
		Every:  r.every,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&opts)
	}
	hub, err := control.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := hub.Start(ctx); err != nil {
		cancel()
		t.Fatal(err)
	}
	r.hub = hub
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var device control.Device
		if text := req.Header.Get("Test-Device"); text != "" {
			if err := json.Unmarshal([]byte(text), &device); err != nil {
				t.Errorf("Test-Device: %v", err)
			}
			req = req.WithContext(context.WithValue(req.Context(), deviceKey{}, device))
		}
		hub.ServeHTTP(w, req)
	}))
	r.url = "ws" + strings.TrimPrefix(server.URL, "http")
	t.Cleanup(func() {
		defer cancel()
		defer server.Close()
		r.shutdown()
	})
	return r
}

func (r *replica) shutdown() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), controltest.Patience)
	defer cancel()
	if err := r.hub.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
}

// ticket returns a different ticket each time.
func (r *replica) ticket(client, server uuid.UUID, version int64, _ time.Time) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tickets++
	return fmt.Sprintf("%s %s %d #%d", client, server, version, r.tickets), nil
}

func (r *replica) every(d time.Duration) (<-chan time.Time, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clock := make(chan time.Time)
	r.clocks[d] = clock
	return clock, func() {}
}

// tick makes the ticker with period d tick, and returns once the hub has received it.
func (r *replica) tick(d time.Duration) {
	r.t.Helper()
	r.mu.Lock()
	clock := r.clocks[d]
	r.mu.Unlock()
	select {
	case clock <- time.Now():
	case <-time.After(controltest.Patience):
		r.t.Fatalf("nothing receives the ticks of the ticker with period %v", d)
	}
}

// dial opens the channel and sends nothing.
func (r *replica) dial(t *testing.T, device db.Device) *controltest.Peer {
	t.Helper()
	who, err := json.Marshal(control.Device{ID: device.ID, Kind: types.DeviceKind(device.Kind), TokenVersion: device.TokenVersion})
	if err != nil {
		t.Fatal(err)
	}
	ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), r.url, http.Header{"Test-Device": {string(who)}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return controltest.NewPeer(t, ws)
}

// connect opens the channel and sends a hello.
func (r *replica) connect(t *testing.T, device db.Device) *controltest.Peer {
	t.Helper()
	p := r.dial(t, device)
	var relay *types.RelayEndpoint
	if device.Kind == db.KindServer {
		relay = &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)}
	}
	p.Hello(relay)
	return p
}

// enroll creates an approved device with a new owner.
func enroll(t *testing.T, d *db.DB, kind string) db.Device {
	t.Helper()
	return enrollFor(t, d, kind, nil)
}

// enrollFor creates an approved device of an organisation, or with a new owner.
func enrollFor(t *testing.T, d *db.DB, kind string, organisation *int64) db.Device {
	t.Helper()
	owner, err := d.CreateUser(t.Context(), rand.Text()+"@example.com", "hash", "user")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	device, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "a " + kind, Kind: kind, OwnerID: &owner.ID, UserCode: rand.Text()[:8], CodeHash: []byte(rand.Text()),
		CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	device, err = d.ApproveDevice(t.Context(), device.ID, db.Approval{
		At: now, OrganisationID: organisation, PublicHost: "play.example.com", PortFirst: 20000, PortLast: 29999,
	})
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// allocate gives a client a port on a server.
func allocate(t *testing.T, d *db.DB, client, server db.Device, protocol string, port int) db.Allocation {
	t.Helper()
	rows, err := d.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: client.ID, ServerID: &server.ID, Protocols: []string{protocol}, Port: port,
		LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60, PlayerAddresses: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows[0]
}

func device(t *testing.T, d *db.DB, row db.Device) db.Device {
	t.Helper()
	now, err := d.Device(t.Context(), db.Scope{All: true}, row.ID)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func allocation(t *testing.T, d *db.DB, id int64) db.Allocation {
	t.Helper()
	now, err := d.Allocation(t.Context(), db.Scope{All: true}, id)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// get requests the channel without an upgrade.
func get(t *testing.T, url, who string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if who != "" {
		req.Header.Set("Test-Device", who)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return resp
}
