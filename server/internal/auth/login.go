package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	sessionLifetime = 30 * 24 * time.Hour

	// pairFailures in a row may happen within loginWindow for one email from one
	// address, and emailFailures from all addresses together. Were the two the same,
	// anybody could keep somebody else from logging in, from a single address.
	pairFailures  = 10
	emailFailures = 50
	// addressFailures may happen within loginWindow from one address. A success is
	// not counted, but clears nothing: somebody who has one account must not go on
	// guessing at others by logging in to it now and then.
	addressFailures = 30
	loginWindow     = time.Minute
)

// Login is a session just begun.
type Login struct {
	Token string
	User  db.User
	// Cookie carries the token in a browser.
	Cookie *http.Cookie
}

// Login checks an email and password and begins a session of 30 days. The caller's
// address is taken from ctx.
func (a *Auth) Login(ctx context.Context, email, password string) (Login, error) {
	emailKey := "login:email:" + strings.ToLower(email)
	addressKey := "login:address:" + AddressKey(ctx)
	pairKey := emailKey + ":" + addressKey
	if err := a.hit(ctx, addressKey, addressFailures); err != nil {
		return Login{}, err
	}
	if err := a.hit(ctx, pairKey, pairFailures); err != nil {
		return Login{}, err
	}
	if err := a.hit(ctx, emailKey, emailFailures); err != nil {
		return Login{}, err
	}
	user, err := a.store.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return Login{}, err
	}
	match, err := a.passwords.match(ctx, password, user.PasswordHash)
	if err != nil {
		return Login{}, err
	}
	if !match {
		return Login{}, problem.Unauthorized("The email or the password is wrong.")
	}
	if err := a.store.TakeBack(ctx, addressKey); err != nil {
		return Login{}, err
	}
	for _, key := range []string{pairKey, emailKey} {
		if err := a.store.Forgive(ctx, key); err != nil {
			return Login{}, err
		}
	}
	return a.begin(ctx, user)
}

// hit counts an attempt before it is made, so that attempts made at once are all
// counted.
func (a *Auth) hit(ctx context.Context, key string, limit int) error {
	wait, err := a.store.Hit(ctx, key, limit, loginWindow, a.now())
	if err != nil {
		return err
	}
	if wait > 0 {
		return problem.RateLimited(wait)
	}
	return nil
}

func (a *Auth) begin(ctx context.Context, user db.User) (Login, error) {
	// Tokens count whole seconds; so does the row, or the two would disagree.
	expires := a.now().Add(sessionLifetime).Truncate(time.Second)
	session := db.Session{ID: uuid.New(), UserID: user.ID, ExpiresAt: expires}
	if err := a.store.CreateSession(ctx, session); err != nil {
		return Login{}, fmt.Errorf("begin session: %w", err)
	}
	token, err := a.sessionToken(session.ID, user.ID, expires)
	if err != nil {
		return Login{}, err
	}
	return Login{Token: token, User: user, Cookie: a.cookie(token, int(sessionLifetime.Seconds()))}, nil
}

// Logout ends the session of the caller in ctx, on every replica, and returns the
// cookie that clears the browser's.
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
