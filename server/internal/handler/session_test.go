package handler_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
)

func TestSession_SaysWhatThePanelPermits(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	session := func() types.Session {
		t.Helper()
		return decode[types.Session](t, ada.send(t, "GET", "/api/auth/session", nil), 200)
	}
	if s := session(); !s.Features.Tunnels || !s.Enrollment.Anonymous || s.Enrollment.OwnersApprove || s.Organisations.Creators != types.CreatorsAdmins {
		t.Errorf("at first %+v", s)
	}
	patch := `{"features":{"tunnels":false},"enrollment":{"anonymous":false,"ownersApprove":true},"organisations":{"creators":"everyone"}}`
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", patch), 200)
	if s := session(); s.Features.Tunnels || s.Enrollment.Anonymous || !s.Enrollment.OwnersApprove || s.Organisations.Creators != types.CreatorsEveryone {
		t.Errorf("after the change %+v", s)
	}
}

func TestSession_SaysWhetherThePanelHandsOutAgents(t *testing.T) {
	downloads := false
	ada := newPanel(t, func(o *handler.Options) { o.AgentDownloads = func() bool { return downloads } }).user(t, "ada@example.com", "user")
	for _, downloads = range []bool{false, true} {
		if s := decode[types.Session](t, ada.send(t, "GET", "/api/auth/session", nil), 200); s.AgentDownloads != downloads {
			t.Errorf("with agents to hand out: %t, session %+v", downloads, s)
		}
	}
}
