package eclipanel

import (
	"slices"
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
		identity, err := who.identity(DefaultAdminRoles())
		if err != nil {
			plain(t, "error", err.Error(), 200)
			return
		}
		plain(t, "subject", identity.Subject, 255)
		plain(t, "email", identity.Email, 254)
		if identity.Subject == "" || (identity.Admin == nil) != (who.Role == nil) ||
			(identity.Organisations == nil) != (who.Orgs == nil) || len(identity.Organisations) > 1000 {
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

// TestPerson_RoleAndOrganisations reads answers that say nothing of the role or the organisations, or none.
func TestPerson_RoleAndOrganisations(t *testing.T) {
	yes, no := true, false
	for body, want := range map[string]struct {
		roles         []string
		admin         *bool
		organisations []string // nil leaves those of before.
	}{
		`{"id":1}`:                          {DefaultAdminRoles(), nil, nil},
		`{"id":1,"role":null,"orgs":null}`:  {DefaultAdminRoles(), nil, nil},
		`{"id":1,"role":"","orgs":[]}`:      {[]string{""}, &no, []string{}},
		`{"id":1,"role":"*","orgs":[]}`:     {[]string{}, &no, []string{}},
		`{"id":1,"role":"*"}`:               {DefaultAdminRoles(), &yes, nil},
		`{"id":1,"role":"staff","orgs":[]}`: {DefaultAdminRoles(), &no, []string{}},
		`{"id":1,"orgs":[{"id":7,"orgRole":"owner"},{"id":8,"orgRole":"guest"},{"orgRole":"guest"}]}`: {nil, nil, []string{"7"}},
	} {
		who, err := parseSession([]byte(`{"user":` + body + `}`))
		if err != nil {
			t.Fatal(err)
		}
		identity, err := who.identity(want.roles)
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if (identity.Admin == nil) != (want.admin == nil) || want.admin != nil && *identity.Admin != *want.admin {
			t.Errorf("%s with the roles %q: %+v", body, want.roles, identity)
		}
		var ids []string
		for _, organisation := range identity.Organisations {
			ids = append(ids, organisation.ID)
		}
		if (identity.Organisations == nil) != (want.organisations == nil) || !slices.Equal(ids, want.organisations) {
			t.Errorf("%s: organisations %+v", body, identity.Organisations)
		}
	}
}

func FuzzParseFeatures(f *testing.F) {
	for _, seed := range []string{`{"featureToggles":{"tunnels":true}}`, `{"featureToggles":null}`, `{"featureToggles":{"tunnels":"no"}}`, `1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = parseFeatures(body) })
}
