// Package auth authenticates requests: it issues and verifies the panel's tokens, and
// turns a request's credential into a Principal.
//
// Tokens are JWTs signed with Ed25519 keys, which are stored in Postgres and shared by
// all replicas. One key signs at a time, and keys are rotated (see package db). There
// are three types of token, distinguished by their audience and never accepted in
// place of each other: sessions (people), device tokens (agents), and tickets, with
// which a tunnel client authenticates to a tunnel server. API keys (programs) are no
// JWTs but random, and the database knows their hashes.
package auth

import (
	"context"
	"net/netip"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Kind is the kind of a caller.
type Kind int

// The kinds of callers.
const (
	KindAnonymous Kind = iota
	KindUser
	KindDevice
	KindOrganisation
)

// Principal is the authenticated caller of a request: a user with a session or an API
// key, an organisation with an API key, or a device. The zero value is an anonymous caller.
type Principal struct {
	// User is set with a Session or a Key. The session of a Provider has no ID, and expires
	// when the provider has to be asked again.
	User    *db.User
	Session *db.Session
	// Key is the API key of the request. Without a User it is an organisation's. The key of a
	// Provider has no ID.
	Key *db.APIKey
	// Device is the device's row at the time its token was verified.
	Device *db.Device
	// TokenKey is the id of the key that signed the device's token.
	TokenKey string
}

// Kind returns the kind of the caller.
func (p Principal) Kind() Kind {
	switch {
	case p.User != nil:
		return KindUser
	case p.Device != nil:
		return KindDevice
	case p.Key != nil:
		return KindOrganisation
	default:
		return KindAnonymous
	}
}

// IsAdmin reports whether the caller is a user with the role admin. An API key has its
// user's role only if it has the scope for that.
func (p Principal) IsAdmin() bool {
	return p.User != nil && p.User.Role == string(types.RoleAdmin) && (p.Key == nil || p.scopes()&ScopeAdmin != 0)
}

// IsAdminsKey reports whether the caller is an API key of an admin of the panel, whatever
// its scopes.
func (p Principal) IsAdminsKey() bool {
	return p.Key != nil && p.User != nil && p.User.Role == string(types.RoleAdmin)
}

// Owner returns whose what the caller makes is: the user's or the organisation's. Both are
// nil for a device and an anonymous caller.
func (p Principal) Owner() (userID, organisationID *int64) {
	switch p.Kind() {
	case KindUser:
		return &p.User.ID, nil
	case KindOrganisation:
		return nil, p.Key.OrganisationID
	default:
		return nil, nil
	}
}

// IsUser reports whether the caller is the user, by a session or an API key.
func (p Principal) IsUser(id int64) bool { return p.User != nil && p.User.ID == id }

// Account names the caller's account, for limits: the same for a user's sessions and API
// keys.
func (p Principal) Account() string {
	switch userID, organisationID := p.Owner(); {
	case userID != nil:
		return "user:" + strconv.FormatInt(*userID, 10)
	case organisationID != nil:
		return "organisation:" + strconv.FormatInt(*organisationID, 10)
	default:
		return ""
	}
}

// Scope returns the rows that the caller may see and those that the caller manages.
func (p Principal) Scope() db.Scope {
	switch {
	case p.IsAdmin():
		return db.Scope{All: true, UserID: p.User.ID}
	case p.User != nil:
		return db.Scope{UserID: p.User.ID}
	case p.Device != nil:
		return db.Scope{DeviceID: p.Device.ID}
	case p.Key != nil:
		return db.Scope{OrganisationID: *p.Key.OrganisationID}
	default:
		return db.Scope{}
	}
}

type principalKey struct{}

type recordKey struct{}

// Record is what a request turned out to be, for a wrapper such as an access log.
type Record struct {
	// Address is the caller's; the zero Addr if it is not known.
	Address netip.Addr
	// Principal is the caller; the zero Principal if it is anonymous, or was refused.
	Principal Principal
	// Account is the email with which the caller tried to log in; "" if it did not.
	Account string
}

// Recording returns a context with a record that is filled while the request is served.
func Recording(ctx context.Context) (context.Context, *Record) {
	record := new(Record)
	return context.WithValue(ctx, recordKey{}, record), record
}

// recorded returns the record of a context, or one that nobody reads.
func recorded(ctx context.Context) *Record {
	if record, ok := ctx.Value(recordKey{}).(*Record); ok {
		return record
	}
	return new(Record)
}

// actor returns the caller as the audit trail names it.
func (p Principal) actor(ctx context.Context) db.Actor {
	switch {
	case p.Key != nil:
		actor := db.Actor{
			Kind: db.ActorKey, Name: p.Key.Name, Admin: p.User != nil && p.User.Role == string(types.RoleAdmin), Address: Address(ctx),
		}
		if p.Key.ID != 0 {
			actor.ID = strconv.FormatInt(p.Key.ID, 10)
		}
		return actor
	case p.User != nil:
		return p.User.Actor(ctx)
	case p.Device != nil:
		return p.Device.Actor(ctx)
	default:
		return db.ActorOf(ctx)
	}
}

// NewContext returns a context that carries the caller, who makes the changes with it,
// and records it.
func NewContext(ctx context.Context, p Principal) context.Context {
	recorded(ctx).Principal = p
	return context.WithValue(db.WithActor(ctx, p.actor(ctx)), principalKey{}, p)
}

// FromContext returns the caller that NewContext stored, or the zero Principal.
func FromContext(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
