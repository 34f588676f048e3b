// Package oauth logs people in at identity providers: by OpenID Connect, and by OAuth 2 with
// a userinfo endpoint. Both use the authorization code flow with PKCE
// (RFC 6749, RFC 7636) as RFC 9700 recommends it: each login has a state of its own, which
// the browser keeps in an encrypted cookie and which is answered once, and OpenID Connect
// has a nonce.
//
// A provider is asked when somebody logs in there, and never while the panel starts. What
// a provider says reaches logs, bounded and quoted, and no page.
package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// The maximum numbers of answers to logins from one address within limitWindow.
const (
	failuresPerAddress = 30
	// answersPerAddress includes those of people who have logged in: each is a row for as long as
	// it could be sent again.
	answersPerAddress = 300
	limitWindow       = time.Minute
)

// Store is the part of the database that Providers uses.
type Store interface {
	LoginSecret(ctx context.Context) ([]byte, error)
	auth.Counts
}

// Options configures Providers.
type Options struct {
	// Providers are those of ReadFile; none is fine.
	Providers []Settings
	Store     Store // Required.
	// PublicURL is the panel's URL for people, to which providers send them back. Required.
	PublicURL *url.URL
	// Timeout bounds each request to a provider; 0 is 5 seconds.
	Timeout time.Duration
	Logger  *slog.Logger // nil discards.
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Providers are the identity providers at which people log in. It is safe for concurrent
// use.
type Providers struct {
	all    []*provider
	jar    *jar
	limits *auth.Limits
	client *http.Client
	now    func() time.Time
	logger *slog.Logger
}

type provider struct {
	Settings
	discovery *discovery
	callback  string // Where it sends people back: an address for each provider (RFC 9700 section 4.4.2).
}

// New returns the providers with these settings, which must be closed. It asks none of them.
func New(ctx context.Context, options Options) (*Providers, error) {
	if options.Store == nil || options.PublicURL == nil {
		return nil, errors.New("oauth: Store and PublicURL are required")
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTimeout
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	secret, err := options.Store.LoginSecret(ctx)
	if err != nil {
		return nil, err
	}
	p := &Providers{limits: auth.NewLimits(options.Store, options.Now), client: newClient(options.Timeout)}
	p.now, p.logger = options.Now, options.Logger
	if p.jar, err = newJar(secret, options.PublicURL.Scheme == "https", options.Now); err != nil {
		return nil, err
	}
	for _, settings := range options.Providers {
		p.all = append(p.all, &provider{
			Settings:  settings,
			discovery: newDiscovery(p.context(context.WithoutCancel(ctx)), settings, options.Logger, options.Now),
			callback:  options.PublicURL.JoinPath("api/auth/providers", settings.ID, "callback").String(),
		})
	}
	return p, nil
}

// Close ends what is asked of providers for more than one login, and closes idle connections
// to them. Logins at them fail from then on.
func (p *Providers) Close() {
	for _, provider := range p.all {
		provider.discovery.close()
	}
	p.client.CloseIdleConnections()
}

// Provider is what people see of a provider.
type Provider struct{ ID, Name string }

// List returns the providers in the order of the settings.
func (p *Providers) List() []Provider {
	list := make([]Provider, 0, len(p.all))
	for _, provider := range p.all {
		list = append(list, Provider{provider.ID, provider.Name})
	}
	return list
}

func (p *Providers) find(id string) (*provider, error) {
	for _, provider := range p.all {
		if provider.ID == id {
			return provider, nil
		}
	}
	return nil, &Failure{Reason: UnknownProvider, Provider: id}
}

// Begin returns the address at a provider at which a person logs in, and the cookies of the
// answer that sends them there. returnTo is where they go after that; sent are the cookies
// of the request. The error is a *Failure.
func (p *Providers) Begin(ctx context.Context, id, returnTo string, sent []*http.Cookie) (string, []*http.Cookie, error) {
	provider, err := p.find(id)
	if err != nil {
		return "", nil, err
	}
	known, err := provider.discovery.get(ctx)
	if err != nil {
		return "", nil, &Failure{reasonOf(err), id, err}
	}
	verifier := oauth2.GenerateVerifier()
	login, cookies, err := p.jar.begin(id, returnTo, verifier, sent)
	if err != nil {
		return "", nil, err
	}
	parameters := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	if provider.Type == typeOIDC {
		parameters = append(parameters, oidc.Nonce(login.Nonce))
	}
	return provider.config(known).AuthCodeURL(login.State, parameters...), cookies, nil
}

// Finish checks a provider's answer, finds out who has logged in, and calls logIn with them.
// It returns where they go after that. An error of logIn is a failed login like all others,
// which count against the caller's address. The cookies are those of the response, whether or
// not there is an error; sent are those of the request. The error is a *Failure, or one of
// logIn, of the database or of a limit. After that of a limit the answer can be sent again.
func (p *Providers) Finish(
	ctx context.Context, id string, answer url.Values, sent []*http.Cookie, logIn func(context.Context, db.Identity) error,
) (returnTo string, cookies []*http.Cookie, err error) {
	provider, err := p.find(id)
	if err != nil {
		return "", nil, err
	}
	login, clear, ok := p.jar.find(answer.Get("state"), sent)
	if !ok {
		// Not counted: it costs nothing, and pages of other sites can have browsers send it.
		return "", nil, &Failure{Reason: Stale, Provider: id}
	}
	failures := auth.PerSource(ctx, "provider:address", failuresPerAddress, limitWindow)
	answers := auth.PerSource(ctx, "provider:answers", answersPerAddress, limitWindow)
	if err := p.limits.Check(ctx, slices.Concat(failures, answers)...); err != nil {
		return "", nil, err
	}
	identity, err := p.identify(p.context(ctx), provider, login, answer)
	if err == nil {
		err = logIn(ctx, identity)
	}
	if err == nil {
		// The login has succeeded; all that is lost is one of the attempts that the limit permits.
		if err := p.limits.Refund(ctx, failures...); err != nil {
			p.logger.WarnContext(ctx, "a login counts as a failed one", slog.String("provider", id), slog.Any("error", err))
		}
	}
	return login.ReturnTo, []*http.Cookie{clear}, err
}

// use fails if the answer to a login was used before, at any replica.
func (p *Providers) use(ctx context.Context, login pending) error {
	sum := sha256.Sum256([]byte(login.State))
	// The row outlives the cookie.
	used := auth.Limit{Key: "provider:state:" + hex.EncodeToString(sum[:16]), Max: 1, Window: 2 * loginLifetime}
	wait, err := p.limits.Take(ctx, used)
	if err == nil && wait > 0 {
		err = &Failure{Reason: Stale, Provider: login.Provider}
	}
	return err
}

func (p *Providers) identify(ctx context.Context, provider *provider, login pending, answer url.Values) (db.Identity, error) {
	fail := func(reason Reason, cause error) (db.Identity, error) {
		return db.Identity{}, &Failure{reason, provider.ID, cause}
	}
	if login.Provider != provider.ID {
		return fail(Stale, nil) // An answer of one provider at the address of another (RFC 9700 section 4.4).
	}
	known, err := provider.discovery.get(ctx)
	if err != nil {
		return fail(reasonOf(err), err)
	}
	if err := known.checkIssuer(answer); err != nil {
		return fail(Refused, err)
	}
	if code := answer.Get("error"); code != "" {
		reason, cause := refusal(code)
		return fail(reason, cause)
	}
	if err := p.use(ctx, login); err != nil {
		return db.Identity{}, err
	}
	token, err := provider.config(known).Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(login.Verifier))
	if err != nil {
		reason, cause := exchangeFailure(err)
		return fail(reason, cause)
	}
	said, err := provider.claims(ctx, known, token, login.Nonce, p.now)
	if err != nil {
		return fail(reasonOf(err), err)
	}
	identity, err := provider.identity(said)
	if err != nil {
		return fail(Refused, err)
	}
	return identity, nil
}

func (p *provider) config(known *endpoints) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.clientSecret, Endpoint: known.oauth2, RedirectURL: p.callback, Scopes: p.Scopes,
	}
}

// context returns a context with the client for requests to providers, which both
// libraries look for under the same key.
func (p *Providers) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, p.client)
}

// checkIssuer checks that the answer is the provider's (RFC 9207 section 2.4).
func (e *endpoints) checkIssuer(answer url.Values) error {
	issuer, sent := answer["iss"]
	switch {
	case !sent && !e.announcesIssuer, sent && issuer[0] == e.issuer:
		return nil
	case !sent:
		return errors.New("its answer has no parameter iss, which its metadata announce")
	case e.issuer == "":
		return nil // Its settings have endpoints alone: there is nothing to compare.
	default:
		return foreign("its answer has the parameter iss of another provider", errors.New(issuer[0]))
	}
}

// claims returns what the provider says about the person who has logged in.
func (p *provider) claims(ctx context.Context, known *endpoints, token *oauth2.Token, nonce string, now func() time.Time) (sources, error) {
	if known.keys == nil {
		said, err := known.userinfoClaims(ctx, token)
		return sources{said}, err
	}
	said, err := p.verify(ctx, known, token, nonce, now)
	if err != nil || known.userinfo == "" || said.has(p.needed()...) {
		return sources{said}, err
	}
	more, err := known.userinfoClaims(ctx, token)
	if err != nil {
		return nil, err
	}
	if text(more.get("sub")) != text(said.get("sub")) { // OpenID Connect Core section 5.3.2.
		return nil, errors.New("its userinfo endpoint speaks of another person than the ID token")
	}
	return sources{said, more}, nil
}

// userinfoClaims returns those of the userinfo endpoint.
func (e *endpoints) userinfoClaims(ctx context.Context, token *oauth2.Token) (claims, error) {
	said := claims{}
	if err := getJSON(ctx, e.userinfo, token.AccessToken, &said); err != nil {
		return nil, foreign("ask its userinfo endpoint", err)
	}
	return said, nil
}

// loginKeys are a provider's keys for one login. They keep the error of a signature, of which
// the verifier returns the text alone.
type loginKeys struct {
	oidc.KeySet
	err error
}

// VerifySignature verifies a token.
func (k *loginKeys) VerifySignature(ctx context.Context, token string) (payload []byte, err error) {
	payload, k.err = k.KeySet.VerifySignature(ctx, token)
	return payload, k.err
}

// verify returns the claims of the ID token after it has verified it: its signature,
// issuer, audience, expiry and nonce (OpenID Connect Core section 3.1.3.7).
func (p *provider) verify(ctx context.Context, known *endpoints, token *oauth2.Token, nonce string, now func() time.Time) (claims, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return nil, errors.New("its token endpoint has sent no ID token")
	}
	keys := &loginKeys{KeySet: known.keys}
	verifier := oidc.NewVerifier(known.issuer, keys, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: known.algorithms, Now: now})
	verified, err := verifier.Verify(ctx, raw)
	if keys.err != nil {
		err = keys.err
	}
	if err != nil {
		return nil, foreign("verify the ID token", err)
	}
	if subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(nonce)) == 0 {
		return nil, errors.New("the ID token has the nonce of another login")
	}
	if verified.AccessTokenHash != "" {
		if err := verified.VerifyAccessToken(token.AccessToken); err != nil {
			return nil, foreign("verify the access token", err)
		}
	}
	var content json.RawMessage
	if err := verified.Claims(&content); err != nil {
		return nil, foreign("read the ID token", err)
	}
	said := claims{}
	if err := decode(content, &said); err != nil {
		return nil, foreign("read the ID token", err)
	}
	if party, ok := said["azp"]; ok && party != p.ClientID {
		return nil, errors.New("the ID token was issued to another party")
	}
	return said, nil
}
