package handler_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// auditRequests are requests that change something, where those of the policy do not.
var auditRequests = map[string]policyRequest{
	"updateSettings": answered("PATCH", "/api/admin/settings", `{"enrollment":{"anonymous":false}}`),
	"updateAPIKey":   answered("PATCH", "/api/keys/{key}", `{"name":"renamed"}`),
}

// auditActions are the entries that the operations leave which are not read-only. An operation without
// one is an exception, with its reason.
var auditActions = map[string][]string{
	"createAllocation":        {"allocation.create"},
	"updateAllocation":        {"allocation.update"},
	"deleteAllocation":        {"allocation.delete"},
	"readmitSource":           {"allocation.readmit"},
	"closeConnection":         {"allocation.keep_out", "connection.close"},
	"bulkAllocations":         {"allocation.delete"},
	"checkAllocation":         {}, // It changes nothing.
	"updateDevice":            {"device.update"},
	"drainDevice":             {"device.drain"},
	"deleteDevice":            {"device.delete"},
	"regenerateDeviceToken":   {"device.token"},
	"startEnrollment":         nil, // Anybody may; what counts is the approval.
	"approveDevice":           {"device.approve"},
	"login":                   {"session.login"},
	"logout":                  {"session.end"},
	"startDeviceLogin":        nil, // Anybody may; what counts is the key.
	"pollDeviceLogin":         {},
	"approveDeviceLogin":      {"key.create"},
	"denyDeviceLogin":         {}, // Nobody gets anything.
	"revokeDeviceLogin":       {}, // Of a key that is valid, key.delete by itself: see TestDeviceLogin_KeyEndsItself.
	"setPassword":             {"user.password"},
	"createUser":              {"user.create"},
	"updateUser":              {"user.suspend"},
	"deleteUser":              {"user.delete"},
	"createPasswordLink":      {"user.password_link"},
	"updateSettings":          {"settings.update"},
	"createDevice":            {"device.create"},
	"denyDevice":              {"device.deny"},
	"createAPIKey":            {"key.create"},
	"updateAPIKey":            {"key.update"},
	"deleteAPIKey":            {"key.delete"},
	"createWebhook":           {"webhook.create"},
	"updateWebhook":           {"webhook.update"},
	"deleteWebhook":           {"webhook.delete"},
	"testWebhook":             {}, // It changes nothing but the list of deliveries, as does the next one but one.
	"rotateWebhookSecret":     {"webhook.update"},
	"redeliverWebhook":        {},
	"createOrganisation":      {"organisation.create", "member.create"},
	"updateOrganisation":      {"organisation.update"},
	"deleteOrganisation":      {"organisation.delete", "member.delete", "member.delete", "member.delete"},
	"updateMember":            {"member.update"},
	"removeMember":            {"member.delete"},
	"createInvitation":        {"invitation.create"},
	"revokeInvitation":        {"invitation.delete"},
	"lookUpInvitation":        {},
	"acceptInvitation":        {"invitation.delete", "member.create"},
	"updateAccount":           {"user.update"},
	"changePassword":          {"user.password", "session.end"},
	"endOtherSessions":        {"session.end"},
	"endAccountSession":       {"session.end"},
	"updateOrganisationRules": {"organisation.update"},
	"updateUserQuota":         {"user.update"},
	"updateOrganisationQuota": {"organisation.update"},
}

// trail reads the newest entries with an id above last, oldest first.
func (w *world) trail(t *testing.T, c caller, last int64) []types.AuditEntry {
	t.Helper()
	entries := decode[[]types.AuditEntry](t, c.send(t, "GET", "/api/audit?limit=100", nil), 200)
	entries = slices.DeleteFunc(entries, func(e types.AuditEntry) bool { return e.ID <= last })
	slices.SortFunc(entries, func(a, b types.AuditEntry) int { return int(a.ID - b.ID) })
	return entries
}

func (w *world) last(t *testing.T, c caller) int64 {
	t.Helper()
	entries := w.trail(t, c, 0)
	if len(entries) == 0 {
		return 0
	}
	return entries[len(entries)-1].ID
}

func actionsOf(entries []types.AuditEntry) []string {
	var actions []string
	for _, entry := range entries {
		actions = append(actions, entry.Action)
	}
	return actions
}

// TestAudit_EveryChangeLeavesAnEntry sends every operation that is not read-only, as an admin who may and as
// a user who may not.
func TestAudit_EveryChangeLeavesAnEntry(t *testing.T) {
	w := newWorld(t)
	watcher := w.user(t, "watcher@example.com", "admin")
	var secrets []string
	for _, row := range policyRows(t) {
		if row.method == "GET" || row.what != "" {
			continue
		}
		want, ok := auditActions[row.operation]
		if !ok {
			t.Errorf("it is not said which entries %s leaves", row)
			continue
		}
		send := auditRequests[row.operation]
		if send == nil {
			send = policyRequests[row.String()]
		}
		to := w.newTarget(strings.Contains(row.path, "/organisations/"))
		admin, last := w.session(t, w.admin), w.last(t, watcher)
		if got := send(w, t, admin, to); got != auth.Allowed {
			t.Errorf("%s answered %d", row, got)
		}
		secrets = append(secrets, admin.token)
		// What the request needs was made without an address.
		made := slices.DeleteFunc(w.trail(t, watcher, last), func(e types.AuditEntry) bool { return e.Actor.Address.IsNull() })
		if got := actionsOf(made); !slices.Equal(got, want) {
			t.Errorf("%s left the entries %q, want %q", row, got, want)
		}
		for _, entry := range made {
			w.checkEntry(t, row, entry)
		}
		if row.rule.Public() || row.rule[auth.Stranger] == auth.Allowed {
			continue
		}
		to = w.newTarget(false)
		last = w.last(t, watcher)
		send(w, t, w.session(t, w.stranger), to)
		for _, entry := range w.trail(t, watcher, last) {
			if !entry.Actor.Address.IsNull() && !strings.HasSuffix(entry.Action, ".refuse") {
				t.Errorf("%s, which was refused, left %+v", row, entry)
			}
		}
	}
	w.checkSecrets(t, secrets)
}

func (w *world) checkEntry(t *testing.T, row policyRow, entry types.AuditEntry) {
	t.Helper()
	actor := entry.Actor
	if actor.Kind != "user" || actor.Address.MustGet() != "127.0.0.1" || entry.Count != 1 && entry.Action != "session.end" {
		t.Errorf("%s left %+v", row, entry)
	}
	// Whoever has no session acts as the user whose secret it is.
	admin, err := w.db.UserByID(t.Context(), w.admin.ID)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{w.admin.Email, admin.Email} // A request changes it.
	if !row.rule.Public() && (actor.ID.MustGet() != strconv.FormatInt(admin.ID, 10) || !slices.Contains(names, actor.Name.MustGet())) {
		t.Errorf("%s was done by %+v", row, actor)
	}
	unnamed := []string{"allocation", "invitation"} // They may have no name, and no email.
	if entry.Target.Kind != "settings" && (entry.Target.ID.IsNull() || entry.Target.Name.IsNull() && !slices.Contains(unnamed, entry.Target.Kind)) {
		t.Errorf("%s has the target %+v", row, entry.Target)
	}
	if page, err := os.ReadFile("../../../docs/audit.md"); err != nil || !strings.Contains(string(page), "`"+entry.Action+"`") {
		t.Errorf("docs/audit.md does not explain %s (%v)", entry.Action, err)
	}
}

// checkSecrets looks for secrets in the whole table.
func (w *world) checkSecrets(t *testing.T, secrets []string) {
	t.Helper()
	sql := dbtest.SQL(t, w.db)
	text := func(query string) string {
		var all []byte
		if err := sql.QueryRowContext(t.Context(), query).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	trail := text(`SELECT string_agg(l::text, ' ') FROM audit_log l`)
	secrets = append(secrets, password, "hash")
	secrets = append(secrets, strings.Fields(text(
		`SELECT string_agg(secret, ' ') FROM (
			SELECT password_hash AS secret FROM users UNION SELECT encode(token_hash, 'hex') FROM password_links
			UNION SELECT encode(hash, 'hex') FROM api_keys UNION SELECT encode(token_hash, 'hex') FROM invitations
			UNION SELECT encode(code_hash, 'hex') FROM devices UNION SELECT user_code FROM devices
			UNION SELECT encode(seed, 'hex') FROM signing_keys UNION SELECT encode(login_secret, 'hex') FROM settings
			UNION SELECT convert_from(secret, 'UTF8') FROM webhooks UNION SELECT convert_from(url, 'UTF8') FROM webhooks
			UNION SELECT id::text FROM sessions) AS s WHERE secret <> ''`))...)
	for _, secret := range secrets {
		if strings.Contains(trail, secret) {
			t.Errorf("the audit trail contains the secret %s", secret)
		}
	}
}

// TestAudit_SaysWhatChanged reads the entries of a device from its enrollment to its end.
func TestAudit_SaysWhatChanged(t *testing.T) {
	w := newWorld(t)
	admin, owner := w.session(t, w.admin), w.session(t, w.owner)
	device, token := w.device(t, owner, admin, types.DeviceKindClient)
	server := w.server(t, 20010)
	w.connect(t, device.ID)
	made := decode[types.AllocationCreated](t, token.send(t, "POST", "/api/tunnel/allocations", `{"protocol":"tcp","localPort":25565}`), 201)
	path := fmt.Sprintf("/api/tunnel/allocations/%d", made.ID)
	decode[any](t, owner.send(t, "PATCH", path, `{"localPort":25566,"options":{"maxPlayers":8}}`, "X-Forwarded-For", "2001:db8::7"), 200)
	decode[any](t, owner.send(t, "PATCH", path, `{"localPort":25566}`), 200) // Nothing changes.
	wantError(t, owner.send(t, "PATCH", path, `{"port":80}`), 403, types.CodeForbidden)
	decode[any](t, admin.send(t, "DELETE", "/api/tunnel/devices/"+device.ID.String()+"/delete", nil), 200)

	got := w.trail(t, owner, 0)
	if want := []string{"user.create", "session.login", "device.approve", "device.token", "allocation.create", "allocation.update", "allocation.delete", "device.delete"}; !slices.Equal(actionsOf(got), want) {
		t.Fatalf("the owner sees %q, want %q", actionsOf(got), want)
	}
	if approval := got[2].Actor; !approval.Name.IsNull() || !approval.Address.IsNull() {
		t.Errorf("the owner learns of the admin %+v", approval)
	}
	for i, want := range []string{"unknown", "user", "user", "device", "device", "user", "user", "user"} {
		if got[i].Actor.Kind != want {
			t.Errorf("%s was done by %+v", got[i].Action, got[i].Actor)
		}
	}
	update := got[5]
	changes, err := json.Marshal(update.Changes)
	if err != nil || string(changes) != `{"localPort":[25565,25566],"rules":[{},{"maxPlayers":8}]}` {
		t.Errorf("changed %s (%v)", changes, err)
	}
	if update.Actor.Address.MustGet() != "2001:db8::7" || update.Actor.Name.MustGet() != w.owner.Email || update.Target.ID.MustGet() != strconv.FormatInt(made.ID, 10) {
		t.Errorf("%+v", update)
	}
	if created := got[4].Changes["serverId"]; created[0] != nil || created[1] != server.ID.String() {
		t.Errorf("created on %+v", created)
	}
	if end := got[7]; end.Target.Name.MustGet() != "home" || end.UserID.MustGet() != w.owner.ID {
		t.Errorf("%+v", end)
	}
}

// TestAudit_HidesFromMembersWhoManagesThem: they learn that their role was changed, and not from which address.
func TestAudit_HidesFromMembersWhoManagesThem(t *testing.T) {
	w := newWorld(t)
	owner, member := w.session(t, w.orgOwner), w.session(t, w.member)
	path := fmt.Sprintf("%s/members/%d", organisationPath(w.organisation), w.member.ID)
	decode[any](t, owner.send(t, "PATCH", path, `{"role":"admin"}`, "X-Forwarded-For", "192.0.2.77"), 200)
	decode[any](t, owner.send(t, "PATCH", path, `{"role":"member"}`, "X-Forwarded-For", "192.0.2.77"), 200)
	for who, c := range map[string]struct {
		caller caller
		query  string
		shown  bool
	}{
		"the member": {member, "", false},
		"an owner":   {owner, fmt.Sprintf("&organisationId=%d", w.organisation), true},
		"an admin":   {w.session(t, w.admin), "", true},
	} {
		entries := decode[[]types.AuditEntry](t, c.caller.send(t, "GET", "/api/audit?action=member.update"+c.query, nil), 200)
		if len(entries) != 2 {
			t.Fatalf("%s sees %+v", who, entries)
		}
		for _, entry := range entries {
			if shown := !entry.Actor.Address.IsNull(); shown != c.shown || entry.Actor.Name.IsNull() == shown {
				t.Errorf("%s sees %+v", who, entry.Actor)
			}
		}
	}
}

// TestAudit_ShowsWhatConcernsTheCaller compares what users of all kinds see.
func TestAudit_ShowsWhatConcernsTheCaller(t *testing.T) {
	w := newWorld(t)
	mine, theirs := w.newTarget(false), w.newTarget(true)
	mine.client(t, w)
	theirs.client(t, w)
	org := fmt.Sprintf("?organisationId=%d", w.organisation)
	for name, c := range map[string]struct {
		user  db.User
		query string
		want  []string // The actions of devices; nil for 404.
	}{
		"owner":                 {w.owner, "?action=device", []string{"device.create"}},
		"owner, of the other":   {w.owner, fmt.Sprintf("?userId=%d", w.stranger.ID), []string{}},
		"stranger":              {w.stranger, "?action=device", []string{}},
		"stranger, to the org":  {w.stranger, org, nil},
		"member":                {w.member, org, nil},
		"member, of the device": {w.member, "?action=device", []string{}},
		"org admin":             {w.orgAdmin, org + "&action=device", []string{"device.create"}},
		"org owner":             {w.orgOwner, org + "&target=device:" + theirs.client(t, w).ID.String(), []string{"device.create"}},
		"org owner, not of all": {w.orgOwner, org + "&target=device:" + mine.client(t, w).ID.String(), []string{}},
		"admin":                 {w.admin, "?action=device", []string{"device.create", "device.create"}},
		"admin, of the owner":   {w.admin, fmt.Sprintf("?action=device.create&userId=%d", w.owner.ID), []string{"device.create"}},
		"admin, no such org":    {w.admin, "?organisationId=99999", []string{}},
		"admin, of nobody":      {w.admin, "?actor=panel", []string{}},
		"admin, from tomorrow":  {w.admin, "?from=2999-01-01T00:00:00Z", []string{}},
		"admin, until 1999":     {w.admin, "?to=1999-01-01T00:00:00Z", []string{}},
	} {
		a := w.session(t, c.user).send(t, "GET", "/api/audit"+c.query, nil)
		switch {
		case c.want == nil && name == "member":
			wantError(t, a, 403, types.CodeForbidden)
			continue
		case c.want == nil:
			wantError(t, a, 404, types.CodeNotFound)
			continue
		}
		if got := actionsOf(decode[[]types.AuditEntry](t, a, 200)); len(got)+len(c.want) > 0 && !slices.Equal(got, c.want) {
			t.Errorf("%s: sees %q, want %q", name, got, c.want)
		}
	}
	for _, query := range []string{"after=x", "actor=user", "actor=ada", "action=Device", "target=:7", "from=now"} {
		field, _, _ := strings.Cut(query, "=")
		wantField(t, w.session(t, w.admin).send(t, "GET", "/api/audit?"+query, nil), field)
	}
}

func TestAudit_PagesKeepTheirFilters(t *testing.T) {
	w := newWorld(t)
	admin := w.session(t, w.admin)
	for i := range 5 {
		decode[any](t, admin.send(t, "POST", "/api/users", fmt.Sprintf(`{"email":"user%d@example.com"}`, i)), 201)
	}
	query := url.Values{"limit": {"2"}, "action": {"user.create"}, "actor": {fmt.Sprintf("user:%d", w.admin.ID)},
		"from": {time.Now().Add(-time.Hour).UTC().Format(time.RFC3339Nano)}}
	next := "/api/audit?" + query.Encode()
	var seen []string
	for pages := 0; next != ""; pages++ {
		if pages == 3 {
			t.Fatal("there is no end")
		}
		page := admin.send(t, "GET", next, nil)
		for _, entry := range decode[[]types.AuditEntry](t, page, 200) {
			seen = append(seen, entry.Target.Name.MustGet())
		}
		next = ""
		if match := regexp.MustCompile(`<(.*)>; rel="next"`).FindStringSubmatch(page.header.Get("Link")); match != nil {
			next = match[1]
		}
	}
	if want := []string{"user4@example.com", "user3@example.com", "user2@example.com", "user1@example.com", "user0@example.com"}; !slices.Equal(seen, want) {
		t.Errorf("read %q, want %q", seen, want)
	}
}

// TestAudit_CountsRefusals refuses logins, approvals, and an approval of a user who may not.
func TestAudit_CountsRefusals(t *testing.T) {
	w := newWorld(t)
	ada := w.user(t, "grace@example.com", "user")
	admin := w.session(t, w.admin)
	login := func(email, password, from string) answer {
		return w.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": email, "password": password}, "X-Forwarded-For", from)
	}
	for _, from := range []string{"203.0.113.1", "203.0.113.1", "203.0.113.2"} {
		wantError(t, login(ada.user.Email, "not the password", from), 401, types.CodeUnauthorized)
	}
	wantError(t, login("my secret typed as email@example.com", "x", "203.0.113.1"), 400, types.CodeInvalidRequest)
	wantError(t, login("nobody@example.com", "not the password", "203.0.113.1"), 401, types.CodeUnauthorized)
	suspended := true
	if _, err := w.db.UpdateUser(t.Context(), ada.user.ID, db.UserPatch{Suspended: &suspended}); err != nil {
		t.Fatal(err)
	}
	wantError(t, login(ada.user.Email, password, "203.0.113.2"), 401, types.CodeUnauthorized)
	wantError(t, admin.send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"BCDF-2345"}`), 404, types.CodeNotFound)
	for range 2 {
		wantError(t, w.session(t, w.stranger).send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"BCDF-2345"}`), 403, types.CodeForbidden)
	}
	var got []string
	for _, e := range w.trail(t, admin, 0) {
		if strings.HasSuffix(e.Action, ".refuse") {
			target, _ := e.Target.Name.Get()
			actor, _ := e.Actor.Name.Get()
			got = append(got, fmt.Sprintf("%s by %s %s at %s to %s: %d", e.Action, e.Actor.Kind, actor, e.Actor.Address.MustGet(), target, e.Count))
		}
	}
	if want := []string{
		"session.refuse by anonymous  at 203.0.113.1 to grace@example.com: 2",
		"session.refuse by anonymous  at 203.0.113.2 to grace@example.com: 2",
		"session.refuse by anonymous  at 203.0.113.1 to : 1",
		"device.refuse by user root@example.com at 127.0.0.1 to : 1",
		"device.refuse by user eve@example.com at 127.0.0.1 to : 2",
	}; !slices.Equal(got, want) {
		t.Errorf("refused\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := admin.send(t, "GET", "/api/audit", nil).body; bytes.Contains(all, []byte("nobody@")) || bytes.Contains(all, []byte("not the password")) {
		t.Errorf("the trail has what was typed: %s", all)
	}
}
