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

	// ticketLifetime bounds how long a tunnel client can open links while the panel
	// is down. Package control renews tickets well before they expire.
	ticketLifetime = 24 * time.Hour

	// maxToken is the maximum length of a token in bytes. It bounds the work that an
	// unauthenticated caller can cause.
	maxToken = 4096
)

// DeviceToken issues a device token at a token version. The token does not expire;
// it is valid until the device's token version changes. It names the panel, whose
// database alone decides about it.
func (a *Auth) DeviceToken(id uuid.UUID, kind string, version int64) (string, error) {
	return sign(a.signer(), a.builder().
		Audience([]string{audienceDevice}).
		Subject(id.String()).
		Claim("kind", kind).
		Claim("panel", a.PanelID().String()).
		Claim("ver", version))
}

// Ticket issues a ticket with which a tunnel client authenticates to one tunnel
// server, which verifies it offline. The ticket is valid for 24 hours, or until the
// client's token version changes. It is signed with a key that the tunnel server
// knows, given that it was last connected to the panel at serverSeen.
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

// claims are the claims of a verified token.
type claims struct {
	key      string // The id of the key that signed it.
	audience string
	subject  string
	id       string
	kind     string
	panel    string // The panel that issued it; empty before tokens named it.
	version  int64
}

// noVersion is the version of a token without a version claim. No device has it.
const noVersion = -1

var (
	errToken = errors.New("invalid token")
	// errUnknownKey is an errToken: the panel does not have the key that signed the token.
	errUnknownKey = fmt.Errorf("%w: unknown key", errToken)
)

// verify verifies a token. The error wraps errToken if the token is invalid;
// otherwise the signing keys could not be read. With errUnknownKey it returns the claims
// unverified.
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
	if id != "" && !keys.has(id) {
		wait, err := a.limits.Take(ctx, unknownTokens(ctx)...)
		if err == nil {
			err = checkTokens(wait)
		}
		if err != nil {
			return claims{}, err
		}
		parsed, err := jwt.ParseInsecure([]byte(token))
		if err != nil {
			return claims{}, errors.Join(errToken, err)
		}
		result, err := readClaims(parsed)
		if err != nil {
			return claims{}, err
		}
		result.key = id
		return result, errUnknownKey
	}
	result, err := keys.verify(token, a.now())
	result.key = id
	return result, err
}

// clockSkew is the tolerance for the expiry in a token, because replicas' clocks differ.
// A session also ends with its row, by the clock of the replica that is asked.
const clockSkew = 5 * time.Minute

// verify verifies a token's signature and issuer, and the expiry of a token that must
// have one. It does not compare when a token was issued with the clock: a token with a
// valid signature was issued, and a clock that was set back must not reject it. A device
// token has no times at all. The key set matches by kid
// and by the algorithm pinned on each key, whatever the token's header claims, so
// neither "none" nor an HMAC over the public key is accepted. The caller must check
// the audience, which tells the types of token apart.
func (k *keyring) verify(token string, now time.Time) (claims, error) {
	parsed, err := jwt.ParseString(token,
		jwt.WithKeySet(k.public),
		jwt.WithResetValidators(true),
		jwt.WithIssuer(issuer))
	if err != nil {
		return claims{}, errors.Join(errToken, err)
	}
	result, err := readClaims(parsed)
	if err != nil {
		return claims{}, err
	}
	// Only device tokens have no expiry; their token version revokes them.
	if result.audience != audienceDevice && !now.Before(parsed.Expiration().Add(clockSkew)) {
		return claims{}, errToken
	}
	return result, nil
}

// readClaims returns the claims of a token.
func readClaims(parsed jwt.Token) (claims, error) {
	// A token with several audiences would be accepted in several roles.
	if len(parsed.Audience()) != 1 {
		return claims{}, errToken
	}
	result := claims{
		audience: parsed.Audience()[0],
		subject:  parsed.Subject(),
		id:       parsed.JwtID(),
	}
	private := parsed.PrivateClaims()
	result.panel, _ = private["panel"].(string)
	result.kind, _ = private["kind"].(string)
	result.version = noVersion
	if version, ok := private["ver"].(float64); ok {
		result.version = int64(version)
	}
	return result, nil
}
