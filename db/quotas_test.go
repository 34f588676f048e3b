package db_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// tenant is a user or an organisation that owns devices.
type tenant struct{ user, organisation *int64 }

func (o tenant) device(t *testing.T, d *db.DB) db.Device {
	t.Helper()
	device, err := o.create(d)
	check(t, err)
	return device
}

func (o tenant) create(d *db.DB) (db.Device, error) {
	return d.CreateDevice(context.Background(), db.NewDevice{
		Name: "device", Kind: db.KindClient, OwnerID: o.user, OrganisationID: o.organisation, CreatedAt: noon, ExpiresAt: noon, Approved: true,
	})
}

func (o tenant) quota(t *testing.T, d *db.DB) db.OwnerQuota {
	t.Helper()
	return o.set(t, d, "{}")
}

// set changes the quota of the tenant.
func (o tenant) set(t *testing.T, d *db.DB, patch db.QuotaPatch) (quota db.OwnerQuota) {
	t.Helper()
	var err error
	if o.user != nil {
		quota, err = d.UpdateUserQuota(t.Context(), *o.user, patch)
	} else {
		quota, err = d.UpdateOrganisationQuota(t.Context(), *o.organisation, patch)
	}
	check(t, err)
	return quota
}

func (o tenant) owner() *db.NewOwner {
	return &db.NewOwner{UserID: o.user, OrganisationID: o.organisation}
}

// tenants returns a new user and a new organisation.
func tenants(t *testing.T, d *db.DB) map[string]tenant {
	t.Helper()
	user, guild := createUser(t, d, uuid.NewString()+"@example.com"), dbtest.Organisation(t, d, "guild")
	return map[string]tenant{"user": {user: &user}, "organisation": {organisation: &guild}}
}

// wantQuota checks that err is a QuotaError about a resource of one owner.
func wantQuota(t *testing.T, err error, resource string, limit, used int) {
	t.Helper()
	var quota *db.QuotaError
	if !errors.As(err, &quota) || quota.Resource != resource || quota.Limit != limit || quota.Used != used ||
		(quota.UserID == 0) == (quota.OrganisationID == 0) || !errors.Is(err, db.ErrConflict) {
		t.Errorf("got error %v, want that %d of %d %s are used", err, used, limit, resource)
	}
}

// wide creates an approved tunnel server with the ports 20000 to 20999.
func wide(t *testing.T, d *db.DB) db.Device {
	t.Helper()
	server, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, PublicHost: "play.example.com", PortFirst: 20000, PortLast: 20999,
		CreatedAt: noon, ExpiresAt: noon, Approved: true,
	})
	check(t, err)
	return server
}

// TestQuotas_WaitForNobodyWithoutALimit: transactions of an owner without a limit do not wait for each other, and
// a transaction that sets one waits for them.
func TestQuotas_WaitForNobodyWithoutALimit(t *testing.T) {
	d := patient(t)
	o := tenants(t, d)["user"]
	client, server := o.device(t, d), wide(t, d)
	tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	// As one that adds where there is a limit, and has not committed.
	_, err = tx.ExecContext(t.Context(), `SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE`, *o.user)
	check(t, err)
	o.device(t, d)
	allocate(t, d, client.ID, server.ID)
	request := newAllocation(client.ID, &server.ID, "tcp")
	request.Port = 20007
	_, err = d.CreateAllocations(t.Context(), request)
	check(t, err)
	request.Port = 25565
	_, err = d.CreateAllocations(t.Context(), request)
	wantQuota(t, err, "portsOutsideRange", 0, 0) // Nothing that others do would permit it.
	check(t, tx.Commit())

	// A limit is set while one adds, which has to wait for its device.
	tx, err = dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), `SELECT id FROM devices WHERE id = $1 FOR UPDATE`, client.ID)
	check(t, err)
	added, set := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := d.CreateAllocations(context.Background(), newAllocation(client.ID, &server.ID, "tcp"))
		added <- err
	}()
	waiting(t, d, 1)
	var quota db.OwnerQuota
	go func() {
		var err error
		quota, err = d.UpdateUserQuota(context.Background(), *o.user, `{"allocations":2}`)
		set <- err
	}()
	waiting(t, d, 2)
	check(t, tx.Commit())
	check(t, <-added)
	check(t, <-set)
	if quota.Allocations != 3 {
		t.Errorf("there were %d allocations when the limit was set, want 3", quota.Allocations)
	}
	_, err = d.CreateAllocations(t.Context(), newAllocation(client.ID, &server.ID, "tcp"))
	wantQuota(t, err, "allocations", 2, 3)
}

// TestQuotas_LimitsOfTheSiteAndOfTheOwner holds which limit is in effect.
func TestQuotas_LimitsOfTheSiteAndOfTheOwner(t *testing.T) {
	d := dbtest.New(t)
	owners := tenants(t, d)
	owners["admin"] = tenant{user: ptr(newUser(t, d, "root@example.com", "admin").ID)}
	site := func(patch db.QuotaPatch) {
		t.Helper()
		_, err := d.UpdateSettings(t.Context(), db.SettingsPatch{Quota: patch})
		check(t, err)
	}
	for name, o := range owners {
		site(`{"devices":null}`)
		o.device(t, d)
		o.device(t, d)
		site(`{"devices":1}`) // Removes nothing.
		if _, err := o.create(d); name == "admin" {
			check(t, err) // An admin changes the limit of the site.
		} else {
			wantQuota(t, err, "devices", 1, 2)
		}
		used := o.quota(t, d).Devices
		o.set(t, d, `{"devices":0}`)
		_, err := o.create(d)
		wantQuota(t, err, "devices", 0, used)
		quota := o.set(t, d, db.QuotaPatch(fmt.Sprintf(`{"devices":%d}`, used+1)))
		if quota.Own.Devices == nil || *quota.Limits.Devices != used+1 || quota.Devices != used {
			t.Errorf("the quota of the %s is %+v", name, quota)
		}
		device := o.device(t, d)
		_, err = o.create(d)
		wantQuota(t, err, "devices", used+1, used+1)
		check(t, d.DeleteDevice(t.Context(), everything, device.ID))
		o.device(t, d)
		if quota = o.set(t, d, `{"devices":null}`); quota.Own.Devices != nil || (quota.Limits.Devices == nil) != (name == "admin") {
			t.Errorf("the quota of the %s is %+v", name, quota)
		}
	}
	// A device without an owner has no quota, and pending enrollments do not count.
	(tenant{}).device(t, d)
	startEnrollment(t, d, db.KindClient)
	user := owners["user"].user
	pending, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "device", Kind: db.KindClient, OwnerID: user, UserCode: "CDFG-2345", CodeHash: []byte("hash"), CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
	})
	check(t, err)
	_, err = d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon})
	wantQuota(t, err, "devices", 1, 3)
	if readDevice(t, d, pending.ID).ApprovedAt != nil {
		t.Error("the device is approved")
	}
}

// TestQuotas_HoldWhatMoves moves devices with allocations to an owner with a quota.
func TestQuotas_HoldWhatMoves(t *testing.T) {
	d := dbtest.New(t)
	server := wide(t, d)
	newUser(t, d, "root@example.com", "admin")
	giver, user := createUser(t, d, "giver@example.com"), createUser(t, d, "user@example.com")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, giver, "admin")
	from, to := tenant{user: &giver}, tenant{organisation: &guild}
	device := from.device(t, d)
	request := newAllocation(device.ID, &server.ID, "tcp")
	request.Count, request.Port, request.AnyPort = 2, 25565, true
	_, err := d.CreateAllocations(t.Context(), request)
	check(t, err)
	give := func(scope db.Scope, o tenant) error {
		_, err := d.UpdateDevice(t.Context(), scope, device.ID, db.DevicePatch{Owner: o.owner()})
		return err
	}
	to.set(t, d, `{"devices":0}`)
	wantQuota(t, give(everything, to), "devices", 0, 0)
	to.set(t, d, `{"devices":null,"allocations":1}`)
	wantQuota(t, give(everything, to), "allocations", 1, 0)
	to.set(t, d, `{"allocations":2}`)
	wantQuota(t, give(db.Scope{UserID: giver}, to), "portsOutsideRange", 0, 0)
	check(t, give(everything, to)) // An admin permits the ports.
	if used := to.quota(t, d).Usage; used != (db.Usage{Devices: 1, Allocations: 2, PortsOutsideRange: 2}) {
		t.Errorf("the organisation uses %+v", used)
	}
	// Who has too much keeps it, and can give it to themselves again.
	to.set(t, d, `{"devices":0,"allocations":0}`)
	check(t, give(db.Scope{UserID: giver}, to))
	check(t, give(everything, from))

	(tenant{user: &user}).set(t, d, `{"allocations":1}`)
	wantQuota(t, d.DeleteUser(t.Context(), giver, db.DevicesOf{MoveTo: &user}), "allocations", 1, 0)
	if owner := readDevice(t, d, device.ID).OwnerID; owner == nil || *owner != giver {
		t.Errorf("the device belongs to %v", owner)
	}
	(tenant{user: &user}).set(t, d, `{"allocations":2}`)
	check(t, d.DeleteUser(t.Context(), giver, db.DevicesOf{MoveTo: &user}))
}

// TestQuotas_PortsOutsideTheRange gives an allocation other ports.
func TestQuotas_PortsOutsideTheRange(t *testing.T) {
	d := dbtest.New(t)
	replica := startReplica(t, d)
	o := tenants(t, d)["user"]
	client, near, far := o.device(t, d), enroll(t, d, db.KindServer, nil), wide(t, d)
	connect(t, d, near, replica)
	connect(t, d, far, replica)
	scope := db.Scope{UserID: *o.user}
	// Of two tunnel servers it gets the one whose range has the port.
	request := newAllocation(client.ID, nil, "tcp")
	request.Port = 20500
	made, err := d.CreateAllocations(t.Context(), request)
	check(t, err)
	if made[0].ServerID != far.ID {
		t.Error("the port is outside the range")
	}
	change := func(patch db.AllocationPatch) error {
		_, err := d.UpdateAllocation(t.Context(), scope, made[0].ID, patch)
		return err
	}
	wantQuota(t, change(db.AllocationPatch{Port: ptr(25565)}), "portsOutsideRange", 0, 0)
	check(t, change(db.AllocationPatch{Port: ptr(20501)}))
	check(t, change(db.AllocationPatch{Port: ptr(25565), AnyPort: true}))
	check(t, change(db.AllocationPatch{Port: ptr(25565), Name: ptr("it has that port")}))
	wantQuota(t, change(db.AllocationPatch{Port: ptr(25566)}), "portsOutsideRange", 0, 0)
	o.set(t, d, `{"portsOutsideRange":1}`)
	check(t, change(db.AllocationPatch{Port: ptr(25566)}))
	request = newAllocation(client.ID, &far.ID, "udp")
	request.Port = 25567
	_, err = d.CreateAllocations(t.Context(), request)
	wantQuota(t, err, "portsOutsideRange", 1, 1)
	request.Port = 25566 // The other protocol of a port that it has.
	_, err = d.CreateAllocations(t.Context(), request)
	check(t, err)
	// A port that is kept is no new one, a port that is asked for is.
	o.set(t, d, `{"portsOutsideRange":0}`)
	wantQuota(t, change(db.AllocationPatch{Port: ptr(25568), Move: &db.Move{ServerID: near.ID, KeepPortFrom: 1}}), "portsOutsideRange", 0, 0)
	check(t, change(db.AllocationPatch{Move: &db.Move{ServerID: near.ID, KeepPortFrom: 1}}))
	if used := o.quota(t, d).Usage; used != (db.Usage{Devices: 1, Allocations: 2, PortsOutsideRange: 1}) {
		t.Errorf("%+v is used", used)
	}
}
