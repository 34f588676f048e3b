package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	passwordLinkLifetime = 24 * time.Hour

	// linkFailures is the maximum number of unknown links within linkWindow, per source.
	linkFailures = 60
	linkWindow   = time.Minute
)

// PasswordLink is a link with which a user sets a password.
type PasswordLink struct {
	URL       *url.URL // Its fragment is the secret, which is stored nowhere.
	Email     string   // The user's.
	ExpiresAt time.Time
}

// NewPasswordLink makes a link for a user, which works once within 24 hours and replaces
// an earlier one. It returns [db.ErrNotFound] if the user does not exist, and
// [db.ErrConflict] if the user is suspended.
func (a *Auth) NewPasswordLink(ctx context.Context, userID int64) (PasswordLink, error) {
	if a.noPasswords {
		return PasswordLink{}, problem.LocalAccountsDisabled()
	}
	secret := rand.Text()
	expires := a.now().UTC().Truncate(time.Microsecond).Add(passwordLinkLifetime) // As the database keeps it.
	user, err := a.store.CreatePasswordLink(ctx, db.PasswordLink{UserID: userID, TokenHash: hashLink(secret), ExpiresAt: expires})
	if err != nil {
		return PasswordLink{}, err
	}
	return PasswordLink{URL: a.link("password", secret), Email: user.Email, ExpiresAt: expires}, nil
}

// SetPassword sets the password of the user for whom a link was made, by the link's
// secret, and ends the user's sessions. The error may be any problem.Error that the
// contract lists for the operation.
func (a *Auth) SetPassword(ctx context.Context, secret, password string) error {
	if a.noPasswords {
		return problem.LocalAccountsDisabled()
	}
	limits := PerSource(ctx, "link:address", linkFailures, linkWindow)
	if wait := a.limits.Over(limits...); wait > 0 {
		return problem.RateLimited(wait)
	}
	unknown := problem.NotFound("This link was used or has expired. Ask an admin for a new one.")
	hash := hashLink(secret)
	// Before the password is hashed, which costs more.
	valid, err := a.store.PasswordLinkValid(ctx, hash, a.now())
	if err != nil {
		return err
	}
	if !valid {
		if err := a.limits.Check(ctx, limits...); err != nil {
			return err
		}
		return unknown
	}
	passwordHash, err := a.hashInTurn(ctx, password)
	if err != nil {
		return err
	}
	err = a.store.UsePasswordLink(ctx, hash, passwordHash, a.now())
	if errors.Is(err, db.ErrNotFound) {
		return unknown
	}
	return err
}

// hashInTurn hashes a password when the caller's turn among password checks has come.
func (a *Auth) hashInTurn(ctx context.Context, password string) (string, error) {
	if err := a.passwords.queue.acquire(ctx, AddressKey(ctx), true); err != nil {
		return "", err
	}
	defer a.passwords.queue.release()
	hash, err := HashPassword(password)
	if err != nil {
		return "", fmt.Errorf("set password: %w", err)
	}
	return hash, nil
}

// link returns the address of a page with a secret.
func (a *Auth) link(page, secret string) *url.URL {
	link := a.publicURL.JoinPath(page)
	// A browser sends the fragment to nobody, so that it is in no log of a proxy.
	link.Fragment = secret
	return link
}

// hashLink needs no salt and no stretching: the secret is random.
func hashLink(secret string) []byte {
	hash := sha256.Sum256([]byte(secret))
	return hash[:]
}
