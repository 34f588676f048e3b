package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
)

// TestEcliPanel_KeysAreNoSessions sends an admin's keys in every way in which EcliPanel takes them.
func TestEcliPanel_KeysAreNoSessions(t *testing.T) {
	e := newEcliPanel(t)
	boss := personOf(17, "*")
	e.users["Bearer session"], e.users["ApiKey session"], e.users["session"] = boss, boss, boss
	for _, credential := range []string{"ApiKey key-of-boss", "Bearer key-of-boss", "Bearer key-of-boss-for-an-app", "key-of-boss"} {
		e.users[credential] = byKey(boss)
	}
	var log testlog.Buffer
	p := e.asking(time.Minute, func(o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	if got := visit(t, p, p.URL).me("Authorization", "Bearer session"); got != "user17@example.com admin" {
		t.Fatal(got)
	}
	database := dbtest.Open(t, p.DatabaseURL())
	yes := true
	if _, err := database.UpdateSettings(t.Context(), db.SettingsPatch{OwnersApprove: &yes}); err != nil {
		t.Fatal(err)
	}
	var created struct{ Device types.Device }
	status, text := visit(t, p, p.URL).send("POST", "/api/tunnel/devices", `{"name":"home"}`, "Authorization", "Bearer session")
	if err := json.Unmarshal([]byte(text), &created); err != nil || status != http.StatusCreated {
		t.Fatalf("a session creates a device: %d %s", status, text)
	}
	device := created.Device.ID.String()
	const read, write = http.StatusForbidden, http.StatusCreated // What creating an allocation gets.
	for name, test := range map[string]struct {
		header, value string
		creates       int
	}{
		"key":              {"X-Api-Key", "key-of-boss", write},
		"key by scheme":    {"Authorization", "ApiKey key-of-boss", write},
		"key as bearer":    {"Authorization", "Bearer key-of-boss", read},
		"no scheme":        {"Authorization", "key-of-boss", read},
		"app's token":      {"Authorization", "Bearer key-of-boss-for-an-app", read},
		"key as cookie":    {"Cookie", "token=key-of-boss", read},
		"session as a key": {"X-Api-Key", "session", write},
		"bare session":     {"Authorization", "session", write},
	} {
		v := visit(t, p, p.URL)
		for _, request := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/api/tunnel/devices", "", http.StatusOK},
			{"POST", "/api/tunnel/allocations", fmt.Sprintf(`{"deviceId":%q,"protocol":"tcp","localPort":25565}`, device), test.creates},
			{"GET", "/api/tunnel/allocations", "", http.StatusOK},
			{"POST", "/api/tunnel/devices", `{"name":"home"}`, http.StatusForbidden},
			{"POST", "/api/tunnel/devices/" + device + "/regenerate-token", "", http.StatusForbidden},
			{"POST", "/api/tunnel/device/start", `{"name":"home"}`, http.StatusForbidden},
			{"POST", "/api/tunnel/devices", `{"name":"edge","kind":"server","server":{"publicHost":"edge.example.com"}}`, http.StatusForbidden},
			{"POST", "/api/keys", `{"name":"stays","scopes":["read"]}`, http.StatusForbidden},
			{"POST", "/api/keys", `{"name":"stays","scopes":["admin"]}`, http.StatusForbidden},
			{"GET", "/api/auth/session", "", http.StatusForbidden},
			{"GET", "/api/account", "", http.StatusForbidden},
			{"PATCH", "/api/account", `{"email":"new@example.com","currentPassword":"correct horse"}`, http.StatusForbidden},
			{"POST", "/api/account/password", `{"currentPassword":"correct horse","newPassword":"battery staple 17"}`, http.StatusForbidden},
			{"DELETE", "/api/account/sessions", "", http.StatusForbidden},
			{"POST", "/api/organisations", `{"name":"Guild"}`, http.StatusForbidden},
			{"GET", "/api/users", "", http.StatusForbidden},
			{"GET", "/api/admin/settings", "", http.StatusForbidden},
			{"PATCH", "/api/admin/settings", `{"features":{"tunnels":false}}`, http.StatusForbidden},
		} {
			if status, text := v.send(request.method, request.path, request.body, test.header, test.value); status != request.status {
				t.Errorf("%s: %s %s: %d, want %d: %s", name, request.method, request.path, status, request.status, text)
			}
		}
	}
	entries, err := database.Audit(t.Context(), db.AuditFilter{Action: "allocation.create"}, db.Page[db.AuditPosition]{})
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 {
		t.Errorf("%d allocations were created", len(entries))
	}
	for _, entry := range entries {
		if entry.ActorKind != db.ActorKey || entry.ActorID != "" || entry.ActorName != "EcliPanel key of user17@example.com" {
			t.Errorf("an allocation was created by %s %q %q", entry.ActorKind, entry.ActorID, entry.ActorName)
		}
	}
	if text := log.String(); !strings.Contains(text, `key="EcliPanel key of user17@example.com"`) || strings.Contains(text, "keyId=") ||
		strings.Contains(text, "key-of-") {
		t.Errorf("the log:\n%s", text)
	}
}
