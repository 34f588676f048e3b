package enroll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
)

// codeAttempts is the maximum number of user codes generated until one is not
// pending. Two collisions in a row become likely only with a quarter of a million
// pending devices.
const codeAttempts = 10

// Start is a request to start an enrollment.
type Start struct {
	Name           string
	Kind           types.DeviceKind
	OrganisationID *int64
	// Platform and AgentVersion are what the machine says of itself; empty if it says nothing.
	Platform, AgentVersion string
	// Tag is 128 random bits by which a page finds the enrollment, in base64url; empty for none.
	Tag string
	// Server is for tunnel servers only; nil means all defaults.
	Server *ServerSettings
}

// ServerSettings are the settings of a tunnel server. A zero field means its default.
type ServerSettings struct {
	// PublicHost defaults to the caller's address, or to Options.PublicHost if the
	// caller is on the panel's machine.
	PublicHost string
	// PortFirst and PortLast default to those of Options.
	PortFirst, PortLast int
	Region              string
	Cordoned            bool
}

// Started is a started enrollment.
type Started struct {
	// DeviceCode is the machine's secret. Only its hash is stored.
	DeviceCode string
	Device     db.Device
}

// Start starts an enrollment (RFC 8628 section 3.1) for the caller in ctx, who may be
// anonymous. The error may be any problem.Error that the contract lists for the
// operation.
func (e *Enroller) Start(ctx context.Context, start Start) (Started, error) {
	caller := auth.FromContext(ctx)
	// The contract's pattern does not cover all Unicode spaces.
	start.Name = strings.TrimSpace(start.Name)
	if err := start.check(); err != nil {
		return Started{}, err
	}
	if err := e.mayStart(ctx, caller, start); err != nil {
		return Started{}, err
	}
	now := e.options.Now()
	device := db.NewDevice{
		Name:           start.Name,
		Kind:           string(start.Kind),
		OrganisationID: start.OrganisationID,
		Platform:       start.Platform,
		AgentVersion:   start.AgentVersion,
		TagHash:        hashTag(start.Tag),
		TagFrom:        sources.Networks(auth.Address(ctx))[0],
		StartedFrom:    auth.Address(ctx),
		CreatedAt:      now,
		ExpiresAt:      now.Add(Lifetime),
	}
	if start.OrganisationID == nil {
		device.OwnerID, device.OrganisationID = caller.Owner()
	}
	if start.Kind == types.DeviceKindServer {
		applyServerSettings(ctx, &device, start.Server)
	}
	return e.create(ctx, device, pendingLimits(ctx, device))
}

// pendingLimits returns how many enrollments may be pending for device to become one.
func pendingLimits(ctx context.Context, device db.NewDevice) db.PendingLimits {
	limits := db.PendingLimits{Site: maxPending, Owner: maxOwned}
	if device.OwnerID == nil && device.OrganisationID == nil {
		limits.Unowned, limits.Networks = maxAnonymous, anonymousNetworks(ctx)
	}
	return limits
}

// check checks what the contract cannot express.
func (s Start) check() error {
	switch {
	case s.Server != nil && s.Kind != types.DeviceKindServer:
		return problem.Invalid(problem.Field("server", "is for a device of kind server only"))
	case s.Name == "":
		return problem.Invalid(problem.Field("name", "is blank"))
	case s.Server != nil:
		return CheckPortRange(s.Server.PortFirst, s.Server.PortLast)
	}
	return nil
}

// CheckPortRange checks the port range in the settings of a tunnel server.
func CheckPortRange(first, last int) error {
	if first > last {
		return problem.Invalid(problem.Field("server.portRange", "must not begin above its end"))
	}
	return nil
}

// applyServerSettings applies the requested settings to a tunnel server. The default
// host is determined now, while the machine itself is calling; Approve sets the other
// defaults.
func applyServerSettings(ctx context.Context, device *db.NewDevice, settings *ServerSettings) {
	if settings != nil {
		device.PublicHost, device.Region, device.Cordoned = settings.PublicHost, settings.Region, settings.Cordoned
		device.PortFirst, device.PortLast = settings.PortFirst, settings.PortLast
	}
	if device.PublicHost == "" {
		device.PublicHost = publichost.Guess(auth.Address(ctx), "") // Approve knows the panel's.
		device.HostGuessed = device.PublicHost != ""
	}
}

func (e *Enroller) mayStart(ctx context.Context, caller auth.Principal, start Start) error {
	if caller.Kind() == auth.KindAnonymous {
		return e.mayStartAnonymously(ctx, start)
	}
	if start.Kind == types.DeviceKindServer && !caller.May("startEnrollment", auth.TunnelServer) {
		return problem.Forbidden("Enrolling a tunnel server needs an admin.")
	}
	if start.OrganisationID == nil {
		return nil
	}
	return e.mayManage(ctx, caller, "startEnrollment", *start.OrganisationID)
}

func (e *Enroller) mayStartAnonymously(ctx context.Context, start Start) error {
	switch {
	case start.Kind == types.DeviceKindServer:
		return problem.Unauthorized("Enrolling a tunnel server needs an admin. Log in first.")
	case start.OrganisationID != nil:
		return problem.Unauthorized("Enrolling for an organisation needs its owner or admin. Log in first.")
	}
	perSource := auth.PerSource(ctx, "start:address", anonymousStarts, anonymousWindow)
	if wait := e.limits.Over(perSource...); wait > 0 {
		return problem.RateLimited(wait)
	}
	settings, err := e.options.Store.Settings(ctx)
	if err != nil {
		return err
	}
	if !settings.AnonymousEnrollment {
		return problem.Unauthorized("This panel does not accept enrollment without a session. Log in first.")
	}
	return e.limits.Check(ctx, perSource...)
}

// mayManage checks that the policy lets the caller use an operation for the organisation.
func (e *Enroller) mayManage(ctx context.Context, caller auth.Principal, operation string, organisationID int64) error {
	absent := problem.NotFound("There is no such organisation.")
	if caller.Scope().All {
		exists, err := e.options.Store.OrganisationExists(ctx, organisationID)
		if err == nil && !exists {
			return absent
		}
		return err
	}
	column, err := caller.In(ctx, e.options.Store, organisationID)
	if err != nil {
		return err
	}
	rule, _ := auth.RuleOf(operation, auth.Organisation)
	switch rule[column] {
	case auth.Allowed:
		return nil
	case http.StatusForbidden:
		return problem.Forbidden("This needs an owner or admin of the organisation.")
	default:
		return absent
	}
}

// create stores the device with new codes. The database ensures that no two pending
// devices share a user code; create retries with another code on a conflict.
func (e *Enroller) create(ctx context.Context, device db.NewDevice, limits db.PendingLimits) (Started, error) {
	deviceCode, hash, err := newDeviceCode(e.options.Random, device.ExpiresAt)
	if err != nil {
		return Started{}, err
	}
	device.CodeHash = hash
	for range codeAttempts {
		if device.UserCode, err = newUserCode(e.options.Random); err != nil {
			return Started{}, err
		}
		row, wait, err := e.options.Store.CreatePending(ctx, device, limits)
		if errors.Is(err, db.ErrTagTaken) {
			return Started{}, problem.TagTaken()
		}
		if errors.Is(err, db.ErrConflict) {
			continue
		}
		if err != nil {
			return Started{}, err
		}
		if wait > 0 {
			return Started{}, problem.RateLimited(wait)
		}
		return Started{DeviceCode: deviceCode, Device: row}, nil
	}
	// Not ErrConflict, which would blame the request.
	return Started{}, fmt.Errorf("generate user code: %d codes in a row were pending", codeAttempts)
}
