package db_test

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

// everything is the scope of an admin.
var everything = db.Scope{All: true}

// noon is the start time of tests that use their own clock.
var noon = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

func ptr[T any](value T) *T { return &value }

func createUser(t *testing.T, d *db.DB, email string) int64 {
	t.Helper()
	user, err := d.CreateUser(t.Context(), email, "hash", "user")
	if err != nil {
		t.Fatal(err)
	}
	return user.ID
}

// startEnrollment creates a pending device that expires ten minutes after noon.
func startEnrollment(t *testing.T, d *db.DB, kind string) db.Device {
	t.Helper()
	device, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "device", Kind: kind, UserCode: rand.Text(), CodeHash: []byte(rand.Text()),
		CreatedAt: noon, ExpiresAt: noon.Add(10 * time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// enroll creates an approved device with its first token version. A server has ports 20000 to 20009.
func enroll(t *testing.T, d *db.DB, kind string, owner *int64) db.Device {
	t.Helper()
	pending := startEnrollment(t, d, kind)
	approval := db.Approval{At: noon, OwnerID: owner}
	if kind == db.KindServer {
		approval.PublicHost, approval.PortFirst, approval.PortLast = "play.example.com", 20000, 20009
	}
	if _, err := d.ApproveDevice(t.Context(), pending.ID, approval); err != nil {
		t.Fatal(err)
	}
	if _, err := d.NextEnrollmentToken(t.Context(), pending.ID); err != nil {
		t.Fatal(err)
	}
	return readDevice(t, d, pending.ID)
}

func readDevice(t *testing.T, d *db.DB, id uuid.UUID) db.Device {
	t.Helper()
	device, err := d.Device(t.Context(), everything, id)
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// startReplica creates a replica with a lease of a minute.
func startReplica(t *testing.T, d *db.DB) uuid.UUID {
	t.Helper()
	id := uuid.New()
	if err := d.RenewLease(t.Context(), id, time.Minute); err != nil {
		t.Fatal(err)
	}
	return id
}

func connect(t *testing.T, d *db.DB, device db.Device, replica uuid.UUID) int64 {
	t.Helper()
	generation, err := d.Connect(t.Context(), device.ID, db.Hello{
		TokenVersion: device.TokenVersion, ReplicaID: replica, AgentVersion: "1.0", Platform: "linux/amd64",
	})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// allocate creates one allocation on a port of the server's range.
func allocate(t *testing.T, d *db.DB, client, server uuid.UUID) db.Allocation {
	t.Helper()
	made, err := d.CreateAllocations(t.Context(), newAllocation(client, &server, "tcp"))
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}

func newAllocation(client uuid.UUID, server *uuid.UUID, protocols ...string) db.NewAllocation {
	return db.NewAllocation{
		DeviceID: client, ServerID: server, Protocols: protocols,
		LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60, PlayerAddresses: true,
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
