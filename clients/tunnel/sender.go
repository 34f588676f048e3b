package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// requestTimeout bounds one try, its body included.
	requestTimeout = 30 * time.Second
	// maxBody bounds an answer. A full page of allocations is under 1 MiB.
	maxBody = 8 << 20
	// maxTries counts the first one. With the back-off below they span about
	// two seconds: enough for a panel that restarts behind its proxy, short
	// enough for a person who waits.
	maxTries = 4
	minDelay = 250 * time.Millisecond
	maxDelay = 2 * time.Second
	// maxRetryAfter is the longest wait asked for by the panel that is waited
	// out here; beyond it the caller decides.
	maxRetryAfter = 30 * time.Second
)

// sender performs the generated client's requests. It signs them, repeats those
// that may be repeated, and returns an answer only where it is a success, with
// its body read.
type sender struct {
	panel     string
	http      *http.Client
	token     func() string
	userAgent string
	wait      func(context.Context, time.Duration) error
	random    func() float64
}

func httpClient(given *http.Client) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	} else {
		c.Timeout = requestTimeout
		// A transport of its own, so that Close does not reach into connections
		// of others. It reads the proxy from the environment.
		if t, ok := http.DefaultTransport.(*http.Transport); ok {
			c.Transport = t.Clone()
		}
	}
	// A redirected POST would arrive as a GET, and a device code must not
	// travel to where an answer points.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// Do implements client.HttpRequestDoer.
func (s *sender) Do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", s.userAgent)
	req.Header.Set("Accept", "application/json")
	// Anything else may have been done although its answer was lost.
	repeatable := req.Method == http.MethodGet || req.Method == http.MethodDelete
	for try := 1; ; try++ {
		if token := s.token(); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := s.once(req)
		if err == nil {
			return resp, nil
		}
		delay, again := s.retry(err, try)
		if !repeatable || !again || s.wait(req.Context(), delay) != nil {
			return nil, err
		}
	}
}

// retry says whether a failure may pass by itself, and how long to wait for it.
func (s *sender) retry(err error, try int) (time.Duration, bool) {
	if try == maxTries {
		return 0, false
	}
	delay := time.Duration(s.random() * float64(min(minDelay<<(try-1), maxDelay)))
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
	default:
		// slow_down among them: RFC 8628 section 3.5 has the poller change its
		// interval, which only the caller knows.
		return 0, false
	}
}

func (s *sender) once(req *http.Request) (*http.Response, error) {
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, s.failure(req.Context(), err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	_ = resp.Body.Close() // What was read counts.
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

// failure is the error for a request that got no answer.
func (s *sender) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask %s: %w", s.panel, ctx.Err())
	}
	return unreachable(s.panel, err)
}

func isJSON(resp *http.Response) bool {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
