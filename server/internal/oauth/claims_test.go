package oauth

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzIdentity holds what the rest of the panel takes for granted of an identity, whatever the
// ID token and the userinfo endpoint say: texts that Postgres stores and the API shows, and no
// email as verified that the provider has not called so.
func FuzzIdentity(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"sub":"17","email":"ann@example.com","user":{"verified":true},"role":"staff"}`, `{"realm":{"roles":["admin"]},"orgs":["guild"]}`},
		{`{"sub":["17"],"email":{"a":1},"user":[true],"realm":{"roles":{}}}`, `{"sub":{},"orgs":[[],{"id":{},"orgRole":["owner"]}]}`},
		{`{"sub":17,"email":"ann@example.com"}`, `{"email":"eve@example.com","user":{"verified":true}}`},
		{`{"sub":"17","email":["ann@example.com"]}`, `{"email":["ann@example.com"],"user":{"verified":"true"},"user.verified":null}`},
		{`{"sub":"\u0000"}`, `null`}, {`null`, `{"sub":"18","orgs":{"id":7,"name":"\u0000","role":"owner"}}`}, {`[]`, `1e400`},
		{`{"sub":"17","email":""}`, `{"email":"","user":{"verified":true}}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	settings := Settings{ID: "company", Admins: []string{"admin"}, Claims: Claims{
		Subject: "sub", Email: "email", EmailVerified: "user.verified", Role: "realm.roles", Organisations: "orgs",
	}}
	plain := func(t *testing.T, what, text string, most int) {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || utf8.RuneCountInString(text) > most {
			t.Errorf("%s is %q", what, text)
		}
	}
	f.Fuzz(func(t *testing.T, token, userinfo []byte) {
		said, more := claims{}, claims{}
		if decode(token, &said) != nil || decode(userinfo, &more) != nil {
			return
		}
		said.has(settings.needed()...)
		identity, err := settings.identity(sources{said, more})
		if err != nil {
			plain(t, "error", err.Error(), 200)
			return
		}
		plain(t, "subject", identity.Subject, 255)
		plain(t, "email", identity.Email, 254)
		verified := func(c claims) bool {
			email, _ := c["email"].(string)
			return strings.TrimSpace(email) == identity.Email && isTrue(c.get("user.verified"))
		}
		if identity.LinkEmail && (identity.Email == "" || !verified(said) && !verified(more)) {
			t.Errorf("%q is verified", identity.Email)
		}
		if identity.Subject == "" || identity.Admin == nil || identity.Organisations == nil {
			t.Errorf("%+v", identity)
		}
		for _, organisation := range identity.Organisations {
			plain(t, "organisation", organisation.ID, 255)
			plain(t, "name", organisation.Name, 100)
			if organisation.ID == "" || organisation.Name == "" || !strings.Contains(" owner admin member ", " "+organisation.Role+" ") {
				t.Errorf("%+v", organisation)
			}
		}
	})
}
