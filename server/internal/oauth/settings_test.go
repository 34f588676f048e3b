package oauth_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
)

// write writes a file that only its owner may read, and returns its path.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadFile_ReadsYAMLAndJSONWithSecretsBesideIt(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "secret", "\ufeffs3cret\r\n")
	for name, content := range map[string]string{
		"YAML": `
providers:
  - id: company
    type: oidc
    issuer: https://login.example.com/realms/main
    clientId: eclitunnel
    clientSecretFile: secret
    claims: { role: realm_access.roles }
    admins: [panel-admin]
  - { id: eclipanel, name: EcliPanel, type: oauth2, issuer: "https://panel.ecli.example", clientId: a, scopes: [profile, "orgs:read"],
      discoveryUrl: "https://panel.ecli.example/api/.well-known/oauth-authorization-server" }`,
		"JSON": `{"providers": [
			{"id": "company", "type": "oidc", "issuer": "https://login.example.com/realms/main", "clientId": "eclitunnel",
				"clientSecretFile": "secret", "claims": {"role": "realm_access.roles"}, "admins": ["panel-admin"]},
			{"id": "eclipanel", "name": "EcliPanel", "type": "oauth2", "issuer": "http://127.0.0.1:3000", "clientId": "a"}]}`,
	} {
		providers, err := oauth.ReadFile(write(t, dir, "providers", content))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(providers) != 2 || providers[0].Name != "company" || providers[1].Name != "EcliPanel" ||
			providers[0].ClientSecretFile != filepath.Join(dir, "secret") || strings.Join(providers[0].Scopes, " ") != "openid email profile" {
			t.Errorf("%s: read %+v", name, providers)
		}
	}
}

func TestReadFile_NamesTheFault(t *testing.T) {
	const oidc = `id: a, type: oidc, issuer: "https://a.example.com", clientId: b`
	for fault, entry := range map[string]string{
		"issuer: is required":                         `id: a, type: oidc, clientId: b`,
		`issuer: "http://a.example.com" is not https`: `id: a, type: oidc, issuer: "http://a.example.com", clientId: b`,
		`issuer: "https://" is not a URL`:             `id: a, type: oidc, issuer: "https://", clientId: b`,
		"id: is not 1 to 32":                          `id: A/b, type: oidc, issuer: "https://a.example.com", clientId: b`,
		`type: "saml" is neither`:                     `id: a, type: saml, issuer: "https://a.example.com", clientId: b`,
		"clientId: is required":                       `id: a, type: oidc, issuer: "https://a.example.com"`,
		"clientSecretFile: ":                          oidc + `, clientSecretFile: nothing`,
		"empty is empty":                              oidc + `, clientSecretFile: empty`,
		"needs clientSecretFile":                      oidc + `, clientAuth: client_secret_post`,
		`clientAuth: "tls" is none of`:                oidc + `, clientAuth: tls`,
		"scopes: OpenID Connect needs openid":         oidc + `, scopes: [email]`,
		"scopes: \"a b\" is not a scope":              oidc + `, scopes: [openid, "a b"]`,
		"claims.role: has no effect without admins":   oidc + `, claims: {role: groups}`,
		"tokenUrl: is for oauth2 alone":               oidc + `, tokenUrl: "https://a.example.com/t"`,
		"field clientSecret not found":                oidc + `, clientSecret: s3cret`,
		`the id "a" is taken`:                         oidc + `}, {` + oidc,
		"is not https":                                `id: a, type: oauth2, issuer: "https://a.example.com", clientId: b, userinfoUrl: "ftp://a/u"`,
	} {
		dir := t.TempDir()
		write(t, dir, "empty", "\n")
		_, err := oauth.ReadFile(write(t, dir, "providers.yaml", "providers: [{"+entry+"}]"))
		if err == nil || !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), "providers.yaml") {
			t.Errorf("%s: %v", fault, err)
		}
	}
	for _, content := range []string{"", "providers: []", "{", "providers: 1"} {
		if _, err := oauth.ReadFile(write(t, t.TempDir(), "providers.yaml", content)); err == nil {
			t.Errorf("read %q", content)
		}
	}
}
