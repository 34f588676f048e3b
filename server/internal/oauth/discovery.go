package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// discoveryLifetime is how long the metadata of a provider are used without asking for
	// them again, and after that for as long as it does not answer.
	discoveryLifetime = time.Hour
	// discoveryRetry is how long a provider that did not answer is not asked again.
	discoveryRetry = 5 * time.Second
)

// endpoints are what the panel knows of a provider from its metadata.
type endpoints struct {
	issuer   string
	oauth2   oauth2.Endpoint
	userinfo string // Empty if it has none.
	// announcesIssuer means that answers have the parameter iss (RFC 9207).
	announcesIssuer bool
	oidc            *oidc.Provider // nil for OAuth 2.
}

// metadata are those of OpenID Connect Discovery and of RFC 8414 that the panel uses.
type metadata struct {
	Issuer           string   `json:"issuer"`
	AuthorizationURL string   `json:"authorization_endpoint"`
	TokenURL         string   `json:"token_endpoint"`
	UserinfoURL      string   `json:"userinfo_endpoint"`
	ClientAuth       []string `json:"token_endpoint_auth_methods_supported"`
	AnnouncesIssuer  bool     `json:"authorization_response_iss_parameter_supported"`
}

// discovery reads a provider's metadata when they are needed, and keeps them. It is safe
// for concurrent use: one caller asks, and the others wait for what it gets.
type discovery struct {
	settings Settings
	now      func() time.Time
	turn     chan struct{} // Full while a caller looks; guards the rest.

	current  *endpoints
	readAt   time.Time
	err      error // Why the last attempt failed.
	failedAt time.Time
}

func newDiscovery(settings Settings, now func() time.Time) *discovery {
	return &discovery{settings: settings, now: now, turn: make(chan struct{}, 1)}
}

// get returns the provider's endpoints.
func (d *discovery) get(ctx context.Context) (*endpoints, error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-d.turn }()
	now := d.now()
	if d.current != nil && now.Sub(d.readAt) < discoveryLifetime {
		return d.current, nil
	}
	if d.err == nil || now.Sub(d.failedAt) >= discoveryRetry {
		found, err := d.read(ctx)
		switch {
		case err == nil:
			d.current, d.readAt, d.err = found, now, nil
			return found, nil
		case ctx.Err() != nil:
			return nil, err // Of this caller alone, who has left.
		}
		d.err, d.failedAt = err, now
	}
	if d.current != nil {
		return d.current, nil
	}
	return nil, d.err
}

func (d *discovery) read(ctx context.Context) (*endpoints, error) {
	var known metadata
	var provider *oidc.Provider
	var err error
	switch {
	case d.settings.Type == typeOIDC:
		provider, err = oidc.NewProvider(ctx, d.settings.Issuer)
		if err == nil {
			err = provider.Claims(&known)
		}
	case d.settings.discovers():
		known, err = d.readMetadata(ctx)
	default:
		known.Issuer = d.settings.Issuer
	}
	if err != nil {
		return nil, foreign("read the provider's metadata", err)
	}
	for _, setting := range []struct {
		name, value string
		known       *string
	}{
		{"authorization_endpoint", d.settings.AuthorizationURL, &known.AuthorizationURL},
		{"token_endpoint", d.settings.TokenURL, &known.TokenURL},
		{"userinfo_endpoint", d.settings.UserinfoURL, &known.UserinfoURL},
	} {
		if setting.value != "" {
			*setting.known = setting.value
		}
		optional := setting.name == "userinfo_endpoint" && provider != nil
		if *setting.known == "" && optional {
			continue
		}
		if err := checkURL(setting.name, *setting.known); err != nil {
			return nil, foreign("read the provider's metadata", err)
		}
	}
	return &endpoints{
		issuer:          known.Issuer,
		oauth2:          oauth2.Endpoint{AuthURL: known.AuthorizationURL, TokenURL: known.TokenURL, AuthStyle: d.settings.authStyle(known)},
		userinfo:        known.UserinfoURL,
		announcesIssuer: known.AnnouncesIssuer,
		oidc:            provider,
	}, nil
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

// getJSON reads a JSON object at an address, with an access token if it is not empty.
func getJSON(ctx context.Context, address, accessToken string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if accessToken != "" {
		request.Header.Set("Authorization", "Bearer "+accessToken)
	}
	response, err := clientOf(ctx).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return statusError{response.StatusCode}
	}
	return decode(body, into)
}

// decode decodes JSON. A number stays as it was written: ids are numbers to some.
func decode(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// statusError is an answer of a provider that is not 200.
type statusError struct{ status int }

func (e statusError) Error() string { return fmt.Sprintf("it answered %d", e.status) }

func clientOf(ctx context.Context) *http.Client {
	client, ok := ctx.Value(oauth2.HTTPClient).(*http.Client)
	if !ok {
		return http.DefaultClient
	}
	return client
}

const (
	// providerTimeout bounds a request to a provider.
	providerTimeout = 5 * time.Second
	// maxAnswer is the maximum size of a provider's answer in bytes.
	maxAnswer = 1 << 20
)

var errRedirects = errors.New("the provider redirects the panel, which does not follow")

// newClient returns the client for requests to providers. It follows no redirects, which
// could lead a secret elsewhere.
func newClient() *http.Client {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		transport = &http.Transport{}
	}
	return &http.Client{
		Transport:     bounded{transport.Clone()},
		Timeout:       providerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirects },
	}
}

// bounded bounds the size of answers.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	return response, nil
}
