package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Store is the part of the database that auth uses.
type Store interface {
	EnsureSigningKey(ctx context.Context, candidate db.SigningKey) ([]db.SigningKey, error)
	SigningKeys(ctx context.Context) ([]db.SigningKey, error)
	LoginSecret(ctx context.Context) ([]byte, error)
	LoginPlaces(ctx context.Context, limit int, now time.Time) ([]db.LoginPlace, error)
	UserAt(ctx context.Context, email string, place []byte, now time.Time) (user db.User, known bool, err error)
	CreateSession(ctx context.Context, session db.Session, passwordHash string, place []byte, now time.Time) error
	SessionUser(ctx context.Context, id uuid.UUID, now time.Time) (db.Session, db.User, error)
	DeleteSession(ctx context.Context, id uuid.UUID) error
	CreateAPIKey(ctx context.Context, scope db.Scope, key db.APIKey, hash []byte) (db.APIKey, error)
	APIKeyByHash(ctx context.Context, hash []byte) (db.APIKey, *db.User, error)
	RevokeAPIKey(ctx context.Context, hash []byte) (bool, error)
	RecordAPIKeyUses(ctx context.Context, uses map[int64]netip.Addr, at time.Time) error
	RecordSessionUses(ctx context.Context, uses []db.SessionUse, now time.Time) error
	Sessions(ctx context.Context, userID int64, now time.Time, page db.Page[db.SessionPosition]) ([]db.Session, error)
	EndSession(ctx context.Context, userID int64, id uuid.UUID, now time.Time) error
	EndOtherSessions(ctx context.Context, userID int64, except uuid.UUID, now time.Time) (ended int64, err error)
	ChangeEmail(ctx context.Context, proof db.Proof, email string) (db.User, error)
	ChangePassword(ctx context.Context, proof db.Proof, passwordHash string, place []byte) (db.User, error)
	CreatePasswordLink(ctx context.Context, link db.PasswordLink) (db.User, error)
	RecordRefusal(ctx context.Context, refusal db.Refusal) error
	PasswordLinkValid(ctx context.Context, tokenHash []byte, now time.Time) (bool, error)
	UsePasswordLink(ctx context.Context, tokenHash []byte, passwordHash string, now time.Time) error
	CreateInvitation(ctx context.Context, scope db.Scope, invitation db.NewInvitation) (db.Invitation, error)
	Invitations(ctx context.Context, scope db.Scope, organisationID int64, now time.Time) ([]db.Invitation, error)
	InvitationByToken(ctx context.Context, tokenHash []byte, now time.Time) (db.Invitation, error)
	AcceptInvitation(ctx context.Context, tokenHash []byte, userID int64, now time.Time) (db.Organisation, error)
	DeviceByID(ctx context.Context, id uuid.UUID) (db.Device, error)
	PanelID(ctx context.Context) (uuid.UUID, error)
	DeviceDeleted(ctx context.Context, id uuid.UUID) (bool, error)
	SigningKeyRevoked(ctx context.Context, id string) (bool, error)
	Counts
}

// Options configures an Auth.
type Options struct {
	Store Store // Required.
	// PublicURL is the panel's URL for people. If its scheme is https, the session
	// cookie is Secure. Required.
	PublicURL *url.URL
	// TrustedProxies are the networks of proxies whose X-Forwarded-For is trusted. If
	// empty, a caller's address is that of its connection.
	TrustedProxies []netip.Prefix
	// Provider checks the credentials that are not the panel's own; nil refuses them.
	Provider Provider
	// NoLocalAccounts refuses logins and links by password.
	NoLocalAccounts bool
	// AllowedOrigins are the origins, besides that of PublicURL, whose pages may send
	// requests with a cookie, the panel's or the Provider's, that change something.
	AllowedOrigins []string
	// Logger is told of what the operator should change; nil discards.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Auth issues and checks credentials. It is safe for concurrent use.
type Auth struct {
	store     Store
	publicURL *url.URL
	proxies   []netip.Prefix
	logger    *slog.Logger
	now       func() time.Time
	passwords *passwords
	limits    *Limits
	places    *places
	paces     *paces
	lookups   *queue // Of logins from unknown places in the database.
	uses      *uses  // Of sessions and API keys.
	origin    *http.CrossOriginProtection
	apiKeys   *apiKeys

	provider    Provider // nil if there is none.
	noPasswords bool

	proxyWarning sync.Once

	keys   atomic.Pointer[keyring]
	loads  atomic.Uint64 // Number of reloads begun.
	reload sync.Mutex    // Held during a reload.
	loaded uint64        // Number of the last successful reload; guarded by reload.
	// revoked is set if keys were revoked since ReloadKeys last reported it; guarded
	// by reload. A token with an unknown key can cause a reload before ReloadKeys does.
	revoked bool
}

// New loads the panel's signing keys, and creates the first one if there is none. The
// database must be migrated.
func New(ctx context.Context, options Options) (*Auth, error) {
	if options.Store == nil || options.PublicURL == nil {
		return nil, errors.New("auth: Store and PublicURL are required")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	keys, err := loadKeys(ctx, options.Store)
	if err != nil {
		return nil, err
	}
	secret, err := options.Store.LoginSecret(ctx)
	if err != nil {
		return nil, err
	}
	passwords, err := newPasswords()
	if err != nil {
		return nil, err
	}
	origin := http.NewCrossOriginProtection()
	publicOrigin := options.PublicURL.Scheme + "://" + options.PublicURL.Host
	for _, trusted := range append([]string{publicOrigin}, options.AllowedOrigins...) {
		if err := origin.AddTrustedOrigin(trusted); err != nil {
			return nil, err
		}
	}
	a := &Auth{
		store:     options.Store,
		publicURL: options.PublicURL,
		proxies:   options.TrustedProxies,
		logger:    options.Logger,
		now:       options.Now,
		passwords: passwords,
		limits:    NewLimits(options.Store, options.Now),
		places:    &places{secret: secret, now: options.Now, remembered: map[string]struct{}{}},
		paces:     newPaces(guessInterval),
		lookups:   newQueue(maxLookups),
		uses:      newUses(),
		origin:    origin,
		apiKeys:   &apiKeys{seen: map[keyHash]struct{}{}},

		provider:    options.Provider,
		noPasswords: options.NoLocalAccounts,
	}
	a.keys.Store(keys)
	return a, nil
}

// Refused returns the number of logins and tokens that were refused without a query,
// because of what this replica remembers.
func (a *Auth) Refused() uint64 { return a.limits.Refused() }

// Slowed returns the number of logins that were slowed down, or refused, because of failures for
// their account from unknown places.
func (a *Auth) Slowed() uint64 { return a.paces.count() }

// Authenticate returns the caller of a request, or the zero Principal if the request
// has no credential. An API key in its own header takes precedence over a bearer token,
// and that over the cookie: an invalid key or token is an error even if another credential
// is valid. Of several session cookies, the first valid one counts, and one with the prefix
// __Host- comes first: a browser also sends those that another program on the host, or on a
// parent domain, has set.
//
// With an Options.Provider, every token, key and cookie that does not have the form of the
// panel's own is the provider's. The panel's own cookies come first.
//
// The answer is that of the database at this moment. What outlives its request, such as a
// stream of events, has to call Authenticate again with the same request, at least once a
// second: a session or key that is revoked at any replica ends it in no other way.
// Control channels, which take device tokens only, are ended by package control.
func (a *Auth) Authenticate(r *http.Request) (Principal, error) {
	key := strings.TrimSpace(r.Header.Get(apiKeyHeader))
	if key != "" && (a.provider == nil || isOwn(key)) {
		return a.apiKey(r.Context(), key)
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		token = strings.TrimSpace(token)
		switch bearer := strings.EqualFold(scheme, "Bearer"); {
		case bearer && (a.provider == nil || isOwn(token)):
			return a.bearer(r.Context(), token)
		case a.provider != nil:
			return a.byProvider(r.Context(), Credential{"Authorization", header})
		default:
			return Principal{}, problem.Unauthorized("Send the token as Authorization: Bearer <token>.")
		}
	}
	if key != "" {
		return a.byProvider(r.Context(), Credential{"X-Api-Key", key})
	}
	return a.byCookies(r)
}

func (a *Auth) byCookies(r *http.Request) (Principal, error) {
	tokens, foreign := a.sessionCookies(r), a.providerCookies(r)
	if len(tokens)+len(foreign) == 0 {
		return Principal{}, nil
	}
	// SameSite=Lax does not protect against pages on a sibling domain.
	if a.origin.Check(r) != nil {
		return Principal{}, errOtherOrigin
	}
	result := error(errDeadSession)
	for _, token := range tokens {
		principal, err := a.cookieSession(r.Context(), token)
		switch {
		case errors.As(err, new(tooManyTokens)):
			result = err // Perhaps of another program, and the next one is valid.
		case !errors.Is(err, errDeadSession):
			return principal, err
		}
	}
	for _, credential := range foreign {
		principal, err := a.byProvider(r.Context(), credential)
		if !isUnauthorized(err) {
			return principal, err
		}
		result = err
	}
	return Principal{}, result
}

func isUnauthorized(err error) bool {
	var refusal *problem.Error
	return errors.As(err, &refusal) && refusal.Status == http.StatusUnauthorized
}

// sessionCookies returns the values of the request's session cookies that may be the
// panel's own.
func (a *Auth) sessionCookies(r *http.Request) []string {
	tokens := cookieValues(r, cookieName)
	if a.provider != nil && a.provider.Cookie() == cookieName { // Its cookie has the same name.
		tokens = slices.DeleteFunc(tokens, func(token string) bool { return !isOwn(token) })
	}
	return tokens
}

// cookieSession returns the caller of a session token. It returns errDeadSession if
// the token is not one, or its session has ended.
func (a *Auth) cookieSession(ctx context.Context, token string) (Principal, error) {
	claims, err := a.verify(ctx, token)
	switch {
	case errors.Is(err, errToken):
		return Principal{}, errDeadSession
	case err != nil:
		return Principal{}, err
	case claims.audience != audienceSession:
		return Principal{}, errDeadSession
	}
	return a.session(ctx, claims)
}

var (
	errOtherOrigin = problem.Unauthorized("The session cookie is not accepted from another origin.")
	errDeadSession = problem.Unauthorized("The session has ended. Log in again.")
	errDeadToken   = problem.Unauthorized("This token is not valid, or is no longer valid.")
)

func (a *Auth) bearer(ctx context.Context, token string) (Principal, error) {
	if strings.HasPrefix(token, apiKeyPrefix) {
		return a.apiKey(ctx, token)
	}
	claims, err := a.verify(ctx, token)
	switch {
	case errors.Is(err, errUnknownKey) && claims.audience == audienceDevice:
		return Principal{}, a.unknownKey(ctx, claims)
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
		// A ticket, which only tunnel servers accept.
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
	a.used(ctx, session)
	return Principal{User: &user, Session: &session}, nil
}
