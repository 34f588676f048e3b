package db_test

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestUsers_EmailIsUniqueCaseInsensitively(t *testing.T) {
	d := dbtest.New(t)
	created, err := d.CreateUser(t.Context(), "Ann@Example.com", "hash", "admin")
	check(t, err)
	_, err = d.CreateUser(t.Context(), "ann@example.COM", "hash", "user")
	wantErr(t, err, db.ErrConflict)

	found, err := d.UserByEmail(t.Context(), "ANN@example.com")
	check(t, err)
	if found != created || found.Email != "Ann@Example.com" || found.Role != "admin" {
		t.Errorf("got %+v, created %+v", found, created)
	}
	if found.CreatedAt.Location() != time.UTC {
		t.Errorf("time in %v, want UTC", found.CreatedAt.Location())
	}
	byID, err := d.UserByID(t.Context(), created.ID)
	check(t, err)
	if byID != created {
		t.Errorf("got %+v", byID)
	}
	_, err = d.UserByID(t.Context(), created.ID+1)
	wantErr(t, err, db.ErrNotFound)
	_, err = d.UserByEmail(t.Context(), "nobody@example.com")
	wantErr(t, err, db.ErrNotFound)
}

func TestCreateFirstAdmin_OneOfManySucceeds(t *testing.T) {
	d := dbtest.New(t)
	has, err := d.HasAdmin(t.Context())
	check(t, err)
	if has {
		t.Fatal("an admin in an empty database")
	}
	var replicas sync.WaitGroup
	var winners atomic.Int32
	for i := range 8 {
		replicas.Go(func() {
			created, err := d.CreateFirstAdmin(t.Context(), fmt.Sprintf("admin%d@example.com", i), "hash")
			if err != nil {
				t.Error(err)
			}
			if created {
				winners.Add(1)
			}
		})
	}
	replicas.Wait()
	if winners.Load() != 1 {
		t.Errorf("%d admins were created, want 1", winners.Load())
	}
	has, err = d.HasAdmin(t.Context())
	check(t, err)
	if !has {
		t.Error("no admin")
	}
}

func TestCreateFirstAdmin_EmailOfAUser(t *testing.T) {
	d := dbtest.New(t)
	createUser(t, d, "ann@example.com")
	_, err := d.CreateFirstAdmin(t.Context(), "ann@example.com", "hash")
	wantErr(t, err, db.ErrConflict)
}

func TestSessions(t *testing.T) {
	d := dbtest.New(t)
	user := createUser(t, d, "ann@example.com")
	session := db.Session{ID: uuid.New(), UserID: user, CreatedAt: noon, ExpiresAt: noon.Add(time.Hour), LastUsedAt: noon}
	check(t, d.CreateSession(t.Context(), session, "hash", []byte("home"), noon))

	found, owner, err := d.SessionUser(t.Context(), session.ID, noon)
	check(t, err)
	if found != session || owner.ID != user || owner.Email != "ann@example.com" {
		t.Errorf("got %+v of %+v", found, owner)
	}
	_, _, err = d.SessionUser(t.Context(), session.ID, noon.Add(time.Hour))
	wantErr(t, err, db.ErrNotFound)
	_, _, err = d.SessionUser(t.Context(), uuid.New(), noon)
	wantErr(t, err, db.ErrNotFound)

	check(t, d.DeleteSession(t.Context(), session.ID))
	check(t, d.DeleteSession(t.Context(), session.ID))
	_, _, err = d.SessionUser(t.Context(), session.ID, noon)
	wantErr(t, err, db.ErrNotFound)

	err = d.CreateSession(t.Context(), db.Session{ID: uuid.New(), UserID: user + 1, ExpiresAt: noon}, "hash", []byte("home"), noon)
	wantErr(t, err, db.ErrNotFound)

	// A password that was changed since the login read it.
	err = d.CreateSession(t.Context(), session, "the hash before", []byte("home"), noon)
	wantErr(t, err, db.ErrNotFound)
	_, _, err = d.SessionUser(t.Context(), session.ID, noon)
	wantErr(t, err, db.ErrNotFound)
}

func TestMaintain_KeepsValidSessionsAndLimits(t *testing.T) {
	d := dbtest.New(t)
	user := createUser(t, d, "ann@example.com")
	old := db.Session{ID: uuid.New(), UserID: user, ExpiresAt: noon.Add(-time.Second)}
	valid := db.Session{ID: uuid.New(), UserID: user, ExpiresAt: noon.Add(time.Second)}
	for _, session := range []db.Session{old, valid} {
		check(t, d.CreateSession(t.Context(), session, "hash", []byte("home"), noon))
	}
	take(t, d, "old", 1, noon.Add(-2*time.Minute))
	take(t, d, "valid", 1, noon)
	maintain(t, d, db.Maintenance{ExpiredBefore: noon})

	_, _, err := d.SessionUser(t.Context(), old.ID, noon.Add(-time.Hour))
	wantErr(t, err, db.ErrNotFound)
	_, _, err = d.SessionUser(t.Context(), valid.ID, noon)
	check(t, err)
	if wait := take(t, d, "valid", 1, noon); wait == 0 {
		t.Error("a limit that is still in effect was deleted")
	}
}

func TestOrganisations(t *testing.T) {
	d := dbtest.New(t)
	user := createUser(t, d, "ann@example.com")
	org := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, org, user, "owner")

	role, err := d.OrganisationRole(t.Context(), org, user)
	check(t, err)
	if role != "owner" {
		t.Errorf("role %q", role)
	}
	_, err = d.OrganisationRole(t.Context(), org, user+1)
	wantErr(t, err, db.ErrNotFound)
	for id, want := range map[int64]bool{org: true, org + 1: false} {
		exists, err := d.OrganisationExists(t.Context(), id)
		check(t, err)
		if exists != want {
			t.Errorf("organisation %d exists: %v", id, exists)
		}
	}
}

func TestSettings_PatchChangesOnlyGivenFields(t *testing.T) {
	d := dbtest.New(t)
	settings, err := d.Settings(t.Context())
	check(t, err)
	want := db.Settings{
		TunnelsEnabled: true, AnonymousEnrollment: true, OrganisationCreators: db.CreatorsAdmins, Quota: db.Quota{PortsOutsideRange: ptr(0)},
		UsageRetention: db.UsageRetention{Minutes: 2, Hours: 90, Days: 731},
	}
	if !reflect.DeepEqual(settings, want) {
		t.Errorf("at first %+v", settings)
	}
	updated, err := d.UpdateSettings(t.Context(), db.SettingsPatch{TunnelsEnabled: ptr(false)})
	check(t, err)
	settings, err = d.Settings(t.Context())
	check(t, err)
	want.TunnelsEnabled = false
	if !reflect.DeepEqual(settings, want) || !reflect.DeepEqual(updated, want) {
		t.Errorf("got %+v, answered %+v", settings, updated)
	}
}

func take(t *testing.T, d *db.DB, key string, limit int, now time.Time) time.Duration {
	t.Helper()
	attempt, err := d.Take(t.Context(), key, limit, time.Minute, now)
	check(t, err)
	return attempt.RetryAfter
}

func TestTake_AllowsLimitPerWindow(t *testing.T) {
	d := dbtest.New(t)
	for range 3 {
		if wait := take(t, d, "a", 3, noon); wait != 0 {
			t.Fatalf("rejected for %v within the limit", wait)
		}
	}
	for range 3 {
		if wait := take(t, d, "a", 3, noon.Add(20*time.Second)); wait != 40*time.Second {
			t.Fatalf("told to wait %v, want 40s", wait)
		}
	}
	if wait := take(t, d, "b", 3, noon); wait != 0 {
		t.Error("another key was rejected")
	}
	if wait := take(t, d, "a", 3, noon.Add(time.Minute)); wait != 0 {
		t.Errorf("rejected for %v in the next window", wait)
	}
}

func TestTake_CountsAllReplicas(t *testing.T) {
	d := dbtest.New(t)
	var callers sync.WaitGroup
	var allowed atomic.Int32
	for range 20 {
		callers.Go(func() {
			attempt, err := d.Take(t.Context(), "a", 5, time.Minute, noon)
			if err != nil {
				t.Error(err)
			}
			if attempt.RetryAfter == 0 {
				allowed.Add(1)
			}
		})
	}
	callers.Wait()
	if allowed.Load() != 5 {
		t.Errorf("%d were allowed, want 5", allowed.Load())
	}
}

func TestRefund_KeepsTheOtherAttempts(t *testing.T) {
	d := dbtest.New(t)
	take(t, d, "a", 2, noon)
	for range 3 {
		if wait := take(t, d, "a", 2, noon); wait != 0 {
			t.Fatalf("rejected for %v although the last one was refunded", wait)
		}
		check(t, d.Refund(t.Context(), "a"))
	}
	take(t, d, "a", 2, noon)
	if wait := take(t, d, "a", 2, noon); wait == 0 {
		t.Error("the first attempt was uncounted")
	}
}

func TestReset(t *testing.T) {
	d := dbtest.New(t)
	take(t, d, "a", 1, noon)
	check(t, d.Reset(t.Context(), "a"))
	if wait := take(t, d, "a", 1, noon); wait != 0 {
		t.Errorf("rejected for %v after a reset", wait)
	}
}

func TestLoginPlaces_AreForgottenAYearAfterTheLastLogin(t *testing.T) {
	d := dbtest.New(t)
	user, year := createUser(t, d, "ann@example.com"), 365*24*time.Hour
	other := createUser(t, d, "ben@example.com")
	login := func(user int64, place string, at time.Time) {
		t.Helper()
		check(t, d.CreateSession(t.Context(), db.Session{ID: uuid.New(), UserID: user, ExpiresAt: noon.Add(2 * year)}, "hash", []byte(place), at))
	}
	login(user, "old", noon)
	login(user, "renewed", noon)
	login(user, "renewed", noon.Add(time.Hour))
	login(user, "renewed", noon.Add(time.Minute)) // By a clock that is behind.
	login(other, "other's", noon.Add(time.Hour))
	known := func(place string, at time.Time) bool {
		t.Helper()
		_, known, err := d.UserAt(t.Context(), "ANN@example.com", []byte(place), at)
		check(t, err)
		return known
	}
	for place, want := range map[string]bool{"old": false, "renewed": true, "other's": false, "unknown": false} {
		if got := known(place, noon.Add(year)); got != want {
			t.Errorf("after a year %s is known: %t, want %t", place, got, want)
		}
	}
	all, err := d.LoginPlaces(t.Context(), 10, noon.Add(year))
	check(t, err)
	if len(all) != 2 { // Of two users.
		t.Errorf("after a year %q are known", all)
	}
	maintain(t, d, db.Maintenance{ExpiredBefore: noon.Add(year + time.Second)})
	if known("old", noon) || !known("renewed", noon) {
		t.Error("other places than the expired ones were deleted")
	}
	_, _, err = d.UserAt(t.Context(), "nobody@example.com", []byte("old"), noon)
	wantErr(t, err, db.ErrNotFound)
	secret, err := d.LoginSecret(t.Context())
	check(t, err)
	if len(secret) != 32 {
		t.Errorf("a secret of %d bytes", len(secret))
	}
}
