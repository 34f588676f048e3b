package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	sessionLifetime = 30 * 24 * time.Hour

	// placeFailures is the maximum number of consecutive failures within loginWindow for
	// one email from one address, or by one known browser.
	placeFailures = 10
	// emailFailures is the maximum number of failures within loginWindow for one email from
	// unknown places. After it the others are slowed down and not refused: otherwise anyone
	// could lock a user out.
	emailFailures = 50
	// addressFailures is the maximum number of failures within loginWindow from one
	// address. A success is not counted and does not reset it: otherwise an attacker
	// with an account could keep guessing by logging in to it in between.
	addressFailures = 30
	loginWindow     = time.Minute

	// maxLookups is how many logins are in the database at a time, of those from places that
	// this replica does not know. It keeps its connections busy; the others hardly wait.
	maxLookups = 16
)

// Login is a new session.
type Login struct {
	Token string
	User  db.User
	// Cookie carries the token for browsers; see Cookies for what to send.
	Cookie *http.Cookie
	// Browser is the cookie by which the browser is known to the account from now on. It
	// survives the session.
	Browser *http.Cookie
}

// Login checks an email and password and creates a session of 30 days. It reads the
// caller's address and known browsers from ctx. A place that has logged in to the account
// before, an address or a browser, is limited by its own failures only. After many failures
// from elsewhere, attempts from unknown places wait up to 2 seconds, and more of them than
// can be served get a rate_limited error. So do, while more passwords are to be checked
// than the machine has time for, addresses with many attempts. An attempt that is refused
// because of what this replica remembers costs no statement.
func (a *Auth) Login(ctx context.Context, email, password string) (Login, error) {
	recorded(ctx).Account = email
	user, known, err := a.login(ctx, email, password)
	if err != nil {
		return Login{}, err
	}
	login, err := a.createSession(ctx, user, known)
	return login, a.refuseLogin(ctx, user, err)
}

// login is Login without a session. It returns the browser of the request if the account knows it, and
// errWrongPassword.
func (a *Auth) login(ctx context.Context, email, password string) (db.User, *browser, error) {
	if a.noPasswords {
		return db.User{}, nil, problem.LocalAccountsDisabled()
	}
	t := a.attempt(ctx, email)
	if t.browser == nil {
		if wait := a.limits.Over(t.all()...); wait > 0 {
			return db.User{}, nil, problem.RateLimited(wait)
		}
	}
	user, err := a.checkPassword(ctx, t, password)
	if err != nil {
		return db.User{}, nil, a.refuseLogin(ctx, user, err)
	}
	if err := a.limits.Refund(ctx, t.counted...); err != nil {
		return db.User{}, nil, err
	}
	if err := a.limits.Reset(ctx, t.place); err != nil {
		return db.User{}, nil, err
	}
	return user, t.browser, nil
}

// refuseLogin records a wrong password, or the right one of a suspended account, in the
// audit trail, and returns err. Attempts over a limit are not recorded: they cost no
// statement, and their password is not looked at. Nor is the email of no account, which
// may be a password in the wrong field.
func (a *Auth) refuseLogin(ctx context.Context, user db.User, err error) error {
	var refused *problem.Error
	if !errors.As(err, &refused) || refused.Code != types.CodeUnauthorized {
		return err
	}
	refusal := db.Refusal{Action: "session.refuse", TargetKind: "user"}
	if user.ID != 0 {
		refusal.TargetID, refusal.TargetName, refusal.UserID = strconv.FormatInt(user.ID, 10), user.Email, &user.ID
	}
	if failed := a.store.RecordRefusal(ctx, refusal); failed != nil {
		return failed
	}
	return err
}

var errWrongPassword = problem.Unauthorized("Wrong email or password.")

// attempt is a login under way.
type attempt struct {
	typed   string   // The email. The database ignores the case of fewer letters than Go.
	email   string   // In lower case, by which attempts count.
	browser *browser // nil unless it is known to the account.
	place   Limit    // Of the browser, or of the email from the address.
	sources []Limit  // Of the address; none for a browser.
	counted []Limit  // Those but place that have counted the attempt.
	known   bool     // The browser or the address.
}

func (t *attempt) all() []Limit { return append(slices.Clone(t.sources), t.place) }

// attempt returns the limits of a login: those of its browser, or of its address. A browser
// over its limit, whose cookie may have been stolen, counts as unknown.
func (a *Auth) attempt(ctx context.Context, email string) *attempt {
	t := &attempt{typed: email, email: strings.ToLower(email)}
	if t.browser = a.places.browser(ctx, t.email); t.browser != nil {
		t.place = Limit{Key: "login:browser:" + t.browser.id() + ":" + t.email, Max: placeFailures, Window: loginWindow}
		if a.limits.remembered(t.place) == 0 {
			return t
		}
	}
	t.atAddress(ctx)
	return t
}

// atAddress has a login count by its address in place of its browser.
func (t *attempt) atAddress(ctx context.Context) {
	t.browser = nil
	t.sources = PerSource(ctx, "login:address", addressFailures, loginWindow)
	t.place = Limit{Key: perEmail(t.email).Key + ":" + t.sources[0].Key, Max: placeFailures, Window: loginWindow}
}

func perEmail(email string) Limit {
	return Limit{Key: "login:email:" + email, Max: emailFailures, Window: loginWindow}
}

// checkPassword returns the user with an email and password, and that with the email if the
// password is wrong. It counts the attempt and reads the user before it waits for its turn:
// a database that stalls holds up no check.
func (a *Auth) checkPassword(ctx context.Context, t *attempt, password string) (db.User, error) {
	user, err := a.account(ctx, t)
	if err != nil {
		return db.User{}, err
	}
	from := AddressKey(ctx)
	if t.known {
		from = "account:" + t.email // Whoever else is at the address does not count.
	} else if err := a.slowDown(ctx, t); err != nil {
		return db.User{}, err
	}
	if err := a.passwords.queue.acquire(ctx, from, t.known); err != nil {
		return db.User{}, err
	}
	defer a.passwords.queue.release()
	match, err := a.passwords.match(password, user.PasswordHash)
	switch {
	case err != nil:
		return db.User{}, err
	case !match:
		return user, errWrongPassword
	}
	if !t.known {
		a.passwords.queue.succeeded(from)
	}
	a.lookups.succeeded(AddressKey(ctx))
	return user, nil
}

// account counts an attempt under the limits that refuse, and returns the account, the zero
// User if there is none. It finds out whether the place is known.
func (a *Auth) account(ctx context.Context, t *attempt) (db.User, error) {
	if t.browser != nil {
		wait, err := a.limits.Take(ctx, t.place)
		if err != nil {
			return db.User{}, err
		}
		if wait == 0 {
			user, _, err := a.user(ctx, t.typed)
			if err != nil {
				return db.User{}, err
			}
			if t.known = a.places.current(t.browser, user.PasswordHash); t.known {
				return user, nil
			}
		}
		t.atAddress(ctx)
	}
	if !a.places.remembers(t.email, a.places.address(ctx)) {
		if err := a.lookups.acquire(ctx, AddressKey(ctx), false); err != nil {
			return db.User{}, err
		}
		defer a.lookups.release()
	}
	if err := a.limits.Check(ctx, t.all()...); err != nil {
		return db.User{}, err
	}
	t.counted = t.sources
	user, known, err := a.user(ctx, t.typed)
	t.known = known
	return user, err
}

func (a *Auth) user(ctx context.Context, email string) (db.User, bool, error) {
	user, known, err := a.store.UserAt(ctx, email, a.places.address(ctx), a.now())
	if errors.Is(err, db.ErrNotFound) {
		err = nil
	}
	return user, known, err
}

// slowDown counts an attempt from an unknown place against the account, which need not
// exist, and after too many waits.
func (a *Auth) slowDown(ctx context.Context, t *attempt) error {
	limit := perEmail(t.email)
	if a.limits.remembered(limit) == 0 {
		wait, err := a.limits.Take(ctx, limit)
		if err != nil {
			return err
		}
		if wait == 0 {
			t.counted = append(slices.Clone(t.counted), limit)
			return nil
		}
	}
	// By the widest network: whoever has a /48 has 65,536 sources that have never tried.
	networks := sources.Networks(Address(ctx))
	return a.paces.wait(ctx, t.email, networkKey(networks[len(networks)-1]))
}

// ErrSuspended is the error of the login of a suspended user.
var ErrSuspended = problem.Unauthorized("This account is suspended.")

// NewSession creates a session of 30 days for a user who has been authenticated. That of a
// suspended user is refused with ErrSuspended, and recorded in the audit trail as in Login.
func (a *Auth) NewSession(ctx context.Context, user db.User) (Login, error) {
	login, err := a.createSession(ctx, user, nil)
	return login, a.refuseLogin(ctx, user, err)
}

func (a *Auth) createSession(ctx context.Context, user db.User, known *browser) (Login, error) {
	// Tokens have a resolution of one second; the row must agree.
	expires := a.now().Add(sessionLifetime).Truncate(time.Second)
	session := db.Session{
		ID: uuid.New(), UserID: user.ID, ExpiresAt: expires, Address: addressText(ctx), UserAgent: userAgent(ctx),
	}
	ctx = db.WithActor(ctx, user.Actor(ctx))
	switch err := a.store.CreateSession(ctx, session, user.PasswordHash, a.places.address(ctx), a.now()); {
	case errors.Is(err, db.ErrConflict):
		return Login{}, ErrSuspended
	case errors.Is(err, db.ErrNotFound):
		return Login{}, errWrongPassword // It was changed meanwhile.
	case err != nil:
		return Login{}, fmt.Errorf("create session: %w", err)
	}
	a.places.remember(strings.ToLower(user.Email), a.places.address(ctx))
	token, err := a.sessionToken(session.ID, user.ID, expires)
	if err != nil {
		return Login{}, err
	}
	return Login{
		Token: token, User: user,
		Cookie:  a.cookie(ctx, cookieName, token, int(sessionLifetime.Seconds())),
		Browser: a.cookie(ctx, browserCookie, a.places.renew(ctx, known, user), int(browserLifetime.Seconds())),
	}, nil
}

// Logout ends the session of the caller in ctx on every replica. It returns cookies that
// clear the browser's session cookies. A session of a Provider is forbidden.
func (a *Auth) Logout(ctx context.Context) ([]*http.Cookie, error) {
	session := FromContext(ctx).Session
	if session == nil {
		return nil, errDeadSession
	}
	if session.ID == uuid.Nil {
		return nil, problem.Forbidden("This session is not the panel's own; log out where you logged in.")
	}
	if err := a.store.DeleteSession(ctx, session.ID); err != nil && !errors.Is(err, db.ErrNotFound) {
		return nil, fmt.Errorf("end session: %w", err)
	}
	return withPrefixed(a.cookie(ctx, cookieName, "", -1)), nil
}
