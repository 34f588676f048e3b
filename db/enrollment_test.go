package db_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestCreateDevice_UserCodeIsUniqueWhilePending(t *testing.T) {
	d := dbtest.New(t)
	device := db.NewDevice{
		Name: "rig", Kind: db.KindClient, UserCode: "CDFG-2345", CodeHash: []byte("one"),
		CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
	}
	first, err := d.CreateDevice(t.Context(), device)
	check(t, err)
	device.CodeHash = []byte("two")
	_, err = d.CreateDevice(t.Context(), device)
	wantErr(t, err, db.ErrConflict)

	// Once approved, its code is free again, and the pending device is found before it.
	_, err = d.ApproveDevice(t.Context(), first.ID, db.Approval{At: noon})
	check(t, err)
	found, err := d.EnrollmentByUserCode(t.Context(), "CDFG-2345", 0)
	check(t, err)
	if found.ID != first.ID {
		t.Errorf("found %v, want the approved device", found.ID)
	}
	device.CreatedAt = noon.Add(-time.Hour)
	second, err := d.CreateDevice(t.Context(), device)
	check(t, err)
	found, err = d.EnrollmentByUserCode(t.Context(), "CDFG-2345", 0)
	check(t, err)
	if found.ID != second.ID {
		t.Errorf("found %v, want the pending device", found.ID)
	}
	_, err = d.EnrollmentByUserCode(t.Context(), "", 0)
	wantErr(t, err, db.ErrNotFound)
}

func TestDeviceByCodeHash(t *testing.T) {
	d := dbtest.New(t)
	created, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "rig", Kind: db.KindClient, UserCode: "X", CodeHash: []byte{0, 1, 255},
		CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
	})
	check(t, err)
	found, err := d.DeviceByCodeHash(t.Context(), []byte{0, 1, 255})
	check(t, err)
	if found.ID != created.ID || !found.ExpiresAt.Equal(noon.Add(time.Minute)) || found.ApprovedAt != nil ||
		found.Online || found.LastSeenAt != nil || found.TokenVersion != 0 {
		t.Errorf("got %+v", found)
	}
	_, err = d.DeviceByCodeHash(t.Context(), []byte("other"))
	wantErr(t, err, db.ErrNotFound)
}

func TestApproveDevice_OnlyPendingAndInTime(t *testing.T) {
	d := dbtest.New(t)
	device := startEnrollment(t, d, db.KindClient)
	_, err := d.ApproveDevice(t.Context(), device.ID, db.Approval{At: device.ExpiresAt})
	wantErr(t, err, db.ErrConflict)
	approved, err := d.ApproveDevice(t.Context(), device.ID, db.Approval{At: noon})
	check(t, err)
	if approved.ApprovedAt == nil || !approved.ApprovedAt.Equal(noon) {
		t.Errorf("approved at %v", approved.ApprovedAt)
	}
	_, err = d.ApproveDevice(t.Context(), device.ID, db.Approval{At: noon})
	wantErr(t, err, db.ErrConflict)
	_, err = d.ApproveDevice(t.Context(), uuid.New(), db.Approval{At: noon})
	wantErr(t, err, db.ErrNotFound)
}

func TestApproveDevice_SetsTheNewOwner(t *testing.T) {
	d := dbtest.New(t)
	ann, bob := createUser(t, d, "ann@example.com"), createUser(t, d, "bob@example.com")
	org := dbtest.Organisation(t, d, "guild")
	for _, tc := range []struct {
		name               string
		approval           db.Approval
		wantOwner, wantOrg *int64
		wantName           string
	}{
		{"no owner given", db.Approval{}, &ann, nil, "rig"},
		{"another user", db.Approval{OwnerID: &bob}, &bob, nil, "rig"},
		{"an organisation", db.Approval{OrganisationID: &org, Name: ptr("new name")}, nil, &org, "new name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			device, err := d.CreateDevice(t.Context(), db.NewDevice{
				Name: "rig", Kind: db.KindClient, OwnerID: &ann, UserCode: tc.name, CodeHash: []byte(tc.name),
				CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
			})
			check(t, err)
			tc.approval.At = noon
			device, err = d.ApproveDevice(t.Context(), device.ID, tc.approval)
			check(t, err)
			if !equal(device.OwnerID, tc.wantOwner) || !equal(device.OrganisationID, tc.wantOrg) || device.Name != tc.wantName {
				t.Errorf("got %+v", device)
			}
		})
	}
	device := startEnrollment(t, d, db.KindClient)
	_, err := d.ApproveDevice(t.Context(), device.ID, db.Approval{At: noon, OwnerID: ptr(bob + 100)})
	wantErr(t, err, db.ErrNotFound)
}

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func TestApproveDevice_KeepsATunnelServersSettings(t *testing.T) {
	d := dbtest.New(t)
	pending, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, UserCode: "CODE", CodeHash: []byte("hash"), CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
		PublicHost: "fra1.example.com", Region: "eu",
	})
	check(t, err)
	device, err := d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon, PublicHost: "panel", PortFirst: 1, PortLast: 2})
	check(t, err)
	if device.PublicHost != "fra1.example.com" || device.Region != "eu" || device.PortFirst != 1 || device.PortLast != 2 {
		t.Errorf("approved as %+v", device)
	}
}

func TestApproveDevice_OneOfManyConcurrentCallsSucceeds(t *testing.T) {
	d := dbtest.New(t)
	device := startEnrollment(t, d, db.KindClient)
	var admins sync.WaitGroup
	var approved atomic.Int32
	for range 8 {
		admins.Go(func() {
			if _, err := d.ApproveDevice(t.Context(), device.ID, db.Approval{At: noon}); err == nil {
				approved.Add(1)
			}
		})
	}
	admins.Wait()
	if approved.Load() != 1 {
		t.Errorf("approved %d times", approved.Load())
	}
}

func TestNextEnrollmentToken_UntilFirstConnection(t *testing.T) {
	d := dbtest.New(t)
	pending := startEnrollment(t, d, db.KindClient)
	_, err := d.NextEnrollmentToken(t.Context(), pending.ID)
	wantErr(t, err, db.ErrConflict)
	_, err = d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon})
	check(t, err)

	for want := int64(1); want <= 3; want++ {
		version, err := d.NextEnrollmentToken(t.Context(), pending.ID)
		check(t, err)
		if version != want {
			t.Fatalf("version %d, want %d", version, want)
		}
	}
	replica := startReplica(t, d)
	_, err = d.Connect(t.Context(), pending.ID, db.Hello{TokenVersion: 2, ReplicaID: replica})
	wantErr(t, err, db.ErrConflict)
	_, err = d.Connect(t.Context(), pending.ID, db.Hello{TokenVersion: 3, ReplicaID: replica})
	check(t, err)
	_, err = d.NextEnrollmentToken(t.Context(), pending.ID)
	wantErr(t, err, db.ErrConflict)
	_, err = d.NextEnrollmentToken(t.Context(), uuid.New())
	wantErr(t, err, db.ErrNotFound)
}

func TestRecordPoll_KeepsPollsApart(t *testing.T) {
	d := dbtest.New(t)
	id := startEnrollment(t, d, db.KindClient).ID
	const interval = 5 * time.Second
	for _, step := range []struct {
		after, want time.Duration
	}{
		{0, 0},
		{2 * time.Second, 3 * time.Second},
		{4 * time.Second, time.Second}, // the refused poll was not recorded
		{5 * time.Second, 0},
		{9 * time.Second, time.Second},
	} {
		// Nanoseconds, which the database does not store, must not matter.
		wait, err := d.RecordPoll(t.Context(), id, noon.Add(999).Add(step.after), interval)
		check(t, err)
		if wait != step.want {
			t.Errorf("after %v: told to wait %v, want %v", step.after, wait, step.want)
		}
	}
	_, err := d.RecordPoll(t.Context(), uuid.New(), noon, interval)
	wantErr(t, err, db.ErrNotFound)
}

func TestRecordPoll_OneOfManyConcurrentPollsIsAllowed(t *testing.T) {
	d := dbtest.New(t)
	id := startEnrollment(t, d, db.KindClient).ID
	var polls sync.WaitGroup
	var allowed atomic.Int32
	for range 10 {
		polls.Go(func() {
			wait, err := d.RecordPoll(t.Context(), id, noon, time.Second)
			if err != nil {
				t.Error(err)
			}
			if wait == 0 {
				allowed.Add(1)
			}
		})
	}
	polls.Wait()
	if allowed.Load() != 1 {
		t.Errorf("%d polls were allowed at once", allowed.Load())
	}
}

func TestMaintain_KeepsApprovedDevices(t *testing.T) {
	d := dbtest.New(t)
	expired, approved := startEnrollment(t, d, db.KindClient), enroll(t, d, db.KindClient, nil)
	if done := maintain(t, d, db.Maintenance{EnrollmentsBefore: expired.ExpiresAt}); done.Enrollments != 0 {
		t.Errorf("deleted %d that had not expired before", done.Enrollments)
	}
	done := maintain(t, d, db.Maintenance{EnrollmentsBefore: expired.ExpiresAt.Add(time.Hour)})
	if done.Enrollments != 1 {
		t.Errorf("deleted %d, want 1", done.Enrollments)
	}
	readDevice(t, d, approved.ID)
	_, err := d.Device(t.Context(), everything, expired.ID)
	wantErr(t, err, db.ErrNotFound)
}

// A replaced token concerns the tunnel servers that have received the client's token version: they
// reject tickets of any other version.
func TestNextEnrollmentToken_NotifiesTunnelServers(t *testing.T) {
	d := dbtest.New(t)
	server := enroll(t, d, db.KindServer, nil)
	client := startEnrollment(t, d, db.KindClient)
	_, err := d.ApproveDevice(t.Context(), client.ID, db.Approval{At: noon})
	check(t, err)
	allocate(t, d, client.ID, server.ID)
	events := listen(t, d)
	version, err := d.NextEnrollmentToken(t.Context(), client.ID)
	check(t, err)
	device := readDevice(t, d, client.ID)
	connect(t, d, device, startReplica(t, d))
	for {
		e := await.Receive(t, events, "event of the tunnel server")
		if e.DeviceID == server.ID {
			state, err := d.ServerState(t.Context(), server.ID)
			check(t, err)
			if len(state.Clients) != 1 || state.Clients[0].TokenVersion != version {
				t.Errorf("%+v", state.Clients)
			}
			return
		}
	}
}
