//go:build !windows

package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/local"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

const secret = "device-token-that-stays-here"

// source shows what the test sends.
type source struct{ shown chan agent.Snapshot }

func (s source) Snapshot() agent.Snapshot { return agent.Snapshot{Version: "now"} }

func (s source) Watch(ctx context.Context, show func(agent.Snapshot) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case snapshot := <-s.shown:
			if err := show(snapshot); err != nil {
				return err
			}
		}
	}
}

// panel records the requests that come through, and echoes their credentials.
type panel struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
	last http.Header
}

func newPanel(t *testing.T) *panel {
	p := &panel{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.seen, p.last = append(p.seen, r.Method+" "+r.URL.RequestURI()+" "+string(body)), r.Header.Clone()
		p.mu.Unlock()
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "x"})
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode([]types.Allocation{{ID: 7, Name: "survival"}})
	}))
	t.Cleanup(p.Close)
	return p
}

// running is an agent that listens.
type running struct {
	place  local.Place
	info   local.Info
	source source
	stop   func()
}

func start(t *testing.T, dir, panel string, change func(*local.Options)) *running {
	t.Helper()
	client, err := tunnel.New(tunnel.Options{PanelURL: panel, Insecure: true, Token: func() string { return secret }})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{place: local.Place{Dir: dir, Device: uuid.New()}, source: source{make(chan agent.Snapshot)}}
	r.info = local.Info{Device: r.place.Device, Name: "home", Kind: types.DeviceKindClient, Panel: panel, Version: "1.2.3"}
	l, err := local.Listen(t.Context(), r.place)
	if err != nil {
		t.Fatal(err)
	}
	o := local.Options{Info: r.info, Source: r.source, Panel: client}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- local.Serve(ctx, l, o) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := await.Receive(t, served, "the end of the server"); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	t.Cleanup(r.stop)
	return r
}

func find(t *testing.T, dir string) *local.Client {
	t.Helper()
	found, err := local.Find(t.Context(), dir)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d agents: %v", len(found), err)
	}
	t.Cleanup(found[0].Close)
	return found[0]
}

func TestLocal_ShowsTheAgent(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, "https://panel.test", nil)
	c := find(t, dir)
	if got, err := c.Info(t.Context()); err != nil || got.Device != r.info.Device || got.Name != "home" || got.Panel != "https://panel.test" {
		t.Errorf("info %+v, %v", got, err)
	}
	if got, err := c.Snapshot(t.Context()); err != nil || got.Version != "now" {
		t.Errorf("snapshot %+v, %v", got, err)
	}
	shown, gone := make(chan agent.Snapshot), make(chan error, 1)
	go func() {
		gone <- c.Watch(t.Context(), func(s agent.Snapshot) error { shown <- s; return nil })
	}()
	for _, version := range []string{"1", "2"} {
		r.source.shown <- agent.Snapshot{Version: version}
		if got := await.Receive(t, shown, "a snapshot"); got.Version != version {
			t.Errorf("shown %+v, want version %s", got, version)
		}
	}
	r.stop()
	if err := await.Receive(t, gone, "the end of the watch"); !errors.Is(err, local.ErrGone) {
		t.Errorf("a watch of an agent that has ended returns %v", err)
	}
	if found, err := local.Find(t.Context(), dir); len(found) != 0 || err != nil {
		t.Errorf("found %d agents that have ended: %v", len(found), err)
	}
}

func TestLocal_ATunnelServerHasNoSnapshots(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "https://panel.test", func(o *local.Options) { o.Source = nil })
	c := find(t, dir)
	if _, err := c.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "tunnel server") {
		t.Errorf("snapshot: %v", err)
	}
	if err := c.Watch(t.Context(), func(agent.Snapshot) error { return nil }); err == nil || !strings.Contains(err.Error(), "tunnel server") {
		t.Errorf("watch: %v", err)
	}
}

func TestPanel_TakesTheDevicesRequestsWithItsToken(t *testing.T) {
	dir, p := t.TempDir(), newPanel(t)
	r := start(t, dir, p.URL, nil)
	client, err := find(t, dir).Panel(r.info, tunnel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	list, err := client.Allocations(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != 7 {
		t.Fatalf("allocations %+v, %v", list, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.last.Get("Authorization"); got != "Bearer "+secret || p.last.Get("X-Forwarded-For") != "" {
		t.Errorf("the panel sees %v", p.last)
	}
}

// raw sends a request over the socket as it is.
func raw(t *testing.T, r *running, request string) string {
	t.Helper()
	c, err := dialSocket(r.place)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(await.Timeout))
	_, _ = io.WriteString(c, request) // It may be answered before it has been read.
	answer, _ := io.ReadAll(c)
	return string(answer)
}

func TestPanel_PassesNothingElse(t *testing.T) {
	p := newPanel(t)
	r := start(t, t.TempDir(), p.URL, nil)
	own := "/api/tunnel/devices/" + r.info.Device.String()
	for request, status := range map[string]string{
		"GET /panel/api/version":                                "200",
		"GET /panel" + own:                                      "200",
		"GET /panel/api/tunnel/allocations?limit=3":             "200",
		"DELETE /panel/api/tunnel/allocations/7":                "200",
		"POST /panel/api/tunnel/allocations/7/check":            "200",
		"POST /panel" + own + "/regenerate-token":               "403",
		"DELETE /panel" + own:                                   "403",
		"GET /panel/api/tunnel/devices":                         "403",
		"GET /panel/api/admin/settings":                         "403",
		"GET /panel/api/tunnel/allocations/../../auth/sessions": "307",
		"GET /panel/api/tunnel/allocations/%2e%2e%2fdevices":    "403",
		"GET /panel//evil.test/api/tunnel/allocations":          "307",
		"GET /v1/other":                                         "404",
		"POST /v1/snapshot":                                     "405",
	} {
		answer := raw(t, r, request+" HTTP/1.1\r\nHost: agent\r\nCookie: c=1\r\nAuthorization: Bearer other\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 "+status) {
			t.Errorf("%s: %.80q, want %s", request, answer, status)
		}
		if strings.Contains(answer, secret) || strings.Contains(answer, "Set-Cookie") {
			t.Errorf("%s: the answer says too much: %q", request, answer)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) != 5 || p.last.Get("Cookie") != "" {
		t.Errorf("the panel got %q, cookies %q", p.seen, p.last.Get("Cookie"))
	}
}

func TestPanel_BoundsWhatItPasses(t *testing.T) {
	r := start(t, t.TempDir(), newPanel(t).URL, nil)
	long := strings.Repeat("x", 2<<20)
	answer := raw(t, r, "POST /panel/api/tunnel/allocations HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: 2097152\r\n\r\n"+long)
	if !strings.HasPrefix(answer, "HTTP/1.1 413") && answer != "" { // Its end may come before it is read.
		t.Errorf("a long request is answered %.80q", answer)
	}
	if answer := raw(t, r, "GET /v1/agent HTTP/1.1\r\nHost: agent\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 431") {
		t.Errorf("a long header is answered %.80q", answer)
	}
}

func TestPanel_SaysWhyThePanelIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	r := start(t, dir, url, nil)
	client, err := find(t, dir).Panel(r.info, tunnel.Options{Wait: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var unreachable *tunnel.UnreachableError
	if _, err := client.Allocations(t.Context()); !errors.As(err, &unreachable) || !strings.Contains(err.Error(), url+": connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestWatch_FurtherWatchersAreRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "https://panel.test", nil)
	c := find(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 17)
	for range 17 {
		go func() { ended <- c.Watch(ctx, func(agent.Snapshot) error { return nil }) }()
	}
	if err := await.Receive(t, ended, "a refusal"); err == nil || !strings.Contains(err.Error(), "Too many") {
		t.Errorf("one too many ends with %v", err)
	}
	cancel()
	for range 16 {
		if err := await.Receive(t, ended, "the end of a watch"); err != nil {
			t.Error(err)
		}
	}
}
