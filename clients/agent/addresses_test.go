package agent

import (
	"net/http"
	"strconv"
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
			port := linetest.Port(p.Server)
			linetest.Server(t, "127.0.0.2", port, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var upgrader websocket.Upgrader
				if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
					serve(ws)
					_ = ws.Close()
				}
			}))
			linetest.ResolveAll(t, "127.0.0.2", "127.0.0.1")
			p.URL = "http://panel.test:" + strconv.Itoa(port)
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
	port := linetest.Port(linetest.Server(t, "127.0.0.1", 0, false, serve))
	linetest.Server(t, "127.0.0.2", port, false, serve)
	linetest.ResolveAll(t, "127.0.0.2", "127.0.0.1")
	client, err := tunnel.New(tunnel.Options{PanelURL: "http://panel.test:" + strconv.Itoa(port), Insecure: true})
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
