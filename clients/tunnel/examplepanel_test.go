package tunnel_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/contracttest"
)

const (
	exampleEmail    = "ada@example.com"
	examplePassword = "correct horse battery staple"
	exampleSession  = "session-token"
	exampleCode     = "device-code"

	exampleConnection = "9b1d7c523a844f6e8d205c7e1a94b3f0-01f64c6f3c7f9f91"
)

var (
	exampleDevice = uuid.MustParse("3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11")
	exampleServer = uuid.MustParse("9a4d2c1e-7b3f-4e58-8c6a-1f2e3d4c5b6a")
	exampleTime   = time.Date(2026, time.January, 2, 15, 4, 5, 0, time.UTC)
)

// examplePanel is the examples' panel, in memory: one user, an admin, with one device.
// It implements the server that is generated from the contract; an operation that no
// example calls panics.
type examplePanel struct {
	server.StrictServerInterface
	*httptest.Server
	// DeviceToken is the token of exampleDevice.
	DeviceToken string

	mu          sync.Mutex
	approved    bool
	allocations []types.Allocation // Oldest first.
}

func startPanel() *examplePanel {
	claims, err := json.Marshal(map[string]any{"sub": exampleDevice, "kind": types.DeviceKindClient})
	if err != nil {
		panic(err)
	}
	p := &examplePanel{DeviceToken: "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"}
	operations := server.NewStrictHandlerWithOptions(p, []server.StrictMiddlewareFunc{p.authenticate}, server.StrictHTTPServerOptions{
		ResponseErrorHandlerFunc: writeExampleError,
	})
	p.Server = httptest.NewServer(server.Handler(operations))
	return p
}

// exampleError is an error that a handler answers with.
type exampleError struct {
	status int
	body   types.Problem
}

func (e *exampleError) Error() string { return e.body.Message }

func refuse(status int, code types.ErrorCode, message string, details ...types.ErrorDetail) error {
	e := &exampleError{status, types.Problem{Error: code, Message: message, RequestID: "01JCZ4Q6"}}
	if len(details) > 0 {
		e.body.Details = &details
	}
	return e
}

func writeExampleError(w http.ResponseWriter, _ *http.Request, err error) {
	var e *exampleError
	if !errors.As(err, &e) {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(e.body)
}

func (p *examplePanel) authenticate(next server.StrictHandlerFunc, operation string) server.StrictHandlerFunc {
	public := slices.Contains([]string{"Login", "StartEnrollment", "PollEnrollment"}, operation)
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		token := r.Header.Get("Authorization")
		if !public && token != "Bearer "+exampleSession && token != "Bearer "+p.DeviceToken {
			return nil, refuse(401, types.CodeUnauthorized, "Log in first.")
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return next(ctx, w, r, request)
	}
}

func (*examplePanel) Login(_ context.Context, r server.LoginRequestObject) (server.LoginResponseObject, error) {
	if r.Body.Email != exampleEmail || r.Body.Password != examplePassword {
		return nil, refuse(401, types.CodeUnauthorized, "The email or password is wrong.")
	}
	return server.Login200JSONResponse{
		Body:    types.Login{Token: exampleSession, User: exampleUser},
		Headers: server.Login200ResponseHeaders{SetCookie: "session=" + exampleSession},
	}, nil
}

var exampleUser = types.User{ID: 1, Email: exampleEmail, Role: types.RoleAdmin}

func (*examplePanel) GetSession(context.Context, server.GetSessionRequestObject) (server.GetSessionResponseObject, error) {
	return server.GetSession200JSONResponse{
		User: exampleUser, ExpiresAt: exampleTime, Organisations: types.OrganisationSettings{Creators: types.CreatorsAdmins},
	}, nil
}

func (*examplePanel) StartEnrollment(context.Context, server.StartEnrollmentRequestObject) (server.StartEnrollmentResponseObject, error) {
	return server.StartEnrollment200JSONResponse{
		DeviceCode: exampleCode, UserCode: "CDFG-2345", ExpiresAt: exampleTime, Interval: 5,
		VerificationURI:         "https://panel.example.com/device",
		VerificationURIComplete: "https://panel.example.com/device?code=CDFG-2345",
	}, nil
}

func (p *examplePanel) PollEnrollment(_ context.Context, r server.PollEnrollmentRequestObject) (server.PollEnrollmentResponseObject, error) {
	if r.Params.DeviceCode != exampleCode {
		return nil, refuse(404, types.CodeNotFound, "No such enrollment.")
	}
	if !p.approved {
		return server.PollEnrollment200JSONResponse{}, nil
	}
	return server.PollEnrollment200JSONResponse{Approved: true, Token: &p.DeviceToken}, nil
}

func (p *examplePanel) ApproveDevice(context.Context, server.ApproveDeviceRequestObject) (server.ApproveDeviceResponseObject, error) {
	p.approved = true
	return server.ApproveDevice200JSONResponse{Success: true, Device: exampleClient()}, nil
}

func exampleClient() types.Device {
	return types.Device{
		ID: exampleDevice, Name: "gaming-rig", Kind: types.DeviceKindClient, Approved: true, CreatedAt: exampleTime,
		OwnerID: nullable.NewNullableWithValue(exampleUser.ID), Online: true,
		UserCode: nullable.NewNullNullable[string](), ExpiresAt: nullable.NewNullNullable[time.Time](),
		OrganisationID: nullable.NewNullNullable[int64](), LastSeenAt: nullable.NewNullNullable[time.Time](),
		AgentVersion: nullable.NewNullNullable[string](), Platform: nullable.NewNullNullable[string](),
		Server:  nullable.NewNullNullable[types.TunnelServer](),
		Address: nullable.NewNullNullable[string](), ConnectedSince: nullable.NewNullNullable[time.Time](),
		DisconnectReason: nullable.NewNullNullable[string](),
	}
}

func (*examplePanel) ListDevices(context.Context, server.ListDevicesRequestObject) (server.ListDevicesResponseObject, error) {
	return server.ListDevices200JSONResponse{Body: []types.Device{exampleClient()}}, nil
}

// add stores a new allocation. The caller holds p.mu.
func (p *examplePanel) add(protocol types.Protocol, port, localPort int) types.Allocation {
	a := types.Allocation{
		ID: int64(len(p.allocations) + 1), DeviceID: exampleDevice, ServerID: exampleServer,
		Protocol: protocol, Port: port, LocalHost: "127.0.0.1", LocalPort: localPort,
		PublicHost: "play.example.com", PublicAddress: "play.example.com:" + strconv.Itoa(port),
		PublicAddresses: []string{"203.0.113.7"},
		CreatedAt:       exampleTime, Status: types.AllocationPending, StatusReason: nullable.NewNullNullable[string](),
		Target: types.TargetUnknown, Labels: types.Labels{},
	}
	p.allocations = append(p.allocations, a)
	return a
}

// allocate stores n allocations, on consecutive ports.
func (p *examplePanel) allocate(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range n {
		p.add(types.ProtocolTCP, 20000+i, 25565)
	}
}

func (p *examplePanel) CreateAllocation(_ context.Context, r server.CreateAllocationRequestObject) (server.CreateAllocationResponseObject, error) {
	if r.Body.LocalPort > 65535 {
		return nil, refuse(400, types.CodeInvalidRequest, "The request does not match the contract.",
			types.ErrorDetail{Field: "localPort", Message: "number must be at most 65535"})
	}
	port := 20000 + len(p.allocations)
	if r.Body.Port != nil {
		port = *r.Body.Port
	}
	if slices.ContainsFunc(p.allocations, func(a types.Allocation) bool { return a.Port == port }) {
		return nil, refuse(409, types.CodePortTaken, fmt.Sprintf("Port %d is taken.", port))
	}
	protocols := []types.Protocol{types.Protocol(r.Body.Protocol)}
	if r.Body.Protocol == types.CreateTCPUDP {
		protocols = []types.Protocol{types.ProtocolTCP, types.ProtocolUDP}
	}
	var created []types.Allocation
	for _, protocol := range protocols {
		created = append(created, p.add(protocol, port, r.Body.LocalPort))
	}
	first := created[0]
	return server.CreateAllocation201JSONResponse{
		ID: first.ID, DeviceID: first.DeviceID, ServerID: first.ServerID, Protocol: first.Protocol, Port: first.Port,
		LocalHost: first.LocalHost, LocalPort: first.LocalPort, PublicHost: first.PublicHost, PublicAddress: first.PublicAddress,
		PublicAddresses: first.PublicAddresses,
		CreatedAt:       first.CreatedAt, Status: first.Status, StatusReason: first.StatusReason, Allocations: created,
		Target: first.Target, Labels: first.Labels,
	}, nil
}

// GetAllocation returns an allocation whose port has opened in the meantime.
func (p *examplePanel) GetAllocation(_ context.Context, r server.GetAllocationRequestObject) (server.GetAllocationResponseObject, error) {
	if r.ID > int64(len(p.allocations)) {
		return nil, refuse(404, types.CodeNotFound, "No such allocation.")
	}
	a := &p.allocations[r.ID-1]
	a.Status = types.AllocationListening
	return server.GetAllocation200JSONResponse{
		ID: a.ID, DeviceID: a.DeviceID, ServerID: a.ServerID, Protocol: a.Protocol, Port: a.Port,
		LocalHost: a.LocalHost, LocalPort: a.LocalPort, PublicHost: a.PublicHost, PublicAddress: a.PublicAddress,
		PublicAddresses: a.PublicAddresses, CreatedAt: a.CreatedAt, Status: a.Status, StatusReason: a.StatusReason,
		Target: a.Target, Rules: types.AllocationRules{MaxPlayers: new(1000)},
		PlayersRefused: types.RefusalCounts{"denied": 12}, DatagramsDropped: types.RefusalCounts{}, Labels: a.Labels,
	}, nil
}

func (p *examplePanel) ListAllocations(_ context.Context, r server.ListAllocationsRequestObject) (server.ListAllocationsResponseObject, error) {
	end := len(p.allocations)
	if r.Params.After != nil {
		end = int(*r.Params.After) - 1
	}
	page := slices.Clone(p.allocations[max(0, end-*r.Params.Limit):end])
	slices.Reverse(page)
	return server.ListAllocations200JSONResponse{Body: page}, nil
}

func (*examplePanel) ListConnections(context.Context, server.ListConnectionsRequestObject) (server.ListConnectionsResponseObject, error) {
	return server.ListConnections200JSONResponse{Body: []types.Connection{{
		ID: exampleConnection, AllocationID: 42, DeviceID: exampleDevice, ServerID: exampleServer, Protocol: types.ProtocolTCP,
		SourceAddress: "203.0.113.60", SourcePort: 51820, Since: exampleTime, AsOf: exampleTime, DownloadBytes: 7340032, UploadBytes: 90112,
		PlayerRoundTripMs: nullable.NewNullableWithValue[float32](24.5), TunnelRoundTripMs: nullable.NewNullNullable[float32](),
	}}}, nil
}

func (*examplePanel) CloseConnection(_ context.Context, r server.CloseConnectionRequestObject) (server.CloseConnectionResponseObject, error) {
	if r.ID != exampleConnection {
		return nil, refuse(404, types.CodeNotFound, "No such connection.")
	}
	return server.CloseConnection200JSONResponse{Success: true}, nil
}

func (*examplePanel) GetUsage(_ context.Context, r server.GetUsageRequestObject) (server.GetUsageResponseObject, error) {
	return server.GetUsage200JSONResponse{
		By: *r.Params.By, Resolution: types.UsageByHour, From: exampleTime.Add(-24 * time.Hour), To: exampleTime,
		Series: []types.UsageSeries{{
			AllocationID: nullable.NewNullNullable[int64](), DeviceID: nullable.NewNullableWithValue(exampleDevice),
			UserID: nullable.NewNullableWithValue(exampleUser.ID), OrganisationID: nullable.NewNullNullable[int64](),
			Totals: types.UsageSums{DownloadBytes: 7340032, UploadBytes: 90112, Joins: 3, PeakPlayers: 2},
			Points: []types.UsagePoint{{At: exampleTime.Truncate(time.Hour), DownloadBytes: 7340032, UploadBytes: 90112, Joins: 3, PeakPlayers: 2}},
		}},
	}, nil
}

func TestExamplePanel_AnswersAsTheContractSays(t *testing.T) {
	p := startPanel()
	t.Cleanup(p.Close)
	p.allocate(1)
	token := exampleSession
	c := newClient(t, tunnel.Options{
		PanelURL:   p.URL,
		Token:      func() string { return token },
		HTTPClient: &http.Client{Transport: contracttest.Transport(t, p.Client().Transport)},
	})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"login":      func() error { _, err := c.Login(ctx, exampleEmail, examplePassword); return err },
		"session":    func() error { _, err := c.Session(ctx); return err },
		"start":      func() error { _, err := c.StartEnrollment(ctx, types.EnrollmentStart{Name: "x"}); return err },
		"poll":       func() error { _, err := c.PollEnrollment(ctx, exampleCode); return err },
		"approve":    func() error { _, err := c.Approve(ctx, types.DeviceApproval{UserCode: "CDFG-2345"}); return err },
		"devices":    func() error { _, err := c.Devices(ctx); return err },
		"allocation": func() error { _, err := c.Allocation(ctx, 1); return err },
		"detail": func() error {
			detail, err := c.AllocationDetail(ctx, 1)
			if err == nil && (*detail.Rules.MaxPlayers != 1000 || detail.PlayersRefused["denied"] != 12 || detail.Status != types.AllocationListening) {
				err = fmt.Errorf("detail %+v", detail)
			}
			return err
		},
		"connections": func() error {
			for _, err := range c.EachConnection(ctx, types.ListConnectionsParams{}) {
				if err != nil {
					return err
				}
			}
			return c.CloseConnection(ctx, exampleConnection, types.CloseConnectionParams{})
		},
		"usage": func() error {
			by := types.UsageGroupingDevice
			_, err := c.Usage(ctx, types.GetUsageParams{By: &by})
			return err
		},
		"list": func() error { _, err := c.Allocations(ctx); return err },
		"create": func() error {
			_, err := c.CreateAllocation(ctx, types.AllocationCreate{Protocol: types.CreateTCPUDP, LocalPort: 1})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Allocation(ctx, 99); !tunnel.HasCode(err, types.CodeNotFound) {
		t.Errorf("an allocation that does not exist: %v", err)
	}
	token = ""
	if _, err := c.Devices(ctx); !tunnel.HasCode(err, types.CodeUnauthorized) {
		t.Errorf("without a token: %v", err)
	}
}
