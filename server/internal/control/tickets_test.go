package control_test

import (
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func TestHub_RenewsTickets(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	allocate(t, d, clientRow, serverRow, "tcp", 20001)
	server := r.connect(t, serverRow)
	controltest.Next[types.ServerSnapshot](server)
	client := r.connect(t, clientRow)
	before := controltest.Next[types.ClientSnapshot](client).Servers[0]

	r.tick(12 * time.Hour)
	renewed := controltest.Next[types.ClientChange](client)
	if len(renewed.Servers) != 1 || len(renewed.Allocations) != 0 || renewed.Revision != 2 {
		t.Fatalf("renewal %+v", renewed)
	}
	after := renewed.Servers[0]
	if after.Ticket == before.Ticket {
		t.Error("the ticket is unchanged")
	}
	after.Ticket = before.Ticket
	if after != before {
		t.Errorf("renewal changed %+v to %+v", before, after)
	}
}

func TestHub_SendsKeysToTunnelServersAndTicketsAfterARevocation(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	server := r.connect(t, serverRow)
	controltest.Next[types.ServerSnapshot](server)
	allocate(t, d, clientRow, serverRow, "tcp", 20001)
	controltest.Next[types.ServerChange](server)
	client := r.connect(t, clientRow)
	controltest.Next[types.ClientSnapshot](client)
	keys := func(revoked bool, ids ...string) {
		t.Helper()
		r.mu.Lock()
		r.keys, r.revoked = nil, revoked
		for _, id := range ids {
			r.keys = append(r.keys, types.JWK{Kid: id})
		}
		r.mu.Unlock()
		if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `SELECT pg_notify('eclitunnel', 'keys')`); err != nil {
			t.Fatal(err)
		}
	}

	keys(false, "k2", "k1")
	if got := controltest.Next[types.ServerChange](server).Keys; got == nil || len(got.Keys) != 2 {
		t.Errorf("keys %+v", got)
	}
	keys(true, "k3")
	if got := controltest.Next[types.ServerChange](server).Keys; got == nil || len(got.Keys) != 1 || got.Keys[0].Kid != "k3" {
		t.Errorf("keys %+v", got)
	}
	// The only change: an added key does not concern a client.
	if got := controltest.Next[types.ClientChange](client); len(got.Servers) != 1 || got.Revision != 2 {
		t.Errorf("change %+v", got)
	}
}
