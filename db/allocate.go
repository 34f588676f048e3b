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
	// ServerID is the tunnel server. nil means the best: see [DB.CreateAllocations].
	ServerID *uuid.UUID
	// OnCordoned allows ServerID to be cordoned.
	OnCordoned bool
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
// A tunnel server may serve devices of its organisation or, where it has none, all. The best for a
// device is one that may serve it, is online and not cordoned, and has the port free; among those
// one of the device's organisation before one of none, then the one with the fewest allocations for
// the size of its range.
//
// Errors: [ErrNotFound] where the device is absent, or the server is absent, not approved, no server
// or may not serve the device; [ErrConflict] where the device is not an approved client;
// [ErrCordoned] and [ErrDraining] where the server takes no allocations; [ErrPortTaken] where the
// port asked for belongs to another; [ErrNoPorts] where none is left to choose; [ErrNoServer] where a
// server is to be chosen and none may be.
func (d *DB) CreateAllocations(ctx context.Context, wish NewAllocation) ([]Allocation, error) {
	var allocations []Allocation
	err := d.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
		if err := requireClient(ctx, tx, wish.DeviceID); err != nil {
			return err
		}
		at, err := choosePlacement(ctx, tx, placementRequest{
			device: wish.DeviceID, server: wish.ServerID, onCordoned: wish.OnCordoned,
			protocols: wish.Protocols, port: wish.Port,
		})
		if err != nil {
			return err
		}
		ids, err := insertAllocations(ctx, tx, wish, at)
		if err != nil {
			return at.lost(err)
		}
		allocations = nil
		err = tx.SelectContext(ctx, &allocations, allocationQuery+` WHERE a.id = ANY ($1) ORDER BY a.id`, pq.Array(ids))
		if err != nil {
			return err
		}
		return notify(ctx, tx, wish.DeviceID, at.server)
	})
	return allocations, wrap(err, "allocate port")
}

// errLostRace means that what was chosen was taken before it was written.
var errLostRace = errors.New("what was chosen was taken meanwhile")

// contend runs fn in a transaction, and again for as long as others are faster: fn returns
// errLostRace then.
func (d *DB) retryOnConflict(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := d.tx(ctx, fn)
		switch collided := errors.Is(err, errLostRace); {
		case collided && attempt < portAttempts:
		case collided:
			return fmt.Errorf("lost %d times: %w", attempt, ErrNoPorts)
		default:
			return err
		}
	}
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

// placementRequest says what is to be placed, and where it may be.
type placementRequest struct {
	device     uuid.UUID
	server     *uuid.UUID // nil: the best.
	onCordoned bool       // server may be cordoned.
	online     bool       // server must be online.
	protocols  []string
	port       int // 0: any that is free.
	rather     int // Of those, this one; 0: none is preferred.
}

// place is a port on a tunnel server. Nothing is reserved by choosing it: the write decides.
type place struct {
	server uuid.UUID
	port   int
	asked  bool // The caller named server and port: there is no other to try.
}

// lost is what an error of writing an allocation to a place means.
func (p place) lost(err error) error {
	if errors.Is(translate(err), ErrPortTaken) && !p.asked {
		return errLostRace
	}
	return err
}

// mayServe holds for the tunnel servers d that may serve the device $1.
const mayServe = `d.kind = 'server' AND d.approved_at IS NOT NULL AND (d.organisation_id IS NULL
	OR d.organisation_id = (SELECT c.organisation_id FROM devices c WHERE c.id = $1))`

// portFree holds where the port in %s is free on tunnel server d in all protocols of $2. The one on
// which that takes agents, in TCP and UDP, never is.
const portFree = `d.relay_port <> %[1]s AND NOT EXISTS (SELECT 1 FROM allocations a
	WHERE a.server_id = d.id AND a.port = %[1]s AND a.protocol = ANY ($2::text[]))`

// freePorts are the ports of the range of tunnel server d that are free in all protocols of $2.
var freePorts = `FROM generate_series(d.port_first, d.port_last) AS p WHERE p > 0 AND ` + fmt.Sprintf(portFree, "p")

// choosePlacement finds where the wish may be granted, and keeps the tunnel server as it is, uncordoned
// for one, until tx ends.
func choosePlacement(ctx context.Context, tx *sqlx.Tx, wish placementRequest) (place, error) {
	server, err := reserveServer(ctx, tx, wish)
	if err != nil {
		return place{}, err
	}
	port, err := choosePort(ctx, tx, server, wish)
	if errors.Is(err, ErrNoPorts) && wish.server == nil {
		return place{}, errLostRace // Its last one went meanwhile; another may have some.
	}
	return place{server: server, port: port, asked: wish.server != nil && wish.port != 0}, err
}

// reserveServer is the half of choosePlacement that finds the tunnel server and keeps it.
func reserveServer(ctx context.Context, tx *sqlx.Tx, wish placementRequest) (uuid.UUID, error) {
	if wish.server != nil {
		return *wish.server, lockServer(ctx, tx, wish, *wish.server)
	}
	server, err := chooseServer(ctx, tx, wish)
	if err != nil {
		return uuid.Nil, err
	}
	err = lockServer(ctx, tx, wish, server)
	if errors.Is(err, ErrConflict) || errors.Is(translate(err), ErrNotFound) {
		return uuid.Nil, errLostRace // It was cordoned or deleted meanwhile.
	}
	return server, err
}

// choosePort is the other half, which finds a port.
func choosePort(ctx context.Context, tx *sqlx.Tx, server uuid.UUID, wish placementRequest) (int, error) {
	if wish.port != 0 {
		return wish.port, nil
	}
	var port *int
	// The choice is random so that callers at the same time rarely make the same.
	err := tx.GetContext(ctx, &port,
		`SELECT coalesce(
			(SELECT $3::int WHERE $3 > 0 AND `+fmt.Sprintf(portFree, "$3")+`),
			(SELECT p `+freePorts+` ORDER BY random() LIMIT 1))
		FROM devices d WHERE d.id = $1`,
		server, pq.Array(wish.protocols), wish.rather)
	switch {
	case err != nil:
		return 0, err
	case port == nil:
		return 0, ErrNoPorts
	}
	return *port, nil
}

// lockServer checks that the tunnel server may take the wish, and keeps it so until tx ends.
func lockServer(ctx context.Context, tx *sqlx.Tx, wish placementRequest, id uuid.UUID) error {
	var server struct {
		Cordoned bool `db:"cordoned"`
		Draining bool `db:"draining"`
		Online   bool `db:"online"`
		Own      bool `db:"own"` // The port asked for is its own.
	}
	err := tx.GetContext(ctx, &server,
		`SELECT d.cordoned, d.drain_until IS NOT NULL AS draining, `+deviceOnline+` AS online,
			$3 > 0 AND d.relay_port = $3 AS own
		FROM devices d WHERE d.id = $2 AND `+mayServe+` FOR SHARE OF d`, wish.device, id, wish.port)
	switch {
	case err != nil:
		return err
	case server.Draining:
		return ErrDraining
	case server.Cordoned && !wish.onCordoned:
		return ErrCordoned
	case wish.online && !server.Online:
		return ErrOffline
	case server.Own:
		return ErrPortTaken
	}
	return nil
}

// chooseServer finds the best tunnel server for a wish: see [DB.CreateAllocations].
func chooseServer(ctx context.Context, tx *sqlx.Tx, wish placementRequest) (uuid.UUID, error) {
	var servers []struct {
		ID   uuid.UUID `db:"id"`
		Free bool      `db:"free"`
	}
	err := tx.SelectContext(ctx, &servers,
		`SELECT d.id,
			CASE WHEN $3 > 0
				THEN `+fmt.Sprintf(portFree, "$3")+`
				ELSE EXISTS (SELECT 1 `+freePorts+`) OR ($4 > 0 AND `+fmt.Sprintf(portFree, "$4")+`)
			END AS free
		FROM devices d
		WHERE `+mayServe+` AND NOT d.cordoned AND `+deviceOnline+`
		ORDER BY free DESC, d.organisation_id IS NULL,
			(SELECT count(*) FROM allocations a WHERE a.server_id = d.id)::float / (d.port_last - d.port_first + 1),
			random()
		LIMIT 1`,
		wish.device, pq.Array(wish.protocols), wish.port, wish.rather)
	switch {
	case err != nil:
		return uuid.Nil, err
	case len(servers) == 0:
		return uuid.Nil, ErrNoServer
	case !servers[0].Free && wish.port != 0:
		return uuid.Nil, ErrPortTaken
	case !servers[0].Free:
		return uuid.Nil, ErrNoPorts
	}
	return servers[0].ID, nil
}

// insertAllocations inserts in the order of the protocols, so that their ids have it too.
func insertAllocations(ctx context.Context, tx *sqlx.Tx, wish NewAllocation, at place) ([]int64, error) {
	var ids []int64
	err := tx.SelectContext(ctx, &ids,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
		SELECT $1, $2, p.protocol, $4, $5, $6, $7, $8, $9
		FROM unnest($3::text[]) WITH ORDINALITY AS p (protocol, position) ORDER BY p.position
		RETURNING id`,
		wish.DeviceID, at.server, pq.Array(wish.Protocols), at.port, wish.LocalHost, wish.LocalPort,
		wish.Name, wish.ProxyProtocol, wish.UDPIdleSeconds)
	return ids, err
}
