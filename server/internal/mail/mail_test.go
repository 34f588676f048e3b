package mail_test

import (
	"context"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
	"github.com/eclitunnel/eclitunnel/server/internal/mail/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	link = "https://panel.example.com/password#SECRETOFTHELINKANDNOBODYELSE"
	ada  = "ada@example.com"
)

var (
	panel   = &url.URL{Scheme: "https", Host: "panel.example.com"}
	expires = time.Date(2026, 1, 3, 3, 10, 0, 0, time.UTC)
)

func newSender(t *testing.T, server *mailtest.Server, change func(o *mail.Options)) *mail.Sender {
	t.Helper()
	options := mail.Options{
		URL: "smtp://" + server.Address, From: "Éclair <noreply@example.com>", Panel: panel, RootCAs: server.RootCAs, Timeout: await.Timeout,
	}
	if change != nil {
		change(&options)
	}
	sender, err := mail.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

// TestPasswordLink_IsSentByIPv6: the address of a server of IPv6 stands in brackets.
func TestPasswordLink_IsSentByIPv6(t *testing.T) {
	server := mailtest.Start(t, mailtest.Options{Plain: true, Host: "[::1]"})
	sender := newSender(t, server, func(o *mail.Options) { o.URL += "?starttls=none" })
	if err := sender.PasswordLink(t.Context(), "ada@example.com", link, expires); err != nil {
		t.Fatal(err)
	}
	await.Receive(t, server.Mails, "mail")
}

func TestPasswordLink_ArrivesWellFormed(t *testing.T) {
	for name, test := range map[string]struct {
		options mailtest.Options
		url     string
		user    bool
	}{
		"STARTTLS and a login": {mailtest.Options{Login: true}, "smtp://panel@", true},
		"STARTTLS":             {mailtest.Options{}, "smtp://", false},
		"TLS and a login":      {mailtest.Options{TLS: true, Login: true}, "smtps://panel@", true},
		"unencrypted":          {mailtest.Options{Plain: true}, "smtp://", false},
	} {
		t.Run(name, func(t *testing.T) {
			server := mailtest.Start(t, test.options)
			sender := newSender(t, server, func(o *mail.Options) {
				o.URL = test.url + server.Address
				if test.user {
					o.Password = mailtest.Password
				}
				if test.options.Plain {
					o.URL += "?starttls=none"
				}
			})
			if err := sender.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
			if err := sender.PasswordLink(t.Context(), "éva@example.com", link, expires); err != nil {
				t.Fatal(err)
			}
			wantPasswordLink(t, await.Receive(t, server.Mails, "mail"), "éva@example.com")
		})
	}
}

// wantPasswordLink checks a mail and its header.
func wantPasswordLink(t *testing.T, got mailtest.Mail, to string) {
	t.Helper()
	if got.From != "noreply@example.com" || got.To != to {
		t.Errorf("from %s to %s", got.From, got.To)
	}
	message, err := netmail.ReadMessage(strings.NewReader(got.Text))
	if err != nil {
		t.Fatalf("%v in %s", err, got.Text)
	}
	for name, want := range map[string]string{"From": "noreply@example.com", "To": to} {
		addresses, err := message.Header.AddressList(name)
		if err != nil || len(addresses) != 1 || addresses[0].Address != want {
			t.Errorf("%s is %v: %v", name, addresses, err)
		}
	}
	for _, name := range []string{"Date", "Message-Id", "Subject", "From", "To", "Auto-Submitted"} {
		values := message.Header[name]
		// Only the local part of an address has no encoding: it needs SMTPUTF8.
		if len(values) != 1 || strings.ContainsFunc(values[0], func(r rune) bool { return r < ' ' || (r > '~' && name != "To") }) {
			t.Errorf("%s is %q", name, values)
		}
	}
	if _, err := message.Header.Date(); err != nil {
		t.Error(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
	if err != nil || subject != "Set your password for panel.example.com" {
		t.Errorf("the subject is %q: %v", subject, err)
	}
	if id := message.Header.Get("Message-Id"); !strings.HasSuffix(id, "@example.com>") || strings.Count(id, "@") != 1 {
		t.Errorf("the id is %q", id)
	}
	if kind := message.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; charset=UTF-8") {
		t.Errorf("the type is %q", kind)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(message.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"\r\n" + link + "\r\n", to, "3 January 2026, 03:10 UTC"} {
		if !strings.Contains(string(body), text) {
			t.Errorf("there is no %q in %q", text, body)
		}
	}
}

// wantFailure checks that a mail fails with a sentence, and that nothing secret is in the error.
func wantFailure(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || mail.Reason(err) != want {
		t.Errorf("%s: %v, want %s", name, err, want)
		return
	}
	for _, secret := range []string{"SECRET", mailtest.Password} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
	}
}

func TestSend_SaysWhatTheServerRefuses(t *testing.T) {
	server := mailtest.Start(t, mailtest.Options{Refuses: "nobody@example.com"})
	locked, plain := mailtest.Start(t, mailtest.Options{Login: true}), mailtest.Start(t, mailtest.Options{Plain: true, Login: true})
	encrypted := mailtest.Start(t, mailtest.Options{TLS: true})
	const insecure = "There is no secure connection to the mail server, or no login that it and the panel know."
	withUser := func(server *mailtest.Server, password string) func(o *mail.Options) {
		return func(o *mail.Options) { o.URL, o.Password = "smtp://panel@"+server.Address, password }
	}
	for name, test := range map[string]struct {
		server *mailtest.Server
		change func(o *mail.Options)
		to     string
		want   string
	}{
		"recipient":          {server, nil, "nobody@example.com", "The mail server refused the recipient (550 5.1.1)."},
		"mail, quoting it":   {server, nil, "spam@example.com", "The mail server refused the mail (554 5.7.1)."},
		"no login":           {locked, nil, ada, "The mail server refused the sender (502 5.7.0)."},
		"wrong password":     {locked, withUser(locked, "SECRET"), ada, "The mail server refused the user or the password (535)."},
		"no STARTTLS":        {plain, withUser(plain, mailtest.Password), ada, insecure},
		"unknown authority":  {server, func(o *mail.Options) { o.RootCAs = nil }, ada, insecure},
		"TLS, unknown":       {encrypted, func(o *mail.Options) { o.URL, o.RootCAs = "smtps://"+encrypted.Address, nil }, ada, insecure},
		"another's name":     {server, func(o *mail.Options) { o.URL = strings.Replace(o.URL, "127.0.0.1", "localhost", 1) }, ada, insecure},
		"nobody listens":     {server, func(o *mail.Options) { o.URL = "smtp://127.0.0.1:1" }, ada, "The mail server cannot be reached."},
		"an invalid address": {server, nil, "ada", "No mail can be sent to this address."},
		"a name":             {server, nil, "Ada <ada@example.com>", "No mail can be sent to this address."},
		"a second recipient": {server, nil, "ada@example.com, eve@example.com", "No mail can be sent to this address."},
		"a header":           {server, nil, "ada@example.com\r\nBcc: eve@example.com", "No mail can be sent to this address."},
		"a quoted header":    {server, nil, "\"a\r\nBcc: eve@example.com\"@example.com", "No mail can be sent to this address."},
	} {
		err := newSender(t, test.server, test.change).PasswordLink(t.Context(), test.to, link, expires)
		wantFailure(t, name, err, test.want)
	}
	for _, s := range []*mailtest.Server{server, locked, plain, encrypted} {
		select {
		case got := <-s.Mails:
			t.Errorf("mail to %s was accepted", got.To)
		default:
		}
	}
}

// TestSend_IsBounded by a server that says nothing, for one mail and for many.
func TestSend_IsBounded(t *testing.T) {
	address := mailtest.Silent(t)
	for _, scheme := range []string{"smtp://", "smtps://"} {
		sender, err := mail.New(mail.Options{URL: scheme + address, From: ada, Panel: panel, Timeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error)
		for range 20 { // More than are sent at a time.
			go func() { errs <- sender.PasswordLink(context.Background(), ada, link, expires) }()
		}
		for range 20 {
			wantFailure(t, scheme, await.Receive(t, errs, "error"), "The mail server did not answer in time.")
		}
		wantFailure(t, "check", sender.Check(t.Context()), "The mail server did not answer in time.")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		wantFailure(t, "canceled", sender.PasswordLink(ended, ada, link, expires), "The request ended before the mail was sent.")
	}
}

func TestSend_ToWhatIsNoMailServer(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := listener.Accept(); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = conn.Close()
		}
	}()
	sender, err := mail.New(mail.Options{URL: "smtp://" + listener.Addr().String(), From: ada, Panel: panel})
	if err != nil {
		t.Fatal(err)
	}
	wantFailure(t, "HTTP", sender.Check(t.Context()), "The mail server does not speak SMTP.")
	_ = listener.Close()
	<-served
}

func TestCheckSettings(t *testing.T) {
	for _, o := range []mail.Options{
		{URL: "smtp://mail.example.com", From: ada},
		{URL: "smtp://panel@[2001:db8::1]:2525", Password: "secret", From: "Éclair <noreply@example.com>"},
		{URL: "smtps://panel%40example.com@mail.example.com", Password: "secret", From: ada},
		{URL: "smtp://localhost:25?starttls=none", From: ada},
		{URL: "smtp://[::1]?starttls=none", From: ada},
	} {
		if err := o.CheckSettings(); err != nil {
			t.Errorf("%s: %v", o.URL, err)
		}
	}
	for _, o := range []mail.Options{
		{URL: "http://mail.example.com", From: ada},
		{URL: "mail.example.com:587", From: ada},
		{URL: "smtp://", From: ada},
		{URL: "smtp://mail.example.com/inbox", From: ada},
		{URL: "smtp://mail.example.com:70000", From: ada},
		{URL: "smtp://mail.example.com?starttls=maybe", From: ada},
		{URL: "smtp://mail.example.com?starttls=none", From: ada},
		{URL: "smtps://mail.example.com?starttls=none", From: ada},
		{URL: "smtp://panel:secret@mail.example.com", From: ada},
		{URL: "smtp://panel:secret%zz@mail.example.com", From: ada},
		{URL: "smtp://panel@mail.example.com", From: ada},
		{URL: "smtp://mail.example.com", Password: "secret", From: ada},
		{URL: "smtp://panel@mail.example.com?starttls=none", Password: "secret", From: ada},
		{URL: "smtp://mail.example.com"},
		{URL: "smtp://mail.example.com", From: "nobody"},
		{URL: "smtp://mail.example.com", From: "ada@example.com\r\nBcc: eve@example.com"},
	} {
		if err := o.CheckSettings(); err == nil {
			t.Errorf("%s from %q is accepted", o.URL, o.From)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}
