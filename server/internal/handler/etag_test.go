package handler_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// TestIfMatch_EveryChangeOfAResourceTakesIt: what can be read by itself and changed has a tag in both answers.
func TestIfMatch_EveryChangeOfAResourceTakesIt(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for path, item := range doc.Paths.Map() {
		if item.Patch == nil {
			continue
		}
		found++
		if item.Patch.Parameters.GetByInAndName("header", "If-Match") == nil ||
			item.Patch.Responses.Status(200).Value.Headers["ETag"] == nil ||
			item.Get == nil || item.Get.Responses.Status(200).Value.Headers["ETag"] == nil {
			t.Errorf("%s can be changed, and has no If-Match or ETag", path)
		}
		if item.Delete != nil && item.Delete.Parameters.GetByInAndName("header", "If-Match") == nil {
			t.Errorf("DELETE %s has no If-Match", path)
		}
	}
	if found < 12 {
		t.Errorf("found %d changes", found)
	}
}

// editable is a resource with two different changes of it.
type editable struct {
	caller        caller
	path          string
	first, second string
	deleted       string // The path by which it is deleted; "" if it is not.
}

// editables makes one resource of each kind.
func editables(t *testing.T, p *panel) []editable {
	t.Helper()
	admin, ada := p.user(t, "admin@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20010)
	device, _ := p.device(t, ada, admin, types.DeviceKindClient)
	allocation := decode[types.AllocationCreated](t, ada.send(t, "POST", "/api/tunnel/allocations",
		map[string]any{"deviceId": device.ID, "protocol": "tcp", "localPort": 25565}), 201)
	guild := decode[types.Organisation](t, admin.send(t, "POST", "/api/organisations", `{"name":"guild"}`), 201)
	user := fmt.Sprintf("/api/users/%d", ada.user.ID)
	organisation := fmt.Sprintf("/api/organisations/%d", guild.ID)
	port := fmt.Sprintf("/api/tunnel/allocations/%d", allocation.ID)
	hook := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks",
		`{"name":"chat","url":"https://hooks.example.com/1","events":["device.offline"]}`), 201)
	webhook := fmt.Sprintf("/api/webhooks/%d", hook.ID)
	member := p.user(t, "member@example.com", "user")
	p.inSQL(t, fmt.Sprintf(`INSERT INTO organisation_members (organisation_id, user_id, role) VALUES (%d, %d, 'member')`, guild.ID, member.user.ID))
	membership := fmt.Sprintf("%s/members/%d", organisation, member.user.ID)
	key := fmt.Sprintf("/api/keys/%d", decode[types.APIKeyCreated](t, ada.send(t, "POST", "/api/keys", `{"name":"backup","scopes":["read"]}`), 201).ID)
	email := `{"currentPassword":"` + password + `","email":`
	return []editable{
		{ada, port, `{"name":"one"}`, `{"options":{"maxPlayers":5}}`, port},
		{ada, "/api/tunnel/devices/" + device.ID.String(), `{"name":"one"}`, `{"name":"two"}`, "/api/tunnel/devices/" + device.ID.String() + "/delete"},
		{ada, webhook, `{"name":"one"}`, `{"name":"two"}`, webhook},
		{ada, key, `{"name":"one"}`, `{"name":"two"}`, key},
		{admin, membership, `{"role":"admin"}`, `{"role":"owner"}`, membership},
		{ada, "/api/account", email + `"one@example.com"}`, email + `"two@example.com"}`, ""},
		{admin, user + "/quota", `{"devices":5}`, `{"allocations":7}`, ""},
		{admin, user, `{"email":"three@example.com"}`, `{"suspended":true}`, user},
		{admin, organisation + "/rules", `{"maxPlayers":10}`, `{"maxPlayersPerSource":3}`, ""},
		{admin, organisation + "/quota", `{"devices":5}`, `{"devices":6}`, ""},
		{admin, organisation, `{"name":"clan"}`, `{"name":"band"}`, organisation},
		{admin, "/api/admin/settings", `{"enrollment":{"anonymous":false}}`, `{"quota":{"devices":9}}`, ""},
	}
}

// TestIfMatch_SecondEditorChangesNothing has two editors read each resource and change it one after the other.
func TestIfMatch_SecondEditorChangesNothing(t *testing.T) {
	p := newPanel(t)
	tag := func(a answer) string {
		t.Helper()
		if a.status != http.StatusOK || a.header.Get("ETag") == "" {
			t.Fatalf("%s %s answered %d with the tag %q: %s", a.method, a.path, a.status, a.header.Get("ETag"), a.body)
		}
		return a.header.Get("ETag")
	}
	for _, e := range editables(t, p) {
		read := tag(e.caller.send(t, "GET", e.path, nil))
		if again := tag(e.caller.send(t, "GET", e.path, nil)); again != read {
			t.Errorf("%s has the tag %s, and again %s", e.path, read, again)
		}
		changed := tag(e.caller.send(t, "PATCH", e.path, e.first, "If-Match", read))
		after := e.caller.send(t, "GET", e.path, nil)
		if changed == read || tag(after) != changed {
			t.Errorf("%s has the tag %s, changed %s, and then %s", e.path, read, changed, tag(after))
		}
		wantError(t, e.caller.send(t, "PATCH", e.path, e.second, "If-Match", read), 412, types.CodePreconditionFailed)
		if e.deleted != "" {
			wantError(t, e.caller.send(t, "DELETE", e.deleted, nil, "If-Match", read), 412, types.CodePreconditionFailed)
		}
		if now := e.caller.send(t, "GET", e.path, nil); tag(now) != changed {
			t.Errorf("%s was changed by who was refused: %s, before %s", e.path, now.body, after.body)
		}
		last := tag(e.caller.send(t, "PATCH", e.path, e.second, "If-Match", `"x", W/`+changed))
		if last == changed {
			t.Errorf("%s has the same tag after a change", e.path)
		}
		wantField(t, e.caller.send(t, "PATCH", e.path, e.first, "If-Match", "x"), "If-Match")
		tag(e.caller.send(t, "PATCH", e.path, e.first, "If-Match", "*"))
		tag(e.caller.send(t, "PATCH", e.path, e.second))
	}
}

// TestIfMatch_DeletesWhatItNames deletes with the current tag, and tells those who see nothing of it just that.
func TestIfMatch_DeletesWhatItNames(t *testing.T) {
	p := newPanel(t)
	stranger := p.user(t, "stranger@example.com", "user")
	for _, e := range editables(t, p) {
		if e.deleted == "" || e.path == e.deleted && e.first == `{"email":"three@example.com"}` {
			continue // The user owns the device, which is deleted before.
		}
		if e.first != `{"name":"clan"}` {
			wantError(t, stranger.send(t, "DELETE", e.deleted, nil, "If-Match", `"x"`), 404, types.CodeNotFound)
			wantError(t, stranger.send(t, "PATCH", e.path, e.first, "If-Match", `"x"`), 404, types.CodeNotFound)
		}
		read := e.caller.send(t, "GET", e.path, nil)
		decode[types.Success](t, e.caller.send(t, "DELETE", e.deleted, nil, "If-Match", read.header.Get("ETag")), 200)
		wantError(t, e.caller.send(t, "DELETE", e.deleted, nil, "If-Match", "*"), 404, types.CodeNotFound)
	}
}

// TestIfMatch_OneOfTwoEditorsWins sends both changes at once, to two replicas, many times.
func TestIfMatch_OneOfTwoEditorsWins(t *testing.T) {
	p := newPanel(t)
	replica := newReplica(t, p.db, p.Now())
	for _, e := range editables(t, p) {
		if e.path == "/api/account" {
			continue // Each change costs a check of the password.
		}
		rounds := 5
		if strings.Contains(e.path, "allocations") {
			rounds = 50
		}
		for range rounds {
			undo(t, e)
			read := e.caller.send(t, "GET", e.path, nil).header.Get("ETag")
			answers := make([]answer, 2)
			var wg sync.WaitGroup
			for i, body := range []string{e.first, e.second} {
				wg.Go(func() {
					c := e.caller
					if i == 1 {
						c.panel = replica
					}
					answers[i] = c.send(t, "PATCH", e.path, body, "If-Match", read)
				})
			}
			wg.Wait()
			if a, b := answers[0], answers[1]; min(a.status, b.status) != 200 || max(a.status, b.status) != 412 {
				t.Fatalf("%s: %d %s and %d %s", e.path, a.status, a.body, b.status, b.body)
			}
		}
	}
}

// undo makes each of the changes of a resource one that changes something.
func undo(t *testing.T, e editable) {
	t.Helper()
	body := map[string]string{
		`{"role":"admin"}`:                   `{"role":"member"}`,
		`{"email":"three@example.com"}`:      `{"email":"four@example.com","suspended":false}`,
		`{"maxPlayers":10}`:                  `{"maxPlayers":null,"maxPlayersPerSource":null}`,
		`{"devices":5}`:                      `{"devices":null,"allocations":null}`,
		`{"enrollment":{"anonymous":false}}`: `{"enrollment":{"anonymous":true},"quota":{"devices":null}}`,
		`{"name":"clan"}`:                    `{"name":"guild"}`,
	}[e.first]
	switch {
	case strings.Contains(e.second, "options"):
		body = `{"name":"undone","options":{"maxPlayers":null}}`
	case body == "":
		body = `{"name":"undone"}`
	}
	if a := e.caller.send(t, "PATCH", e.path, body); a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", e.path, a.status, a.body)
	}
}

// TestETag_StaysWhileOnlyLiveStateChanges: a report of an agent must not refuse an editor.
func TestETag_StaysWhileOnlyLiveStateChanges(t *testing.T) {
	p := newPanel(t)
	edits := editables(t, p)
	before := make([]string, 2)
	for i := range before {
		before[i] = edits[i].caller.send(t, "GET", edits[i].path, nil).header.Get("ETag")
	}
	for _, query := range []string{
		`UPDATE allocations SET server_state = 'ready', client_state = 'failed', client_reason = 'no', target = 'down', target_reason = 'no'`,
		`UPDATE devices SET platform = 'plan9/mips', agent_version = '9', last_seen_at = now(),
			control_address = '192.0.2.9', disconnect_reason = 'lost' WHERE kind = 'client'`,
	} {
		if _, err := dbtest.SQL(t, p.db).ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	p.advance(time.Hour)
	for i, tag := range before {
		if now := edits[i].caller.send(t, "GET", edits[i].path, nil).header.Get("ETag"); now != tag {
			t.Errorf("%s has the tag %s, and had %s", edits[i].path, now, tag)
		}
	}
	// A move is an edit, to a port that it does not have.
	port := `{"port":20007}`
	if strings.Contains(string(edits[0].caller.send(t, "GET", edits[0].path, nil).body), `"port":20007`) {
		port = `{"port":20008}`
	}
	move := edits[0].caller.send(t, "PATCH", edits[0].path, port, "If-Match", before[0])
	if move.status != http.StatusOK || move.header.Get("ETag") == before[0] {
		t.Errorf("another port: %d %s", move.status, move.body)
	}
}

// TestIfMatch_MoveIsOneEdit moves an allocation to another tunnel server with a tag, and with an outdated one.
func TestIfMatch_MoveIsOneEdit(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	here := p.server(t, 20010)
	device, _ := p.device(t, admin, admin, types.DeviceKindClient)
	target, _ := p.device(t, admin, admin, types.DeviceKindServer)
	p.connect(t, target.ID)
	port := decode[types.AllocationCreated](t, admin.send(t, "POST", "/api/tunnel/allocations",
		map[string]any{"deviceId": device.ID, "protocol": "tcp", "localPort": 25565, "serverId": here.ID}), 201)
	path := fmt.Sprintf("/api/tunnel/allocations/%d", port.ID)
	read := admin.send(t, "GET", path, nil).header.Get("ETag")
	admin.send(t, "PATCH", path, `{"name":"other"}`)
	to := target.ID
	body := map[string]any{"serverId": to}
	wantError(t, admin.send(t, "PATCH", path, body, "If-Match", read), 412, types.CodePreconditionFailed)
	now := admin.send(t, "GET", path, nil)
	if got := decode[types.Allocation](t, now, 200); got.ServerID != port.ServerID {
		t.Fatalf("the refused move went to %s", got.ServerID)
	}
	moved := decode[types.Allocation](t, admin.send(t, "PATCH", path, body, "If-Match", now.header.Get("ETag")), 200)
	if moved.ServerID != to {
		t.Errorf("moved to %s", moved.ServerID)
	}
}
