package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

const (
	// defaultTimeout bounds a request to a provider.
	defaultTimeout = 5 * time.Second
	// maxAnswer is the maximum size of a provider's answer in bytes.
	maxAnswer = 1 << 20
)

// The errors of a request to a provider that was reached, but whose answer is of no use.
var (
	errRedirects = errors.New("the provider redirects the panel, which does not follow")
	errTooLong   = fmt.Errorf("the provider's answer is longer than %d bytes", maxAnswer)
)

// newClient returns the client for requests to providers. It follows no redirects, which
// could send a secret to another host.
func newClient(timeout time.Duration) *http.Client {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{}
	}
	return &http.Client{
		Transport:     transport{base.Clone()},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirects },
	}
}

// transport reads answers whole, and takes a provider that is overloaded or broken as one that
// does not answer. Everything that fails is an error of the request, which is a *url.Error:
// libraries keep no more than the text of what they find in a response.
type transport struct{ *http.Transport }

// RoundTrip sends a request.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, errTooLong
	case response.StatusCode >= http.StatusInternalServerError, response.StatusCode == http.StatusTooManyRequests:
		return nil, statusError{response.StatusCode}
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// statusError is an answer of a provider that is not 200.
type statusError struct{ status int }

func (e statusError) Error() string { return fmt.Sprintf("it answered %d", e.status) }

func clientOf(ctx context.Context) *http.Client {
	client, ok := ctx.Value(oauth2.HTTPClient).(*http.Client)
	if !ok {
		return http.DefaultClient
	}
	return client
}

// getJSON reads a JSON object at an address, with an access token if it is not empty.
func getJSON(ctx context.Context, address, accessToken string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if accessToken != "" {
		request.Header.Set("Authorization", "Bearer "+accessToken)
	}
	response, err := clientOf(ctx).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return statusError{response.StatusCode}
	}
	return decode(body, into)
}

// decode decodes JSON. A number stays as it was written: ids are numbers to some.
func decode(content []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	return decoder.Decode(into)
}
