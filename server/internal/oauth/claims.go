package oauth

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
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

// sources are the claims about a person from several places. Where two have the same claim,
// the first counts.
type sources []claims

// get returns a claim as [claims.get] does.
func (s sources) get(name string) any {
	for _, c := range s {
		if value := c.get(name); value != nil {
			return value
		}
	}
	return nil
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
func (s Settings) identity(c sources) (db.Identity, error) {
	identity := db.Identity{Provider: s.ID, Subject: text(c.get(s.Claims.Subject)), Email: text(c.get(s.Claims.Email))}
	identity.LinkEmail = s.TrustEmail || s.verified(c, identity.Email)
	if len(s.Admins) > 0 {
		admin := slices.ContainsFunc(texts(c.get(s.Claims.Role)), func(role string) bool {
			return slices.Contains(s.Admins, role)
		})
		identity.Admin = &admin
	}
	if s.Claims.Organisations != "" {
		identity.Organisations = organisations(c.get(s.Claims.Organisations))
	}
	return identity.Clean()
}

// verified reports whether the provider says that it has verified an email. Of a source with
// another email, or with none, it is not known which email it speaks of.
func (s Settings) verified(c sources, email string) bool {
	for _, source := range c {
		claim := source.get(s.Claims.EmailVerified)
		if claim != nil && text(source.get(s.Claims.Email)) == email {
			return isTrue(claim)
		}
	}
	return false
}

// text returns a string, or a number as it was written; otherwise "".
func text(value any) string {
	switch value := value.(type) {
	case string:
		return value
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

// organisations returns those of a claim: names, or objects. It leaves out those with a role of EcliPanel's that the
// panel does not know. It is never nil.
func organisations(value any) []db.IdentityOrganisation {
	all := []db.IdentityOrganisation{}
	list, ok := value.([]any)
	if !ok && value != nil {
		list = []any{value} // Some providers send the only one.
	}
	for _, item := range list {
		organisation := db.IdentityOrganisation{ID: text(item), Name: text(item), Role: "member"}
		if object, ok := item.(map[string]any); ok {
			if unknownRole(text(object["orgRole"])) {
				continue
			}
			organisation.ID, organisation.Name = text(object["id"]), text(object["name"])
			organisation.Role = organisationRole(object)
		}
		all = append(all, organisation)
	}
	return all
}

// unknownRole reports whether an orgRole gives nothing here: it may be less than that of a member.
func unknownRole(role string) bool {
	return role != "" && role != "owner" && role != "admin" && role != "member"
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
