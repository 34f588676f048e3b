package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// browserCookie is the name of the cookie of a browser that has logged in, as the
	// contract publishes it.
	browserCookie = "known_browser"
	// browserLifetime is the longest that browsers keep a cookie (RFC 6265bis section 5.5).
	browserLifetime = 400 * 24 * time.Hour
	// maxBrowsers is the maximum number of accounts to which a browser is known, the last
	// ones. As many are looked at of each cookie.
	maxBrowsers = 4
)

// A browser's cookie has a value for each account, separated by dots. A value consists of
// an identifier, the Unix time of the login in seconds, a MAC of the password's hash, with
// which it ends when the password changes, and a MAC of all of these with the account's
// email. It names no account, and is of no use for another.
const (
	browserID       = 16
	browserIssued   = browserID + 8
	browserPassword = browserIssued + 16
	browserSize     = browserPassword + sha256.Size
)

// browser is the content of a cookie that was made for an account.
type browser [browserSize]byte

// id identifies the browser.
func (b *browser) id() string { return base64.RawURLEncoding.EncodeToString(b[:browserID]) }

// maxRememberedPlaces bounds the addresses that a replica remembers, of about 100 bytes
// each.
const maxRememberedPlaces = 64 << 10

// places tells from where people have logged in. It is safe for concurrent use.
type places struct {
	secret []byte
	now    func() time.Time

	mu         sync.Mutex
	remembered map[string]struct{} // Of addresses of accounts: see key.
}

// key returns that of a place, as the database keeps it, of the account with an email.
func (p *places) key(email string, place []byte) string {
	return string(p.sum("account", []byte(email), place)[:16])
}

// remember has remembers report a place.
func (p *places) remember(email string, place []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.remembered { // In no order.
		if len(p.remembered) < maxRememberedPlaces {
			break
		}
		delete(p.remembered, key)
	}
	p.remembered[p.key(email, place)] = struct{}{}
}

// remembers reports whether a place was known when this replica last heard of it. The
// database knows exactly.
func (p *places) remembers(email string, place []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.remembered[p.key(email, place)]
	return ok
}

// LoadPlaces reads from where people have logged in at any replica. Logins from there need
// not compete with others for the database.
func (a *Auth) LoadPlaces(ctx context.Context) error {
	known, err := a.store.LoginPlaces(ctx, maxRememberedPlaces, a.now())
	if err != nil {
		return err
	}
	remembered := make(map[string]struct{}, len(known))
	for _, k := range known {
		remembered[a.places.key(k.Email, k.Place)] = struct{}{}
	}
	a.places.mu.Lock()
	defer a.places.mu.Unlock()
	a.places.remembered = remembered
	return nil
}

// sum returns a MAC of some parts for a purpose.
func (p *places) sum(purpose string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, p.secret)
	for _, part := range append([][]byte{[]byte(purpose)}, parts...) {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// address returns the hash under which the database keeps the caller's address.
func (p *places) address(ctx context.Context) []byte {
	return p.sum("address", []byte(AddressKey(ctx)))
}

// browser returns the caller's browser if it has a cookie for the account with an email, in
// lower case, that has not expired; nil otherwise. It asks nobody, and does not know whether
// the password has changed since: see current.
func (p *places) browser(ctx context.Context, email string) *browser {
	for _, value := range browsers(ctx) {
		b := p.parse(value, email)
		if b == nil {
			continue
		}
		issued := time.Unix(int64(binary.BigEndian.Uint64(b[browserID:browserIssued])), 0) //nolint:gosec // the MAC shows that it is one of ours
		if p.now().Sub(issued) < browserLifetime {
			return b
		}
	}
	return nil
}

// parse returns the content of a value that was made for an email; nil for others.
func (p *places) parse(value, email string) *browser {
	decoded, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(decoded) != browserSize ||
		!hmac.Equal(decoded[browserPassword:], p.sum("browser", decoded[:browserPassword], []byte(email))) {
		return nil
	}
	b := browser(decoded)
	return &b
}

// current reports whether a password has not changed since a browser's login.
func (p *places) current(b *browser, passwordHash string) bool {
	return hmac.Equal(b[browserIssued:browserPassword], p.password(passwordHash))
}

// password returns a MAC of a password's hash.
func (p *places) password(hash string) []byte {
	return p.sum("password", []byte(hash))[:browserPassword-browserIssued]
}

// renew returns a cookie's value after a login by a browser, nil for a new one. It keeps what
// the caller has for other accounts.
func (p *places) renew(ctx context.Context, b *browser, user db.User) string {
	var id [browserID]byte
	if b != nil {
		copy(id[:], b[:])
	} else {
		_, _ = rand.Read(id[:]) // It never fails.
	}
	email := strings.ToLower(user.Email)
	value := binary.BigEndian.AppendUint64(id[:], uint64(p.now().Unix())) //nolint:gosec // after 1970
	value = append(value, p.password(user.PasswordHash)...)
	value = append(value, p.sum("browser", value, []byte(email))...)
	all := []string{base64.RawURLEncoding.EncodeToString(value)}
	for _, other := range browsers(ctx) {
		if len(all) < maxBrowsers && p.parse(other, email) == nil && len(other) == len(all[0]) {
			all = append(all, other)
		}
	}
	return strings.Join(all, ".")
}

type browsersKey struct{}

// withBrowsers stores the values of a request's cookies of known browsers in ctx.
func withBrowsers(ctx context.Context, r *http.Request) context.Context {
	var values []string
	for _, cookie := range cookieValues(r, browserCookie) {
		ofCookie := strings.SplitN(cookie, ".", maxBrowsers+1)
		values = append(values, ofCookie[:min(len(ofCookie), maxBrowsers)]...)
	}
	if values == nil {
		return ctx
	}
	return context.WithValue(ctx, browsersKey{}, values)
}

// browsers returns the values that withBrowsers has stored.
func browsers(ctx context.Context) []string {
	values, _ := ctx.Value(browsersKey{}).([]string)
	return values
}
