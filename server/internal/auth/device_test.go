package auth_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var everything = db.Scope{All: true}

func wantCode(t *testing.T, name string, err error, code types.ErrorCode) {
	t.Helper()
	if err == nil || problem.From(err).Code != code {
		t.Errorf("%s: %v, want %s", name, err, code)
	}
}

// good returns claims of a valid token of a device.
func (p *panel) good(device db.Device) map[string]any {
	return map[string]any{
		"iss": "eclitunnel", "aud": "device", "sub": device.ID.String(), "iat": p.clock.Now().Unix(),
		"kind": device.Kind, "ver": device.TokenVersion,
	}
}

// approved creates another approved device.
func (p *panel) approved(t *testing.T, userCode string) db.Device {
	t.Helper()
	now := p.clock.Now()
	device, err := p.db.CreateDevice(t.Context(), db.NewDevice{
		Name: userCode, Kind: db.KindClient, UserCode: userCode, CodeHash: []byte(userCode), CreatedAt: now, ExpiresAt: now.Add(time.Minute),
	})
	if err == nil {
		device, err = p.db.ApproveDevice(t.Context(), device.ID, db.Approval{At: now})
	}
	if err == nil {
		device, err = p.db.RegenerateToken(t.Context(), everything, device.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// The agents stop for good only after the first two.
func TestAuthenticate_OnlyTombstonesAndNewerVersionsAreFinal(t *testing.T) {
	p := newPanel(t)
	kid, private := p.key(t)
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device, deleted := p.approved(t, "CDFG-2222"), p.approved(t, "CDFG-3333")
	if err := p.db.DeleteDevice(t.Context(), everything, deleted.ID); err != nil {
		t.Fatal(err)
	}
	good, gone := p.good(device), p.good(deleted)
	panel := p.auth.PanelID().String()
	for name, c := range map[string]struct {
		key    ed25519.PrivateKey
		kid    string
		claims map[string]any
		code   types.ErrorCode
	}{
		"deleted":                            {private, kid, gone, types.CodeDeviceDeleted},
		"deleted, its key rotated out":       {foreign, "old", gone, types.CodeDeviceDeleted},
		"an older version":                   {private, kid, with(good, "ver", device.TokenVersion-1), types.CodeTokenRevoked},
		"an older version, key rotated out":  {foreign, "old", with(good, "ver", device.TokenVersion-1), types.CodeTokenRevoked},
		"a newer version than the database":  {private, kid, with(good, "ver", device.TokenVersion+1), types.CodeUnknownDevice},
		"a device never known":               {private, kid, with(good, "sub", uuid.NewString()), types.CodeUnknownDevice},
		"a key never known":                  {foreign, "never", good, types.CodeUnknownDevice},
		"neither known":                      {foreign, "never", with(good, "sub", uuid.NewString()), types.CodeUnknownDevice},
		"another panel":                      {private, kid, with(good, "panel", uuid.NewString()), types.CodeUnknownDevice},
		"deleted here, but of another panel": {private, kid, with(gone, "panel", uuid.NewString()), types.CodeUnknownDevice},
		"deleted, and of this panel":         {private, kid, with(gone, "panel", panel), types.CodeDeviceDeleted},
	} {
		_, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, c.key, c.kid, c.claims)))
		wantCode(t, name, err, c.code)
	}
	for name, claims := range map[string]map[string]any{"an old token": good, "this panel": with(good, "panel", panel)} {
		if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, private, kid, claims))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	session := map[string]any{"iss": "eclitunnel", "aud": "session", "sub": "1", "exp": p.clock.Now().Add(time.Hour).Unix()}
	if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, foreign, "never", session))); status(err) != 401 {
		t.Errorf("a session of another panel: %v", err)
	}
}

func TestAuthenticate_AnEmptyDatabaseRevokesNothing(t *testing.T) {
	p, empty := newPanel(t), newPanel(t)
	device, token := p.device(t)
	_, err := empty.auth.Authenticate(bearer(token))
	wantCode(t, "an empty database", err, types.CodeUnknownDevice)
	if principal, err := p.auth.Authenticate(bearer(token)); err != nil || principal.Device.ID != device.ID {
		t.Errorf("its own panel: %+v, %v", principal, err)
	}
}

func TestAuthenticate_ARevokedKeyIsFinal(t *testing.T) {
	p := newPanel(t)
	device := p.approved(t, "CDFG-2222") // It never connected, so its version stays.
	token, err := p.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := p.key(t)
	fresh, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.db.RevokeSigningKeys(t.Context(), []string{kid}, fresh); err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.ReloadKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = p.auth.Authenticate(bearer(token))
	wantCode(t, "a revoked key", err, types.CodeTokenRevoked)
}

func TestAuthenticate_NoClockEndsADeviceToken(t *testing.T) {
	p := newPanel(t)
	device := p.approved(t, "CDFG-2222")
	kid, private := p.key(t)
	good, now := p.good(device), p.clock.Now()
	for name, claims := range map[string]map[string]any{
		"issued in 90 s":    with(good, "iat", now.Add(90*time.Second).Unix()),
		"issued in a year":  with(good, "iat", now.AddDate(1, 0, 0).Unix()),
		"valid in an hour":  with(good, "nbf", now.Add(time.Hour).Unix()),
		"expired last year": with(good, "exp", now.AddDate(-1, 0, 0).Unix()),
		"without a time":    with(good, "iat", nil),
	} {
		if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, private, kid, claims))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuthenticate_SessionsTolerateClocks(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	p.clock.advance(-24 * time.Hour) // The panel's clock is set back.
	if _, err := p.auth.Authenticate(bearer(login.Token)); err != nil {
		t.Errorf("a session from the future: %v", err)
	}
}
