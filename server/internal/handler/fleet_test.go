package handler_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// TestSigningKeys_AreShownWithoutTheirSeeds: nothing of the answer tells a seed, in any spelling.
func TestSigningKeys_AreShownWithoutTheirSeeds(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	next, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	p.inSQL(t, `INSERT INTO signing_keys (id, seed, created_at, signs_from) VALUES ('`+next.ID+`', '\x`+hex.EncodeToString(next.Seed)+`', now(), now() + interval '1 day')`,
		`INSERT INTO signing_keys (id, seed, created_at, signs_from, retired_at)
			VALUES ('OLD', sha256('old'), now() - interval '9 days', now() - interval '8 days', now() - interval '1 day')`)
	p.advance(time.Minute) // The clock of the database is ahead of the panel's.
	got := admin.send(t, "GET", "/api/admin/signing-keys", nil)
	keys := decode[[]types.SigningKey](t, got, 200)
	if len(keys) != 3 || keys[0].ID != next.ID || keys[0].State != types.SigningKeyStatePublished || keys[0].SignsFrom.Before(time.Now().Add(23*time.Hour)) ||
		keys[1].State != types.SigningKeyStateSigns || keys[2].State != types.SigningKeyStateRetired || keys[2].RetiredAt.IsNull() {
		t.Errorf("%+v", keys)
	}
	for _, seed := range []string{
		hex.EncodeToString(next.Seed), base64.StdEncoding.EncodeToString(next.Seed), base64.RawURLEncoding.EncodeToString(next.Seed), string(next.Seed),
	} {
		if bytes.Contains([]byte(got.body), []byte(seed)) {
			t.Errorf("it tells the seed: %s", got.body)
		}
	}
}
