package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// portAttempts bounds how often a port is chosen anew after another caller was faster. Each
// collision is somebody's success, and choices are random, so the last ports of a range are
// contested a few times, never this often.
const portAttempts = 64

// NewAllocation asks for one public port, in one protocol or several.
type NewAllocation struct {
	DeviceID uuid.UUID // the tunnel client
	// ServerID is the tunnel server. nil means the online one with the fewest allocations.
	ServerID *uuid.UUID
	// Protocols are "tcp", "udp" or both, which then share the port.
	Protocols []string
	// Port is given or refused, within the server's range or not. 0 means a free one of the range.
	Port           int
	LocalHost      string
	LocalPort      int
	Name           string
	ProxyProtocol  string // "none", "v1" or "v2"
	UDPIdleSeconds int
}

// CreateAllocations makes an allocation for each protocol, in their order, all or none, and
// notifies both sides.
//
// Errors: [ErrNotFound] where the device is absent, or the server is absent, not approved or no
// server; [ErrConflict] where the device is not an approved client; [ErrPortTaken] where the port
// asked for belongs to another; [ErrNoPorts] where none is left to choose; [ErrNoServer] where a
// server is to be chosen and none is online.
func (d *DB) CreateAllocations(ctx context.Context, wish NewAllocation) ([]Allocation, error) {
	for attempt := 1; ; attempt++ {
		allocations, err := d.tryAllocate(ctx, wish)
		collided := errors.Is(err, errCollided)
		switch {
		case collided && attempt < portAttempts:
			continue
		case collided:
			return nil, fmt.Errorf("allocate port: lost %d times: %w", attempt, ErrNoPorts)
		}
		return allocations, wrap(err, "allocate port")
	}
}

// errCollided means that a port found free was taken before it was inserted.
var errCollided = errors.New("chosen port was taken meanwhile")

func (d *DB) tryAllocate(ctx context.Context, wish NewAllocation) ([]Allocation, error) {
	var allocations []Allocation
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		if err := requireClient(ctx, tx, wish.DeviceID); err != nil {
			return err
		}
		place, err := choosePlace(ctx, tx, wish)
		if err != nil {
			return err
		}
		ids, err := insertAllocations(ctx, tx, wish, place)
		if errors.Is(translate(err), ErrPortTaken) && !place.asked {
			return errCollided
		}
		if err != nil {
			return err
		}
		allocations = nil
		err = tx.SelectContext(ctx, &allocations, allocationQuery+` WHERE a.id = ANY ($1) ORDER BY a.id`, pq.Array(ids))
		if err != nil {
			return err
		}
		return notify(ctx, tx, wish.DeviceID, place.ServerID)
	})
	return allocations, err
}

// requireClient checks that the device may have allocations, and keeps it from being deleted
// before tx ends.
func requireClient(ctx context.Context, tx *sqlx.Tx, id uuid.UUID) error {
	var approvedClient bool
	err := tx.GetContext(ctx, &approvedClient,
		`SELECT kind = 'client' AND approved_at IS NOT NULL FROM devices WHERE id = $1 FOR KEY SHARE`, id)
	if err != nil {
		return err
	}
	if !approvedClient {
		return ErrConflict
	}
	return nil
}

// place is a port on a tunnel server.
type place struct {
	ServerID uuid.UUID `db:"server_id"`
	Port     *int      `db:"port"` // nil where the server has none left
	asked    bool      // the caller named server and port: there is no other to try
}

// freePorts are the ports of tunnel server d that are free in all protocols of $1.
const freePorts = `FROM generate_series(d.port_first, d.port_last) AS p
	WHERE p > 0 AND NOT EXISTS (SELECT 1 FROM allocations a
		WHERE a.server_id = d.id AND a.port = p AND a.protocol = ANY ($1::text[]))`

// choosePlace finds where the wish may be granted. The insert decides: nothing is reserved yet.
func choosePlace(ctx context.Context, tx *sqlx.Tx, wish NewAllocation) (place, error) {
	if wish.ServerID == nil {
		return chooseServer(ctx, tx, wish)
	}
	var found place
	// The choice is random so that callers at the same time rarely make the same.
	err := tx.GetContext(ctx, &found,
		`SELECT d.id AS server_id,
			CASE WHEN $3 > 0 THEN $3 ELSE (SELECT p `+freePorts+` ORDER BY random() LIMIT 1) END AS port
		FROM devices d WHERE d.id = $2 AND d.kind = 'server' AND d.approved_at IS NOT NULL`,
		pq.Array(wish.Protocols), *wish.ServerID, wish.Port)
	if err != nil {
		return place{}, err
	}
	if found.Port == nil {
		return place{}, ErrNoPorts
	}
	found.asked = wish.Port != 0
	return found, nil
}

// chooseServer finds the online tunnel server with the fewest allocations among those that can
// grant the wish.
func chooseServer(ctx context.Context, tx *sqlx.Tx, wish NewAllocation) (place, error) {
	var servers []struct {
		ID   uuid.UUID `db:"id"`
		Free bool      `db:"free"`
	}
	err := tx.SelectContext(ctx, &servers,
		`SELECT d.id,
			CASE WHEN $2 > 0
				THEN NOT EXISTS (SELECT 1 FROM allocations a
					WHERE a.server_id = d.id AND a.port = $2 AND a.protocol = ANY ($1::text[]))
				ELSE EXISTS (SELECT 1 `+freePorts+`)
			END AS free
		FROM devices d
		WHERE d.kind = 'server' AND d.approved_at IS NOT NULL AND `+deviceOnline+`
		ORDER BY free DESC, (SELECT count(*) FROM allocations a WHERE a.server_id = d.id), random() LIMIT 1`,
		pq.Array(wish.Protocols), wish.Port)
	switch {
	case err != nil:
		return place{}, err
	case len(servers) == 0:
		return place{}, ErrNoServer
	case !servers[0].Free && wish.Port != 0:
		return place{}, ErrPortTaken
	case !servers[0].Free:
		return place{}, ErrNoPorts
	}
	wish.ServerID = &servers[0].ID
	found, err := choosePlace(ctx, tx, wish)
	// Another server may still have the port when this one loses it.
	found.asked = false
	return found, err
}

// insertAllocations inserts in the order of the protocols, so that their ids have it too.
func insertAllocations(ctx context.Context, tx *sqlx.Tx, wish NewAllocation, at place) ([]int64, error) {
	var ids []int64
	err := tx.SelectContext(ctx, &ids,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
		SELECT $1, $2, p.protocol, $4, $5, $6, $7, $8, $9
		FROM unnest($3::text[]) WITH ORDINALITY AS p (protocol, position) ORDER BY p.position
		RETURNING id`,
		wish.DeviceID, at.ServerID, pq.Array(wish.Protocols), *at.Port, wish.LocalHost, wish.LocalPort,
		wish.Name, wish.ProxyProtocol, wish.UDPIdleSeconds)
	return ids, err
}
