package server_test

import (
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestPanel_SaysThatThePublicURLIsMissingWhereOthersReachIt(t *testing.T) {
	certFile, keyFile, _ := certify(t)
	database := server.Database{URL: dbtest.URL(t)}
	everywhere := func(o *server.Options) { o.Listen = ":0" }
	for name, test := range map[string]struct {
		change func(*server.Options)
		said   string // The address used in its place; empty if nothing is to be said.
	}{
		"every address": {everywhere, "publicUrl=http://localhost:"},
		"a certificate": {func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = certFile, keyFile }, "publicUrl=https://127.0.0.1:"},
		"a proxy": {func(o *server.Options) {
			o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, "publicUrl=http://127.0.0.1:"},
		"a public host alone": {func(o *server.Options) {
			o.Listen, o.PublicHost = ":0", "play.example.com"
		}, "publicHost=play.example.com"},
		"this machine alone": {func(*server.Options) {}, ""},
		"every address and a public URL": {func(o *server.Options) {
			o.Listen, o.PublicURL = ":0", &url.URL{Scheme: "https", Host: "panel.example.com"}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			servertest.Start(t, test.change, func(o *server.Options) {
				o.Database, o.TunnelServer.Disabled, o.Logger = database, true, slog.New(slog.NewTextHandler(&log, nil))
			})
			want := 0
			if test.said != "" {
				want = 1
			}
			if strings.Count(log.String(), "--public-url") != want || !strings.Contains(log.String(), test.said) {
				t.Errorf("the log is %s", log.String())
			}
		})
	}
}
