package db

import (
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the texts of an [Identity].
const (
	maxIdentityID            = 255 // Bytes, as a subject has in OpenID Connect Core section 2.
	maxIdentityEmail         = 254 // Characters, as in the contract.
	maxIdentityName          = 100 // Characters of an organisation's name; a longer one is cut.
	maxIdentityOrganisations = 1000
)

// Clean returns the identity with texts that the database can store and pages can show: what a provider says is
// not trusted. An email that an account cannot have counts as none, and so does one below .invalid. Names of
// organisations lose control characters, those that change the direction of text, invisible ones but for joiners, which
// some scripts need, and what is beyond 100 characters; one without a name is called by its ID. Subjects and IDs are
// never changed, which could make two of them one. The error says which of them is missing, too long or not printable
// text, and quotes nothing of it.
func (i Identity) Clean() (Identity, error) {
	if err := checkIdentityID(i.Subject); err != nil {
		return Identity{}, fmt.Errorf("the subject %w", err)
	}
	i.Email = cleanIdentityEmail(i.Email)
	i.LinkEmail = i.LinkEmail && i.Email != ""
	if len(i.Organisations) > maxIdentityOrganisations {
		return Identity{}, fmt.Errorf("there are more than %d organisations", maxIdentityOrganisations)
	}
	i.Organisations = slices.Clone(i.Organisations)
	for n := range i.Organisations {
		organisation := &i.Organisations[n]
		if err := checkIdentityID(organisation.ID); err != nil {
			return Identity{}, fmt.Errorf("the id of an organisation %w", err)
		}
		if organisation.Name = cleanIdentityName(organisation.Name); organisation.Name == "" {
			organisation.Name = cleanIdentityName("Organisation " + organisation.ID)
		}
	}
	return i, nil
}

func checkIdentityID(id string) error {
	switch {
	case id == "":
		return errors.New("is missing")
	case len(id) > maxIdentityID:
		return fmt.Errorf("is longer than %d bytes", maxIdentityID)
	// Decoders replace whatever is no UTF-8 by the same character.
	case !utf8.ValidString(id), strings.ContainsRune(id, utf8.RuneError), strings.ContainsFunc(id, unicode.IsControl):
		return errors.New("has control characters, or is not UTF-8")
	}
	return nil
}

// cleanIdentityEmail returns an email, or "" if it is none that an account can have.
func cleanIdentityEmail(email string) string {
	email = strings.TrimSpace(email)
	address, err := mail.ParseAddress(email)
	if err != nil || address.Address != email || utf8.RuneCountInString(email) > maxIdentityEmail ||
		!utf8.ValidString(email) || IsPlaceholder(email) ||
		strings.ContainsFunc(email, func(r rune) bool { return unicode.In(r, unicode.C, unicode.Z) }) {
		return ""
	}
	return email
}

// IsPlaceholder reports whether an email is in the domain .invalid, in any case. There are the emails of accounts
// of identity providers that have none, and nobody's own: a user with one would take it from the person whose
// account is to have it.
func IsPlaceholder(email string) bool {
	domain := strings.ToLower(email[strings.LastIndexByte(email, '@')+1:])
	return domain == "invalid" || strings.HasSuffix(domain, ".invalid")
}

// checkOwnEmail returns ErrPlaceholder if a person or an admin cannot give an email to an account.
func checkOwnEmail(email string) error {
	if IsPlaceholder(email) {
		return ErrPlaceholder
	}
	return nil
}

// misleading matches the characters that names cannot have in the contract.
var misleading = regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}\x{61c}\x{200b}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{feff}\x{fff9}-\x{fffb}]`)

func cleanIdentityName(name string) string {
	name = strings.TrimSpace(misleading.ReplaceAllString(strings.ToValidUTF8(name, ""), ""))
	if runes := []rune(name); len(runes) > maxIdentityName {
		name = strings.TrimSpace(string(runes[:maxIdentityName]))
	}
	return name
}
