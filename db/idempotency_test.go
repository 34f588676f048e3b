package db_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func newClaim(i int) *db.Claim {
	return &db.Claim{ID: fmt.Appendf(nil, "%032d", i), Owner: "user:1", Request: []byte("request")}
}

// TestClaim_IsMadeWithTheChangeOrNotAtAll has a change fail, succeed, and be repeated.
func TestClaim_IsMadeWithTheChangeOrNotAtAll(t *testing.T) {
	d := dbtest.New(t)
	claim := newClaim(1)
	ctx := db.WithClaim(t.Context(), claim)
	if _, err := d.CreateOrganisation(ctx, "guild", 99, false); !errors.Is(err, db.ErrNoOwner) || claim.Made() {
		t.Fatalf("a change that failed made the claim: %t, %v", claim.Made(), err)
	}
	if _, err := d.Claimed(t.Context(), claim.ID); !errors.Is(err, db.ErrNotFound) {
		t.Fatalf("a change that failed left a claim: %v", err)
	}
	if _, err := d.CreateUser(ctx, "ada@example.com", "", "user"); err != nil || !claim.Made() {
		t.Fatalf("claimed %t, %v", claim.Made(), err)
	}
	// The rest of the same request.
	if _, err := d.CreateUser(ctx, "hopper@example.com", "", "user"); err != nil {
		t.Error(err)
	}
	if _, err := d.CreateUser(db.WithClaim(t.Context(), newClaim(1)), "again@example.com", "", "user"); !errors.Is(err, db.ErrRepeated) {
		t.Errorf("a repetition returned %v", err)
	}
	if _, err := d.UserByEmail(t.Context(), "again@example.com"); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("a repetition made the user: %v", err)
	}
	check(t, d.StoreAnswer(t.Context(), claim.ID, []byte("answer")))
	claimed, err := d.Claimed(t.Context(), claim.ID)
	check(t, err)
	if string(claimed.Answer) != "answer" || string(claimed.Request) != "request" || claimed.Age < 0 {
		t.Errorf("claimed %+v", claimed)
	}
}

// TestPruneIdempotencyKeys_KeepsTheNewestOfADay: what is older than a day goes, and what is beyond the newest 10,000
// of an owner.
func TestPruneIdempotencyKeys_KeepsTheNewestOfADay(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	_, err := sql.ExecContext(t.Context(), `INSERT INTO idempotency_keys (id, owner, request, created_at)
		SELECT sha256(('many ' || n)::bytea), 'user:1', ''::bytea, now() - n * interval '1 second' FROM generate_series(1, 10003) n
		UNION ALL SELECT sha256(('old ' || n)::bytea), 'user:2', ''::bytea, now() - interval '25 hours' FROM generate_series(1, 4) n
		UNION ALL SELECT sha256('new'), 'user:2', ''::bytea, now() - interval '23 hours'`)
	check(t, err)
	deleted, err := d.PruneIdempotencyKeys(t.Context())
	check(t, err)
	var many, others int
	check(t, sql.QueryRowContext(t.Context(), `SELECT count(*) FILTER (WHERE owner = 'user:1' AND created_at > now() - interval '10001 seconds'),
		count(*) FILTER (WHERE owner = 'user:2') FROM idempotency_keys`).Scan(&many, &others))
	if deleted != 7 || many != 10_000 || others != 1 {
		t.Errorf("deleted %d, and left %d and %d", deleted, many, others)
	}
}
