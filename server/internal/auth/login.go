package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	sessionLifetime = 30 * 24 * time.Hour

	// pairFailures is the maximum number of consecutive failures within loginWindow
	// for one email from one address, and emailFailures from all addresses. If they
	// were equal, anyone could lock a user out from a single address.
	pairFailures  = 10
	emailFailures = 50
	// addressFailures is the maximum number of failures within loginWindow from one
	// address. A success is not counted and does not reset it: otherwise an attacker
	// with an account could keep guessing by logging in to it in between.
	addressFailures = 30
	loginWindow     = time.Minute
)

// Login is a new session.
type Login struct {
	Token string
	User  db.User
	// Cookie carries the token for browsers.
	Cookie *http.Cookie
}

// Login checks an email and password and creates a session of 30 days. It reads the
// caller's address from ctx. While more passwords are to be checked than the machine has
// time for, addresses with many attempts wait, and after 2 seconds get a rate_limited
// error. An attempt that is refused because of what this replica remembers costs no
// statement.
func (a *Auth) Login(ctx context.Context, email, password string) (Login, error) {
	source := PerSource(ctx, "login:address", addressFailures, loginWindow)
	perEmail := Limit{"login:email:" + strings.ToLower(email), emailFailures, loginWindow}
	perPair := Limit{perEmail.Key + ":" + source[0].Key, pairFailures, loginWindow}
	all := append(slices.Clone(source), perPair, perEmail)
	if wait := a.limits.Over(all...); wait > 0 {
		return Login{}, problem.RateLimited(wait)
	}
	user, err := a.checkPassword(ctx, email, password, all)
	if err != nil {
		return Login{}, err
	}
	if err := a.limits.Refund(ctx, source...); err != nil {
		return Login{}, err
	}
	if err := a.limits.Reset(ctx, perPair, perEmail); err != nil {
		return Login{}, err
	}
	return a.createSession(ctx, user)
}

// checkPassword returns the user with an email and password. It counts the attempt and
// reads the user before it waits for its turn: a database that stalls holds up no check.
func (a *Auth) checkPassword(ctx context.Context, email, password string, limits []Limit) (db.User, error) {
	if err := a.limits.Check(ctx, limits...); err != nil {
		return db.User{}, err
	}
	user, err := a.store.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return db.User{}, err
	}
	source := AddressKey(ctx)
	if err := a.passwords.queue.acquire(ctx, source); err != nil {
		return db.User{}, err
	}
	defer a.passwords.queue.release()
	match, err := a.passwords.match(password, user.PasswordHash)
	switch {
	case err != nil:
		return db.User{}, err
	case !match:
		return db.User{}, problem.Unauthorized("Wrong email or password.")
	}
	a.passwords.queue.succeeded(source)
	return user, nil
}

func (a *Auth) createSession(ctx context.Context, user db.User) (Login, error) {
	// Tokens have a resolution of one second; the row must agree.
	expires := a.now().Add(sessionLifetime).Truncate(time.Second)
	session := db.Session{ID: uuid.New(), UserID: user.ID, ExpiresAt: expires}
	if err := a.store.CreateSession(ctx, session); err != nil {
		return Login{}, fmt.Errorf("create session: %w", err)
	}
	token, err := a.sessionToken(session.ID, user.ID, expires)
	if err != nil {
		return Login{}, err
	}
	return Login{Token: token, User: user, Cookie: a.cookie(token, int(sessionLifetime.Seconds()))}, nil
}

// Logout ends the session of the caller in ctx on every replica. It returns a cookie
// that clears the browser's session cookie.
func (a *Auth) Logout(ctx context.Context) (*http.Cookie, error) {
	session := FromContext(ctx).Session
	if session == nil {
		return nil, errDeadSession
	}
	if err := a.store.DeleteSession(ctx, session.ID); err != nil && !errors.Is(err, db.ErrNotFound) {
		return nil, fmt.Errorf("end session: %w", err)
	}
	return a.cookie("", -1), nil
}

func (a *Auth) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name:     cookieName,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		Secure:   a.publicURL.Scheme == "https",
	}
}
