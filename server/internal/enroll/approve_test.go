package enroll_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

func TestApprove_AcceptsUserCodesAsTyped(t *testing.T) {
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

func TestApprove_ReportsWhyItFails(t *testing.T) {
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

func TestApprove_RejectsAnUnknownOwner(t *testing.T) {
	r := newRules(t)
	adminCtx, admin := r.user(t, "root@example.com", "admin")
	organisation, absent := dbtest.Organisation(t, r.db, "guild"), int64(999)
	code := r.start(t, t.Context(), enroll.Start{}).Device.UserCode
	for field, approval := range map[string]enroll.Approval{
		"ownerId":                {UserCode: code, OwnerID: &absent},
		"organisationId":         {UserCode: code, OrganisationID: &absent},
		"ownerId,organisationId": {UserCode: code, OwnerID: &admin.ID, OrganisationID: &organisation},
	} {
		// More often than wrong codes are allowed: these do not count as guesses.
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

func TestApprove_RenamesAndConfiguresATunnelServer(t *testing.T) {
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

func TestApprove_OneOfTwoConcurrentCallsSucceeds(t *testing.T) {
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
