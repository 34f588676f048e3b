package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestIdentityProviders_LinkAnAccountByVerifiedEmailsOnly(t *testing.T) {
	provider := newOIDC(t)
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider)))
	b := newBrowser(t, p)
	unverified := person("1", servertest.AdminEmail)
	unverified.EmailVerified = false
	provider.QueueUser(unverified)
	b.wantFailure("an email that is not verified", b.logIn("company"), "email-taken")

	provider.QueueUser(person("2", servertest.AdminEmail, "admins"))
	b.logIn("company")
	if user := b.user(); user == nil || user.Email != servertest.AdminEmail || user.Role != types.RoleAdmin {
		t.Errorf("logged in as %+v", user)
	}
}

// TestIdentityProviders_LeadToNoAccountThatHasTakenTheEmail has a user take the email of somebody who then logs in
// for the first time.
func TestIdentityProviders_LeadToNoAccountThatHasTakenTheEmail(t *testing.T) {
	const boss = "boss@corp.example"
	provider, other := newOIDC(t), newOIDC(t)
	p := servertest.Start(t, withProviders(t, oidcSettings("company", provider), oidcSettings("guests", other)))
	eve := server.Account{Email: "eve@example.com", Password: "correct horse battery"}
	if err := server.CreateAdmin(t.Context(), server.Database{URL: p.DatabaseURL()}, eve, nil); err != nil {
		t.Fatal(err)
	}
	login, err := p.Client("").LoginWithResponse(t.Context(), types.LoginRequest{Email: types.Email(eve.Email), Password: eve.Password})
	if err != nil || login.JSON200 == nil {
		t.Fatalf("%v %+v", err, login)
	}
	b := newBrowser(t, p)
	provider.QueueUser(person("1", eve.Email, "admins"))
	b.logIn("company") // The account is by a command, which proves its email.
	if user := b.user(); user == nil || user.ID != login.JSON200.User.ID {
		t.Errorf("the account of the command: logged in as %+v", user)
	}

	change := func(email string) int {
		t.Helper()
		answer, err := p.Client(login.JSON200.Token).UpdateAccountWithResponse(t.Context(), types.AccountPatch{
			Email: types.Email(email), CurrentPassword: eve.Password,
		})
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode()
	}
	if got := change("eve@company.invalid"); got != http.StatusBadRequest {
		t.Errorf("an email that is nobody's own: %d", got)
	}
	if got := change(boss); got != http.StatusOK {
		t.Fatalf("the change of the email: %d", got)
	}
	b = newBrowser(t, p)
	other.QueueUser(person("2", boss, "admins"))
	b.wantFailure("an email that a user has set", b.logIn("guests"), "email-taken")

	provider.QueueUser(person("3", "ada@example.com"))
	b.logIn("company")
	ada := b.user()
	if ada == nil {
		t.Fatal("not logged in")
	}
	admin := p.Admin()
	for _, email := range []string{"ada@company.invalid", "ada@example.com"} {
		want := http.StatusOK
		if strings.HasSuffix(email, ".invalid") {
			want = http.StatusBadRequest
		}
		address := types.Email(email)
		answer, err := admin.UpdateUserWithResponse(t.Context(), ada.ID, types.UserPatch{Email: &address})
		if err != nil || answer.StatusCode() != want {
			t.Errorf("%s by an admin: %s %v", email, answer.Body, err)
		}
	}
	actor := "provider:company"
	trail, err := admin.ListAuditWithResponse(t.Context(), &types.ListAuditParams{Actor: &actor, UserID: &ada.ID})
	if err != nil || trail.JSON200 == nil {
		t.Fatalf("%v %s", err, trail.Body)
	}
	var actions []string
	for _, entry := range *trail.JSON200 {
		actions = append(actions, entry.Action)
	}
	if !slices.Equal(actions, []string{"identity.create", "user.create"}) {
		t.Errorf("the provider did %v", actions)
	}
}

// TestIdentityProviders_RefuseWhatIsNotTheAnswerToThisLogin changes one thing of a login at
// a time, as an attacker would.
