package handler_test

import (
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
	"github.com/eclitunnel/eclitunnel/server/internal/mail/mailtest"
)

// mailing returns an option with which a panel sends mail by an SMTP server, and logs.
func mailing(t *testing.T, log *testlog.Buffer, options mail.Options) func(o *handler.Options) {
	t.Helper()
	options.From, options.Panel = "noreply@example.com", &url.URL{Scheme: "https", Host: "panel.example.com"}
	sender, err := mail.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *handler.Options) {
		o.Mailer, o.Logger = sender, slog.New(slog.NewTextHandler(log, nil))
	}
}

func TestPasswordLink_IsMailed(t *testing.T) {
	server := mailtest.Start(t, mailtest.Options{Login: true})
	var log testlog.Buffer
	p := newPanel(t, mailing(t, &log, mail.Options{URL: "smtp://panel@" + server.Address, Password: mailtest.Password, RootCAs: server.RootCAs, Timeout: await.Timeout}))
	admin := p.user(t, "root@example.com", "admin")
	user := decode[types.User](t, admin.send(t, "POST", "/api/users", `{"email":"Grace@example.com"}`), 201)
	answer := decode[types.PasswordLink](t, admin.send(t, "POST", userPath(user.ID)+"/password-link", nil), 200)
	if answer.URL != nil || answer.MailFailure != nil || answer.MailedTo == nil || *answer.MailedTo != user.Email || answer.ExpiresAt.IsZero() {
		t.Errorf("answered %+v", answer)
	}
	got := await.Receive(t, server.Mails, "mail")
	link := regexp.MustCompile(`https://panel\.example\.com/password#\w+`).FindString(strings.ReplaceAll(got.Text, "=\r\n", ""))
	if got.To != user.Email || link == "" {
		t.Fatalf("mailed to %s: %s", got.To, got.Text)
	}
	decode[any](t, p.setPassword(t, types.PasswordLink{URL: &link}, password), 204)
	decode[types.Login](t, p.login(t, user.Email, password), 200)
	if secret := link[len(link)-20:]; strings.Contains(log.String(), secret) || strings.Contains(log.String(), mailtest.Password) {
		t.Errorf("the log has a secret: %s", log.String())
	}
}

// TestPasswordLink_IsShownIfItCannotBeMailed: nothing is lost, whatever the mail server does.
func TestPasswordLink_IsShownIfItCannotBeMailed(t *testing.T) {
	server := mailtest.Start(t, mailtest.Options{Refuses: "nobody@example.com"})
	for name, test := range map[string]struct {
		options mail.Options
		to      string
		want    string
	}{
		"an unknown recipient": {mail.Options{URL: "smtp://" + server.Address, RootCAs: server.RootCAs, Timeout: await.Timeout}, "nobody@example.com", "The mail server refused the recipient (550 5.1.1)."},
		"a refused mail":       {mail.Options{URL: "smtp://" + server.Address, RootCAs: server.RootCAs, Timeout: await.Timeout}, "spam@example.com", "The mail server refused the mail (554 5.7.1)."},
		"a silent server":      {mail.Options{URL: "smtp://" + mailtest.Silent(t), Timeout: 100 * time.Millisecond}, ada, "The mail server did not answer in time."},
		"no server":            {mail.Options{URL: "smtps://127.0.0.1:1"}, ada, "The mail server cannot be reached."},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			p := newPanel(t, mailing(t, &log, test.options))
			admin := p.user(t, "root@example.com", "admin")
			user := decode[types.User](t, admin.send(t, "POST", "/api/users", map[string]string{"email": test.to}), 201)
			link := decode[types.PasswordLink](t, admin.send(t, "POST", userPath(user.ID)+"/password-link", nil), 200)
			if link.MailedTo != nil || link.URL == nil || link.MailFailure == nil || *link.MailFailure != test.want {
				t.Fatalf("answered %+v", link)
			}
			decode[any](t, p.setPassword(t, link, password), 204)
			if text := log.String(); !strings.Contains(text, "mail not sent") || strings.Contains(text, (*link.URL)[len(*link.URL)-20:]) {
				t.Errorf("the log is %s", text)
			}
		})
	}
}
