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

// Error is an error answer of the panel, decoded from the contract's Error schema.
// Methods of [Client] return it as *Error.
//
// A 429 answer of a proxy in front of the panel is an Error, too, with the code
// rate_limited and no RequestID.
type Error struct {
	// Status is the HTTP status, 400 to 599.
	Status int
	// Code is the reason, for programs. A panel of a later version may send codes
	// that this version has no constant for.
	Code types.ErrorCode
	// Message is the reason, for people.
	Message string
	// RequestID identifies the request in the panel's log.
	RequestID string
	// Details list the invalid fields of a request. nil if the panel named none.
	Details []types.ErrorDetail
	// RetryAfter is how long to wait before the next attempt. 0 if the panel did not
	// say.
	RetryAfter time.Duration
}

// Error returns the message, the invalid fields and the request id.
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

// HasCode reports whether err is, or wraps, an [*Error] with the given code.
func HasCode(err error, code types.ErrorCode) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// UnreachableError means that no panel answered: the connection failed, or a proxy or
// another program answered in place of a panel. Methods of [Client] return it as
// *UnreachableError.
type UnreachableError struct {
	// Panel is the address that was tried.
	Panel string
	// Reason is what went wrong, for people.
	Reason string
	// Cause is the network's error. nil if something other than a panel answered.
	Cause error

	transient bool // Another attempt soon may succeed.
}

// Error returns the address and the reason.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach the panel at %s: %s", e.Panel, e.Reason)
}

// Unwrap returns Cause.
func (e *UnreachableError) Unwrap() error { return e.Cause }

// answerError converts an answer that is not a success into an error, whether the
// panel sent it or something else at that address.
func answerError(panel string, resp *http.Response, body []byte) error {
	var e types.Problem
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
			Message:    "A proxy in front of the panel limits the rate of requests.",
			RetryAfter: retryAfter(resp.Header, time.Now()),
		}
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return &UnreachableError{
			Panel:     panel,
			Reason:    fmt.Sprintf("a proxy answered %s; the panel behind it is down or restarting", status),
			transient: true,
		}
	case code/100 == 3:
		return &UnreachableError{Panel: panel, Reason: "it redirects to " + origin(resp) + "; use that address instead"}
	case code == http.StatusBadRequest && strings.Contains(string(body), "HTTPS"):
		return &UnreachableError{Panel: panel, Reason: "it speaks HTTPS; use an https:// address"}
	default:
		return &UnreachableError{
			Panel:  panel,
			Reason: fmt.Sprintf("the server there answered %s and is not an EcliTunnel panel; check the address", status),
		}
	}
}

// origin returns the target of a redirect without its path and query: the query may
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
