// Package mail sends the panel's mail to an SMTP server, one function for each kind of mail.
//
// What is in a mail is in no error and no log: it may be a secret.
package mail

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

const (
	// defaultTimeout bounds the whole of a mail: connecting, and every answer of the server.
	defaultTimeout = 10 * time.Second
	// maxSending is the number of mails that are sent at a time. Others wait, within their timeout.
	maxSending = 4
)

// Options configures a Sender.
type Options struct {
	// URL says where the SMTP server is: smtp://user@host:587 requires STARTTLS, and smtps://user@host:465
	// is TLS from the start. The ports are the defaults. Without a user there is no login. With
	// ?starttls=none an smtp URL without a user sends everything unencrypted. Required.
	URL string
	// Password is that of the URL's user.
	Password string
	// From is the sender, such as noreply@example.com or "EcliTunnel <noreply@example.com>". Required.
	From string
	// Panel is the panel's URL for people. Its host is how the Sender introduces itself. Required.
	Panel *url.URL
	// RootCAs are the authorities that certificates are checked against; nil is the system's.
	RootCAs *x509.CertPool
	// Timeout bounds each mail; 0 is 10 seconds.
	Timeout time.Duration
}

// Sender sends mail. It is safe for concurrent use.
type Sender struct {
	server   server
	from     string
	domain   string // Of the sender.
	password string
	panel    *url.URL
	rootCAs  *x509.CertPool
	timeout  time.Duration
	sending  chan struct{} // Semaphore of maxSending.
}

// server is what a URL says of an SMTP server.
type server struct {
	host, user string
	port       int
	tls        bool // From the start.
	plain      bool // Without STARTTLS.
}

// New returns a Sender. It connects to nothing.
func New(options Options) (*Sender, error) {
	if options.Panel == nil {
		return nil, errors.New("mail: Panel is required")
	}
	server, from, err := options.parse()
	if err != nil {
		return nil, err
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTimeout
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	return &Sender{
		server:   server,
		from:     from.String(),
		domain:   domain,
		password: options.Password,
		panel:    options.Panel,
		rootCAs:  options.RootCAs,
		timeout:  options.Timeout,
		sending:  make(chan struct{}, maxSending),
	}, nil
}

// CheckSettings checks URL, Password and From.
func (o Options) CheckSettings() error {
	_, _, err := o.parse()
	return err
}

// parse never quotes the URL in an error: it may have a password, by mistake.
func (o Options) parse() (s server, from *netmail.Address, err error) {
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "smtp" && u.Scheme != "smtps") || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || u.Fragment != "" {
		return s, nil, errors.New("SMTP URL: it is not like smtp://user@mail.example.com:587 or smtps://user@mail.example.com:465")
	}
	s = server{host: u.Hostname(), user: u.User.Username(), port: 587, tls: u.Scheme == "smtps"}
	if s.tls {
		s.port = 465
	}
	if u.Port() != "" {
		if s.port, err = strconv.Atoi(u.Port()); err != nil || s.port < 1 || s.port > 65535 {
			return s, nil, errors.New("SMTP URL: it has a wrong port")
		}
	}
	s.plain = !s.tls && u.RawQuery == "starttls=none"
	_, hasPassword := u.User.Password()
	switch {
	case u.RawQuery != "" && !s.plain:
		return s, nil, errors.New("SMTP URL: the only parameter is starttls=none, for smtp://")
	case hasPassword:
		return s, nil, errors.New("SMTP URL: it has a password, which belongs in a file of its own")
	case s.user != "" && o.Password == "":
		return s, nil, errors.New("SMTP URL: it has a user, whose password is missing")
	case s.user == "" && o.Password != "":
		return s, nil, errors.New("SMTP URL: there is a password, but the URL has no user")
	case s.plain && !isLoopback(s.host):
		return s, nil, errors.New("SMTP URL: starttls=none is for a server on this machine, such as localhost")
	case s.user != "" && s.plain:
		return s, nil, errors.New("SMTP URL: with starttls=none it can have no user, whose password would be sent unencrypted")
	}
	if from, err = netmail.ParseAddress(o.From); err != nil {
		return s, nil, errors.New("mail from: it is not an address like noreply@example.com or Name <noreply@example.com>")
	}
	return s, from, nil
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// Check connects to the server, logs in where the URL has a user, and sends nothing. Its error is an *Error.
func (s *Sender) Check(ctx context.Context) error {
	return s.dial(ctx, func(ctx context.Context, client *mail.Client) error {
		session, err := client.DialToSMTPClientWithContext(ctx)
		if err != nil {
			return err
		}
		_ = client.CloseWithSMTPClient(session) // It has accepted us.
		return nil
	})
}

// send sends a text to an address. Its error is an *Error.
func (s *Sender) send(ctx context.Context, to, subject, text string) error {
	// An address and nothing else, without a name: what people choose could pose as one.
	address, err := netmail.ParseAddress(to)
	if err != nil || address.Address != to {
		return &Error{Message: "No mail can be sent to this address."}
	}
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(message.From(s.from), message.To(to)); err != nil {
		return &Error{Message: "No mail can be sent to this address."}
	}
	message.Subject(subject)
	message.SetDateWithValue(time.Now().UTC())
	message.SetMessageIDWithValue(rand.Text() + "@" + s.domain)
	message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nothing answers it.
	message.SetBodyString(mail.TypeTextPlain, text)
	return s.dial(ctx, func(ctx context.Context, client *mail.Client) error {
		err := client.DialAndSendWithContext(ctx, message)
		if message.IsDelivered() {
			return nil // What failed came after the server had accepted it.
		}
		return err
	})
}

// dial calls fn with a client of the server, within the timeout.
func (s *Sender) dial(ctx context.Context, fn func(ctx context.Context, client *mail.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	select {
	case s.sending <- struct{}{}:
		defer func() { <-s.sending }()
	case <-ctx.Done():
		return failure(ctx, ctx.Err())
	}
	config := &tls.Config{ServerName: s.server.host, RootCAs: s.rootCAs, MinVersion: tls.VersionTLS12}
	var conn net.Conn
	// The client knows no context once it is connected, and leaves connections open that fail before a
	// mail: the end of ctx closes this one, and so does the end of fn.
	// Its address has no brackets around one of IPv6.
	address := net.JoinHostPort(s.server.host, strconv.Itoa(s.server.port))
	connect := func(dialing context.Context, network, _ string) (net.Conn, error) {
		raw, err := (&net.Dialer{}).DialContext(dialing, network, address)
		if err != nil {
			return nil, err
		}
		conn = raw
		context.AfterFunc(ctx, func() { _ = raw.Close() })
		if !s.server.tls {
			return raw, nil
		}
		encrypted := tls.Client(raw, config)
		return encrypted, encrypted.HandshakeContext(dialing)
	}
	options := []mail.Option{
		mail.WithPort(s.server.port), mail.WithTimeout(s.timeout), mail.WithHELO(s.hello()), mail.WithDialContextFunc(connect),
		mail.WithTLSConfig(config), mail.WithoutNoop(), mail.WithoutRset(), mail.WithTLSPolicy(s.policy()),
	}
	if s.server.user != "" {
		// In this order; all but PLAIN and LOGIN keep the password from the server. PLAIN and LOGIN need TLS.
		options = append(options, mail.WithUsername(s.server.user), mail.WithPassword(s.password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	client, err := mail.NewClient(s.server.host, options...)
	if err == nil {
		err = fn(ctx, client)
	}
	if conn != nil {
		_ = conn.Close()
	}
	if err != nil {
		return failure(ctx, err)
	}
	return nil
}

func (s *Sender) policy() mail.TLSPolicy {
	if s.server.tls || s.server.plain {
		return mail.NoTLS
	}
	return mail.TLSMandatory
}

// hello returns the name of the panel's machine for the server (RFC 5321 section 4.1.3).
func (s *Sender) hello() string {
	host := s.panel.Hostname()
	address, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return host
	case address.Is6():
		return fmt.Sprintf("[IPv6:%s]", address.WithZone(""))
	default:
		return fmt.Sprintf("[%s]", address)
	}
}
