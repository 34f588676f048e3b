package db_test

import (
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

const day = 24 * time.Hour

func candidate(id string) db.SigningKey { return db.SigningKey{ID: id, Seed: make([]byte, 32)} }

func maintain(t *testing.T, d *db.DB, m db.Maintenance) db.MaintenanceResult {
	t.Helper()
	done, ran, err := d.Maintain(t.Context(), m)
	check(t, err)
	if !ran {
		t.Fatal("nothing was maintained")
	}
	return done
}

// rotate runs the maintenance of a monthly rotation with the next key.
func rotate(t *testing.T, d *db.DB, next string) db.KeyChanges {
	t.Helper()
	return maintain(t, d, db.Maintenance{Keys: db.KeyRotation{Every: 30 * day, Candidate: candidate(next)}}).Keys
}

// age moves the times of keys and presence into the past, as if the database's clock had advanced.
func age(t *testing.T, connections *sql.DB, d time.Duration) {
	t.Helper()
	for _, statement := range []string{
		`UPDATE signing_keys SET created_at = created_at - $1 * interval '1 second',
			signs_from = signs_from - $1 * interval '1 second', needed_at = needed_at - $1 * interval '1 second',
			retired_at = retired_at - $1 * interval '1 second'`,
		`UPDATE devices SET last_seen_at = last_seen_at - $1 * interval '1 second'`,
	} {
		_, err := connections.ExecContext(t.Context(), statement, d.Seconds())
		check(t, err)
	}
}

func keyIDs(t *testing.T, d *db.DB) []string {
	t.Helper()
	keys, err := d.SigningKeys(t.Context())
	check(t, err)
	var ids []string
	for _, key := range keys {
		ids = append(ids, key.ID)
	}
	return ids
}

func TestEnsureSigningKey_ReplicasAgree(t *testing.T) {
	d := dbtest.New(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	var replicas sync.WaitGroup
	for i := range 8 {
		replicas.Go(func() {
			keys, err := d.EnsureSigningKey(t.Context(), candidate(fmt.Sprint("key", i)))
			if err != nil || len(keys) != 1 || len(keys[0].Seed) != 32 || keys[0].SignsFrom.After(time.Now()) {
				t.Errorf("got %+v, %v", keys, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[keys[0].ID] = true
		})
	}
	replicas.Wait()
	if len(seen) != 1 {
		t.Errorf("replicas have keys %v, want one", seen)
	}
}

func TestMaintain_RunsOnOneReplicaAtATime(t *testing.T) {
	d := dbtest.New(t)
	other, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer other.Rollback() //nolint:errcheck // it only frees the connection
	_, err = other.ExecContext(t.Context(), `SELECT pg_advisory_xact_lock(x'65636c69'::bigint)`)
	check(t, err)
	if _, ran, err := d.Maintain(t.Context(), db.Maintenance{}); ran || err != nil {
		t.Errorf("beside another: ran %v, %v", ran, err)
	}
	check(t, other.Rollback())
	maintain(t, d, db.Maintenance{})
}

func TestMaintain_ReplicasCreateOneKeyTogether(t *testing.T) {
	d := dbtest.New(t)
	_, err := d.EnsureSigningKey(t.Context(), candidate("first"))
	check(t, err)
	age(t, dbtest.SQL(t, d), 30*day)
	var replicas sync.WaitGroup
	for i := range 8 {
		replicas.Go(func() {
			_, _, err := d.Maintain(t.Context(), db.Maintenance{
				Keys: db.KeyRotation{Every: 30 * day, Candidate: candidate(fmt.Sprint("next", i))},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	replicas.Wait()
	if ids := keyIDs(t, d); len(ids) != 2 {
		t.Errorf("keys %v, want two", ids)
	}
}

func TestMaintain_RotatesAKeyThroughAllStates(t *testing.T) {
	d := dbtest.New(t)
	connections := dbtest.SQL(t, d)
	_, err := d.EnsureSigningKey(t.Context(), candidate("first"))
	check(t, err)
	device := enroll(t, d, db.KindClient, nil)
	replica := startReplica(t, d)
	hello := db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica, TokenKey: "first"}
	_, err = d.Connect(t.Context(), device.ID, hello)
	check(t, err)

	age(t, connections, 29*day)
	if got := rotate(t, d, "early"); len(got.Created) != 0 {
		t.Fatalf("after 29 days: %+v", got)
	}
	age(t, connections, day)
	events := listen(t, d)
	if got := rotate(t, d, "second"); !slices.Equal(got.Created, []string{"second"}) {
		t.Fatalf("after 30 days: %+v", got)
	}
	wantKeys(t, events)
	keys, err := d.SigningKeys(t.Context())
	check(t, err)
	if lead := keys[0].SignsFrom.Sub(keys[0].CreatedAt); keys[0].ID != "second" || lead != db.KeyLead {
		t.Errorf("the newest is %s with a lead of %v", keys[0].ID, lead)
	}

	// The first key signs for another day, and verifies tickets for two more.
	age(t, connections, day-time.Hour)
	rotate(t, d, "")
	age(t, connections, 2*day)
	if got := rotate(t, d, ""); len(got.Retired) != 0 {
		t.Errorf("retired %v two days after its last use", got.Retired)
	}
	age(t, connections, 2*day+time.Hour)
	if got := rotate(t, d, ""); !slices.Equal(got.Retired, []string{"first"}) {
		t.Errorf("retired %v", got.Retired)
	}
	wantKeys(t, events)

	// It is kept as long as the device has a token that it signed.
	age(t, connections, 20*day)
	age(t, connections, 12*day)
	if got := rotate(t, d, "third"); len(got.Deleted) != 0 {
		t.Fatalf("deleted %v, on which a device depends", got.Deleted)
	}
	device, err = d.RegenerateToken(t.Context(), everything, device.ID)
	check(t, err)
	if got := rotate(t, d, ""); len(got.Deleted) != 0 {
		t.Fatalf("deleted %v, which may have signed a token not seen yet", got.Deleted)
	}
	hello.TokenVersion, hello.TokenKey = device.TokenVersion, "second"
	_, err = d.Connect(t.Context(), device.ID, hello)
	check(t, err)
	if got := rotate(t, d, ""); !slices.Equal(got.Deleted, []string{"first"}) {
		t.Errorf("deleted %v", got.Deleted)
	}
}

func wantKeys(t *testing.T, events <-chan db.Event) {
	t.Helper()
	for {
		if await.Receive(t, events, "event of the keys").Keys {
			return
		}
	}
}

func TestMaintain_KeepsAKeyForAnOfflineTunnelServer(t *testing.T) {
	d := dbtest.New(t)
	connections := dbtest.SQL(t, d)
	_, err := d.EnsureSigningKey(t.Context(), candidate("first"))
	check(t, err)
	server := enroll(t, d, db.KindServer, nil)
	replica := startReplica(t, d)
	hello := db.Hello{TokenVersion: server.TokenVersion, ReplicaID: replica, RelayPort: 7443, TokenKey: "first"}
	generation, err := d.Connect(t.Context(), server.ID, hello)
	check(t, err)
	check(t, d.Disconnect(t.Context(), server.ID, generation, ""))

	age(t, connections, 30*day)
	rotate(t, d, "second")
	for range 10 {
		age(t, connections, day)
		if got := rotate(t, d, ""); len(got.Retired) != 0 {
			t.Fatalf("retired %v, and the tunnel server knows no other", got.Retired)
		}
	}
	_, err = d.Connect(t.Context(), server.ID, hello)
	check(t, err)
	rotate(t, d, "")
	age(t, connections, 2*day+time.Hour)
	if got := rotate(t, d, ""); !slices.Equal(got.Retired, []string{"first"}) {
		t.Errorf("retired %v after it reconnected", got.Retired)
	}
}

func TestRevokeSigningKeys_InvalidatesWhatTheySigned(t *testing.T) {
	d := dbtest.New(t)
	_, err := d.EnsureSigningKey(t.Context(), candidate("leaked"))
	check(t, err)
	replica := startReplica(t, d)
	signed, other, unknown := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	for key, device := range map[string]db.Device{"leaked": signed, "elder": other} {
		_, err := d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica, TokenKey: key})
		check(t, err)
	}
	embedded, err := d.EnsureEmbeddedServer(t.Context(), db.EmbeddedServer{Name: "embedded", PublicHost: "h", PortFirst: 1, PortLast: 2})
	check(t, err)
	_, err = d.Connect(t.Context(), embedded.ID, db.Hello{TokenVersion: embedded.TokenVersion, ReplicaID: replica, TokenKey: "leaked", RelayPort: 1})
	check(t, err)

	_, err = d.RevokeSigningKeys(t.Context(), []string{"leaked", "mistyped"}, candidate("fresh"))
	wantErr(t, err, db.ErrNotFound)
	if ids := keyIDs(t, d); !slices.Equal(ids, []string{"leaked"}) {
		t.Fatalf("keys %v after a mistake", ids)
	}
	events := listen(t, d)
	revocation, err := d.RevokeSigningKeys(t.Context(), []string{"leaked"}, candidate("fresh"))
	check(t, err)
	wantKeys(t, events)
	if ids := keyIDs(t, d); !slices.Equal(ids, []string{"fresh"}) {
		t.Errorf("keys %v", ids)
	}
	if len(revocation.Devices) != 1 || revocation.Devices[0].ID != signed.ID || revocation.Unknown != 1 {
		t.Errorf("got %+v", revocation)
	}
	for device, raised := range map[uuid.UUID]bool{signed.ID: true, other.ID: false, unknown.ID: false, embedded.ID: false} {
		if got := readDevice(t, d, device).TokenVersion > 1; got != raised {
			t.Errorf("token version of %s raised: %v", device, got)
		}
	}
}
