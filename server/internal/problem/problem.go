// Package problem is the vocabulary of the API's errors and the only writer of
// error bodies. Everything that fails on the way to an answer is turned into an
// Error here; its cause is logged under the request id and never sent.
package problem

import (
	"fmt"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Error is a failure together with the answer it deserves.
type Error struct {
	Status  int
	Code    types.ErrorCode
	Message string // a sentence for people; it is sent
	// Details name what was wrong with the input, where input was wrong.
	Details []types.ErrorDetail
	// RetryAfter is sent in whole seconds, rounded up; zero sends no header.
	RetryAfter time.Duration
	// Cause is logged where the status is 500 or above. It is never sent.
	Cause error
}

// Error tells the whole story, for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// maxDetails bounds an answer whose size would otherwise follow the request's.
const maxDetails = 20

// Invalid is a request that does not fit the contract, or a rule the contract
// cannot express. Of many details the first 20 are kept.
func Invalid(details ...types.ErrorDetail) *Error {
	details = details[:min(len(details), maxDetails)]
	return &Error{
		Status:  http.StatusBadRequest,
		Code:    types.CodeInvalidRequest,
		Message: "The request does not fit the contract.",
		Details: details,
	}
}

// Field says what is wrong with one field, for Invalid. The name has dots into
// objects and arrays; an empty one stands for the whole body.
func Field(name, message string) types.ErrorDetail {
	if name == "" {
		name = "body"
	}
	return types.ErrorDetail{Field: name, Message: message}
}

// Unauthorized is a request without a credential, or with one that is wrong,
// expired or revoked.
func Unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: types.CodeUnauthorized, Message: message}
}

// Forbidden is a request by somebody known who may not make it.
func Forbidden(message string) *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeForbidden, Message: message}
}

// NotFound is something that does not exist, or is not the caller's to manage.
func NotFound(message string) *Error {
	return &Error{Status: http.StatusNotFound, Code: types.CodeNotFound, Message: message}
}

// MethodNotAllowed is a known path asked with another method. The caller sets
// the Allow header.
func MethodNotAllowed() *Error {
	return &Error{
		Status:  http.StatusMethodNotAllowed,
		Code:    types.CodeMethodNotAllowed,
		Message: "This path does not take that method; the Allow header lists those it takes.",
	}
}

// Conflict is a request that does not fit the state things are in.
func Conflict(message string) *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodeConflict, Message: message}
}

// PortTaken is a public port that another allocation holds.
func PortTaken() *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodePortTaken, Message: "That port is taken on the tunnel server."}
}

// AlreadyApproved is an enrollment that somebody has approved before.
func AlreadyApproved() *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodeAlreadyApproved, Message: "This device has been approved already."}
}

// EnrollmentExpired is an enrollment that was not approved in time.
func EnrollmentExpired() *Error {
	return &Error{Status: http.StatusGone, Code: types.CodeEnrollmentExpired, Message: "The code has expired. Start again."}
}

// TooLarge is a body beyond the limit.
func TooLarge() *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Code: types.CodePayloadTooLarge, Message: "The body is larger than 64 KiB."}
}

// UnsupportedMediaType is a body that is not JSON.
func UnsupportedMediaType() *Error {
	return &Error{
		Status:  http.StatusUnsupportedMediaType,
		Code:    types.CodeUnsupportedMediaType,
		Message: "Send the body as JSON, with the header Content-Type: application/json.",
	}
}

// SlowDown is polling faster than the interval (RFC 8628 section 3.5).
func SlowDown(wait time.Duration) *Error {
	return &Error{
		Status:     http.StatusTooManyRequests,
		Code:       types.CodeSlowDown,
		Message:    "Polled too soon; wait for the interval.",
		RetryAfter: wait,
	}
}

// RateLimited is too many attempts in a while.
func RateLimited(wait time.Duration) *Error {
	return &Error{
		Status:     http.StatusTooManyRequests,
		Code:       types.CodeRateLimited,
		Message:    "Too many attempts; try again later.",
		RetryAfter: wait,
	}
}

// FeatureDisabled is a tunnel operation while the operator has switched tunnels
// off.
func FeatureDisabled() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: types.CodeFeatureDisabled, Message: "Tunnels are switched off on this panel."}
}

// Unavailable is a request that the panel cannot serve just now.
func Unavailable(message string, cause error) *Error {
	return &Error{
		Status:     http.StatusServiceUnavailable,
		Code:       types.CodeUnavailable,
		Message:    message,
		RetryAfter: retryUnavailable,
		Cause:      cause,
	}
}

// Internal is a fault of the panel's own.
func Internal(cause error) *Error {
	return &Error{
		Status:  http.StatusInternalServerError,
		Code:    types.CodeInternalError,
		Message: "Something went wrong in the panel; its log has the cause under this request id.",
		Cause:   cause,
	}
}
