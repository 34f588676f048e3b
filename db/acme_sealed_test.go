package db_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/atrest"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// privateKey returns a private key as PKCS #8.
func privateKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return encoded
}

func TestCertificateKeys_AreEncryptedWithTheSecretKeys(t *testing.T) {
	url := dbtest.URL(t)
	plain := dbtest.Open(t, url)
	connections := dbtest.SQL(t, plain)
	account, key := privateKey(t), privateKey(t)
	// stored checks whether both keys are stored as they are.
	stored := func(when string, want bool) {
		t.Helper()
		rows, err := connections.QueryContext(t.Context(), `SELECT key FROM acme_accounts UNION ALL SELECT key FROM acme_certificates`)
		check(t, err)
		defer rows.Close()
		count := 0
		for ; rows.Next(); count++ {
			var text []byte
			check(t, rows.Scan(&text))
			if asIs := bytes.Equal(text, account) || bytes.Equal(text, key); asIs != want || atrest.Sealed(text) == want {
				t.Errorf("%s: a key is stored as %x", when, text)
			}
		}
		check(t, rows.Err())
		if count != 2 {
			t.Errorf("%s: %d keys", when, count)
		}
	}
	// read checks that both keys can be read.
	read := func(when string, d *db.DB) {
		t.Helper()
		if got, err := d.AccountKey(t.Context(), acmeDirectory, privateKey(t)); err != nil || !bytes.Equal(got, account) {
			t.Errorf("%s: the account has the key %x, %v", when, got, err)
		}
		if row := certificateOf(t, d); !bytes.Equal(row.Key, key) || row.Due {
			t.Errorf("%s: the certificate is %+v", when, row)
		}
	}
	// start does what a panel does when it starts.
	start := func(when string, d *db.DB, want ...string) {
		t.Helper()
		if lost, err := d.EncryptCertificateKeys(t.Context(), acmeDirectory, []string{acmeDomain}); err != nil || !slices.Equal(lost, want) {
			t.Errorf("%s: lost %q, %v", when, lost, err)
		}
	}
	save := func(d *db.DB) {
		t.Helper()
		certificateOf(t, d)
		a, ends := newAttempt(), time.Now().Add(time.Hour)
		if !claim(t, d, a) {
			t.Fatal("not due")
		}
		_, err := d.AccountKey(t.Context(), acmeDirectory, account)
		check(t, err)
		check(t, d.SaveCertificate(t.Context(), a, db.Certificate{Chain: []byte("chain"), Key: key, NotAfter: &ends}, time.Hour))
	}

	start("nothing", plain)
	save(plain)
	start("no secret key", plain)
	stored("no secret key", true)
	sealed := openSealed(t, url, secretKeys(t, 1))
	read("keys from before", sealed)
	start("a secret key", sealed)
	stored("a secret key", false)
	read("a secret key", sealed)

	// Another key takes over once it is the first of the file.
	both := openSealed(t, url, secretKeys(t, 2, 1))
	read("with the older key", both)
	start("with the older key", both)
	read("with the new key alone", openSealed(t, url, secretKeys(t, 2)))
	_, err := connections.ExecContext(t.Context(), `UPDATE acme_certificates SET renew_at = now()`)
	check(t, err)
	save(both)
	stored("a renewal", false)
	read("a renewal", openSealed(t, url, secretKeys(t, 2)))

	// Replicas that run go on, and say so; they neither replace nor delete anything.
	for name, d := range map[string]*db.DB{
		"no key": plain, "the key that was replaced": sealed, "another key": openSealed(t, url, secretKeys(t, 3)),
	} {
		if row := certificateOf(t, d); row.Key != nil || string(row.Chain) != "chain" || row.Due {
			t.Errorf("%s: %+v", name, row)
		}
		if _, err := d.AccountKey(t.Context(), acmeDirectory, privateKey(t)); !errors.Is(err, db.ErrSecretKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	read("after all that", both)

	// A key is of no use in another's place.
	_, err = connections.ExecContext(t.Context(), `INSERT INTO acme_certificates (directory, domain, chain, key)
		SELECT directory, 'www.example.com', chain, key FROM acme_certificates`)
	check(t, err)
	rows, err := both.Certificates(t.Context(), acmeDirectory, []string{"www.example.com"})
	if err != nil || len(rows) != 1 || rows[0].Key != nil {
		t.Errorf("in another's place: %+v, %v", rows, err)
	}
	_, err = connections.ExecContext(t.Context(), `DELETE FROM acme_certificates WHERE domain = 'www.example.com'`)
	check(t, err)

	// Who has lost the secret key gets another account and other certificates, and saves them.
	start("a lost key", plain, acmeDomain)
	if row := certificateOf(t, both); !row.Due || !bytes.Equal(row.Key, key) {
		t.Errorf("before the others: %+v", row)
	}
	save(plain)
	stored("others", true)
	read("others", plain)
}

// TestEncryptCertificateKeys_ForgetsWhatIsNotConfigured: nobody renews those certificates, so that a warning about them
// would come at each start for ever.
func TestEncryptCertificateKeys_ForgetsWhatIsNotConfigured(t *testing.T) {
	url := dbtest.URL(t)
	d := openSealed(t, url, secretKeys(t, 1))
	connections := dbtest.SQL(t, dbtest.Open(t, url))
	_, err := connections.ExecContext(t.Context(), `INSERT INTO acme_certificates (directory, domain, chain, key, not_after, leased_until)
		SELECT directory, domain, 'chain', $3, now() + ends * interval '1 hour', now() + leased * interval '1 hour' FROM (VALUES
			($1, $2, -1, NULL), ($1, 'ends.example.com', 1, NULL), ($1, 'ended.example.com', -1, NULL), ($1, 'asks.example.com', -1, 1),
			('https://other.example.com/dir', $2, -1, -2)) AS v (directory, domain, ends, leased)`,
		acmeDirectory, acmeDomain, secretKeys(t, 9).Seal("another", privateKey(t)))
	check(t, err)
	if lost, err := d.EncryptCertificateKeys(t.Context(), acmeDirectory, []string{acmeDomain, "www.example.com"}); err != nil || !slices.Equal(lost, []string{acmeDomain}) {
		t.Errorf("lost %q, %v", lost, err)
	}
	var left string
	check(t, connections.QueryRowContext(t.Context(), `SELECT string_agg(domain, ' ' ORDER BY domain) FROM acme_certificates`).Scan(&left))
	if want := "asks.example.com ends.example.com " + acmeDomain; left != want {
		t.Errorf("left are %s, want %s", left, want)
	}
	// Without ACME none is configured.
	if lost, err := d.EncryptCertificateKeys(t.Context(), "", nil); err != nil || len(lost) > 0 {
		t.Errorf("lost %q, %v", lost, err)
	}
}
