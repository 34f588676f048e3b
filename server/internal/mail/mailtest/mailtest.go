// Package mailtest runs real SMTP servers in tests: on 127.0.0.1, with a certificate of their own.
package mailtest

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// The login of servers with one.
const (
	User     = "panel"
	Password = "hunter2hunter2"
)

// Options configures a Server.
type Options struct {
	// Host is the address to listen on, of IPv6 in brackets; empty is 127.0.0.1.
	Host    string
	TLS     bool // From the start, in place of STARTTLS.
	Plain   bool // Without STARTTLS.
	Login   bool // Required, as User with Password.
	Refuses string
}

// Mail is what a Server has received.
type Mail struct {
	From, To string // Of the envelope.
	Text     string // With its header.
}

// Server is a running SMTP server.
type Server struct {
	Address string // 127.0.0.1 and a port.
	RootCAs *x509.CertPool
	// Mails receives what was sent.
	Mails chan Mail
	// Connections receives a value for each connection.
	Connections chan struct{}

	options Options
}

// Start starts a server, and closes it when the test ends. Options.Refuses is a recipient that it does not
// know. It refuses a mail with "spam" in its text, and quotes it.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	// The certificate of net/http/httptest is for 127.0.0.1.
	https := httptest.NewTLSServer(nil)
	https.Close()
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	config := &tls.Config{Certificates: https.TLS.Certificates, MinVersion: tls.VersionTLS12}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", cmp.Or(options.Host, "127.0.0.1")+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Address: listener.Addr().String(), RootCAs: roots, options: options,
		Mails: make(chan Mail, 10), Connections: make(chan struct{}, 10),
	}
	server := smtp.NewServer(s)
	server.Domain = "mail.example.com"
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.EnableSMTPUTF8 = true
	if options.TLS {
		listener = tls.NewListener(listener, config)
	} else if !options.Plain {
		server.TLSConfig = config
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

// Silent starts a server that accepts connections and says nothing, and returns its address.
func Silent(t testing.TB) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String() // The kernel accepts them.
}

// NewSession implements smtp.Backend.
func (s *Server) NewSession(*smtp.Conn) (smtp.Session, error) {
	s.Connections <- struct{}{}
	return &session{server: s}, nil
}

// session implements smtp.AuthSession.
type session struct {
	server *Server
	in     bool
	mail   Mail
}

func (s *session) AuthMechanisms() []string {
	if !s.server.options.Login {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != User || password != Password {
			return smtp.ErrAuthFailed
		}
		s.in = true
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.options.Login && !s.in {
		return smtp.ErrAuthRequired
	}
	s.mail.From = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == s.server.options.Refuses {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	if s.mail.To != "" {
		return errors.New("more than one recipient")
	}
	s.mail.To = to
	return nil
}

func (s *session) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.Text = string(text)
	if strings.Contains(s.mail.Text, "spam") {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "refused: " + strings.Join(strings.Fields(s.mail.Text), " ")}
	}
	s.server.Mails <- s.mail
	return nil
}

func (s *session) Reset() { s.mail = Mail{} }

func (s *session) Logout() error { return nil }
