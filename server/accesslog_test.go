package server_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestPanel_LogsRequestsWithoutSecrets(t *testing.T) {
	var log testlog.Buffer
	p := servertest.Start(t, func(o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	session := p.Login()
	curl(t, p, http.MethodPost, "/api/auth/login", "", `{"email":"mallory@example.com","password":"guessed password"}`)
	_, started := curl(t, p, http.MethodPost, "/api/tunnel/device/start", session, `{"name":"gaming-rig"}`)
	code := started["deviceCode"].(string)
	curl(t, p, http.MethodGet, "/api/tunnel/device/poll?deviceCode="+code, session, "")
	device := p.Enroll("another")
	controltest.Next[types.ClientSnapshot](p.Connect(device))
	p.Stop()

	text := log.String()
	for _, want := range []string{"path=/api/tunnel/device/poll status=200", "path=/api/tunnel/ws status=101", "control channel connected",
		"userId=1", "path=/api/auth/login status=401", "account=mallory@example.com", "account=" + servertest.AdminEmail, "address=127.0.0.1 userId=1",
		"deviceId=" + device.ID.String()} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for name, secret := range map[string]string{
		"session token": session, "device code": code, "device token": device.Token, "password": servertest.AdminPassword, "wrong password": "guessed password",
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has a %s", name)
		}
	}
}
