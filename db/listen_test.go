package db_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

const eventLimit = 15 * time.Second

func listen(t *testing.T, d *db.DB) <-chan db.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, err := d.Listen(ctx)
	check(t, err)
	t.Cleanup(func() {
		cancel()
		for range events {
		}
	})
	return events
}

// wantEvents waits until the devices are notified, in any order. It fails on an event of another device.
func wantEvents(t *testing.T, events <-chan db.Event, what string, want ...db.Device) {
	t.Helper()
	var missing []uuid.UUID
	for _, device := range want {
		missing = append(missing, device.ID)
	}
	deadline := time.After(eventLimit)
	for len(missing) > 0 {
		select {
		case event := <-events:
			i := slices.Index(missing, event.DeviceID)
			if i < 0 {
				t.Fatalf("%s: unexpected event %+v", what, event)
			}
			missing = slices.Delete(missing, i, i+1)
		case <-deadline:
			t.Fatalf("%s: %d devices were not notified", what, len(missing))
		}
	}
}

func wantAll(t *testing.T, events <-chan db.Event) {
	t.Helper()
	if event := await.Receive(t, events, "event"); !event.All {
		t.Fatalf("got %+v, want All", event)
	}
}

// Each change notifies exactly the devices concerned. An unexpected event fails the next step.
func TestListen_ChangesNotifyTheDevicesConcerned(t *testing.T) {
	url := dbtest.URL(t)
	d, otherReplica := dbtest.Open(t, url), dbtest.Open(t, url)
	server := enroll(t, d, db.KindServer, nil)
	client, bystander := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	allocate(t, d, bystander.ID, enroll(t, d, db.KindServer, nil).ID)
	replica := startReplica(t, d)
	events := listen(t, otherReplica)

	made := allocate(t, d, client.ID, server.ID)
	wantEvents(t, events, "create allocation", client, server)
	_, err := d.UpdateAllocation(t.Context(), everything, made.ID, db.AllocationPatch{Name: ptr("x")})
	check(t, err)
	wantEvents(t, events, "update allocation", client, server)
	connect(t, d, client, replica) // no event
	connect(t, d, client, replica) // no event
	replica = startReplica(t, d)
	connect(t, d, client, replica)
	wantEvents(t, events, "connect client to another replica", client)

	hello := db.Hello{TokenVersion: server.TokenVersion, ReplicaID: replica, RelayPort: 8443, Fingerprint: "ab"}
	_, err = d.Connect(t.Context(), server.ID, hello)
	check(t, err)
	wantEvents(t, events, "connect server at a new endpoint", client)
	hello.ReplicaID = startReplica(t, d)
	_, err = d.Connect(t.Context(), server.ID, hello)
	check(t, err)
	wantEvents(t, events, "connect server to another replica", server)

	_, err = d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("new.example.com")})
	check(t, err)
	wantEvents(t, events, "move server to another host", client, server)
	_, err = d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("new.example.com"), Region: ptr("eu")})
	check(t, err) // no event

	_, err = d.RegenerateToken(t.Context(), everything, client.ID)
	check(t, err)
	wantEvents(t, events, "regenerate token", client, server)
	check(t, d.DeleteAllocation(t.Context(), everything, made.ID))
	wantEvents(t, events, "delete allocation", client, server)

	allocate(t, d, client.ID, server.ID)
	wantEvents(t, events, "create allocation", client, server)
	check(t, d.DeleteDevice(t.Context(), everything, client.ID))
	wantEvents(t, events, "delete client", client, server)

	// A change that does not concern devices notifies none.
	check(t, d.SaveReports(t.Context(), server.ID, db.KindServer, nil))
	_, err = d.UpdateDevice(t.Context(), everything, bystander.ID, db.DevicePatch{Name: ptr("new")})
	check(t, err)
	check(t, d.RenewLease(t.Context(), replica, time.Minute))
	_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{TunnelsEnabled: ptr(false)})
	check(t, err)
	wantAll(t, events)
}

func TestListen_NewHostOfAnEmbeddedServerNotifiesItsClients(t *testing.T) {
	d := dbtest.New(t)
	spec := db.EmbeddedServer{Name: "panel", PublicHost: "old.example.com", PortFirst: 1, PortLast: 9}
	server, err := d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	client := enroll(t, d, db.KindClient, nil)
	allocate(t, d, client.ID, server.ID)
	events := listen(t, d)

	_, err = d.EnsureEmbeddedServer(t.Context(), spec) // no event, or the next step sees two
	check(t, err)
	spec.PublicHost = "new.example.com"
	_, err = d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	wantEvents(t, events, "new host", client, server)
	_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{})
	check(t, err)
	wantAll(t, events)
}

func TestListen_RolledBackChangeSendsNothing(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	first, second := allocate(t, d, client.ID, server.ID), allocate(t, d, client.ID, server.ID)
	events := listen(t, d)
	_, err := d.UpdateAllocation(t.Context(), everything, first.ID, db.AllocationPatch{Port: &second.Port})
	wantErr(t, err, db.ErrPortTaken)
	_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{})
	check(t, err)
	wantAll(t, events)
}

func TestListen_LostListenerSendsAll(t *testing.T) {
	d := dbtest.New(t)
	events := listen(t, d)
	if ended := terminateOthers(t, d, "LISTEN"); ended != 1 {
		t.Fatalf("ended %d listeners, want 1", ended)
	}
	wantAll(t, events)
	// It receives events again.
	_, err := d.UpdateSettings(t.Context(), db.SettingsPatch{})
	check(t, err)
	wantAll(t, events)
}

// A server that vanishes without closing the connection is detected because it sends nothing.
func TestListen_SilentServerIsReplaced(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	proxy := startProxy(t, url)
	behind := dbtest.Open(t, proxy.url)
	behind.SpeedUpListener()
	events := listen(t, behind)
	proxy.freeze()
	_, err := d.UpdateSettings(t.Context(), db.SettingsPatch{TunnelsEnabled: ptr(false)})
	check(t, err)
	wantAll(t, events)
}

func TestListen_SlowReaderGetsEachDeviceOnce(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	made := allocate(t, d, client.ID, server.ID)
	events := listen(t, d)
	// More than the listener's buffers hold, so it must not wait for the reader.
	for range 200 {
		_, err := d.UpdateAllocation(t.Context(), everything, made.ID, db.AllocationPatch{Name: ptr("x")})
		check(t, err)
	}
	marker := enroll(t, d, db.KindClient, nil)
	_, err := d.RegenerateToken(t.Context(), everything, marker.ID)
	check(t, err)
	counts := map[uuid.UUID]int{}
	for counts[marker.ID] == 0 {
		counts[await.Receive(t, events, "event").DeviceID]++
	}
	// A fast reader could receive up to 200 events; a slow one receives a few.
	if total := counts[client.ID] + counts[server.ID]; total > 20 {
		t.Errorf("a slow reader got %d events for two devices", total)
	}
}

func TestListen_EndsWithItsContext(t *testing.T) {
	d := dbtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := d.Listen(ctx)
	check(t, err)
	cancel()
	select {
	case _, open := <-events:
		if open {
			t.Error("an event after its context ended")
		}
	case <-time.After(eventLimit):
		t.Fatal("the channel did not close")
	}
	if _, err := d.Listen(ctx); err == nil {
		t.Error("listens with a context that has ended")
	}
}

// proxy forwards bytes between a client and the server, and can stop without closing.
type proxy struct {
	url string

	mu     sync.Mutex
	frozen []chan struct{} // of the connections there are
}

func startProxy(t *testing.T, url string) *proxy {
	t.Helper()
	config, err := pq.NewConfig(url)
	check(t, err)
	network, address := "tcp", net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	if strings.HasPrefix(config.Host, "/") {
		network, address = "unix", config.Host+"/.s.PGSQL."+strconv.Itoa(int(config.Port))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &proxy{url: "postgres://" + config.User + ":" + config.Password + "@" + listener.Addr().String() + "/" +
		config.Database + "?sslmode=disable"}
	var connections sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		connections.Wait()
	})
	connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address)
			if err != nil {
				_ = client.Close()
				continue
			}
			frozen := make(chan struct{})
			p.mu.Lock()
			p.frozen = append(p.frozen, frozen)
			p.mu.Unlock()
			connections.Go(func() { pass(server, client, frozen) })
			connections.Go(func() { pass(client, server, frozen) })
		}
	})
	return p
}

// freeze stops forwarding on all current connections. New ones work.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, frozen := range p.frozen {
		close(frozen)
	}
	p.frozen = nil
}

// pass copies until either end closes, and discards everything once frozen.
func pass(to, from net.Conn, frozen <-chan struct{}) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(writerFunc(func(b []byte) (int, error) {
		select {
		case <-frozen:
			return len(b), nil
		default:
			return to.Write(b)
		}
	}), from)
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// The listener must connect where the pool does: a standby sends no notifications.
func TestListen_WaitsForAServerThatAcceptsWrites(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	config, err := pq.NewConfig(url)
	check(t, err)
	_, err = dbtest.SQL(t, d).ExecContext(t.Context(),
		`ALTER DATABASE `+pq.QuoteIdentifier(config.Database)+` SET default_transaction_read_only = on`)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := d.Listen(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it listens where no writes are taken: %v", err)
	}
}
