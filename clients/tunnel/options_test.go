package tunnel_test

import (
	"net/http"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestClient_SendsACreationWithOneKeyUntilItIsAnswered(t *testing.T) {
	s := serve(t, answer{abort: true}, answer{status: 409, retryAfter: "2", body: types.Problem{Error: "idempotency_in_progress", Message: "Wait."}},
		answer{status: 201, body: types.Organisation{ID: 7}})
	c := s.client(t, "")
	made, err := c.CreateOrganisation(t.Context(), types.OrganisationCreate{Name: "x"})
	if err != nil || made.ID != 7 {
		t.Fatal(made, err)
	}
	if _, err := c.CreateOrganisation(t.Context(), types.OrganisationCreate{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateOrganisation(t.Context(), types.OrganisationCreate{Name: "x"}, tunnel.IdempotencyKey("mine")); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range s.requests() {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
	}
	if len(keys) != 5 || keys[0] == "" || keys[1] != keys[0] || keys[2] != keys[0] || keys[3] == keys[0] || keys[4] != "mine" {
		t.Errorf("keys are %q", keys)
	}
}

// TestClient_WebhooksAreMadeOnce: what makes something is sent again with its key. A test is a
// message each time, so it is not.
func TestClient_WebhooksAreMadeOnce(t *testing.T) {
	s := serve(t, answer{abort: true}, answer{status: 201, body: types.WebhookCreated{ID: 3}}, answer{abort: true},
		answer{status: 200, body: types.WebhookSecret{Secret: "whsec_x"}}, answer{abort: true})
	c := s.client(t, "")
	made, err := c.CreateWebhook(t.Context(), types.WebhookCreate{Name: "alerts"})
	if err != nil || made.ID != 3 {
		t.Fatal(made, err)
	}
	if rotated, err := c.RotateWebhookSecret(t.Context(), 3); err != nil || rotated.Secret != "whsec_x" {
		t.Fatal(rotated, err)
	}
	if _, err := c.TestWebhook(t.Context(), 3); err == nil {
		t.Error("a test succeeded of which the answer was lost")
	}
	var keys []string
	for _, r := range s.requests() {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
	}
	if len(keys) != 5 || keys[0] == "" || keys[1] != keys[0] || keys[2] == keys[0] || keys[3] != keys[2] || keys[4] != "" {
		t.Errorf("keys are %q", keys)
	}
}

func TestClient_ChangesOnlyWhatIsStillTheSame(t *testing.T) {
	s := serve(t, answer{status: 200, body: types.Allocation{ID: 3}, tag: `"7"`}, problem(412, "precondition_failed"))
	c := s.client(t, "")
	var tag string
	if _, err := c.Allocation(t.Context(), 3, tunnel.ReadETag(&tag)); err != nil || tag != `"7"` {
		t.Fatalf("tag %s, %v", tag, err)
	}
	_, err := c.UpdateAllocation(t.Context(), 3, types.AllocationPatch{}, tunnel.IfMatch(tag))
	if requests := s.requests(); !tunnel.HasCode(err, "precondition_failed") || len(requests) != 2 ||
		requests[1].Method != http.MethodPatch || requests[1].Header.Get("If-Match") != tag {
		t.Errorf("%d requests, error %v", len(requests), err)
	}
}

func TestClient_ListsAreReadPageByPage(t *testing.T) {
	s := serve(t,
		answer{status: 200, body: []types.User{{ID: 5}, {ID: 4}}, link: `</api/users?limit=2&after=x>; rel="next"`},
		answer{status: 200, body: []types.User{{ID: 3}}},
	)
	c := s.client(t, "")
	limit := 2
	users := c.EachUser(t.Context(), types.ListUsersParams{Limit: &limit})
	var ids []int64
	for user, err := range users {
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, user.ID); len(ids) == 2 && len(s.requests()) != 1 {
			t.Error("it fetches a page before it is needed")
		}
	}
	requests := s.requests()
	if len(ids) != 3 || len(requests) != 2 || requests[0].URL.RawQuery != "limit=2" || requests[1].URL.RawQuery != "limit=2&after=x" {
		t.Errorf("ids %v after %d requests", ids, len(requests))
	}
	for _, err := range users {
		if err != nil {
			t.Error(err)
		}
		break // It leaves the rest unread.
	}
	failing := serve(t, problem(403, types.CodeForbidden)).client(t, "")
	count := 0
	for _, err := range failing.EachUser(t.Context(), types.ListUsersParams{}) {
		if count++; !tunnel.HasCode(err, types.CodeForbidden) || count > 1 {
			t.Errorf("item %d: %v", count, err)
		}
	}
}
