package handler_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestSettings_AreForAdmins(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	_, device := p.device(t, ada, admin, types.DeviceKindClient)
	const path = "/api/admin/settings"
	patch := map[string]any{"enrollment": map[string]bool{"anonymous": false}}
	for who, test := range map[string]struct {
		caller caller
		status int
		code   types.ErrorCode
	}{
		"anonymous": {p.anonymous(), 401, types.CodeUnauthorized},
		"a user":    {ada, 403, types.CodeForbidden},
		"a device":  {device, 403, types.CodeForbidden},
	} {
		t.Log(who)
		wantError(t, test.caller.send(t, "GET", path, nil), test.status, test.code)
		wantError(t, test.caller.send(t, "PATCH", path, patch), test.status, test.code)
	}
	both := types.Settings{
		Features: types.Features{Tunnels: true}, Enrollment: types.EnrollmentSettings{Anonymous: true},
		Organisations: types.OrganisationSettings{Creators: types.CreatorsAdmins},
		Quota: types.QuotaLimits{
			Devices:           nullable.NewNullNullable[int](),
			Allocations:       nullable.NewNullNullable[int](),
			PortsOutsideRange: nullable.NewNullableWithValue(0),
		},
		Usage: types.UsageSettings{MinuteDays: 2, HourDays: 90, DayDays: 731},
		Rules: types.RuleSettings{BuiltIn: types.RuleLimits{
			MaxPlayers:                    nullable.NewNullableWithValue(1000),
			MaxPlayersPerSource:           nullable.NewNullableWithValue(100),
			MaxFlowsPerSource:             nullable.NewNullableWithValue(256),
			ConnectionsPerSecond:          nullable.NewNullableWithValue(200),
			ConnectionsPerSecondPerSource: nullable.NewNullableWithValue(20),
			DatagramsPerSecondPerSource:   nullable.NewNullableWithValue(20_000),
		}},
		Warnings: []types.SettingsWarning{},
	}
	if got := decode[types.Settings](t, admin.send(t, "GET", path, nil), 200); !reflect.DeepEqual(got, both) {
		t.Errorf("settings at first are %+v", got)
	}
	both.Enrollment.Anonymous = false
	if got := decode[types.Settings](t, admin.send(t, "PATCH", path, patch), 200); !reflect.DeepEqual(got, both) {
		t.Errorf("settings patched are %+v", got)
	}
	if got := decode[types.Settings](t, admin.send(t, "GET", path, nil), 200); !reflect.DeepEqual(got, both) {
		t.Errorf("settings afterwards are %+v", got)
	}
	both.Usage.HourDays = 30
	days := map[string]any{"usage": map[string]int{"hourDays": 30}}
	if got := decode[types.Settings](t, admin.send(t, "PATCH", path, days), 200); !reflect.DeepEqual(got, both) {
		t.Errorf("settings with another usage are %+v", got)
	}
	wantError(t, admin.send(t, "PATCH", path, map[string]any{}), 400, types.CodeInvalidRequest)
	wantField(t, admin.send(t, "PATCH", path, map[string]any{"features": map[string]any{"tunnels": "yes"}}), "features.tunnels")
}

func TestFeatureFlag_DisablesEveryTunnelOperationForEveryCaller(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	_, device := p.device(t, admin, admin, types.DeviceKindClient)
	flag := func(on bool) {
		t.Helper()
		decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", map[string]any{"features": map[string]bool{"tunnels": on}}), 200)
	}
	flag(false)
	id := "/" + uuid.NewString()
	for _, who := range []caller{p.anonymous(), admin, device, {panel: p, token: "forged"}} {
		for _, operation := range [][2]string{
			{"GET", "/api/tunnel/allocations"}, {"POST", "/api/tunnel/allocations"},
			{"GET", "/api/tunnel/allocations/1"}, {"PATCH", "/api/tunnel/allocations/1"}, {"DELETE", "/api/tunnel/allocations/1"},
			{"GET", "/api/tunnel/devices"}, {"GET", "/api/tunnel/devices" + id}, {"PATCH", "/api/tunnel/devices" + id},
			{"DELETE", "/api/tunnel/devices" + id + "/delete"}, {"POST", "/api/tunnel/devices" + id + "/regenerate-token"},
			{"POST", "/api/tunnel/device/start"}, {"GET", "/api/tunnel/device/poll"}, {"POST", "/api/tunnel/device/approve"},
			{"GET", "/api/tunnel/ws"},
		} {
			wantError(t, who.send(t, operation[0], operation[1], nil), 503, types.CodeFeatureDisabled)
		}
	}
	decode[types.Session](t, admin.send(t, "GET", "/api/auth/session", nil), 200)
	flag(true)
	decode[[]types.Device](t, admin.send(t, "GET", "/api/tunnel/devices", nil), 200)
}

func TestFeatureFlag_ReachesOtherReplicasWithinASecond(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	admin := p.user(t, "root@example.com", "admin")
	there := caller{panel: other, token: admin.token}
	decode[[]types.Device](t, there.send(t, "GET", "/api/tunnel/devices", nil), 200)
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", map[string]any{"features": map[string]bool{"tunnels": false}}), 200)
	other.advance(time.Second)
	wantError(t, there.send(t, "GET", "/api/tunnel/devices", nil), 503, types.CodeFeatureDisabled)
}
