package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Provider is another service whose sessions and keys the panel accepts. It is asked whose they
// are. It is safe for concurrent use. An identity provider at which people log in, to get a
// session of this panel, is not one: see [db.DB.SyncIdentity] and [Auth.NewSession].
type Provider interface {
	// DisplayName returns the provider's name for people.
	DisplayName() string
	// Cookie returns the name of the provider's cookie.
	Cookie() string
	// Holder returns whose a credential is. An unauthorized error means that the credential is
	// not valid.
	Holder(ctx context.Context, credential Credential) (Holder, error)
}

// Holder is whose a credential of a provider is.
type Holder struct {
	User db.User
	// Session reports whether the credential is a session, with which the person logged in, and
	// not a key or another program's token.
	Session bool
	// Until is when the provider has to be asked about the credential again.
	Until time.Time
}

// Credential is a header of a request, as it is sent to the provider.
type Credential struct {
	Header string // Authorization, X-Api-Key or Cookie.
	Value  string // For Cookie, one cookie: name=value.
}

// takesNoSession reports whether a session that is sent in this way counts as a key.
func (c Credential) takesNoSession() bool {
	scheme, _, _ := strings.Cut(c.Value, " ")
	return c.Header == "X-Api-Key" || c.Header == "Authorization" && !strings.EqualFold(scheme, "Bearer")
}

// isAPIKey reports whether it is sent as the provider takes API keys, and no token of another program.
func (c Credential) isAPIKey() bool {
	return c.Header == "X-Api-Key" || c.Header == "Authorization" && strings.HasPrefix(c.Value, "ApiKey ")
}

// The restrictions of a provider's keys and tokens are not known here. providerScopes are the scopes of every key:
// none of them yields the identity of a device, or is an admin's. A token that a person gave to another program, which
// may have asked for nothing but a name there, reads only.
const (
	providerScopes      = ScopeRead | ScopeDevices | ScopeAllocations
	providerTokenScopes = ScopeRead
)

// maxProviderCookies is the maximum number of cookies about which a provider is asked.
const maxProviderCookies = 4

// byProvider returns the caller of a credential that the provider has issued.
func (a *Auth) byProvider(ctx context.Context, credential Credential) (Principal, error) {
	holder, err := a.provider.Holder(ctx, credential)
	user := holder.User
	switch {
	case err != nil:
		return Principal{}, err
	case user.Suspended:
		return Principal{}, problem.Forbidden("This account is suspended.")
	case !holder.Session || credential.takesNoSession():
		scopes := providerScopes
		if !holder.Session && !credential.isAPIKey() {
			scopes = providerTokenScopes
		}
		return Principal{User: &user, Key: &db.APIKey{
			APIKeyOwner: db.APIKeyOwner{UserID: &user.ID},
			Name:        a.provider.DisplayName() + " key of " + user.Email,
			Scopes:      scopes.Names(),
		}}, nil
	}
	return Principal{User: &user, Session: &db.Session{UserID: user.ID, ExpiresAt: holder.Until}}, nil
}

// providerCookies returns the different credentials of the provider's cookies, in order.
func (a *Auth) providerCookies(r *http.Request) []Credential {
	if a.provider == nil {
		return nil
	}
	var credentials []Credential
	seen := map[string]bool{}
	for _, cookie := range r.CookiesNamed(a.provider.Cookie()) {
		if cookie.Value == "" || seen[cookie.Value] || isOwn(cookie.Value) || len(credentials) == maxProviderCookies {
			continue
		}
		seen[cookie.Value] = true
		credentials = append(credentials, Credential{"Cookie", cookie.Name + "=" + cookie.Value})
	}
	return credentials
}

// isOwn reports whether a token has the form of the panel's own: a key, or a JWT that names the
// panel as its issuer. The provider is not asked about those.
func isOwn(token string) bool {
	if strings.HasPrefix(token, apiKeyPrefix) {
		return true
	}
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Issuer string `json:"iss"`
	}
	return err == nil && json.Unmarshal(payload, &claims) == nil && claims.Issuer == issuer
}
