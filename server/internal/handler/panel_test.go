package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/contracttest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/check"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
)

// panel is the API on a real server and a real database, with a clock that only
// advances when told to. Every response is checked against the contract.
type panel struct {
	db      *db.DB
	auth    *auth.Auth
	url     string
	client  *http.Client
	replica uuid.UUID

	mu       sync.Mutex
	now      time.Time
	notReady error
}

func (p *panel) Now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *panel) advance(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = p.now.Add(d)
}

func (p *panel) ready(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notReady
}

// connected replaces the control channel: it responds with the device's id.
func connected(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Device", auth.FromContext(r.Context()).Device.ID.String())
	w.WriteHeader(http.StatusSwitchingProtocols)
}

// streamed replaces the event stream: it is over after its first event.
func streamed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	_, _ = io.WriteString(w, "id: 1\nevent: ready\ndata: {\"type\":\"ready\",\"at\":\"2026-01-02T08:00:00Z\"}\n\n")
}

func newPanel(t *testing.T, change ...func(o *handler.Options)) *panel {
	t.Helper()
	return newReplica(t, dbtest.New(t), time.Now().UTC().Truncate(time.Second), change...)
}

func newReplica(t *testing.T, d *db.DB, now time.Time, change ...func(o *handler.Options)) *panel {
	t.Helper()
	p := &panel{db: d, replica: uuid.New(), now: now}
	publicURL := &url.URL{Scheme: "https", Host: "panel.example.com"}
	var err error
	if p.auth, err = auth.New(t.Context(), auth.Options{
		Store: d, PublicURL: publicURL, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Now: p.Now,
	}); err != nil {
		t.Fatal(err)
	}
	enroller, err := enroll.New(enroll.Options{Store: d, Tokens: p.auth, PublicHost: "panel.example.com", Now: p.Now})
	if err != nil {
		t.Fatal(err)
	}
	providers, err := oauth.New(t.Context(), oauth.Options{Providers: someProvider(t), Store: d, PublicURL: publicURL, Now: p.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(providers.Close)
	hooks, err := webhooks.New(webhooks.Options{
		Store: d, PublicURL: publicURL, Device: handler.Device("0.1.0"), Allocation: handler.Allocation, Version: "0.1.0", Now: p.Now,
		// No name exists: a test sends nothing to where the contract's examples lead.
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	options := handler.Options{
		DB:             d,
		Auth:           p.auth,
		Enroll:         enroller,
		Providers:      providers,
		PublicURL:      publicURL,
		Version:        types.Version{Version: "0.1.0", Commit: "abc", Go: "go1.26"},
		Ready:          p.ready,
		ControlChannel: http.HandlerFunc(connected),
		Webhooks:       hooks,
		Checks:         check.New(check.Options{Store: d}),
		Events:         http.HandlerFunc(streamed),
		Logger:         slog.New(slog.DiscardHandler),
		Now:            p.Now,
	}
	for _, f := range change {
		f(&options)
	}
	api, err := handler.New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	p.run(t, p.auth.RecordUses)
	p.url = server.URL
	p.client = &http.Client{
		Transport: contracttest.Transport(t, server.Client().Transport),
		// A redirect is an answer, and leads to a provider that does not exist.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// run runs a part of the panel until the test ends.
func (p *panel) run(t *testing.T, part func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// someProvider returns an identity provider of which no metadata need be read. It takes no
// code.
func someProvider(t *testing.T) []oauth.Settings {
	t.Helper()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
	}))
	t.Cleanup(tokens.Close)
	path := filepath.Join(t.TempDir(), "providers.yaml")
	content := `{providers: [{id: company, name: Company account, type: oauth2, clientId: eclitunnel,
		authorizationUrl: "https://login.example.com/authorize", tokenUrl: "` + tokens.URL + `",
		userinfoUrl: "https://login.example.com/userinfo"}]}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	providers, err := oauth.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return providers
}

// caller is a caller with a credential, or an anonymous one.
type caller struct {
	panel  *panel
	user   db.User
	token  string
	cookie bool
	header bool // The token is an API key, and is sent in the header for keys.
}

const password = "correct horse battery staple"

// passwordHash is computed once: hashing is slow on purpose.
var passwordHash = sync.OnceValues(func() (string, error) { return auth.HashPassword(password) })

func (p *panel) anonymous() caller { return caller{panel: p} }

// user adds a user and logs in.
func (p *panel) user(t *testing.T, email, role string) caller {
	t.Helper()
	hash, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	user, err := p.db.CreateUser(t.Context(), email, hash, role)
	if err != nil {
		t.Fatal(err)
	}
	login := decode[types.Login](t, p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": email, "password": password}), 200)
	return caller{panel: p, user: user, token: login.Token}
}

// device enrolls a device and approves it, and returns it with its first token.
func (p *panel) device(t *testing.T, owner, admin caller, kind types.DeviceKind) (types.Device, caller) {
	t.Helper()
	started := decode[types.Enrollment](t, owner.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": "home", "kind": kind}), 200)
	approved := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode}), 200)
	p.advance(enroll.Interval)
	status := decode[types.EnrollmentStatus](t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll?deviceCode="+started.DeviceCode, nil), 200)
	if !approved.Success || !status.Approved || status.Token == nil {
		t.Fatalf("approved as %+v, polled as %+v", approved, status)
	}
	return approved.Device, caller{panel: p, token: *status.Token}
}

// connect marks a device as online, as its control channel would.
func (p *panel) connect(t *testing.T, id uuid.UUID) (generation int64) {
	t.Helper()
	return p.connectVersion(t, id, "0.1.0")
}

// connectVersion marks a device as online with an agent of some version.
func (p *panel) connectVersion(t *testing.T, id uuid.UUID, version string) (generation int64) {
	t.Helper()
	if err := p.db.RenewLease(t.Context(), p.replica, time.Minute); err != nil {
		t.Fatal(err)
	}
	device, err := p.db.Device(t.Context(), db.Scope{All: true}, id)
	if err != nil {
		t.Fatal(err)
	}
	hello := db.Hello{TokenVersion: device.TokenVersion, ReplicaID: p.replica, AgentVersion: version, Platform: "linux/amd64"}
	if device.Kind == db.KindServer {
		hello.RelayPort, hello.Fingerprint = 7443, "00"
	}
	if generation, err = p.db.Connect(t.Context(), id, hello); err != nil {
		t.Fatal(err)
	}
	return generation
}

// server creates a tunnel server that is online, with ports 20000 to last.
func (p *panel) server(t *testing.T, last int) db.Device {
	t.Helper()
	server, err := p.db.EnsureEmbeddedServer(t.Context(), db.EmbeddedServer{
		Name: "embedded", PublicHost: "play.example.com", PortFirst: 20000, PortLast: last,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.connect(t, server.ID)
	return server
}

// answer is a response with its body read.
type answer struct {
	method, path string
	status       int
	header       http.Header
	body         []byte
}

// send makes a request. A body that is not nil is sent as JSON, a string unchanged.
func (c caller) send(t *testing.T, method, path string, body any, headers ...string) answer {
	t.Helper()
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		reader = bytes.NewReader([]byte(body))
	default:
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, c.panel.url+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if reader != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	switch {
	case c.cookie:
		request.AddCookie(&http.Cookie{Name: "session", Value: c.token})
	case c.header:
		request.Header.Set("X-API-Key", c.token)
	case c.token != "":
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.panel.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer{method: method, path: path, status: response.StatusCode, header: response.Header, body: text}
}

// decode checks the status of a response and decodes its body.
func decode[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	var value T
	if a.status != status {
		t.Fatalf("%s %s answered %d, want %d: %s", a.method, a.path, a.status, status, a.body)
	}
	if len(a.body) > 0 {
		if err := json.Unmarshal(a.body, &value); err != nil {
			t.Fatalf("%s %s: %v in %s", a.method, a.path, err, a.body)
		}
	}
	return value
}

// wantError checks that a response is an error with a status and code, and returns it.
func wantError(t *testing.T, a answer, status int, code types.ErrorCode) types.Problem {
	t.Helper()
	failure := decode[types.Problem](t, a, status)
	if failure.Error != code {
		t.Errorf("%s %s answered %s, want %s", a.method, a.path, failure.Error, code)
	}
	if failure.Message == "" || failure.RequestID == "" || failure.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("%s %s: incomplete error %s", a.method, a.path, a.body)
	}
	return failure
}

// wantField checks that a response rejects exactly one field.
func wantField(t *testing.T, a answer, field string) {
	t.Helper()
	failure := wantError(t, a, 400, types.CodeInvalidRequest)
	if failure.Details == nil || (*failure.Details)[0].Field != field {
		t.Errorf("%s %s blames %s, want %s", a.method, a.path, a.body, field)
	}
}
