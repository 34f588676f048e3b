package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// ticketIssuer is the issuer of everything the panel signs, ticketUse what sets
// tickets apart from its other tokens.
const (
	ticketIssuer = "eclitunnel"
	ticketUse    = "ticket"
)

// clockSkew is by how much the panel's clock and ours may differ.
const clockSkew = time.Minute

// ticket is what a tunnel client has shown to be.
type ticket struct {
	client  uuid.UUID
	version int64
}

// ticketVerifier verifies tickets with the panel's public keys and no call to
// the panel: while the panel is away, tunnel clients can come back for as long
// as their tickets last.
type ticketVerifier struct {
	audience string
	now      func() time.Time
	keys     atomic.Pointer[jwk.Set]
}

func newTicketVerifier(server uuid.UUID, now func() time.Time) *ticketVerifier {
	return &ticketVerifier{audience: server.String(), now: now}
}

// setKeys replaces the keys. Any key that is not for EdDSA is an error and
// leaves the keys as they were: the algorithm is not the ticket's to choose.
func (v *ticketVerifier) setKeys(keys types.JWKS) error {
	data, err := json.Marshal(keys)
	if err != nil {
		return fmt.Errorf("marshal the panel's keys: %w", err)
	}
	set, err := jwk.Parse(data)
	if err != nil {
		return fmt.Errorf("read the panel's keys: %w", err)
	}
	for i := range set.Len() {
		if key, _ := set.Key(i); key.Algorithm() != jwa.EdDSA {
			return fmt.Errorf("the panel's key %q is for %s", key.KeyID(), key.Algorithm())
		}
	}
	v.keys.Store(&set)
	return nil
}

func (v *ticketVerifier) verify(token string) (ticket, error) {
	keys := v.keys.Load()
	if keys == nil {
		return ticket{}, errors.New("no keys of the panel yet")
	}
	message, err := jws.ParseString(token)
	if err != nil {
		return ticket{}, err
	}
	for _, signature := range message.Signatures() {
		// The key's algorithm is the one used, whatever a ticket says; one that
		// says otherwise is no ticket of the panel's.
		if a := signature.ProtectedHeaders().Algorithm(); a != jwa.EdDSA {
			return ticket{}, fmt.Errorf("signed with %s", a)
		}
	}
	claims, err := jwt.ParseString(token,
		jwt.WithKeySet(*keys),
		jwt.WithIssuer(ticketIssuer),
		jwt.WithAudience(v.audience),
		jwt.WithClaimValue("use", ticketUse),
		jwt.WithRequiredClaim(jwt.ExpirationKey),
		// Not that it was issued in the past: a clock of ours that is slow would keep
		// tunnel clients out, and a ticket from the future does no harm.
		jwt.WithResetValidators(true),
		jwt.WithValidator(jwt.IsExpirationValid()),
		jwt.WithValidator(jwt.IsNbfValid()),
		jwt.WithClock(jwt.ClockFunc(v.now)),
		jwt.WithAcceptableSkew(clockSkew),
	)
	if err != nil {
		return ticket{}, err
	}
	client, err := uuid.Parse(claims.Subject())
	if err != nil {
		return ticket{}, fmt.Errorf("subject: %w", err)
	}
	version, ok := claims.PrivateClaims()["ver"].(float64)
	if !ok {
		return ticket{}, errors.New("no version")
	}
	return ticket{client: client, version: int64(version)}, nil
}
