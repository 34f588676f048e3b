package control_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
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
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// patience bounds every wait for something that must come.
const patience = 10 * time.Second

// replica is a hub behind a real HTTP server. Who dials is in a header here; the
// API's middleware puts it into the context in the panel.
type replica struct {
	t   *testing.T
	hub *control.Hub
	url string

	mu      sync.Mutex
	tickets int
	clocks  map[time.Duration]chan time.Time
}

type deviceKey struct{}

func startReplica(t *testing.T, d *db.DB, change ...func(*control.Options)) *replica {
	t.Helper()
	r := &replica{t: t, clocks: map[time.Duration]chan time.Time{}}
	opts := control.Options{
		Store:  d,
		Ticket: r.ticket,
		Keys:   func() types.JWKS { return types.JWKS{Keys: []types.JWK{{Kid: "k1"}}} },
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.hub.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
}

// ticket is different each time, as a signature with a new time is.
func (r *replica) ticket(client, server uuid.UUID, version int64) (string, error) {
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

// tick lets d pass, and returns once the hub has noticed.
func (r *replica) tick(d time.Duration) {
	r.t.Helper()
	r.mu.Lock()
	clock := r.clocks[d]
	r.mu.Unlock()
	select {
	case clock <- time.Now():
	case <-time.After(patience):
		r.t.Fatalf("nothing waits for %v to pass", d)
	}
}

// peer is a device's end of a control channel.
type peer struct {
	t        *testing.T
	ws       *websocket.Conn
	messages chan any
	ended    chan error // The reader's error, once.
}

// dial opens the channel without saying anything.
func (r *replica) dial(t *testing.T, device db.Device) *peer {
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
	p := &peer{t: t, ws: ws, messages: make(chan any, 64), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- p.read()
	}()
	t.Cleanup(func() {
		ws.Close()
		<-done
	})
	return p
}

func (p *peer) read() error {
	for {
		_, data, err := p.ws.ReadMessage()
		if err != nil {
			return err
		}
		var message types.ControlMessage
		if err := json.Unmarshal(data, &message); err != nil {
			return err
		}
		value, err := message.ValueByDiscriminator()
		if err != nil {
			return err
		}
		p.messages <- value
	}
}

// connect opens the channel and says hello.
func (r *replica) connect(t *testing.T, device db.Device) *peer {
	t.Helper()
	p := r.dial(t, device)
	hello := types.Hello{Type: types.TypeHello, AgentVersion: "0.1.0", Platform: "linux/amd64"}
	if device.Kind == db.KindServer {
		hello.Relay = &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)}
	}
	p.send(hello)
	return p
}

func (p *peer) send(message any) {
	p.t.Helper()
	if err := p.ws.WriteJSON(message); err != nil {
		p.t.Fatal(err)
	}
}

// next waits for a message of type M.
func next[M any](p *peer) M {
	p.t.Helper()
	select {
	case message := <-p.messages:
		m, ok := message.(M)
		if !ok {
			p.t.Fatalf("got a %T: %+v", message, message)
		}
		return m
	case err := <-p.ended:
		p.t.Fatalf("channel ended: %v", err)
	case <-time.After(patience):
		p.t.Fatalf("no %T", *new(M))
	}
	panic("not reached")
}

// closed waits for the channel's end, at most for limit, and returns its close
// code.
func (p *peer) closed(limit time.Duration) int {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		var closed *websocket.CloseError
		if !errors.As(err, &closed) {
			p.t.Fatalf("ended without a close frame: %v", err)
		}
		return closed.Code
	case <-time.After(limit):
		p.t.Fatalf("still open after %v", limit)
	}
	panic("not reached")
}

// eventually polls the database, which gives no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// enroll makes an approved device of an owner of its own.
func enroll(t *testing.T, d *db.DB, kind string) db.Device {
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
		At: now, PublicHost: "play.example.com", PortFirst: 20000, PortLast: 29999,
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
		LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60,
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

// get asks for the channel without an upgrade.
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
