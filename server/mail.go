package server

import (
	"context"
	"log/slog"

	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
)

// newMailer returns the sender of mail, or nil without settings for it.
func (s *Server) newMailer() (handler.Mailer, error) {
	settings := s.opts.Mail
	if settings.URL == "" {
		return nil, nil
	}
	sender, err := mail.New(mail.Options{
		URL: settings.URL, Password: settings.Password, From: settings.From, Panel: s.url, RootCAs: settings.RootCAs,
	})
	if err != nil {
		return nil, err
	}
	s.mail = sender
	return sender, nil
}

// checkMail logs whether the mail server accepts the panel. The panel does not wait for it: a mail server may
// be away for a while.
func (s *Server) checkMail(ctx context.Context) error {
	if s.mail == nil {
		return nil
	}
	err := s.mail.Check(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.logger.WarnContext(ctx, "mail server does not accept the panel; links are shown to admins meanwhile", slog.Any("error", err))
	default:
		s.logger.InfoContext(ctx, "mail server accepts the panel")
	}
	return nil
}
