// Package tunnel is the typed Go client of an EcliTunnel panel: credentials,
// retries and errors that a program can tell apart, around the client generated
// from openapi.yaml.
//
// A method fails with [*Error] when the panel answered with an error, with
// [*UnreachableError] when no panel answered, and with the context's error when
// the context ended first. No error holds a token or a device code.
package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/client"
)

// Options say which panel to talk to, and as whom.
type Options struct {
	// PanelURL is the panel's address as [ParsePanelURL] takes it. Required.
	PanelURL string
	// Token returns the session or device token to send; it is asked before
	// every request. "" sends none, and so does a nil Token.
	Token func() string
	// HTTPClient performs the requests. nil: one that honours HTTPS_PROXY,
	// HTTP_PROXY and NO_PROXY and gives a request 30 s. Redirects are never
	// followed. The control channel uses its Transport's proxy, dialer and TLS
	// settings where that is a *http.Transport.
	HTTPClient *http.Client
	// UserAgent is sent with every request; "" sends "eclitunnel".
	UserAgent string
	// Wait pauses between tries of a request, until ctx ends. nil: a timer.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client talks to one panel. It may be used from any goroutine.
type Client struct {
	panel  string
	sender *sender
	api    *client.Client
	dialer *websocket.Dialer
}

// New makes a client. It does not talk to the panel.
func New(o Options) (*Client, error) {
	panel, err := ParsePanelURL(o.PanelURL)
	if err != nil {
		return nil, err
	}
	s := &sender{panel: panel, http: httpClient(o.HTTPClient), token: o.Token, userAgent: o.UserAgent, wait: o.Wait, random: rand.Float64}
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
	return &Client{panel: panel, sender: s, api: api, dialer: dialer(s.http)}, nil
}

// PanelURL is the panel's address, without a slash at its end.
func (c *Client) PanelURL() string { return c.panel }

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.sender.http.CloseIdleConnections() }

// ParsePanelURL checks a panel's address as a person writes it, http or https
// with an optional path, and returns it without a slash at its end.
func ParsePanelURL(address string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case address == "":
		return "", errors.New("the panel's address is missing; write it as https://panel.example.com")
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", fmt.Errorf("%q is not a panel's address; write it as https://panel.example.com", address)
	case u.User != nil:
		// It would be stored and printed with the address.
		return "", errors.New("the panel's address must not hold a user name or password")
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the panel's address %q must end before any ? or #", address)
	}
	return strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/"), nil
}

// body reads the answer of an operation. The sender has turned everything but a
// success into an error.
func body(resp *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// decode is what a body says.
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

// done is for answers whose body says nothing more.
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
