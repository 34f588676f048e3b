// Package problem defines the API's errors and is the only writer of error bodies. It
// turns every failure of a request into an Error, whose cause is logged under the
// request id and never sent.
package problem

import (
	"fmt"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Error is a failure together with its HTTP response.
type Error struct {
	Status  int
	Code    types.ErrorCode
	Message string // A sentence for people, sent in the response.
	// Details lists the invalid fields of the request.
	Details []types.ErrorDetail
	// Quota is the limit that the request would exceed; nil for other errors.
	Quota *types.QuotaExcess
	// RetryAfter is sent in whole seconds, rounded up; zero sends no header.
	RetryAfter time.Duration
	// Cause is logged if Status is 500 or above. It is never sent.
	Cause error
}

// Error returns the code, the message and the cause, for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// maxDetails bounds the size of a response, which would otherwise grow with the
// request.
const maxDetails = 20

// Invalid is a request that violates the contract, or a rule that the contract cannot
// express. It keeps the first 20 details.
func Invalid(details ...types.ErrorDetail) *Error {
	details = details[:min(len(details), maxDetails)]
	return &Error{
		Status:  http.StatusBadRequest,
		Code:    types.CodeInvalidRequest,
		Message: "The request does not match the contract.",
		Details: details,
	}
}

// Field is a detail for Invalid: a fault in one field. The name is a path such as
// "options.proxyProtocol"; an empty name stands for the whole body.
func Field(name, message string) types.ErrorDetail {
	if name == "" {
		name = "body"
	}
	return types.ErrorDetail{Field: name, Message: message}
}

// Unauthorized is a request without a credential, or with one that is invalid,
// expired or revoked.
func Unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: types.CodeUnauthorized, Message: message}
}

// TokenRevoked is a request with a device token that was valid and is revoked. Only it
// and DeviceDeleted tell a device to stop for good.
func TokenRevoked() *Error {
	return &Error{Status: http.StatusUnauthorized, Code: types.CodeTokenRevoked, Message: "This device's token was revoked."}
}

// DeviceDeleted is a request with the token of a device that was deleted.
func DeviceDeleted() *Error {
	return &Error{Status: http.StatusUnauthorized, Code: types.CodeDeviceDeleted, Message: "This device was deleted."}
}

// UnknownDevice is a request with a device token that this database knows nothing
// about, as before a backup is restored. The status is one after which agents of all
// versions retry.
func UnknownDevice() *Error {
	return &Error{
		Status:     http.StatusServiceUnavailable,
		Code:       types.CodeUnknownDevice,
		Message:    "This panel does not know this device or its token. It may be another panel, or a backup is not restored yet.",
		RetryAfter: retryUnavailable,
	}
}

// Forbidden is a request that its authenticated caller may not make.
func Forbidden(message string) *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeForbidden, Message: message}
}

// WrongPassword is a change of the caller's own account with a wrong current password. It is not
// Unauthorized, which would mean that the session has ended.
func WrongPassword() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeWrongPassword, Message: "The current password is wrong."}
}

// KYCRequired is a request of a person who has to prove their identity to the identity
// provider first.
func KYCRequired() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeKYCRequired, Message: "Your identity has to be verified first, where you logged in."}
}

// EmailTaken is a request of a person from an identity provider whose email has an account
// that is not known to be theirs.
func EmailTaken() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeEmailTaken, Message: "Another account of this panel has your email. Ask an admin to change the email of that account, or to delete it."}
}

// LocalAccountsDisabled is a login or link by password while local accounts are switched
// off.
func LocalAccountsDisabled() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeLocalAccountsDisabled, Message: "Local accounts are switched off on this panel."}
}

// NotFound is a request for a resource that does not exist, or that the caller may
// not see.
func NotFound(message string) *Error {
	return &Error{Status: http.StatusNotFound, Code: types.CodeNotFound, Message: message}
}

// MethodNotAllowed is a request for a known path with an unsupported method. The
// caller sets the Allow header.
func MethodNotAllowed() *Error {
	return &Error{
		Status:  http.StatusMethodNotAllowed,
		Code:    types.CodeMethodNotAllowed,
		Message: "This path does not support this method; the Allow header lists those it supports.",
	}
}

// Conflict is a request that conflicts with the current state.
func Conflict(message string) *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodeConflict, Message: message}
}

// PortTaken is a request for count neighbouring public ports, at least one of which another allocation
// holds.
func PortTaken(count int) *Error {
	message := "The port is taken on the tunnel server."
	if count > 1 {
		message = fmt.Sprintf("One or more of the %d ports are taken on the tunnel server.", count)
	}
	return &Error{Status: http.StatusConflict, Code: types.CodePortTaken, Message: message}
}

// NoPorts is a request for count neighbouring public ports where so many are not free.
func NoPorts(count int) *Error {
	message := "The tunnel server has no free port left."
	if count > 1 {
		message = fmt.Sprintf("The tunnel server has no %d neighbouring ports free.", count)
	}
	return &Error{Status: http.StatusServiceUnavailable, Code: types.CodeNoPortsAvailable, Message: message}
}

// AlreadyApproved is an approval of an enrollment that is already approved.
func AlreadyApproved() *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodeAlreadyApproved, Message: "This device is already approved."}
}

// TagTaken is the start of an enrollment with the tag of another one, which was started elsewhere and waits.
func TagTaken() *Error {
	return &Error{Status: http.StatusConflict, Code: types.CodeConflict, Message: "Another machine waits for approval under this tag. Refuse it if it is not yours, or use another tag."}
}

// QuotaExceeded is a request with which an owner of devices would have more than their quota.
func QuotaExceeded(resource types.QuotaResource, limit, used int) *Error {
	one, many := "device", "devices"
	switch resource {
	case types.QuotaAllocations:
		one, many = "allocation", "allocations"
	case types.QuotaPortsOutsideRange:
		one, many = "port outside the range of its tunnel server", "ports outside the range of their tunnel servers"
	}
	if limit != 1 {
		one = many
	}
	message := fmt.Sprintf("The quota is used up: the owner may have %d %s, and has %d. An admin of the panel can raise it.", limit, one, used)
	if resource == types.QuotaPortsOutsideRange && limit == 0 {
		message = "The port is outside the range of the tunnel server. Leave it out, or ask an admin of the panel to permit such ports."
	}
	return &Error{
		Status:  http.StatusConflict,
		Code:    types.CodeQuotaExceeded,
		Message: message,
		Quota:   &types.QuotaExcess{Resource: resource, Limit: limit, Used: used},
	}
}

// EnrollmentDenied is an enrollment that was denied, or whose device was deleted.
func EnrollmentDenied() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeEnrollmentDenied, Message: "This enrollment was denied."}
}

// EnrollmentExpired is an enrollment that was not approved in time.
func EnrollmentExpired() *Error {
	return &Error{Status: http.StatusGone, Code: types.CodeEnrollmentExpired, Message: "The code has expired. Start again."}
}

// LoginDenied is the login of a terminal that was denied, or whose key was revoked before it was handed out.
func LoginDenied() *Error {
	return &Error{Status: http.StatusForbidden, Code: types.CodeLoginDenied, Message: "This login was denied."}
}

// LoginExpired is the login of a terminal that was not approved in time, or whose key was handed out.
func LoginExpired() *Error {
	return &Error{Status: http.StatusGone, Code: types.CodeLoginExpired, Message: "The code has expired or was used. Start again."}
}

// IdempotencyKeyReused is a request with the Idempotency-Key of another one.
func IdempotencyKeyReused() *Error {
	return &Error{
		Status:  http.StatusConflict,
		Code:    types.CodeIdempotencyKeyReused,
		Message: "This Idempotency-Key was used for another request. Send each new request with a new key.",
	}
}

// IdempotencyInProgress is a request with an Idempotency-Key whose first request is not answered yet.
func IdempotencyInProgress(wait time.Duration) *Error {
	return &Error{
		Status:     http.StatusConflict,
		Code:       types.CodeIdempotencyInProgress,
		Message:    "A request with this Idempotency-Key is in progress. Retry it to get the response.",
		RetryAfter: wait,
	}
}

// IdempotencyAnswerLost is a request with an Idempotency-Key whose first request was carried out, and whose answer was
// lost with the panel's process.
func IdempotencyAnswerLost() *Error {
	return &Error{
		Status:  http.StatusConflict,
		Code:    types.CodeIdempotencyAnswerLost,
		Message: "The request with this Idempotency-Key was carried out, but its response was lost. It is not carried out again; read the current state.",
	}
}

// PreconditionFailed is a change with If-Match of what has changed since.
func PreconditionFailed() *Error {
	return &Error{
		Status:  http.StatusPreconditionFailed,
		Code:    types.CodePreconditionFailed,
		Message: "The resource has changed since you read it. Nothing was done; read it again, then change it.",
	}
}

// TooLarge is a request whose body exceeds the limit.
func TooLarge() *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Code: types.CodePayloadTooLarge, Message: "The body is larger than 64 KiB."}
}

// UnsupportedMediaType is a request whose body is not JSON.
func UnsupportedMediaType() *Error {
	return &Error{
		Status:  http.StatusUnsupportedMediaType,
		Code:    types.CodeUnsupportedMediaType,
		Message: "Send the body as JSON, with the header Content-Type: application/json.",
	}
}

// SlowDown is a poll before the interval has passed (RFC 8628 section 3.5).
func SlowDown(wait time.Duration) *Error {
	return &Error{
		Status:     http.StatusTooManyRequests,
		Code:       types.CodeSlowDown,
		Message:    "Polled too soon; wait for the interval.",
		RetryAfter: wait,
	}
}

// RateLimited is a request beyond a rate limit.
func RateLimited(wait time.Duration) *Error {
	return &Error{
		Status:     http.StatusTooManyRequests,
		Code:       types.CodeRateLimited,
		Message:    "Too many attempts; try again later.",
		RetryAfter: wait,
	}
}

// FeatureDisabled is a tunnel operation while tunnels are switched off.
func FeatureDisabled() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: types.CodeFeatureDisabled, Message: "Tunnels are switched off on this panel."}
}

// Unavailable is a request that the panel temporarily cannot serve.
func Unavailable(message string, cause error) *Error {
	return &Error{
		Status:     http.StatusServiceUnavailable,
		Code:       types.CodeUnavailable,
		Message:    message,
		RetryAfter: retryUnavailable,
		Cause:      cause,
	}
}

// Internal is a failure of the panel itself.
func Internal(cause error) *Error {
	return &Error{
		Status:  http.StatusInternalServerError,
		Code:    types.CodeInternalError,
		Message: "The panel failed; its log has the cause under this request id.",
		Cause:   cause,
	}
}
