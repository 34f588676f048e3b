package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// ProbeLifetime is for how long a probe is sent and its answer is taken.
const ProbeLifetime = 15 * time.Second

// Probe is something that a device is asked to find out.
type Probe struct {
	ID       uuid.UUID       `db:"id"`
	DeviceID uuid.UUID       `db:"device_id"`
	Question json.RawMessage `db:"question"`
}

// CheckedAllocation is an allocation to check, with what is known of its devices.
type CheckedAllocation struct {
	Allocation
	ServerName string `db:"server_name"`
	// ServerAddress is the address from which the tunnel server is, or was last, connected; nil if that is not
	// known.
	ServerAddress *string `db:"server_address"`
}

// CheckedAllocation returns an allocation of a device that the scope manages.
func (d *DB) CheckedAllocation(ctx context.Context, scope Scope, id int64) (CheckedAllocation, error) {
	var row struct {
		CheckedAllocation
		Managed bool `db:"managed"`
	}
	err := d.requests.GetContext(ctx, &row,
		`SELECT `+allocationColumns+`, s.name AS server_name, host(s.control_address) AS server_address, coalesce(`+manageable+`, false) AS managed`+
			allocationTables+` WHERE a.id = $4 AND a.retires IS NULL AND `+visible, scope.args(id)...)
	if err == nil && !row.Managed {
		err = ErrForbidden
	}
	return row.CheckedAllocation, wrap(err, "check allocation %d", id)
}

// ProbeServer is a tunnel server from which public ports of others are tried.
type ProbeServer struct {
	ID      uuid.UUID `db:"id"`
	Name    string    `db:"name"`
	Address *string   `db:"address"` // As ServerAddress of a CheckedAllocation.
}

// ProbeServers returns some of the tunnel servers that are connected, without one of them, in random order.
func (d *DB) ProbeServers(ctx context.Context, except uuid.UUID, limit int) ([]ProbeServer, error) {
	var servers []ProbeServer
	err := d.requests.SelectContext(ctx, &servers,
		`SELECT d.id, d.name, host(d.control_address) AS address FROM devices d
		WHERE d.kind = $1 AND d.id <> $2 AND `+deviceOnline+` ORDER BY random() LIMIT $3`, KindServer, except, limit)
	return servers, wrap(err, "tunnel servers that probe")
}

// AskProbes has devices asked, on whichever replica they are connected. A probe that is not answered within
// [ProbeLifetime] is forgotten.
func (d *DB) AskProbes(ctx context.Context, probes []Probe) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM probes WHERE id IN (
			SELECT id FROM probes WHERE created_at < now() - $1 * interval '1 second' LIMIT 1000 FOR UPDATE SKIP LOCKED)`,
			ProbeLifetime.Seconds())
		if err != nil {
			return err
		}
		devices := make([]uuid.UUID, 0, len(probes))
		for _, probe := range probes {
			// A device that was deleted meanwhile answers nothing.
			_, err := tx.ExecContext(ctx, `INSERT INTO probes (id, device_id, question)
				SELECT $1, d.id, $3 FROM devices d WHERE d.id = $2 FOR KEY SHARE`, probe.ID, probe.DeviceID, string(probe.Question))
			if err != nil {
				return err
			}
			devices = append(devices, probe.DeviceID)
		}
		return notify(ctx, tx, devices...)
	})
	return wrap(err, "ask %d probes", len(probes))
}

// ProbeAnswers returns the answers to those probes that are answered. JSON's null means that the device does not take
// probes.
func (d *DB) ProbeAnswers(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]json.RawMessage, error) {
	var rows []struct {
		ID     uuid.UUID       `db:"id"`
		Answer json.RawMessage `db:"answer"`
	}
	err := d.requests.SelectContext(ctx, &rows,
		`SELECT id, answer FROM probes WHERE id = ANY ($1::uuid[]) AND answer IS NOT NULL`, uuidArray(ids))
	answers := make(map[uuid.UUID]json.RawMessage, len(rows))
	for _, row := range rows {
		answers[row.ID] = row.Answer
	}
	return answers, wrap(err, "answers to probes")
}

// ForgetProbes deletes probes.
func (d *DB) ForgetProbes(ctx context.Context, ids []uuid.UUID) error {
	_, err := d.requests.ExecContext(ctx, `DELETE FROM probes WHERE id = ANY ($1::uuid[])`, uuidArray(ids))
	return wrap(err, "forget probes")
}

// TakeProbes returns the probes that a device is to be asked, each once. Concurrent calls share a statement.
func (d *DB) TakeProbes(ctx context.Context, device uuid.UUID) ([]Probe, error) {
	probes, err := d.batches.probes.Do(ctx, device)
	return probes, wrap(err, "probes of device %s", device)
}

func (d *DB) takeProbes(ctx context.Context, devices []uuid.UUID) ([][]Probe, error) {
	var rows []Probe
	err := d.devices.SelectContext(ctx, &rows, `UPDATE probes SET sent = true
		WHERE device_id = ANY ($1::uuid[]) AND NOT sent AND created_at > now() - $2 * interval '1 second'
		RETURNING id, device_id, question`, uuidArray(devices), ProbeLifetime.Seconds())
	if err != nil {
		return nil, err
	}
	of := make(map[uuid.UUID][]Probe, len(rows))
	for _, row := range rows {
		of[row.DeviceID] = append(of[row.DeviceID], row)
	}
	probes := make([][]Probe, len(devices))
	for i, device := range devices {
		probes[i] = of[device]
		delete(of, device) // Each once, however often a device is in the batch.
	}
	return probes, nil
}

// AnswerProbe stores the answer of a device to a probe that it was asked; others are ignored, and so is a second one.
func (d *DB) AnswerProbe(ctx context.Context, device, id uuid.UUID, answer json.RawMessage) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE probes SET answer = $3 WHERE id = $1 AND device_id = $2 AND answer IS NULL`, id, device, string(answer))
	return wrap(err, "answer to probe %s", id)
}
