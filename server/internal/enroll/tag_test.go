package enroll_test

import (
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

var tag = strings.Repeat("tag-", 5) + "_1"

func TestTag_GoesToTheNextEnrollmentFromItsNetwork(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	home, same, elsewhere := r.from(t, "[2001:db8:7:7::1]:1"), r.from(t, "[2001:db8:7:7::2]:1"), r.from(t, "192.0.2.1:1")
	tagged := enroll.Start{Name: "home", Kind: types.DeviceKindClient, Tag: tag}
	finds := func(want enroll.Started) {
		t.Helper()
		found, err := r.PendingByTag(admin, tag)
		if err != nil || found.UserCode != want.Device.UserCode {
			t.Errorf("found %s, %v, want %s", found.UserCode, err, want.Device.UserCode)
		}
	}

	_, err := r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeNotFound)
	first := r.start(t, home, tagged)
	finds(first)
	_, err = r.Start(elsewhere, tagged) // It would take the place of the machine that the page shows.
	wantCode(t, err, types.CodeConflict)
	finds(first)
	second := r.start(t, same, tagged)
	finds(second)
	r.approve(t, admin, first.Device.UserCode) // It goes on without its tag.

	r.approve(t, admin, second.Device.UserCode)
	_, err = r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeAlreadyApproved)
	third := r.start(t, elsewhere, tagged) // The same command, on another machine.
	finds(third)
	r.now = r.now.Add(enroll.Lifetime)
	_, err = r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeEnrollmentExpired)
	fourth := r.start(t, home, tagged)
	finds(fourth)
	if err := r.Deny(admin, fourth.Device.UserCode); err != nil {
		t.Fatal(err)
	}
	_, err = r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeNotFound)
	r.start(t, elsewhere, tagged)
}

func TestTag_LooksAreBoundedForEachAccount(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	other, _ := r.user(t, "second@example.com", "admin")
	for range 300 {
		_, err := r.PendingByTag(admin, tag)
		wantCode(t, err, types.CodeNotFound)
	}
	_, err := r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeRateLimited)
	_, err = r.PendingByTag(other, tag)
	wantCode(t, err, types.CodeNotFound)
	r.now = r.now.Add(time.Minute)
	_, err = r.PendingByTag(admin, tag)
	wantCode(t, err, types.CodeNotFound)
}
