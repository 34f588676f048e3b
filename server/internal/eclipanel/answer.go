package eclipanel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/db"
)

// Bounds of what is taken from EcliPanel.
const (
	maxAnswer        = 1 << 20 // Bytes.
	maxID            = 255     // Bytes.
	maxOrganisations = 1000
	maxName          = 100 // Characters; the rest of a longer name is dropped.
	maxEmail         = 254 // Characters; a longer email counts as none.
)

// person is the user of an answer of GET /api/auth/session. Other fields are ignored.
type person struct {
	ID    id     `json:"id"`
	Email string `json:"email"`
	Role  string `json:"role"`
	// SessionID is a text for a session, and missing for an API key and for the access token of
	// an OAuth app, which EcliPanel takes as bearers too.
	SessionID   any  `json:"sessionId"`
	KYCRequired bool `json:"kycRequired"`
	KYCVerified bool `json:"kycVerified"`
	Orgs        []struct {
		ID      id     `json:"id"`
		Name    string `json:"name"`
		OrgRole string `json:"orgRole"`
	} `json:"orgs"`
}

// id is an identifier, a number or a string in JSON.
type id string

// UnmarshalJSON refuses what is neither a whole number nor a text.
func (i *id) UnmarshalJSON(text []byte) error {
	var s string
	if bytes.HasPrefix(text, []byte{'"'}) {
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
	} else {
		var n int64
		if err := json.Unmarshal(text, &n); err != nil || bytes.Equal(text, []byte("null")) {
			return errors.New("an id is neither a whole number nor a text")
		}
		s = fmt.Sprint(n)
	}
	if s == "" || len(s) > maxID || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("an id is empty, too long or has control characters")
	}
	*i = id(s)
	return nil
}

// parseSession returns who an answer of GET /api/auth/session is about. The error quotes
// nothing of the answer's texts.
func parseSession(body []byte) (person, error) {
	var answer struct {
		User *person `json:"user"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return person{}, malformed(err)
	}
	switch {
	case answer.User == nil || answer.User.ID == "":
		return person{}, errors.New("the answer names no user")
	case len(answer.User.Orgs) > maxOrganisations:
		return person{}, fmt.Errorf("the answer has %d organisations, more than %d", len(answer.User.Orgs), maxOrganisations)
	}
	for _, organisation := range answer.User.Orgs {
		if organisation.ID == "" {
			return person{}, errors.New("an organisation has no id")
		}
	}
	return *answer.User, nil
}

// isRefusal reports whether the body of an answer with the status 401 or 403 is EcliPanel's, and
// not that of a proxy or firewall before it: an object with a text `error`.
func isRefusal(body []byte) bool {
	var answer struct {
		Error string `json:"error"`
	}
	return json.Unmarshal(body, &answer) == nil && answer.Error != ""
}

// malformed keeps what an error of encoding/json quotes out of logs.
func malformed(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return fmt.Errorf("the answer has another type in the field %q than %v", wrongType.Field, wrongType.Type)
	}
	return errors.New("the answer is not the JSON that was expected")
}

// session reports whether the credential is a session.
func (p person) session() bool {
	id, _ := p.SessionID.(string)
	return id != ""
}

// identity returns what the answer says, in the terms of the panel. An organisation with an
// unknown role is left out.
func (p person) identity(adminRoles []string) db.Identity {
	admin := slices.Contains(adminRoles, p.Role)
	identity := db.Identity{
		Provider: Name, Subject: string(p.ID), Email: plainEmail(p.Email), Admin: &admin,
		Organisations: []db.IdentityOrganisation{},
	}
	for _, organisation := range p.Orgs {
		if role := organisation.OrgRole; role == "owner" || role == "admin" || role == "member" {
			identity.Organisations = append(identity.Organisations, db.IdentityOrganisation{
				ID: string(organisation.ID), Name: plainName(organisation.Name, string(organisation.ID)), Role: role,
			})
		}
	}
	return identity
}

// plainEmail returns an email that the panel can store and show, and otherwise none.
func plainEmail(email string) string {
	address, err := mail.ParseAddress(email)
	if err != nil || address.Address != email || utf8.RuneCountInString(email) > maxEmail ||
		strings.ContainsFunc(email, unicode.IsControl) {
		return ""
	}
	return email
}

// plainName returns a name that the panel can store and show, made from the id if there is
// none.
func plainName(name, id string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, name))
	if runes := []rune(name); len(runes) > maxName {
		name = strings.TrimSpace(string(runes[:maxName]))
	}
	if name == "" {
		return "Organisation " + plainName(id, "?")
	}
	return name
}

// parseFeatures returns the flag `tunnels` of an answer of GET /api/public/features, nil if
// it has none.
func parseFeatures(body []byte) (*bool, error) {
	var answer struct {
		FeatureToggles struct {
			Tunnels *bool `json:"tunnels"`
		} `json:"featureToggles"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, malformed(err)
	}
	return answer.FeatureToggles.Tunnels, nil
}
