package db

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ClientState is the desired state of a tunnel client, without paused allocations.
type ClientState struct {
	Allocations []Allocation // by id
	// Servers are the tunnel servers on which it has allocations or old ports, by id.
	Servers []ClientServer
	// Leaving maps moved allocations to the tunnel servers on which they still have old ports.
	Leaving map[int64][]uuid.UUID
}

// ClientServer is a tunnel server as a tunnel client knows it. Its fields are those of [Device].
type ClientServer struct {
	ID              uuid.UUID
	PublicHost      string
	PublicAddresses Addresses
	RelayPort       int
	Fingerprint     string
	LastSeenAt      *time.Time
}

// ClientState returns the desired state of a tunnel client in one snapshot. It is empty if the device
// does not exist or is not a client. Concurrent calls share a statement.
func (d *DB) ClientState(ctx context.Context, deviceID uuid.UUID) (ClientState, error) {
	state, err := d.batches.clientStates.Do(ctx, deviceID)
	return state, wrap(err, "state of client %s", deviceID)
}

// clientStates returns the [DB.ClientState] of each of several devices.
func (d *DB) clientStates(ctx context.Context, ids []uuid.UUID) ([]ClientState, error) {
	var rows []struct {
		Allocation
		RelayPort   int        `db:"relay_port"`
		Fingerprint string     `db:"fingerprint"`
		LastSeenAt  *time.Time `db:"server_seen_at"`
	}
	// One statement, whose rows are of one snapshot.
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT `+allocationColumns+`, s.relay_port, s.fingerprint,
			greatest(s.last_seen_at, sr.renewed_at) AS server_seen_at`+
			allocationTables+` WHERE a.device_id = ANY ($1::uuid[]) AND a.enabled ORDER BY a.id`, uuidArray(ids))
	if err != nil {
		return nil, err
	}
	states := make(map[uuid.UUID]*ClientState, len(ids))
	for _, row := range rows {
		state := states[row.DeviceID]
		if state == nil {
			state = &ClientState{Leaving: map[int64][]uuid.UUID{}}
			states[row.DeviceID] = state
		}
		if row.Retires == nil {
			state.Allocations = append(state.Allocations, row.Allocation)
		} else {
			state.Leaving[*row.Retires] = append(state.Leaving[*row.Retires], row.ServerID)
		}
		state.addServer(ClientServer{
			ID: row.ServerID, PublicHost: row.PublicHost, PublicAddresses: row.PublicAddresses,
			RelayPort: row.RelayPort, Fingerprint: row.Fingerprint, LastSeenAt: row.LastSeenAt,
		})
	}
	out := make([]ClientState, len(ids))
	for i, id := range ids {
		if state := states[id]; state != nil {
			out[i] = *state
		}
	}
	return out, nil
}

// addServer adds a server to the state, unless it is there.
func (s *ClientState) addServer(server ClientServer) {
	i, found := slices.BinarySearchFunc(s.Servers, server.ID, func(has ClientServer, id uuid.UUID) int {
		return bytes.Compare(has.ID[:], id[:])
	})
	if !found {
		s.Servers = slices.Insert(s.Servers, i, server)
	}
}

// ServerState is the desired state of a tunnel server.
type ServerState struct {
	// Allocations are the open ports, including old ports of moved allocations, by id. Drained
	// and paused allocations are not included, because their ports are closed.
	Allocations []Allocation
	// Clients are the owners of the Allocations and of drained ones.
	Clients []ServerClient
	Host    Host
	// Rules and OrganisationRules, by organisation, are what others have set for the Allocations.
	Rules             SiteRules
	OrganisationRules map[int64]Rules
	// KeptOut are the sources that the Allocations keep out, by allocation.
	KeptOut map[int64][]KeptOut
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
	err := d.devices.snapshot(ctx, func(tx *sqlx.Tx) error {
		err := tx.SelectContext(ctx, &state.Allocations,
			allocationQuery+` WHERE a.server_id = $1 AND NOT a.drained ORDER BY a.id`, deviceID)
		if err != nil {
			return err
		}
		err = tx.SelectContext(ctx, &state.Clients,
			`SELECT d.id, d.token_version FROM devices d
			WHERE d.id IN (SELECT a.device_id FROM allocations a WHERE a.server_id = $1) ORDER BY d.id`, deviceID)
		if err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &state.Rules, `SELECT `+siteRuleColumns+` FROM settings`); err != nil {
			return err
		}
		if state.OrganisationRules, err = organisationRules(ctx, tx, deviceID); err != nil {
			return err
		}
		if state.KeptOut, err = keptOutBy(ctx, tx, deviceID); err != nil {
			return err
		}
		err = tx.GetContext(ctx, &state.Host, `SELECT `+hostColumns+` FROM devices d WHERE d.id = $1`, deviceID)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
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
	// Target is TargetUnknown, TargetUp or TargetDown, and TargetReason why it is down, when a client
	// reported it; "" means TargetUnknown.
	Target       string
	TargetReason string
}

// SaveReports stores the reports of a device of the given kind. It ignores reports on allocations of
// other devices. Concurrent calls for devices of a kind share a statement.
func (d *DB) SaveReports(ctx context.Context, deviceID uuid.UUID, kind string, reports []Report) error {
	batcher := d.batches.clientReports
	if kind == KindServer {
		batcher = d.batches.serverReports
	}
	_, err := batcher.Do(ctx, deviceReports{deviceID, reports})
	return wrap(err, "save reports of device %s", deviceID)
}

// deviceReports are the reports of one device.
type deviceReports struct {
	device  uuid.UUID
	reports []Report
}

// saveReports stores the reports of devices of a kind. Of several reports of a device on an allocation
// the last one counts.
func (d *DB) saveReports(ctx context.Context, kind string, all []deviceReports) error {
	type subject struct {
		device     uuid.UUID
		allocation int64
	}
	last := map[subject]Report{}
	for _, of := range all {
		for _, report := range of.reports {
			last[subject{of.device, report.AllocationID}] = report
		}
	}
	devices := make([]uuid.UUID, 0, len(last))
	ids := make([]int64, 0, len(last))
	states, reasons := make([]string, 0, len(last)), make([]string, 0, len(last))
	targets, targetReasons := make([]string, 0, len(last)), make([]string, 0, len(last))
	servers := make([]*string, 0, len(last))
	for of, report := range last {
		devices, ids = append(devices, of.device), append(ids, of.allocation)
		states, reasons = append(states, report.State), append(reasons, report.Reason)
		targets = append(targets, cmp.Or(report.Target, TargetUnknown))
		targetReasons = append(targetReasons, report.TargetReason)
		var server *string
		if report.ServerID != nil {
			id := report.ServerID.String()
			server = &id
		}
		servers = append(servers, server)
	}
	var leaving []int64
	err := d.devices.SelectContext(ctx, &leaving, reportsOf(kind).save,
		uuidArray(devices), pq.Array(ids), pq.Array(states), pq.Array(reasons), pq.Array(servers),
		pq.Array(targets), pq.Array(targetReasons))
	if err == nil && len(leaving) > 0 {
		err = d.closeOldPorts(ctx, leaving)
	}
	return err
}

// reportStatements are the statements for the reports of one side. save returns the reported
// allocations whose old port is still open. Both statements lock rows in the order of their ids,
// because the two sides of many allocations report at the same time. unreported sets the columns of a
// report as they are before one.
type reportStatements struct {
	save, reset, unreported string
}

var (
	clientReports = newReportStatements("device_id", []reportColumn{
		{"client_state", "state", StatePending}, {"client_reason", "reason", ""},
		{"target", "target", TargetUnknown}, {"target_reason", "target_reason", ""},
	})
	serverReports = newReportStatements("server_id", []reportColumn{
		{"server_state", "state", StatePending}, {"server_reason", "reason", ""},
	})
)

// reportColumn is a column of a report: its names in allocations and in the report, and its value before
// one.
type reportColumn struct{ name, reported, before string }

func newReportStatements(device string, columns []reportColumn) reportStatements {
	var current, reported, save, reset []string
	for _, c := range columns {
		current, reported = append(current, "a."+c.name), append(reported, "r."+c.reported)
		save = append(save, fmt.Sprintf("%s = r.%s", c.name, c.reported))
		reset = append(reset, fmt.Sprintf("%s = '%s'", c.name, c.before))
	}
	unreported := strings.Join(reset, ", ")
	return reportStatements{
		unreported: unreported,
		save: fmt.Sprintf(`WITH reported AS (
				SELECT a.id, r.state, r.reason, r.target, r.target_reason
				FROM allocations a
				JOIN unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[])
						AS r (device, id, state, reason, server, target, target_reason)
					ON r.id = a.id AND r.device = a.%s
				WHERE a.retires IS NULL AND (r.server IS NULL OR r.server = a.server_id)
					AND (%s) IS DISTINCT FROM (%s)
				ORDER BY a.id FOR NO KEY UPDATE OF a),
			saved AS (
				UPDATE allocations a SET %s FROM reported r WHERE a.id = r.id RETURNING a.id)
			SELECT s.id FROM saved s
			WHERE EXISTS (SELECT 1 FROM allocations o WHERE o.retires = s.id AND NOT o.draining)`,
			device, strings.Join(current, ", "), strings.Join(reported, ", "), strings.Join(save, ", ")),
		reset: fmt.Sprintf(`WITH reported AS (
				SELECT id FROM allocations WHERE %s = $1 ORDER BY id FOR NO KEY UPDATE)
			UPDATE allocations a SET %s FROM reported r WHERE a.id = r.id`, device, unreported),
	}
}

func reportsOf(kind string) reportStatements {
	if kind == KindServer {
		return serverReports
	}
	return clientReports
}
