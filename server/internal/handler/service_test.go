package handler_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

func TestService_NeedsNoCredential(t *testing.T) {
	p := newPanel(t)
	for _, who := range []caller{p.anonymous(), {panel: p, token: "forged"}} {
		if got := decode[types.Health](t, who.send(t, "GET", "/healthz", nil), 200); got.Status != "ok" {
			t.Errorf("health is %+v", got)
		}
		if got := decode[types.Health](t, who.send(t, "GET", "/readyz", nil), 200); got.Status != "ok" {
			t.Errorf("readiness is %+v", got)
		}
		if got := decode[types.Version](t, who.send(t, "GET", "/api/version", nil), 200); got.Version != "0.1.0" {
			t.Errorf("version is %+v", got)
		}
		if got := decode[types.JWKS](t, who.send(t, "GET", "/.well-known/jwks.json", nil), 200); len(got.Keys) != 1 {
			t.Errorf("keys are %+v", got)
		}
		contract := decode[map[string]any](t, who.send(t, "GET", "/openapi.json", nil), 200)
		if contract["openapi"] != "3.0.3" {
			t.Errorf("contract is OpenAPI %v", contract["openapi"])
		}
	}
}

func TestContract_IsServedAsYAMLToo(t *testing.T) {
	p := newPanel(t)
	a := p.anonymous().send(t, "GET", "/openapi.yaml", nil)
	if a.status != 200 || a.header.Get("Content-Type") != "application/yaml" || !bytes.Equal(a.body, eclitunnel.OpenAPI) {
		t.Errorf("answered %d in %q, %d bytes", a.status, a.header.Get("Content-Type"), len(a.body))
	}
	var fromYAML, fromJSON struct{ Paths map[string]any }
	if err := yaml.Unmarshal(a.body, &fromYAML); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(p.anonymous().send(t, "GET", "/openapi.json", nil).body, &fromJSON); err != nil {
		t.Fatal(err)
	}
	if len(fromYAML.Paths) == 0 || len(fromYAML.Paths) != len(fromJSON.Paths) {
		t.Errorf("as YAML it has %d paths, as JSON %d", len(fromYAML.Paths), len(fromJSON.Paths))
	}
}

func TestContract_IsSentOnlyIfItChanged(t *testing.T) {
	p := newPanel(t)
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		tag := p.anonymous().send(t, "GET", path, nil).header.Get("ETag")
		for held, want := range map[string]int{
			tag: 304, "W/" + tag: 304, `"older", ` + tag: 304, "*": 304,
			`"older"`: 200, strings.Trim(tag, `"`): 200,
		} {
			a := p.anonymous().send(t, "GET", path, nil, "If-None-Match", held)
			if a.status != want || a.header.Get("ETag") != tag || a.header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%s with If-None-Match %s: %d, %v", path, held, a.status, a.header)
			}
		}
	}
}

func TestReadiness_HidesTheCause(t *testing.T) {
	p := newPanel(t)
	p.mu.Lock()
	p.notReady = problem.Unavailable("The database does not answer.", errors.New("db-1.internal is gone"))
	p.mu.Unlock()
	a := p.anonymous().send(t, "GET", "/readyz", nil)
	wantError(t, a, 503, types.CodeUnavailable)
	if strings.Contains(string(a.body), "internal is gone") {
		t.Errorf("it leaks: %s", a.body)
	}
	decode[types.Health](t, p.anonymous().send(t, "GET", "/healthz", nil), 200)
}

func TestAPI_RespondsToEveryKindOfInvalidRequest(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	const start = "/api/tunnel/device/start"
	wantError(t, admin.send(t, "GET", "/api/nothing", nil), 404, types.CodeNotFound)
	wantError(t, admin.send(t, "GET", "/nothing", nil), 404, types.CodeNotFound)
	if a := admin.send(t, "PUT", "/api/tunnel/devices", "{}"); a.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	} else {
		wantError(t, a, 405, types.CodeMethodNotAllowed)
	}
	wantError(t, admin.send(t, "POST", start, "name=x", "Content-Type", "application/x-www-form-urlencoded"), 415, types.CodeUnsupportedMediaType)
	wantError(t, admin.send(t, "POST", start, `{"name":"`+strings.Repeat("a", 64<<10)+`"}`), 413, types.CodePayloadTooLarge)
	wantField(t, admin.send(t, "POST", start, `{"name":`), "name")
	wantField(t, admin.send(t, "POST", start, `{"name":"x"}x`), "body")
	wantField(t, admin.send(t, "POST", start, `{"name":"a\u0000"}`), "name")
	wantField(t, admin.send(t, "POST", start, `{"name":"x","organisationId":1.0}`), "organisationId")
	wantField(t, admin.send(t, "POST", start, `{"name":"x","organisationId":9223372036854775808}`), "organisationId")
	wantField(t, admin.send(t, "GET", "/api/tunnel/devices?colour=red", nil), "colour")
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/.well-known/jwks.json", "/api/version", "/api/auth/session", "/api/admin/settings"} {
		wantField(t, admin.send(t, "GET", path+"?colour=red", nil), "colour")
	}
	wantField(t, admin.send(t, "GET", "/api/tunnel/devices/abc-uuid", nil), "id")
	wantField(t, admin.send(t, "GET", "/api/tunnel/devices/%00", nil), "id")
	wantError(t, p.anonymous().send(t, "POST", "/api/tunnel/allocations", "{"), 401, types.CodeUnauthorized)
}

func TestAPI_UsesTheCallersRequestID(t *testing.T) {
	p := newPanel(t)
	if got := wantError(t, p.anonymous().send(t, "GET", "/api/nothing", nil, "X-Request-Id", "trace-7"), 404, types.CodeNotFound); got.RequestID != "trace-7" {
		t.Errorf("request id is %q", got.RequestID)
	}
}

func TestControlChannel_IsForDevices(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	const path = "/api/tunnel/ws"
	wantError(t, p.anonymous().send(t, "GET", path, nil), 401, types.CodeUnauthorized)
	wantError(t, admin.send(t, "GET", path, nil), 403, types.CodeForbidden)
	wantField(t, agent.send(t, "GET", path+"?token=x", nil), "token")
	if a := agent.send(t, "GET", path, nil); a.header.Get("X-Device") != device.ID.String() {
		t.Errorf("answered %d to device %q", a.status, a.header.Get("X-Device"))
	}
}

func TestNew_NeedsAllItsParts(t *testing.T) {
	if _, err := handler.New(handler.Options{}); err == nil {
		t.Error("it works without options")
	}
}
