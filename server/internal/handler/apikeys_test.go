package handler_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// newKey makes an API key with the fields of a request, and returns it as a caller.
func (c caller) newKey(t *testing.T, fields string) (types.APIKeyCreated, caller) {
	t.Helper()
	created := decode[types.APIKeyCreated](t, c.send(t, "POST", "/api/keys", `{"name":"script",`+fields+`}`), 201)
	return created, caller{panel: c.panel, user: c.user, token: created.Key}
}

func (c caller) keys(t *testing.T, query string) []types.APIKey {
	t.Helper()
	return decode[[]types.APIKey](t, c.send(t, "GET", "/api/keys"+query, nil), 200)
}

func keyPath(id int64) string { return fmt.Sprintf("/api/keys/%d", id) }

// keyAnswers adds the answers of errorAnswers that are about API keys of a user.
func keyAnswers(t *testing.T, c caller, answers map[string]answer) {
	t.Helper()
	const read = `{"name":"script","scopes":["read"]}`
	_, key := c.newKey(t, `"scopes":["allocations"]`)
	answers["ScopeMissing"] = key.send(t, "GET", "/api/tunnel/devices", nil)
	answers["KeyNotAccepted"] = key.send(t, "GET", "/api/keys", nil)
	answers["AdminScopeForbidden"] = c.send(t, "POST", "/api/keys", `{"name":"script","scopes":["admin"]}`)
	answers["KeyNotFound"] = c.send(t, "DELETE", keyPath(999), nil)
	for range 49 {
		decode[types.APIKeyCreated](t, c.send(t, "POST", "/api/keys", read), 201)
	}
	answers["TooManyKeys"] = c.send(t, "POST", "/api/keys", read)
}

func TestAPIKeys_AreShownOnce(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	created := decode[types.APIKeyCreated](t, ada.send(t, "POST", "/api/keys", `{"name":" backup ","scopes":["devices","read"]}`), 201)
	if created.Name != "backup" || fmt.Sprint(created.Scopes) != "[read devices]" || created.UserID.MustGet() != ada.user.ID ||
		!created.OrganisationID.IsNull() || !created.ExpiresAt.IsNull() || !created.LastUsedAt.IsNull() {
		t.Errorf("created %+v", created)
	}
	if !regexp.MustCompile(`^etk_[0-9A-Za-z]{39}$`).MatchString(created.Key) || created.Prefix != created.Key[:12] {
		t.Errorf("the key is %q with the prefix %q", created.Key, created.Prefix)
	}
	renamed := decode[types.APIKey](t, ada.send(t, "PATCH", keyPath(created.ID), `{"name":"nightly"}`), 200)
	listed := ada.send(t, "GET", "/api/keys", nil)
	if keys := decode[[]types.APIKey](t, listed, 200); len(keys) != 1 || keys[0].Name != "nightly" || renamed.Name != "nightly" {
		t.Errorf("listed %+v", keys)
	}
	var stored string
	row := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT row_to_json(k)::text FROM api_keys k`)
	if err := row.Scan(&stored); err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimPrefix(created.Key, created.Prefix)
	for where, text := range map[string]string{"list": string(listed.body), "database": stored} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s has the key: %s", where, text)
		}
	}
	for name, body := range map[string]string{
		"name": `{"name":" ","scopes":["read"]}`, "scopes": `{"name":"a","scopes":[]}`, "scopes.0": `{"name":"a","scopes":["write"]}`,
		"expiresAt": `{"name":"a","scopes":["read"],"expiresAt":"2020-01-01T00:00:00Z"}`,
	} {
		wantField(t, ada.send(t, "POST", "/api/keys", body), name)
	}
	wantError(t, ada.send(t, "POST", "/api/keys", `{"name":"a","scopes":["read","read"]}`), 400, types.CodeInvalidRequest)
	wantError(t, ada.send(t, "PATCH", keyPath(created.ID), `{"name":" "}`), 400, types.CodeInvalidRequest)
	wantError(t, ada.send(t, "PATCH", keyPath(created.ID), `{}`), 400, types.CodeInvalidRequest)
	wantField(t, ada.send(t, "GET", "/api/keys?userId=1&organisationId=1", nil), "organisationId")
}

// TestAPIKeys_SayWhenTheyWereUsed: the last use is written once a minute, whoever uses the
// key and wherever.
func TestAPIKeys_SayWhenTheyWereUsed(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	ada := p.user(t, "ada@example.com", "user")
	_, key := ada.newKey(t, `"scopes":["read"]`)
	send := func(at *panel, token, address string) {
		t.Helper()
		c := caller{panel: at, token: token, header: true}
		decode[any](t, c.send(t, "GET", "/api/tunnel/devices", nil, "X-Forwarded-For", address), 200)
	}
	use := func(at *panel, address string) (used types.APIKey) {
		t.Helper()
		_, later := ada.newKey(t, `"scopes":["read"]`)
		send(at, key.token, address)
		send(at, later.token, address)
		await.Until(t, "uses are recorded up to that of a later key", func() bool {
			keys := ada.keys(t, "") // The newest is first.
			used = keys[len(keys)-1]
			return !keys[0].LastUsedAt.IsNull()
		})
		return used
	}
	first := use(p, "192.0.2.1")
	if at := first.LastUsedAt.MustGet(); !at.Equal(p.Now()) || first.LastUsedFrom.MustGet() != "192.0.2.1" {
		t.Errorf("used %+v", first)
	}
	for _, at := range []*panel{p, other} {
		at.advance(time.Minute - time.Second)
		if again := use(at, "192.0.2.2"); again.LastUsedFrom.MustGet() != "192.0.2.1" {
			t.Errorf("recorded twice in a minute: %+v", again)
		}
	}
	other.advance(time.Second)
	if later := use(other, "2001:db8::2"); !later.LastUsedAt.MustGet().Equal(other.Now()) || later.LastUsedFrom.MustGet() != "2001:db8::2" {
		t.Errorf("used %+v", later)
	}
	wantError(t, caller{panel: p, token: "etk_" + strings.Repeat("0", 39)}.send(t, "GET", "/api/tunnel/devices", nil), 401, types.CodeUnauthorized)
}

// TestAPIKeys_EndWithTheirOwner: a key does what its owner may now, and nothing once it is
// revoked or expired, or its owner is suspended or deleted, at every replica.
func TestAPIKeys_EndWithTheirOwner(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	root, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "admin")
	answers := func(key caller, path string, want int) {
		t.Helper()
		for _, at := range []*panel{p, other} {
			for _, header := range []bool{false, true} {
				a := caller{panel: at, token: key.token, header: header}.send(t, "GET", path, nil)
				if a.status != want {
					t.Errorf("%s answered %d, want %d: %s", path, a.status, want, a.body)
				}
				if strings.Contains(string(a.body), key.token) {
					t.Errorf("%s repeats the key: %s", path, a.body)
				}
			}
		}
	}
	revoked, key := ada.newKey(t, `"scopes":["read"]`)
	answers(key, "/api/tunnel/devices", 200)
	decode[types.Success](t, ada.send(t, "DELETE", keyPath(revoked.ID), nil), 200)
	answers(key, "/api/tunnel/devices", 401)
	wantError(t, ada.send(t, "DELETE", keyPath(revoked.ID), nil), 404, types.CodeNotFound)

	_, expiring := ada.newKey(t, fmt.Sprintf(`"scopes":["read"],"expiresAt":%q`, p.Now().Add(time.Hour).Format(time.RFC3339)))
	answers(expiring, "/api/tunnel/devices", 200)
	p.advance(time.Hour)
	other.advance(time.Hour)
	answers(expiring, "/api/tunnel/devices", 401)

	_, key = ada.newKey(t, `"scopes":["read","admin"]`)
	answers(key, "/api/users", 200)
	wantError(t, key.send(t, "PATCH", userPath(root.user.ID), `{"email":"eve@example.com"}`), 403, types.CodeForbidden)
	decode[types.User](t, key.send(t, "PATCH", userPath(root.user.ID), `{"suspended":false}`), 200)
	decode[types.User](t, root.send(t, "PATCH", userPath(ada.user.ID), `{"role":"user"}`), 200)
	answers(key, "/api/users", 403)
	answers(key, "/api/tunnel/devices", 200)
	decode[types.User](t, root.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":true}`), 200)
	answers(key, "/api/tunnel/devices", 401)
	decode[types.User](t, root.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":false}`), 200)
	answers(key, "/api/tunnel/devices", 200)
	if keys := root.keys(t, fmt.Sprintf("?userId=%d", ada.user.ID)); len(keys) != 2 {
		t.Errorf("an admin sees %+v", keys)
	}
	decode[types.Success](t, root.send(t, "DELETE", userPath(ada.user.ID), nil), 200)
	answers(key, "/api/tunnel/devices", 401)
}

// TestAPIKeys_OfAnOrganisationActAsItsAdmin, whoever made them, and as nobody else.
func TestAPIKeys_OfAnOrganisationActAsItsAdmin(t *testing.T) {
	w := newWorld(t)
	guild := fmt.Sprintf(`"organisationId":%d`, w.organisation)
	orgAdmin, member := w.session(t, w.orgAdmin), w.session(t, w.member)
	_, key := orgAdmin.newKey(t, `"scopes":["read","devices","allocations","enrollment"],`+guild)
	wantError(t, member.send(t, "POST", "/api/keys", `{"name":"a","scopes":["read"],`+guild+`}`), 403, types.CodeForbidden)
	wantError(t, member.send(t, "GET", fmt.Sprintf("/api/keys?organisationId=%d", w.organisation), nil), 403, types.CodeForbidden)
	wantError(t, member.send(t, "GET", fmt.Sprintf("/api/keys?userId=%d", w.admin.ID), nil), 404, types.CodeNotFound)
	wantField(t, w.session(t, w.admin).send(t, "POST", "/api/keys", `{"name":"a","scopes":["admin"],`+guild+`}`), "scopes")
	// Who made the key leaves.
	w.exec(t, `DELETE FROM organisation_members WHERE user_id = $1`, w.orgAdmin.ID)
	wantError(t, orgAdmin.send(t, "GET", fmt.Sprintf("/api/keys?organisationId=%d", w.organisation), nil), 404, types.CodeNotFound)

	for _, body := range []string{`{"name":"home"}`, `{"name":"home",` + guild + `}`} {
		started := decode[types.Enrollment](t, key.send(t, "POST", "/api/tunnel/device/start", body), 200)
		wantError(t, key.send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"`+started.UserCode+`"}`), 403, types.CodeForbidden)
		approved := decode[types.DeviceApproved](t, w.session(t, w.admin).send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"`+started.UserCode+`"}`), 200)
		if !approved.Device.OwnerID.IsNull() || approved.Device.OrganisationID.MustGet() != w.organisation {
			t.Errorf("%s gave a device of %v and organisation %v", body, approved.Device.OwnerID, approved.Device.OrganisationID)
		}
		path := "/api/tunnel/devices/" + approved.Device.ID.String()
		decode[types.TokenRegenerated](t, key.send(t, "POST", path+"/regenerate-token", nil), 200)
		decode[types.Device](t, key.send(t, "PATCH", path, `{"name":"rig"}`), 200)
		decode[types.Success](t, key.send(t, "DELETE", path+"/delete", nil), 200)
	}
	elsewhere := dbtest.Organisation(t, w.db, "elsewhere")
	wantError(t, key.send(t, "POST", "/api/tunnel/device/start", fmt.Sprintf(`{"name":"home","organisationId":%d}`, elsewhere)), 404, types.CodeNotFound)
	wantError(t, key.send(t, "GET", fmt.Sprintf("/api/organisations/%d/rules", elsewhere), nil), 404, types.CodeNotFound)
	w.exec(t, `DELETE FROM organisations WHERE id = $1`, w.organisation)
	wantError(t, key.send(t, "GET", "/api/tunnel/devices", nil), 401, types.CodeUnauthorized)
}

// TestAPIKeys_AreFew lets many make keys at the same time, of a user and of an organisation.
func TestAPIKeys_AreFew(t *testing.T) {
	w := newWorld(t)
	owner := w.session(t, w.orgOwner)
	for what, fields := range map[string]string{
		"user": `"scopes":["read"]`, "organisation": fmt.Sprintf(`"scopes":["read"],"organisationId":%d`, w.organisation),
	} {
		expires := w.Now().Add(time.Minute).Format(time.RFC3339)
		expiring, _ := owner.newKey(t, fields+`,"expiresAt":"`+expires+`"`)
		var made, refused atomic.Int32
		var creators sync.WaitGroup
		for range 60 {
			creators.Go(func() {
				a := owner.send(t, "POST", "/api/keys", `{"name":"script",`+fields+`}`)
				for a.status == http.StatusServiceUnavailable && t.Context().Err() == nil {
					a = owner.send(t, "POST", "/api/keys", `{"name":"script",`+fields+`}`) // They are many for a busy machine.
				}
				switch a.status {
				case http.StatusCreated:
					made.Add(1)
				case http.StatusConflict:
					refused.Add(1)
				default:
					t.Errorf("%s: %d %s", what, a.status, a.body)
				}
			})
		}
		creators.Wait()
		if made.Load() != 49 || refused.Load() != 11 {
			t.Errorf("%s: %d keys beside one, and %d refusals", what, made.Load(), refused.Load())
		}
		w.advance(time.Minute)
		latest, _ := owner.newKey(t, fields) // One has expired.
		failure := wantError(t, owner.send(t, "POST", "/api/keys", `{"name":"script",`+fields+`}`), 409, types.CodeConflict)
		if !strings.Contains(failure.Message, "50") {
			t.Errorf("%s: %s", what, failure.Message)
		}
		wantError(t, owner.send(t, "DELETE", keyPath(expiring.ID), nil), 404, types.CodeNotFound)
		decode[types.Success](t, owner.send(t, "DELETE", keyPath(latest.ID), nil), 200)
		owner.newKey(t, fields)
	}
}

// TestAPIKeys_MakeNoOthers: whoever finds a key can be rid of by revoking it.
func TestAPIKeys_MakeNoOthers(t *testing.T) {
	p := newPanel(t)
	root := p.user(t, "root@example.com", "admin")
	created, key := root.newKey(t, `"scopes":["read","devices","allocations","enrollment","admin"]`)
	key.header = true
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/api/keys", `{"name":"a","scopes":["read"]}`},
		{"GET", "/api/keys", ""},
		{"PATCH", keyPath(created.ID), `{"name":"a"}`},
		{"DELETE", keyPath(created.ID), ""},
		{"POST", userPath(root.user.ID) + "/password-link", ""},
		{"PATCH", userPath(root.user.ID), `{"email":"eve@example.com"}`},
		{"GET", "/api/auth/session", ""},
		{"POST", "/api/auth/logout", ""},
		{"GET", "/api/tunnel/ws", ""},
	} {
		var body any
		if r.body != "" {
			body = json.RawMessage(r.body)
		}
		wantError(t, key.send(t, r.method, r.path, body), 403, types.CodeForbidden)
	}
	decode[[]types.User](t, key.send(t, "GET", "/api/users", nil), 200)
}

// TestAPIKeys_UnknownOnesAreLimited, and hinder nobody who has a good one at the same
// address.
func TestAPIKeys_UnknownOnesAreLimited(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	dead := make([]caller, 2)
	for i := range dead {
		var created types.APIKeyCreated
		created, dead[i] = ada.newKey(t, `"scopes":["read"]`)
		if err := p.db.DeleteAPIKey(t.Context(), db.Scope{All: true}, created.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, good := ada.newKey(t, `"scopes":["read"]`)
	try := func(c caller, address string) answer {
		return c.send(t, "GET", "/api/tunnel/devices", nil, "X-Forwarded-For", address)
	}
	decode[any](t, try(good, "192.0.2.1"), 200)
	for i := range 60 {
		wantError(t, try(dead[i%2], "192.0.2.1"), 401, types.CodeUnauthorized)
	}
	wantError(t, try(dead[0], "192.0.2.1"), 401, types.CodeUnauthorized) // It finds that the limit is exceeded.
	if a := try(dead[1], "192.0.2.1"); a.header.Get("Retry-After") != "60" {
		t.Errorf("%d, to be retried after %q s", a.status, a.header.Get("Retry-After"))
	}
	wantError(t, try(dead[1], "192.0.2.1"), 503, types.CodeUnavailable)
	wantError(t, try(dead[1], "192.0.2.2"), 401, types.CodeUnauthorized)
	decode[any](t, try(good, "192.0.2.1"), 200)
	decode[any](t, try(ada, "192.0.2.1"), 200)
	p.advance(time.Minute)
	wantError(t, try(dead[1], "192.0.2.1"), 401, types.CodeUnauthorized)
}
