package auth

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

const (
	// cookieName is the name of the session cookie, as the contract publishes it.
	cookieName = "session"
	// hostPrefix begins the name of a cookie that a browser accepts over TLS only, and for
	// the host alone that sets it (RFC 6265bis section 4.1.3.2): no page on a sibling or parent domain can
	// put another one in its place, or before it. Over TLS every cookie of the panel comes
	// with it too, and counts first. The published name remains for callers that look for it.
	hostPrefix = "__Host-"
	// maxCookies is the maximum number of different values of a cookie that are tried.
	maxCookies = 16
)

// Cookies returns the cookies that carry the session and make the browser known. Over TLS
// each is there twice, by its published name and with the prefix __Host-.
func (l Login) Cookies() []*http.Cookie { return withPrefixed(l.Cookie, l.Browser) }

// withPrefixed returns the cookies, followed by a copy with the prefix __Host- of each that
// is Secure.
func withPrefixed(cookies ...*http.Cookie) []*http.Cookie {
	all := slices.Clone(cookies)
	for _, cookie := range cookies {
		if cookie.Secure {
			prefixed := *cookie
			prefixed.Name = hostPrefix + cookie.Name
			all = append(all, &prefixed)
		}
	}
	return all
}

// cookieValues returns the different values of a request's cookies with a name: those with
// the prefix __Host- first, the others in order. There are at most maxCookies of them, and
// the last ones are dropped: a browser also sends what another program on the host, or on a
// parent domain, has set.
func cookieValues(r *http.Request, name string) []string {
	var values []string
	for _, cookie := range slices.Concat(r.CookiesNamed(hostPrefix+name), r.CookiesNamed(name)) {
		if cookie.Value != "" && len(values) < maxCookies && !slices.Contains(values, cookie.Value) {
			values = append(values, cookie.Value)
		}
	}
	return values
}

func (a *Auth) cookie(ctx context.Context, name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name:     name,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		Secure:   a.publicURL.Scheme == "https" || isSecure(ctx),
	}
}

type secureKey struct{}

// isSecure reports whether the caller's request came over TLS.
func isSecure(ctx context.Context) bool {
	secure, _ := ctx.Value(secureKey{}).(bool)
	return secure
}

// Secure reports whether a request came over TLS: to this process, or to one of the trusted
// proxies, according to its X-Forwarded-Proto.
func Secure(r *http.Request, proxies []netip.Prefix) bool {
	if r.TLS != nil {
		return true
	}
	hop, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !trusts(proxies, hop.Addr().Unmap().WithZone("")) {
		return false
	}
	// Of several proxies the first one, which the caller has reached, begins the list.
	scheme, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	return strings.EqualFold(strings.TrimSpace(scheme), "https")
}
