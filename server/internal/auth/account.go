package auth

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// sessionFailures is the maximum number of wrong current passwords within loginWindow by one
	// session, wherever it is used.
	sessionFailures = 10
	// maxEmailChanges is the maximum number of changes of a user's email within emailWindow. Each one
	// that fails tells whether an email has an account.
	maxEmailChanges = 20
	emailWindow     = time.Hour
)

var (
	errNoPassword    = problem.Conflict("This account has no password here, so nothing can be changed with one.")
	errNotOurs       = problem.Forbidden("This session is an identity provider's. Log in to this panel with the password first.")
	errNoSuchSession = problem.NotFound("You have no such session.")
)

// ChangeEmail changes the email of the caller in ctx. It returns cookies by which the browser is known
// to the account with its new email. The error may be any problem.Error that the contract lists for the
// operation.
func (a *Auth) ChangeEmail(ctx context.Context, current, email string) (db.User, []*http.Cookie, error) {
	proof, known, err := a.prove(ctx, current)
	if err != nil {
		return db.User{}, nil, err
	}
	limit := Limit{Key: "account:email:" + strconv.FormatInt(proof.UserID, 10), Max: maxEmailChanges, Window: emailWindow, Told: "email-changes"}
	if err := a.limits.Check(ctx, limit); err != nil {
		return db.User{}, nil, err
	}
	user, err := a.store.ChangeEmail(ctx, proof, email)
	if errors.Is(err, db.ErrConflict) && !errors.Is(err, db.ErrPasswordChanged) {
		return db.User{}, nil, problem.Conflict("This email has an account.")
	}
	if err != nil {
		return db.User{}, nil, refused(err)
	}
	return user, a.knownBrowser(ctx, known, user), nil
}

// ChangePassword changes the password of the caller in ctx, and ends all other sessions of the account on
// every replica. It returns cookies by which the browser is known to the account with its new password. The
// error may be any problem.Error that the contract lists for the operation.
func (a *Auth) ChangePassword(ctx context.Context, current, password string) ([]*http.Cookie, error) {
	proof, known, err := a.prove(ctx, current)
	if err != nil {
		return nil, err
	}
	hash, err := a.hashInTurn(ctx, password)
	if err != nil {
		return nil, err
	}
	user, err := a.store.ChangePassword(ctx, proof, hash, a.places.address(ctx))
	if err != nil {
		return nil, refused(err)
	}
	return a.knownBrowser(ctx, known, user), nil
}

// refused translates the errors of changes that need a proof.
func refused(err error) error {
	switch {
	case errors.Is(err, db.ErrPasswordChanged):
		return problem.WrongPassword()
	case errors.Is(err, db.ErrNotFound):
		return errDeadSession
	}
	return err
}

// prove checks the current password of the caller in ctx as a login does, with the same counts. Whoever has
// stolen the session guesses no faster than others do, and the session counts too, wherever it is used. It
// returns the browser of the request if it is known to the account.
func (a *Auth) prove(ctx context.Context, current string) (db.Proof, *browser, error) {
	p := FromContext(ctx)
	switch {
	case p.User.PasswordHash == "":
		return db.Proof{}, nil, errNoPassword
	case p.Session.ID == uuid.Nil:
		return db.Proof{}, nil, errNotOurs
	}
	limit := Limit{Key: "password:session:" + p.Session.ID.String(), Max: sessionFailures, Window: loginWindow, Told: "current-password"}
	if err := a.limits.Check(ctx, limit); err != nil {
		return db.Proof{}, nil, err
	}
	user, browser, err := a.login(ctx, p.User.Email, current)
	switch {
	case errors.Is(err, errWrongPassword):
		return db.Proof{}, nil, problem.WrongPassword()
	case err != nil:
		return db.Proof{}, nil, err
	case user.ID != p.User.ID: // The email is somebody else's by now.
		return db.Proof{}, nil, problem.WrongPassword()
	}
	if err := a.limits.Reset(ctx, limit); err != nil {
		return db.Proof{}, nil, err
	}
	return db.Proof{UserID: user.ID, SessionID: p.Session.ID, PasswordHash: user.PasswordHash}, browser, nil
}

// knownBrowser returns cookies by which the caller's browser, nil for a new one, is known to a user from now
// on, and remembers the address.
func (a *Auth) knownBrowser(ctx context.Context, known *browser, user db.User) []*http.Cookie {
	a.places.remember(strings.ToLower(user.Email), a.places.address(ctx))
	return withPrefixed(a.cookie(ctx, browserCookie, a.places.renew(ctx, known, user), int(browserLifetime.Seconds())))
}

// Sessions lists the sessions of the caller in ctx, newest first.
func (a *Auth) Sessions(ctx context.Context, page db.Page[db.SessionPosition]) ([]db.Session, error) {
	p := FromContext(ctx)
	return a.store.Sessions(ctx, p.User.ID, a.now(), page)
}

// EndSession ends a session of the caller in ctx on every replica. It returns a not_found error if it is not
// the caller's.
func (a *Auth) EndSession(ctx context.Context, id uuid.UUID) error {
	p := FromContext(ctx)
	err := a.store.EndSession(ctx, p.User.ID, id, a.now())
	if errors.Is(err, db.ErrNotFound) {
		return errNoSuchSession
	}
	return err
}

// EndOtherSessions ends all sessions of the caller in ctx but the one of the request, on every replica, and
// returns how many.
func (a *Auth) EndOtherSessions(ctx context.Context) (int64, error) {
	p := FromContext(ctx)
	return a.store.EndOtherSessions(ctx, p.User.ID, p.Session.ID, a.now())
}
