package auth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// cookieName is the session cookie's, as published.
const cookieName = "session"

// Store is what auth needs of the database.
type Store interface {
	EnsureSigningKey(ctx context.Context, candidate db.SigningKey) ([]db.SigningKey, error)
	SigningKeys(ctx context.Context) ([]db.SigningKey, error)
	UserByEmail(ctx context.Context, email string) (db.User, error)
	CreateSession(ctx context.Context, session db.Session) error
	SessionUser(ctx context.Context, id uuid.UUID, now time.Time) (db.Session, db.User, error)
	DeleteSession(ctx context.Context, id uuid.UUID) error
	Device(ctx context.Context, scope db.Scope, id uuid.UUID) (db.Device, error)
	Hit(ctx context.Context, key string, limit int, window time.Duration, now time.Time) (time.Duration, error)
	TakeBack(ctx context.Context, key string) error
	Forgive(ctx context.Context, key string) error
}

// Options is what Auth needs.
type Options struct {
	Store Store
	// PublicURL is where people reach the panel. With https the session cookie
	// is Secure.
	PublicURL *url.URL
	// TrustedProxies are those whose X-Forwarded-For is believed. Empty believes
	// none: a caller's address is that of its connection.
	TrustedProxies []netip.Prefix
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Auth issues and checks credentials. It is safe for concurrent use.
type Auth struct {
	store     Store
	publicURL *url.URL
	proxies   []netip.Prefix
	now       func() time.Time
	passwords *passwords
	origin    *http.CrossOriginProtection

	keys   atomic.Pointer[keyring]
	loads  atomic.Uint64 // How often reading them again has begun.
	reload sync.Mutex    // Held meanwhile.
	loaded uint64        // Which of the loads was the last to succeed; guarded by reload.
	// Whether keys were revoked since ReloadKeys last said so; guarded by reload. The
	// news may come with a token first.
	revoked bool
}

// New loads the panel's signing keys, and makes the first one where there is
// none. The database must be migrated.
func New(ctx context.Context, options Options) (*Auth, error) {
	if options.Store == nil || options.PublicURL == nil {
		return nil, errors.New("auth: Store and PublicURL are required")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	keys, err := loadKeys(ctx, options.Store)
	if err != nil {
		return nil, err
	}
	passwords, err := newPasswords()
	if err != nil {
		return nil, err
	}
	origin := http.NewCrossOriginProtection()
	if err := origin.AddTrustedOrigin(options.PublicURL.Scheme + "://" + options.PublicURL.Host); err != nil {
		return nil, err
	}
	a := &Auth{
		store:     options.Store,
		publicURL: options.PublicURL,
		proxies:   options.TrustedProxies,
		now:       options.Now,
		passwords: passwords,
		origin:    origin,
	}
	a.keys.Store(keys)
	return a, nil
}

// Authenticate tells who makes a request. A bearer token wins over the cookie,
// and a bad one is an error even beside a good cookie: whoever sends a token
// means it.
func (a *Auth) Authenticate(r *http.Request) (Principal, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return Principal{}, problem.Unauthorized("Send the token as Authorization: Bearer <token>.")
		}
		return a.bearer(r.Context(), strings.TrimSpace(token))
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil || cookie.Value == "" {
		return Principal{}, nil
	}
	// SameSite=Lax stops other sites, but not pages on a sibling domain.
	if err := a.origin.Check(r); err != nil {
		return Principal{}, problem.Unauthorized("The session cookie is not accepted from another origin.")
	}
	claims, err := a.verify(r.Context(), cookie.Value)
	switch {
	case errors.Is(err, errToken):
		return Principal{}, errDeadSession
	case err != nil:
		return Principal{}, err
	case claims.audience != audienceSession:
		return Principal{}, errDeadSession
	}
	return a.session(r.Context(), claims)
}

var (
	errDeadSession = problem.Unauthorized("The session has ended. Log in again.")
	errDeadToken   = problem.Unauthorized("This token is not valid, or no longer.")
)

func (a *Auth) bearer(ctx context.Context, token string) (Principal, error) {
	claims, err := a.verify(ctx, token)
	switch {
	case errors.Is(err, errToken):
		return Principal{}, errDeadToken
	case err != nil:
		return Principal{}, err
	}
	switch claims.audience {
	case audienceSession:
		return a.session(ctx, claims)
	case audienceDevice:
		return a.device(ctx, claims)
	default:
		// A ticket: it is for tunnel servers, not for the panel.
		return Principal{}, errDeadToken
	}
}

func (a *Auth) session(ctx context.Context, claims claims) (Principal, error) {
	id, err := uuid.Parse(claims.id)
	if err != nil {
		return Principal{}, errDeadSession
	}
	session, user, err := a.store.SessionUser(ctx, id, a.now())
	switch {
	case errors.Is(err, db.ErrNotFound):
		return Principal{}, errDeadSession
	case err != nil:
		return Principal{}, err
	case strconv.FormatInt(user.ID, 10) != claims.subject:
		return Principal{}, errDeadSession
	}
	return Principal{User: &user, Session: &session}, nil
}

func (a *Auth) device(ctx context.Context, claims claims) (Principal, error) {
	id, err := uuid.Parse(claims.subject)
	if err != nil {
		return Principal{}, errDeadToken
	}
	device, err := a.store.Device(ctx, db.Scope{DeviceID: id}, id)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return Principal{}, problem.Unauthorized("This device has been deleted.")
	case err != nil:
		return Principal{}, err
	case device.TokenVersion != claims.version || device.Kind != claims.kind || device.ApprovedAt == nil:
		return Principal{}, problem.Unauthorized("This device's token has been replaced by a newer one.")
	}
	return Principal{Device: &device, TokenKey: claims.key}, nil
}
