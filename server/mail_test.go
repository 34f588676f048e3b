package server_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/mail/mailtest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// TestMail_IsCheckedAtTheStart, which does not wait for the mail server.
func TestMail_IsCheckedAtTheStart(t *testing.T) {
	good := mailtest.Start(t, mailtest.Options{Login: true})
	for name, test := range map[string]struct {
		mail server.Mail
		want string
	}{
		"accepted":       {server.Mail{URL: "smtp://panel@" + good.Address, Password: mailtest.Password, RootCAs: good.RootCAs}, "mail server accepts the panel"},
		"wrong password": {server.Mail{URL: "smtp://panel@" + good.Address, Password: "another secret", RootCAs: good.RootCAs}, "refused the user or the password (535)"},
		"nobody there":   {server.Mail{URL: "smtp://127.0.0.1:1"}, "The mail server cannot be reached."},
		"silent":         {server.Mail{URL: "smtps://" + mailtest.Silent(t)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			test.mail.From = "noreply@example.com"
			p := servertest.Start(t, func(o *server.Options) {
				o.Mail, o.Logger, o.TunnelServer.Disabled = test.mail, slog.New(slog.NewTextHandler(&log, nil)), true
			})
			await.Until(t, "a line about the mail server", func() bool { return log.Count(test.want) > 0 })
			p.Login()
			p.Stop() // At once, also while the check waits.
			if text := log.String(); strings.Contains(text, mailtest.Password) || strings.Contains(text, "another secret") {
				t.Errorf("the log has the password: %s", text)
			}
		})
	}
}
