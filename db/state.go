package db

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ClientState is the desired state of a tunnel client.
type ClientState struct {
	Allocations []Allocation // by id
	// Servers are the tunnel servers on which it has allocations or old ports.
	Servers []Device
	// Leaving maps moved allocations to the tunnel servers on which they still have old ports.
	Leaving map[int64][]uuid.UUID
}

// ClientState returns the desired state of a tunnel client in one snapshot. It is empty if the device
// does not exist or is not a client.
func (d *DB) ClientState(ctx context.Context, deviceID uuid.UUID) (ClientState, error) {
	var state ClientState
	err := d.snapshot(ctx, func(tx *sqlx.Tx) error {
		err := tx.SelectContext(ctx, &state.Allocations,
			allocationQuery+` WHERE a.device_id = $1 AND a.retires IS NULL ORDER BY a.id`, deviceID)
		if err != nil {
			return err
		}
		var leaving []struct {
			ID       int64     `db:"retires"`
			ServerID uuid.UUID `db:"server_id"`
		}
		err = tx.SelectContext(ctx, &leaving,
			`SELECT retires, server_id FROM allocations WHERE device_id = $1 AND retires IS NOT NULL ORDER BY id`, deviceID)
		if err != nil {
			return err
		}
		state.Leaving = make(map[int64][]uuid.UUID, len(leaving))
		for _, l := range leaving {
			state.Leaving[l.ID] = append(state.Leaving[l.ID], l.ServerID)
		}
		return tx.SelectContext(ctx, &state.Servers,
			`SELECT `+deviceColumns+` FROM devices d
			WHERE d.id IN (SELECT a.server_id FROM allocations a WHERE a.device_id = $1) ORDER BY d.id`, deviceID)
	})
	return state, wrap(err, "state of client %s", deviceID)
}

// ServerState is the desired state of a tunnel server.
type ServerState struct {
	// Allocations are the open ports, including old ports of moved allocations, by id. Drained
	// allocations are not included, because their ports are closed.
	Allocations []Allocation
	// Clients are the owners of the Allocations and of drained ones.
	Clients []ServerClient
}

// ServerClient is a tunnel client as a tunnel server knows it.
type ServerClient struct {
	ID uuid.UUID `db:"id"`
	// TokenVersion is the only valid version of its tickets.
	TokenVersion int64 `db:"token_version"`
}

// ServerState returns the desired state of a tunnel server in one snapshot. It is empty if the device
// does not exist or is not a tunnel server.
func (d *DB) ServerState(ctx context.Context, deviceID uuid.UUID) (ServerState, error) {
	var state ServerState
	err := d.snapshot(ctx, func(tx *sqlx.Tx) error {
		err := tx.SelectContext(ctx, &state.Allocations,
			allocationQuery+` WHERE a.server_id = $1 AND NOT a.drained ORDER BY a.id`, deviceID)
		if err != nil {
			return err
		}
		return tx.SelectContext(ctx, &state.Clients,
			`SELECT d.id, d.token_version FROM devices d
			WHERE d.id IN (SELECT a.device_id FROM allocations a WHERE a.server_id = $1) ORDER BY d.id`, deviceID)
	})
	return state, wrap(err, "state of server %s", deviceID)
}

// Report is a device's report on an allocation.
type Report struct {
	AllocationID int64
	// ServerID is the tunnel server of the allocation when a client reported it. The report is ignored
	// if the allocation has moved since. nil means any.
	ServerID *uuid.UUID
	State    string // StatePending, StateReady or StateFailed
	Reason   string
}

// SaveReports stores the reports of a device of the given kind. It ignores reports on allocations of
// other devices.
func (d *DB) SaveReports(ctx context.Context, deviceID uuid.UUID, kind string, reports []Report) error {
	ids := make([]int64, len(reports))
	states := make([]string, len(reports))
	reasons := make([]string, len(reports))
	servers := make([]*string, len(reports))
	for i, report := range reports {
		ids[i], states[i], reasons[i] = report.AllocationID, report.State, report.Reason
		if report.ServerID != nil {
			id := report.ServerID.String()
			servers[i] = &id
		}
	}
	var leaving []int64
	err := d.pool.SelectContext(ctx, &leaving, reportsOf(kind).save,
		deviceID, pq.Array(ids), pq.Array(states), pq.Array(reasons), pq.Array(servers))
	if err == nil && len(leaving) > 0 {
		err = d.closeOldPorts(ctx, leaving)
	}
	return wrap(err, "save reports of device %s", deviceID)
}

// reportStatements are the statements for the reports of one side. save returns the reported
// allocations whose old port is still open. Both statements lock rows in the order of their ids,
// because the two sides of many allocations report at the same time.
type reportStatements struct {
	save, reset string
}

var (
	clientReports = newReportStatements("device_id", "client_state", "client_reason")
	serverReports = newReportStatements("server_id", "server_state", "server_reason")
)

func newReportStatements(device, state, reason string) reportStatements {
	return reportStatements{
		save: fmt.Sprintf(`WITH reported AS (
				SELECT a.id, r.state, r.reason
				FROM allocations a
				JOIN unnest($2::bigint[], $3::text[], $4::text[], $5::uuid[]) AS r (id, state, reason, server) ON r.id = a.id
				WHERE a.%[1]s = $1 AND a.retires IS NULL AND (r.server IS NULL OR r.server = a.server_id)
					AND (a.%[2]s, a.%[3]s) IS DISTINCT FROM (r.state, r.reason)
				ORDER BY a.id FOR NO KEY UPDATE OF a),
			saved AS (
				UPDATE allocations a SET %[2]s = r.state, %[3]s = r.reason FROM reported r WHERE a.id = r.id RETURNING a.id)
			SELECT s.id FROM saved s
			WHERE EXISTS (SELECT 1 FROM allocations o WHERE o.retires = s.id AND NOT o.draining)`,
			device, state, reason),
		reset: fmt.Sprintf(`WITH reported AS (
				SELECT id FROM allocations WHERE %[1]s = $1 ORDER BY id FOR NO KEY UPDATE)
			UPDATE allocations a SET %[2]s = 'pending', %[3]s = '' FROM reported r WHERE a.id = r.id`,
			device, state, reason),
	}
}

func reportsOf(kind string) reportStatements {
	if kind == KindServer {
		return serverReports
	}
	return clientReports
}
