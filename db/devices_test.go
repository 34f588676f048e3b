package db_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// A caller sees a device if and only if it sees the device's allocations.
func TestScope(t *testing.T) {
	d := dbtest.New(t)
	owner, other := createUser(t, d, "owner@example.com"), createUser(t, d, "other@example.com")
	orgOwner, orgAdmin, member := createUser(t, d, "a@example.com"), createUser(t, d, "b@example.com"), createUser(t, d, "c@example.com")
	org := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, org, orgOwner, "owner")
	dbtest.Member(t, d, org, orgAdmin, "admin")
	dbtest.Member(t, d, org, member, "member")

	server := enroll(t, d, db.KindServer, nil)
	owned := enroll(t, d, db.KindClient, &owner)
	pending := startEnrollment(t, d, db.KindClient)
	shared, err := d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon, OrganisationID: &org})
	check(t, err)
	ofOwned, ofShared := allocate(t, d, owned.ID, server.ID), allocate(t, d, shared.ID, server.ID)

	for _, tc := range []struct {
		name                  string
		scope                 db.Scope
		seesOwned, seesShared bool
	}{
		{"admin", everything, true, true},
		{"owner", db.Scope{UserID: owner}, true, false},
		{"organisation's owner", db.Scope{UserID: orgOwner}, false, true},
		{"organisation's admin", db.Scope{UserID: orgAdmin}, false, true},
		{"organisation's member", db.Scope{UserID: member}, false, true},
		{"another user", db.Scope{UserID: other}, false, false},
		{"the organisation", db.Scope{OrganisationID: org}, false, true},
		{"another organisation", db.Scope{OrganisationID: org + 1}, false, false},
		{"the device", db.Scope{DeviceID: owned.ID}, true, false},
		{"no caller", db.Scope{}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			devices, err := d.Devices(t.Context(), tc.scope, db.Page[db.DevicePosition]{})
			check(t, err)
			allocations, err := d.Allocations(t.Context(), tc.scope, db.Page[int64]{})
			check(t, err)
			for _, row := range []struct {
				device     db.Device
				allocation db.Allocation
				sees       bool
			}{{owned, ofOwned, tc.seesOwned}, {shared, ofShared, tc.seesShared}} {
				_, deviceErr := d.Device(t.Context(), tc.scope, row.device.ID)
				_, allocationErr := d.Allocation(t.Context(), tc.scope, row.allocation.ID)
				listed := slices.ContainsFunc(devices, func(x db.Device) bool { return x.ID == row.device.ID })
				listedAllocation := slices.ContainsFunc(allocations, func(x db.Allocation) bool { return x.ID == row.allocation.ID })
				if listed != row.sees || listedAllocation != row.sees {
					t.Errorf("device listed %v, allocation listed %v, want %v", listed, listedAllocation, row.sees)
				}
				if row.sees {
					check(t, deviceErr)
					check(t, allocationErr)
					continue
				}
				wantErr(t, deviceErr, db.ErrNotFound)
				wantErr(t, allocationErr, db.ErrNotFound)
				cannotChange(t, d, tc.scope, row.device.ID, row.allocation.ID)
			}
		})
	}
}

func cannotChange(t *testing.T, d *db.DB, scope db.Scope, device uuid.UUID, allocation int64) {
	t.Helper()
	_, err := d.UpdateDevice(t.Context(), scope, device, db.DevicePatch{Name: ptr("stolen")})
	wantErr(t, err, db.ErrNotFound)
	_, err = d.RegenerateToken(t.Context(), scope, device)
	wantErr(t, err, db.ErrNotFound)
	wantErr(t, d.DeleteDevice(t.Context(), scope, device), db.ErrNotFound)
	_, err = d.UpdateAllocation(t.Context(), scope, allocation, db.AllocationPatch{Name: ptr("stolen")})
	wantErr(t, err, db.ErrNotFound)
	wantErr(t, d.DeleteAllocation(t.Context(), scope, allocation), db.ErrNotFound)
}

func TestDevices_PagesNewestFirst(t *testing.T) {
	d := dbtest.New(t)
	var newestFirst []uuid.UUID
	for i := range 5 {
		device, err := d.CreateDevice(t.Context(), db.NewDevice{
			Name: "rig", Kind: db.KindClient, UserCode: string(rune('A' + i)), CodeHash: []byte{byte(i)},
			CreatedAt: noon.Add(time.Duration(i/2) * time.Second), ExpiresAt: noon.Add(time.Hour),
		})
		check(t, err)
		newestFirst = append(newestFirst, device.ID)
	}
	all, err := d.Devices(t.Context(), everything, db.Page[db.DevicePosition]{})
	check(t, err)
	if len(all) != 5 || all[0].ID != newestFirst[4] {
		t.Fatalf("got %d devices, first %v", len(all), all[0].ID)
	}
	var paged []uuid.UUID
	page := db.Page[db.DevicePosition]{Limit: 2}
	for {
		devices, err := d.Devices(t.Context(), everything, page)
		check(t, err)
		if len(devices) == 0 {
			break
		}
		for _, device := range devices {
			paged = append(paged, device.ID)
		}
		last := devices[len(devices)-1]
		page.After = &db.DevicePosition{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	if !slices.EqualFunc(all, paged, func(a db.Device, b uuid.UUID) bool { return a.ID == b }) {
		t.Errorf("pages give %v", paged)
	}
	// Devices deleted between two pages do not break the list.
	page.After = &db.DevicePosition{CreatedAt: all[2].CreatedAt, ID: all[2].ID}
	check(t, d.DeleteDevice(t.Context(), everything, all[2].ID))
	check(t, d.DeleteDevice(t.Context(), everything, all[3].ID))
	rest, err := d.Devices(t.Context(), everything, page)
	check(t, err)
	if len(rest) != 1 || rest[0].ID != all[4].ID {
		t.Errorf("after deletions the next page is %+v, want the device %s", rest, all[4].ID)
	}
}

func TestUpdateDevice_Renames(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	renamed, err := d.UpdateDevice(t.Context(), everything, device.ID, db.DevicePatch{Name: ptr("new")})
	check(t, err)
	if renamed.Name != "new" || readDevice(t, d, device.ID).Name != "new" {
		t.Errorf("got %q", renamed.Name)
	}
}

func TestUpdateDevice_ChangesGivenFields(t *testing.T) {
	d := dbtest.New(t)
	server := enroll(t, d, db.KindServer, nil)
	first, err := d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{
		PublicHost: ptr("fra1.example.com"), PortFirst: ptr(30000), PortLast: ptr(30009), Region: ptr("eu"),
	})
	check(t, err)
	second, err := d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{Region: ptr("")})
	check(t, err)
	if first.PublicHost != "fra1.example.com" || first.PortFirst != 30000 || first.PortLast != 30009 || first.Region != "eu" || first.Name != server.Name {
		t.Errorf("changed to %+v", first)
	}
	first.Region = ""
	if !reflect.DeepEqual(first, second) {
		t.Errorf("changed from %+v to %+v", first, second)
	}
}

func TestRegenerateToken_InvalidatesTheOldOne(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	regenerated, err := d.RegenerateToken(t.Context(), everything, device.ID)
	check(t, err)
	if regenerated.TokenVersion != device.TokenVersion+1 {
		t.Errorf("version %d after %d", regenerated.TokenVersion, device.TokenVersion)
	}
	_, err = d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: startReplica(t, d)})
	wantErr(t, err, db.ErrConflict)

	_, err = d.RegenerateToken(t.Context(), everything, startEnrollment(t, d, db.KindClient).ID)
	wantErr(t, err, db.ErrConflict)
	_, err = d.RegenerateToken(t.Context(), everything, uuid.New())
	wantErr(t, err, db.ErrNotFound)
}

func TestDeleteDevice_DeletesItsAllocations(t *testing.T) {
	d := dbtest.New(t)
	server, client, other := enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	allocate(t, d, client.ID, server.ID)
	kept := allocate(t, d, other.ID, server.ID)
	check(t, d.DeleteDevice(t.Context(), everything, client.ID))
	wantErr(t, d.DeleteDevice(t.Context(), everything, client.ID), db.ErrNotFound)

	allocations, err := d.Allocations(t.Context(), everything, db.Page[int64]{})
	check(t, err)
	if len(allocations) != 1 || allocations[0].ID != kept.ID {
		t.Errorf("left are %+v", allocations)
	}
	check(t, d.DeleteDevice(t.Context(), everything, server.ID))
	_, err = d.Allocation(t.Context(), everything, kept.ID)
	wantErr(t, err, db.ErrNotFound)
}

func TestEnsureEmbeddedServer_IsTheSameDeviceAfterARename(t *testing.T) {
	d := dbtest.New(t)
	spec := db.EmbeddedServer{Name: "panel-1", PublicHost: "old.example.com", PortFirst: 20000, PortLast: 29999}
	first, err := d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	if !first.Embedded || first.Kind != db.KindServer || first.ApprovedAt == nil || first.TokenVersion == 0 || first.Name != "panel-1" {
		t.Errorf("got %+v", first)
	}
	_, err = d.UpdateDevice(t.Context(), everything, first.ID, db.DevicePatch{Name: ptr("frankfurt")})
	check(t, err)
	spec.PublicHost, spec.PortLast = "new.example.com", 20010
	second, err := d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	if second.ID != first.ID || second.Name != "frankfurt" || second.PublicHost != "new.example.com" || second.PortLast != 20010 {
		t.Errorf("got %+v", second)
	}
	spec.Name = "panel-2"
	other, err := d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	if other.ID == first.ID {
		t.Error("two panels share a tunnel server")
	}
}
