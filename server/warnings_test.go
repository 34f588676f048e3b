package server_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

const saysShared = "players enter at the panel's own host"

// startAt starts a panel with a public URL that leads nowhere, and has its clients reach it,
// by the transport that it returns too.
func startAt(t *testing.T, publicURL string, change ...func(*server.Options)) (*servertest.Panel, *http.Transport) {
	t.Helper()
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	u, err := url.Parse(publicURL)
	if err != nil {
		t.Fatal(err)
	}
	p := servertest.Start(t, append(change, func(o *server.Options) { o.Listen, o.PublicURL = address, u })...)
	transport := newTransport(t)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	p.Over(transport)
	return p, transport
}

func warnings(t *testing.T, p *servertest.Panel) []types.SettingsWarning {
	t.Helper()
	settings, err := p.Admin().GetSettingsWithResponse(t.Context())
	if err != nil || settings.StatusCode() != http.StatusOK {
		t.Fatalf("%v %s", err, settings.Body)
	}
	return settings.JSON200.Warnings
}

func TestWarnings_PlayersEnterAtThePanelsOwnHost(t *testing.T) {
	database := server.Database{URL: dbtest.URL(t)}
	for name, test := range map[string]struct {
		publicURL, publicHost string
		shared                bool
	}{
		"by default":                         {"http://panel.example.com", "", true},
		"on a port of its own":               {"http://panel.example.com:8080", "panel.example.com", true},
		"in other letters, with a final dot": {"http://Panel.example.com", "panel.EXAMPLE.com.", true},
		"an IPv6 address in other letters":   {"http://[2001:db8::1]", "2001:DB8:0::1", true},
		"another name":                       {"http://panel.example.com", "play.example.com", false},
		"a subdomain":                        {"http://panel.example.com", "play.panel.example.com", false},
		"the parent":                         {"http://panel.example.com", "example.com", false},
		"an address":                         {"http://panel.example.com", "203.0.113.7", false},
		"this machine alone":                 {"http://localhost:8080", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			p, _ := startAt(t, test.publicURL, func(o *server.Options) {
				o.Database, o.PublicHost, o.Logger = database, test.publicHost, slog.New(slog.NewTextHandler(&log, nil))
			})
			got := warnings(t, p)
			shared := slices.ContainsFunc(got, func(w types.SettingsWarning) bool {
				return w.Code == types.WarningSharedHost && strings.Contains(w.Message, "embedded")
			})
			if shared != test.shared || len(got) > 1 || strings.Contains(log.String(), saysShared) != test.shared {
				t.Errorf("warnings %+v, log %s", got, log.String())
			}
		})
	}
}

func TestWarnings_NameStandaloneTunnelServersAtThePanelsHost(t *testing.T) {
	p, _ := startAt(t, "http://panel.example.com", func(o *server.Options) { o.PublicHost = "play.example.com" })
	if got := warnings(t, p); len(got) != 0 {
		t.Fatalf("warnings %+v", got)
	}
	shared, other := "panel.example.com", "fra1.example.com"
	edge := p.EnrollServer("edge-1", &types.TunnelServerSettings{PublicHost: &shared})
	p.EnrollServer("edge-2", &types.TunnelServerSettings{PublicHost: &other})
	got := warnings(t, p)
	if len(got) != 1 || got[0].Code != types.WarningSharedHost || !strings.Contains(got[0].Message, "on: edge-1.") {
		t.Errorf("warnings %+v", got)
	}
	patched, err := p.Admin().UpdateDeviceWithResponse(t.Context(), edge.ID, types.DevicePatch{Server: &types.TunnelServerSettings{PublicHost: &other}})
	if err != nil || patched.JSON200 == nil {
		t.Fatalf("%v %s", err, patched.Body)
	}
	if got := warnings(t, p); len(got) != 0 {
		t.Errorf("warnings afterwards %+v", got)
	}
}

func TestWarnings_ThePublicURLIsMissing(t *testing.T) {
	p := servertest.Start(t, withoutTunnelServer, func(o *server.Options) { o.Listen = ":0" })
	if got := warnings(t, p); len(got) != 1 || got[0].Code != types.WarningPublicURLUnset {
		t.Errorf("warnings %+v", got)
	}
}
