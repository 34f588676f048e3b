package auth_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// key reads the panel's signing key, for tokens that only the panel could sign.
func (p *panel) key(t *testing.T) (id string, private ed25519.PrivateKey) {
	t.Helper()
	keys, err := p.db.EnsureSigningKey(t.Context(), db.SigningKey{})
	if err != nil {
		t.Fatal(err)
	}
	return keys[0].ID, ed25519.NewKeyFromSeed(keys[0].Seed)
}

// forge signs claims with any algorithm, key and key id.
func forge(t *testing.T, alg jwa.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	headers := jws.NewHeaders()
	if kid != "" {
		if err := headers.Set(jws.KeyIDKey, kid); err != nil {
			t.Fatal(err)
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(alg, key, jws.WithProtectedHeaders(headers)))
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// unsigned is a token with the algorithm "none".
func unsigned(t *testing.T, kid string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none","kid":"`+kid+`"}`)) + "." + encode(payload) + "."
}

func with(claims map[string]any, name string, value any) map[string]any {
	changed := map[string]any{}
	for k, v := range claims {
		changed[k] = v
	}
	if value == nil {
		delete(changed, name)
	} else {
		changed[name] = value
	}
	return changed
}

func TestAuthenticate_RejectsForgedDeviceTokens(t *testing.T) {
	p := newPanel(t)
	device, token := p.device(t)
	kid, private := p.key(t)
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("no public key")
	}
	good := map[string]any{
		"iss": "eclitunnel", "aud": "device", "sub": device.ID.String(), "iat": p.clock.Now().Unix(),
		"kind": device.Kind, "ver": device.TokenVersion,
	}
	if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, private, kid, good))); err != nil {
		t.Fatalf("the unmodified claims are rejected: %v", err)
	}
	parts := strings.Split(token, ".")
	for name, forged := range map[string]string{
		"no signature":           unsigned(t, kid, good),
		"signature cut off":      parts[0] + "." + parts[1] + ".",
		"signature of another":   parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"another key":            forge(t, jwa.EdDSA, foreign, kid, good),
		"no kid":                 forge(t, jwa.EdDSA, private, "", good),
		"HMAC over public key":   forge(t, jwa.HS256, []byte(public), kid, good),
		"another issuer":         forge(t, jwa.EdDSA, private, kid, with(good, "iss", "else")),
		"no issuer":              forge(t, jwa.EdDSA, private, kid, with(good, "iss", nil)),
		"no audience":            forge(t, jwa.EdDSA, private, kid, with(good, "aud", nil)),
		"two audiences":          forge(t, jwa.EdDSA, private, kid, with(good, "aud", []string{"device", "session"})),
		"a session's audience":   forge(t, jwa.EdDSA, private, kid, with(good, "aud", "session")),
		"no version":             forge(t, jwa.EdDSA, private, kid, with(good, "ver", nil)),
		"a version as a string":  forge(t, jwa.EdDSA, private, kid, with(good, "ver", "1")),
		"another kind":           forge(t, jwa.EdDSA, private, kid, with(good, "kind", "server")),
		"an invalid subject":     forge(t, jwa.EdDSA, private, kid, with(good, "sub", "1")),
		"tampered":               parts[0] + "." + parts[1][:len(parts[1])-2] + "AA." + parts[2],
		"endless":                strings.Repeat("A", 1<<16),
		"two dots":               "..",
		"empty":                  "",
		"the JSON serialisation": `{"payload":"e30","signatures":[]}`,
	} {
		if principal, err := p.auth.Authenticate(bearer(forged)); status(err) != 401 {
			t.Errorf("%s: %+v, %v", name, principal, err)
		}
	}
}

func TestAuthenticate_RejectsTokensOfAnotherType(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	device, deviceToken := p.device(t)
	ticket, _, err := p.auth.Ticket(device.ID, uuid.New(), device.TokenVersion, p.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Authenticate(bearer(ticket)); status(err) != 401 {
		t.Errorf("a ticket as bearer token: %v", err)
	}
	if _, err := p.auth.Authenticate(cookie(ticket)); status(err) != 401 {
		t.Errorf("a ticket as session cookie: %v", err)
	}
	if _, err := p.auth.Authenticate(cookie(deviceToken)); status(err) != 401 {
		t.Errorf("a device token as session cookie: %v", err)
	}
	if principal, err := p.auth.Authenticate(bearer(login.Token)); err != nil || principal.Kind() != auth.KindUser {
		t.Errorf("a session is %+v, %v", principal, err)
	}
}

func TestAuthenticate_SessionTokenNeedsExpiryAndUser(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	principal, err := p.auth.Authenticate(bearer(login.Token))
	if err != nil {
		t.Fatal(err)
	}
	kid, private := p.key(t)
	claims := map[string]any{"iss": "eclitunnel", "aud": "session", "sub": "999", "jti": principal.Session.ID.String()}
	if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, private, kid, claims))); status(err) != 401 {
		t.Errorf("no expiry: %v", err)
	}
	claims = with(claims, "exp", p.clock.Now().Add(time.Hour).Unix())
	if _, err := p.auth.Authenticate(bearer(forge(t, jwa.EdDSA, private, kid, claims))); status(err) != 401 {
		t.Errorf("another user: %v", err)
	}
}

func TestTicket_VerifiesOfflineWithThePublishedKeys(t *testing.T) {
	p := newPanel(t)
	client, server := uuid.New(), uuid.New()
	ticket, expires, err := p.auth.Ticket(client, server, 4, p.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if want := p.clock.Now().Add(24 * time.Hour); !expires.Equal(want) {
		t.Errorf("expires %v, want %v", expires, want)
	}
	published, err := json.Marshal(p.auth.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwk.Parse(published)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseString(ticket, jwt.WithKeySet(keys),
		jwt.WithIssuer("eclitunnel"), jwt.WithAudience(server.String()), jwt.WithSubject(client.String()),
		jwt.WithClaimValue("use", "ticket"), jwt.WithClaimValue("ver", 4.0),
		jwt.WithClock(jwt.ClockFunc(p.clock.Now)))
	if err != nil {
		t.Fatal(err)
	}
	if !token.Expiration().Equal(expires) {
		t.Errorf("exp is %v, want %v", token.Expiration(), expires)
	}
}

func TestJWKS_PublishesPublicKeysWithTheirAlgorithm(t *testing.T) {
	p := newPanel(t)
	kid, private := p.key(t)
	keys := p.auth.JWKS().Keys
	if len(keys) != 1 || keys[0].Kid != kid || keys[0].Alg != "EdDSA" || keys[0].Kty != "OKP" || keys[0].Crv != "Ed25519" || keys[0].Use != "sig" {
		t.Fatalf("keys are %+v", keys)
	}
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	if seed := base64.RawURLEncoding.EncodeToString(private.Seed()); strings.Contains(string(text), seed) {
		t.Error("the private key is published")
	}
}

func TestNew_SharesTheKeyAmongReplicas(t *testing.T) {
	p := newPanel(t)
	device, _ := p.device(t)
	other := p.newAuth(t, "https://panel.example.com")
	token, err := other.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Authenticate(bearer(token)); err != nil {
		t.Error(err)
	}
}
