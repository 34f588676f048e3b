package db_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
)

// TestIdentity_CleanNeverChangesIDs tries subjects and organisations that would become those of somebody else if
// they were made printable.
func TestIdentity_CleanNeverChangesIDs(t *testing.T) {
	for _, id := range []string{
		"", "17\x00", "\x0017", "17\n", "17\x7f", "17\u0085", "17\xff", "17\ufffd", strings.Repeat("a", 256), strings.Repeat("ä", 128),
	} {
		if got, err := (db.Identity{Provider: "company", Subject: id}).Clean(); err == nil {
			t.Errorf("the subject %q became %q", id, got.Subject)
		} else if id != "" && strings.Contains(err.Error(), id) {
			t.Errorf("the error quotes %q", id)
		}
		identity := db.Identity{Provider: "company", Subject: "1", Organisations: []db.IdentityOrganisation{{ID: id, Role: "member"}}}
		if got, err := identity.Clean(); err == nil {
			t.Errorf("the organisation %q became %+v", id, got.Organisations)
		}
	}
	for _, id := range []string{"17", " 17 ", "auth0|5f7c", "ä", strings.Repeat("a", 255)} {
		if got, err := (db.Identity{Provider: "company", Subject: id}).Clean(); err != nil || got.Subject != id {
			t.Errorf("the subject %q became %q: %v", id, got.Subject, err)
		}
	}
}

func TestIdentity_CleanTakesEmailsThatThePanelCanHave(t *testing.T) {
	long := strings.Repeat("ä", 254-len("@example.com")) + "@example.com" // Characters, of more bytes.
	for email, want := range map[string]string{
		"ada@example.com": "ada@example.com", " ada@example.com\n": "ada@example.com", long: long,
		"": "", "ada": "", "Ada <ada@example.com>": "", "ada@example.com, eve@example.com": "",
		"a\x00da@example.com": "", "ada@exa\nmple.com": "", "\xff@example.com": "", "ä" + long: "",
		"a\u200bda@example.com": "", "\u202eada@example.com": "", "ada@exa\u200dmple.com": "", "ada\u2028@example.com": "", "ada@example.com\ufeff": "",
	} {
		got, err := db.Identity{Provider: "company", Subject: "1", Email: email, LinkEmail: true}.Clean()
		if err != nil || got.Email != want || got.LinkEmail != (want != "") {
			t.Errorf("the email %q became %q, which links: %t; %v", email, got.Email, got.LinkEmail, err)
		}
	}
}

func TestIdentity_CleanMakesNamesOfOrganisationsPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"guild": "guild", " gu\x00il\nd ": "guild", strings.Repeat("ä", 101): strings.Repeat("ä", 100),
		"": "Organisation 7", "\x00 ": "Organisation 7", "\xff": "Organisation 7",
		"\u202egu\u200bil\u2066d\ufeff": "guild", "guild\u2028": "guild", "\u200b\u2060": "Organisation 7",
		"\u0645\u06cc\u200c\u062e": "\u0645\u06cc\u200c\u062e", "\U0001f468\u200d\U0001f467": "\U0001f468\u200d\U0001f467", // Joiners.
	} {
		given := []db.IdentityOrganisation{{ID: "7", Name: name, Role: "owner"}}
		before := slices.Clone(given)
		got, err := db.Identity{Provider: "company", Subject: "1", Organisations: given}.Clean()
		if err != nil || len(got.Organisations) != 1 || got.Organisations[0] != (db.IdentityOrganisation{ID: "7", Name: want, Role: "owner"}) {
			t.Errorf("the name %q became %+v: %v", name, got.Organisations, err)
		}
		if !slices.Equal(given, before) {
			t.Error("the argument was changed")
		}
	}
	many := db.Identity{Provider: "company", Subject: "1", Organisations: make([]db.IdentityOrganisation, 1001)}
	if _, err := many.Clean(); err == nil || !strings.Contains(err.Error(), "more than 1000") {
		t.Errorf("1001 organisations: %v", err)
	}
	for _, organisations := range [][]db.IdentityOrganisation{nil, {}} { // They mean different things.
		got, err := db.Identity{Provider: "company", Subject: "1", Organisations: organisations}.Clean()
		if err != nil || (got.Organisations == nil) != (organisations == nil) {
			t.Errorf("%#v became %#v: %v", organisations, got.Organisations, err)
		}
	}
}
