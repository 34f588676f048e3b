package handler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// TestContract_ErrorExamplesAreAnswersOfThePanel makes every error that the contract
// shows, and compares the panel's answer with the example.
func TestContract_ErrorExamplesAreAnswersOfThePanel(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	answers := errorAnswers(t, newPanel(t))
	for name, example := range doc.Components.Examples {
		shown, ok := example.Value.Value.(map[string]any)
		if _, isError := shown["error"]; !ok || !isError {
			continue
		}
		a, ok := answers[name]
		if !ok {
			t.Errorf("%s: no request of this test gets it", name)
			continue
		}
		got := decode[map[string]any](t, a, a.status)
		if id, _ := got["requestId"].(string); len(id) != len(shown["requestId"].(string)) {
			t.Errorf("%s: a request ID is like %q, not like %q", name, id, shown["requestId"])
		}
		got["requestId"] = shown["requestId"]
		if !reflect.DeepEqual(got, shown) {
			t.Errorf("%s: the panel answers %v, the contract shows %v", name, got, shown)
		}
	}
}

// errorAnswers returns the panel's answer for each error example by its name. Later
// requests depend on what earlier ones did.
func errorAnswers(t *testing.T, p *panel) map[string]answer {
	t.Helper()
	const devices, start, approve, poll = "/api/tunnel/devices/", "/api/tunnel/device/start", "/api/tunnel/device/approve", "/api/tunnel/device/poll?deviceCode="
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	client, agent := p.device(t, ada, admin, types.DeviceKindClient)
	pending := func() (types.Enrollment, types.Device) {
		p.advance(time.Second) // The newest device is listed first.
		enrollment := decode[types.Enrollment](t, ada.send(t, "POST", start, `{"name":"home"}`), 200)
		return enrollment, decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices?limit=1", nil), 200)[0]
	}
	second, device := pending()
	denied, gone := pending()
	decode[types.Success](t, ada.send(t, "DELETE", devices+gone.ID.String()+"/delete", nil), 200)
	twice := map[string]string{"userCode": second.UserCode}
	tagged := map[string]string{"name": "home", "tag": tag}
	decode[types.Enrollment](t, p.anonymous().send(t, "POST", start, tagged, "X-Forwarded-For", "192.0.2.7"), 200)

	answers := map[string]answer{
		"InvalidParameter":     p.anonymous().send(t, "GET", "/api/version?colour=red", nil),
		"InvalidField":         admin.send(t, "POST", approve, `{"userCode":"CDFG-2345","colour":"red"}`),
		"InvalidHandshake":     handshakeAnswer(t, p),
		"Unauthorized":         p.anonymous().send(t, "GET", "/api/auth/session", nil),
		"WrongPassword":        p.anonymous().send(t, "POST", "/api/auth/login", `{"email":"ada@example.com","password":"guess"}`),
		"AdminRequired":        ada.send(t, "GET", "/api/admin/settings", nil),
		"PortForbidden":        ada.send(t, "POST", allocations, newAllocation(client, "port", 80)),
		"DeviceNotAccepted":    agent.send(t, "GET", "/api/tunnel/devices", nil),
		"DeviceRequired":       ada.send(t, "GET", "/api/tunnel/ws", nil),
		"AllocationNotFound":   ada.send(t, "GET", allocations+"/42", nil),
		"DeviceNotFound":       ada.send(t, "GET", devices+uuid.NewString(), nil),
		"ServerNotFound":       ada.send(t, "POST", allocations, newAllocation(client, "serverId", uuid.New())),
		"OrganisationNotFound": ada.send(t, "POST", start, `{"name":"home","organisationId":7}`),
		"DeviceCodeNotFound":   p.anonymous().send(t, "GET", poll+"unknown", nil),
		"UserCodeNotFound":     admin.send(t, "POST", approve, `{"userCode":"CDFG-2345"}`),
		"NotApproved":          ada.send(t, "POST", devices+device.ID.String()+"/regenerate-token", nil),
		"NoSettings":           admin.send(t, "PATCH", devices+client.ID.String(), `{"server":{"cordoned":true}}`),
		"NotATunnelServer":     admin.send(t, "POST", devices+client.ID.String()+"/drain", `{}`),
		"TagTaken":             p.anonymous().send(t, "POST", start, tagged, "X-Forwarded-For", "192.0.2.8"),
		"EnrollmentDenied":     p.anonymous().send(t, "GET", poll+denied.DeviceCode, nil),
		"MethodNotAllowed":     p.anonymous().send(t, "DELETE", "/api/version", nil),
		"PayloadTooLarge":      admin.send(t, "POST", approve, strings.Repeat(" ", validate.MaxBody+1)),
		"UnsupportedMediaType": admin.send(t, "POST", approve, `{}`, "Content-Type", "text/plain"),
		"InternalError":        written(t, errors.New("a fault")),
		"NoTunnelServer":       ada.send(t, "POST", allocations, newAllocation(client)),
		// The tests of package server have panels that answer these.
		"KYCRequired":           written(t, problem.KYCRequired()),
		"IdentityEmailTaken":    written(t, db.ErrEmailTaken),
		"LocalAccountsDisabled": written(t, problem.LocalAccountsDisabled()),
	}
	p.anonymous().send(t, "GET", poll+second.DeviceCode, nil)
	answers["SlowDown"] = p.anonymous().send(t, "GET", poll+second.DeviceCode, nil)
	admin.send(t, "POST", approve, twice)
	answers["AlreadyApproved"] = admin.send(t, "POST", approve, twice)

	answers["UserNotFound"] = admin.send(t, "GET", "/api/users/999", nil)
	answers["PasswordLinkNotFound"] = p.anonymous().send(t, "POST", "/api/auth/set-password", map[string]string{"token": "used", "password": password})
	answers["EmailTaken"] = admin.send(t, "POST", "/api/users", `{"email":"ada@example.com"}`)
	answers["WrongCurrentPassword"] = ada.send(t, "PATCH", "/api/account", `{"email":"ada@example.org","currentPassword":"guess"}`)
	answers["SessionNotFound"] = ada.send(t, "DELETE", "/api/account/sessions/"+uuid.NewString(), nil)
	answers["NoPassword"] = p.withoutPassword(t).send(t, "PATCH", "/api/account", `{"email":"ada@example.org","currentPassword":"guess"}`)
	answers["LastAdmin"] = admin.send(t, "PATCH", userPath(admin.user.ID), `{"role":"user"}`)
	answers["UserOwnsDevices"] = admin.send(t, "DELETE", userPath(ada.user.ID), nil)
	bob := p.user(t, "bob@example.com", "user")
	dbtest.Member(t, p.db, dbtest.Organisation(t, p.db, "guild of bob"), bob.user.ID, "owner")
	answers["LastOwner"] = admin.send(t, "DELETE", userPath(bob.user.ID), nil)
	decode[types.User](t, admin.send(t, "PATCH", userPath(bob.user.ID), `{"suspended":true}`), 200)
	answers["UserSuspended"] = admin.send(t, "POST", userPath(bob.user.ID)+"/password-link", nil)

	loginAnswers(t, p, admin, answers)
	organisationAnswers(t, p, answers, admin, ada, client)
	repetitionAnswers(t, p, ada, answers)
	keyAnswers(t, ada, answers)
	webhookAnswers(t, ada, answers)

	server := p.server(t, 20000) // It has one port.
	answers["EmbeddedTunnelServer"] = admin.send(t, "PATCH", devices+server.ID.String(), `{"server":{"publicHost":"play.example.com"}}`)
	decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(client)), 201)
	connectionAnswers(t, p, answers, ada, server)
	answers["NoPortsAvailable"] = ada.send(t, "POST", allocations, newAllocation(client))
	answers["PortTaken"] = ada.send(t, "POST", allocations, newAllocation(client, "port", 20000))
	answers["PortOutsideRange"] = ada.send(t, "POST", allocations, newAllocation(client, "port", 25565))
	decode[types.Quota](t, admin.send(t, "PATCH", userPath(ada.user.ID)+"/quota", `{"devices":2}`), 200)
	answers["QuotaExceeded"] = admin.send(t, "POST", "/api/tunnel/devices", map[string]any{"name": "third", "ownerId": ada.user.ID})
	decode[types.Device](t, admin.send(t, "PATCH", devices+server.ID.String(), `{"server":{"cordoned":true}}`), 200)
	answers["TunnelServerCordoned"] = ada.send(t, "POST", allocations, newAllocation(client, "serverId", server.ID))

	late, _ := pending()
	p.advance(enroll.Lifetime)
	answers["EnrollmentExpired"] = p.anonymous().send(t, "GET", poll+late.DeviceCode, nil)
	for range 11 {
		answers["RateLimited"] = admin.send(t, "POST", approve, `{"userCode":"CDFG-2345"}`)
	}
	self := devices + client.ID.String()
	decode[types.TokenRegenerated](t, ada.send(t, "POST", self+"/regenerate-token", nil), 200)
	answers["TokenRevoked"] = agent.send(t, "GET", self, nil)
	decode[types.Success](t, ada.send(t, "DELETE", self+"/delete", nil), 200)
	answers["DeviceDeleted"] = agent.send(t, "GET", self, nil)
	other := newPanel(t)
	_, foreign := other.device(t, other.user(t, "ada@example.com", "user"), other.user(t, "root@example.com", "admin"), types.DeviceKindClient)
	foreign.panel = p
	answers["UnknownDevice"] = foreign.send(t, "GET", self, nil)
	p.mu.Lock()
	p.notReady = io.ErrUnexpectedEOF // What the database gives when its connection is lost.
	p.mu.Unlock()
	answers["Unavailable"] = p.anonymous().send(t, "GET", "/readyz", nil)
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"features":{"tunnels":false}}`), 200)
	p.advance(time.Second)
	answers["FeatureDisabled"] = admin.send(t, "GET", "/api/tunnel/devices", nil)
	return answers
}

// organisationAnswers adds the answers about organisations.
func organisationAnswers(t *testing.T, p *panel, answers map[string]answer, admin, ada caller, client types.Device) {
	t.Helper()
	mia := p.user(t, "mia@example.com", "user")
	guild := decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", map[string]any{"name": "guild", "ownerId": ada.user.ID}), 201)
	dbtest.Member(t, p.db, guild.ID, mia.user.ID, "member")
	path := fmt.Sprintf("/api/organisations/%d", guild.ID)
	answers["RoleTooLow"] = mia.send(t, "PATCH", path, `{"name":"clan"}`)
	answers["MemberNotFound"] = ada.send(t, "DELETE", path+"/members/999", nil)
	answers["InvitationUnknown"] = ada.send(t, "DELETE", path+"/invitations/999", nil)
	answers["InvitationNotFound"] = mia.send(t, "POST", "/api/invitations/accept", `{"token":"used"}`)
	invited := invite(t, ada, guild.ID, `{"role":"member","email":"grace@example.com"}`)
	answers["OtherEmail"] = accept(t, mia, invited)

	device := "/api/tunnel/devices/" + client.ID.String()
	decode[types.Device](t, ada.send(t, "PATCH", device, map[string]any{"organisationId": guild.ID}), 200)
	answers["OrganisationOwnsDevices"] = ada.send(t, "DELETE", path, nil)
	own, err := p.db.CreateDevice(t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, OrganisationID: &guild.ID, CreatedAt: p.Now(), ExpiresAt: p.Now(), Approved: true,
		PublicHost: "edge.example.com", PortFirst: 21000, PortLast: 21010,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.connect(t, own.ID)
	allocation := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(client, "serverId", own.ID)), 201)
	answers["UnservedOwner"] = ada.send(t, "PATCH", device, map[string]any{"ownerId": ada.user.ID})
	decode[types.Success](t, ada.send(t, "DELETE", fmt.Sprintf("%s/%d", allocations, allocation.ID), nil), 200)
	decode[types.Device](t, ada.send(t, "PATCH", device, map[string]any{"ownerId": ada.user.ID}), 200)

	for range db.MaxInvitations {
		answers["TooManyInvitations"] = ada.send(t, "POST", path+"/invitations", `{"role":"member"}`)
	}
	for range db.MaxOwned {
		decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", map[string]any{"name": "guild", "ownerId": mia.user.ID}), 201)
	}
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"organisations":{"creators":"everyone"}}`), 200)
	answers["TooManyOrganisations"] = mia.send(t, "POST", "/api/organisations", `{"name":"one more"}`)
}

// written returns the response to an error that no request of a test may cause.
func written(t *testing.T, err error) answer {
	t.Helper()
	recorder := httptest.NewRecorder()
	failing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, err) })
	problem.Middleware(slog.New(slog.DiscardHandler))(failing).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	return answer{method: "GET", path: "/", status: recorder.Code, header: recorder.Header(), body: recorder.Body.Bytes()}
}

// handshakeAnswer returns what a control channel answers to a plain request of a device.
func handshakeAnswer(t *testing.T, p *panel) answer {
	t.Helper()
	hub, err := control.New(control.Options{
		Store:      p.db,
		Ticket:     func(uuid.UUID, uuid.UUID, int64, time.Time) (string, error) { return "", nil },
		Keys:       p.auth.TicketKeys,
		ReloadKeys: p.auth.ReloadKeys,
		Caller:     func(context.Context) (control.Device, bool) { return control.Device{}, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	hub.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), "GET", "/api/tunnel/ws", nil))
	return answer{method: "GET", path: "/api/tunnel/ws", status: recorder.Code, header: recorder.Header(), body: recorder.Body.Bytes()}
}
