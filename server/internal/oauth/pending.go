package oauth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	// loginLifetime is how long a person may take at the provider.
	loginLifetime = 10 * time.Minute
	// maxPending is the maximum number of logins under way in one browser, the last ones:
	// every cookie is sent with every request.
	maxPending = 4

	cookiePrefix = "login_"
	// securePrefix is for cookies over TLS. Browsers take such a cookie from this host alone,
	// and over TLS: neither a sibling domain nor another port can plant a login of its own.
	securePrefix = "__Host-"
)

// pending is a login under way at a provider. It is kept by the browser, so that every
// replica can finish it, and encrypted.
type pending struct {
	Provider string `json:"p"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // Of PKCE (RFC 7636).
	ReturnTo string `json:"r"`
	Expires  int64  `json:"e"` // In Unix seconds.
}

// jar encrypts pending logins as cookies. It is safe for concurrent use.
type jar struct {
	aead   cipher.AEAD
	secure bool // The panel is served over TLS.
	now    func() time.Time
}

// newJar derives the key from a secret that all replicas have.
func newJar(secret []byte, secure bool, now func() time.Time) (*jar, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "eclitunnel: logins under way at providers", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of logins: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the key of logins: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &jar{aead: aead, secure: secure, now: now}, err
}

func (j *jar) prefix() string {
	if j.secure {
		return securePrefix + cookiePrefix
	}
	return cookiePrefix
}

// name returns that of the cookie of a state: logins in several tabs do not disturb each other.
func (j *jar) name(state string) string {
	sum := sha256.Sum256([]byte(state))
	return j.prefix() + base64.RawURLEncoding.EncodeToString(sum[:12])
}

// begin returns a new login, and the cookies of its answer. They replace the oldest of too
// many that the browser has sent.
func (j *jar) begin(provider, returnTo, verifier string, sent []*http.Cookie) (pending, []*http.Cookie, error) {
	login := pending{
		Provider: provider, State: rand.Text(), Nonce: rand.Text(), Verifier: verifier,
		ReturnTo: returnTo, Expires: j.now().Add(loginLifetime).Unix(),
	}
	plain, err := json.Marshal(login)
	if err != nil {
		return pending{}, nil, fmt.Errorf("keep a login: %w", err)
	}
	name := j.name(login.State)
	value := base64.RawURLEncoding.EncodeToString(j.aead.Seal(nil, nil, plain, []byte(name)))
	cookies := []*http.Cookie{j.cookie(name, value, int(loginLifetime.Seconds()))}
	var others []string
	for _, cookie := range sent { // Browsers send the oldest first.
		if strings.HasPrefix(cookie.Name, j.prefix()) {
			others = append(others, cookie.Name)
		}
	}
	for len(others) >= maxPending {
		cookies = append(cookies, j.cookie(others[0], "", -1))
		others = others[1:]
	}
	return login, cookies, nil
}

// find returns the login with a state among the cookies of a request, and the cookie that
// clears it. It reports whether there is one that has not expired.
func (j *jar) find(state string, sent []*http.Cookie) (pending, *http.Cookie, bool) {
	name := j.name(state)
	for _, cookie := range sent {
		if cookie.Name != name {
			continue
		}
		sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
		if err != nil {
			continue
		}
		plain, err := j.aead.Open(nil, nil, sealed, []byte(name))
		if err != nil {
			continue
		}
		var login pending
		if err := json.Unmarshal(plain, &login); err != nil || login.State != state || j.now().Unix() >= login.Expires {
			continue
		}
		return login, j.cookie(name, "", -1), true
	}
	return pending{}, nil, false
}

func (j *jar) cookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: j.secure, SameSite: http.SameSiteLaxMode,
	}
}
