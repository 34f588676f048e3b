package db_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func newAPIKey(t *testing.T, d *db.DB, owner db.APIKeyOwner, hash string) db.APIKey {
	t.Helper()
	key, err := d.CreateAPIKey(t.Context(), everything,
		db.APIKey{APIKeyOwner: owner, Name: "script", Prefix: "etk_", Scopes: []string{"read"}, CreatedAt: noon}, []byte(hash))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAPIKeyByHash_HasTheWholeUser(t *testing.T) {
	d := dbtest.New(t)
	id, organisation := newUser(t, d, "ada@example.com", "admin").ID, dbtest.Organisation(t, d, "guild")
	suspended := true
	newUser(t, d, "root@example.com", "admin")
	user, err := d.UpdateUser(t.Context(), id, db.UserPatch{Suspended: &suspended})
	check(t, err)
	want := newAPIKey(t, d, db.APIKeyOwner{UserID: &id}, "one")
	key, got, err := d.APIKeyByHash(t.Context(), []byte("one"))
	check(t, err)
	if got == nil || !reflect.DeepEqual(*got, user) || !reflect.DeepEqual(key, want) {
		t.Errorf("got %+v of %+v, want %+v of %+v", key, got, want, user)
	}
	want = newAPIKey(t, d, db.APIKeyOwner{OrganisationID: &organisation}, "two")
	dbtest.Member(t, d, organisation, id, db.RoleOwner)
	dbtest.Member(t, d, organisation, newUser(t, d, "bob@example.com", "user").ID, db.RoleMember)
	_, _, err = d.APIKeyByHash(t.Context(), []byte("two"))
	wantErr(t, err, db.ErrNotFound) // Who manages the organisation is suspended.
	dbtest.Member(t, d, organisation, newUser(t, d, "eve@example.com", "user").ID, db.RoleAdmin)
	key, got, err = d.APIKeyByHash(t.Context(), []byte("two"))
	check(t, err)
	if got != nil || !reflect.DeepEqual(key, want) {
		t.Errorf("got %+v of %+v, want %+v", key, got, want)
	}
	_, _, err = d.APIKeyByHash(t.Context(), []byte("three"))
	wantErr(t, err, db.ErrNotFound)
}

// TestAPIKeys_AreFoundByAnIndex among those of 2,000 users and as many organisations.
func TestAPIKeys_AreFoundByAnIndex(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		`INSERT INTO users (email, password_hash, role) SELECT n || '@example.com', '', 'user' FROM generate_series(1, 2000) n`,
		`INSERT INTO organisations (name) SELECT 'guild' FROM generate_series(1, 2000) n`,
		`INSERT INTO api_keys (user_id, name, prefix, hash, scopes, created_at)
			SELECT id, 'key', 'etk_', decode(md5('user' || id || n), 'hex'), '{read}', now() FROM users, generate_series(1, 5) n`,
		`INSERT INTO api_keys (organisation_id, name, prefix, hash, scopes, created_at)
			SELECT id, 'key', 'etk_', decode(md5('organisation' || id || n), 'hex'), '{read}', now() FROM organisations, generate_series(1, 5) n`,
		`INSERT INTO organisation_members (organisation_id, user_id, role) SELECT o.id, u.id, 'owner' FROM organisations o JOIN users u ON u.id = o.id`,
		`ANALYZE`,
	} {
		if _, err := sql.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"by hash":         plan(t, sql, db.APIKeyQuery, []byte("hash")),
		"of a user":       plan(t, sql, db.APIKeysQuery, 1000, nil),
		"of organisation": plan(t, sql, db.APIKeysQuery, nil, 1000),
	} {
		if strings.Contains(text, "Seq Scan") {
			t.Errorf("%s reads a table whole:\n%s", name, text)
		}
	}
}

func TestRecordAPIKeyUses_WaitsForNobody(t *testing.T) {
	d := dbtest.New(t)
	id := newUser(t, d, "ada@example.com", "user").ID
	locked, free := newAPIKey(t, d, db.APIKeyOwner{UserID: &id}, "one"), newAPIKey(t, d, db.APIKeyOwner{UserID: &id}, "two")
	holder, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	_, err = holder.ExecContext(t.Context(), `SELECT FROM api_keys WHERE id = $1 FOR UPDATE`, locked.ID)
	check(t, err)
	uses := map[int64]netip.Addr{locked.ID: netip.MustParseAddr("192.0.2.1"), free.ID: {}, 999: {}}
	check(t, d.RecordAPIKeyUses(t.Context(), uses, noon))
	check(t, holder.Rollback())
	recorded := func() map[int64]db.APIKey {
		keys, err := d.APIKeys(t.Context(), everything, db.APIKeyOwner{UserID: &id})
		check(t, err)
		byID := map[int64]db.APIKey{}
		for _, key := range keys {
			byID[key.ID] = key
		}
		return byID
	}
	if keys := recorded(); keys[locked.ID].LastUsedAt != nil || keys[free.ID].LastUsedAt == nil || keys[free.ID].LastUsedFrom != nil {
		t.Errorf("recorded %+v", keys)
	}
	check(t, d.RecordAPIKeyUses(t.Context(), uses, noon.Add(time.Minute-time.Second)))
	if keys := recorded(); keys[locked.ID].LastUsedAt == nil || *keys[locked.ID].LastUsedFrom != "192.0.2.1" || !keys[free.ID].LastUsedAt.Equal(noon) {
		t.Errorf("recorded %+v", keys)
	}
}

// TestCreateAPIKey_SeesWhoWasRemovedMeanwhile: an admin who is removed while their key waits for the lock of the
// organisation gets none.
func TestCreateAPIKey_SeesWhoWasRemovedMeanwhile(t *testing.T) {
	d := dbtest.New(t)
	connections := dbtest.SQL(t, d)
	organisation, ada := dbtest.Organisation(t, d, "guild"), newUser(t, d, "ada@example.com", "user").ID
	for change, want := range map[string]error{
		`DELETE FROM organisation_members WHERE user_id = $1`:                db.ErrNotFound,
		`UPDATE organisation_members SET role = 'member' WHERE user_id = $1`: db.ErrForbidden,
	} {
		dbtest.Member(t, d, organisation, ada, db.RoleAdmin)
		tx, err := connections.BeginTx(t.Context(), nil)
		check(t, err)
		_, err = tx.ExecContext(t.Context(), `SELECT FROM organisations WHERE id = $1 FOR NO KEY UPDATE`, organisation)
		check(t, err)
		_, err = tx.ExecContext(t.Context(), change, ada)
		check(t, err)
		created := make(chan error, 1)
		go func() {
			_, err := d.CreateAPIKey(t.Context(), db.Scope{UserID: ada}, db.APIKey{
				APIKeyOwner: db.APIKeyOwner{OrganisationID: &organisation}, Name: "key", Scopes: []string{"read"},
			}, []byte(change))
			created <- err
		}()
		waiting(t, d, 1)
		check(t, tx.Commit())
		wantErr(t, <-created, want)
		_, err = connections.ExecContext(t.Context(), `DELETE FROM organisation_members`)
		check(t, err)
	}
}
