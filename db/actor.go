package db

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The kinds of actors.
const (
	ActorUser      = "user"
	ActorKey       = "key" // An API key.
	ActorDevice    = "device"
	ActorCommand   = "command"   // A command of eclitunneld.
	ActorProvider  = "provider"  // An identity provider, whose people's accounts follow it.
	ActorPanel     = "panel"     // The panel itself, as when it rotates keys.
	ActorAnonymous = "anonymous" // A caller without a credential.
	// ActorUnknown is the kind of whoever a transaction does not name, as those of an earlier version.
	ActorUnknown = "unknown"
)

// Actor is who makes a change, for the audit trail.
type Actor struct {
	Kind string // One of the constants; "" means nobody, which is stored as ActorUnknown.
	// ID is that of the user, API key, device or provider, and the name of the operating system's user of
	// a command; empty for the other kinds.
	ID string
	// Name is for people: an email, or the name of a key or device. It is kept when that is deleted.
	Name string
	// Admin is set for admins of the panel, and for commands. Other people see neither their names nor their
	// addresses.
	Admin bool
	// Address is from where a request came; the zero Addr if it is not known.
	Address netip.Addr
}

type actorKey struct{}

// WithActor returns a context whose changes are those of an actor. Each transaction with such a context
// takes one round trip more.
func WithActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf returns the actor of WithActor, or the zero Actor.
func ActorOf(ctx context.Context) Actor {
	actor, _ := ctx.Value(actorKey{}).(Actor)
	return actor
}

// setActor names the actor of tx to the triggers of the audit trail (00023_audit.sql). It is a setting of
// the transaction and not of the connection, which a pooler may give to others.
func setActor(ctx context.Context, tx *sqlx.Tx, actor Actor) error {
	if actor.Kind == "" {
		return nil
	}
	fields := map[string]any{"kind": actor.Kind, "id": actor.ID, "name": actor.Name, "admin": actor.Admin}
	if actor.Address.IsValid() {
		fields["address"] = actor.Address.WithZone("").String()
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("name the actor: %w", err)
	}
	// A literal, because a parameter takes another round trip.
	_, err = tx.ExecContext(ctx, `SELECT set_config('eclitunnel.actor', `+pq.QuoteLiteral(string(text))+`, true)`)
	if err != nil {
		return fmt.Errorf("name the actor: %w", err)
	}
	return nil
}
