// Package tunnel is the Go client of an EcliTunnel panel. It wraps the client
// that is generated from openapi.yaml with credentials, retries and typed errors.
// Requests and answers are the types of package gen/types, named as in the
// contract.
//
// # Clients and credentials
//
// [New] makes a [Client] for one panel. The panel knows three kinds of caller, and
// all send a bearer token, which [Options].Token returns:
//
//   - A person has a session token, from [Client.Login]. A session sees the
//     devices and allocations of its user, an admin's session sees all of them.
//   - A program has an API key, which a person makes for it. It acts as that person, or
//     as an admin of an organisation, as far as the key's scopes permit; otherwise the
//     code of the error is forbidden. [Client.Session] and [Client.Logout] take no key.
//   - A device has a device token, from its enrollment. It sees itself and its own
//     allocations.
//
// Token is called before every request, so a token can change while the client is
// in use. Login, StartEnrollment, PollEnrollment, Version and Ready need none.
//
// # Enrollment
//
// A machine becomes a device by the device authorization grant (RFC 8628).
// [Client.StartEnrollment] returns a device code, which is secret, and a user code,
// which the machine shows. An admin enters the user code in the console, or calls
// [Client.Approve]. Meanwhile the machine calls [Client.PollEnrollment], at most
// once in the interval that the panel names, until it returns the device's token.
// [DeviceID] and [DeviceKind] read a token without asking the panel.
//
// # Allocations
//
// [Client.CreateAllocation] opens a public port for a device. The port takes players
// once the allocation's status is "listening"; call [Client.Allocation] to see it
// change. To carry the players' traffic, run the agent (the command eclitunnel, or
// package clients/agent); this package only manages ports.
//
// [Client.Allocations] and [Client.Devices] fetch every page of a list, 1,000 items a
// request. The methods whose names begin with Each return lists as sequences, fetch a page
// when it is needed, and take filters. A list is not a snapshot: what is created or deleted between two pages may
// be missing from it or still be in it. No item appears twice.
//
// # Errors
//
// A method returns
//
//   - an [*Error] if the panel answered with an error. [HasCode] tests for a code of
//     the contract.
//   - an [*UnreachableError] if there was no answer, or not one from a panel.
//   - an error that wraps [context.Canceled] or [context.DeadlineExceeded] if ctx ended
//     during an attempt. If it ended between two attempts, the first one's error.
//   - any other error if a successful answer is larger than 8 MiB or does not decode.
//
// Use [errors.As] to tell them apart. No error contains a token or a device code.
//
// # Timeouts and retries
//
// An attempt may take 30 seconds, body included. With [Options].HTTPClient, the Timeout
// of that client applies instead. ctx bounds all attempts of a call together.
//
// GET and DELETE requests, and those that create something, are attempted up to four times, with exponential back-off
// and full jitter: at most 1.75 seconds of waiting in total, or as long as the panel's
// Retry-After header says, up to 30 seconds each time. They are retried after a
// connection failure that may be temporary, after 502, 503 or 504 from a proxy, and
// after the codes unavailable and, with a Retry-After header, rate_limited. What creates
// something is sent with an Idempotency-Key, the same in every attempt, so that the panel
// carries it out once. Other POST requests, and PATCH, are sent once: their effect may have
// taken place even if the answer was lost. They are attempted again only if no connection
// could be made to send them on.
// [Client.ControlChannel] tries once.
//
// If the panel's name has several addresses, each attempt begins with those that have
// not failed before, unless [Options].HTTPClient has a dialer of its own.
//
// # Concurrency
//
// A [Client] is safe for use by several goroutines at once, if [Options].Token is.
package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// Options configure a [Client]. Every field but PanelURL may be left zero.
type Options struct {
	// PanelURL is the address of the panel, such as https://panel.example.com; see
	// [ParsePanelURL]. Required.
	PanelURL string
	// Insecure permits a PanelURL of the scheme http on another machine. Others on the
	// network can then read what is sent, tokens and passwords included, and change it.
	// Without it, New returns an [*InsecureError] for such an address.
	Insecure bool
	// Token returns the session token, API key or device token to send with the next
	// attempt of a request; "" sends none. It must be safe for concurrent use.
	// If nil, no token is sent.
	Token func() string
	// HTTPClient sends the requests. New copies it: redirects are never followed,
	// whatever its CheckRedirect says. If its Transport is a *http.Transport, the
	// control channel uses that transport's proxy, dialer and TLS settings.
	// If nil, a client with a timeout of 30 s for each attempt is used, which takes
	// its proxy from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	HTTPClient *http.Client
	// UserAgent is the User-Agent header of every request. If empty, it is
	// "eclitunnel".
	UserAgent string
	// Wait waits for d before the next attempt of a request. It returns early, with
	// an error, if ctx ends. If nil, a timer is used; tests set it to avoid waiting.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client is a client of one panel. It is safe for concurrent use. Make one with
// [New]; the zero value is not usable.
type Client struct {
	panel  string
	sender *sender
	api    *client.Client
	line   *dialer.Dialer
	// One for each kind of TLS hello.
	dialer, classic *websocket.Dialer
}

// InsecureError reports the address of a panel to which no token or password is sent
// without [Options].Insecure.
type InsecureError struct{ PanelURL string }

func (e *InsecureError) Error() string {
	return fmt.Sprintf("the connection to %s is not encrypted: others on the network could read the token or password, "+
		"and act with it; give the panel a certificate and use its https address", e.PanelURL)
}

// IsInsecure reports whether requests to a panel's address leave this machine
// unencrypted: its scheme is http, and its host neither an address of the loopback nor
// localhost or a name below it. Such names are not looked up. It is false for what
// [ParsePanelURL] refuses.
func IsInsecure(panelURL string) bool {
	u, err := url.Parse(strings.TrimSpace(panelURL))
	if err != nil || u.Scheme != "http" || netaddr.IsLocalhost(u.Hostname()) {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "" && (err != nil || !addr.Unmap().IsLoopback())
}

// New returns a client. It fails if o.PanelURL is not a panel's address, or is one that
// needs o.Insecure, and does not contact the panel.
func New(o Options) (*Client, error) {
	panel, err := ParsePanelURL(o.PanelURL)
	if err != nil {
		return nil, err
	}
	if IsInsecure(o.PanelURL) && !o.Insecure {
		return nil, &InsecureError{PanelURL: panel}
	}
	line := dialer.New(dialer.Options{})
	s := &sender{panel: panel, http: httpClient(o.HTTPClient, line), line: line, token: o.Token, userAgent: o.UserAgent, wait: o.Wait, random: rand.Float64}
	s.classic = classicClient(s.http)
	if s.token == nil {
		s.token = func() string { return "" }
	}
	if s.userAgent == "" {
		s.userAgent = "eclitunnel"
	}
	if s.wait == nil {
		s.wait = wait
	}
	api, err := client.NewClient(panel, client.WithHTTPClient(s))
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", panel, err)
	}
	c := &Client{panel: panel, sender: s, api: api, line: line, dialer: webSocketDialer(s.http, line)}
	classic := *c.dialer
	classic.TLSClientConfig = dialer.ClassicTLS(classic.TLSClientConfig)
	c.classic = &classic
	return c, nil
}

// PanelURL returns the panel's address, without a trailing slash.
func (c *Client) PanelURL() string { return c.panel }

// Close closes idle HTTP connections, also those of a Transport given in
// [Options].HTTPClient. Control channels stay open, and the client stays usable.
func (c *Client) Close() {
	c.sender.http.CloseIdleConnections()
	c.sender.classic.CloseIdleConnections()
}

// ParsePanelURL checks the address of a panel as a person types it, and returns it
// without surrounding space and without a trailing slash. The scheme must be http or
// https. A path is allowed, for a panel behind a proxy; a user name, a password, a
// query or a fragment is an error. Errors do not repeat a password.
func ParsePanelURL(address string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case address == "":
		return "", errors.New("the panel's address is missing; write it as https://panel.example.com")
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", fmt.Errorf("%q is not a panel's address; write it as https://panel.example.com", address)
	case u.User != nil:
		// Programs store and print the address.
		return "", errors.New("the panel's address must not hold a user name or password")
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the panel's address %q must not have a query or fragment", address)
	}
	return strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/"), nil
}

// body reads the answer of an operation. The sender returns an error for anything
// but a success.
func body(resp *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// decode decodes an answer's body.
func decode[T any](body []byte, err error) (T, error) {
	var value T
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(body, &value); err != nil {
		return value, fmt.Errorf("decode the panel's answer: %w", err)
	}
	return value, nil
}

// done discards the body of a success.
func done(_ []byte, err error) error { return err }

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
