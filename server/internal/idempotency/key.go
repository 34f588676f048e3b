package idempotency

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"strconv"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// key is what is derived from an Idempotency-Key and its owner. Without the Idempotency-Key, none of it can be told
// from the others: who has the database alone can neither read an answer nor look for a key other than by guessing it.
type key struct {
	id   []byte // Of the row.
	code []byte // With which a request is coded, which may have secrets.
	aead cipher.AEAD
}

func newKey(owner, text string) (*key, error) {
	var parts [3][]byte
	for i, use := range []string{"row", "request", "answer"} {
		var err error
		// HKDF, RFC 5869, with the owner as the salt.
		if parts[i], err = hkdf.Key(sha256.New, []byte(text), []byte(owner), "eclitunnel: idempotency: "+use, sha256.Size); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(parts[2])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &key{id: parts[0], code: parts[1], aead: aead}, err
}

func (k *key) seal(text []byte) []byte { return k.aead.Seal(nil, nil, text, k.id) }

func (k *key) open(sealed []byte) ([]byte, error) { return k.aead.Open(nil, nil, sealed, k.id) }

// ownerOf names the caller of ctx, who does not share keys with anybody: a user by any session, an API key, a device,
// or an address.
func ownerOf(ctx context.Context) string {
	switch caller := auth.FromContext(ctx); {
	case caller.Key != nil && caller.Key.ID != 0:
		return "key:" + strconv.FormatInt(caller.Key.ID, 10)
	case caller.Key != nil:
		return caller.Account() + ":key" // Of a provider.
	case caller.Device != nil:
		return "device:" + caller.Device.ID.String()
	case caller.User != nil:
		return caller.Account()
	default:
		return "address:" + auth.Address(ctx).String()
	}
}
