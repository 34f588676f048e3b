package server_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// newKey makes an API key of the admin.
func newKey(t *testing.T, admin *client.ClientWithResponses, scopes ...types.APIKeyScope) types.APIKeyCreated {
	t.Helper()
	resp, err := admin.CreateAPIKeyWithResponse(t.Context(), types.APIKeyCreate{Name: "script", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	if resp.JSON201 == nil {
		t.Fatalf("create key: %s", resp.Body)
	}
	return *resp.JSON201
}

// usesKey requests the list of devices with a key in its own header, and returns the status.
func usesKey(t *testing.T, p *servertest.Panel, key string) int {
	t.Helper()
	resp, err := p.Client("").ListDevicesWithResponse(t.Context(), nil, func(_ context.Context, r *http.Request) error {
		r.Header.Set("X-API-Key", key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode()
}

// userWithKey creates a user, who logs in and makes a key.
func userWithKey(t *testing.T, p *servertest.Panel, admin *client.ClientWithResponses, email string) (int64, types.APIKeyCreated) {
	t.Helper()
	user, err := admin.CreateUserWithResponse(t.Context(), types.UserCreate{Email: types.Email(email)})
	if err != nil || user.JSON201 == nil {
		t.Fatalf("create user: %v", err)
	}
	link, err := admin.CreatePasswordLinkWithResponse(t.Context(), user.JSON201.ID)
	if err != nil || link.JSON200 == nil {
		t.Fatalf("link: %v", err)
	}
	_, secret, _ := strings.Cut(*link.JSON200.URL, "#")
	if _, err := p.Client("").SetPasswordWithResponse(t.Context(), types.PasswordSet{Token: secret, Password: servertest.AdminPassword}); err != nil {
		t.Fatal(err)
	}
	login, err := p.Client("").LoginWithResponse(t.Context(), types.LoginRequest{Email: types.Email(email), Password: servertest.AdminPassword})
	if err != nil || login.JSON200 == nil {
		t.Fatalf("login: %v", err)
	}
	return user.JSON201.ID, newKey(t, p.Client(login.JSON200.Token), types.ScopeRead)
}

// TestPanels_ARevokedKeyEndsOnEveryReplica within a second, whatever ends it.
func TestPanels_ARevokedKeyEndsOnEveryReplica(t *testing.T) {
	url := dbtest.URL(t)
	panel := func(name string) *servertest.Panel {
		return servertest.Start(t, func(o *server.Options) {
			o.Database.URL = url
			o.TunnelServer.Name = name
		})
	}
	a, b := panel("a"), panel("b")
	admin := a.Admin()
	suspended := true
	for name, end := range map[string]func(user, key int64) error{
		"revoked": func(_, key int64) error {
			_, err := admin.DeleteAPIKeyWithResponse(t.Context(), key)
			return err
		},
		"user suspended": func(user, _ int64) error {
			_, err := admin.UpdateUserWithResponse(t.Context(), user, types.UserPatch{Suspended: &suspended})
			return err
		},
		"user deleted": func(user, _ int64) error {
			_, err := admin.DeleteUserWithResponse(t.Context(), user, nil)
			return err
		},
	} {
		user, key := userWithKey(t, a, admin, strings.ReplaceAll(name, " ", ".")+"@example.com")
		for _, p := range []*servertest.Panel{a, b} {
			if status := usesKey(t, p, key.Key); status != http.StatusOK {
				t.Fatalf("%s: a good key answered %d", name, status)
			}
		}
		if err := end(user, key.ID); err != nil {
			t.Fatal(err)
		}
		ended := time.Now()
		for _, p := range []*servertest.Panel{a, b} {
			if status := usesKey(t, p, key.Key); status != http.StatusUnauthorized {
				t.Errorf("%s: answered %d after %v", name, status, time.Since(ended))
			}
		}
	}
}

func TestPanel_NamesAPIKeysWithoutTheirSecrets(t *testing.T) {
	var log testlog.Buffer
	p := servertest.Start(t, func(o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	admin := p.Admin()
	key, revoked := newKey(t, admin, types.ScopeRead), newKey(t, admin, types.ScopeRead)
	if resp, err := admin.DeleteAPIKeyWithResponse(t.Context(), revoked.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("revoke: %v %s", err, resp.Body)
	}
	for _, text := range []string{key.Key, revoked.Key, key.Key[:20]} {
		usesKey(t, p, text)
		if resp, err := p.Client(text).UpdateSettingsWithResponse(t.Context(), types.SettingsPatch{}); err != nil || strings.Contains(string(resp.Body), "etk_") {
			t.Errorf("a failure repeats the key: %v %s", err, resp.Body)
		}
	}
	// The panel writes it without being asked.
	await.Until(t, "the last use", func() bool {
		resp, err := admin.ListAPIKeysWithResponse(t.Context(), nil)
		if err != nil || resp.JSON200 == nil || len(*resp.JSON200) != 1 {
			t.Fatalf("list: %v %s", err, resp.Body)
		}
		used := (*resp.JSON200)[0]
		return !used.LastUsedAt.IsNull() && used.LastUsedFrom.MustGet() == "127.0.0.1"
	})
	p.Stop()
	text := log.String()
	if !strings.Contains(text, "userId=1 keyId=1") {
		t.Error("the log does not name the key")
	}
	if strings.Contains(text, "etk_") {
		t.Error("the log has a key")
	}
}
