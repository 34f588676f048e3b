package server_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// newOIDC starts an OpenID Connect provider, whose requests pass what is in front of it.
func newOIDC(t *testing.T, front ...func(http.Handler) http.Handler) *mockoidc.MockOIDC {
	t.Helper()
	provider, err := mockoidc.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range front {
		if err := provider.AddMiddleware(f); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := provider.Start(listener, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Shutdown() })
	return provider
}

// oidcSettings is the entry of a provider in the providers file.
func oidcSettings(id string, provider *mockoidc.MockOIDC) map[string]any {
	return map[string]any{
		"id": id, "name": "The " + id, "type": "oidc", "issuer": provider.Issuer(), "clientId": provider.ClientID,
		"clientSecretFile": provider.ClientSecret, "clientAuth": "client_secret_post",
		"scopes": []string{"openid", "email", "profile", "groups"}, "claims": map[string]any{"role": "groups"}, "admins": []string{"admins"},
	}
}

// withProviders configures a panel with providers. The secrets stand in place of their files.
func withProviders(t *testing.T, entries ...map[string]any) func(*server.Options) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, entry := range entries {
		if secret, ok := entry["clientSecretFile"].(string); ok {
			entry["clientSecretFile"] = write(entry["id"].(string), secret)
		}
	}
	content, err := json.Marshal(map[string]any{"providers": entries})
	if err != nil {
		t.Fatal(err)
	}
	providers, err := server.ReadIdentityProviders(write("providers.json", string(content)))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) {
		o.IdentityProviders = providers
		o.TunnelServer.Disabled = true // Nobody plays.
	}
}

// browser is a person's, with a real cookie jar. It follows no redirect by itself.
type browser struct {
	t     *testing.T
	panel *servertest.Panel
	jar   http.CookieJar
}

func newBrowser(t *testing.T, panel *servertest.Panel) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, panel, jar}
}

func (b *browser) do(method, address string, transport http.RoundTripper) *http.Response {
	b.t.Helper()
	client := &http.Client{Transport: transport, Jar: b.jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	request, err := http.NewRequestWithContext(b.t.Context(), method, address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// at requests a path of the panel, whose answer is held to the contract.
func (b *browser) at(method, path string) *http.Response {
	b.t.Helper()
	return b.do(method, b.panel.URL+path, b.panel.HTTP.Transport)
}

// leads returns where a path of the panel leads.
func (b *browser) leads(path string) string {
	b.t.Helper()
	response := b.at("GET", path)
	if response.StatusCode != http.StatusFound {
		b.t.Fatalf("%s answered %d", path, response.StatusCode)
	}
	return response.Header.Get("Location")
}

// begin begins a login and returns the address at the provider.
func (b *browser) begin(id string) *url.URL {
	b.t.Helper()
	location := b.leads("/api/auth/providers/" + id + "/login?returnTo=/device?code=CDFG-2345")
	return parse(b.t, location)
}

// consent logs in at the provider, and returns the path and query at the panel to which the
// provider leads.
func (b *browser) consent(provider *url.URL) *url.URL {
	b.t.Helper()
	transport := &http.Transport{}
	b.t.Cleanup(transport.CloseIdleConnections)
	response := b.do("GET", provider.String(), transport)
	location := parse(b.t, response.Header.Get("Location"))
	return &url.URL{Path: location.Path, RawQuery: location.RawQuery}
}

// logIn logs in and returns where that leads.
func (b *browser) logIn(id string) string {
	b.t.Helper()
	return b.leads(b.consent(b.begin(id)).String())
}

// user returns whom the browser is logged in as, or nil.
func (b *browser) user() *types.User {
	b.t.Helper()
	response := b.at("GET", "/api/auth/session")
	if response.StatusCode == http.StatusUnauthorized {
		return nil
	}
	var session types.Session
	if err := json.NewDecoder(response.Body).Decode(&session); err != nil || response.StatusCode != http.StatusOK {
		b.t.Fatalf("session: %d %v", response.StatusCode, err)
	}
	return &session.User
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// with returns a URL with another value of a parameter.
func with(u *url.URL, name, value string) *url.URL {
	other, query := *u, u.Query()
	query.Set(name, value)
	other.RawQuery = query.Encode()
	return &other
}

// without returns a URL without a parameter.
func without(u *url.URL, name string) *url.URL {
	other, query := *u, u.Query()
	query.Del(name)
	other.RawQuery = query.Encode()
	return &other
}

const failedPath = "/login-failed?reason="

// wantFailure checks that a login has ended at the page of a reason, and with no session.
func (b *browser) wantFailure(what, location, reason string) {
	b.t.Helper()
	if !strings.HasPrefix(location, failedPath+reason+"&") {
		b.t.Errorf("%s: leads to %s, want the reason %s", what, location, reason)
	}
	if user := b.user(); user != nil {
		b.t.Errorf("%s: logged in as %s", what, user.Email)
	}
}

func person(subject, email string, groups ...string) *mockoidc.MockUser {
	return &mockoidc.MockUser{Subject: subject, Email: email, EmailVerified: true, Groups: groups}
}

func TestIdentityProviders_LoginSessionRoleAndLogout(t *testing.T) {
	provider, other := newOIDC(t), newOIDC(t)
	down := newOIDC(t)
	settings := oidcSettings("down", down)
	if err := down.Shutdown(); err != nil {
		t.Fatal(err)
	}
	// It starts with a provider that is down.
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider), oidcSettings("guests", other), settings))
	b := newBrowser(t, p)

	provider.QueueUser(person("17", "ada@example.com", "staff", "admins"))
	if location := b.logIn("company"); location != "/device?code=CDFG-2345" {
		t.Fatalf("the login leads to %s", location)
	}
	user := b.user()
	if user == nil || user.Email != "ada@example.com" || user.Role != types.RoleAdmin {
		t.Fatalf("logged in as %+v", user)
	}
	if response := b.at("POST", "/api/auth/logout"); response.StatusCode != http.StatusNoContent || b.user() != nil {
		t.Error("still logged in after the logout")
	}

	provider.QueueUser(person("17", "ada@new.example.com", "staff")) // No admin any more, and another email.
	b.logIn("company")
	if again := b.user(); again == nil || again.ID != user.ID || again.Email != "ada@new.example.com" || again.Role != types.RoleUser {
		t.Errorf("logged in as %+v", again)
	}

	// The same subject at another provider is another person.
	other.QueueUser(person("17", "eve@example.com"))
	guest := newBrowser(t, p)
	guest.logIn("guests")
	if eve := guest.user(); eve == nil || eve.ID == user.ID || eve.Role != types.RoleUser {
		t.Errorf("logged in as %+v", eve)
	}

	fresh := newBrowser(t, p)
	fresh.wantFailure("a provider that is down", fresh.leads("/api/auth/providers/down/login"), "unreachable")
}

func TestIdentityProviders_RefuseWhatIsNotTheAnswerToThisLogin(t *testing.T) {
	provider, other := newOIDC(t), newOIDC(t)
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider), oidcSettings("guests", other)))
	attacker := newBrowser(t, p)
	for what, test := range map[string]struct {
		reason   string
		location func(b *browser) string
	}{
		"the nonce of another login": {"refused", func(b *browser) string {
			return b.leads(b.consent(with(b.begin("company"), "nonce", "another")).String())
		}},
		"the code of a login with another verifier": {"stale", func(b *browser) string {
			mine := attacker.consent(attacker.begin("company"))
			theirs := b.consent(b.begin("company"))
			return b.leads(with(theirs, "code", mine.Query().Get("code")).String())
		}},
		"a login that another browser began": {"stale", func(b *browser) string {
			return b.leads(attacker.consent(attacker.begin("company")).String())
		}},
		"another state": {"stale", func(b *browser) string {
			return b.leads(with(b.consent(b.begin("company")), "state", "TY3KQ0S2VH1MXJT5W8NQFB6CZR").String())
		}},
		"an answer at the address of another provider": {"stale", func(b *browser) string {
			answer := b.consent(b.begin("company"))
			answer.Path = strings.Replace(answer.Path, "company", "guests", 1)
			return b.leads(answer.String())
		}},
		"an answer of another issuer": {"refused", func(b *browser) string {
			return b.leads(with(b.consent(b.begin("company")), "iss", other.Issuer()).String())
		}},
		"a code that has expired": {"stale", func(b *browser) string {
			return b.leads(with(b.consent(b.begin("company")), "code", "expired").String())
		}},
		"an answer of the provider that says no": {"denied", func(b *browser) string {
			return b.leads(with(b.consent(b.begin("company")), "error", "access_denied").String())
		}},
		"an answer of the provider with an error in markup": {"refused", func(b *browser) string {
			return b.leads(with(b.consent(b.begin("company")), "error", "<script>alert(1)</script>").String())
		}},
		"no code": {"refused", func(b *browser) string {
			return b.leads(without(b.consent(b.begin("company")), "code").String())
		}},
	} {
		b := newBrowser(t, p)
		location := test.location(b)
		b.wantFailure(what, location, test.reason)
		page := b.do("GET", p.URL+location, p.HTTP.Transport)
		if page.StatusCode < 400 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: the page answers %d, %s", what, page.StatusCode, page.Header.Get("Content-Type"))
		}
	}
}

// forger is a person whose ID token has been changed, and signed by the provider.
type forger struct {
	*mockoidc.MockUser
	forge func(token *mockoidc.IDTokenClaims)
}

// Claims returns those of the ID token.
func (f forger) Claims(scopes []string, token *mockoidc.IDTokenClaims) (jwt.Claims, error) {
	f.forge(token)
	return f.MockUser.Claims(scopes, token)
}

func TestIdentityProviders_RefuseIDTokensThatAreNotForThisLogin(t *testing.T) {
	provider := newOIDC(t)
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider)))
	for what, forge := range map[string]func(token *mockoidc.IDTokenClaims){
		"of another audience": func(token *mockoidc.IDTokenClaims) { token.Audience = []string{"another"} },
		"of another issuer":   func(token *mockoidc.IDTokenClaims) { token.Issuer = "https://login.example.com" },
		"expired": func(token *mockoidc.IDTokenClaims) {
			token.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Minute))
		},
		"without a nonce":   func(token *mockoidc.IDTokenClaims) { token.Nonce = "" },
		"without a subject": func(token *mockoidc.IDTokenClaims) { token.Subject = "" },
	} {
		provider.QueueUser(forger{person("17", "ada@example.com", "admins"), forge})
		b := newBrowser(t, p)
		b.wantFailure("an ID token "+what, b.logIn("company"), "refused")
	}
}

func TestIdentityProviders_AnAnswerCountsOnceAtAnyReplica(t *testing.T) {
	provider := newOIDC(t)
	database := dbtest.URL(t)
	replica := func() *servertest.Panel {
		return servertest.Start(t, withProviders(t, oidcSettings("company", provider)), func(o *server.Options) {
			o.Database.URL = database
		})
	}
	a, c := replica(), replica()
	b, second := newBrowser(t, a), newBrowser(t, c)
	second.jar = b.jar // The replicas differ in their ports alone, which cookies ignore.

	provider.QueueUser(person("17", "ada@example.com"))
	answer := b.consent(b.begin("company"))
	cookies := b.jar.Cookies(parse(t, a.URL))
	if location := second.leads(answer.String()); location != "/device?code=CDFG-2345" {
		t.Fatalf("the login leads to %s at the other replica", location)
	}
	for _, replay := range []*browser{newBrowser(t, a), newBrowser(t, c)} {
		replay.jar.SetCookies(parse(t, replay.panel.URL), cookies) // Stolen, before it was used.
		replay.wantFailure("a replay", replay.leads(answer.String()), "stale")
	}
}
