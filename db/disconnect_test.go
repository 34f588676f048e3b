package db_test

import (
	"net/netip"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestConnect_ShowsFromWhereSinceWhenAndWhyItWentBefore(t *testing.T) {
	d := dbtest.New(t)
	for _, kind := range []string{db.KindClient, db.KindServer} {
		device, replica := enroll(t, d, kind, nil), startReplica(t, d)
		hello := db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica, Address: netip.MustParseAddr("2001:db8::7")}
		if kind == db.KindServer {
			hello.RelayPort, hello.Fingerprint = 8443, "aa"
		}
		come := func() int64 {
			t.Helper()
			generation, err := d.Connect(t.Context(), device.ID, hello)
			check(t, err)
			return generation
		}
		wants := func(when string, online bool, reason *string) {
			t.Helper()
			got := readDevice(t, d, device.ID)
			if !equal(got.ControlAddress, ptr("2001:db8::7")) || (got.ConnectedAt != nil) != online || !equal(got.DisconnectReason, reason) {
				t.Errorf("%s, %s: %v, %v, %v", kind, when, got.ControlAddress, got.ConnectedAt, got.DisconnectReason)
			}
		}
		generation := come()
		wants("at first", true, nil)
		check(t, d.Disconnect(t.Context(), device.ID, generation, "lost"))
		wants("away", false, ptr("lost"))
		generation = come()
		wants("back", true, ptr("lost"))
		check(t, d.Disconnect(t.Context(), device.ID, generation-1, "left"))
		wants("after a late end", true, ptr("lost"))

		check(t, d.RenewLease(t.Context(), replica, 0))
		wants("its replica killed", false, ptr(db.ReplicaStopped))
		hello.ReplicaID = startReplica(t, d)
		come()
		wants("back at another", true, ptr(db.ReplicaStopped))
	}
}
