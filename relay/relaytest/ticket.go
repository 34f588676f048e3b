package relaytest

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Claims are a ticket's.
type Claims map[string]any

// Ticket returns a ticket for a client, valid for an hour. Changes replace
// claims; a nil one is left out.
func (p *Panel) Ticket(client uuid.UUID, version int64, changes Claims) string {
	claims := Claims{
		"iss": "eclitunnel", "aud": p.Server.String(), "sub": client.String(), "use": "ticket", "ver": version,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return p.Sign(Claims{"alg": "EdDSA", "typ": "JWT", "kid": keyID}, claims)
}

// Sign returns a JWT signed with the panel's key, whatever its header says.
func (p *Panel) Sign(header, claims Claims) string {
	p.t.Helper()
	var token string
	for _, part := range []Claims{header, claims} {
		data, err := json.Marshal(part)
		if err != nil {
			p.t.Fatal(err)
		}
		token += base64.RawURLEncoding.EncodeToString(data) + "."
	}
	signature := ed25519.Sign(p.key, []byte(token[:len(token)-1]))
	return token + base64.RawURLEncoding.EncodeToString(signature)
}
