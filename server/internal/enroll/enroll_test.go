package enroll_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
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

// rules is an Enroller with a clock that stands still until it is moved.
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

// wantCode checks that err is answered with a code of the contract.
func wantCode(t *testing.T, err error, want types.ErrorCode) *problem.Error {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %s", want)
		return &problem.Error{}
	}
	got := problem.From(err)
	if got.Code != want {
		t.Errorf("%v, want %s", err, want)
	}
	return got
}

func client(organisation *int64) enroll.Start {
	return enroll.Start{Name: "home", Kind: types.DeviceKindClient, OrganisationID: organisation}
}

var tunnelServer = enroll.Start{Name: "edge", Kind: types.DeviceKindServer}

func TestStart_MakesUnguessableCodesInTheirOwnForms(t *testing.T) {
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

func TestStart_DrawsAgainWhenAUserCodeIsPending(t *testing.T) {
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

// zeros never runs out of the same codes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestStart_BlamesItselfWhenNoUserCodeIsLeft(t *testing.T) {
	// The device codes differ, the user codes never do.
	r := newRules(t, func(o *enroll.Options) {
		o.Random = io.MultiReader(io.LimitReader(rand.Reader, 32), io.LimitReader(zeros{}, 8), io.LimitReader(rand.Reader, 32), zeros{})
	})
	r.start(t, t.Context(), enroll.Start{})
	_, err := r.Start(t.Context(), client(nil))
	wantCode(t, err, types.CodeInternalError)
}

func TestPoll_PendingThenApprovedThenConnected(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	started := r.start(t, t.Context(), enroll.Start{})
	poll := func() enroll.Status {
		t.Helper()
		r.now = r.now.Add(enroll.Interval)
		status, err := r.Poll(t.Context(), started.DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	if status := poll(); status.Approved || status.Token != "" {
		t.Errorf("pending: %+v", status)
	}
	device := r.approve(t, admin, started.Device.UserCode)
	first, second := poll(), poll()
	if !first.Approved || !second.Approved || first.Token == "" || second.Token == "" || first.Token == second.Token {
		t.Errorf("approved: %+v, then %+v", first, second)
	}
	current, err := r.db.Device(t.Context(), db.Scope{All: true}, device.ID)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s client %d", device.ID, current.TokenVersion); second.Token != want {
		t.Errorf("the last token is %q, want %q", second.Token, want)
	}
	replica := uuid.New()
	if err := r.db.RenewLease(t.Context(), replica, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := r.db.Connect(t.Context(), device.ID, db.Hello{TokenVersion: current.TokenVersion, ReplicaID: replica}); err != nil {
		t.Fatal(err)
	}
	if status := poll(); !status.Approved || status.Token != "" {
		t.Errorf("connected: %+v", status)
	}
}

func TestPoll_SlowsDownWhoPollsTooFast(t *testing.T) {
	r := newRules(t)
	code := r.start(t, t.Context(), enroll.Start{}).DeviceCode
	poll := func() error {
		_, err := r.Poll(t.Context(), code)
		return err
	}
	if err := poll(); err != nil {
		t.Errorf("the first poll may come at once: %v", err)
	}
	r.now = r.now.Add(2 * time.Second)
	if wait := wantCode(t, poll(), types.CodeSlowDown).RetryAfter; wait != 3*time.Second {
		t.Errorf("told to wait %v, want 3s", wait)
	}
	r.now = r.now.Add(3 * time.Second)
	if err := poll(); err != nil {
		t.Errorf("after the interval, refused polls not counted: %v", err)
	}
}

func TestPoll_ExpiresPendingOnly(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	approved, pending := r.start(t, t.Context(), enroll.Start{}), r.start(t, t.Context(), enroll.Start{})
	r.approve(t, admin, approved.Device.UserCode)
	r.now = r.now.Add(10*time.Minute - time.Second)
	if _, err := r.Poll(t.Context(), pending.DeviceCode); err != nil {
		t.Errorf("a second before: %v", err)
	}
	r.now = r.now.Add(time.Second)
	_, err := r.Poll(t.Context(), pending.DeviceCode)
	wantCode(t, err, types.CodeEnrollmentExpired)
	r.now = r.now.Add(365 * 24 * time.Hour)
	if status, err := r.Poll(t.Context(), approved.DeviceCode); err != nil || status.Token == "" {
		t.Errorf("approved, a year later: %+v, %v", status, err)
	}
}

func TestPoll_KnowsDeviceCodesOnly(t *testing.T) {
	r := newRules(t)
	started := r.start(t, t.Context(), enroll.Start{})
	for _, code := range []string{"nonsense", started.Device.UserCode, started.Device.ID.String(), started.DeviceCode + "A"} {
		_, err := r.Poll(t.Context(), code)
		wantCode(t, err, types.CodeNotFound)
	}
}

func TestApprove_TakesAUserCodeAsPeopleTypeIt(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	for _, typed := range []func(string) string{
		strings.ToLower,
		func(code string) string { return strings.ReplaceAll(code, "-", "") },
		func(code string) string { return " " + strings.ReplaceAll(code, "-", " – ") + "\t" },
		func(code string) string { return strings.Join(strings.Split(code, ""), "-") },
	} {
		code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode
		if _, err := r.Approve(admin, enroll.Approval{UserCode: typed(code)}); err != nil {
			t.Errorf("%q: %v", typed(code), err)
		}
	}
}

func TestApprove_NeedsAnAdmin(t *testing.T) {
	r := newRules(t)
	user, _ := r.user(t, "ada@example.com", "user")
	code := r.start(t, user, enroll.Start{}).Device.UserCode
	_, err := r.Approve(user, enroll.Approval{UserCode: code})
	wantCode(t, err, types.CodeForbidden)
}

func TestApprove_SaysWhyNot(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	started, late := r.start(t, t.Context(), enroll.Start{}), r.start(t, t.Context(), enroll.Start{})
	for _, code := range []string{"ABCD-1234", "", "x", "CDFÄ-234", "CDFG-234\xff", started.DeviceCode} {
		_, err := r.Approve(admin, enroll.Approval{UserCode: code})
		wantCode(t, err, types.CodeNotFound)
	}
	r.approve(t, admin, started.Device.UserCode)
	_, err := r.Approve(admin, enroll.Approval{UserCode: started.Device.UserCode})
	wantCode(t, err, types.CodeAlreadyApproved)
	r.now = r.now.Add(enroll.Lifetime)
	_, err = r.Approve(admin, enroll.Approval{UserCode: late.Device.UserCode})
	wantCode(t, err, types.CodeEnrollmentExpired)
}

func TestApprove_DecidesTheOwner(t *testing.T) {
	r := newRules(t)
	adminCtx, admin := r.user(t, "root@example.com", "admin")
	adaCtx, ada := r.user(t, "ada@example.com", "user")
	organisation := dbtest.Organisation(t, r.db, "guild")
	for name, test := range map[string]struct {
		starter             context.Context
		approval            enroll.Approval
		owner, organisation *int64
	}{
		"unowned goes to the admin":       {t.Context(), enroll.Approval{}, &admin.ID, nil},
		"owned stays":                     {adaCtx, enroll.Approval{}, &ada.ID, nil},
		"unowned goes to the owner":       {t.Context(), enroll.Approval{OwnerID: &ada.ID}, &ada.ID, nil},
		"unowned goes to the guild":       {t.Context(), enroll.Approval{OrganisationID: &organisation}, nil, &organisation},
		"owned can be given to another":   {adaCtx, enroll.Approval{OwnerID: &admin.ID}, &admin.ID, nil},
		"owned can be given to the guild": {adaCtx, enroll.Approval{OrganisationID: &organisation}, nil, &organisation},
	} {
		test.approval.UserCode = r.start(t, test.starter, enroll.Start{}).Device.UserCode
		device, err := r.Approve(adminCtx, test.approval)
		if err != nil || !same(device.OwnerID, test.owner) || !same(device.OrganisationID, test.organisation) {
			t.Errorf("%s: %v, %v, %v", name, device.OwnerID, device.OrganisationID, err)
		}
	}
}

func same(a, b *int64) bool {
	return a == b || (a != nil && b != nil && *a == *b)
}

func TestApprove_RefusesAnOwnerThatDoesNotExist(t *testing.T) {
	r := newRules(t)
	adminCtx, admin := r.user(t, "root@example.com", "admin")
	organisation, absent := dbtest.Organisation(t, r.db, "guild"), int64(999)
	code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode
	for field, approval := range map[string]enroll.Approval{
		"ownerId":                {UserCode: code, OwnerID: &absent},
		"organisationId":         {UserCode: code, OrganisationID: &absent},
		"ownerId,organisationId": {UserCode: code, OwnerID: &admin.ID, OrganisationID: &organisation},
	} {
		// More often than codes may be wrong: these are slips, not guesses.
		for range 11 {
			_, err := r.Approve(adminCtx, approval)
			var named []string
			for _, detail := range wantCode(t, err, types.CodeInvalidRequest).Details {
				named = append(named, detail.Field)
			}
			if strings.Join(named, ",") != field {
				t.Fatalf("%s: details name %v", field, named)
			}
		}
	}
	r.approve(t, adminCtx, code)
}

func TestApprove_RenamesAndSetsUpATunnelServer(t *testing.T) {
	r := newRules(t, func(o *enroll.Options) { o.PublicHost = "play.example.com" })
	admin, _ := r.user(t, "root@example.com", "admin")
	name := " edge-1 "
	code := r.start(t, admin, tunnelServer).Device.UserCode
	device, err := r.Approve(admin, enroll.Approval{UserCode: code, Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	if device.Name != "edge-1" || device.PublicHost != "play.example.com" || device.PortFirst != 20000 || device.PortLast != 29999 {
		t.Errorf("approved as %+v", device)
	}
}

func TestApprove_LimitsWrongCodes(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode
	guess := func(n int) {
		t.Helper()
		for range n {
			_, err := r.Approve(admin, enroll.Approval{UserCode: "ABCD-1234"})
			wantCode(t, err, types.CodeNotFound)
		}
	}
	guess(9)
	r.approve(t, admin, code)
	guess(10)
	_, err := r.Approve(admin, enroll.Approval{UserCode: "ABCD-1234"})
	limited := wantCode(t, err, types.CodeRateLimited)
	second, _ := r.user(t, "second@example.com", "admin")
	_, err = r.Approve(second, enroll.Approval{UserCode: "ABCD-1234"})
	wantCode(t, err, types.CodeRateLimited) // the same address
	r.now = r.now.Add(limited.RetryAfter)
	guess(1)
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

func TestApprove_OneOfTwoAtOnceWins(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode
	outcomes := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := r.Approve(admin, enroll.Approval{UserCode: code})
			outcomes <- err
		}()
	}
	first, second := <-outcomes, <-outcomes
	if first != nil {
		first, second = second, first
	}
	if first != nil {
		t.Fatalf("both lost: %v, %v", first, second)
	}
	var lost *problem.Error
	if !errors.As(second, &lost) || lost.Code != types.CodeAlreadyApproved {
		t.Errorf("the other got %v", second)
	}
}
