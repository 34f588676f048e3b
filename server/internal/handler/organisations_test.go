package handler_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func organisationPath(id int64) string { return fmt.Sprintf("/api/organisations/%d", id) }

func memberPath(organisation int64, member caller) string {
	return fmt.Sprintf("%s/members/%d", organisationPath(organisation), member.user.ID)
}

// organisation makes one whose owner is a user.
func (p *panel) organisation(t *testing.T, admin, owner caller, name string) types.Organisation {
	t.Helper()
	return decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", map[string]any{"name": name, "ownerId": owner.user.ID}), 201)
}

// invite makes an invitation and returns the token of its link.
func invite(t *testing.T, by caller, organisation int64, body string) (token string) {
	t.Helper()
	created := decode[types.InvitationCreated](t, by.send(t, "POST", organisationPath(organisation)+"/invitations", body), 201)
	link, err := url.Parse(created.URL)
	if err != nil || link.Path != "/invitation" || link.RawQuery != "" || len(link.Fragment) < 26 {
		t.Fatalf("the link is %s", created.URL)
	}
	return link.Fragment
}

func accept(t *testing.T, c caller, token string) answer {
	t.Helper()
	return c.send(t, "POST", "/api/invitations/accept", map[string]string{"token": token})
}

func wantRole(t *testing.T, a answer, want string) {
	t.Helper()
	organisation := decode[types.Organisation](t, a, 200)
	if role, err := organisation.Role.Get(); err != nil || role != want {
		t.Errorf("%s %s answered %+v, want the role %s", a.method, a.path, organisation, want)
	}
}

func TestOrganisations_AreCreatedByWhomTheSettingNames(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	wantError(t, ada.send(t, "POST", "/api/organisations", `{"name":"guild"}`), 403, types.CodeForbidden)
	own := decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", `{"name":" guild "}`), 201)
	if role, _ := own.Role.Get(); own.Name != "guild" || role != "owner" || own.CreatedAt.IsZero() {
		t.Errorf("created %+v", own)
	}
	wantField(t, admin.send(t, "POST", "/api/organisations", `{"name":"guild","ownerId":999}`), "ownerId")
	wantField(t, admin.send(t, "POST", "/api/organisations", "{\"name\":\"\u2003\"}"), "name")
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"organisations":{"creators":"everyone"}}`), 200)
	created := decode[types.Organisation](t, ada.send(t, "POST", "/api/organisations", `{"name":"guild"}`), 201)
	// Names need not be unique: a tenant learns nothing of others by theirs.
	wantRole(t, ada.send(t, "GET", organisationPath(created.ID), nil), "owner")
	wantError(t, ada.send(t, "POST", "/api/organisations", map[string]any{"name": "x", "ownerId": admin.user.ID}), 403, types.CodeForbidden)
	if list := decode[[]types.Organisation](t, ada.send(t, "GET", "/api/organisations", nil), 200); len(list) != 1 || list[0].ID != created.ID {
		t.Errorf("listed %+v", list)
	}
	list := decode[[]types.Organisation](t, admin.send(t, "GET", "/api/organisations", nil), 200)
	if len(list) != 2 || list[0].Role.IsNull() || !list[1].Role.IsNull() {
		t.Errorf("listed %+v to the admin", list)
	}
}

func TestListOrganisations_PagesThroughASearch(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	for _, name := range []string{"Guild", "guild", "GUILD: the second", "gild", "Éguild", "guildenstern"} {
		p.organisation(t, admin, ada, name)
	}
	for _, c := range []caller{admin, ada} {
		var names []string
		next := "/api/organisations?search=gUild&limit=1"
		for next != "" {
			a := c.send(t, "GET", next, nil)
			for _, o := range decode[[]types.Organisation](t, a, 200) {
				names = append(names, o.Name)
			}
			next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		if got := strings.Join(names, "|"); got != "Guild|guild|GUILD: the second|guildenstern" {
			t.Errorf("listed %s", got)
		}
	}
	for _, after := range []string{"_w", "AA", "A", "Z3VpbGQ"} { // The last one has no id.
		wantField(t, admin.send(t, "GET", "/api/organisations?after="+after, nil), "after")
	}
}

func TestInvitations_MakeMembersOnce(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	grace, eve := p.user(t, "Grace@example.com", "user"), p.user(t, "eve@example.com", "user")
	guild := p.organisation(t, admin, ada, "guild").ID
	token := invite(t, ada, guild, `{"role":"member","email":"gRACE@example.com"}`)
	detail := decode[types.InvitationDetail](t, p.anonymous().send(t, "POST", "/api/invitations/look-up", map[string]string{"token": token}), 200)
	if detail.Organisation != "guild" || detail.Role != types.OrganisationMember || !detail.ExpiresAt.Equal(p.Now().Add(7*24*time.Hour)) {
		t.Errorf("looked up %+v", detail)
	}
	wantRole(t, accept(t, ada, invite(t, ada, guild, `{"role":"member"}`)), "owner") // Who tries the link does not lose a role by it.
	wantError(t, accept(t, eve, token), 403, types.CodeForbidden)
	wantRole(t, accept(t, grace, token), "member")
	wantError(t, accept(t, grace, token), 404, types.CodeNotFound)

	// A member who is invited again gets the higher role, and the link is for whoever needs it.
	again := invite(t, ada, guild, `{"role":"admin"}`)
	wantRole(t, accept(t, ada, again), "owner")
	wantRole(t, accept(t, grace, again), "admin")
	wantError(t, accept(t, eve, again), 404, types.CodeNotFound)

	revoked := invite(t, ada, guild, `{"role":"member"}`)
	list := decode[[]types.Invitation](t, grace.send(t, "GET", organisationPath(guild)+"/invitations", nil), 200)
	if len(list) != 2 || !list[0].Email.IsNull() {
		t.Fatalf("listed %+v", list)
	}
	decode[types.Success](t, grace.send(t, "DELETE", fmt.Sprintf("%s/invitations/%d", organisationPath(guild), list[0].ID), nil), 200)
	wantError(t, accept(t, eve, revoked), 404, types.CodeNotFound)
	late := invite(t, ada, guild, `{"role":"member"}`)
	p.advance(7 * 24 * time.Hour)
	eve = p.session(t, eve)
	wantError(t, accept(t, eve, late), 404, types.CodeNotFound)
}

// session logs a caller in again.
func (p *panel) session(t *testing.T, c caller) caller {
	t.Helper()
	c.token = decode[types.Login](t, p.login(t, c.user.Email, password), 200).Token
	return c
}

// TestInvitations_EndWithTheRightToMakeThem: nobody returns, or rises, by a link of their own.
func TestInvitations_EndWithTheRightToMakeThem(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	for name, end := range map[string]func(mallory caller, guild int64){
		"removed":   func(m caller, guild int64) { ada.send(t, "DELETE", memberPath(guild, m), nil) },
		"demoted":   func(m caller, guild int64) { ada.send(t, "PATCH", memberPath(guild, m), `{"role":"member"}`) },
		"suspended": func(m caller, _ int64) { admin.send(t, "PATCH", userPath(m.user.ID), `{"suspended":true}`) },
		"deleted":   func(m caller, _ int64) { admin.send(t, "DELETE", userPath(m.user.ID), nil) },
	} {
		mallory, helper := p.user(t, name+"@example.com", "user"), p.user(t, "helper-of-"+name+"@example.com", "user")
		guild := p.organisation(t, admin, ada, name).ID
		dbtest.Member(t, p.db, guild, mallory.user.ID, "admin")
		token := invite(t, mallory, guild, `{"role":"admin"}`)
		end(mallory, guild)
		wantError(t, accept(t, helper, token), 404, types.CodeNotFound)
		if list := decode[[]types.Invitation](t, ada.send(t, "GET", organisationPath(guild)+"/invitations", nil), 200); len(list) != 0 {
			t.Errorf("%s: listed %+v", name, list)
		}
	}
}

func TestLookUpInvitation_LimitsGuesses(t *testing.T) {
	p := newPanel(t)
	guess := func() answer { return p.anonymous().send(t, "POST", "/api/invitations/look-up", `{"token":"guess"}`) }
	for range 60 {
		wantError(t, guess(), 404, types.CodeNotFound)
	}
	wantError(t, guess(), 429, types.CodeRateLimited)
}

func TestMembers_TransferAnOrganisation(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	grace, ali := p.user(t, "grace@example.com", "user"), p.user(t, "ali@example.com", "user")
	guild := p.organisation(t, admin, ada, "guild").ID
	dbtest.Member(t, p.db, guild, grace.user.ID, "member")
	dbtest.Member(t, p.db, guild, ali.user.ID, "admin")
	for _, refused := range []answer{
		ada.send(t, "DELETE", memberPath(guild, ada), nil), ada.send(t, "PATCH", memberPath(guild, ada), `{"role":"admin"}`),
		admin.send(t, "DELETE", userPath(ada.user.ID), nil), admin.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":true}`),
	} {
		wantError(t, refused, 409, types.CodeConflict)
		if !strings.Contains(string(refused.body), "only owner") {
			t.Errorf("it is refused because: %s", refused.body)
		}
	}
	wantError(t, ali.send(t, "PATCH", memberPath(guild, grace), `{"role":"owner"}`), 403, types.CodeForbidden)
	wantError(t, ali.send(t, "PATCH", memberPath(guild, ali), `{"role":"owner"}`), 403, types.CodeForbidden)
	if member := decode[types.Member](t, ada.send(t, "PATCH", memberPath(guild, grace), `{"role":"owner"}`), 200); member.Email != "grace@example.com" || member.Role != types.OrganisationOwner {
		t.Errorf("updated %+v", member)
	}
	decode[types.Success](t, ada.send(t, "DELETE", memberPath(guild, ada), nil), 200)
	wantError(t, ada.send(t, "GET", organisationPath(guild), nil), 404, types.CodeNotFound)
	a := grace.send(t, "GET", organisationPath(guild)+"/members?limit=1", nil)
	if first := decode[[]types.Member](t, a, 200); len(first) != 1 || first[0].UserID != grace.user.ID {
		t.Errorf("listed %+v", first)
	}
	next, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	if rest := decode[[]types.Member](t, grace.send(t, "GET", next, nil), 200); len(rest) != 1 || rest[0].UserID != ali.user.ID {
		t.Errorf("listed %+v next", rest)
	}
	// A suspended owner could not act for the others.
	decode[types.Member](t, grace.send(t, "PATCH", memberPath(guild, ali), `{"role":"owner"}`), 200)
	decode[types.User](t, admin.send(t, "PATCH", userPath(ali.user.ID), `{"suspended":true}`), 200)
	wantError(t, grace.send(t, "DELETE", memberPath(guild, grace), nil), 409, types.CodeConflict)
	// With nobody else left there is nobody to act for.
	decode[types.User](t, admin.send(t, "PATCH", userPath(grace.user.ID), `{"suspended":true}`), 200)
}

func TestDeleteOrganisation_IsRefusedWhileItHasDevices(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	guild := p.organisation(t, admin, ada, "guild").ID
	server := p.serverOf(t, guild)
	wantError(t, ada.send(t, "DELETE", organisationPath(guild), nil), 409, types.CodeConflict)
	if _, err := dbtest.SQL(t, p.db).ExecContext(t.Context(), `DELETE FROM organisations WHERE id = $1`, guild); err == nil {
		t.Error("the schema lets an organisation with a tunnel server be deleted")
	}
	// Not even after that is the tunnel server everybody's.
	if device, err := p.db.Device(t.Context(), db.Scope{All: true}, server.ID); err != nil || device.OrganisationID == nil {
		t.Errorf("the tunnel server is now %+v, %v", device, err)
	}
	decode[types.Success](t, admin.send(t, "DELETE", "/api/tunnel/devices/"+server.ID.String()+"/delete", nil), 200)
	pending := decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": "home", "organisationId": guild}), 200)
	decode[types.Success](t, ada.send(t, "DELETE", organisationPath(guild), nil), 200)
	wantError(t, p.anonymous().send(t, "GET", "/api/tunnel/device/poll?deviceCode="+pending.DeviceCode, nil), 403, types.CodeEnrollmentDenied)
	wantError(t, ada.send(t, "GET", organisationPath(guild), nil), 404, types.CodeNotFound)
}

// serverOf makes a tunnel server of an organisation that is online.
func (p *panel) serverOf(t *testing.T, organisation int64) db.Device {
	t.Helper()
	server, err := p.db.CreateDevice(t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, OrganisationID: &organisation, CreatedAt: p.Now(), ExpiresAt: p.Now(), Approved: true,
		PublicHost: "edge.example.com", PortFirst: 30000, PortLast: 30010,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.connect(t, server.ID)
	return server
}

// TestUpdateDevice_GivesItToAnotherOwner: it moves with its allocations, whose rules are those
// of the new organisation at once.
func TestUpdateDevice_GivesItToAnotherOwner(t *testing.T) {
	p := newPanel(t)
	admin, ada, mia := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "mia@example.com", "user")
	p.server(t, 20010)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	allocation := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device)), 201)
	guild := p.organisation(t, admin, ada, "guild").ID
	dbtest.Member(t, p.db, guild, mia.user.ID, "member")
	decode[map[string]any](t, ada.send(t, "PATCH", organisationPath(guild)+"/rules", `{"maxPlayers":7}`), 200)
	path, port := "/api/tunnel/devices/"+device.ID.String(), fmt.Sprintf("%s/%d", allocations, allocation.ID)
	maxPlayers := func(c caller) int {
		return *decode[types.AllocationDetail](t, c.send(t, "GET", port, nil), 200).Rules.MaxPlayers
	}
	if maxPlayers(ada) != 1000 {
		t.Error("it has rules before")
	}
	wantError(t, mia.send(t, "GET", path, nil), 404, types.CodeNotFound)
	moved := decode[types.Device](t, ada.send(t, "PATCH", path, map[string]any{"organisationId": guild, "name": "shared"}), 200)
	if !moved.OwnerID.IsNull() || moved.OrganisationID.MustGet() != guild || moved.Name != "shared" {
		t.Errorf("moved as %+v", moved)
	}
	if maxPlayers(mia) != 7 { // A member sees the allocation, and what counts for it.
		t.Error("the organisation's rules are not in effect")
	}
	decode[types.Device](t, agent.send(t, "GET", path, nil), 200)
	wantError(t, mia.send(t, "PATCH", path, map[string]any{"ownerId": mia.user.ID}), 403, types.CodeForbidden)
	wantError(t, ada.send(t, "PATCH", path, map[string]any{"ownerId": mia.user.ID}), 403, types.CodeForbidden)
	wantField(t, ada.send(t, "PATCH", path, map[string]any{"ownerId": ada.user.ID, "organisationId": guild}), "ownerId")
	wantField(t, admin.send(t, "PATCH", path, `{"ownerId":999}`), "ownerId")
	wantError(t, ada.send(t, "PATCH", path, `{"organisationId":999}`), 404, types.CodeNotFound)
	clan := p.organisation(t, admin, admin, "clan").ID
	wantError(t, ada.send(t, "PATCH", path, map[string]any{"organisationId": clan}), 404, types.CodeNotFound)
	dbtest.Member(t, p.db, clan, ada.user.ID, "member")
	wantError(t, ada.send(t, "PATCH", path, map[string]any{"organisationId": clan}), 403, types.CodeForbidden)
	decode[types.Device](t, admin.send(t, "PATCH", path, map[string]any{"ownerId": mia.user.ID}), 200)
	wantError(t, ada.send(t, "GET", path, nil), 404, types.CodeNotFound)
	if maxPlayers(mia) != 1000 {
		t.Error("the organisation's rules are still in effect")
	}
	pending := decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", `{"name":"home"}`), 200)
	waiting := decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices", nil), 200)
	if len(waiting) != 1 || waiting[0].UserCode.MustGet() != pending.UserCode {
		t.Fatalf("listed %+v", waiting)
	}
	wantError(t, ada.send(t, "PATCH", "/api/tunnel/devices/"+waiting[0].ID.String(), map[string]any{"organisationId": guild}), 409, types.CodeConflict)
}

// TestUpdateDevice_TakesNobodyToAPrivateTunnelServer: neither a client nor a tunnel server moves
// so that a tunnel server serves another tenant than its own.
func TestUpdateDevice_TakesNobodyToAPrivateTunnelServer(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	public := p.server(t, 20010)
	guild := p.organisation(t, admin, ada, "guild").ID
	private := p.serverOf(t, guild)
	device, _ := p.device(t, ada, admin, types.DeviceKindClient)
	path := "/api/tunnel/devices/" + device.ID.String()
	onPublic := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", public.ID)), 201)
	wantError(t, admin.send(t, "PATCH", "/api/tunnel/devices/"+public.ID.String(), map[string]any{"organisationId": guild}), 409, types.CodeConflict)
	decode[types.Device](t, ada.send(t, "PATCH", path, map[string]any{"organisationId": guild}), 200)
	decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", private.ID)), 201)
	wantError(t, ada.send(t, "PATCH", path, map[string]any{"ownerId": ada.user.ID}), 409, types.CodeConflict)
	wantError(t, admin.send(t, "PATCH", path, map[string]any{"ownerId": ada.user.ID}), 409, types.CodeConflict)
	// The tunnel server may become everybody's by an admin's choice, and only so.
	wantError(t, ada.send(t, "PATCH", "/api/tunnel/devices/"+private.ID.String(), map[string]any{"ownerId": ada.user.ID}), 403, types.CodeForbidden)
	decode[types.Device](t, admin.send(t, "PATCH", "/api/tunnel/devices/"+private.ID.String(), map[string]any{"ownerId": admin.user.ID}), 200)
	decode[types.Device](t, ada.send(t, "PATCH", path, map[string]any{"ownerId": ada.user.ID}), 200)
	// An organisation's own devices are no obstacle.
	decode[types.Success](t, ada.send(t, "DELETE", fmt.Sprintf("%s/%d", allocations, onPublic.ID), nil), 200)
	decode[types.Device](t, ada.send(t, "PATCH", path, map[string]any{"organisationId": guild}), 200)
	decode[types.Device](t, admin.send(t, "PATCH", "/api/tunnel/devices/"+private.ID.String(), map[string]any{"organisationId": guild}), 200)
}
