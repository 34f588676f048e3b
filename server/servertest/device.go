package servertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// Device is an enrolled tunnel client without an agent: a test speaks for it.
type Device struct {
	ID    uuid.UUID
	Token string
}

// Enroll enrolls a tunnel client: starts as anybody, approves as the admin, polls.
func (p *Panel) Enroll(name string) Device {
	p.t.Helper()
	return p.enroll(p.Client(""), types.EnrollmentStart{Name: name})
}

// EnrollServer enrolls a tunnel server as the admin.
func (p *Panel) EnrollServer(name string, settings *types.TunnelServerSettings) Device {
	p.t.Helper()
	kind := types.DeviceKindServer
	return p.enroll(p.Admin(), types.EnrollmentStart{Name: name, Kind: &kind, Server: settings})
}

func (p *Panel) enroll(starter *client.ClientWithResponses, wish types.EnrollmentStart) Device {
	p.t.Helper()
	ctx := p.t.Context()
	start, err := starter.StartEnrollmentWithResponse(ctx, wish)
	check(p.t, "start enrollment", err)
	if start.JSON200 == nil {
		p.t.Fatalf("start enrollment: %s", start.Body)
	}
	approval, err := p.Admin().ApproveDeviceWithResponse(ctx, types.DeviceApproval{UserCode: start.JSON200.UserCode})
	check(p.t, "approve", err)
	if approval.JSON200 == nil {
		p.t.Fatalf("approve: %s", approval.Body)
	}
	poll, err := starter.PollEnrollmentWithResponse(ctx, &types.PollEnrollmentParams{DeviceCode: start.JSON200.DeviceCode})
	check(p.t, "poll", err)
	if poll.JSON200 == nil || poll.JSON200.Token == nil {
		p.t.Fatalf("poll: %s", poll.Body)
	}
	return Device{ID: approval.JSON200.Device.ID, Token: *poll.JSON200.Token}
}

func check(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Connect opens the control channel of a tunnel client and says hello. It ends
// with the test.
func (p *Panel) Connect(device Device) *controltest.Peer {
	p.t.Helper()
	return p.connect(device, nil)
}

// ConnectServer does so for a tunnel server.
func (p *Panel) ConnectServer(device Device, relay types.RelayEndpoint) *controltest.Peer {
	p.t.Helper()
	return p.connect(device, &relay)
}

func (p *Panel) connect(device Device, relay *types.RelayEndpoint) *controltest.Peer {
	p.t.Helper()
	ws, err := p.Dial(p.t.Context(), device.Token)
	if err != nil {
		p.t.Fatal(err)
	}
	peer := controltest.NewPeer(p.t, ws)
	peer.Hello(relay)
	return peer
}

// Dial opens a control channel without saying anything. An answer that is no
// upgrade is an error with its body.
func (p *Panel) Dial(ctx context.Context, token string) (*websocket.Conn, error) {
	ws, resp, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(p.URL, "http")+"/api/tunnel/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil && resp != nil {
		var answer types.Error
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, fmt.Errorf("%s: %s", resp.Status, answer.Error)
	}
	return ws, err
}
