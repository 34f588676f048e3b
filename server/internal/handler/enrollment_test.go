package handler_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

func TestPublishedExamples_WorkAsPrinted(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	admin.cookie = true

	for _, list := range []string{"/api/tunnel/allocations", "/api/tunnel/devices"} {
		if a := admin.send(t, "GET", list, nil); a.status != 200 || string(a.body) != "[]\n" {
			t.Errorf("%s: %d %s", list, a.status, a.body)
		}
	}
	started := decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"gaming-rig","kind":"client"}`), 200)
	if started.Interval != 5 || !started.ExpiresAt.Equal(p.Now().Add(enroll.Lifetime)) ||
		started.VerificationURI != "https://panel.example.com/device" ||
		started.VerificationURIComplete != "https://panel.example.com/device?code="+started.UserCode {
		t.Errorf("started %+v", started)
	}
	poll := "/api/tunnel/device/poll?deviceCode=" + started.DeviceCode
	if status := decode[types.EnrollmentStatus](t, admin.send(t, "GET", poll, nil), 200); status.Approved || status.Token != nil {
		t.Errorf("pending: %+v", status)
	}
	a := admin.send(t, "GET", poll, nil)
	wantError(t, a, 429, types.CodeSlowDown)
	if a.header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	wantError(t, admin.send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"ABCD-1234"}`), 404, types.CodeNotFound)
	approved := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]string{"userCode": started.UserCode}), 200)
	if !approved.Success || !approved.Device.Approved || approved.Device.Name != "gaming-rig" {
		t.Errorf("approved %+v", approved)
	}
	device := "/api/tunnel/devices/" + approved.Device.ID.String()
	regenerated := decode[types.TokenRegenerated](t, admin.send(t, "POST", device+"/regenerate-token", nil), 200)
	if !regenerated.Success || regenerated.Token == "" {
		t.Errorf("regenerated %+v", regenerated)
	}
	if deleted := decode[types.Success](t, admin.send(t, "DELETE", device+"/delete", nil), 200); !deleted.Success {
		t.Errorf("deleted %+v", deleted)
	}
	wantError(t, admin.send(t, "GET", device, nil), 404, types.CodeNotFound)
}

func TestEnrollment_ReportsEachError(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	const start, approve = "/api/tunnel/device/start", "/api/tunnel/device/approve"

	wantError(t, p.anonymous().send(t, "POST", start, `{"name":"x","kind":"server"}`), 401, types.CodeUnauthorized)
	wantError(t, ada.send(t, "POST", start, `{"name":"x","kind":"server"}`), 403, types.CodeForbidden)
	wantError(t, ada.send(t, "POST", start, `{"name":"x","organisationId":1}`), 404, types.CodeNotFound)
	wantField(t, ada.send(t, "POST", start, `{"name":" "}`), "name")
	wantField(t, ada.send(t, "POST", start, `{"name":"x","kind":"relay"}`), "kind")

	started := decode[types.Enrollment](t, p.anonymous().send(t, "POST", start, `{"name":"x"}`), 200)
	late := decode[types.Enrollment](t, p.anonymous().send(t, "POST", start, `{"name":"x"}`), 200)
	body := map[string]any{"userCode": started.UserCode}
	wantError(t, p.anonymous().send(t, "POST", approve, body), 401, types.CodeUnauthorized)
	wantError(t, ada.send(t, "POST", approve, body), 403, types.CodeForbidden)
	wantField(t, admin.send(t, "POST", approve, map[string]any{"userCode": started.UserCode, "ownerId": 999}), "ownerId")
	wantField(t, admin.send(t, "POST", approve, map[string]any{"userCode": started.UserCode, "ownerId": 1, "organisationId": 1}), "ownerId")
	decode[types.DeviceApproved](t, admin.send(t, "POST", approve, body), 200)
	wantError(t, admin.send(t, "POST", approve, body), 409, types.CodeAlreadyApproved)

	p.advance(enroll.Lifetime)
	wantError(t, admin.send(t, "POST", approve, map[string]any{"userCode": late.UserCode}), 410, types.CodeEnrollmentExpired)
	wantError(t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll?deviceCode="+late.DeviceCode, nil), 410, types.CodeEnrollmentExpired)
	wantError(t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll?deviceCode=nonsense", nil), 404, types.CodeNotFound)
	wantField(t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll", nil), "deviceCode")
}

func TestEnrollment_PolledTokenReplacesThePreviousOne(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	started := decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"x"}`), 200)
	device := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode}), 200).Device
	poll := func() caller {
		t.Helper()
		p.advance(enroll.Interval)
		status := decode[types.EnrollmentStatus](t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll?deviceCode="+started.DeviceCode, nil), 200)
		if status.Token == nil {
			t.Fatal("no token")
		}
		return caller{panel: p, token: *status.Token}
	}
	self := "/api/tunnel/devices/" + device.ID.String()
	first := poll()
	decode[types.Device](t, first.send(t, "GET", self, nil), 200)
	second := poll()
	wantError(t, first.send(t, "GET", self, nil), 401, types.CodeTokenRevoked)
	decode[types.Device](t, second.send(t, "GET", self, nil), 200)
}
