package db_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// TestSaveConnections_WaitsForADeletionWithNothingThatItNeeds: the connections of what is deleted go with it in any order.
// Had a tunnel server's changes locked some of them, and waited for others, both would wait for each other.
func TestSaveConnections_WaitsForADeletionWithNothingThatItNeeds(t *testing.T) {
	const begun = `SELECT id FROM allocations FOR UPDATE; DELETE FROM connections WHERE number = 2`
	for name, c := range map[string]struct {
		begin, end string // Of the deletion.
		changes    db.ConnectionChanges
		waits      bool
	}{
		"counts of an allocation's connections": {
			begin: begun, end: `DELETE FROM allocations`, changes: db.ConnectionChanges{Updated: []db.ConnectionCounters{{Number: 1}, {Number: 2}}},
		},
		"the ends of an allocation's connections": {
			begin: begun, end: `DELETE FROM allocations`, waits: true,
			changes: db.ConnectionChanges{Closed: []db.ConnectionCounters{{Number: 1}, {Number: 2}}},
		},
		"a complete list without an allocation's connections": {
			begin: begun, end: `DELETE FROM allocations`, waits: true, changes: db.ConnectionChanges{Complete: true},
		},
		"a tunnel server's new connection": {
			begin: `SELECT id FROM devices FOR UPDATE`, end: `DELETE FROM allocations; DELETE FROM devices`, waits: true,
			changes: db.ConnectionChanges{Opened: []db.OpenedConnection{{}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := dbtest.New(t)
			client, server, replica := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil), startReplica(t, d)
			a := allocate(t, d, client.ID, server.ID)
			generation := connect(t, d, server, replica)
			save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{
				opened(a, 1, "203.0.113.7"), opened(a, 2, "203.0.113.8"),
			}})
			if c.changes.Complete {
				generation = connect(t, d, server, replica)
			}
			if c.changes.Generation = generation; len(c.changes.Opened) > 0 {
				c.changes.Opened[0] = opened(a, 3, "203.0.113.9")
			}
			tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
			check(t, err)
			defer func() { _ = tx.Rollback() }()
			_, err = tx.ExecContext(t.Context(), c.begin)
			check(t, err)
			saved := make(chan error, 1)
			go func() { saved <- d.SaveConnections(t.Context(), server.ID, c.changes) }()
			if c.waits {
				waiting(t, d, 1)
			} else {
				check(t, await.Receive(t, saved, "changes that are stored meanwhile"))
			}
			// Less than it takes to find a deadlock.
			_, err = tx.ExecContext(t.Context(), `SET LOCAL lock_timeout = '500ms'; `+c.end)
			check(t, err)
			check(t, tx.Commit())
			if c.waits {
				check(t, await.Receive(t, saved, "changes"))
			}
			wantListed(t, d, everything, db.ConnectionFilter{})
		})
	}
}
