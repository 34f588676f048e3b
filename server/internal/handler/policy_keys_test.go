package handler_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// everyScope is all scopes of API keys.
const everyScope = auth.ScopeRead | auth.ScopeDevices | auth.ScopeAllocations | auth.ScopeEnrollment | auth.ScopeAdmin

// newKey makes an API key of the owner in key.
func (w *world) newKey(t *testing.T, key db.APIKey, scopes auth.Scopes) (string, db.APIKey) {
	t.Helper()
	if key.Name == "" {
		key.Name = "key"
	}
	key.Scopes = scopes.Names()
	text, key, err := w.auth.NewAPIKey(t.Context(), db.Scope{All: true}, key)
	if err != nil {
		t.Fatal(err)
	}
	return text, key
}

// key returns a user as a caller with a new API key of every scope.
func (w *world) key(t *testing.T, user int64, expires *time.Time) (caller, db.APIKey) {
	t.Helper()
	w.exec(t, `DELETE FROM api_keys WHERE name = 'key'`) // An owner has few.
	text, key := w.newKey(t, db.APIKey{APIKeyOwner: db.APIKeyOwner{UserID: &user}, ExpiresAt: expires}, everyScope)
	c := caller{panel: w.panel, token: text}
	decode[any](t, c.send(t, "GET", "/api/users?limit=1", nil), 200)
	return c, key
}

func (w *world) revokedKey(t *testing.T) caller {
	t.Helper()
	c, key := w.key(t, w.admin.ID, nil)
	if err := w.db.DeleteAPIKey(t.Context(), db.Scope{UserID: w.admin.ID}, key.ID); err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) expiredKey(t *testing.T) caller {
	t.Helper()
	expires := w.Now().Add(time.Second)
	c, _ := w.key(t, w.admin.ID, &expires)
	w.advance(time.Second)
	return c
}

func (w *world) suspendedKey(t *testing.T) caller {
	t.Helper()
	user, err := w.db.CreateUser(t.Context(), (&target{}).placeholder(t, w, "{email}"), "hash", "admin")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := w.key(t, user.ID, nil)
	suspended := true
	if _, err := w.db.UpdateUser(t.Context(), user.ID, db.UserPatch{Suspended: &suspended}); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPolicy_APIKeysDoWhatTheirScopesPermit sends every row of the table with a key of each
// scope alone and of all, of each kind of owner.
func TestPolicy_APIKeysDoWhatTheirScopesPermit(t *testing.T) {
	w := newWorld(t)
	elsewhere := dbtest.Organisation(t, w.db, "elsewhere")
	dbtest.Member(t, w.db, elsewhere, w.user(t, "elsewhere@example.com", "user").user.ID, db.RoleOwner)
	owners := []struct {
		name         string
		owner        db.APIKeyOwner
		column       auth.Caller // Without the scope admin.
		organisation bool        // What the request is about belongs to the organisation.
	}{
		{"a stranger", db.APIKeyOwner{UserID: &w.stranger.ID}, auth.Stranger, false},
		{"a stranger to the organisation", db.APIKeyOwner{UserID: &w.stranger.ID}, auth.Stranger, true},
		{"a member", db.APIKeyOwner{UserID: &w.member.ID}, auth.Member, true},
		{"the organisation's admin", db.APIKeyOwner{UserID: &w.orgAdmin.ID}, auth.OrgAdmin, true},
		{"the organisation's owner", db.APIKeyOwner{UserID: &w.orgOwner.ID}, auth.Owner, true},
		{"the owner", db.APIKeyOwner{UserID: &w.owner.ID}, auth.Owner, false},
		{"an admin", db.APIKeyOwner{UserID: &w.admin.ID}, auth.Stranger, false},
		{"the organisation", db.APIKeyOwner{OrganisationID: &w.organisation}, auth.OrgAdmin, true},
		{"another organisation", db.APIKeyOwner{OrganisationID: &elsewhere}, auth.Stranger, true},
	}
	scopes := []auth.Scopes{auth.ScopeRead, auth.ScopeDevices, auth.ScopeAllocations, auth.ScopeEnrollment, auth.ScopeAdmin, everyScope}
	keys := make([][]caller, len(owners))
	for i, o := range owners {
		var owner db.User
		if o.owner.UserID != nil {
			owner.ID = *o.owner.UserID
		}
		for j, s := range scopes {
			text, _ := w.newKey(t, db.APIKey{Name: "kept", APIKeyOwner: o.owner}, s)
			keys[i] = append(keys[i], caller{panel: w.panel, user: owner, token: text, header: j%2 == 0})
		}
	}
	for _, row := range policyRows(t) {
		if row.rule.Public() {
			continue // It ignores keys.
		}
		refused := map[bool]*target{} // What a refused request is about stays as it is.
		for i, o := range owners {
			if row.ofOrganisation() && o.column == auth.Owner && !o.organisation {
				continue
			}
			if row.what == auth.Oneself && o.owner.UserID == nil {
				continue // Only users are somebody.
			}
			ofOrganisation := o.organisation || row.ofOrganisation()
			for j, s := range scopes {
				column := o.column
				creates := row.operation == "createDevice" && row.what == auth.AdminsApprove && s == auth.ScopeEnrollment
				if (s&auth.ScopeAdmin != 0 || creates) && o.owner.UserID == &w.admin.ID {
					column = auth.SiteAdmin
				}
				want, to := row.rule[column], refused[ofOrganisation]
				if s&row.scopes == 0 {
					want = http.StatusForbidden
				} else {
					to = nil
				}
				if to == nil {
					to = w.newTarget(ofOrganisation)
				}
				if want == http.StatusForbidden {
					refused[ofOrganisation] = to
				}
				if got := policyRequests[row.String()](w, t, keys[i][j], to); got != want {
					t.Errorf("%s by a key of %s with the scopes %q: answered %d, want %d", row, o.name, s.Names(), got, want)
				}
			}
		}
	}
}
