package handler_test

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// newOrganisation makes an organisation with the members of that of the world.
func (w *world) newOrganisation(t *testing.T) int64 {
	t.Helper()
	organisation, err := w.db.CreateOrganisation(t.Context(), "guild", w.orgOwner.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, `INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, 'member'), ($1, $3, 'admin')`,
		organisation.ID, w.member.ID, w.orgAdmin.ID)
	return organisation.ID
}

// invite makes the only invitation to an organisation, and returns its id.
func (w *world) invite(t *testing.T, organisation int64, role, secret string) string {
	t.Helper()
	w.exec(t, `DELETE FROM invitations WHERE organisation_id = $1`, organisation)
	hash := sha256.Sum256([]byte(secret))
	invitation, err := w.db.CreateInvitation(t.Context(), db.Scope{All: true, UserID: w.admin.ID}, db.NewInvitation{
		OrganisationID: organisation, Role: role, TokenHash: hash[:], CreatedAt: w.Now(), ExpiresAt: w.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(invitation.ID, 10)
}

// creators creates an organisation where the setting says who may.
func creators(who, body string) policyRequest {
	return func(w *world, t *testing.T, c caller, to *target) auth.Answer {
		t.Helper()
		if _, err := w.db.UpdateSettings(t.Context(), db.SettingsPatch{OrganisationCreators: &who}); err != nil {
			t.Fatal(err)
		}
		return answered("POST", "/api/organisations", body)(w, t, c, to)
	}
}

// toOneself gives a device to the caller.
func toOneself(w *world, t *testing.T, c caller, to *target) auth.Answer {
	t.Helper()
	return answered("PATCH", "/api/tunnel/devices/{client}", fmt.Sprintf(`{"ownerId":%d}`, max(c.user.ID, 1)))(w, t, c, to)
}

// leave ends the caller's own membership. The admin is made an owner first, so that every owner may leave.
func leave(w *world, t *testing.T, c caller, to *target) auth.Answer {
	t.Helper()
	id := to.placeholder(t, w, "{disposable}")
	w.exec(t, `INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, 'owner')`, id, w.admin.ID)
	return answered("DELETE", fmt.Sprintf("/api/organisations/%s/members/%d", id, max(c.user.ID, 1)), "")(w, t, c, to)
}
