package eclipanel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
)

// maxAnswer is the maximum length of an answer in bytes.
const maxAnswer = 1 << 20

// person is the user of an answer of GET /api/auth/session. Other fields are ignored.
type person struct {
	ID    id      `json:"id"`
	Email string  `json:"email"`
	Role  *string `json:"role"`
	// SessionID is a text for a session, and missing for an API key and for the access token of
	// an OAuth app, which EcliPanel takes as bearers too.
	SessionID   any            `json:"sessionId"`
	KYCRequired bool           `json:"kycRequired"`
	KYCVerified bool           `json:"kycVerified"`
	Orgs        []organisation `json:"orgs"`
}

type organisation struct {
	ID      id     `json:"id"`
	Name    string `json:"name"`
	OrgRole string `json:"orgRole"`
}

// id is an identifier, a number or a string in JSON. It is empty if there is none.
type id string

// UnmarshalJSON refuses what is neither a whole number nor a text.
func (i *id) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte{'"'}) {
		return json.Unmarshal(text, (*string)(i))
	}
	var n int64
	if err := json.Unmarshal(text, &n); err != nil || bytes.Equal(text, []byte("null")) {
		return errors.New("an id is neither a whole number nor a text")
	}
	*i = id(strconv.FormatInt(n, 10))
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
	if answer.User == nil {
		return person{}, errors.New("the answer names no user")
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
// unknown role is left out. What the answer does not mention, the role or all organisations, is
// not known, and stays as it is. The error quotes nothing of the answer's texts.
func (p person) identity(adminRoles []string) (db.Identity, error) {
	identity := db.Identity{Provider: Name, Subject: string(p.ID), Email: p.Email}
	if p.Role != nil {
		admin := *p.Role != "" && slices.Contains(adminRoles, *p.Role)
		identity.Admin = &admin
	}
	if p.Orgs != nil {
		identity.Organisations = []db.IdentityOrganisation{}
	}
	for _, organisation := range p.Orgs {
		if role := organisation.OrgRole; role == "owner" || role == "admin" || role == "member" {
			identity.Organisations = append(identity.Organisations, db.IdentityOrganisation{
				ID: string(organisation.ID), Name: organisation.Name, Role: role,
			})
		}
	}
	return identity.Clean()
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
