package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

const (
	issuer          = "eclitunnel"
	audienceSession = "session"
	audienceDevice  = "device"

	// ticketLifetime bounds how long a tunnel client gets in while the panel is
	// down; control renews tickets long before.
	ticketLifetime = 24 * time.Hour

	// maxToken bounds the work an unauthenticated caller can cause, in bytes.
	maxToken = 4096
)

// DeviceToken issues the token of a device at a token version. It has no expiry:
// it is good until the version is raised.
func (a *Auth) DeviceToken(id uuid.UUID, kind string, version int64) (string, error) {
	return sign(a.signer(), a.builder().
		Audience([]string{audienceDevice}).
		Subject(id.String()).
		Claim("kind", kind).
		Claim("ver", version))
}

// Ticket issues what a tunnel client shows to one tunnel server, which verifies
// it without the panel. It is good for 24 hours, and as long as the client's token
// version stays. The key is one that a tunnel server last connected at serverSeen
// has heard of.
func (a *Auth) Ticket(clientID, serverID uuid.UUID, version int64, serverSeen time.Time) (token string, expires time.Time, err error) {
	now := a.now()
	expires = now.Add(ticketLifetime).Truncate(time.Second)
	token, err = sign(a.keys.Load().ticketSigner(now, serverSeen), a.builder().
		Audience([]string{serverID.String()}).
		Subject(clientID.String()).
		Expiration(expires).
		Claim("use", "ticket").
		Claim("ver", version))
	return token, expires, err
}

func (a *Auth) sessionToken(id uuid.UUID, userID int64, expires time.Time) (string, error) {
	return sign(a.signer(), a.builder().
		Audience([]string{audienceSession}).
		Subject(strconv.FormatInt(userID, 10)).
		JwtID(id.String()).
		Expiration(expires))
}

func (a *Auth) builder() *jwt.Builder {
	return jwt.NewBuilder().Issuer(issuer).IssuedAt(a.now())
}

func (a *Auth) signer() jwk.Key { return a.keys.Load().signer(a.now()) }

func sign(key jwk.Key, builder *jwt.Builder) (string, error) {
	token, err := builder.Build()
	if err != nil {
		return "", fmt.Errorf("build token: %w", err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.EdDSA, key))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return string(signed), nil
}

// claims is what a verified token says.
type claims struct {
	key      string // The id of the key that signed it.
	audience string
	subject  string
	id       string
	kind     string
	version  int64
}

// noVersion is what a token without a version says; no row has it.
const noVersion = -1

var errToken = errors.New("token is not one of ours")

// verify checks a token. What is wrong with it is an errToken; any other error
// is that the keys could not be read.
func (a *Auth) verify(ctx context.Context, token string) (claims, error) {
	if len(token) > maxToken {
		return claims{}, errToken
	}
	message, err := jws.ParseString(token)
	if err != nil || len(message.Signatures()) != 1 {
		return claims{}, errors.Join(errToken, err)
	}
	headers := message.Signatures()[0].ProtectedHeaders()
	if headers == nil {
		return claims{}, errToken
	}
	id := headers.KeyID()
	keys, err := a.keysFor(ctx, id)
	if err != nil {
		return claims{}, err
	}
	result, err := keys.verify(token, a.now())
	result.key = id
	return result, err
}

// verify checks a token's signature, issuer and times. Only the keys and the
// algorithm named in the keyring are accepted, whatever the token's header says:
// the key set matches by kid and by the alg pinned on each key, so neither "none"
// nor an HMAC over the public key gets past it. Whose token it is follows from
// its audience, which the caller must look at.
func (k *keyring) verify(token string, now time.Time) (claims, error) {
	parsed, err := jwt.ParseString(token,
		jwt.WithKeySet(k.public),
		jwt.WithIssuer(issuer),
		jwt.WithClock(jwt.ClockFunc(func() time.Time { return now })),
		// Replicas' clocks differ: a token of one must not be from the future
		// to another.
		jwt.WithAcceptableSkew(time.Minute))
	if err != nil {
		return claims{}, errors.Join(errToken, err)
	}
	// A token with several audiences would be good in several places.
	if len(parsed.Audience()) != 1 {
		return claims{}, errToken
	}
	result := claims{
		audience: parsed.Audience()[0],
		subject:  parsed.Subject(),
		id:       parsed.JwtID(),
	}
	private := parsed.PrivateClaims()
	result.kind, _ = private["kind"].(string)
	result.version = noVersion
	if version, ok := private["ver"].(float64); ok {
		result.version = int64(version)
	}
	// Only device tokens live without an expiry; their version ends them.
	if parsed.Expiration().IsZero() && result.audience != audienceDevice {
		return claims{}, errToken
	}
	return result, nil
}
