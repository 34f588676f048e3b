package enroll_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// tokens issues tokens that tests can read.
type tokens struct{}

func (tokens) DeviceToken(id uuid.UUID, kind string, version int64) (string, error) {
	return fmt.Sprintf("%s %s %d", id, kind, version), nil
}

// rules is an Enroller with a clock that only advances when told to.
type rules struct {
	*enroll.Enroller
	db  *db.DB
	now time.Time
}

func newRules(t *testing.T, change ...func(*enroll.Options)) *rules {
	t.Helper()
	r := &rules{db: dbtest.New(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	options := enroll.Options{Store: r.db, Tokens: tokens{}, Now: func() time.Time { return r.now }}
	for _, apply := range change {
		apply(&options)
	}
	enroller, err := enroll.New(options)
	if err != nil {
		t.Fatal(err)
	}
	r.Enroller = enroller
	return r
}

// user returns a context in which a new user of a role is the caller.
func (r *rules) user(t *testing.T, email, role string) (context.Context, db.User) {
	t.Helper()
	user, err := r.db.CreateUser(t.Context(), email, "", role)
	if err != nil {
		t.Fatal(err)
	}
	return auth.NewContext(t.Context(), auth.Principal{User: &user, Session: &db.Session{}}), user
}

func (r *rules) start(t *testing.T, ctx context.Context, start enroll.Start) enroll.Started {
	t.Helper()
	if start.Name == "" {
		start.Name = "home"
	}
	if start.Kind == "" {
		start.Kind = types.DeviceKindClient
	}
	started, err := r.Start(ctx, start)
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func (r *rules) approve(t *testing.T, ctx context.Context, userCode string) db.Device {
	t.Helper()
	device, err := r.Approve(ctx, enroll.Approval{UserCode: userCode})
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// wantCode checks the contract's error code of err.
func wantCode(t *testing.T, err error, want types.ErrorCode) problem.Error {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %s", want)
		return problem.Error{}
	}
	got := problem.From(err)
	if got.Code != want {
		t.Errorf("%v, want %s", err, want)
	}
	return *got
}

func client(organisation *int64) enroll.Start {
	return enroll.Start{Name: "home", Kind: types.DeviceKindClient, OrganisationID: organisation}
}

var tunnelServer = enroll.Start{Name: "edge", Kind: types.DeviceKindServer}

func TestStart_GeneratesUnguessableCodes(t *testing.T) {
	r := newRules(t)
	started := r.start(t, t.Context(), enroll.Start{Name: "  gaming-rig "})
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(started.DeviceCode) {
		t.Errorf("device code %q is not 256 bits in base64url", started.DeviceCode)
	}
	if !regexp.MustCompile(`^[CDFGHJKMNPQRTVWX]{4}-[2-9]{4}$`).MatchString(started.Device.UserCode) {
		t.Errorf("user code %q", started.Device.UserCode)
	}
	if want := r.now.Add(10 * time.Minute); !started.Device.ExpiresAt.Equal(want) {
		t.Errorf("expires %v, want %v", started.Device.ExpiresAt, want)
	}
	if started.Device.Name != "gaming-rig" {
		t.Errorf("name is %q", started.Device.Name)
	}
	if other := r.start(t, t.Context(), enroll.Start{}); other.DeviceCode == started.DeviceCode || other.Device.UserCode == started.Device.UserCode {
		t.Error("the codes repeat")
	}
}

func TestStart_BelongsToTheCaller(t *testing.T) {
	r := newRules(t)
	ctx, user := r.user(t, "ada@example.com", "user")
	if owner := r.start(t, ctx, enroll.Start{}).Device.OwnerID; owner == nil || *owner != user.ID {
		t.Errorf("owner is %v", owner)
	}
	if owner := r.start(t, t.Context(), enroll.Start{}).Device.OwnerID; owner != nil {
		t.Errorf("an anonymous start belongs to %d", *owner)
	}
}

func TestStart_OrganisationNeedsItsOwnerOrAdmin(t *testing.T) {
	r := newRules(t)
	organisation, empty, absent := dbtest.Organisation(t, r.db, "guild"), dbtest.Organisation(t, r.db, "other"), int64(999)
	for _, role := range []string{"owner", "admin", "member"} {
		ctx, user := r.user(t, role+"@example.com", "user")
		dbtest.Member(t, r.db, organisation, user.ID, role)
		if role == "member" {
			_, err := r.Start(ctx, client(&organisation))
			wantCode(t, err, types.CodeForbidden)
		} else if device := r.start(t, ctx, client(&organisation)).Device; device.OrganisationID == nil || *device.OrganisationID != organisation || device.OwnerID != nil {
			t.Errorf("%s: the device belongs to %v and %v", role, device.OwnerID, device.OrganisationID)
		}
		_, err := r.Start(ctx, client(&empty))
		wantCode(t, err, types.CodeNotFound)
		_, err = r.Start(ctx, client(&absent))
		wantCode(t, err, types.CodeNotFound)
	}
	admin, _ := r.user(t, "root@example.com", "admin")
	r.start(t, admin, client(&empty))
	_, err := r.Start(admin, client(&absent))
	wantCode(t, err, types.CodeNotFound)
	_, err = r.Start(t.Context(), client(&organisation))
	wantCode(t, err, types.CodeUnauthorized)
}

func TestStart_TunnelServerNeedsAnAdmin(t *testing.T) {
	r := newRules(t)
	user, _ := r.user(t, "ada@example.com", "user")
	admin, _ := r.user(t, "root@example.com", "admin")
	_, err := r.Start(t.Context(), tunnelServer)
	wantCode(t, err, types.CodeUnauthorized)
	_, err = r.Start(user, tunnelServer)
	wantCode(t, err, types.CodeForbidden)
	if kind := r.start(t, admin, tunnelServer).Device.Kind; kind != db.KindServer {
		t.Errorf("kind is %s", kind)
	}
}

func TestStart_TunnelServerGetsTheRequestedSettings(t *testing.T) {
	r := newRules(t, func(o *enroll.Options) { o.PublicHost = "panel.example.com" })
	admin, _ := r.user(t, "root@example.com", "admin")
	asked := enroll.ServerSettings{PublicHost: "fra1.example.com", PortFirst: 30000, PortLast: 30009, Region: "eu"}
	start := enroll.Start{Kind: types.DeviceKindServer, Server: &asked}
	device := r.approve(t, admin, r.start(t, admin, start).Device.UserCode)
	if got := (enroll.ServerSettings{PublicHost: device.PublicHost, PortFirst: device.PortFirst, PortLast: device.PortLast, Region: device.Region}); got != asked {
		t.Errorf("approved with %+v", got)
	}
	start.Name, start.Kind = "home", types.DeviceKindClient
	_, err := r.Start(admin, start)
	wantCode(t, err, types.CodeInvalidRequest)
}

func TestStart_OperatorCanForbidAnonymous(t *testing.T) {
	r := newRules(t)
	user, _ := r.user(t, "ada@example.com", "user")
	forbidden := false
	if _, err := r.db.UpdateSettings(t.Context(), db.SettingsPatch{AnonymousEnrollment: &forbidden}); err != nil {
		t.Fatal(err)
	}
	_, err := r.Start(t.Context(), client(nil))
	wantCode(t, err, types.CodeUnauthorized)
	r.start(t, user, enroll.Start{})
}

func TestStart_LimitsAnonymousStarts(t *testing.T) {
	r := newRules(t)
	for range 20 {
		r.start(t, t.Context(), enroll.Start{})
	}
	_, err := r.Start(t.Context(), client(nil))
	limited := wantCode(t, err, types.CodeRateLimited)
	user, _ := r.user(t, "ada@example.com", "user")
	r.start(t, user, enroll.Start{})
	r.now = r.now.Add(limited.RetryAfter)
	r.start(t, t.Context(), enroll.Start{})
}

func TestStart_RetriesWhenTheUserCodeIsPending(t *testing.T) {
	secret, first, second := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{0}, 8), bytes.Repeat([]byte{1}, 8)
	other := bytes.Repeat([]byte{2}, 32)
	random := bytes.Join([][]byte{secret, first, other, first, first, second}, nil)
	r := newRules(t, func(o *enroll.Options) { o.Random = bytes.NewReader(random) })
	if code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode; code != "CCCC-2222" {
		t.Errorf("first code is %s", code)
	}
	if code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode; code != "DDDD-3333" {
		t.Errorf("second code is %s", code)
	}
}

// zeros always generates the same codes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestStart_IsAnInternalErrorWhenNoUserCodeIsFree(t *testing.T) {
	// The device codes differ, the user codes never do.
	r := newRules(t, func(o *enroll.Options) {
		o.Random = io.MultiReader(io.LimitReader(rand.Reader, 32), io.LimitReader(zeros{}, 8), io.LimitReader(rand.Reader, 32), zeros{})
	})
	r.start(t, t.Context(), enroll.Start{})
	_, err := r.Start(t.Context(), client(nil))
	wantCode(t, err, types.CodeInternalError)
}

func TestNew_ChecksItsOptions(t *testing.T) {
	store := dbtest.New(t)
	for name, options := range map[string]enroll.Options{
		"nothing":           {},
		"no tokens":         {Store: store},
		"range upside down": {Store: store, Tokens: tokens{}, PortFirst: 2, PortLast: 1},
		"range too high":    {Store: store, Tokens: tokens{}, PortFirst: 2, PortLast: 65536},
		"half a range":      {Store: store, Tokens: tokens{}, PortFirst: 2},
	} {
		if _, err := enroll.New(options); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
