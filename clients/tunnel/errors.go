package tunnel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Error is an error that the panel answered with.
type Error struct {
	Status     int
	Code       types.ErrorCode
	Message    string // A sentence for people.
	RequestID  string // Finds the cause in the panel's log.
	Details    []types.ErrorDetail
	RetryAfter time.Duration // 0 where the panel named none.
}

// Error is the panel's sentence, with the fields it found wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for i, d := range e.Details {
		if i == 0 {
			b.WriteString(" (")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(d.Field + ": " + d.Message)
	}
	if len(e.Details) > 0 {
		b.WriteString(")")
	}
	if e.RequestID != "" {
		b.WriteString(" [request " + e.RequestID + "]")
	}
	return b.String()
}

// HasCode reports whether err is an answer of the panel with this code.
func HasCode(err error, code types.ErrorCode) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// UnreachableError says that no panel answered at the address.
type UnreachableError struct {
	Panel  string // The panel's address.
	Reason string // Why, in a person's words.
	Cause  error  // nil where something other than a panel answered.

	transient bool // Whether trying again soon may help.
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach the panel at %s: %s", e.Panel, e.Reason)
}

func (e *UnreachableError) Unwrap() error { return e.Cause }

// answerError is the error that an answer stands for, be it the panel's or of
// something in its place.
func answerError(panel string, resp *http.Response, body []byte) error {
	var e types.Error
	if resp.StatusCode >= 400 && isJSON(resp) && json.Unmarshal(body, &e) == nil && e.Error != "" {
		answer := &Error{
			Status:     resp.StatusCode,
			Code:       e.Error,
			Message:    e.Message,
			RequestID:  e.RequestID,
			RetryAfter: retryAfter(resp.Header, time.Now()),
		}
		if e.Details != nil {
			answer.Details = *e.Details
		}
		return answer
	}
	return notAPanel(panel, resp, body)
}

func notAPanel(panel string, resp *http.Response, body []byte) error {
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		return &Error{
			Status:     code,
			Code:       types.CodeRateLimited,
			Message:    "A proxy before the panel asks to slow down.",
			RetryAfter: retryAfter(resp.Header, time.Now()),
		}
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return &UnreachableError{
			Panel:     panel,
			Reason:    fmt.Sprintf("a proxy answers %s in its place; the panel is down or restarting", status),
			transient: true,
		}
	case code/100 == 3:
		return &UnreachableError{Panel: panel, Reason: "it redirects to " + origin(resp) + "; use that address"}
	case code == http.StatusBadRequest && strings.Contains(string(body), "HTTPS"):
		return &UnreachableError{Panel: panel, Reason: "it speaks HTTPS; write the address with https://"}
	default:
		return &UnreachableError{
			Panel:  panel,
			Reason: fmt.Sprintf("what answers there (%s) is not an EcliTunnel panel; is the address right?", status),
		}
	}
}

// origin is where a redirect leads, without path and query: the query may
// repeat a device code.
func origin(resp *http.Response) string {
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Host == "" {
		return "another address"
	}
	return to.Scheme + "://" + to.Host
}

// retryAfter reads Retry-After (RFC 9110 section 10.2.3), seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
