package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

const (
	// requestTimeout bounds one attempt, its body included.
	requestTimeout = 30 * time.Second
	// maxBody bounds an answer. A full page of allocations is under 1 MiB.
	maxBody = 8 << 20
	// maxAttempts includes the first one. With the delays below they span up to two
	// seconds: long enough for a panel that restarts behind its proxy, short enough
	// for a person who waits.
	maxAttempts = 4
	minDelay    = 250 * time.Millisecond
	maxDelay    = 2 * time.Second
	// maxRetryAfter is the longest Retry-After that the sender obeys itself; a longer
	// one is returned to the caller.
	maxRetryAfter = 30 * time.Second
)

// sender sends the generated client's requests. It adds the token and retries
// idempotent requests, among them those with an Idempotency-Key. It returns an answer only if that is a success, and then its
// body is in memory.
type sender struct {
	panel     string
	http      *http.Client
	classic   *http.Client // Its TLS hellos are classic; see dialer.Attempt.
	line      *dialer.Dialer
	token     func() string
	userAgent string
	wait      func(context.Context, time.Duration) error
	random    func() float64
}

func httpClient(given *http.Client, line *dialer.Dialer) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	} else {
		c.Timeout = requestTimeout
		// With its own transport, Close does not close connections of other clients.
		// The transport reads the proxy from the environment.
		if t, ok := http.DefaultTransport.(*http.Transport); ok {
			t = t.Clone()
			t.Proxy, t.DialContext = proxy, line.DialContext
			c.Transport = t
		}
	}
	// A redirect can turn a POST into a GET, and a device code must not be sent to
	// another host.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// proxy returns the proxy of the environment, but none for the names of this machine:
// net/http exempts localhost alone, and what is sent there may be unencrypted.
func proxy(req *http.Request) (*url.URL, error) {
	if netaddr.IsLocalhost(req.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(req)
}

// classicClient returns a client as from whose TLS hellos are classic, or from itself if
// its transport is not known.
func classicClient(from *http.Client) *http.Client {
	t, ok := from.Transport.(*http.Transport)
	if !ok {
		return from
	}
	t = t.Clone()
	t.TLSClientConfig = dialer.ClassicTLS(t.TLSClientConfig)
	c := *from
	c.Transport = t
	return &c
}

// Do implements client.HttpRequestDoer.
func (s *sender) Do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", s.userAgent)
	req.Header.Set("Accept", "application/json")
	// Any other request may have taken effect although its answer was lost, unless
	// there was no connection to send it on.
	idempotent := req.Method == http.MethodGet || req.Method == http.MethodDelete || req.Header.Get(idempotencyHeader) != ""
	for attempt := 1; ; attempt++ {
		if token := s.token(); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, sent, err := s.attempt(req)
		if err == nil {
			return resp, nil
		}
		delay, again := s.retry(err, attempt)
		if sent && !idempotent || !again || s.wait(req.Context(), delay) != nil {
			return nil, err
		}
	}
}

// retry reports whether an idempotent request may be retried after err, and after
// which delay. attempt is the number of the one that failed, from 1.
func (s *sender) retry(err error, attempt int) (time.Duration, bool) {
	if attempt == maxAttempts {
		return 0, false
	}
	delay := time.Duration(s.random() * float64(min(minDelay<<(attempt-1), maxDelay)))
	var unreachable *UnreachableError
	if errors.As(err, &unreachable) {
		return delay, unreachable.transient
	}
	var answer *Error
	if !errors.As(err, &answer) || answer.RetryAfter > maxRetryAfter {
		return 0, false
	}
	switch answer.Code {
	case types.CodeRateLimited:
		return max(delay, answer.RetryAfter), answer.RetryAfter > 0
	case types.CodeUnavailable:
		return max(delay, answer.RetryAfter), true
	case codeInProgress:
		return max(delay, answer.RetryAfter), true
	default:
		// This includes slow_down, after which a poller increases its interval (RFC
		// 8628 section 3.5); only the caller knows the interval.
		return 0, false
	}
}

// attempt sends the request. If sent is false, there was no connection to send it on.
func (s *sender) attempt(req *http.Request) (resp *http.Response, sent bool, err error) {
	ctx, attempt := s.line.Begin(req.Context(), s.panel)
	client := s.http
	if attempt.Classic(true) {
		client = s.classic
	}
	send := req.WithContext(ctx)
	if req.GetBody != nil {
		if send.Body, err = req.GetBody(); err != nil {
			return nil, false, err
		}
	}
	resp, err = client.Do(send)
	attempt.End(err)
	if err != nil {
		// Another transport may not say when it has a connection.
		_, known := client.Transport.(*http.Transport)
		return nil, attempt.Ready() || !known, s.failure(req.Context(), err)
	}
	resp, err = s.read(req, resp)
	return resp, true, err
}

// read reads the body of an answer into memory.
func (s *sender) read(req *http.Request, resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	_ = resp.Body.Close() // ReadAll has reported any error.
	if err != nil {
		return nil, s.failure(req.Context(), err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the panel's answer is larger than %d MiB", maxBody>>20)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if resp.StatusCode == http.StatusNoContent || resp.StatusCode/100 == 2 && isJSON(resp) {
		return resp, nil
	}
	return nil, answerError(s.panel, resp, body)
}

// failure returns the error for a request that got no answer.
func (s *sender) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("request to %s: %w", s.panel, ctx.Err())
	}
	return unreachable(s.panel, err)
}

func isJSON(resp *http.Response) bool {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
