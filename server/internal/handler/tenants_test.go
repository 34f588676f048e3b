package handler_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

var tenantsSeed = flag.Uint64("tenants-seed", 0, "the seed of TestTenants; 0 means another one each time")

// tenantSteps is the length of a sequence.
const tenantSteps = 250

// mark is part of every name and email of tenant B.
const mark = "bravo"

// TestTenants_NeitherChangeNorSeeEachOther lets tenant A send requests of all operations in a
// random order, with the ids of tenant B among its own. Each is answered as if what is B's did
// not exist, and B's rows and what B sees stay as they are.
func TestTenants_NeitherChangeNorSeeEachOther(t *testing.T) {
	seed := *tenantsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -args -tenants-seed=%d", seed)
	w := newTenants(t, seed)
	operations := tenantOperations(t)
	rows, seen := w.rowsOfB(t), w.seenByB(t)
	for step := range tenantSteps {
		own := w.ownIDs(t)
		o := operations[w.random.IntN(len(operations))]
		r := w.request(t, o, own)
		c := w.caller(t, own)
		answered := c.send(t, r.method, r.path, r.body)
		if r.foreign {
			absent := c.send(t, r.method, r.absentPath, r.absentBody)
			if answered.status != absent.status || !bytes.Equal(withoutID(answered.body), withoutID(absent.body)) {
				t.Fatalf("step %d: %s %s with %v answered %d %s, and of what does not exist %d %s",
					step, r.method, r.path, r.body, answered.status, answered.body, absent.status, absent.body)
			}
		}
		if bytes.Contains(answered.body, []byte(mark)) {
			t.Fatalf("step %d: %s %s with %v reveals %s", step, r.method, r.path, r.body, answered.body)
		}
		if now := w.rowsOfB(t); now != rows {
			t.Fatalf("step %d: %s %s with %v answered %d and changed tenant B's rows from\n%s\nto\n%s",
				step, r.method, r.path, r.body, answered.status, rows, now)
		}
	}
	if now := w.seenByB(t); now != seen {
		t.Errorf("tenant B saw\n%s\nbefore, and now\n%s", seen, now)
	}
}

// withoutID returns a body without the part that differs between requests.
func withoutID(body []byte) []byte {
	var fields map[string]any
	if json.Unmarshal(body, &fields) != nil {
		return body
	}
	delete(fields, "requestId")
	text, err := json.Marshal(fields)
	if err != nil {
		return body
	}
	return text
}

// ids are those of a tenant's rows, by kind.
type ids map[string][]string

// tenants are two tenants of a panel: A, who is user a and has an organisation, and B with all
// that a tenant can have.
type tenants struct {
	*panel
	random *rand.Rand
	read   func(t *testing.T, query string) string
	admin  caller
	a      caller
	b      []caller
	ofB    ids
}

func newTenants(t *testing.T, seed uint64) *tenants {
	t.Helper()
	p := newPanel(t)
	w := &tenants{panel: p, random: rand.New(rand.NewPCG(seed, 0))}
	sql := dbtest.SQL(t, p.db)
	w.read = func(t *testing.T, query string) (text string) {
		t.Helper()
		if err := sql.QueryRowContext(t.Context(), query).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	w.admin, w.a = p.user(t, "root@example.com", "admin"), p.user(t, "alfa@example.com", "user")
	everyone := db.CreatorsEveryone
	if _, err := p.db.UpdateSettings(t.Context(), db.SettingsPatch{OrganisationCreators: &everyone}); err != nil {
		t.Fatal(err)
	}
	public := p.server(t, 20999)
	w.b = []caller{p.user(t, mark+"-1@example.com", "user"), p.user(t, mark+"-2@example.com", "user")}
	owner := w.b[0]
	organisation := p.organisation(t, w.admin, owner, mark)
	dbtest.Member(t, p.db, organisation.ID, w.b[1].user.ID, "admin")
	decode[map[string]any](t, owner.send(t, "PATCH", organisationPath(organisation.ID)+"/rules", `{"maxPlayers":40}`), 200)
	private := p.serverOf(t, organisation.ID)
	invitation := decode[types.InvitationCreated](t, owner.send(t, "POST", organisationPath(organisation.ID)+"/invitations",
		map[string]string{"role": "admin", "email": mark + "-3@example.com"}), 201)
	key := decode[types.APIKeyCreated](t, owner.send(t, "POST", "/api/keys",
		map[string]any{"name": mark, "scopes": []string{"read"}, "organisationId": organisation.ID}), 201)
	webhook := decode[types.WebhookCreated](t, owner.send(t, "POST", "/api/webhooks",
		map[string]any{"name": mark, "url": "https://" + mark + ".example.com/secret", "events": []string{"device.offline"}, "organisationId": organisation.ID}), 201)
	delivery := decode[types.WebhookDelivery](t, owner.send(t, "POST", webhookPath(webhook.ID)+"/test", nil), 200)
	sessions, err := p.db.Sessions(t.Context(), owner.user.ID, p.Now(), db.Page[db.SessionPosition]{Limit: 1})
	if err != nil || len(sessions) != 1 {
		t.Fatalf("sessions %v, %v", sessions, err)
	}
	w.ofB = ids{
		"provider":     {"company"}, // It is nobody's.
		"session":      {sessions[0].ID.String()},
		"organisation": {strconv.FormatInt(organisation.ID, 10)}, "invitation": {strconv.FormatInt(invitation.ID, 10)},
		"key":     {strconv.FormatInt(key.ID, 10)},
		"webhook": {strconv.FormatInt(webhook.ID, 10)}, "delivery": {strconv.FormatInt(delivery.ID, 10)},
		"device": {private.ID.String()}, "server": {private.ID.String()},
	}
	for _, user := range w.b {
		w.ofB["user"] = append(w.ofB["user"], strconv.FormatInt(user.user.ID, 10))
	}
	for _, of := range []db.NewDevice{{OwnerID: &owner.user.ID}, {OrganisationID: &organisation.ID}} {
		of.Name, of.Kind, of.CreatedAt, of.ExpiresAt, of.Approved = mark, db.KindClient, p.Now(), p.Now(), true
		device, err := p.db.CreateDevice(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		created := decode[types.AllocationCreated](t, owner.send(t, "POST", allocations,
			map[string]any{"deviceId": device.ID, "serverId": public.ID, "protocol": "udp", "localPort": 2456, "name": mark}), 201)
		w.ofB["device"] = append(w.ofB["device"], device.ID.String())
		w.ofB["allocation"] = append(w.ofB["allocation"], strconv.FormatInt(created.ID, 10))
	}
	// A player of each allocation, on the public tunnel server.
	exec := func(t *testing.T, query string, args ...any) {
		t.Helper()
		if _, err := sql.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, allocation := range w.ofB["allocation"] {
		w.ofB["connection"] = append(w.ofB["connection"], connectPlayer(t, exec, public.ID, allocation, "203.0.113.60"))
	}
	pending := decode[types.Enrollment](t, owner.send(t, "POST", "/api/tunnel/device/start", `{"name":"`+mark+`"}`), 200)
	w.ofB["userCode"] = []string{pending.UserCode}
	decode[types.PasswordLink](t, w.admin.send(t, "POST", userPath(owner.user.ID)+"/password-link", nil), 200)
	return w
}

// rowsOfB returns all rows of tenant B.
func (w *tenants) rowsOfB(t *testing.T) string {
	t.Helper()
	var rows []string
	users, organisation := strings.Join(w.ofB["user"], ","), w.ofB["organisation"][0]
	devices := `(SELECT id FROM devices WHERE owner_id IN (` + users + `) OR organisation_id = ` + organisation + `)`
	for _, query := range []string{
		`users r WHERE r.id IN (` + users + `)`,
		`sessions r WHERE r.user_id IN (` + users + `)`,
		`password_links r WHERE r.user_id IN (` + users + `)`,
		`organisations r WHERE r.id = ` + organisation,
		`organisation_members r WHERE r.user_id IN (` + users + `) OR r.organisation_id = ` + organisation,
		`invitations r WHERE r.organisation_id = ` + organisation,
		`api_keys r WHERE r.user_id IN (` + users + `) OR r.organisation_id = ` + organisation,
		`webhooks r WHERE r.user_id IN (` + users + `) OR r.organisation_id = ` + organisation,
		`webhook_deliveries r WHERE r.webhook_id IN (` + strings.Join(w.ofB["webhook"], ",") + `)`,
		`devices r WHERE r.id IN ` + devices,
		`allocations r WHERE r.device_id IN ` + devices + ` OR r.server_id IN ` + devices,
		`connections r WHERE r.allocation_id IN (SELECT id FROM allocations WHERE device_id IN ` + devices + `)`,
		`kept_out r WHERE r.allocation_id IN (SELECT id FROM allocations WHERE device_id IN ` + devices + `)`,
	} {
		rows = append(rows, w.read(t, `SELECT coalesce(string_agg(to_jsonb(r)::text, E'\n' ORDER BY to_jsonb(r)::text), '') FROM `+query))
	}
	return strings.Join(rows, "\n")
}

// seenByB returns what the users of tenant B see.
func (w *tenants) seenByB(t *testing.T) string {
	t.Helper()
	var seen strings.Builder
	organisation := "/api/organisations/" + w.ofB["organisation"][0]
	for _, user := range w.b {
		for _, path := range []string{"/api/auth/session", "/api/tunnel/devices", allocations, "/api/organisations",
			organisation, organisation + "/members", organisation + "/invitations", organisation + "/rules", organisation + "/quota", "/api/account/quota",
			"/api/keys?organisationId=" + w.ofB["organisation"][0], "/api/webhooks?organisationId=" + w.ofB["organisation"][0]} {
			a := user.send(t, "GET", path, nil)
			fmt.Fprintf(&seen, "%s %d %s", path, a.status, a.body)
		}
	}
	return seen.String()
}

// ownIDs returns what tenant A has now, and makes what it has lost.
func (w *tenants) ownIDs(t *testing.T) ids {
	t.Helper()
	scope := db.Scope{UserID: w.a.user.ID}
	own := ids{"user": {strconv.FormatInt(w.a.user.ID, 10)}}
	organisations, err := w.db.Organisations(t.Context(), scope, "", db.Page[db.OrganisationPosition]{})
	if err != nil {
		t.Fatal(err)
	}
	if len(organisations) == 0 {
		organisation, err := w.db.CreateOrganisation(t.Context(), "alfa", w.a.user.ID, false)
		if err != nil {
			t.Fatal(err)
		}
		organisations = append(organisations, organisation)
	}
	for _, o := range organisations {
		own["organisation"] = append(own["organisation"], strconv.FormatInt(o.ID, 10))
	}
	for _, kind := range []string{db.KindClient, db.KindServer} {
		device := db.NewDevice{Name: "alfa", Kind: kind, OrganisationID: &organisations[0].ID, CreatedAt: w.Now(), ExpiresAt: w.Now(), Approved: true}
		if kind == db.KindServer {
			device.PublicHost, device.PortFirst, device.PortLast = "alfa.example.com", 40000, 40100
		}
		created, err := w.db.CreateDevice(t.Context(), device)
		if err != nil {
			t.Fatal(err)
		}
		own["device"] = append(own["device"], created.ID.String())
		if kind == db.KindServer {
			own["server"] = append(own["server"], created.ID.String())
		}
	}
	rows, err := w.db.Allocations(t.Context(), scope, db.Page[int64]{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	own["allocation"] = []string{"1000000"}
	for _, row := range rows {
		own["allocation"] = append(own["allocation"], strconv.FormatInt(row.ID, 10))
	}
	invitations, err := w.db.Invitations(t.Context(), scope, organisations[0].ID, w.Now())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.db.APIKeys(t.Context(), scope, db.APIKeyOwner{UserID: &w.a.user.ID})
	if err != nil {
		t.Fatal(err)
	}
	own["provider"], own["userCode"] = []string{"company"}, []string{noCode}
	own["session"] = []string{uuid.NewString()}
	own["connection"] = []string{strings.Repeat("0", 32) + "-" + strings.Repeat("0", 16)}
	own["key"] = []string{"1000000"}
	for _, row := range keys {
		own["key"] = append(own["key"], strconv.FormatInt(row.ID, 10))
	}
	own["webhook"], own["delivery"] = []string{"1000000"}, []string{"1000000"}
	hooks, err := w.db.Webhooks(t.Context(), scope, db.APIKeyOwner{UserID: &w.a.user.ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range hooks {
		own["webhook"] = append(own["webhook"], strconv.FormatInt(row.ID, 10))
	}
	own["invitation"] = []string{"1000000"}
	for _, row := range invitations {
		own["invitation"] = append(own["invitation"], strconv.FormatInt(row.ID, 10))
	}
	return own
}

// caller returns user a with a new session, or a tunnel client of the organisation.
func (w *tenants) caller(t *testing.T, own ids) caller {
	t.Helper()
	var token string
	switch w.random.IntN(6) {
	case 0:
		return caller{panel: w.panel, token: w.keyOf(t, db.APIKeyOwner{UserID: &w.a.user.ID}), header: true}
	case 1:
		organisation, err := strconv.ParseInt(own["organisation"][0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return caller{panel: w.panel, token: w.keyOf(t, db.APIKeyOwner{OrganisationID: &organisation})}
	case 2:
		device, err := w.db.DeviceByID(t.Context(), uuid.MustParse(own["device"][0]))
		if err != nil {
			t.Fatal(err)
		}
		if token, err = w.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion); err != nil {
			t.Fatal(err)
		}
	default:
		user, err := w.db.UserByID(t.Context(), w.a.user.ID) // A request may have changed the password.
		if err != nil {
			t.Fatal(err)
		}
		login, err := w.auth.NewSession(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		token = login.Token
	}
	return caller{panel: w.panel, user: w.a.user, token: token}
}

// keyOf returns a new API key of tenant A, of all scopes but admin, in place of the last one.
func (w *tenants) keyOf(t *testing.T, owner db.APIKeyOwner) string {
	t.Helper()
	const name = "of tenant A"
	scope := db.Scope{UserID: w.a.user.ID}
	keys, err := w.db.APIKeys(t.Context(), scope, owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if key.Name == name {
			if err := w.db.DeleteAPIKey(t.Context(), scope, key.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, _, err := w.auth.NewAPIKey(t.Context(), scope, db.APIKey{
		APIKeyOwner: owner, Name: name, Scopes: (everyScope &^ auth.ScopeAdmin).Names(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
