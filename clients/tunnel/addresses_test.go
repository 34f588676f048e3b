package tunnel_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

// panelWithUselessAddresses returns the URL of a panel whose name has three addresses,
// of which the third is of use.
func panelWithUselessAddresses(t *testing.T, serve func(net.Conn), panel http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(panel)
	_ = s.Listener.Close()
	port := linetest.Listen(t, "127.0.0.1", 0, serve)
	linetest.Listen(t, "127.0.0.2", port, serve)
	var err error
	if s.Listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.3", strconv.Itoa(port))); err != nil {
		t.Skip(err)
	}
	s.Start()
	t.Cleanup(s.Close)
	linetest.ResolveAll(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	return fmt.Sprintf("http://panel.test:%d", port)
}

func TestControlChannel_LeavesAnAddressThatIsOfNoUse(t *testing.T) {
	for name, serve := range linetest.Useless {
		t.Run(name, func(t *testing.T) {
			url := panelWithUselessAddresses(t, serve, func(w http.ResponseWriter, r *http.Request) {
				var upgrader websocket.Upgrader
				if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
					_ = ws.Close()
				}
			})
			c := newClient(t, tunnel.Options{PanelURL: url, Insecure: true})
			open := func() (net.Addr, error) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // Less than the head start over a failed address.
				defer cancel()
				ws, err := c.ControlChannel(ctx)
				if err != nil {
					return nil, err
				}
				defer ws.Close()
				return ws.RemoteAddr(), nil
			}
			var good net.Addr
			var err error
			for tries := 0; good == nil; tries++ {
				if good, err = open(); err != nil && tries == 2 {
					t.Fatalf("not every address had its turn: %v", err)
				}
			}
			if _, err := open(); err != nil {
				t.Errorf("the address that works was left: %v", err)
			}
			c.Avoid(good) // It opened and then brought nothing.
			if again, err := open(); err == nil {
				t.Errorf("went to %s again", again)
			}
		})
	}
}

func TestControlChannel_KeepsAnAddressWhosePanelRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   int // The number of addresses that are asked.
	}{
		"token":         {http.StatusUnauthorized, `{"error":"unauthorized","message":"No."}`, 1},
		"rate":          {http.StatusTooManyRequests, `{"error":"rate_limited","message":"Later."}`, 1},
		"switched off":  {http.StatusServiceUnavailable, `{"error":"feature_disabled","message":"Off."}`, 1},
		"no panel":      {http.StatusNotFound, `{}`, 2},
		"gateway alone": {http.StatusBadGateway, `<html>`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := map[string]bool{}
			refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()] = true
				mu.Unlock()
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			port := linetest.Port(linetest.Server(t, "127.0.0.1", 0, false, refuse))
			linetest.Server(t, "127.0.0.2", port, false, refuse)
			linetest.ResolveAll(t, "127.0.0.1", "127.0.0.2")
			c := newClient(t, tunnel.Options{PanelURL: "http://panel.test:" + strconv.Itoa(port), Insecure: true})
			for range 3 {
				if ws, err := c.ControlChannel(t.Context()); err == nil {
					_ = ws.Close()
					t.Error("it was not refused")
				}
			}
			if len(asked) != test.want {
				t.Errorf("asked %v, want %d", asked, test.want)
			}
		})
	}
}

func TestClient_AsksAnotherAddressWithinOneCall(t *testing.T) {
	for _, name := range []string{"resetting", "garbled"} {
		t.Run(name, func(t *testing.T) {
			url := panelWithUselessAddresses(t, linetest.Useless[name], func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"version":"1","commit":"c"}`))
			})
			c := newClient(t, tunnel.Options{PanelURL: url, Insecure: true})
			if _, err := c.Version(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClient_PassesAFilterOfLargeTLSHellos(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/tunnel/ws" {
			var upgrader websocket.Upgrader
			if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
				_ = ws.Close()
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"version":"1","commit":"c"}`))
	}))
	defer s.Close()
	for name, reset := range map[string]bool{"swallowed": false, "reset": true} {
		trusting := func(f *linetest.HelloFilter) *tunnel.Client {
			config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.ServerName = "example.com"
			return newClient(t, tunnel.Options{
				PanelURL:   "https://" + f.Address,
				HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config, TLSHandshakeTimeout: time.Second}},
			})
		}
		t.Run(name+" requests", func(t *testing.T) {
			f := linetest.FilterHellos(t, s.Listener.Addr().String(), reset)
			c := trusting(f)
			defer c.Close()
			if _, err := c.Version(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.Close() // The next request needs a new connection.
			if _, err := c.StartEnrollment(t.Context(), types.EnrollmentStart{}); err != nil {
				t.Error(err)
			}
			if n := f.Filtered(); n != 1 {
				t.Errorf("%d hellos did not pass, want the first alone", n)
			}
		})
		t.Run(name+" control channel", func(t *testing.T) {
			f := linetest.FilterHellos(t, s.Listener.Addr().String(), reset)
			c := trusting(f)
			for i := range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				ws, err := c.ControlChannel(ctx)
				cancel()
				if (err == nil) != (i > 0) {
					t.Errorf("attempt %d: %v", i, err)
				}
				if err == nil {
					_ = ws.Close()
				}
			}
		})
	}
}

func TestClient_ARequestIsSentAgainOnlyIfThereWasNoConnection(t *testing.T) {
	for name, test := range map[string]struct {
		url   string
		other bool // The transport is not net/http's.
		want  int
	}{
		"a TLS handshake that fails": {url: "https://", want: 3},
		"a lost answer":              {url: "http://", want: 0},
		"another transport":          {url: "https://", other: true, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			port := linetest.Listen(t, "127.0.0.1", 0, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
			waits := 0
			o := tunnel.Options{
				PanelURL: test.url + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
				Wait:     func(context.Context, time.Duration) error { waits++; return nil },
			}
			if test.other {
				o.HTTPClient = &http.Client{Transport: struct{ http.RoundTripper }{&http.Transport{DisableKeepAlives: true}}}
			}
			c := newClient(t, o)
			if _, err := c.Login(t.Context(), exampleEmail, examplePassword); err == nil || waits != test.want {
				t.Errorf("%v after %d more attempts, want %d", err, waits, test.want)
			}
		})
	}
}
