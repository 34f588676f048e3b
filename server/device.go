package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// ErrInvalidDevice means that no device can be created with the given settings.
var ErrInvalidDevice = errors.New("invalid device")

// NewDevice describes a device to create. The contract's rules for an enrollment hold.
type NewDevice struct {
	Name string
	// Kind is "client" or "server".
	Kind string
	// OwnerEmail and OrganisationID name the owner; at most one is set. A tunnel server
	// may have none, and then serves everyone.
	OwnerEmail     string
	OrganisationID int64

	// The other fields are for a tunnel server.

	// PublicHost is required.
	PublicHost string
	// Ports is the range of public ports; the zero value is 20000 to 29999.
	Ports  PortRange
	Region string
}

// CreatedDevice is a device with its token, which is stored nowhere.
type CreatedDevice struct {
	ID    uuid.UUID
	Token string
	// PublicHost is that of a tunnel server, and HostWarning what keeps players from it;
	// empty if nothing known does.
	PublicHost, HostWarning string
}

// CreateDevice creates an approved device, whether or not a panel is running, and
// migrates the database if necessary. If the settings are invalid, the error wraps
// ErrInvalidDevice and names them.
func CreateDevice(ctx context.Context, database Database, device NewDevice, logger *slog.Logger) (_ CreatedDevice, err error) {
	if err := device.check(); err != nil {
		return CreatedDevice{}, invalidDevice(err)
	}
	d, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return CreatedDevice{}, err
	}
	defer func() {
		closeErr := closeDB()
		if err == nil && closeErr != nil {
			// The device exists, and its token must reach the caller.
			logger.WarnContext(ctx, "database not closed cleanly", slog.Any("error", closeErr))
			return
		}
		err = errors.Join(err, closeErr)
	}()
	creation, err := device.creation(ctx, d)
	if err != nil {
		return CreatedDevice{}, err
	}
	// The URL matters to cookies only.
	tokens, err := auth.New(ctx, auth.Options{Store: d, PublicURL: &url.URL{Scheme: "http", Host: "localhost"}})
	if err != nil {
		return CreatedDevice{}, err
	}
	enroller, err := enroll.New(enroll.Options{Store: d, Tokens: tokens})
	if err != nil {
		return CreatedDevice{}, err
	}
	created, token, err := enroller.Create(ctx, creation)
	if err != nil {
		return CreatedDevice{}, invalidDevice(err)
	}
	return CreatedDevice{
		ID: created.ID, Token: token,
		PublicHost: created.PublicHost, HostWarning: publichost.Warning(created.Host, time.Now()),
	}, nil
}

// check checks the device against the contract.
func (n NewDevice) check() error {
	kind := types.DeviceKind(n.Kind)
	start := types.EnrollmentStart{Name: n.Name, Kind: &kind}
	if n.OrganisationID != 0 {
		start.OrganisationID = &n.OrganisationID
	}
	if n.PublicHost != "" || n.Region != "" || n.Ports != (PortRange{}) {
		start.Server = &types.TunnelServerSettings{Region: &n.Region}
		if n.PublicHost != "" {
			start.Server.PublicHost = &n.PublicHost
		}
		if n.Ports != (PortRange{}) {
			start.Server.PortRange = &types.PortRange{First: n.Ports.First, Last: n.Ports.Last}
		}
	}
	return validate.Check(eclitunnel.OpenAPI, "EnrollmentStart", start)
}

// creation returns the request to the rules of enrollment.
func (n NewDevice) creation(ctx context.Context, d *db.DB) (enroll.Creation, error) {
	creation := enroll.Creation{Start: enroll.Start{Name: n.Name, Kind: types.DeviceKind(n.Kind)}}
	if n.PublicHost != "" || n.Region != "" || n.Ports != (PortRange{}) {
		creation.Server = &enroll.ServerSettings{
			PublicHost: n.PublicHost, Region: n.Region, PortFirst: n.Ports.First, PortLast: n.Ports.Last,
		}
	}
	if n.OrganisationID != 0 {
		creation.OrganisationID = &n.OrganisationID
	}
	if n.OwnerEmail != "" {
		owner, err := d.UserByEmail(ctx, n.OwnerEmail)
		if errors.Is(err, db.ErrNotFound) {
			return enroll.Creation{}, fmt.Errorf("%w: owner: there is no user %s", ErrInvalidDevice, n.OwnerEmail)
		}
		if err != nil {
			return enroll.Creation{}, err
		}
		creation.OwnerID = &owner.ID
	}
	return creation, nil
}

// invalidDevice converts an error about the fields of a request.
func invalidDevice(err error) error {
	var invalid *problem.Error
	if !errors.As(err, &invalid) || invalid.Code != types.CodeInvalidRequest {
		return err
	}
	var fields []string
	for _, detail := range invalid.Details {
		fields = append(fields, detail.Field+" "+detail.Message)
	}
	return fmt.Errorf("%w: %s", ErrInvalidDevice, strings.Join(fields, "; "))
}
