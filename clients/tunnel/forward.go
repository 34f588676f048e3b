package tunnel

import (
	"net/http"
	"net/url"
)

// Forward sends a request to the panel with the client's token in place of the request's
// own credentials, once, and returns the answer as it comes. Of the request's URL only path
// and query count. The caller bounds the request by its context and closes the body of the
// answer. The error is as that of other methods.
func (c *Client) Forward(req *http.Request) (*http.Response, error) {
	s := c.sender
	panel, err := url.Parse(s.panel)
	if err != nil {
		return nil, err
	}
	ctx, attempt := s.line.Begin(req.Context(), s.panel)
	client := s.http
	if attempt.Classic(true) {
		client = s.classic
	}
	transport := client.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	out := req.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host = panel.Scheme, panel.Host, panel.Host
	out.Header.Del("Cookie")
	out.Header.Del("Authorization")
	if token := s.token(); token != "" {
		out.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := transport.RoundTrip(out)
	attempt.End(err)
	if err != nil {
		return nil, s.failure(req.Context(), err)
	}
	return resp, nil
}
