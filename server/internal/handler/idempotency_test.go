package handler_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// repeatable are the POSTs that take no Idempotency-Key, with the reason.
var repeatable = map[string]string{
	"login":            "each login is a session of its own, and its answer must not be kept",
	"logout":           "the second one changes nothing",
	"setPassword":      "the link is used up by the first",
	"changePassword":   "the second one has the wrong current password",
	"lookUpInvitation": "changes nothing",

	"startDeviceLogin":  "a login that nobody approves has no effect, and its answer must not be kept",
	"pollDeviceLogin":   "the key is handed out once, and must not be kept",
	"revokeDeviceLogin": "the second one changes nothing",

	"bulkAllocations":  "the second one finds everything done",
	"checkAllocation":  "changes nothing",
	"testWebhook":      "each sends a message",
	"redeliverWebhook": "a message that waits already does not wait twice",
}

// keyed returns the ids of the operations that take an Idempotency-Key.
func keyed(t *testing.T, doc *openapi3.T) []string {
	t.Helper()
	var ids []string
	for _, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			takes := op.Parameters.GetByInAndName("header", "Idempotency-Key") != nil
			switch _, exempt := repeatable[op.OperationID]; {
			case takes != (method == http.MethodPost) && !exempt, takes && exempt:
				t.Errorf("%s %s: takes an Idempotency-Key: %t", method, op.OperationID, takes)
			case takes:
				ids = append(ids, op.OperationID)
			}
		}
	}
	return ids
}

// TestIdempotency_EveryOperationAnswersARepetitionAlike sends the contract's example of every POST that changes
// something twice. Most of them would otherwise fail or make another one.
func TestIdempotency_EveryOperationAnswersARepetitionAlike(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	p.exampleRows(t, admin, doc)
	operations := keyed(t, doc)
	seen := map[string]bool{}
	for _, r := range exampleRequests(doc) {
		if !slices.Contains(operations, r.operation) || seen[r.operation] && r.operation != "createAllocation" {
			continue
		}
		if seen[r.operation] = true; r.operation == "drainDevice" {
			r.path = strings.Replace(r.path, exampleClient.String(), exampleServer.String(), 1)
		}
		if r.operation == "denyDevice" { // That of the example is approved by now.
			started := decode[types.Enrollment](t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", `{"name":"another"}`), 200)
			r.body = map[string]any{"userCode": started.UserCode}
		}
		if r.operation == "denyDeviceLogin" {
			userCode, _ := p.newLogin(t)
			r.body = map[string]any{"userCode": userCode}
		}
		key := uuid.NewString()
		first := admin.send(t, r.method, r.path, r.body, "Idempotency-Key", key)
		second := admin.send(t, r.method, r.path, r.body, "Idempotency-Key", key)
		if first.status >= 300 || second.status != first.status || !bytes.Equal(first.body, second.body) {
			t.Errorf("%s answered %d %s, and again %d %s", r.operation, first.status, first.body, second.status, second.body)
		}
		if first.header.Get("Idempotency-Replayed") != "" || second.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s does not say which answer is a repetition", r.operation)
		}
		if second.header.Get("Content-Type") != first.header.Get("Content-Type") {
			t.Errorf("%s repeated with the headers %v, want %v", r.operation, second.header, first.header)
		}
	}
	if len(seen) != len(operations) || len(seen) < 10 {
		t.Errorf("tried %d of the operations %v", len(seen), operations)
	}
}

// TestIdempotency_ConcurrentRequestsMakeOne sends one request many times at once, to two replicas.
func TestIdempotency_ConcurrentRequestsMakeOne(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	other := admin
	other.panel = newReplica(t, p.db, p.Now())
	key := uuid.NewString()
	var wg sync.WaitGroup
	made := make(chan types.Organisation, 20)
	for i := range cap(made) {
		wg.Go(func() {
			c := admin
			if i%2 == 1 {
				c = other
			}
			for {
				a := c.send(t, "POST", "/api/organisations", `{"name":"guild"}`, "Idempotency-Key", key)
				if a.status != http.StatusConflict {
					made <- decode[types.Organisation](t, a, 201)
					return
				}
				wantError(t, a, 409, types.CodeIdempotencyInProgress)
				if a.header.Get("Retry-After") != "1" {
					t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
					return
				}
			}
		})
	}
	wg.Wait()
	close(made)
	first := <-made
	for organisation := range made {
		if organisation.ID != first.ID {
			t.Errorf("made %d and %d", first.ID, organisation.ID)
		}
	}
	if all := decode[[]types.Organisation](t, admin.send(t, "GET", "/api/organisations", nil), 200); len(all) != 1 {
		t.Errorf("there are %d organisations", len(all))
	}
}

// TestIdempotency_LostAnswerIsNotDoneAgain loses the answer between the change's commit and its storing, as the death
// of the panel's process does.
func TestIdempotency_LostAnswerIsNotDoneAgain(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	sql := dbtest.SQL(t, p.db)
	exec := func(query string) {
		t.Helper()
		if _, err := sql.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''lost''; END'`)
	exec(`CREATE TRIGGER lose BEFORE UPDATE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION lose()`)
	send := func() answer {
		return admin.send(t, "POST", "/api/users", `{"email":"ada@example.com"}`, "Idempotency-Key", "ada")
	}
	user := decode[types.User](t, send(), 201)
	exec(`DROP TRIGGER lose ON idempotency_keys`)
	wantError(t, send(), 409, types.CodeIdempotencyInProgress)
	exec(`UPDATE idempotency_keys SET created_at = now() - interval '2 minutes'`)
	wantError(t, send(), 409, types.CodeIdempotencyAnswerLost)
	decode[types.Success](t, admin.send(t, "DELETE", fmt.Sprintf("/api/users/%d", user.ID), nil), 200)
	wantError(t, send(), 409, types.CodeIdempotencyAnswerLost)
	exec(`UPDATE idempotency_keys SET created_at = now() - interval '25 hours'`)
	decode[types.User](t, send(), 201)
	if a := send(); a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("a key that was used again after a day answered %d %v", a.status, a.header)
	}
}

func TestIdempotency_KeyBelongsToItsRequestAndCaller(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "admin@example.com", "admin"), p.user(t, "ada@example.com", "admin")
	create := func(c caller, name string) answer {
		return c.send(t, "POST", "/api/organisations", map[string]any{"name": name}, "Idempotency-Key", "one-key")
	}
	first := decode[types.Organisation](t, create(admin, "guild"), 201)
	wantError(t, create(admin, "clan"), 409, types.CodeIdempotencyKeyReused)
	wantError(t, admin.send(t, "POST", "/api/users", `{"email":"hopper@example.com"}`, "Idempotency-Key", "one-key"), 409, types.CodeIdempotencyKeyReused)
	if other := decode[types.Organisation](t, create(ada, "guild"), 201); other.ID == first.ID {
		t.Error("another user got the answer")
	}
	for _, key := range []string{"a key", strings.Repeat("k", 256)} {
		wantField(t, admin.send(t, "POST", "/api/organisations", `{"name":"guild"}`, "Idempotency-Key", key), "Idempotency-Key")
	}
	// Machines behind one address must not get each other's device codes.
	wantField(t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`, "Idempotency-Key", "1"), "Idempotency-Key")
	start := func() types.Enrollment {
		return decode[types.Enrollment](t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`,
			"Idempotency-Key", "0123456789abcdefghijkl"), 200)
	}
	if one, two := start(), start(); one.DeviceCode != two.DeviceCode {
		t.Error("an anonymous repetition started another enrollment")
	}
}

// TestIdempotency_RefusalIsNotRemembered: what was refused is decided anew, and leaves no row.
func TestIdempotency_RefusalIsNotRemembered(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	user := p.user(t, "ada@example.com", "user")
	send := func() answer {
		return admin.send(t, "POST", "/api/users", `{"email":"ada@example.com"}`, "Idempotency-Key", "k")
	}
	wantError(t, send(), 409, types.CodeConflict)
	// Nor is one that commits a transaction in which it does nothing.
	for refused := false; !refused; {
		a := user.send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`)
		refused = a.status == http.StatusTooManyRequests
	}
	wantError(t, user.send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`, "Idempotency-Key", "k"), 429, types.CodeRateLimited)
	wantError(t, user.send(t, "POST", "/api/users", `{"email":"x@example.com"}`, "Idempotency-Key", "k"), 403, types.CodeForbidden)
	var rows int
	if err := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT count(*) FROM idempotency_keys`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("refusals left %d rows, error %v", rows, err)
	}
	decode[types.Success](t, admin.send(t, "DELETE", fmt.Sprintf("/api/users/%d", user.user.ID), nil), 200)
	decode[types.User](t, send(), 201)
}

// TestIdempotency_DatabaseTellsNothing: neither the key nor the answer, which has a secret, can be read there.
func TestIdempotency_DatabaseTellsNothing(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	made := decode[types.APIKeyCreated](t, admin.send(t, "POST", "/api/keys", `{"name":"backup","scopes":["read"]}`, "Idempotency-Key", "key-of-the-backup"), 201)
	var row struct{ ID, Request, Answer []byte }
	if err := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT id, request, answer FROM idempotency_keys`).
		Scan(&row.ID, &row.Request, &row.Answer); err != nil {
		t.Fatal(err)
	}
	stored := slices.Concat(row.ID, row.Request, row.Answer)
	for _, secret := range []string{"key-of-the-backup", made.Key, "backup", `"status"`} {
		if len(row.Answer) < len(made.Key) || bytes.Contains(stored, []byte(secret)) {
			t.Errorf("the database has %q in %d bytes", secret, len(stored))
		}
	}
}

// repetitionAnswers adds the answers to requests that repeat others, and to a change of what has changed.
func repetitionAnswers(t *testing.T, p *panel, ada caller, answers map[string]answer) {
	t.Helper()
	send := func(body string) answer {
		return ada.send(t, "POST", "/api/keys", body, "Idempotency-Key", "repeated")
	}
	key := decode[types.APIKeyCreated](t, send(`{"name":"once","scopes":["read"]}`), 201)
	answers["IdempotencyKeyReused"] = send(`{"name":"twice","scopes":["read"]}`)
	// As a panel leaves it that crashes before it has answered.
	forget := func(query string) {
		t.Helper()
		if _, err := dbtest.SQL(t, p.db).ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	forget(`UPDATE idempotency_keys SET answer = NULL`)
	answers["IdempotencyInProgress"] = send(`{"name":"once","scopes":["read"]}`)
	forget(`UPDATE idempotency_keys SET created_at = created_at - interval '2 minutes'`)
	answers["IdempotencyAnswerLost"] = send(`{"name":"once","scopes":["read"]}`)
	decode[types.Success](t, ada.send(t, "DELETE", fmt.Sprintf("/api/keys/%d", key.ID), nil), 200)
	answers["PreconditionFailed"] = ada.send(t, "PATCH", "/api/account",
		map[string]any{"email": "ada@example.com", "currentPassword": password}, "If-Match", `"older"`)
}
