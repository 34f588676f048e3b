package eclipanel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// askTimeout bounds a request to EcliPanel with its answer.
const askTimeout = 5 * time.Second

// errRefused is an answer of EcliPanel that says that the credential is not valid.
var errRefused = errors.New("EcliPanel refuses the credential")

// unexpectedError is an answer that is neither EcliPanel's about a person nor a refusal of it, such as that of a
// firewall or a limit. It may be about the credential.
type unexpectedError struct{ error }

// client makes requests to EcliPanel.
type client struct {
	base *url.URL
	http *http.Client
}

func newClient(base *url.URL) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = maxAsking
	return &client{base: base, http: &http.Client{
		Transport: transport,
		Timeout:   askTimeout,
		// A redirect could send the credential to another host, or lead to a login page.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// get returns the JSON at a path. The request has the credential, which may be the zero
// one, and nothing else from the caller's request. It returns errRefused if EcliPanel answers 401
// or 403. Any other answer is an unexpectedError, such as a 403 of a firewall before EcliPanel. No
// error contains the credential or the answer.
func (c *client) get(ctx context.Context, credential auth.Credential, path ...string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path...).String(), nil)
	if err != nil {
		return nil, errors.New("make the request to EcliPanel")
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "eclitunneld")
	if credential.Header != "" {
		request.Header.Set(credential.Header, credential.Value)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask EcliPanel: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	refused := response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden
	if response.StatusCode != http.StatusOK && !refused {
		return nil, unexpectedError{fmt.Errorf("ask EcliPanel: the status of the answer is %d", response.StatusCode)}
	}
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, unexpectedError{fmt.Errorf("ask EcliPanel: the answer, with the status %d, is not JSON by its Content-Type", response.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read EcliPanel's answer: %w", err)
	case len(body) > maxAnswer:
		return nil, unexpectedError{fmt.Errorf("EcliPanel's answer has more than %d bytes", maxAnswer)}
	case refused && isRefusal(body):
		return nil, errRefused
	case refused:
		return nil, unexpectedError{fmt.Errorf("ask EcliPanel: the answer, with the status %d, is not one of EcliPanel", response.StatusCode)}
	}
	return body, nil
}
