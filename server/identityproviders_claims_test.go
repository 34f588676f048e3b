package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// twoSources is a person of whom the ID token and the userinfo endpoint say different things.
type twoSources struct {
	*mockoidc.MockUser
	token, userinfo string // JSON objects without sub.
}

// Claims returns those of the ID token.
func (s twoSources) Claims(_ []string, token *mockoidc.IDTokenClaims) (jwt.Claims, error) {
	all := jwt.MapClaims{
		"iss": token.Issuer, "aud": token.Audience, "sub": token.Subject, "nonce": token.Nonce, "exp": token.ExpiresAt, "iat": token.IssuedAt,
	}
	return all, json.Unmarshal([]byte(s.token), &all)
}

// Userinfo returns the answer of the userinfo endpoint.
func (s twoSources) Userinfo([]string) ([]byte, error) {
	all := map[string]any{"sub": s.Subject}
	if err := json.Unmarshal([]byte(s.userinfo), &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// TestIdentityProviders_AVerificationIsOfTheEmailBesideIt tries people of whom the ID token
// and the userinfo endpoint do not say the same.
func TestIdentityProviders_AVerificationIsOfTheEmailBesideIt(t *testing.T) {
	provider := newOIDC(t)
	flat, nested := oidcSettings("flat", provider), oidcSettings("nested", provider)
	nested["claims"] = map[string]any{"emailVerified": "user.email_verified"}
	for _, settings := range []map[string]any{flat, nested} {
		delete(settings, "admins")
	}
	flat["claims"] = map[string]any{}
	p := servertest.Start(t, withProviders(t, flat, nested))
	admin := p.Admin()
	for n, test := range []struct {
		id, token, userinfo string
		reason              string // Of the failure; empty if the account is linked.
	}{
		{"flat", `{"email": "HERS"}`, `{"email": "eve@example.com", "email_verified": true}`, "email-taken"},
		{"nested", `{"email": "HERS"}`, `{"email": "eve@example.com", "user": {"email_verified": true}}`, "email-taken"},
		{"flat", `{"email": "HERS"}`, `{"email_verified": true}`, "email-taken"},
		{"nested", `{"email": "HERS"}`, `{"user": {"email_verified": true}}`, "email-taken"},
		{"flat", `{"email_verified": true}`, `{"email": "HERS"}`, "email-taken"},
		{"flat", `{"email": "HERS", "email_verified": false}`, `{"email": "HERS", "email_verified": true}`, "email-taken"},
		{"flat", `{"email": "HERS"}`, `{"email": "HERS", "email_verified": true}`, ""},
		{"nested", `{"email": "HERS"}`, `{"email": "HERS", "user": {"email_verified": true}}`, ""},
		{"nested", `{"email": "HERS", "user": {"name": "Ada"}}`, `{"email": "HERS", "user": {"email_verified": "true"}}`, ""},
		{"flat", `{}`, `{"email": "HERS", "email_verified": true}`, ""},
	} {
		email := fmt.Sprintf("ada%d@example.com", n)
		made, err := admin.CreateUserWithResponse(t.Context(), types.UserCreate{Email: types.Email(email)})
		if err != nil || made.JSON201 == nil {
			t.Fatal(err)
		}
		fill := func(object string) string { return strings.ReplaceAll(object, "HERS", email) }
		provider.QueueUser(twoSources{person(fmt.Sprint(n), ""), fill(test.token), fill(test.userinfo)})
		b := newBrowser(t, p)
		location := b.logIn(test.id)
		if test.reason != "" {
			b.wantFailure(test.token+" "+test.userinfo, location, test.reason)
		} else if user := b.user(); user == nil || string(user.Email) != email {
			t.Errorf("%s %s: leads to %s as %+v", test.token, test.userinfo, location, user)
		}
	}
}

// TestIdentityProviders_ClaimsOfAnyTypeAreRead has emails, and subjects, that are not text.
func TestIdentityProviders_ClaimsOfAnyTypeAreRead(t *testing.T) {
	provider := newOIDC(t)
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider)))
	for n, claims := range []string{`{"email": ["a@example.com"]}`, `{"email": {"value": "a@example.com"}}`, `{"email": 1}`} {
		provider.QueueUser(twoSources{person(fmt.Sprint(n), ""), claims, claims})
		b := newBrowser(t, p)
		location := b.logIn("company")
		if user := b.user(); user == nil || user.Role != types.RoleUser || !strings.HasSuffix(user.Email, ".invalid") {
			t.Errorf("%s: leads to %s as %+v", claims, location, user)
		}
	}
	for _, subject := range []string{`["17"]`, `{}`, `null`, `"18"`} {
		provider.QueueUser(twoSources{person("17", ""), `{}`, `{"sub": ` + subject + `}`})
		b := newBrowser(t, p)
		b.wantFailure("the userinfo's subject "+subject, b.logIn("company"), "refused")
	}
}
