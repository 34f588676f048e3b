package enroll_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

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

func TestPoll_RejectsPollsWithinTheInterval(t *testing.T) {
	r := newRules(t)
	code := r.start(t, t.Context(), enroll.Start{}).DeviceCode
	poll := func() error {
		_, err := r.Poll(t.Context(), code)
		return err
	}
	if err := poll(); err != nil {
		t.Errorf("the first poll: %v", err)
	}
	r.now = r.now.Add(2 * time.Second)
	if wait := wantCode(t, poll(), types.CodeSlowDown).RetryAfter; wait != 3*time.Second {
		t.Errorf("told to wait %v, want 3s", wait)
	}
	r.now = r.now.Add(3 * time.Second)
	if err := poll(); err != nil {
		t.Errorf("after the interval, rejected polls not counted: %v", err)
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

func TestPoll_TellsExpiredFromDeniedFromUnknown(t *testing.T) {
	r := newRules(t)
	r.now = time.Now() // The database's clock decides whether what is deleted had expired.
	everything := db.Scope{All: true}
	swept, denied, pending := r.start(t, t.Context(), enroll.Start{}), r.start(t, t.Context(), enroll.Start{}), r.start(t, t.Context(), enroll.Start{})
	if err := r.db.DeleteDevice(t.Context(), everything, denied.Device.ID); err != nil {
		t.Fatal(err)
	}
	poll := func(code string, want types.ErrorCode) {
		t.Helper()
		_, err := r.Poll(t.Context(), code)
		wantCode(t, err, want)
	}
	poll(denied.DeviceCode, types.CodeEnrollmentDenied)
	empty := newRules(t) // As before a restore.
	empty.now = r.now
	_, err := empty.Poll(t.Context(), pending.DeviceCode)
	wantCode(t, err, types.CodeNotFound)

	r.now = r.now.Add(time.Hour)
	if _, _, err := r.db.Maintain(t.Context(), db.Maintenance{EnrollmentsBefore: r.now}); err != nil {
		t.Fatal(err)
	}
	poll(swept.DeviceCode, types.CodeEnrollmentExpired)
	poll(denied.DeviceCode, types.CodeEnrollmentDenied)
	r.now = r.now.AddDate(1, 0, 0)
	poll(swept.DeviceCode, types.CodeEnrollmentExpired)
}

func TestPoll_AcceptsDeviceCodesOnly(t *testing.T) {
	r := newRules(t)
	started := r.start(t, t.Context(), enroll.Start{})
	for _, code := range []string{"nonsense", started.Device.UserCode, started.Device.ID.String(), started.DeviceCode + "A"} {
		_, err := r.Poll(t.Context(), code)
		wantCode(t, err, types.CodeNotFound)
	}
}
