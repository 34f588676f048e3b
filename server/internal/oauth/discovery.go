package oauth

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// discoveryLifetime is how long the metadata of a provider are used without asking for
	// them again.
	discoveryLifetime = time.Hour
	// staleLifetime is how long metadata are used while the provider cannot be asked for newer
	// ones: long enough for somebody to mend it, and short enough that what the provider has
	// withdrawn does not stay in use for days.
	staleLifetime = 24 * time.Hour
	// discoveryRetry is how long a provider is not asked again after an attempt that failed.
	discoveryRetry = 5 * time.Second
)

// endpoints are what the panel knows of a provider from its metadata.
type endpoints struct {
	issuer   string
	oauth2   oauth2.Endpoint
	userinfo string // Empty if it has none.
	// announcesIssuer means that answers have the parameter iss (RFC 9207).
	announcesIssuer bool
	// keys verify ID tokens, which are signed by one of the algorithms; nil for OAuth 2.
	keys       oidc.KeySet
	algorithms []string // Empty is RS256.
}

// metadata are those of OpenID Connect Discovery and of RFC 8414 that the panel uses.
type metadata struct {
	Issuer           string   `json:"issuer"`
	AuthorizationURL string   `json:"authorization_endpoint"`
	TokenURL         string   `json:"token_endpoint"`
	UserinfoURL      string   `json:"userinfo_endpoint"`
	ClientAuth       []string `json:"token_endpoint_auth_methods_supported"`
	AnnouncesIssuer  bool     `json:"authorization_response_iss_parameter_supported"`
	KeysURL          string   `json:"jwks_uri"`
	Algorithms       []string `json:"id_token_signing_alg_values_supported"`
}

// discovery reads a provider's metadata when they are needed, and caches them. It is safe for
// concurrent use: one read runs at a time, and all callers wait for it.
type discovery struct {
	settings Settings
	logger   *slog.Logger
	now      func() time.Time
	ctx      context.Context // Of reads, which outlive the caller that starts them. It ends with close.
	stop     context.CancelFunc

	mu       sync.Mutex
	current  *endpoints
	readAt   time.Time     // When current was read.
	err      error         // Of the last read; nil if it succeeded.
	failedAt time.Time     // When that read ended.
	reading  chan struct{} // Closed when the read that runs ends; nil if none runs.
}

// newDiscovery returns a discovery whose reads use the HTTP client of ctx, and end with ctx.
func newDiscovery(ctx context.Context, settings Settings, logger *slog.Logger, now func() time.Time) *discovery {
	d := &discovery{settings: settings, logger: logger, now: now}
	d.ctx, d.stop = context.WithCancel(ctx)
	return d
}

// close cancels the read that runs, and waits for it.
func (d *discovery) close() {
	d.stop()
	d.mu.Lock()
	reading := d.reading
	d.mu.Unlock()
	if reading != nil {
		<-reading
	}
}

// get returns the provider's endpoints. It waits for a read unless there are metadata that can
// be used meanwhile, and no longer than ctx lasts.
func (d *discovery) get(ctx context.Context) (*endpoints, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ctx.Err(); err != nil {
		return nil, err
	}
	now := d.now()
	if d.current != nil && now.Sub(d.readAt) < discoveryLifetime {
		return d.current, nil
	}
	if d.reading == nil && (d.err == nil || now.Sub(d.failedAt) >= discoveryRetry) {
		d.start()
	}
	// After a failed read nobody waits for the next one who need not.
	if reading := d.reading; reading != nil && (d.err == nil || !d.usable()) {
		d.mu.Unlock()
		select {
		case <-reading:
		case <-ctx.Done():
		}
		d.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if d.usable() {
		return d.current, nil
	}
	return nil, d.err
}

// usable reports whether there are metadata that are not too old to be used. The caller has
// locked d.mu, as that of start.
func (d *discovery) usable() bool {
	return d.current != nil && d.now().Sub(d.readAt) < staleLifetime
}

// start starts a read.
func (d *discovery) start() {
	reading := make(chan struct{})
	d.reading = reading
	go func() {
		found, err := d.read(d.ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.reading = nil
		defer close(reading)
		if err == nil {
			d.current, d.readAt, d.err = found, d.now(), nil
			return
		}
		if d.err == nil && d.usable() && d.ctx.Err() == nil { // Otherwise callers return it.
			d.logger.Warn("the metadata of an identity provider cannot be read again; those read before stay in use",
				slog.String("provider", d.settings.ID), slog.Duration("usableFor", staleLifetime-d.now().Sub(d.readAt)), slog.Any("error", err))
		}
		d.err, d.failedAt = err, d.now()
	}()
}

// signingAlgorithms are those of ID tokens that the panel accepts. None uses a secret.
var signingAlgorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// read asks the provider for its metadata, and applies the settings.
func (d *discovery) read(ctx context.Context) (*endpoints, error) {
	known, err := d.ask(ctx)
	if err != nil {
		return nil, foreign("read the provider's metadata", err)
	}
	isOIDC := d.settings.Type == typeOIDC
	for _, address := range []struct {
		name, setting string
		known         *string
		unused        bool // If it is empty.
	}{
		{"authorization_endpoint", d.settings.AuthorizationURL, &known.AuthorizationURL, false},
		{"token_endpoint", d.settings.TokenURL, &known.TokenURL, false},
		{"userinfo_endpoint", d.settings.UserinfoURL, &known.UserinfoURL, isOIDC},
		{"jwks_uri", "", &known.KeysURL, !isOIDC},
	} {
		if address.setting != "" {
			*address.known = address.setting
		}
		if *address.known == "" && address.unused {
			continue
		}
		if err := checkURL(address.name, *address.known); err != nil {
			return nil, foreign("read the provider's metadata", err)
		}
	}
	found := &endpoints{
		issuer:          known.Issuer,
		oauth2:          oauth2.Endpoint{AuthURL: known.AuthorizationURL, TokenURL: known.TokenURL, AuthStyle: d.settings.authStyle(known)},
		userinfo:        known.UserinfoURL,
		announcesIssuer: known.AnnouncesIssuer,
	}
	if isOIDC {
		found.keys = oidc.NewRemoteKeySet(ctx, known.KeysURL) // Of ctx it uses the client alone.
		found.algorithms = slices.DeleteFunc(known.Algorithms, func(name string) bool { return !slices.Contains(signingAlgorithms, name) })
	}
	return found, nil
}

// ask returns the provider's metadata; without a request if the settings have all endpoints.
func (d *discovery) ask(ctx context.Context) (metadata, error) {
	switch {
	case d.settings.Type == typeOIDC:
		provider, err := oidc.NewProvider(ctx, d.settings.Issuer)
		if err != nil {
			return metadata{}, err
		}
		var known metadata
		err = provider.Claims(&known)
		return known, err
	case d.settings.discovers():
		return d.readMetadata(ctx)
	default:
		return metadata{Issuer: d.settings.Issuer}, nil
	}
}

// readMetadata reads the metadata of an OAuth 2 provider (RFC 8414 section 3).
func (d *discovery) readMetadata(ctx context.Context) (metadata, error) {
	address := d.settings.DiscoveryURL
	if address == "" {
		issuer, err := url.Parse(d.settings.Issuer)
		if err != nil {
			return metadata{}, err
		}
		issuer.Path = strings.TrimSuffix("/.well-known/oauth-authorization-server"+issuer.Path, "/")
		address = issuer.String()
	}
	var known metadata
	if err := getJSON(ctx, address, "", &known); err != nil {
		return metadata{}, err
	}
	if known.Issuer != d.settings.Issuer {
		return metadata{}, fmt.Errorf("they are of the issuer %q", known.Issuer)
	}
	return known, nil
}

// authStyle returns how the panel authenticates to the token endpoint.
func (s Settings) authStyle(known metadata) oauth2.AuthStyle {
	method := s.ClientAuth
	if method == "" && s.ClientSecretFile != "" {
		method = authBasic // The default of both standards.
		for _, announced := range known.ClientAuth {
			if slices.Contains([]string{authBasic, authPost}, announced) {
				method = announced
				break
			}
		}
	}
	if method == authBasic {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams
}
