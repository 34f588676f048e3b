package eclipanel

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzParseSession holds what the rest of the panel takes for granted of an identity,
// whatever EcliPanel answers: texts that Postgres stores and the API shows.
func FuzzParseSession(f *testing.F) {
	for _, seed := range []string{
		`{"user":{"id":17,"email":"ann@example.com","role":"*","sessionId":"x","permissions":["*"],"limits":null,"kycRequired":true,"kycVerified":false,"orgs":[{"id":7,"name":"Guild","orgRole":"owner"}]}}`,
		`{"user":{"id":"a\u0000","email":"\u0000","role":"admin","orgs":[{"id":"","name":"\u0000"}]}}`,
		`{"user":{"id":-9223372036854775808,"email":null,"orgs":null}}`,
		`{"user":{"id":1e400,"orgs":{}}}`, `{"user":[]}`, `null`, `[]`, ``, "\xff", `{"USER":{"ID":"\ud800"}}`,
		`{"user":{"id":1,"orgs":[{"id":2,"name":"` + strings.Repeat("ä", 300) + `","orgRole":"member"},{"id":2,"orgRole":"owner"}]}}`,
	} {
		f.Add([]byte(seed))
	}
	plain := func(t *testing.T, what, text string, most int) {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || utf8.RuneCountInString(text) > most {
			t.Errorf("%s is %q", what, text)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		who, err := parseSession(body)
		if err != nil {
			plain(t, "error", err.Error(), 200)
			return
		}
		identity := who.identity(DefaultAdminRoles())
		plain(t, "subject", identity.Subject, maxID)
		plain(t, "email", identity.Email, maxEmail)
		if identity.Subject == "" || identity.Admin == nil || identity.Organisations == nil || len(identity.Organisations) > maxOrganisations {
			t.Errorf("%+v", identity)
		}
		for _, organisation := range identity.Organisations {
			plain(t, "organisation", organisation.ID, maxID)
			plain(t, "name", organisation.Name, maxName+len("Organisation "))
			if organisation.ID == "" || organisation.Name == "" || !strings.Contains(" owner admin member ", " "+organisation.Role+" ") {
				t.Errorf("%+v", organisation)
			}
		}
	})
}

func FuzzParseFeatures(f *testing.F) {
	for _, seed := range []string{`{"featureToggles":{"tunnels":true}}`, `{"featureToggles":null}`, `{"featureToggles":{"tunnels":"no"}}`, `1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = parseFeatures(body) })
}
