package handler_test

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// The rows that the contract's examples are about.
var (
	exampleClient = uuid.MustParse("3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11")
	exampleServer = uuid.MustParse("9b1d7c52-3a84-4f6e-8d20-5c7e1a94b3f0")
	exampleTarget = uuid.MustParse("5c2e8f17-90ab-4d63-b1f4-27d98e06ac35") // Of the move.
)

// TestContract_ExamplesAreRequestsThatThePanelAccepts sends every example of the contract
// to a panel that has the rows that the examples are about. Rules beyond the schema, such
// as the order of a port range, apply to them too.
func TestContract_ExamplesAreRequestsThatThePanelAccepts(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	p.exampleRows(t, admin, doc)
	for _, r := range exampleRequests(doc) {
		if body, _ := r.body.(map[string]any); r.operation == "drainDevice" || body["server"] != nil {
			// The example of the parameter is a tunnel client.
			r.path = strings.Replace(r.path, exampleClient.String(), exampleServer.String(), 1)
		}
		// Their examples are all about one device.
		again := slices.Contains([]string{"approveDevice", "denyDevice", "getPendingDevice", "approveDeviceLogin", "denyDeviceLogin", "getPendingLogin"}, r.operation)
		a := admin.send(t, r.method, r.path, r.body)
		if a.status >= 400 && (!again || a.status != http.StatusConflict) {
			t.Errorf("%s: %s %s with %v answered %d: %s", r.operation, r.method, r.path, r.body, a.status, a.body)
		}
	}
}

// exampleRows makes the rows that the contract's examples are about.
func (p *panel) exampleRows(t *testing.T, admin caller, doc *openapi3.T) {
	t.Helper()
	sql := dbtest.SQL(t, p.db)
	update := func(query string, args ...any) {
		if _, err := sql.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for id, kind := range map[uuid.UUID]types.DeviceKind{
		exampleClient: types.DeviceKindClient, exampleServer: types.DeviceKindServer, exampleTarget: types.DeviceKindServer,
	} {
		device, _ := p.device(t, admin, admin, kind)
		update(`UPDATE devices SET id = $2 WHERE id = $1`, device.ID, id)
		p.connect(t, id)
	}
	update(`INSERT INTO users (id, email, password_hash, role) OVERRIDING SYSTEM VALUE VALUES (12, 'ada@example.com', '', 'user')`)
	example := doc.Paths.Value("/api/auth/set-password").Post.RequestBody.Value.Content.Get("application/json").Example
	link := sha256.Sum256([]byte(example.(map[string]any)["token"].(string)))
	update(`INSERT INTO password_links (user_id, token_hash, expires_at) VALUES (12, $1, now() + interval '1 hour')`, link[:])
	session := doc.Components.Parameters["SessionId"].Value.Example.(string)
	update(`INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 day')`, session, admin.user.ID)
	update(`ALTER TABLE allocations ALTER COLUMN id RESTART WITH 42`)
	update(`INSERT INTO organisations (id, name) OVERRIDING SYSTEM VALUE VALUES (7, 'guild')`)
	update(`INSERT INTO users (id, email, password_hash, role) OVERRIDING SYSTEM VALUE VALUES (13, 'hopper@example.com', '', 'user')`)
	update(`INSERT INTO organisation_members (organisation_id, user_id, role) VALUES (7, 12, 'owner'), (7, 13, 'member')`)
	example = doc.Paths.Value("/api/invitations/accept").Post.RequestBody.Value.Content.Get("application/json").Example
	invitation := sha256.Sum256([]byte(example.(map[string]any)["token"].(string)))
	update(`INSERT INTO invitations (id, organisation_id, role, token_hash, created_at, expires_at) OVERRIDING SYSTEM VALUE
		VALUES (5, 7, 'member', '', now(), now() + interval '1 day'), (6, 7, 'member', $1, now(), now() + interval '1 day')`, invitation[:])
	update(`INSERT INTO api_keys (id, user_id, name, prefix, hash, scopes, created_at) OVERRIDING SYSTEM VALUE
		VALUES (5, 1, 'nightly backup', 'etk_4Kf9ZqLx', 'hash', '{read}', now())`)
	update(`INSERT INTO webhooks (id, user_id, name, url, target, secret, format, events, offline_delay, created_at, watched_from)
		VALUES (3, 1, 'alerts', 'https://example.com/', 'https://example.com', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=', 'standard', '{device.offline}', 60, now(), now())`)
	update(`SELECT setval(pg_get_serial_sequence('webhooks', 'id'), 100)`)
	update(`INSERT INTO webhook_deliveries (id, webhook_id, message_id, type, payload, created_at, state) OVERRIDING SYSTEM VALUE
		VALUES (118, 3, 'msg_1', 'webhook.test', '{"type":"webhook.test","timestamp":"2026-01-02T03:00:00Z","data":{}}', now(), 'failed')`)
	if _, err := p.db.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: exampleClient, ServerID: &exampleServer, Protocols: []string{"tcp"},
		LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60,
	}); err != nil {
		t.Fatal(err)
	}
	update(`INSERT INTO connections (server_id, number, allocation_id, generation, source, source_port, since, download_bytes, upload_bytes)
		SELECT id, x'01f64c6f3c7f9f91'::bigint, 42, generation, '203.0.113.60', 51820, now(), 0, 0 FROM devices WHERE id = $1`, exampleServer)

	login := doc.Paths.Value("/api/auth/device").Post.Responses.Status(200).Value.Content.Get("application/json").Example.(map[string]any)
	loginHash := sha256.Sum256([]byte(login["deviceCode"].(string)))
	update(`INSERT INTO device_logins (user_code, code_hash, client, scopes, created_at, expires_at)
		VALUES ($1, $2, 'eclitunnel', '{read}', now(), now() + interval '1 year')`, login["userCode"], loginHash[:])

	started := doc.Paths.Value("/api/tunnel/device/start").Post.Responses.Status(200).Value.Content.Get("application/json").Example
	enrollment := started.(map[string]any)
	pending := decode[types.Enrollment](t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", `{"name":"gaming-rig"}`), 200)
	hash := sha256.Sum256([]byte(enrollment["deviceCode"].(string)))
	update(`UPDATE devices SET user_code = $2, code_hash = $3 WHERE user_code = $1`, pending.UserCode, enrollment["userCode"], hash[:])
}

// exampleRequest is a request that the contract shows.
type exampleRequest struct {
	operation, method, path string
	body                    any
}

// exampleRequests returns a request for every example of a body, with the examples of the
// parameters. Those that remove what others need come last.
func exampleRequests(doc *openapi3.T) []exampleRequest {
	var requests []exampleRequest
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if operation.OperationID == "connectControlChannel" {
				continue // It takes device tokens only.
			}
			target, query := path, url.Values{}
			for _, ref := range slices.Concat(item.Parameters, operation.Parameters) {
				if ref.Value.Example == nil || ref.Value.In == openapi3.ParameterInHeader {
					continue // It excludes one that has an example, or says the same.
				}
				value := fmt.Sprint(ref.Value.Example)
				if _, list := ref.Value.Example.([]any); list { // In the style form, not exploded.
					value = strings.Trim(strings.ReplaceAll(value, " ", ","), "[]")
				}
				switch ref.Value.In {
				case openapi3.ParameterInPath:
					target = strings.ReplaceAll(target, "{"+ref.Value.Name+"}", value)
				case openapi3.ParameterInQuery:
					query.Set(ref.Value.Name, value)
				}
			}
			if operation.OperationID == "listAPIKeys" || operation.OperationID == "listWebhooks" {
				query.Del("userId") // Only one of the owners.
			}
			if operation.OperationID == "listAllocations" {
				query.Del("after") // The list of the example is not sorted by id.
			}
			r := exampleRequest{operation: operation.OperationID, method: method, path: target + "?" + query.Encode()}
			if operation.RequestBody == nil {
				requests = append(requests, r)
				continue
			}
			media := operation.RequestBody.Value.Content.Get("application/json")
			if r.body = media.Example; r.body != nil {
				requests = append(requests, r)
			}
			for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
				r.body = media.Examples[name].Value.Value
				requests = append(requests, r)
			}
		}
	}
	last := []string{"acceptInvitation", "removeMember", "drainDevice", "bulkAllocations", "deleteAllocation", "deleteDevice", "deleteAPIKey", "deleteWebhook", "deleteOrganisation", "createPasswordLink", "updateUser", "deleteUser", "updateSettings", "changePassword", "logout"}
	slices.SortStableFunc(requests, func(a, b exampleRequest) int {
		return cmp.Or(cmp.Compare(slices.Index(last, a.operation), slices.Index(last, b.operation)),
			cmp.Compare(a.operation, b.operation))
	})
	return requests
}

// TestContract_ExamplesOfSecretsAreAsThePanelMakesThem holds the tokens of links, which are
// made of the same letters and digits, and the state of logins.
func TestContract_ExamplesOfSecretsAreAsThePanelMakesThem(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	guild := decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", `{"name":"guild"}`), 201)
	made := invite(t, admin, guild.ID, `{"role":"member"}`)
	token := regexp.MustCompile(`^[A-Z2-7]{26}$`)
	if !token.MatchString(made) {
		t.Fatalf("the panel makes %s", made)
	}
	shown := regexp.MustCompile(`(?:token|state): (\w{20,})\b[^.]|(?:/password#|/invitation#|[?&]state=)(\w+)`).
		FindAllStringSubmatch(string(eclitunnel.OpenAPI), -1)
	if len(shown) < 6 {
		t.Errorf("found %d secrets in the contract: %v", len(shown), shown)
	}
	for _, match := range shown {
		if secret := match[1] + match[2]; !token.MatchString(secret) {
			t.Errorf("the contract shows the secret %s, and the panel makes those like %s", secret, made)
		}
	}
}

// TestContract_NamesFromProvidersAreNames: what is left of an organisation's name at an identity provider is one that
// the contract permits, whatever character is in it.
func TestContract_NamesFromProvidersAreNames(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := regexp.MustCompile(doc.Components.Schemas["OrganisationName"].Value.Not.Value.Pattern)
	found := 0
	for r := range rune(0x20000) {
		if !utf8.ValidRune(r) {
			continue
		}
		name := "gu" + string(r) + "ild"
		if forbidden.MatchString(name) {
			found++
		}
		identity, err := db.Identity{
			Provider: "company", Subject: "1", Organisations: []db.IdentityOrganisation{{ID: "1", Name: name, Role: db.RoleMember}},
		}.Clean()
		if err != nil {
			t.Fatal(err)
		}
		if clean := identity.Organisations[0].Name; forbidden.MatchString(clean) || clean != name && !forbidden.MatchString(name) {
			t.Errorf("the name with %U became %q", r, clean)
		}
	}
	if found < 60 {
		t.Errorf("%d characters are forbidden, want at least 60", found)
	}
}
