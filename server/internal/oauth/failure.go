package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"golang.org/x/oauth2"
)

// Reason is why a login at a provider failed: what a page for people explains.
type Reason string

// The reasons of failures.
const (
	// UnknownProvider is a login at a provider that the panel does not have.
	UnknownProvider Reason = "unknown-provider"
	// Stale is an answer to a login that was not begun in this browser, has taken too long or
	// was answered before.
	Stale Reason = "stale"
	// Denied is a login that the person, or the provider for its policy, did not permit.
	Denied Reason = "denied"
	// Unreachable is a provider that does not answer.
	Unreachable Reason = "unreachable"
	// Refused is a provider whose answer the panel cannot use, or that does not accept the
	// panel: an operator's business.
	Refused Reason = "refused"
	// EmailTaken is a person whose email has an account that is not known to be theirs.
	EmailTaken Reason = "email-taken"
	// Suspended is the login of a suspended user.
	Suspended Reason = "suspended"
	// RateLimited is one of too many failed logins from an address.
	RateLimited Reason = "rate-limited"
	// Unavailable is a panel that cannot reach its database.
	Unavailable Reason = "unavailable"
	// Failed is a failure of the panel itself.
	Failed Reason = "failed"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{UnknownProvider, Stale, Denied, Unreachable, Refused, EmailTaken, Suspended, RateLimited, Unavailable, Failed}
}

// Failure is a login at a provider that failed. Its cause is for the log.
type Failure struct {
	Reason   Reason
	Provider string // The provider's id.
	Cause    error  // nil if an operator need not know.
}

// Error returns the reason, the provider and the cause, for logs.
func (f *Failure) Error() string {
	if f.Cause != nil {
		return fmt.Sprintf("login at provider %q: %s: %v", f.Provider, f.Reason, f.Cause)
	}
	return fmt.Sprintf("login at provider %q: %s", f.Provider, f.Reason)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// maxForeign is the maximum length, in bytes, of text of a provider in the log.
const maxForeign = 300

// foreignError is an error with text of a provider, which is not trusted: its length is
// bounded, and it is quoted.
type foreignError struct {
	what  string
	cause error
}

func foreign(what string, cause error) error { return &foreignError{what, cause} }

// Error returns what failed, and the text.
func (e *foreignError) Error() string {
	text := e.cause.Error()
	if len(text) > maxForeign {
		text = text[:maxForeign] + "…"
	}
	return fmt.Sprintf("%s: %q", e.what, text)
}

// Unwrap returns the cause, whose text must not be shown.
func (e *foreignError) Unwrap() error { return e.cause }

// refusal returns the reason of an answer with an error code (RFC 6749 section 4.1.2.1,
// OpenID Connect Core section 3.1.2.6).
func refusal(code string) (Reason, error) {
	switch code {
	case "access_denied", "consent_required", "login_required", "interaction_required", "account_selection_required":
		return Denied, nil
	case "server_error", "temporarily_unavailable":
		return Unreachable, foreign("it answered with the error", errors.New(code))
	default:
		return Refused, foreign("it answered with the error", errors.New(code))
	}
}

// exchangeFailure returns the reason of a code that was not exchanged for a token.
func exchangeFailure(err error) (Reason, error) {
	var refused *oauth2.RetrieveError
	switch {
	case !errors.As(err, &refused):
		return reasonOf(err), foreign("ask its token endpoint", err)
	case refused.ErrorCode == "invalid_grant": // The code has expired, or was used.
		return Stale, nil
	default:
		// Not the body, which could have anything.
		return Refused, foreign("ask its token endpoint", fmt.Errorf("it answered %d %s", refused.Response.StatusCode, refused.ErrorCode))
	}
}

// reasonOf returns the reason of an error of a request to a provider, or of its answer.
func reasonOf(err error) Reason {
	var failed *url.Error
	switch {
	case errors.Is(err, errRedirects), errors.Is(err, errTooLong):
		return Refused // It was reached.
	case errors.As(err, &failed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unreachable
	default:
		return Refused
	}
}
