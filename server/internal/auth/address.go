package auth

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
)

type addressKey struct{}

// WithAddress puts the caller's address into the request's context, for the
// limits that count by address.
func (a *Auth) WithAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), addressKey{}, a.address(r))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Address is the caller's address, as far as proxies that are trusted tell; the
// zero Addr where it is not known.
func Address(ctx context.Context) netip.Addr {
	address, _ := ctx.Value(addressKey{}).(netip.Addr)
	return address
}

// AddressKey names the caller's address for a limit: an IPv4 address, or the /64
// of an IPv6 one, since whoever has one of its addresses has them all.
func AddressKey(ctx context.Context) string {
	address := Address(ctx)
	if address.Is6() {
		prefix, err := address.Prefix(64)
		if err == nil {
			return prefix.String()
		}
	}
	return address.String()
}

// address walks from the connection towards the caller for as long as proxies
// that are trusted vouch for the next hop. What lies behind the first that is not
// could be anybody's invention.
func (a *Auth) address(r *http.Request) netip.Addr {
	hop, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		// The panel's own listener in memory has no addresses.
		return netip.Addr{}
	}
	address := hop.Addr().Unmap().WithZone("")
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && a.trusts(address); i-- {
		next, err := parseHop(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		address = next.Unmap().WithZone("")
	}
	return address
}

// parseHop reads an entry of X-Forwarded-For. Some proxies add the caller's port, as
// Azure's Application Gateway does: taken for unreadable, all callers behind such a
// one would share a limit.
func parseHop(text string) (netip.Addr, error) {
	if hop, err := netip.ParseAddrPort(text); err == nil {
		return hop.Addr(), nil
	}
	return netip.ParseAddr(text)
}

func (a *Auth) trusts(address netip.Addr) bool {
	for _, prefix := range a.proxies {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
