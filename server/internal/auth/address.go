package auth

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/sources"
)

type addressKey struct{}

// WithAddress stores the caller's address, User-Agent, and the cookies of known browsers, in the
// request's context, for rate limits, of which the response tells, the list of sessions and the audit trail, and whether the request
// came over TLS. Callers take turns by the address when their requests wait for the database.
func (a *Auth) WithAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := a.address(r)
		recorded(r.Context()).Address = address
		ctx := context.WithValue(r.Context(), addressKey{}, address)
		ctx = context.WithValue(ctx, userAgentKey{}, r.UserAgent())
		ctx = context.WithValue(ctx, secureKey{}, Secure(r, a.proxies))
		ctx = db.WithSource(ctx, sources.Of(address))
		ctx = db.WithActor(ctx, db.Actor{Kind: db.ActorAnonymous, Address: address}) // NewContext knows better.
		ctx = withRateLimits(ctx, w.Header())
		next.ServeHTTP(w, r.WithContext(withBrowsers(ctx, r)))
	})
}

// Address returns the caller's address, as reported by trusted proxies, or the zero
// Addr if it is not known.
func Address(ctx context.Context) netip.Addr {
	address, _ := ctx.Value(addressKey{}).(netip.Addr)
	return address
}

// AddressKey returns the rate limit key of the caller's address: the IPv4 address, or
// the /64 network of an IPv6 address, which usually belongs to one host.
func AddressKey(ctx context.Context) string {
	return networkKey(sources.Of(Address(ctx)))
}

// address walks X-Forwarded-For from the connection's peer towards the caller, as
// long as each hop is a trusted proxy. Entries before the first untrusted hop can be
// forged.
func (a *Auth) address(r *http.Request) netip.Addr {
	hop, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // Not an IP network, such as a Unix socket.
	}
	address := hop.Addr().Unmap().WithZone("")
	header := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	if header != "" && !trusts(a.proxies, address) && (address.IsPrivate() || address.IsLoopback()) {
		a.warnOfProxy(r.Context(), address)
	}
	forwarded := strings.Split(header, ",")
	for i := len(forwarded) - 1; i >= 0 && trusts(a.proxies, address); i-- {
		next, err := parseHop(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		address = next.Unmap().WithZone("")
	}
	return address
}

// warnOfProxy says once that what seems to be a proxy is not trusted: all its callers
// would share the limits of its address.
func (a *Auth) warnOfProxy(ctx context.Context, address netip.Addr) {
	a.proxyWarning.Do(func() {
		a.logger.WarnContext(ctx, "a request came with X-Forwarded-For from a private address that is no trusted proxy: its callers count as one; "+
			"if it is your proxy, add its address to --trusted-proxies", slog.String("address", address.String()))
	})
}

// parseHop parses an entry of X-Forwarded-For. Some proxies, such as Azure's
// Application Gateway, add the caller's port. Without support for it, all callers
// behind such a proxy would share a limit.
func parseHop(text string) (netip.Addr, error) {
	if hop, err := netip.ParseAddrPort(text); err == nil {
		return hop.Addr(), nil
	}
	return netip.ParseAddr(text)
}

func trusts(proxies []netip.Prefix, address netip.Addr) bool {
	for _, prefix := range proxies {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
