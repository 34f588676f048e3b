package validate

import (
	"errors"
	"net/mail"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	// hostnamePattern follows RFC 1123 section 2.1; the schema limits the length.
	hostnamePattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$`)
)

// formats is passed to each validation rather than registered in kin-openapi's global
// table, which is not safe for concurrent use. OpenAPI leaves formats to the
// validator; without these an invalid UUID would reach the database.
var formats = openapi3.WithStringFormatValidators(map[string]openapi3.StringFormatValidator{
	"uuid":      check("must be a UUID", uuidPattern.MatchString),
	"hostname":  check("must be a host name", hostnamePattern.MatchString),
	"email":     openapi3.NewCallbackValidator(CheckEmail),
	"date-time": check("must be an RFC 3339 date and time", isDateTime),
	"ipv4":      check("must be an IPv4 address", isIPv4),
	"ipv6":      check("must be an IPv6 address", isIPv6),
	// Of this contract.
	"local-host":  openapi3.NewCallbackValidator(netaddr.CheckLocalHost),
	"public-host": openapi3.NewCallbackValidator(isPublicHostOrEmpty),
	"ip-prefix": openapi3.NewCallbackValidator(func(s string) error {
		_, err := netaddr.ParsePrefix(s)
		return err
	}),
})

// isPublicHostOrEmpty accepts the empty host as well: the panel guesses it.
func isPublicHostOrEmpty(host string) error {
	if host == "" {
		return nil
	}
	return netaddr.CheckPublicHost(host)
}

func check(message string, ok func(string) bool) openapi3.StringFormatValidator {
	err := errors.New(message)
	return openapi3.NewCallbackValidator(func(s string) error {
		if !ok(s) {
			return err
		}
		return nil
	})
}

var (
	errEmail     = errors.New("must be an email address")
	errInvisible = errors.New("must not contain invisible characters")
)

// CheckEmail returns nil for a bare address that people can tell from others: one with a
// character that nobody sees looks like somebody else's. The decoder of the generated type
// would silently shorten "Name <address>". The error is a phrase for people that follows
// the name of the field.
func CheckEmail(s string) error {
	if address, err := mail.ParseAddress(s); err != nil || address.Address != s {
		return errEmail
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.C, unicode.Z) }) {
		return errInvisible
	}
	return nil
}

func isDateTime(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

func isIPv4(s string) bool {
	address, err := netip.ParseAddr(s)
	return err == nil && address.Is4()
}

func isIPv6(s string) bool {
	address, err := netip.ParseAddr(s)
	return err == nil && address.Is6()
}
