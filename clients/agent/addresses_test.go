package agent

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

func TestAgent_LeavesAPanelsAddressThatBringsNoSnapshot(t *testing.T) {
	for name, serve := range map[string]func(*websocket.Conn){
		"silent": func(ws *websocket.Conn) { linetest.Silent(ws.NetConn()) },
		"lost":   func(ws *websocket.Conn) { _ = ws.NetConn().Close() },
		"foreign": func(ws *websocket.Conn) {
			other := types.PanelID{1}
			_ = ws.WriteJSON(types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, PanelID: &other})
			linetest.Silent(ws.NetConn())
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			u, err := url.Parse(p.URL)
			if err != nil {
				t.Fatal(err)
			}
			useless := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var upgrader websocket.Upgrader
				if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
					serve(ws)
					_ = ws.Close()
				}
			}))
			_ = useless.Listener.Close()
			if useless.Listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.2", u.Port())); err != nil {
				t.Skip(err)
			}
			useless.Start()
			t.Cleanup(useless.Close)
			resolver := net.DefaultResolver
			net.DefaultResolver = linetest.Resolver(t, "127.0.0.2", "127.0.0.1")
			t.Cleanup(func() { net.DefaultResolver = resolver })
			p.URL = "http://panel.test:" + u.Port()
			r := startAt(t, p, nil)
			r.channel(t).send(t, snapshot(1, 1))
			wantIDs(t, r.appliedIDs(t), 1)
		})
	}
}

func TestPanelDialer_LeavesAnAddressThatBroughtNothing(t *testing.T) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var upgrader websocket.Upgrader
		if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
			_ = ws.Close()
		}
	})
	first := httptest.NewServer(serve)
	t.Cleanup(first.Close)
	second := httptest.NewUnstartedServer(serve)
	_ = second.Listener.Close()
	_, port, err := net.SplitHostPort(first.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if second.Listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.2", port)); err != nil {
		t.Skip(err)
	}
	second.Start()
	t.Cleanup(second.Close)
	resolver := net.DefaultResolver
	net.DefaultResolver = linetest.Resolver(t, "127.0.0.2", "127.0.0.1")
	t.Cleanup(func() { net.DefaultResolver = resolver })
	client, err := tunnel.New(tunnel.Options{PanelURL: "http://panel.test:" + port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	d := panelDialer{client: client}
	dial := func() string {
		t.Helper()
		ws, err := d.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		return ws.RemoteAddr().String()
	}
	before := dial()
	after := dial() // As after a failed return from standby, which calls no onChannel.
	if after == before {
		t.Errorf("went to %s again", after)
	}
	d.onChannel(nil)
	if again := dial(); again != after {
		t.Errorf("left %s, which brought a snapshot, for %s", after, again)
	}
}
