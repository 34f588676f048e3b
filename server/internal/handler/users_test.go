package handler_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// setPassword follows a link.
func (p *panel) setPassword(t *testing.T, link types.PasswordLink, password string) answer {
	t.Helper()
	if link.URL == nil {
		t.Fatalf("no link in %+v", link)
	}
	parsed, err := url.Parse(*link.URL)
	if err != nil || parsed.Path != "/password" {
		t.Fatalf("the link is %s", *link.URL)
	}
	return p.anonymous().send(t, "POST", "/api/auth/set-password", map[string]string{"token": parsed.Fragment, "password": password})
}

func (p *panel) login(t *testing.T, email, password string) answer {
	t.Helper()
	return p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": email, "password": password})
}

func userPath(id int64) string { return fmt.Sprintf("/api/users/%d", id) }

func TestUsers_GetAPasswordByALink(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	user := decode[types.User](t, admin.send(t, "POST", "/api/users", `{"email":"Grace@example.com"}`), 201)
	if user.Email != "Grace@example.com" || user.Role != types.RoleUser || user.Suspended || user.CreatedAt.IsZero() {
		t.Errorf("created %+v", user)
	}
	link := func() types.PasswordLink {
		return decode[types.PasswordLink](t, admin.send(t, "POST", userPath(user.ID)+"/password-link", nil), 200)
	}
	for _, password := range []string{" ", password} {
		wantError(t, p.login(t, user.Email, password), 401, types.CodeUnauthorized)
	}
	first := link()
	if want := p.Now().Add(24 * time.Hour); !first.ExpiresAt.Equal(want) {
		t.Errorf("expires at %v, want %v", first.ExpiresAt, want)
	}
	wantField(t, p.setPassword(t, first, "too short"), "password")
	decode[any](t, p.setPassword(t, first, password), 204)
	wantError(t, p.setPassword(t, first, password), 404, types.CodeNotFound)
	session := decode[types.Login](t, p.login(t, "grace@example.com", password), 200)

	// A forgotten password: the new one ends the sessions of whoever knows the old one.
	forgotten := link()
	decode[any](t, p.setPassword(t, forgotten, password+"!"), 204)
	wantError(t, caller{panel: p, token: session.Token}.send(t, "GET", "/api/auth/session", nil), 401, types.CodeUnauthorized)
	wantError(t, p.login(t, user.Email, password), 401, types.CodeUnauthorized)
	decode[types.Login](t, p.login(t, user.Email, password+"!"), 200)

	late := link()
	p.advance(24 * time.Hour)
	wantError(t, p.setPassword(t, late, password), 404, types.CodeNotFound)
}

func TestSetPassword_LimitsGuesses(t *testing.T) {
	p := newPanel(t)
	guess := func() answer {
		return p.anonymous().send(t, "POST", "/api/auth/set-password", map[string]string{"token": uuid.NewString(), "password": password})
	}
	for range 60 {
		wantError(t, guess(), 404, types.CodeNotFound)
	}
	wantError(t, guess(), 429, types.CodeRateLimited)
}

// TestSuspend_EndsSessionsOnEveryReplica: what a suspended user had ends at once, and a
// restored one logs in again.
func TestSuspend_EndsSessionsOnEveryReplica(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	there := caller{panel: other, token: ada.token}
	decode[types.Session](t, there.send(t, "GET", "/api/auth/session", nil), 200)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)

	link := decode[types.PasswordLink](t, admin.send(t, "POST", userPath(ada.user.ID)+"/password-link", nil), 200)
	if user := decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":true}`), 200); !user.Suspended {
		t.Errorf("suspended as %+v", user)
	}
	for _, c := range []caller{ada, there} {
		wantError(t, c.send(t, "GET", "/api/auth/session", nil), 401, types.CodeUnauthorized)
		wantError(t, c.send(t, "GET", "/api/tunnel/devices", nil), 401, types.CodeUnauthorized)
	}
	if failure := wantError(t, p.login(t, "ada@example.com", password), 401, types.CodeUnauthorized); !strings.Contains(failure.Message, "suspended") {
		t.Errorf("the login says %q", failure.Message)
	}
	if failure := wantError(t, p.login(t, "ada@example.com", "wrong"), 401, types.CodeUnauthorized); strings.Contains(failure.Message, "suspended") {
		t.Error("who does not know the password learns that the account is suspended")
	}
	wantError(t, p.setPassword(t, link, password), 404, types.CodeNotFound)
	wantError(t, admin.send(t, "POST", userPath(ada.user.ID)+"/password-link", nil), 409, types.CodeConflict)
	// Devices serve players, and stay.
	decode[types.Device](t, agent.send(t, "GET", "/api/tunnel/devices/"+device.ID.String(), nil), 200)

	decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":false}`), 200)
	wantError(t, ada.send(t, "GET", "/api/auth/session", nil), 401, types.CodeUnauthorized)
	decode[types.Login](t, p.login(t, "ada@example.com", password), 200)
}

func TestUsers_RolesApplyFromTheNextRequestOn(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	wantError(t, ada.send(t, "GET", "/api/users", nil), 403, types.CodeForbidden)
	decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"role":"admin"}`), 200)
	decode[types.User](t, ada.send(t, "PATCH", userPath(admin.user.ID), `{"role":"user"}`), 200)
	wantError(t, admin.send(t, "GET", "/api/users", nil), 403, types.CodeForbidden)
	for _, body := range []string{`{"role":"user"}`, `{"suspended":true}`} {
		wantError(t, ada.send(t, "PATCH", userPath(ada.user.ID), body), 409, types.CodeConflict)
	}
	wantError(t, ada.send(t, "DELETE", userPath(ada.user.ID), nil), 409, types.CodeConflict)
	if user := decode[types.User](t, ada.send(t, "GET", userPath(ada.user.ID), nil), 200); user.Role != types.RoleAdmin || user.Suspended {
		t.Errorf("the last admin is now %+v", user)
	}
}

func TestUsers_EmailsAreUniqueInAnyCase(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	wantError(t, admin.send(t, "POST", "/api/users", `{"email":"ADA@example.com"}`), 409, types.CodeConflict)
	wantError(t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"email":"Root@Example.com"}`), 409, types.CodeConflict)
	wantField(t, admin.send(t, "POST", "/api/users", `{"email":"nobody"}`), "email")
	wantError(t, admin.send(t, "PATCH", userPath(ada.user.ID), `{}`), 400, types.CodeInvalidRequest)
	decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"email":"Ada@Example.com"}`), 200)
	decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"email":"ada@example.org"}`), 200)
	decode[types.Login](t, p.login(t, "ada@example.org", password), 200)
	for _, missing := range []answer{
		admin.send(t, "GET", userPath(999), nil), admin.send(t, "PATCH", userPath(999), `{"role":"user"}`),
		admin.send(t, "DELETE", userPath(999), nil), admin.send(t, "POST", userPath(999)+"/password-link", nil),
	} {
		wantError(t, missing, 404, types.CodeNotFound)
	}
}

func TestListUsers_PagesThroughASearch(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	for i := range 5 {
		if _, err := p.db.CreateUser(t.Context(), fmt.Sprintf("Player%d+&@example.com", i), "", "user"); err != nil {
			t.Fatal(err)
		}
	}
	var emails []string
	next := "/api/users?search=player&limit=2"
	for pages := 0; next != ""; pages++ {
		a := admin.send(t, "GET", next, nil)
		for _, user := range decode[[]types.User](t, a, 200) {
			emails = append(emails, user.Email)
			// It is gone when the next page is read.
			if err := p.db.DeleteUser(t.Context(), user.ID, db.DevicesOf{}); err != nil {
				t.Fatal(err)
			}
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if len(emails) != 5 || emails[0] != "Player0+&@example.com" || emails[4] != "Player4+&@example.com" {
		t.Errorf("listed %q", emails)
	}
	if all := decode[[]types.User](t, admin.send(t, "GET", "/api/users", nil), 200); len(all) != 1 {
		t.Errorf("listed %+v", all)
	}
	for _, after := range []string{"_w", "AA", "A"} { // Not UTF-8, a NUL, not base64.
		wantField(t, admin.send(t, "GET", "/api/users?after="+after, nil), "after")
	}
}

func TestDeleteUser_AsksWhatBecomesOfDevices(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	bob := p.user(t, "bob@example.com", "user")
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	path := "/api/tunnel/devices/" + device.ID.String()
	wantError(t, admin.send(t, "DELETE", userPath(ada.user.ID), nil), 409, types.CodeConflict)
	for _, query := range []string{"?devices=move", "?newOwnerId=1", "?devices=delete&newOwnerId=1",
		"?devices=move&newOwnerId=999", "?devices=move&newOwnerId=" + fmt.Sprint(ada.user.ID)} {
		wantField(t, admin.send(t, "DELETE", userPath(ada.user.ID)+query, nil), "newOwnerId")
	}
	decode[types.Success](t, admin.send(t, "DELETE", userPath(ada.user.ID)+"?devices=move&newOwnerId="+fmt.Sprint(bob.user.ID), nil), 200)
	wantError(t, ada.send(t, "GET", "/api/auth/session", nil), 401, types.CodeUnauthorized)
	decode[types.Device](t, bob.send(t, "GET", path, nil), 200)
	decode[types.Device](t, agent.send(t, "GET", path, nil), 200)
	decode[types.Success](t, admin.send(t, "DELETE", userPath(bob.user.ID)+"?devices=delete", nil), 200)
	wantError(t, agent.send(t, "GET", path, nil), 401, types.CodeDeviceDeleted)
	wantError(t, admin.send(t, "GET", path, nil), 404, types.CodeNotFound)
}
