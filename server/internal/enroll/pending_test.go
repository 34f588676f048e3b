package enroll_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// from returns a context of a request from an address.
func (r *rules) from(t *testing.T, address string) (ctx context.Context) {
	t.Helper()
	a, err := auth.New(t.Context(), auth.Options{Store: r.db, PublicURL: &url.URL{Scheme: "http", Host: "localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.RemoteAddr = address
	a.WithAddress(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx = r.Context()
	})).ServeHTTP(httptest.NewRecorder(), request)
	return ctx
}

// fill inserts n pending enrollments with a value in one column.
func (r *rules) fill(t *testing.T, n int, expires time.Time, column string, value any) {
	t.Helper()
	_, err := dbtest.SQL(t, r.db).ExecContext(t.Context(),
		`INSERT INTO devices (name, kind, user_code, code_hash, created_at, expires_at, `+column+`)
		SELECT 'filler', 'client', $2 || i, decode(md5($2 || i), 'hex'), $3, $4, $5 FROM generate_series(1, $1) i`,
		n, fmt.Sprint(column, expires, value), r.now, expires, value)
	if err != nil {
		t.Fatal(err)
	}
}

func TestStart_PendingEnrollmentsAreCapped(t *testing.T) {
	r := newRules(t)
	user, account := r.user(t, "ada@example.com", "user")
	other, _ := r.user(t, "eve@example.com", "user")
	org := dbtest.Organisation(t, r.db, "Acme")
	dbtest.Member(t, r.db, org, account.ID, "owner")
	soon := r.now.Add(90 * time.Second)
	limited := func(name string, ctx context.Context, start enroll.Start) {
		t.Helper()
		_, err := r.Start(ctx, start)
		if e := wantCode(t, err, types.CodeRateLimited); e.RetryAfter != 90*time.Second {
			t.Errorf("%s: retry after %v", name, e.RetryAfter)
		}
	}

	r.fill(t, 20_000, r.now, "region", "") // They have expired.
	r.start(t, t.Context(), enroll.Start{})
	r.fill(t, 500, soon, "owner_id", account.ID)
	limited("a user", user, client(nil))
	r.fill(t, 500, soon, "organisation_id", org)
	limited("an organisation", user, client(&org))
	r.start(t, other, enroll.Start{})

	here := r.from(t, "[2001:db8:1:203::7]:1")
	r.fill(t, 20, soon, "started_from", "2001:db8:2:203::/64")
	r.start(t, here, enroll.Start{})
	limited("a source", r.from(t, "[2001:db8:2:203::9]:1"), client(nil))
	r.fill(t, 39, soon, "started_from", "2001:db8:1:2ff::/64")
	limited("a /56", here, client(nil))
	r.fill(t, 80, soon, "started_from", "2001:db8:3:1::/64")
	limited("a /48", r.from(t, "[2001:db8:3:ff00::1]:1"), client(nil))
	r.start(t, r.from(t, "[2001:db8:4::1]:1"), enroll.Start{})

	r.fill(t, 5000, soon, "region", "")
	limited("without an owner", r.from(t, "192.0.2.9:1"), client(nil))
	r.start(t, other, enroll.Start{})
	r.fill(t, 5000, soon, "region", "x")
	limited("all", other, client(nil))
	r.now = soon
	r.start(t, r.from(t, "192.0.2.9:1"), enroll.Start{})
	r.start(t, user, enroll.Start{})
}

func TestStart_ReplicasDoNotExceedTheCapTogether(t *testing.T) {
	r := newRules(t)
	now := r.now
	user, account := r.user(t, "ada@example.com", "user")
	r.fill(t, 495, now.Add(time.Minute), "owner_id", account.ID)
	results := make(chan error, 20)
	for range 20 {
		replica := &rules{db: r.db, now: now}
		enroller, err := enroll.New(enroll.Options{Store: r.db, Tokens: tokens{}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		replica.Enroller = enroller
		go func() {
			_, err := replica.Start(user, client(nil))
			results <- err
		}()
	}
	started := 0
	for range 20 {
		if err := <-results; err == nil {
			started++
		} else if problem.From(err).Code != types.CodeRateLimited {
			t.Error(err)
		}
	}
	if started != 5 {
		t.Errorf("%d enrollments started, want 5", started)
	}
}

// Whatever a source over its limit tries again is refused after the database has gone.
func TestEnroll_ASourceOverItsLimitCostsNoStatement(t *testing.T) {
	for name, test := range map[string]struct {
		attempts int
		try      func(r *rules, ctx context.Context, i int) error
		code     types.ErrorCode
	}{
		"start": {20, func(r *rules, ctx context.Context, _ int) error {
			_, err := r.Start(ctx, client(nil))
			return err
		}, types.CodeRateLimited},
		"polls of unknown codes": {60, func(r *rules, ctx context.Context, i int) error {
			_, err := r.Poll(ctx, fmt.Sprint("code ", i))
			return err
		}, types.CodeSlowDown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRules(t)
			ctx := r.from(t, "192.0.2.1:1")
			for i := range test.attempts + 1 {
				_ = test.try(r, ctx, i)
			}
			if err := r.db.Close(); err != nil {
				t.Fatal(err)
			}
			wantCode(t, test.try(r, ctx, 1000), test.code)
		})
	}
}

func TestPoll_TooSoonCostsOneStatementOnly(t *testing.T) {
	r := newRules(t)
	started := r.start(t, t.Context(), enroll.Start{})
	if _, err := r.Poll(t.Context(), started.DeviceCode); err != nil {
		t.Fatal(err)
	}
	_, err := r.Poll(t.Context(), started.DeviceCode)
	first := wantCode(t, err, types.CodeSlowDown)
	if err := r.db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = r.Poll(t.Context(), started.DeviceCode)
	if second := wantCode(t, err, types.CodeSlowDown); second.RetryAfter != first.RetryAfter {
		t.Errorf("%v and then %v", first.RetryAfter, second.RetryAfter)
	}
}
