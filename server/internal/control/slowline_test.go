package control_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
)

func TestControl_AThousandAllocationsSettleOnASlowLine(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	const count = 1000
	for i := range count {
		allocate(t, d, clientRow, serverRow, "tcp", 20000+i)
	}
	for name, compress := range map[string]bool{"agent": true, "older agent": false} {
		t.Run(name, func(t *testing.T) {
			line := linetest.Slow(t, strings.TrimPrefix(r.url, "ws://"), 16_000)
			who, err := json.Marshal(control.Device{ID: clientRow.ID, Kind: types.DeviceKindClient, TokenVersion: clientRow.TokenVersion})
			if err != nil {
				t.Fatal(err)
			}
			dialer := websocket.Dialer{EnableCompression: compress}
			ws, resp, err := dialer.Dial("ws://"+line.Address, http.Header{"Test-Device": {string(who)}})
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			c := channel.New(ws, channel.Options{MaxMessage: 32 << 20})
			defer c.Wait()
			defer c.Close(websocket.CloseNormalClosure, "")
			if err := c.Send(types.Hello{Type: types.TypeHello, AgentVersion: "1", Platform: "test"}); err != nil {
				t.Fatal(err)
			}
			var snapshot types.ClientSnapshot
			receiveInto(t, c, &snapshot)
			if len(snapshot.Allocations) < count {
				t.Fatalf("%d allocations, want %d", len(snapshot.Allocations), count)
			}
			allocate(t, d, clientRow, serverRow, "udp", 0)
			var change types.ClientChange
			receiveInto(t, c, &change)
			if change.Type != types.TypeClientChange {
				t.Errorf("got %+v, want a change on the same channel", change)
			}
			t.Logf("%d bytes on the line", line.Passed())
		})
	}
}

func receiveInto(t *testing.T, c *channel.Conn, message any) {
	t.Helper()
	data, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, message); err != nil {
		t.Fatal(err)
	}
}
