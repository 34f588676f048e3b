package web

import (
	"net/http"
	"net/url"
	"regexp"

	"github.com/felixge/httpsnoop"
)

// loginFailedPath is the path of the page that explains why a login at an identity provider
// failed.
const loginFailedPath = "/login-failed"

// LoginFailed returns the address of the page that explains why a login at an identity
// provider failed: a reason of package oauth, and the id of the request under which the log
// has more.
func LoginFailed(reason, requestID string) string {
	query := url.Values{"reason": {reason}, "request": {requestID}}
	return loginFailedPath + "?" + query.Encode()
}

// explanation is what a person is told, and can do.
type explanation struct {
	status      int
	title, text string
	logged      bool // The log says more.
}

const loginAgain = " Go back to the panel's start page, and log in again."

// explanations are those of the reasons of package oauth.
var explanations = map[string]explanation{
	"unknown-provider": {http.StatusNotFound, "No such way to log in",
		"This panel does not know the identity provider of this link." + loginAgain, false},
	"stale": {http.StatusBadRequest, "This login is over",
		"A login takes at most 10 minutes, works once, and is finished in the browser in which it was begun. " +
			"If you opened the panel under another address than the one that its operator has set, open it under that one." + loginAgain, false},
	"denied": {http.StatusForbidden, "You were not logged in",
		"The identity provider says that the login was cancelled, or is not permitted." + loginAgain, false},
	"unreachable": {http.StatusServiceUnavailable, "The identity provider does not answer",
		"The panel cannot reach the identity provider. Try again in a few minutes. If it stays like this, tell an admin of the panel.", true},
	"refused": {http.StatusBadGateway, "The login did not work",
		"The panel and the identity provider do not understand each other. Tell an admin of the panel.", true},
	"email-taken": {http.StatusConflict, "Your email has another account",
		"An account of this panel has your email already, and nobody has verified that both are yours. " +
			"Log in to that account as before, or ask an admin of the panel.", false},
	"suspended": {http.StatusForbidden, "This account is suspended",
		"An admin of the panel has suspended your account. Ask them why.", false},
	"rate-limited": {http.StatusTooManyRequests, "Too many attempts",
		"Too many logins from your network have failed. Try again in a minute.", false},
	"unavailable": {http.StatusServiceUnavailable, "The panel is not available",
		"The panel cannot reach its database. Try again in a few seconds.", true},
	"failed": {http.StatusInternalServerError, "The login failed",
		"The panel failed. Tell an admin of the panel.", true},
}

// requestID matches ids that the panel gives to requests.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// loginFailed serves the page. It shows texts of its own alone, whatever a link to it says.
func loginFailed(w http.ResponseWriter, r *http.Request) {
	if !reads(r) {
		setSecurityHeaders(w.Header(), policy)
		methodNotAllowed(w)
		return
	}
	query, why := r.URL.Query(), explanationOf(r)
	if id := query.Get("request"); why.logged && requestID.MatchString(id) {
		why.text += " The panel's log has more under the request id " + id + "."
	}
	writeMessage(w, r, why.status, why.title, why.text)
}

func explanationOf(r *http.Request) explanation {
	if why, ok := explanations[r.URL.Query().Get("reason")]; ok {
		return why
	}
	return explanations["failed"]
}

// withFailure returns a page that explains by itself why a login failed, with the status of
// the plain one. What a browser knows of the page is left out of account: it would be
// answered with another status.
func withFailure(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r) {
			page.ServeHTTP(w, r)
			return
		}
		whole := r.Clone(r.Context())
		for _, header := range []string{"If-None-Match", "If-Modified-Since", "Range", "If-Range"} {
			whole.Header.Del(header)
		}
		status := explanationOf(r).status
		page.ServeHTTP(httpsnoop.Wrap(w, httpsnoop.Hooks{
			WriteHeader: func(write httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
				return func(code int) {
					if code == http.StatusOK {
						code = status
					}
					write(code)
				}
			},
		}), whole)
	})
}
