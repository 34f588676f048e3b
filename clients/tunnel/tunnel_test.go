package tunnel_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is one scripted answer of a panel.
type answer struct {
	status     int
	body       any // A string is sent as HTML, anything else as JSON.
	retryAfter string
	link, tag  string // The Link and ETag headers.
	abort      bool   // Close the connection instead.
}

func problem(status int, code types.ErrorCode) answer {
	return answer{status: status, body: types.Problem{Error: code, Message: "No.", RequestID: "r1"}}
}

// script serves the answers in order and then repeats the last one.
type script struct {
	*httptest.Server
	waits []time.Duration

	mu       sync.Mutex // An aborted connection does not synchronise the client with its handler.
	received []*http.Request
}

func serve(t *testing.T, answers ...answer) *script {
	t.Helper()
	s := &script{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		a := answers[min(len(s.received), len(answers)-1)]
		s.received = append(s.received, r)
		s.mu.Unlock()
		if a.abort {
			panic(http.ErrAbortHandler)
		}
		if a.retryAfter != "" {
			w.Header().Set("Retry-After", a.retryAfter)
		}
		if a.link != "" {
			w.Header().Set("Link", a.link)
		}
		if a.tag != "" {
			w.Header().Set("ETag", a.tag)
		}
		if text, ok := a.body.(string); ok {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(a.status)
			fmt.Fprint(w, text)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		if err := json.NewEncoder(w).Encode(a.body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *script) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

func (s *script) client(t *testing.T, token string) *tunnel.Client {
	t.Helper()
	return newClient(t, tunnel.Options{
		PanelURL: s.URL,
		Token:    func() string { return token },
		Wait: func(ctx context.Context, d time.Duration) error {
			s.waits = append(s.waits, d)
			return ctx.Err()
		},
	})
}

func newClient(t *testing.T, o tunnel.Options) *tunnel.Client {
	t.Helper()
	c, err := tunnel.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClient_SendsTokenAndUserAgent(t *testing.T) {
	s := serve(t, answer{status: 200, body: []types.Allocation{}})
	if _, err := s.client(t, "secret-token").Allocations(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := s.requests()[0].Header
	if h.Get("Authorization") != "Bearer secret-token" || h.Get("User-Agent") != "eclitunnel" {
		t.Errorf("headers %v", h)
	}
}

func TestClient_ErrorHoldsThePanelsAnswer(t *testing.T) {
	a := problem(400, types.CodeInvalidRequest)
	a.body = types.Problem{
		Error: types.CodeInvalidRequest, Message: "Bad.", RequestID: "r7",
		Details: &[]types.ErrorDetail{{Field: "localPort", Message: "too large"}},
	}
	s := serve(t, a)
	_, err := s.client(t, "").CreateAllocation(t.Context(), types.AllocationCreate{})
	var e *tunnel.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v", err)
	}
	if e.Status != 400 || e.Code != types.CodeInvalidRequest || e.RequestID != "r7" || len(e.Details) != 1 {
		t.Errorf("error %+v", e)
	}
	if want := "Bad. (localPort: too large) [request r7]"; e.Error() != want {
		t.Errorf("text %q, want %q", e.Error(), want)
	}
}

func TestClient_RetriesTemporaryFailuresOfIdempotentRequests(t *testing.T) {
	ok := answer{status: 200, body: []types.Allocation{}}
	unavailable := problem(503, types.CodeUnavailable)
	limited := problem(429, types.CodeRateLimited)
	limited.retryAfter = "7"
	later := limited
	later.retryAfter = "3600"
	for name, c := range map[string]struct {
		answers []answer
		tries   int
		succeed bool
	}{
		"database down":          {[]answer{unavailable, unavailable, ok}, 3, true},
		"database stays down":    {[]answer{unavailable}, 4, false},
		"proxy without panel":    {[]answer{{status: 502, body: "<html>"}, ok}, 2, true},
		"connection closed":      {[]answer{{abort: true}, ok}, 2, true},
		"rate limit":             {[]answer{limited, ok}, 2, true},
		"rate limit for an hour": {[]answer{later}, 1, false},
		"feature off":            {[]answer{problem(503, types.CodeFeatureDisabled)}, 1, false},
		"slow_down":              {[]answer{problem(429, types.CodeSlowDown)}, 1, false},
		"not a panel":            {[]answer{{status: 200, body: "<html>"}}, 1, false},
		"not found":              {[]answer{problem(404, types.CodeNotFound)}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.answers...)
			_, err := s.client(t, "").Allocations(t.Context())
			if tries := len(s.requests()); tries != c.tries || (err == nil) != c.succeed {
				t.Errorf("%d tries and error %v, want %d and success %v", tries, err, c.tries, c.succeed)
			}
		})
	}
	t.Run("a POST that has no key is sent once", func(t *testing.T) {
		s := serve(t, unavailable)
		_, err := s.client(t, "").Login(t.Context(), exampleEmail, examplePassword)
		if tries := len(s.requests()); tries != 1 || !tunnel.HasCode(err, types.CodeUnavailable) {
			t.Errorf("%d tries, error %v", tries, err)
		}
	})
	t.Run("Retry-After is the shortest wait", func(t *testing.T) {
		s := serve(t, limited, ok)
		if _, err := s.client(t, "").Allocations(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(s.waits) != 1 || s.waits[0] != 7*time.Second {
			t.Errorf("waits %v", s.waits)
		}
	})
}

func TestClient_CancelledContextIsTheError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := serve(t, answer{status: 200, body: []types.Device{}})
	if _, err := s.client(t, "").Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestClient_CollectsAllPages(t *testing.T) {
	page := func(last int64, n int) answer {
		list := make([]types.Allocation, n)
		for i := range list {
			list[i].ID = last + int64(n-1-i)
		}
		return answer{status: 200, body: list}
	}
	s := serve(t, page(100, 1000), page(90, 10))
	all, err := s.client(t, "").Allocations(t.Context())
	if err != nil || len(all) != 1010 {
		t.Fatalf("%d allocations, error %v", len(all), err)
	}
	if got := s.requests()[1].URL.Query().Get("after"); got != "100" {
		t.Errorf("second page after %q", got)
	}
}

func TestClient_FollowsTheLinkToTheNextPageOfDevices(t *testing.T) {
	devices := answer{status: 200, body: make([]types.Device, 2)}
	linked := devices
	linked.link = `</api/tunnel/devices?after=a-b_c&limit=1000>; rel="next"`
	s := serve(t, linked, devices)
	all, err := s.client(t, "").Devices(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d devices, error %v", len(all), err)
	}
	if got := s.requests()[1].URL.Query().Get("after"); got != "a-b_c" {
		t.Errorf("second page after %q", got)
	}
}

func TestUnreachable_NamesTheReason(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // The handshakes fail on purpose.
	secure.StartTLS()
	t.Cleanup(secure.Close)
	redirect := httptest.NewServer(http.RedirectHandler("https://panel.test/x?deviceCode=dc", http.StatusMovedPermanently))
	t.Cleanup(redirect.Close)
	for _, c := range []struct{ panel, words string }{
		{refused, "refused"},
		{"http://panel.invalid", "no host named"},
		{secure.URL, "authority"},
		{strings.Replace(secure.URL, "https", "http", 1), "speaks HTTPS"},
		{strings.Replace(redirect.URL, "http", "https", 1), "does not speak HTTPS"},
		{redirect.URL, "redirects to https://panel.test;"},
		{serve(t, answer{status: 404, body: "<html>"}).URL, "not an EcliTunnel panel"},
		{serve(t, answer{status: 503, body: "<html>"}).URL, "a proxy answered 503"},
	} {
		t.Run(c.words, func(t *testing.T) {
			client := newClient(t, tunnel.Options{
				PanelURL:   c.panel,
				Insecure:   true,
				HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialNoNames}},
				Wait:       func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
			})
			_, err := client.PollEnrollment(t.Context(), "device-code-secret")
			assertUnreachable(t, err, c.words)
			_, err = client.ControlChannel(t.Context())
			assertUnreachable(t, err, c.words)
		})
	}
}

// dialNoNames dials addresses. For the only host name in these tests it fails as a
// resolver does that does not know it, so that no query leaves the machine.
func dialNoNames(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, _ := net.SplitHostPort(address); host == "panel.invalid" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func assertUnreachable(t *testing.T, err error, words string) {
	t.Helper()
	var e *tunnel.UnreachableError
	if !errors.As(err, &e) || !strings.Contains(err.Error(), words) {
		t.Errorf("error %v (%T), want one that contains %q", err, err, words)
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if strings.Contains(cause.Error(), "device-code-secret") {
			t.Errorf("the device code is in %q", cause)
		}
	}
}

func TestUnreachable_Timeout(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	c := newClient(t, tunnel.Options{PanelURL: s.URL, HTTPClient: &http.Client{Timeout: 20 * time.Millisecond, Transport: &http.Transport{}}})
	_, err := c.StartEnrollment(t.Context(), types.EnrollmentStart{Name: "x"})
	assertUnreachable(t, err, "in time")
}

func TestControlChannel_OpensWithToken(t *testing.T) {
	token := make(chan string, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token <- r.Header.Get("Authorization")
		upgrader := websocket.Upgrader{}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_ = ws.Close()
	}))
	t.Cleanup(s.Close)
	c := newClient(t, tunnel.Options{PanelURL: s.URL, HTTPClient: s.Client(), Token: func() string { return "tok" }})
	ws, err := c.ControlChannel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = ws.Close()
	if got := <-token; got != "Bearer tok" {
		t.Errorf("Authorization %q", got)
	}
}

func TestControlChannel_BoundsAnAttemptToConnect(t *testing.T) {
	// While the network is down, the kernel retries for minutes, at growing intervals.
	var given time.Duration
	c := newClient(t, tunnel.Options{
		PanelURL: "http://panel.test", Insecure: true,
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			deadline, _ := ctx.Deadline()
			given = time.Until(deadline)
			return nil, context.DeadlineExceeded
		}}},
	})
	_, err := c.ControlChannel(t.Context())
	assertUnreachable(t, err, "in time")
	if given <= 0 || given > 5*time.Second {
		t.Errorf("an attempt to connect may take %v", given)
	}
}

func TestControlChannel_RefusalIsThePanelsError(t *testing.T) {
	for status, code := range map[int]types.ErrorCode{401: types.CodeUnauthorized, 503: types.CodeFeatureDisabled} {
		s := serve(t, problem(status, code))
		if _, err := s.client(t, "tok").ControlChannel(t.Context()); !tunnel.HasCode(err, code) {
			t.Errorf("error %v, want %s", err, code)
		}
	}
}

func TestParsePanelURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://panel.example.com":    "https://panel.example.com",
		"http://127.0.0.1:8080/":       "http://127.0.0.1:8080",
		" https://h/behind/a/path/ ":   "https://h/behind/a/path",
		"":                             "",
		"panel.example.com":            "",
		"ftp://panel.example.com":      "",
		"https://user:secret@panel.io": "",
		"https://panel.io/?x=1":        "",
		"https://":                     "",
		"https://:8080":                "",
	} {
		got, err := tunnel.ParsePanelURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParsePanelURL(%q) = %q, %v; want %q", in, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestDeviceID_ReadsOnlyDeviceTokens(t *testing.T) {
	id := uuid.New()
	token := func(payload string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	good := token(`{"sub":"` + id.String() + `","kind":"client"}`)
	got, err := tunnel.DeviceID(good)
	kind, kindErr := tunnel.DeviceKind(good)
	if err != nil || kindErr != nil || got != id || kind != types.DeviceKindClient {
		t.Errorf("%v %v %v %v", got, err, kind, kindErr)
	}
	for _, bad := range []string{"", "x", "a.b.c", token(`{"sub":"7"}`), token(`{"sub":"` + id.String() + `"}`), good + ".x"} {
		if _, err := tunnel.DeviceID(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
