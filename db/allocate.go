package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// portAttempts bounds the retries after a concurrent caller has taken the chosen port. Each
// collision means that another caller succeeded, and choices are random, so that even the last
// ports of a range take a few attempts only.
const portAttempts = 64

// NewAllocation is a request for one public port or a run of neighbouring ones, in one protocol or
// several.
type NewAllocation struct {
	DeviceID uuid.UUID // the tunnel client
	// ServerID is the tunnel server. nil means the best one: see [DB.CreateAllocations].
	ServerID *uuid.UUID
	// OnCordoned allows the tunnel server ServerID to be cordoned.
	OnCordoned bool
	// Protocols are "tcp", "udp" or both, which then share the port.
	Protocols []string
	// Count is the number of ports, from Port and LocalPort on. 0 means 1. The last port is at most
	// 65535.
	Count int
	// Port is the requested port, which may be outside the server's range. 0 means any free port
	// of the range.
	Port int
	// AnyPort allows a Port outside the range beyond the quota of the device's owner.
	AnyPort        bool
	LocalHost      string
	LocalPort      int
	Name           string
	ProxyProtocol  string // "none", "v1" or "v2"
	UDPIdleSeconds int
	// PlayerAddresses gives each player an address of 127.0.0.0/8 at a game there.
	PlayerAddresses bool
	// Paused allocations get a port and take nobody until they are enabled.
	Paused bool
	// Rules are its own rules. Nulls are dropped.
	Rules RulesPatch
	// Labels are those of each of them.
	Labels Labels
}

// CreateAllocations creates an allocation for each port and protocol, in the order of the ports and
// then of the protocols, all or none, and notifies both sides.
//
// A tunnel server may serve the devices of its organisation, or all devices if it has none. The best
// tunnel server for a device may serve it, is online, is not cordoned and has the ports free. Among
// several, one is preferred whose range has the requested port, then one that keeps the rules, then one of the
// device's organisation, then the one with the fewest allocations relative to the size of its range.
//
// Errors: [ErrNotFound] if the device does not exist, or the tunnel server does not exist, is not
// approved or may not serve the device; [ErrConflict] if the device is not an approved client;
// [ErrCordoned] and [ErrDraining] if the tunnel server accepts no allocations; [ErrPortTaken] if the
// requested port, or another port of the run, belongs to another allocation; [ErrNoPorts] if the range
// has no free port, or no free run; [ErrNoServer] if no tunnel server is requested and none is suitable;
// [ErrLoop] if the local target leads back to the port; [QuotaError] if the device's owner would have too many
// allocations, or too many ports outside the range that were requested.
func (d *DB) CreateAllocations(ctx context.Context, request NewAllocation) ([]Allocation, error) {
	request.Count = max(request.Count, 1)
	may := Usage{Allocations: 1}
	if request.Port != 0 && !request.AnyPort {
		may.PortsOutsideRange = 1
	}
	var allocations []Allocation
	err := d.requests.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
		hold, err := holdQuota(ctx, tx, may, ofDevice, request.DeviceID)
		if err != nil {
			return err
		}
		owner, err := requireClient(ctx, tx, request.DeviceID)
		switch {
		case err != nil:
			return err
		case owner != hold.owner:
			return errLostRace
		}
		at, err := choosePlacement(ctx, tx, placementRequest{
			device: request.DeviceID, server: request.ServerID, onCordoned: request.OnCordoned,
			protocols: request.Protocols, count: request.Count, port: request.Port, rules: request.Rules,
		})
		if err != nil {
			return err
		}
		ids, err := insertAllocations(ctx, tx, request, at)
		if err != nil {
			return at.conflict(err)
		}
		if err := hold.checkAllocations(ctx, tx, ids); err != nil {
			return err
		}
		if err := checkLoop(ctx, tx, ids); err != nil {
			return err
		}
		allocations = nil
		err = tx.SelectContext(ctx, &allocations, allocationQuery+` WHERE a.id = ANY ($1) ORDER BY a.id`, pq.Array(ids))
		if err != nil {
			return err
		}
		return notify(ctx, tx, request.DeviceID, at.server)
	})
	return allocations, wrap(err, "allocate port")
}

// errLostRace means that a concurrent transaction has invalidated a choice before it was written.
var errLostRace = errors.New("lost a race with another transaction")

// retryOnConflict runs fn in a transaction, and again while fn returns errLostRace.
func (l *lane) retryOnConflict(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := l.tx(ctx, fn)
		switch collided := errors.Is(err, errLostRace); {
		case collided && attempt < portAttempts:
		case collided:
			return fmt.Errorf("%d conflicts in a row: %w", attempt, ErrNoPorts)
		default:
			return err
		}
	}
}

// requireClient checks that the device is an approved client, locks it against deletion and another owner until
// tx ends, and returns its owner.
func requireClient(ctx context.Context, tx *sqlx.Tx, id uuid.UUID) (owner, error) {
	var device struct {
		owner
		ApprovedClient bool `db:"approved_client"`
	}
	err := tx.GetContext(ctx, &device,
		`SELECT `+ownerColumns+`, kind = 'client' AND approved_at IS NOT NULL AS approved_client
		FROM devices d WHERE id = $1 FOR KEY SHARE`, id)
	if err == nil && !device.ApprovedClient {
		err = ErrConflict
	}
	return device.owner, err
}

// placementRequest describes what to place, and where it may be placed.
type placementRequest struct {
	device        uuid.UUID
	server        *uuid.UUID // nil means the best one.
	onCordoned    bool       // server may be cordoned.
	online        bool       // server must be online.
	protocols     []string
	count         int   // The number of neighbouring ports, at least 1.
	port          int   // The first port; 0 means any free one.
	preferredPort int   // The first port to use if port is 0 and it is free; 0 means none.
	rules         Rules // The names of the allocations' own rules are what counts.
	// check is called when the allocations are locked that are to move. Its error ends the move; nil checks nothing.
	check func() error
}

// placement is the first port of a run, or the only one, on a tunnel server. Choosing it reserves
// nothing; inserting the allocation does.
type placement struct {
	server    uuid.UUID
	port      int
	requested bool // The caller requested this server and port, so there is no alternative.
}

// conflict translates an error of writing an allocation to a placement: if the port was taken and there
// are alternatives, it returns errLostRace.
func (p placement) conflict(err error) error {
	if errors.Is(translate(err), ErrPortTaken) && !p.requested {
		return errLostRace
	}
	return err
}

// mayServe is the condition that tunnel server d may serve device $1.
const mayServe = `d.kind = 'server' AND d.approved_at IS NOT NULL AND (d.organisation_id IS NULL
	OR d.organisation_id = (SELECT c.organisation_id FROM devices c WHERE c.id = $1))`

// portsFree returns the condition that a run of count ports from an expression on is free on tunnel
// server d in all protocols of $2. The port on which the tunnel server accepts agents is never free, in
// neither protocol.
func portsFree(first string, count int) string {
	run := fmt.Sprintf(`BETWEEN %[1]s AND %[1]s + %[2]d`, first, count-1)
	return `d.relay_port NOT ` + run + ` AND NOT EXISTS (SELECT 1 FROM allocations a
		WHERE a.server_id = d.id AND a.port ` + run + ` AND a.protocol = ANY ($2::text[]))`
}

// hasFreePorts returns the condition that the range of tunnel server d has a run of count ports that are
// free in all protocols of $2. It ends at the first one, which most servers have near the beginning.
func hasFreePorts(count int) string {
	return fmt.Sprintf(`EXISTS (SELECT 1 FROM generate_series(d.port_first, d.port_last - %d) AS p WHERE p > 0 AND %s)`,
		count-1, portsFree("p", count))
}

// freePorts returns the query for the first ports p of all such runs. It looks at each port once,
// whatever count is.
func freePorts(count int) string {
	return fmt.Sprintf(`SELECT p FROM (
			SELECT p, lead(p, %[1]d) OVER (ORDER BY p) - p AS span
			FROM generate_series(d.port_first, d.port_last) AS p
			WHERE p > 0 AND d.relay_port <> p AND NOT EXISTS (SELECT 1 FROM allocations a
				WHERE a.server_id = d.id AND a.port = p AND a.protocol = ANY ($2::text[]))) AS free
		WHERE span = %[1]d`, count-1)
}

// choosePlacement chooses a placement that satisfies the request, and locks the tunnel server against
// changes, such as cordoning, until tx ends.
func choosePlacement(ctx context.Context, tx *sqlx.Tx, request placementRequest) (placement, error) {
	server, err := reserveServer(ctx, tx, request)
	if err != nil {
		return placement{}, err
	}
	port, err := choosePort(ctx, tx, server, request)
	if errors.Is(err, ErrNoPorts) && request.server == nil {
		return placement{}, errLostRace // Its last port was taken; another tunnel server may have one.
	}
	return placement{server: server, port: port, requested: request.server != nil && request.port != 0}, err
}

// reserveServer chooses the tunnel server of a placement and locks it.
func reserveServer(ctx context.Context, tx *sqlx.Tx, request placementRequest) (uuid.UUID, error) {
	if request.server != nil {
		return *request.server, lockServer(ctx, tx, request, *request.server)
	}
	server, err := chooseServer(ctx, tx, request)
	if err != nil {
		return uuid.Nil, err
	}
	err = lockServer(ctx, tx, request, server)
	if errors.Is(err, ErrConflict) || errors.Is(translate(err), ErrNotFound) {
		return uuid.Nil, errLostRace // It was cordoned or deleted in the meantime.
	}
	return server, err
}

// choosePort chooses the port of a placement.
func choosePort(ctx context.Context, tx *sqlx.Tx, server uuid.UUID, request placementRequest) (int, error) {
	if request.port != 0 {
		return request.port, nil
	}
	var port *int
	// The choice is random so that concurrent callers rarely collide.
	err := tx.GetContext(ctx, &port,
		`SELECT coalesce(
			(SELECT $3::int WHERE $3 > 0 AND `+portsFree("$3", request.count)+`),
			(`+freePorts(request.count)+` ORDER BY random() LIMIT 1))
		FROM devices d WHERE d.id = $1`,
		server, pq.Array(request.protocols), request.preferredPort)
	switch {
	case err != nil:
		return 0, err
	case port == nil:
		return 0, ErrNoPorts
	}
	return *port, nil
}

// lockServer checks that the tunnel server can serve the request, and locks it against changes
// until tx ends.
func lockServer(ctx context.Context, tx *sqlx.Tx, request placementRequest, id uuid.UUID) error {
	var server struct {
		Cordoned bool `db:"cordoned"`
		Draining bool `db:"draining"`
		Online   bool `db:"online"`
		Own      bool `db:"own"` // One of the ports requested is its own.
	}
	err := tx.GetContext(ctx, &server,
		`SELECT d.cordoned, d.drain_until IS NOT NULL AS draining, `+deviceOnline+` AS online,
			$3 > 0 AND d.relay_port BETWEEN $3 AND $3 + $4 - 1 AS own
		FROM devices d WHERE d.id = $2 AND `+mayServe+` FOR SHARE OF d`, request.device, id, request.port, request.count)
	switch {
	case err != nil:
		return err
	case server.Draining:
		return ErrDraining
	case server.Cordoned && !request.onCordoned:
		return ErrCordoned
	case request.online && !server.Online:
		return ErrOffline
	case server.Own:
		return ErrPortTaken
	}
	return nil
}

// chooseServer finds the best tunnel server for a request: see [DB.CreateAllocations].
func chooseServer(ctx context.Context, tx *sqlx.Tx, request placementRequest) (uuid.UUID, error) {
	var servers []struct {
		ID   uuid.UUID `db:"id"`
		Free bool      `db:"free"`
	}
	err := tx.SelectContext(ctx, &servers,
		`SELECT d.id,
			CASE WHEN $3 > 0
				THEN `+portsFree("$3", request.count)+`
				ELSE `+hasFreePorts(request.count)+` OR ($4 > 0 AND `+portsFree("$4", request.count)+`)
			END AS free
		FROM devices d
		WHERE `+mayServe+` AND NOT d.cordoned AND `+deviceOnline+`
		ORDER BY free DESC, (d.port_first <= $3 AND $3 + $6 - 1 <= d.port_last) DESC, `+keepsRules+` DESC, d.organisation_id IS NULL,
			(SELECT count(*) FROM allocations a WHERE a.server_id = d.id)::float / (d.port_last - d.port_first + 1),
			random()
		LIMIT 1`,
		request.device, pq.Array(request.protocols), request.port, request.preferredPort, request.rules, request.count)
	switch {
	case err != nil:
		return uuid.Nil, err
	case len(servers) == 0:
		return uuid.Nil, ErrNoServer
	case !servers[0].Free && request.port != 0:
		return uuid.Nil, ErrPortTaken
	case !servers[0].Free:
		return uuid.Nil, ErrNoPorts
	}
	return servers[0].ID, nil
}

// insertAllocations inserts a row for each port and protocol, with ids in the order of the ports and
// then of the protocols. Concurrent callers whose runs overlap cannot deadlock, because all insert in
// this order.
func insertAllocations(ctx context.Context, tx *sqlx.Tx, request NewAllocation, at placement) ([]int64, error) {
	var run *uuid.UUID
	if request.Count > 1 {
		id := uuid.New()
		run = &id
	}
	var ids []int64
	err := tx.SelectContext(ctx, &ids,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol,
			udp_idle_seconds, run_id, player_addresses, rules, enabled, labels)
		SELECT $1, $2, p.protocol, $4 + o.n, $5, $6 + o.n, $7, $8, $9, $11, $12, jsonb_strip_nulls($13::jsonb), NOT $14, $15::jsonb
		FROM generate_series(0, $10 - 1) AS o (n), unnest($3::text[]) WITH ORDINALITY AS p (protocol, position)
		ORDER BY o.n, p.position
		RETURNING id`,
		request.DeviceID, at.server, pq.Array(request.Protocols), at.port, request.LocalHost, request.LocalPort,
		request.Name, request.ProxyProtocol, request.UDPIdleSeconds, request.Count, run, request.PlayerAddresses, request.Rules, request.Paused,
		request.Labels)
	return ids, err
}
