package db_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/atrest"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// secretKeys returns the keys of a file with keys of these bytes.
func secretKeys(t *testing.T, bs ...byte) *atrest.Keys {
	t.Helper()
	var file bytes.Buffer
	for _, b := range bs {
		file.WriteString(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n")
	}
	keys, err := atrest.ParseKeys(file.Bytes())
	check(t, err)
	return keys
}

func openSealed(t *testing.T, url string, keys *atrest.Keys) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{URL: url, SecretKeys: keys})
	check(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

func TestSigningKeys_AreEncryptedWithTheSecretKeys(t *testing.T) {
	url := dbtest.URL(t)
	plain := dbtest.Open(t, url)
	connections := dbtest.SQL(t, plain)
	seed := bytes.Repeat([]byte{0xA5}, 32)
	// stored checks how many seeds there are, and that none is stored as it is.
	stored := func(when string, want int) {
		t.Helper()
		rows, err := connections.QueryContext(t.Context(), `SELECT seed FROM signing_keys`)
		check(t, err)
		defer rows.Close()
		for ; rows.Next(); want-- {
			var text []byte
			check(t, rows.Scan(&text))
			if len(text) != 32+atrest.Overhead || bytes.Contains(text, seed[:8]) {
				t.Errorf("%s: a seed is stored as %x", when, text)
			}
		}
		check(t, rows.Err())
		if want != 0 {
			t.Errorf("%s: %d keys are missing", when, want)
		}
	}
	// read checks that every key has the seed.
	read := func(when string, d *db.DB) {
		t.Helper()
		keys, err := d.SigningKeys(t.Context())
		check(t, err)
		for _, key := range keys {
			if !bytes.Equal(key.Seed, seed) {
				t.Errorf("%s: key %s has the seed %x", when, key.ID, key.Seed)
			}
		}
	}

	_, err := plain.EnsureSigningKey(t.Context(), db.SigningKey{ID: "first", Seed: seed})
	check(t, err)
	sealed := openSealed(t, url, secretKeys(t, 1))
	read("before", sealed)
	_, err = sealed.EnsureSigningKey(t.Context(), candidate("unused"))
	check(t, err)
	stored("a key from before", 1)

	age(t, connections, 31*day)
	changes := maintain(t, sealed, db.Maintenance{Keys: db.KeyRotation{Every: 30 * day, Candidate: db.SigningKey{ID: "next", Seed: seed}}})
	if len(changes.Keys.Created) != 1 {
		t.Fatalf("no key was created: %+v", changes)
	}
	stored("the next key", 2)
	_, err = sealed.RevokeSigningKeys(t.Context(), []string{"first", "next"}, db.SigningKey{ID: "fresh", Seed: seed})
	check(t, err)
	stored("a key after a revocation", 1)
	read("all", sealed)

	// Another key takes over once it is the first of the file.
	both := openSealed(t, url, secretKeys(t, 2, 1))
	read("with the older key", both)
	_, err = both.EnsureSigningKey(t.Context(), candidate("unused"))
	check(t, err)
	read("with the new key alone", openSealed(t, url, secretKeys(t, 2)))

	for name, d := range map[string]*db.DB{
		"no key": plain, "the key that was replaced": sealed, "another key": openSealed(t, url, secretKeys(t, 3)),
	} {
		if keys, err := d.SigningKeys(t.Context()); err != nil || len(keys) != 1 || keys[0].Seed != nil {
			t.Errorf("%s: %+v, %v", name, keys, err)
		}
		if _, err := d.EnsureSigningKey(t.Context(), candidate("unused")); !errors.Is(err, db.ErrSecretKeys) {
			t.Errorf("%s at the start: %v", name, err)
		}
	}
	read("after all that", both)

	// Whoever has lost the key can revoke what it encrypts.
	keys, err := plain.SigningKeys(t.Context())
	check(t, err)
	if len(keys) != 1 || keys[0].ID != "fresh" || keys[0].SignsFrom.After(time.Now().Add(day)) {
		t.Fatalf("keys %+v", keys)
	}
	_, err = plain.RevokeSigningKeys(t.Context(), []string{"fresh"}, db.SigningKey{ID: "plain", Seed: seed})
	check(t, err)
	read("without encryption again", plain)
}
