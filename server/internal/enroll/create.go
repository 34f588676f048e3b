package enroll

import (
	"context"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Creation is a request for a device that needs no enrollment.
type Creation struct {
	Start
	// OwnerID is the user who owns the device; nil if OrganisationID is set. A tunnel
	// server may have neither.
	OwnerID *int64
}

// CreateFor is Create for the caller in ctx, a user or an organisation, who owns a tunnel
// client that nobody else is to own. The error may be any problem.Error that the contract lists for the
// operation.
func (e *Enroller) CreateFor(ctx context.Context, creation Creation) (db.Device, string, error) {
	const operation = "createDevice"
	caller := auth.FromContext(ctx)
	// An admin who has made a key with the scope enrollment has decided that its holder gets
	// devices: a machine that enrolls itself needs no scope that permits more.
	if !caller.IsAdminsKey() {
		if err := e.mayDecide(ctx, caller, operation); err != nil {
			return db.Device{}, "", err
		}
	}
	if creation.Kind == types.DeviceKindServer && !caller.May(operation, auth.TunnelServer) {
		return db.Device{}, "", problem.Forbidden("A tunnel server needs an admin of the panel.")
	}
	if err := e.mayGive(ctx, caller, operation, creation.OwnerID, creation.OrganisationID); err != nil {
		return db.Device{}, "", err
	}
	if creation.Kind == types.DeviceKindClient && creation.OwnerID == nil && creation.OrganisationID == nil {
		creation.OwnerID, creation.OrganisationID = caller.Owner()
	}
	return e.Create(ctx, creation)
}

// Create creates an approved device and returns it with its first token. The token is
// stored nowhere. Create is for the panel's operator and so checks no caller. The error
// is a problem.Error if the request is invalid.
func (e *Enroller) Create(ctx context.Context, creation Creation) (db.Device, string, error) {
	creation.Name = strings.TrimSpace(creation.Name)
	if err := creation.check(); err != nil {
		return db.Device{}, "", err
	}
	if err := e.checkNewOwner(ctx, Approval{OwnerID: creation.OwnerID, OrganisationID: creation.OrganisationID}); err != nil {
		return db.Device{}, "", err
	}
	now := e.options.Now()
	device := db.NewDevice{
		Name:           creation.Name,
		Kind:           string(creation.Kind),
		OwnerID:        creation.OwnerID,
		OrganisationID: creation.OrganisationID,
		CreatedAt:      now,
		ExpiresAt:      now,
		Approved:       true,
	}
	if creation.Kind == types.DeviceKindServer {
		applyServerSettings(ctx, &device, creation.Server)
		if device.PortFirst == 0 {
			device.PortFirst, device.PortLast = e.options.PortFirst, e.options.PortLast
		}
	}
	row, err := e.options.Store.CreateDevice(ctx, device)
	if err != nil {
		return db.Device{}, "", err
	}
	token, err := e.options.Tokens.DeviceToken(row.ID, row.Kind, row.TokenVersion)
	return row, token, err
}

// check checks what only an approval would supply.
func (c Creation) check() error {
	switch {
	case c.Kind == types.DeviceKindServer && (c.Server == nil || c.Server.PublicHost == ""):
		return problem.Invalid(problem.Field("server.publicHost", "is required for a tunnel server"))
	case c.Kind == types.DeviceKindClient && c.OwnerID == nil && c.OrganisationID == nil:
		return problem.Invalid(problem.Field("ownerId", "is required for a tunnel client, unless an organisation owns it"))
	}
	return c.Start.check()
}
