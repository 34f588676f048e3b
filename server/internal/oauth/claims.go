package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// maxSubject is the maximum length of a subject in bytes (OpenID Connect Core section 2).
	maxSubject = 255
	maxEmail   = 254 // Bytes, as the contract has it.
	// maxOrganisationName is the maximum length of an organisation's name in characters; a
	// longer one is cut.
	maxOrganisationName = 100
	maxOrganisations    = 1000
)

// claims are what a provider says of a person.
type claims map[string]any

// get returns a claim by its name, or by its path into objects; nil if there is none.
func (c claims) get(name string) any {
	if value, ok := c[name]; ok {
		return value
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, _ := c[first].(map[string]any)
	return claims(inner).get(rest)
}

// has reports whether there are claims of all these names.
func (c claims) has(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return c.get(name) == nil })
}

// add adds the claims that are missing.
func (c claims) add(others claims) {
	for name, value := range others {
		if _, ok := c[name]; !ok {
			c[name] = value
		}
	}
}

// needed returns the names of the claims that identity uses, but for the subject.
func (s Settings) needed() []string {
	names := []string{s.Claims.Email}
	if !s.TrustEmail {
		names = append(names, s.Claims.EmailVerified)
	}
	if len(s.Admins) > 0 {
		names = append(names, s.Claims.Role)
	}
	if s.Claims.Organisations != "" {
		names = append(names, s.Claims.Organisations)
	}
	return names
}

// identity returns who the claims are about. A role or an organisation that the provider
// does not mention is one that the person does not have.
func (s Settings) identity(c claims) (db.Identity, error) {
	subject := text(c.get(s.Claims.Subject))
	if subject == "" || len(subject) > maxSubject {
		return db.Identity{}, fmt.Errorf("the claim %s is missing, or too long", s.Claims.Subject)
	}
	identity := db.Identity{Provider: s.ID, Subject: subject, Email: email(c.get(s.Claims.Email))}
	identity.LinkEmail = identity.Email != "" && (s.TrustEmail || isTrue(c.get(s.Claims.EmailVerified)))
	if len(s.Admins) > 0 {
		admin := slices.ContainsFunc(texts(c.get(s.Claims.Role)), func(role string) bool {
			return slices.Contains(s.Admins, role)
		})
		identity.Admin = &admin
	}
	var err error
	if s.Claims.Organisations != "" {
		identity.Organisations, err = organisations(c.get(s.Claims.Organisations))
	}
	return identity, err
}

// text returns a string, or a number as it was written; otherwise "". It drops what the
// database cannot store.
func text(value any) string {
	switch value := value.(type) {
	case string:
		return strings.ReplaceAll(value, "\x00", "")
	case json.Number:
		return value.String()
	default:
		return ""
	}
}

// texts returns the strings of a list, or the only one.
func texts(value any) []string {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var all []string
	for _, item := range list {
		if t := text(item); t != "" {
			all = append(all, t)
		}
	}
	return all
}

// isTrue reports whether a claim is true. Some providers write it as a string.
func isTrue(value any) bool { return value == true || value == "true" }

// email returns an email, or "" if the claim is none that the panel can have.
func email(value any) string {
	address := strings.TrimSpace(text(value))
	parsed, err := mail.ParseAddress(address)
	if err != nil || parsed.Address != address || len(address) > maxEmail {
		return ""
	}
	return address
}

// organisations returns those of a claim: names, or objects. It is never nil.
func organisations(value any) ([]db.IdentityOrganisation, error) {
	all := []db.IdentityOrganisation{}
	list, ok := value.([]any)
	if !ok && value != nil {
		list = []any{value} // Some providers send the only one.
	}
	if len(list) > maxOrganisations {
		return nil, errors.New("the claim of organisations has too many")
	}
	for _, item := range list {
		organisation := db.IdentityOrganisation{ID: text(item), Name: text(item), Role: "member"}
		if object, ok := item.(map[string]any); ok {
			organisation.ID, organisation.Name = text(object["id"]), text(object["name"])
			organisation.Role = organisationRole(object)
		}
		if organisation.ID == "" || len(organisation.ID) > maxSubject {
			return nil, errors.New("the claim of organisations has one without an id, or with one that is too long")
		}
		if organisation.Name == "" {
			organisation.Name = organisation.ID
		}
		organisation.Name = cut(organisation.Name, maxOrganisationName)
		all = append(all, organisation)
	}
	return all, nil
}

// organisationRole returns the person's role, which is member unless it is one that the
// panel knows.
func organisationRole(organisation map[string]any) string {
	for _, name := range []string{"orgRole", "role"} {
		if role := text(organisation[name]); role == "owner" || role == "admin" {
			return role
		}
	}
	return "member"
}

func cut(s string, characters int) string {
	if utf8.RuneCountInString(s) <= characters {
		return s
	}
	return string([]rune(s)[:characters])
}
