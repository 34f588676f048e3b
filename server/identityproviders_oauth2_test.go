package server_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// oauthServer stands in for EcliPanel's OAuth 2 server: its metadata are below /api, it takes
// the client's secret in the body, and its userinfo has sub, role and orgs.
type oauthServer struct {
	*httptest.Server

	mu         sync.Mutex
	person     map[string]any    // The userinfo of whoever logs in next.
	challenges map[string]string // By code.
	people     map[string]any    // By access token.
	announce   bool              // Its answers have iss.
	// answers are those of paths in place of the server's own.
	answers map[string]http.HandlerFunc
}

const ecliPanelSecret = "correct-horse"

func newOAuthServer(t *testing.T) *oauthServer {
	t.Helper()
	e := &oauthServer{challenges: map[string]string{}, people: map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/.well-known/oauth-authorization-server", e.metadata)
	mux.HandleFunc("GET /api/oauth/authorize", e.authorize)
	mux.HandleFunc("POST /api/oauth/token", e.token)
	mux.HandleFunc("GET /api/oauth/userinfo", e.userinfo)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if answer := e.answers[r.URL.Path]; answer != nil {
			answer(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *oauthServer) settings() map[string]any {
	return map[string]any{
		"id": "eclipanel", "name": "EcliPanel", "type": "oauth2", "issuer": e.URL,
		"discoveryUrl": e.URL + "/api/.well-known/oauth-authorization-server",
		"clientId":     "tunnel", "clientSecretFile": ecliPanelSecret, "clientAuth": "client_secret_post",
		"scopes": []string{"profile", "email", "orgs:read"}, "admins": []string{"*", "admin", "rootAdmin"},
		"claims": map[string]any{"organisations": "orgs", "emailVerified": "emailVerified"},
	}
}

func (e *oauthServer) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (e *oauthServer) metadata(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, map[string]any{
		"issuer": e.URL, "authorization_endpoint": e.URL + "/api/oauth/authorize", "token_endpoint": e.URL + "/api/oauth/token",
		"userinfo_endpoint":                              e.URL + "/api/oauth/userinfo",
		"token_endpoint_auth_methods_supported":          []string{"client_secret_post"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": e.announce,
	})
}

func (e *oauthServer) authorize(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("client_id") != "tunnel" || query.Get("response_type") != "code" || query.Get("code_challenge_method") != "S256" {
		answerJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	code := rand.Text()
	e.challenges[code] = query.Get("code_challenge")
	back := url.Values{"code": {code}, "state": {query.Get("state")}}
	if e.announce {
		back.Set("iss", e.URL)
	}
	http.Redirect(w, r, query.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (e *oauthServer) token(w http.ResponseWriter, r *http.Request) {
	challenge, known := e.challenges[r.PostFormValue("code")]
	delete(e.challenges, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case r.PostFormValue("client_id") != "tunnel" || r.PostFormValue("client_secret") != ecliPanelSecret:
		answerJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
	case !known || base64.RawURLEncoding.EncodeToString(sum[:]) != challenge:
		answerJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
	default:
		token := strings.Repeat("long", 1100) + rand.Text() // About 4.5 kB, and no JWT.
		e.people[token] = e.person
		answerJSON(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
	}
}

func (e *oauthServer) userinfo(w http.ResponseWriter, r *http.Request) {
	person, ok := e.people[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if !ok {
		answerJSON(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
		return
	}
	answerJSON(w, http.StatusOK, person)
}

// rulesStatus returns what the browser's user gets for the first organisation's rules, which
// its owners and admins see.
func (b *browser) rulesStatus() int {
	b.t.Helper()
	return b.at("GET", "/api/organisations/1/rules").StatusCode
}

func TestIdentityProviders_OAuth2MapsRoleAndOrganisationsOfEcliPanel(t *testing.T) {
	e := newOAuthServer(t)
	p := servertest.Start(t, withProviders(t, e.settings()))
	person := func(role any, orgRole string) map[string]any {
		return map[string]any{"sub": "42", "role": role, "orgs": []any{map[string]any{"id": 7, "name": "guild", "orgRole": orgRole}}}
	}
	b := newBrowser(t, p)
	for _, test := range []struct {
		person map[string]any
		role   types.Role
		rules  int // The answer of the rules of the organisation.
	}{
		{person(nil, "owner"), types.RoleUser, http.StatusOK},
		{person("staff", "admin"), types.RoleUser, http.StatusOK},
		{person("staff", "member"), types.RoleUser, http.StatusOK},
		{person("rootAdmin", "member"), types.RoleAdmin, http.StatusOK},
		{person("*", "member"), types.RoleAdmin, http.StatusOK},
		{person("admin ", ""), types.RoleUser, http.StatusOK},
		{person("admin ", "sovereign"), types.RoleUser, http.StatusNotFound},               // It may be less than a member.
		{map[string]any{"sub": "42", "role": "user"}, types.RoleUser, http.StatusNotFound}, // In no organisation.
	} {
		e.set(func() { e.person = test.person })
		if location := b.logIn("eclipanel"); location != "/device?code=CDFG-2345" {
			t.Fatalf("%v: leads to %s", test.person, location)
		}
		user := b.user()
		if user == nil || user.Role != test.role || b.rulesStatus() != test.rules {
			t.Errorf("%v: logged in as %+v, rules answer %d", test.person, user, b.rulesStatus())
		}
	}
}

func TestIdentityProviders_OAuth2RefusesWhatItCannotTrust(t *testing.T) {
	for what, test := range map[string]struct {
		reason  string
		prepare func(e *oauthServer, settings map[string]any)
		change  func(answer *url.URL) *url.URL
	}{
		"a person without a subject": {"refused", func(e *oauthServer, _ map[string]any) { e.person = map[string]any{"role": "*"} }, nil},
		"another secret":             {"refused", func(_ *oauthServer, s map[string]any) { s["clientSecretFile"] = "wrong" }, nil},
		"no iss where the metadata announce it": {"refused", func(e *oauthServer, _ map[string]any) { e.announce = true },
			func(answer *url.URL) *url.URL { return without(answer, "iss") }},
		"a subject with NUL": {"refused", func(e *oauthServer, _ map[string]any) { e.person = map[string]any{"sub": "4\x002"} }, nil},
		"an organisation without an id": {"refused", func(e *oauthServer, _ map[string]any) {
			e.person = map[string]any{"sub": "1", "orgs": []any{map[string]any{"name": "guild"}}}
		}, nil},
	} {
		e := newOAuthServer(t)
		settings := e.settings()
		e.set(func() { e.person = map[string]any{"sub": "42"}; test.prepare(e, settings) })
		p := servertest.Start(t, withProviders(t, settings))
		b := newBrowser(t, p)
		answer := b.consent(b.begin("eclipanel"))
		if test.change != nil {
			answer = test.change(answer)
		}
		b.wantFailure(what, b.leads(answer.String()), test.reason)
	}
}

func TestIdentityProviders_MetadataOfAnotherIssuerAreRefused(t *testing.T) {
	e := newOAuthServer(t)
	settings := e.settings()
	settings["issuer"] = "https://ecli.example.com"
	p := servertest.Start(t, withProviders(t, settings))
	b := newBrowser(t, p)
	b.wantFailure("metadata of another issuer", b.leads("/api/auth/providers/eclipanel/login"), "refused")
}
