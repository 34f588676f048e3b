// Package eclipanel takes the sessions and keys of EcliPanel, a panel for game servers, for
// credentials of this panel: it asks EcliPanel whose they are, and updates the account and its
// organisations to match the answer.
//
// An answer of EcliPanel is cached for seconds, whether it accepts the credential or refuses
// it, and concurrent requests with the same credential share one request to EcliPanel. While
// EcliPanel cannot be reached, cached answers are used until they expire. After that, callers
// get 503 and not 401, which would log them out.
package eclipanel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Name is the name of the provider in the database.
const Name = "eclipanel"

// Defaults of Options.
const (
	DefaultCookie    = "token"
	DefaultCacheTime = 10 * time.Second
)

// DefaultAdminRoles returns the roles of EcliPanel's that are admins here by default. Its
// role staff is not.
func DefaultAdminRoles() []string { return []string{"*", "admin", "rootAdmin"} }

const (
	// maxCredential is the maximum length of a credential in bytes. EcliPanel's have about
	// 4,500, and all headers of a request have no more than 32 KiB.
	maxCredential = 16 << 10
	// maxAsking is how many requests to EcliPanel are under way at a time, and maxWait how
	// long another one waits for its turn.
	maxAsking = 32
	maxWait   = 2 * time.Second
	// unreachableTime is how long a failure to ask EcliPanel about a credential is cached.
	unreachableTime = time.Second
	// failures is the maximum number of credentials of a source that EcliPanel refuses, or answers in an unexpected way,
	// within failureWindow. Those that it has accepted within knownTime are asked about even so, and count only once it
	// refuses them.
	failures      = 300
	failureWindow = time.Minute
	knownTime     = time.Hour
)

// Store is the part of the database that the provider uses.
type Store interface {
	SyncIdentity(ctx context.Context, identity db.Identity) (db.User, error)
	UserByID(ctx context.Context, id int64) (db.User, error)
	Settings(ctx context.Context) (db.Settings, error)
	UpdateSettings(ctx context.Context, patch db.SettingsPatch) (db.Settings, error)
	auth.Counts
}

// Options configures a Provider.
type Options struct {
	Store Store // Required.
	// URL is where EcliPanel answers: http or https, with a path or without. Required.
	URL *url.URL
	// Cookie is the name of EcliPanel's cookie; empty is "token".
	Cookie string
	// AdminRoles are the roles at EcliPanel that are admins here; nil is DefaultAdminRoles, and empty is none.
	AdminRoles []string
	// CacheTime is how long an answer is cached; 0 is 10 seconds.
	CacheTime time.Duration
	// TrustedProxies are addresses that stand for more than one caller, so that refused
	// credentials from there do not count against an address.
	TrustedProxies []netip.Prefix
	Logger         *slog.Logger     // nil discards.
	Now            func() time.Time // nil is time.Now.
}

// Provider is an auth.Provider. It must be closed. It is safe for concurrent use.
type Provider struct {
	options Options
	client  *client
	limits  *auth.Limits
	// accepted caches the users of credentials, and refused why others were refused, or
	// could not be checked.
	accepted, refused *cache
	// known has the credentials that EcliPanel has accepted within knownTime. Nobody else at
	// their address can have them refused.
	known   *cache
	fetches singleflight.Group
	asking  chan struct{} // Has an element for each request under way.

	life    context.Context // Ends with Close.
	end     context.CancelFunc
	mu      sync.Mutex // Orders running.Add before running.Wait.
	running sync.WaitGroup
}

// New returns a Provider. It asks EcliPanel nothing.
func New(options Options) (*Provider, error) {
	if options.Store == nil || options.URL == nil {
		return nil, errors.New("eclipanel: Store and URL are required")
	}
	if options.Cookie == "" {
		options.Cookie = DefaultCookie
	}
	if options.AdminRoles == nil {
		options.AdminRoles = DefaultAdminRoles()
	}
	if options.CacheTime == 0 {
		options.CacheTime = DefaultCacheTime
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	life, end := context.WithCancel(context.Background())
	return &Provider{
		options:  options,
		client:   newClient(options.URL),
		limits:   auth.NewLimits(options.Store, options.Now),
		accepted: newCache(),
		refused:  newCache(),
		known:    newCache(),
		asking:   make(chan struct{}, maxAsking),
		life:     life,
		end:      end,
	}, nil
}

// Close ends the requests to EcliPanel that are under way, and waits for them. A second
// Close does nothing.
func (p *Provider) Close() {
	p.mu.Lock()
	p.end()
	p.mu.Unlock()
	p.running.Wait()
	p.client.close()
}

// begin reports whether a request may start, which then has to end with running.Done.
func (p *Provider) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return false
	}
	p.running.Add(1)
	return true
}

// DisplayName returns EcliPanel's name for people.
func (p *Provider) DisplayName() string { return "EcliPanel" }

// Cookie returns the name of EcliPanel's cookie.
func (p *Provider) Cookie() string { return p.options.Cookie }

// Holder returns whose a credential is. The error may be a problem.Error: unauthorized,
// kyc_required, email_taken or unavailable.
func (p *Provider) Holder(ctx context.Context, credential auth.Credential) (auth.Holder, error) {
	if len(credential.Value) > maxCredential {
		return auth.Holder{}, errUnauthorized
	}
	k := keyOf(credential)
	v, ok := p.cached(k)
	if ok && v.err == nil {
		user, err := p.options.Store.UserByID(ctx, v.userID)
		if !errors.Is(err, db.ErrNotFound) {
			return v.holder(user), err
		}
		// The account was deleted here. EcliPanel still knows the person, who gets a new one.
		p.accepted.drop(k)
		ok = false
	}
	if ok {
		return auth.Holder{}, v.err
	}
	return p.ask(ctx, k, credential)
}

// cached returns the cached answer about a credential.
func (p *Provider) cached(k key) (verdict, bool) {
	now := p.options.Now()
	if v, ok := p.accepted.get(k, now); ok {
		return v, true
	}
	return p.refused.get(k, now)
}

var errUnauthorized = problem.Unauthorized("EcliPanel does not accept this session or key.")

func errUnreachable(cause error) *problem.Error {
	return problem.Unavailable("EcliPanel cannot be reached to check who you are.", cause)
}

// fetched is an answer of EcliPanel, with the account if it was not in the cache.
type fetched struct {
	verdict verdict
	user    db.User
}

// ask asks EcliPanel. Concurrent calls with the same credential share one request.
func (p *Provider) ask(ctx context.Context, k key, credential auth.Credential) (auth.Holder, error) {
	limits := p.failureLimits(ctx)
	if _, known := p.known.get(k, p.options.Now()); !known {
		if wait := p.limits.Over(limits...); wait > 0 {
			err := problem.Unavailable("Too many sessions and keys were not valid.", nil)
			err.RetryAfter = wait
			return auth.Holder{}, err
		}
	}
	// A caller who leaves does not end the request, which others may wait for.
	shared := context.WithoutCancel(ctx)
	result := p.fetches.DoChan(string(k[:]), func() (any, error) { return p.fetch(shared, k, credential, limits) })
	select {
	case r := <-result:
		if r.Err != nil {
			return auth.Holder{}, r.Err
		}
		f := r.Val.(fetched)
		if f.verdict.err == nil && f.user.ID == 0 {
			// Another request has filled the cache since Holder looked there.
			user, err := p.options.Store.UserByID(ctx, f.verdict.userID)
			return f.verdict.holder(user), err
		}
		return f.verdict.holder(f.user), f.verdict.err
	case <-ctx.Done():
		return auth.Holder{}, ctx.Err()
	}
}

// failureLimits returns the limits on refused credentials of a caller's address, and none for a
// trusted proxy's, which many callers share.
func (p *Provider) failureLimits(ctx context.Context) []auth.Limit {
	for _, network := range p.options.TrustedProxies {
		if network.Contains(auth.Address(ctx)) {
			return nil
		}
	}
	return auth.PerSource(ctx, "eclipanel:address", failures, failureWindow)
}

// fetch asks EcliPanel and caches its answer, or that it could not be reached. It returns an
// error if something else failed, which is not cached.
func (p *Provider) fetch(ctx context.Context, k key, credential auth.Credential, limits []auth.Limit) (fetched, error) {
	if v, ok := p.cached(k); ok {
		return fetched{verdict: v}, nil
	}
	if !p.begin() {
		return fetched{}, problem.Unavailable("The panel is stopping.", nil)
	}
	defer p.running.Done()
	ctx, cancel := context.WithTimeout(ctx, maxWait+askTimeout)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()

	asked := p.options.Now() // Before the answer, which may be old when it arrives.
	v := verdict{until: asked.Add(p.options.CacheTime)}
	who, err := p.person(ctx, credential)
	var user db.User
	if err == nil {
		user, err = p.synchronise(ctx, who)
	}
	if _, known := p.known.get(k, asked); !known && errors.As(err, new(unexpectedError)) {
		// Else one source's invented credentials could have a limit of EcliPanel's refuse everybody's.
		if _, err := p.limits.Take(ctx, limits...); err != nil {
			return fetched{}, err
		}
	}
	var refusal *problem.Error
	switch {
	case err == nil:
		v.userID, v.session = user.ID, who.session()
		p.accepted.put(k, v, asked)
		p.known.put(k, verdict{until: asked.Add(knownTime)}, asked)
		return fetched{v, user}, nil
	case errors.Is(err, errRefused):
		p.known.drop(k)
		if _, err := p.limits.Take(ctx, limits...); err != nil {
			return fetched{}, err
		}
		v.err = errUnauthorized
	case errors.Is(err, db.ErrEmailTaken):
		v.err = problem.EmailTaken()
	case errors.As(err, &refusal) && refusal.Status < 500:
		v.err = refusal
	case errors.As(err, &refusal):
		v.err, v.until = refusal, p.options.Now().Add(min(unreachableTime, p.options.CacheTime))
	default:
		return fetched{}, err
	}
	p.refused.put(k, v, asked)
	return fetched{verdict: v}, nil
}

// synchronise returns the account of a person, as EcliPanel says.
func (p *Provider) synchronise(ctx context.Context, who person) (db.User, error) {
	identity, err := who.identity(p.options.AdminRoles)
	if err != nil {
		return db.User{}, errUnreachable(unexpectedError{err})
	}
	return p.options.Store.SyncIdentity(ctx, identity)
}

// person asks EcliPanel whose a credential is. The error is errRefused or a problem.Error.
func (p *Provider) person(ctx context.Context, credential auth.Credential) (person, error) {
	turn := time.NewTimer(maxWait)
	defer turn.Stop()
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-turn.C:
		return person{}, errUnreachable(errors.New("too many requests to EcliPanel are under way"))
	case <-ctx.Done():
		return person{}, errUnreachable(ctx.Err())
	}
	body, err := p.client.get(ctx, credential, "api", "auth", "session")
	if errors.Is(err, errRefused) {
		return person{}, err
	}
	if err != nil {
		return person{}, errUnreachable(err)
	}
	who, err := parseSession(body)
	switch {
	case err != nil:
		return person{}, errUnreachable(unexpectedError{err})
	case who.KYCRequired && !who.KYCVerified:
		return person{}, problem.KYCRequired()
	}
	return who, nil
}
