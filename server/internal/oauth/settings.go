package oauth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// The types of providers.
const (
	typeOIDC   = "oidc"
	typeOAuth2 = "oauth2"
)

// The ways in which the panel authenticates to a provider's token endpoint (RFC 8414, of
// which these are the ones of RFC 6749 section 2.3.1).
const (
	authBasic = "client_secret_basic"
	authPost  = "client_secret_post"
	authNone  = "none"
)

// Settings are those of a provider, an entry of the providers file.
type Settings struct {
	// ID names the provider in URLs and in the database, where the identities of its users
	// are kept by it: 1 to 32 lower-case letters, digits and hyphens.
	ID string `yaml:"id"`
	// Name is for people. Empty is the ID.
	Name string `yaml:"name"`
	// Type is "oidc", for OpenID Connect, or "oauth2", for OAuth 2 with a userinfo endpoint.
	Type string `yaml:"type"`

	// Issuer is the provider's URL, exactly as its metadata has it. Required for OpenID
	// Connect; for OAuth 2 it is unless all three endpoints are given.
	Issuer string `yaml:"issuer"`
	// DiscoveryURL is where the metadata of an OAuth 2 provider is. Empty is that of RFC 8414.
	DiscoveryURL string `yaml:"discoveryUrl"`
	// The endpoints of an OAuth 2 provider. An empty one is read from the metadata.
	AuthorizationURL string `yaml:"authorizationUrl"`
	TokenURL         string `yaml:"tokenUrl"`
	UserinfoURL      string `yaml:"userinfoUrl"`

	ClientID string `yaml:"clientId"`
	// ClientSecretFile is relative to the directory of the providers file. Without it the
	// panel is a public client, which PKCE alone protects.
	ClientSecretFile string `yaml:"clientSecretFile"`
	// ClientAuth is "client_secret_basic", "client_secret_post" or "none". Empty is the first
	// of these that the provider's metadata lists, client_secret_basic without a list, and
	// none without a secret.
	ClientAuth string `yaml:"clientAuth"`
	// Scopes are those asked for; empty is openid, email and profile for OpenID Connect, and
	// email and profile for OAuth 2.
	Scopes []string `yaml:"scopes"`

	Claims Claims `yaml:"claims"`
	// Admins are the values of the role claim that make an admin of the panel. If it is empty,
	// the panel's own roles count.
	Admins []string `yaml:"admins"`
	// TrustEmail takes every email of the provider as verified.
	TrustEmail bool `yaml:"trustEmail"`

	clientSecret string
}

// Claims are the names of the claims of the ID token, or of the userinfo endpoint. One with
// dots that does not exist is a path into objects, such as realm_access.roles.
type Claims struct {
	Subject       string `yaml:"subject"`       // Empty is sub.
	Email         string `yaml:"email"`         // Empty is email.
	EmailVerified string `yaml:"emailVerified"` // Empty is email_verified.
	Role          string `yaml:"role"`          // A string or a list of strings. Empty is role.
	// Organisations is a list of names, or of objects with id, name and role or orgRole. If
	// it is empty, the panel's own organisations count.
	Organisations string `yaml:"organisations"`
}

// ReadFile reads a providers file, in YAML or JSON, and the files with secrets that it
// names, and checks them. It asks no provider.
func ReadFile(path string) ([]Settings, error) {
	content, err := files.Read(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Providers []Settings `yaml:"providers"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Providers) == 0 {
		return nil, fmt.Errorf("%s: has no providers", path)
	}
	seen := map[string]bool{}
	for i := range file.Providers {
		s := &file.Providers[i]
		if err := s.complete(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("%s: provider %d (%q): %w", path, i+1, s.ID, err)
		}
		if seen[s.ID] {
			return nil, fmt.Errorf("%s: provider %d: the id %q is taken by another", path, i+1, s.ID)
		}
		seen[s.ID] = true
	}
	return file.Providers, nil
}

// complete checks the settings, applies the defaults, and reads the secret.
func (s *Settings) complete(dir string) error {
	if err := errors.Join(s.checkNames(), s.checkURLs(), s.checkClient(), s.checkClaims()); err != nil {
		return err
	}
	s.setDefaults()
	if s.ClientSecretFile == "" {
		return nil
	}
	if !filepath.IsAbs(s.ClientSecretFile) {
		s.ClientSecretFile = filepath.Join(dir, s.ClientSecretFile)
	}
	content, err := files.ReadSecret(s.ClientSecretFile)
	if err != nil {
		return fmt.Errorf("clientSecretFile: %w", err)
	}
	if s.clientSecret, err = files.Line(s.ClientSecretFile, content); err != nil {
		return fmt.Errorf("clientSecretFile: %w", err)
	}
	if s.clientSecret == "" {
		return fmt.Errorf("clientSecretFile: %s is empty", s.ClientSecretFile)
	}
	return nil
}

func (s *Settings) setDefaults() {
	setDefault(&s.Name, s.ID)
	setDefault(&s.Claims.Subject, "sub")
	setDefault(&s.Claims.Email, "email")
	setDefault(&s.Claims.EmailVerified, "email_verified")
	setDefault(&s.Claims.Role, "role")
	if len(s.Scopes) > 0 {
		return
	}
	s.Scopes = []string{"email", "profile"}
	if s.Type == typeOIDC {
		s.Scopes = []string{"openid", "email", "profile"}
	}
}

func setDefault(value *string, other string) {
	if *value == "" {
		*value = other
	}
}

var (
	idPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	// scopePattern is that of RFC 6749 section 3.3.
	scopePattern = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`)
)

// maxName is the maximum length of a provider's name in bytes.
const maxName = 100

func (s *Settings) checkNames() error {
	var errs []error
	if !idPattern.MatchString(s.ID) {
		errs = append(errs, errors.New("id: is not 1 to 32 lower-case letters, digits and hyphens"))
	}
	if len(s.Name) > maxName {
		errs = append(errs, fmt.Errorf("name: is longer than %d bytes", maxName))
	}
	if s.Type != typeOIDC && s.Type != typeOAuth2 {
		errs = append(errs, fmt.Errorf("type: %q is neither oidc nor oauth2", s.Type))
	}
	return errors.Join(errs...)
}

func (s *Settings) checkURLs() error {
	endpoints := map[string]string{
		"discoveryUrl": s.DiscoveryURL, "authorizationUrl": s.AuthorizationURL, "tokenUrl": s.TokenURL, "userinfoUrl": s.UserinfoURL,
	}
	var errs []error
	for name, value := range endpoints {
		if value != "" && s.Type == typeOIDC {
			errs = append(errs, fmt.Errorf("%s: is for oauth2 alone; OpenID Connect has it in its metadata", name))
		}
		if value != "" {
			errs = append(errs, checkURL(name, value))
		}
	}
	if s.Issuer != "" {
		errs = append(errs, checkURL("issuer", s.Issuer))
	} else if s.Type == typeOIDC || s.discovers() {
		errs = append(errs, errors.New("issuer: is required, unless an oauth2 provider has authorizationUrl, tokenUrl and userinfoUrl"))
	}
	return errors.Join(errs...)
}

// discovers reports whether the metadata of the provider is needed.
func (s *Settings) discovers() bool {
	return s.AuthorizationURL == "" || s.TokenURL == "" || s.UserinfoURL == ""
}

// checkURL checks a URL of a provider: https, but for a provider on the panel's machine.
func checkURL(name, value string) error {
	u, err := url.Parse(value)
	switch {
	case err != nil, u.Host == "", u.User != nil, u.Fragment != "":
		return fmt.Errorf("%s: %q is not a URL with a host, and without credentials and fragment", name, value)
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	default:
		return fmt.Errorf("%s: %q is not https", name, value)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *Settings) checkClient() error {
	var errs []error
	if s.ClientID == "" {
		errs = append(errs, errors.New("clientId: is required"))
	}
	switch s.ClientAuth {
	case "":
	case authNone:
		if s.ClientSecretFile != "" {
			errs = append(errs, errors.New("clientAuth: is none, and clientSecretFile is given"))
		}
	case authBasic, authPost:
		if s.ClientSecretFile == "" {
			errs = append(errs, fmt.Errorf("clientAuth: %s needs clientSecretFile", s.ClientAuth))
		}
	default:
		errs = append(errs, fmt.Errorf("clientAuth: %q is none of client_secret_basic, client_secret_post and none", s.ClientAuth))
	}
	for _, scope := range s.Scopes {
		if !scopePattern.MatchString(scope) {
			errs = append(errs, fmt.Errorf("scopes: %q is not a scope", scope))
		}
	}
	if s.Type == typeOIDC && len(s.Scopes) > 0 && !slices.Contains(s.Scopes, "openid") {
		errs = append(errs, errors.New("scopes: OpenID Connect needs openid"))
	}
	return errors.Join(errs...)
}

func (s *Settings) checkClaims() error {
	if s.Claims.Role != "" && len(s.Admins) == 0 {
		return errors.New("claims.role: has no effect without admins, the values that make an admin")
	}
	if slices.Contains(s.Admins, "") {
		return errors.New("admins: has an empty value")
	}
	if s.Type == typeOIDC && s.Claims.Subject != "" && s.Claims.Subject != "sub" {
		return errors.New("claims.subject: is sub in OpenID Connect")
	}
	return nil
}
