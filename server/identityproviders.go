package server

import "github.com/eclitunnel/eclitunnel/server/internal/oauth"

// IdentityProvider is the settings of an identity provider, at which people log in by OpenID
// Connect or OAuth 2.
type IdentityProvider = oauth.Settings

// ReadIdentityProviders reads a file of identity providers, in YAML or JSON, and the files
// with secrets that it names, and checks them. It connects to none of the providers.
func ReadIdentityProviders(path string) ([]IdentityProvider, error) { return oauth.ReadFile(path) }
