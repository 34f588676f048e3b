package db

import (
	"context"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// NewDevice is a device to enroll.
type NewDevice struct {
	Name           string
	Kind           string // KindClient or KindServer
	OwnerID        *int64 // at most one of OwnerID and OrganisationID
	OrganisationID *int64
	UserCode       string
	// CodeHash is a hash of the device code, which is not stored itself.
	CodeHash             []byte
	ExpiresAt, CreatedAt time.Time
	// Platform and AgentVersion are what the machine says of itself; empty if it says nothing.
	Platform, AgentVersion string
	// TagHash is a hash of the tag of the enrollment, which is not stored itself; nil without one. TagFrom is the network
	// whose later enrollments take the tag from earlier ones; the zero Prefix for none.
	TagHash []byte
	TagFrom netip.Prefix
	// StartedFrom is the address from which the enrollment is started; the zero Addr if it is not known.
	StartedFrom netip.Addr
	// Approved creates the device approved at CreatedAt, with its first token version. It needs no codes.
	Approved bool
	// The remaining fields are for tunnel servers. Approval sets those that are zero.
	PublicHost          string
	HostGuessed         bool // nobody has set PublicHost
	PortFirst, PortLast int
	Region              string
	Cordoned            bool
}

// CreateDevice stores a device, which is pending unless Approved is set. It returns [ErrConflict] if
// another pending device has the user code; try again with another code. It returns [ErrNotFound] if the
// owner or organisation does not exist, and a [QuotaError] if the owner would have too many approved devices.
func (d *DB) CreateDevice(ctx context.Context, device NewDevice) (Device, error) {
	var created Device
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) (err error) {
		if !device.Approved {
			created, err = insertDevice(ctx, tx, device)
			return err
		}
		owner := ownerOf(device.OwnerID, device.OrganisationID)
		hold, err := holdQuota(ctx, tx, Usage{Devices: 1}, ofOwner, owner.UserID, owner.OrganisationID)
		if err != nil {
			return err
		}
		if created, err = insertDevice(ctx, tx, device); err != nil {
			return err
		}
		return hold.check(ctx, tx, Usage{Devices: 1})
	})
	return created, wrap(err, "create device")
}

func insertDevice(ctx context.Context, tx *sqlx.Tx, device NewDevice) (Device, error) {
	var created Device
	err := tx.GetContext(ctx, &created,
		`INSERT INTO devices AS d (name, kind, owner_id, organisation_id, user_code, code_hash, expires_at, created_at,
			public_host, port_first, port_last, region, cordoned, approved_at, token_version,
			guessed_host, platform, agent_version, started_address, tag_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
			CASE WHEN $14 THEN $8::timestamptz END, CASE WHEN $14 THEN 1 ELSE 0 END,
			CASE WHEN $15 THEN $9 END, nullif($16, ''), nullif($17, ''), nullif($18, '')::inet, $19) RETURNING `+deviceColumns,
		device.Name, device.Kind, device.OwnerID, device.OrganisationID, device.UserCode, device.CodeHash,
		stamp(device.ExpiresAt), stamp(device.CreatedAt),
		device.PublicHost, device.PortFirst, device.PortLast, device.Region, device.Cordoned,
		device.Approved, device.HostGuessed, device.Platform, device.AgentVersion, addressText(device.StartedFrom), device.TagHash)
	return created, err
}

// addressText returns "" for the zero Addr.
func addressText(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// PendingLimits are how many enrollments may be pending. A limit of 0 does not count.
type PendingLimits struct {
	Site     int            // Of the panel.
	Unowned  int            // Of those without an owner.
	Owner    int            // Of the device's owner, a user or an organisation.
	Networks []NetworkLimit // Of networks, the first of which is the device's own.
}

// NetworkLimit is how many enrollments that were started from a network may be pending.
type NetworkLimit struct {
	Network netip.Prefix
	Max     int
}

// networks returns Networks as columns of a statement.
func (l PendingLimits) networks() (networks []string, bounds []int64) {
	networks, bounds = make([]string, len(l.Networks)), make([]int64, len(l.Networks))
	for i, n := range l.Networks {
		networks[i], bounds[i] = n.Network.String(), int64(n.Max)
	}
	return networks, bounds
}

// pendingLock is the advisory lock of [DB.CreatePending]: "ecle" in ASCII.
const pendingLock = 0x65636c65

// CreatePending stores a pending device as [DB.CreateDevice] does. If as many enrollments are pending as
// one of the limits allows, whichever replica created them, it stores nothing, and returns how long it is
// at least until one of the panel's expires. Those that have expired at device.CreatedAt do not count.
// It returns [ErrTagTaken] if another enrollment has the tag and keeps it: see freeTag.
func (d *DB) CreatePending(ctx context.Context, device NewDevice, limits PendingLimits) (created Device, wait time.Duration, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(pendingLock)); err != nil {
			return err
		}
		var err error
		if wait, err = pendingWait(ctx, tx, device, limits); err != nil || wait > 0 {
			return err
		}
		if err := freeTag(ctx, tx, device); err != nil {
			return err
		}
		if created, err = insertDevice(ctx, tx, device); err != nil || len(limits.Networks) == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE devices SET started_from = $2 WHERE id = $1`,
			created.ID, limits.Networks[0].Network.String())
		return err
	})
	return created, wait, wrap(err, "create pending device")
}

// pendingWait returns how long to wait if a limit is reached, and otherwise 0.
func pendingWait(ctx context.Context, tx *sqlx.Tx, device NewDevice, limits PendingLimits) (time.Duration, error) {
	now := stamp(device.CreatedAt)
	networks, bounds := limits.networks()
	var pending struct {
		All     int        `db:"all_pending"`
		Unowned int        `db:"unowned"`
		Owned   int        `db:"owned"`
		Full    bool       `db:"network_full"`
		Next    *time.Time `db:"next"`
	}
	err := tx.GetContext(ctx, &pending,
		`WITH pending AS (
			SELECT owner_id, organisation_id, started_from, expires_at FROM devices
			WHERE approved_at IS NULL AND expires_at > $1)
		SELECT count(*) AS all_pending,
			count(*) FILTER (WHERE owner_id IS NULL AND organisation_id IS NULL) AS unowned,
			count(*) FILTER (WHERE owner_id = $2 OR organisation_id = $3) AS owned,
			EXISTS (SELECT 1 FROM unnest($4::cidr[], $5::bigint[]) AS n (network, max)
				WHERE (SELECT count(*) FROM pending p WHERE p.started_from <<= n.network) >= n.max) AS network_full,
			min(expires_at) AS next
		FROM pending`,
		now, device.OwnerID, device.OrganisationID, pq.Array(networks), pq.Array(bounds))
	if err != nil {
		return 0, err
	}
	reached := func(count, limit int) bool { return limit > 0 && count >= limit }
	if !reached(pending.All, limits.Site) && !reached(pending.Unowned, limits.Unowned) &&
		!reached(pending.Owned, limits.Owner) && !pending.Full {
		return 0, nil
	}
	return max(time.Second, pending.Next.Sub(now)), nil
}

// DeviceByCodeHash returns the device with the given hash of its device code, whose enrollment may have
// ended: see [DB.NextEnrollmentToken].
func (d *DB) DeviceByCodeHash(ctx context.Context, hash []byte) (Device, error) {
	var device Device
	err := d.requests.GetContext(ctx, &device,
		`SELECT `+deviceColumns+` FROM devices d WHERE d.code_hash = $1 OR d.spent_code_hash = $1`, hash)
	return device, wrap(err, "device by code")
}

// Enrollment is a device with a user code, as people see it who decide about it.
type Enrollment struct {
	Device
	// StartedFrom is the address from which it was started; nil once approved, or if it is not known.
	StartedFrom      *string `db:"started_address"`
	OwnerEmail       *string `db:"owner_email"`       // nil if no user owns it
	OrganisationName *string `db:"organisation_name"` // nil if no organisation owns it
	// Role is that of the user who asks in the organisation that owns it; "" for none.
	Role string `db:"asker_role"`
}

// selectEnrollment selects enrollments as the user with the id $2 sees them.
const selectEnrollment = `SELECT ` + deviceColumns + `, host(d.started_address) AS started_address, u.email AS owner_email,
			o.name AS organisation_name, coalesce(m.role, '') AS asker_role
		FROM devices d
		LEFT JOIN users u ON u.id = d.owner_id
		LEFT JOIN organisations o ON o.id = d.organisation_id
		LEFT JOIN organisation_members m ON m.organisation_id = d.organisation_id AND m.user_id = $2`

// EnrollmentByUserCode returns the device with a user code, whoever owns it: the pending one if there is
// one, otherwise the newest with that code. userID is the user who asks, 0 for none.
func (d *DB) EnrollmentByUserCode(ctx context.Context, userCode string, userID int64) (Enrollment, error) {
	var enrollment Enrollment
	err := d.requests.GetContext(ctx, &enrollment, selectEnrollment+`
		WHERE d.user_code = $1 AND d.user_code <> ''
		ORDER BY d.approved_at IS NULL DESC, d.created_at DESC LIMIT 1`, userCode, userID)
	return enrollment, wrap(err, "enrollment by user code")
}

// RecordPoll enforces an interval between the polls of a device, across replicas. It records the poll
// and returns 0, or records nothing and returns how long to wait.
func (d *DB) RecordPoll(ctx context.Context, id uuid.UUID, now time.Time, interval time.Duration) (wait time.Duration, err error) {
	now = stamp(now)
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		wait = 0
		var last *time.Time
		err := tx.GetContext(ctx, &last, `SELECT polled_at FROM devices WHERE id = $1 FOR NO KEY UPDATE`, id)
		if err != nil {
			return err
		}
		if last != nil && now.Before(last.Add(interval)) {
			wait = last.Add(interval).Sub(now)
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE devices SET polled_at = $2 WHERE id = $1`, id, now)
		return err
	})
	return wait, wrap(err, "record poll of device %s", id)
}

// Approval is the approval of an enrollment.
type Approval struct {
	At time.Time
	// OwnerID or OrganisationID, if set, is the device's new owner. At most one may be set.
	OwnerID, OrganisationID *int64
	// Name, if not nil, replaces the device's name.
	Name *string
	// PublicHost, PortFirst and PortLast are the defaults of a tunnel server. The host is a guess.
	PublicHost          string
	PortFirst, PortLast int
}

// ApproveDevice approves a pending device that has not expired at approval.At; otherwise it returns
// [ErrConflict]. It returns [ErrNotFound] if the device, its new owner or its new organisation does not
// exist, and a [QuotaError] if its owner would have too many devices.
func (d *DB) ApproveDevice(ctx context.Context, id uuid.UUID, approval Approval) (Device, error) {
	var device Device
	added := Usage{Devices: 1}
	err := d.requests.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
		hold, err := approval.holdQuota(ctx, tx, id, added)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &device,
			`SELECT `+deviceColumns+` FROM devices d WHERE d.id = $1 FOR NO KEY UPDATE OF d`, id)
		if err != nil {
			return err
		}
		at := stamp(approval.At)
		if device.ApprovedAt != nil || !at.Before(device.ExpiresAt) {
			return ErrConflict
		}
		if approval.OwnerID != nil || approval.OrganisationID != nil {
			device.OwnerID, device.OrganisationID = approval.OwnerID, approval.OrganisationID
		}
		if ownerOf(device.OwnerID, device.OrganisationID) != hold.owner {
			return errLostRace
		}
		if approval.Name != nil {
			device.Name = *approval.Name
		}
		if device.PublicHost == "" {
			device.PublicHost = approval.PublicHost
		}
		if device.PortFirst == 0 {
			device.PortFirst, device.PortLast = approval.PortFirst, approval.PortLast
		}
		err = tx.GetContext(ctx, &device,
			`UPDATE devices AS d SET approved_at = $2, started_from = NULL, started_address = NULL, owner_id = $3, organisation_id = $4, name = $5,
				public_host = $6, port_first = $7, port_last = $8,
				guessed_host = CASE WHEN d.public_host = '' THEN nullif($6, '') ELSE d.guessed_host END
			WHERE d.id = $1 RETURNING `+deviceColumns,
			id, at, device.OwnerID, device.OrganisationID, device.Name,
			device.PublicHost, device.PortFirst, device.PortLast)
		if err != nil {
			return err
		}
		return hold.check(ctx, tx, added)
	})
	return device, wrap(err, "approve device %s", id)
}

// holdQuota locks the quota of the owner that the device has once it is approved.
func (a Approval) holdQuota(ctx context.Context, tx *sqlx.Tx, id uuid.UUID, may Usage) (quotaHold, error) {
	if o := ownerOf(a.OwnerID, a.OrganisationID); o != (owner{}) {
		return holdQuota(ctx, tx, may, ofOwner, o.UserID, o.OrganisationID)
	}
	return holdQuota(ctx, tx, may, ofDevice, id)
}

// DenyDevice deletes a pending device that has not expired at a time, and leaves a tombstone by which
// [DB.EnrollmentDenied] knows its code; if the device is approved or has expired, it returns [ErrConflict].
func (d *DB) DenyDevice(ctx context.Context, id uuid.UUID, at time.Time) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var pending bool
		err := tx.GetContext(ctx, &pending,
			`SELECT approved_at IS NULL AND expires_at > $2 FROM devices WHERE id = $1 FOR UPDATE`, id, stamp(at))
		if err != nil {
			return err
		}
		if !pending {
			return ErrConflict
		}
		return deleteDevices(ctx, tx, id)
	})
	return wrap(err, "deny device %s", id)
}

// NextEnrollmentToken raises the token version of an approved device that has never connected, for a
// token that replaces the last polled one. It notifies the tunnel servers on which the device already
// has allocations, which know its previous version. If the device is not approved or has connected, or its
// enrollment has ended with [DB.RegenerateToken], it returns [ErrConflict].
func (d *DB) NextEnrollmentToken(ctx context.Context, id uuid.UUID) (version int64, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var ready bool
		err := tx.GetContext(ctx, &ready,
			`SELECT approved_at IS NOT NULL AND first_connected_at IS NULL AND code_hash IS NOT NULL FROM devices WHERE id = $1 FOR UPDATE`, id)
		if err != nil {
			return err
		}
		if !ready {
			return ErrConflict
		}
		err = tx.GetContext(ctx, &version,
			`UPDATE devices SET token_version = token_version + 1 WHERE id = $1 RETURNING token_version`, id)
		if err != nil {
			return err
		}
		return notifyServersOf(ctx, tx, id)
	})
	return version, wrap(err, "enrollment token of device %s", id)
}
