package server_test

import (
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestPanel_WarnsThatNobodyCanLogInAsAnAdmin(t *testing.T) {
	provider := map[string]any{"id": "company", "type": "oidc", "issuer": "https://login.example.com", "clientId": "panel"}
	eclipanel := func(roles ...string) func(*server.Options) {
		return func(o *server.Options) {
			o.EcliPanel = server.EcliPanel{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, AdminRoles: roles}
		}
	}
	for name, test := range map[string]struct {
		change func(*server.Options)
		warns  int
	}{
		"a provider without admins":   {withProviders(t, provider), 1},
		"EcliPanel":                   {eclipanel(), 0},
		"EcliPanel without its roles": {eclipanel(""), 1},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			p := servertest.Start(t, withoutTunnelServer, test.change, func(o *server.Options) {
				o.NoLocalAccounts = true
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			warned := func() int { return strings.Count(log.String(), "nobody can log in as an admin") }
			if warned() != test.warns {
				t.Errorf("warned %d times:\n%s", warned(), log.String())
			}
			if name != "a provider without admins" {
				return
			}
			// An admin can make others, also if the provider says nothing of roles.
			yes := true
			identity := db.Identity{Provider: "company", Subject: "1", Email: "ann@example.com", Admin: &yes}
			if _, err := dbtest.Open(t, p.DatabaseURL()).SyncIdentity(t.Context(), identity); err != nil {
				t.Fatal(err)
			}
			p.Restart()
			if warned() != test.warns {
				t.Errorf("warned once more, with an admin:\n%s", log.String())
			}
		})
	}
}
