package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/oapi-codegen/nullable"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // It exits.
	}
	goleak.VerifyTestMain(m)
}

// asProgram, if set in the environment, makes the test binary run as the agent.
const asProgram = "ECLITUNNEL_TEST_AS_PROGRAM"

const sampleCode = "device-code-secret"

// answer is an answer of the panel.
type answer struct {
	status int
	body   any
}

func refusal(status int, code types.ErrorCode) answer {
	return answer{status, types.Problem{Error: code, Message: "The panel says " + string(code) + ".", RequestID: "r1"}}
}

// panel is a fake panel with the operations that the commands use.
type panel struct {
	*httptest.Server
	device uuid.UUID
	token  string

	mu           sync.Mutex
	refuse       *answer  // If set, the answer to every request.
	onPoll       func()   // If set, called before a poll is answered.
	polls        []answer // The answers to polls, in order; the last one repeats.
	started      types.EnrollmentStart
	unknown      []string // The fields of an enrollment that it does not know, as it is of an earlier version.
	session      string   // The Authorization header of the enrollment's start.
	ended        []string // Those of logouts.
	allocations  []types.Allocation
	settle       types.AllocationStatus // The status of a pending allocation once it is read.
	onList       func() *answer         // If set, called before allocations are listed; its answer, if any, replaces the list.
	onRegenerate func()                 // If set, called before a token is regenerated.
	keys         map[string]answer      // Answers to openings, by Idempotency-Key.
	lastID       int64
	stuck        bool                     // No allocation can be deleted.
	online       bool                     // What the panel says of the device.
	agentVersion func() string            // The same of its agent; nil says nothing.
	files        map[string][]byte        // Those that it hands out below /install/.
	server       *types.TunnelServer      // If set, the same of a tunnel server.
	addresses    []string                 // The addresses of play.test.
	assigned     []types.ClientAllocation // Those of the snapshot, on no tunnel server.
	closeCode    int                      // If set, closes a control channel after its snapshot.
	cut          func(*net.TCPConn)       // If set, breaks a control channel after its snapshot.
	relay        *types.RelayEndpoint     // From the last hello.
	hellos       int
	channels     sync.WaitGroup // Open control channels.

	onCreate    []answer          // The first answers to the creation of a device.
	created     map[string]string // Names of devices, by the Idempotency-Key.
	loseCreated bool              // The answer of the next one is lost.
}

func deviceToken(id uuid.UUID, kind types.DeviceKind) string {
	payload, err := json.Marshal(map[string]any{"sub": id, "kind": kind})
	if err != nil {
		panic(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

func newPanel(t *testing.T) *panel {
	t.Helper()
	id := uuid.New()
	p := &panel{device: id, token: deviceToken(id, types.DeviceKindClient), settle: types.AllocationListening, keys: map[string]answer{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/tunnel/device/start", p.start)
	mux.HandleFunc("GET /api/tunnel/device/poll", p.poll)
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, answer{200, types.Version{Version: "9.9.9"}})
	})
	mux.HandleFunc("POST /api/tunnel/devices", p.createDevice)
	mux.HandleFunc("GET /api/tunnel/devices/{id}", p.asDevice(p.getDevice))
	mux.HandleFunc("GET /api/tunnel/allocations", p.asDevice(p.listAllocations))
	mux.HandleFunc("POST /api/tunnel/allocations", p.asDevice(p.open))
	mux.HandleFunc("GET /api/tunnel/allocations/{id}", p.asDevice(p.getAllocation))
	mux.HandleFunc("DELETE /api/tunnel/allocations/{id}", p.asDevice(p.deleteAllocation))
	mux.HandleFunc("PATCH /api/tunnel/allocations/{id}", p.asDevice(p.updateAllocation))
	mux.HandleFunc("POST /api/tunnel/allocations/{id}/check", p.asDevice(p.checkAllocation))
	mux.HandleFunc("GET /api/tunnel/ws", p.control)
	mux.HandleFunc("GET /install/{name}", p.handOut)
	mux.HandleFunc("POST /api/auth/login", p.login)
	mux.HandleFunc("POST /api/auth/logout", p.logout)
	mux.HandleFunc("POST /api/tunnel/devices/{id}/regenerate-token", p.regenerate)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		refuse := p.refuse
		p.mu.Unlock()
		if refuse != nil {
			reply(w, *refuse)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.channels.Wait)
	t.Cleanup(p.Close)
	return p
}

func (p *panel) handOut(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	file, ok := p.files[r.PathValue("name")]
	if !ok {
		http.Error(w, "This panel has no agents to hand out.", http.StatusNotFound)
		return
	}
	_, _ = w.Write(file)
}

func reply(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body)
}

// asDevice calls h if the request has the device's token.
func (p *panel) asDevice(h func(*http.Request) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer "+p.token {
			reply(w, refusal(401, types.CodeUnauthorized))
			return
		}
		reply(w, h(r))
	}
}

func (p *panel) start(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = r.Header.Get("Authorization")
	var started types.EnrollmentStart
	var unknown []types.ErrorDetail
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &started)
	for _, field := range p.unknown {
		if bytes.Contains(body, []byte(`"`+field+`":`)) {
			unknown = append(unknown, types.ErrorDetail{Field: field, Message: "is not part of the contract"})
		}
	}
	if unknown != nil {
		reply(w, answer{400, types.Problem{Error: types.CodeInvalidRequest, Message: "No.", RequestID: "r1", Details: &unknown}})
		return
	}
	p.started = started
	reply(w, answer{200, types.Enrollment{
		DeviceCode: sampleCode, UserCode: "CDFG-2345", ExpiresAt: time.Now().Add(10 * time.Minute), Interval: 5,
		VerificationURI: "https://panel.test/activate", VerificationURIComplete: "https://panel.test/activate?code=CDFG-2345",
	}})
}

func (p *panel) poll(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.onPoll != nil {
		p.onPoll()
	}
	a := p.polls[0]
	if len(p.polls) > 1 {
		p.polls = p.polls[1:]
	}
	if r.URL.Query().Get("deviceCode") != sampleCode {
		a = refusal(404, types.CodeNotFound)
	}
	if a.status == 0 {
		panic(http.ErrAbortHandler) // Unreachable.
	}
	reply(w, a)
}

func (p *panel) getDevice(r *http.Request) answer {
	if r.PathValue("id") != p.device.String() {
		return refusal(404, types.CodeNotFound)
	}
	device := types.Device{
		ID: p.device, Name: "home", Kind: types.DeviceKindClient, Approved: true,
		LastSeenAt: nullable.NewNullNullable[time.Time](), Online: p.online,
	}
	if p.agentVersion != nil {
		device.AgentVersion = nullable.NewNullableWithValue(p.agentVersion())
	}
	if p.server != nil {
		device.Kind, device.Server = types.DeviceKindServer, nullable.NewNullableWithValue(*p.server)
	}
	return answer{200, device}
}

func (p *panel) open(r *http.Request) answer {
	key := r.Header.Get("Idempotency-Key")
	if _, found := p.keys[key]; !found {
		p.keys[key] = p.openNew(r)
	}
	return p.keys[key]
}

func (p *panel) openNew(r *http.Request) answer {
	var request types.AllocationCreate
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return refusal(400, types.CodeInvalidRequest)
	}
	port := 25000
	if request.Port != nil {
		port = *request.Port
	}
	count, run := 1, nullable.NewNullNullable[uuid.UUID]()
	if request.Count != nil {
		count, run = *request.Count, nullable.NewNullableWithValue(uuid.New())
	}
	protocols := protocolsOf(request.Protocol)
	taken := func(a types.Allocation) bool {
		// Where the port is not chosen, one that is free for both protocols is taken.
		return a.Port >= port && a.Port < port+count && (request.Port == nil || slices.Contains(protocols, a.Protocol))
	}
	for request.Port == nil && slices.ContainsFunc(p.allocations, taken) {
		port++
	}
	if slices.ContainsFunc(p.allocations, taken) {
		return refusal(409, types.CodePortTaken)
	}
	if request.Options.ProxyProtocol == nil {
		none := types.ProxyProtocolNone
		request.Options.ProxyProtocol = &none
	}
	var made []types.Allocation
	for i := range count * len(protocols) {
		offset := i / len(protocols)
		p.lastID++
		made = append(made, types.Allocation{
			ID: p.lastID, Port: port + offset, DeviceID: p.device, Protocol: protocols[i%len(protocols)],
			PublicHost: "play.test", PublicAddress: "play.test:" + strconv.Itoa(port+offset),
			LocalHost: *request.LocalHost, LocalPort: request.LocalPort + offset, RunID: run,
			PublicAddresses: p.addresses,

			Name: valueOr(request.Name, ""), Options: *request.Options, Status: types.AllocationPending,
			Labels: labelsOf(request.Labels), Enabled: request.Enabled == nil || *request.Enabled,
		})
		if request.Name != nil {
			made[len(made)-1].Name = *request.Name
		}
	}
	p.allocations = append(p.allocations, made...)
	return answer{201, types.AllocationCreated{Allocations: made}}
}

func valueOr(value *string, fallback string) string {
	if value == nil {
		return fallback
	}
	return *value
}

func (p *panel) listAllocations(r *http.Request) answer {
	if p.onList != nil {
		if a := p.onList(); a != nil {
			return *a
		}
	}
	if r.URL.Query().Has("label") {
		return answer{200, labelled(p.allocations, r.URL.Query()["label"])}
	}
	for i := range p.allocations {
		a := &p.allocations[i]
		if a.Status != types.AllocationPending {
			continue
		}
		a.Status = p.settle
		if a.Status == types.AllocationFailed || a.Status == types.AllocationOffline {
			a.StatusReason = nullable.NewNullableWithValue("the reason")
		}
	}
	return answer{200, p.allocations}
}

func (p *panel) deleteAllocation(r *http.Request) answer {
	if p.stuck {
		return refusal(403, types.CodeForbidden)
	}
	before := len(p.allocations)
	p.allocations = slices.DeleteFunc(p.allocations, func(a types.Allocation) bool {
		return strconv.FormatInt(a.ID, 10) == r.PathValue("id")
	})
	if len(p.allocations) == before {
		return refusal(404, types.CodeNotFound)
	}
	return answer{200, types.Success{Success: true}}
}

// control serves a control channel, and closes it with closeCode if that is set.
func (p *panel) control(w http.ResponseWriter, r *http.Request) {
	p.channels.Add(1)
	defer p.channels.Done()
	upgrader := websocket.Upgrader{}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := channel.New(ws, channel.Options{})
	defer c.Wait()
	data, err := c.Receive()
	if err != nil {
		return
	}
	var hello types.Hello
	_ = json.Unmarshal(data, &hello)
	if hello.Relay != nil {
		_ = c.Send(types.ServerSnapshot{Type: types.TypeServerSnapshot, Revision: 1, Host: p.host()})
	} else {
		p.mu.Lock()
		assigned := append([]types.ClientAllocation{}, p.assigned...)
		p.mu.Unlock()
		_ = c.Send(types.ClientSnapshot{
			Type: types.TypeClientSnapshot, Revision: 1, Allocations: assigned, Servers: []types.ClientServer{},
		})
	}
	p.mu.Lock()
	p.relay = hello.Relay
	p.hellos++
	code, cut := p.closeCode, p.cut
	p.mu.Unlock()
	if tcp, ok := ws.NetConn().(*net.TCPConn); ok && cut != nil {
		cut(tcp)
	}
	if code != 0 {
		c.Close(code, "the reason")
	}
}

// host is that of the tunnel server, as its control channel names it.
func (p *panel) host() *types.ServerHost {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return nil
	}
	h := &types.ServerHost{PublicHost: p.server.PublicHost, PublicHostGuessed: p.server.PublicHostGuessed}
	if warning, err := p.server.PublicHostWarning.Get(); err == nil {
		h.PublicHostWarning = &warning
	}
	return h
}

// endpoint is that of the last hello.
func (p *panel) endpoint() types.RelayEndpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.relay
}

// connections is how many control channels there have been.
func (p *panel) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hellos
}
