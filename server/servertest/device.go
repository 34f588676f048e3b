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

// Device is an enrolled device without an agent: the test acts in its place.
type Device struct {
	ID    uuid.UUID
	Token string
}

// Enroll enrolls a tunnel client: it starts anonymously, approves as the admin and polls.
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

func (p *Panel) enroll(starter *client.ClientWithResponses, request types.EnrollmentStart) Device {
	p.t.Helper()
	ctx := p.t.Context()
	start, err := starter.StartEnrollmentWithResponse(ctx, request)
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

// Connect opens the control channel of a tunnel client and sends a hello. It closes
// when the test ends.
func (p *Panel) Connect(device Device) *controltest.Peer {
	p.t.Helper()
	return p.connect(device, nil)
}

// ConnectServer opens the control channel of a tunnel server and sends a hello.
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

// Dial opens a control channel and sends nothing. If the response is not an
// upgrade, the error contains its status and code.
func (p *Panel) Dial(ctx context.Context, token string) (*websocket.Conn, error) {
	ws, resp, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(p.URL, "http")+"/api/tunnel/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil && resp != nil {
		var answer types.Problem
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, fmt.Errorf("%s: %s", resp.Status, answer.Error)
	}
	return ws, err
}
