// Package auth tells who is asking: it issues and checks the panel's tokens, and
// turns a request's credential into a Principal.
//
// Tokens are JWTs signed with Ed25519 by the panel's keys, which live in Postgres
// and are the same on every replica. One of them signs at a time; it is followed
// by another now and then (package db says when). There are three sorts, told apart by
// their audience, and none is ever taken for another: sessions (people), device
// tokens (agents) and tickets (a tunnel client's proof to a tunnel server).
package auth

import (
	"context"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Kind is the sort of caller.
type Kind int

// The sorts of caller.
const (
	KindAnonymous Kind = iota
	KindUser
	KindDevice
)

// Principal is who makes a request: a user with a session, a device, or, as the
// zero value, nobody known.
type Principal struct {
	// User and Session are set together.
	User    *db.User
	Session *db.Session
	// Device is the row as it was when its token was checked.
	Device *db.Device
	// TokenKey is the id of the key that signed the device's token.
	TokenKey string
}

// Kind returns the sort of caller.
func (p Principal) Kind() Kind {
	switch {
	case p.User != nil:
		return KindUser
	case p.Device != nil:
		return KindDevice
	default:
		return KindAnonymous
	}
}

// IsAdmin reports whether the caller is a user with the role admin.
func (p Principal) IsAdmin() bool {
	return p.User != nil && p.User.Role == string(types.RoleAdmin)
}

// Scope says whose rows the caller may see.
func (p Principal) Scope() db.Scope {
	switch {
	case p.IsAdmin():
		return db.Scope{All: true}
	case p.User != nil:
		return db.Scope{UserID: p.User.ID}
	case p.Device != nil:
		return db.Scope{DeviceID: p.Device.ID}
	default:
		return db.Scope{}
	}
}

type principalKey struct{}

type recordKey struct{}

// Recording returns ctx with a slot for the caller, which is not known yet: what
// wraps a request, as a log does, can read it once the request is served.
func Recording(ctx context.Context) (context.Context, *Principal) {
	slot := new(Principal)
	return context.WithValue(ctx, recordKey{}, slot), slot
}

// NewContext returns ctx with the caller in it, and fills the slot of Recording.
func NewContext(ctx context.Context, p Principal) context.Context {
	if slot, ok := ctx.Value(recordKey{}).(*Principal); ok {
		*slot = p
	}
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the caller; the zero Principal where none was put.
func FromContext(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
