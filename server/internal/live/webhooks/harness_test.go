package webhooks_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
)

// received is a request that a receiver got.
type received struct {
	method, path string
	header       http.Header
	body         []byte
}

// payload decodes a message of the format standard.
func (r received) payload(t *testing.T) types.WebhookPayload {
	t.Helper()
	var payload types.WebhookPayload
	if err := json.Unmarshal(r.body, &payload); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return payload
}

// verify checks the signature as a receiver does.
func (r received) verify(t *testing.T, secret string) {
	t.Helper()
	checker, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	// Its clock is not that of the test.
	if err := checker.VerifyIgnoringTimestamp(r.body, r.header); err != nil {
		t.Errorf("signature of %s: %v", r.body, err)
	}
}

// receiver is somebody's HTTP server. It answers with a status that the test sets, 204 at first.
type receiver struct {
	url  string
	got  chan received
	held chan struct{} // Closed unless the receiver is slow.

	mu     sync.Mutex
	status int
	header http.Header
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan received, 100), status: http.StatusNoContent, header: http.Header{}, held: make(chan struct{})}
	close(r.held)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		status, held := r.status, r.held
		for name, values := range r.header {
			w.Header()[name] = values
		}
		r.mu.Unlock()
		r.got <- received{request.Method, request.URL.RequestURI(), request.Header, body}
		select {
		case <-held:
		case <-request.Context().Done():
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "what nobody else must read")
	}))
	t.Cleanup(server.Close)
	r.url = server.URL + "/hook?token=a-secret"
	return r
}

func (r *receiver) answer(status int, header ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.header = status, http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		r.header.Set(header[i], header[i+1])
	}
}

// hold has the receiver not answer until release is called.
func (r *receiver) hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make(chan struct{})
	r.held = held
	return sync.OnceFunc(func() { close(held) })
}

// fleet is a database with devices, and services of replicas with one clock.
type fleet struct {
	*testing.T
	url     string // Of the database.
	db      *db.DB
	exec    func(query string, args ...any)
	replica uuid.UUID

	mu  sync.Mutex
	now time.Time
}

func newFleet(t *testing.T) *fleet {
	address := dbtest.URL(t)
	f := &fleet{T: t, url: address, db: dbtest.Open(t, address), replica: uuid.New(), now: time.Now().UTC()}
	sql := dbtest.SQL(t, f.db)
	f.exec = func(query string, args ...any) {
		t.Helper()
		if _, err := sql.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	f.check(f.db.RenewLease(t.Context(), f.replica, time.Hour))
	return f
}

func (f *fleet) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fleet) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fleet) user(email string) int64 {
	f.Helper()
	user, err := f.db.CreateUser(f.Context(), email, "hash", "user")
	f.check(err)
	return user.ID
}

// device makes an approved device that is online, and returns it with its generation.
func (f *fleet) device(kind string, owner db.APIKeyOwner) (db.Device, int64) {
	f.Helper()
	created := db.NewDevice{Name: "home", Kind: kind, OwnerID: owner.UserID, OrganisationID: owner.OrganisationID, CreatedAt: f.Now(), ExpiresAt: f.Now(), Approved: true}
	if kind == db.KindServer {
		created.Name, created.PublicHost, created.PortFirst, created.PortLast = "edge", "play.example.com", 20000, 20010
	}
	device, err := f.db.CreateDevice(f.Context(), created)
	f.check(err)
	return device, f.connect(device)
}

func (f *fleet) connect(device db.Device) int64 {
	f.Helper()
	hello := db.Hello{TokenVersion: device.TokenVersion, ReplicaID: f.replica}
	if device.Kind == db.KindServer {
		hello.RelayPort, hello.Fingerprint = 7443, "00"
	}
	generation, err := f.db.Connect(f.Context(), device.ID, hello)
	f.check(err)
	return generation
}

// disconnect has a device offline since now. The database's clock does not follow that of the test.
func (f *fleet) disconnect(device db.Device, generation int64) {
	f.Helper()
	f.check(f.db.Disconnect(f.Context(), device.ID, generation, ""))
	f.exec(`UPDATE devices SET last_seen_at = $2 WHERE id = $1`, device.ID, f.Now())
}

// waiting makes a device that waits for approval.
func (f *fleet) waiting(name, code string, owner int64) db.Device {
	f.Helper()
	hash := sha256.Sum256([]byte(code))
	device, err := f.db.CreateDevice(f.Context(), db.NewDevice{
		Name: name, Kind: db.KindClient, OwnerID: &owner, UserCode: code, CodeHash: hash[:], CreatedAt: f.Now(), ExpiresAt: f.Now().Add(10 * time.Minute),
	})
	f.check(err)
	return device
}

// webhook makes a webhook of an owner, or of the whole site, for types of events.
func (f *fleet) webhook(owner db.APIKeyOwner, format types.WebhookFormat, to string, events ...string) db.Webhook {
	f.Helper()
	u, err := url.Parse(to)
	f.check(err)
	webhook, err := f.db.CreateWebhook(f.Context(), db.Scope{All: true}, db.Webhook{
		APIKeyOwner: owner, Name: "alerts", Format: string(format), URL: to, Target: u.Scheme + "://" + u.Host, Events: events,
		OfflineDelay: 60, Enabled: true, Secret: webhooks.NewSecret(), CreatedAt: f.Now(),
	})
	f.check(err)
	return webhook
}

func (f *fleet) read(webhook db.Webhook) db.Webhook {
	f.Helper()
	webhook, err := f.db.Webhook(f.Context(), db.Scope{All: true}, webhook.ID)
	f.check(err)
	return webhook
}

func (f *fleet) deliveries(webhook db.Webhook) []db.WebhookDelivery {
	f.Helper()
	deliveries, err := f.db.WebhookDeliveries(f.Context(), db.Scope{All: true}, webhook.ID, db.Page[int64]{})
	f.check(err)
	return deliveries
}

// nothing checks that a webhook is told nothing.
func (f *fleet) nothing(webhook db.Webhook, why string) {
	f.Helper()
	if deliveries := f.deliveries(webhook); len(deliveries) > 0 {
		f.Fatalf("%s, and there is %s", why, deliveries[0].Payload)
	}
}

// settled waits until the newest delivery of a webhook has a state after a number of attempts, and returns it.
func (f *fleet) settled(webhook db.Webhook, state string, attempts int) (last db.WebhookDelivery) {
	f.Helper()
	await.Until(f.T, state, func() bool {
		deliveries := f.deliveries(webhook)
		if len(deliveries) == 0 {
			return false
		}
		last = deliveries[0]
		return last.State == state && last.Attempts == attempts
	})
	return last
}

// service is the service of a replica. Its tickers tick when the test says so.
type service struct {
	*webhooks.Service
	f     *fleet
	ticks map[time.Duration]chan time.Time
	stop  func()
}

// start runs the service of a replica until the test ends.
func (f *fleet) start(change ...func(o *webhooks.Options)) *service {
	f.Helper()
	s := &service{f: f, ticks: map[time.Duration]chan time.Time{}}
	for _, every := range []time.Duration{sweepEvery, pollEvery, pruneEvery} {
		s.ticks[every] = make(chan time.Time)
	}
	options := webhooks.Options{
		Store: f.db, PublicURL: &url.URL{Scheme: "https", Host: "panel.example.com"}, Device: handler.Device("0.1.0"), Allocation: handler.Allocation,
		Version: "0.1.0", PrivateTargets: true, Logger: slog.New(slog.DiscardHandler), Now: f.Now, Rand: func() float64 { return 0.5 },
		Every: func(d time.Duration) (<-chan time.Time, func()) { return s.ticks[d], func() {} },
	}
	for _, c := range change {
		c(&options)
	}
	var err error
	s.Service, err = webhooks.New(options)
	f.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(s.stop)
	return s
}

// The intervals of the service's tickers.
const (
	sweepEvery = 5 * time.Second
	pollEvery  = 2 * time.Second
	pruneEvery = 10 * time.Minute
)

// tick has a ticker tick, and waits until what that began is done: a loop takes the second tick only then.
func (s *service) tick(every time.Duration) {
	s.f.Helper()
	for range 2 {
		select {
		case s.ticks[every] <- s.f.Now():
		case <-time.After(await.Timeout):
			s.f.Fatalf("the loop of %v does not run", every)
		}
	}
}

// pass lets time pass, with a sweep every ten seconds as while a panel runs.
func (s *service) pass(d time.Duration) {
	s.f.Helper()
	s.tick(sweepEvery)
	for ; d > 0; d -= 10 * time.Second {
		s.f.advance(min(d, 10*time.Second))
		s.tick(sweepEvery)
	}
	s.tick(pollEvery)
}
