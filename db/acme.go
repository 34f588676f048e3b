package db

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db/atrest"
)

// Certificate is the certificate of a domain from an authority (ACME), and the state of the attempts to
// get it. Its times are by the database's clock, but NotAfter, which the certificate says.
type Certificate struct {
	Domain string `db:"domain"`
	// Chain is the certificate and its intermediates as PEM, Key the private key as PKCS #8. They are
	// empty before the first success, and NotAfter is nil. Key alone is nil if it is encrypted with a key
	// that the database was not opened with.
	Chain    []byte     `db:"chain"`
	Key      []byte     `db:"key"`
	NotAfter *time.Time `db:"not_after"`
	// Failures is the number of attempts since the last success, that under way included. Failure says
	// why the last one failed, if it has ended, and RetryAt when the next one may begin.
	Failures int        `db:"failures"`
	Failure  string     `db:"failure"`
	RetryAt  *time.Time `db:"retry_at"`
	// Challenge is the type of challenge that succeeded last; empty if none has.
	Challenge string `db:"challenge"`
	// Due reports whether an attempt may begin now.
	Due bool `db:"due"`
}

// accountKeyName and certificateKeyName name private keys for sealSecret.
func accountKeyName(directory string) string { return "ACME account " + directory }

func certificateKeyName(directory, domain string) string {
	return "ACME certificate " + domain + " " + directory
}

// openKey is openSecret for a private key as PKCS #8.
func (d *DB) openKey(name string, stored []byte) (key []byte, current bool) {
	return d.openSecret(name, stored, atrest.Sealed(stored))
}

const (
	certificateDue = `(c.renew_at IS NULL OR c.renew_at <= now()) AND (c.retry_at IS NULL OR c.retry_at <= now())
		AND (c.leased_until IS NULL OR c.leased_until <= now())`
	certificateState = `c.domain, c.not_after, c.failures, c.failure, c.retry_at, c.challenge, ` + certificateDue + ` AS due`
)

// Certificates returns the certificates of domains from an authority, sorted by domain, those included
// that there are none of yet.
func (d *DB) Certificates(ctx context.Context, directory string, domains []string) ([]Certificate, error) {
	certificates, err := d.certificates(ctx, directory, domains)
	if err != nil || len(certificates) == len(domains) {
		return certificates, wrap(err, "certificates")
	}
	_, err = d.devices.ExecContext(ctx,
		`INSERT INTO acme_certificates (directory, domain) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING`,
		directory, pq.Array(domains))
	if err != nil {
		return nil, wrap(err, "certificates")
	}
	certificates, err = d.certificates(ctx, directory, domains)
	return certificates, wrap(err, "certificates")
}

func (d *DB) certificates(ctx context.Context, directory string, domains []string) ([]Certificate, error) {
	var certificates []Certificate
	err := d.devices.SelectContext(ctx, &certificates,
		`SELECT c.chain, c.key, `+certificateState+` FROM acme_certificates c
		WHERE c.directory = $1 AND c.domain = ANY ($2) ORDER BY c.domain`,
		directory, pq.Array(domains))
	for i := range certificates {
		c := &certificates[i]
		c.Key, _ = d.openKey(certificateKeyName(directory, c.Domain), c.Key)
	}
	return certificates, err
}

// CertificateAttempt is an attempt of a replica to get a certificate.
type CertificateAttempt struct {
	Directory, Domain string
	// Lease identifies the attempt. It lasts at most For, after which another one may begin.
	Lease uuid.UUID
	For   time.Duration
	// Waits are the pauses after the first, the second, … attempt since the last success. The last one
	// applies to all further ones. A replica that dies during an attempt has failed.
	Waits []time.Duration
}

// ClaimCertificate begins an attempt if it is due, and returns the state before it, which is due then,
// without Chain and Key. Of any number of replicas that ask, one gets it.
func (d *DB) ClaimCertificate(ctx context.Context, a CertificateAttempt) (Certificate, error) {
	waits := make([]float64, len(a.Waits))
	for i, wait := range a.Waits {
		waits[i] = wait.Seconds()
	}
	var certificates []Certificate
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		certificates = nil
		err := tx.SelectContext(ctx, &certificates,
			`SELECT `+certificateState+` FROM acme_certificates c WHERE c.directory = $1 AND c.domain = $2 FOR UPDATE`,
			a.Directory, a.Domain)
		if err != nil || len(certificates) == 0 || !certificates[0].Due {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`UPDATE acme_certificates SET lease = $3, leased_until = now() + $4 * interval '1 second', failures = failures + 1,
				retry_at = now() + ($5::float8[])[least(failures + 1, cardinality($5::float8[]))] * interval '1 second'
			WHERE directory = $1 AND domain = $2`,
			a.Directory, a.Domain, a.Lease, a.For.Seconds(), pq.Array(waits))
		return err
	})
	if err != nil || len(certificates) == 0 {
		return Certificate{Domain: a.Domain}, wrap(err, "claim certificate")
	}
	return certificates[0], nil
}

// SaveCertificate ends an attempt with its success: Chain, Key, NotAfter and Challenge of c. It is renewed
// after renewIn. If the attempt's lease is not the last one any more, nothing changes.
func (d *DB) SaveCertificate(ctx context.Context, a CertificateAttempt, c Certificate, renewIn time.Duration) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE acme_certificates SET chain = $4, key = $5, not_after = $6, challenge = $7,
			renew_at = now() + $8 * interval '1 second', failures = 0, failure = '', retry_at = NULL, leased_until = NULL
		WHERE directory = $1 AND domain = $2 AND lease = $3`,
		a.Directory, a.Domain, a.Lease, c.Chain, d.sealSecret(certificateKeyName(a.Directory, a.Domain), c.Key),
		c.NotAfter, c.Challenge, renewIn.Seconds())
	return wrap(err, "save certificate")
}

// FailCertificate ends an attempt with its failure. The next one begins after the attempt's wait, and not
// before notBefore from now.
func (d *DB) FailCertificate(ctx context.Context, a CertificateAttempt, failure string, notBefore time.Duration) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE acme_certificates SET failure = $4, leased_until = NULL,
			retry_at = greatest(retry_at, now() + $5 * interval '1 second')
		WHERE directory = $1 AND domain = $2 AND lease = $3`,
		a.Directory, a.Domain, a.Lease, failure, notBefore.Seconds())
	return wrap(err, "fail certificate")
}

// AbandonCertificate ends an attempt that the replica's own shutdown has cut short before the authority had
// anything to count. It counts as none.
func (d *DB) AbandonCertificate(ctx context.Context, a CertificateAttempt) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE acme_certificates SET failures = failures - 1, retry_at = now(), leased_until = NULL
		WHERE directory = $1 AND domain = $2 AND lease = $3 AND leased_until IS NOT NULL`,
		a.Directory, a.Domain, a.Lease)
	return wrap(err, "abandon certificate")
}

// AccountKey returns the private key of the account at an authority, as PKCS #8. It stores candidate if
// there is none yet: replicas that start together agree on one. It returns [ErrSecretKeys] if the key is
// encrypted with one that the database was not opened with.
func (d *DB) AccountKey(ctx context.Context, directory string, candidate []byte) ([]byte, error) {
	_, err := d.devices.ExecContext(ctx,
		`INSERT INTO acme_accounts (directory, key) VALUES ($1, $2) ON CONFLICT DO NOTHING`, directory,
		d.sealSecret(accountKeyName(directory), candidate))
	if err != nil {
		return nil, wrap(err, "account key")
	}
	var stored []byte
	err = d.devices.GetContext(ctx, &stored, `SELECT key FROM acme_accounts WHERE directory = $1`, directory)
	if err != nil {
		return nil, wrap(err, "account key")
	}
	key, _ := d.openKey(accountKeyName(directory), stored)
	if key == nil {
		return nil, fmt.Errorf("account key: %w", ErrSecretKeys)
	}
	return key, nil
}

// EncryptCertificateKeys stores the private keys of accounts and certificates as the database's secret keys
// say. Those that are encrypted with others are lost: their accounts are deleted, and their certificates are
// due. The panel is configured for some domains from an authority; lost are those whose keys are lost.
// Certificates of others are deleted once they have ended. It must follow an [DB.EnsureSigningKey], which
// returns an error if the database was opened with wrong secret keys.
func (d *DB) EncryptCertificateKeys(ctx context.Context, directory string, domains []string) (lost []string, err error) {
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		lost = nil
		if err := d.encryptAccountKeys(ctx, tx); err != nil {
			return err
		}
		var rows []struct {
			Directory, Domain string
			Key               []byte
			Ended             bool
		}
		err := tx.SelectContext(ctx, &rows,
			`SELECT directory, domain, key, coalesce(greatest(not_after, leased_until) <= now(), false) AS ended
			FROM acme_certificates WHERE key IS NOT NULL ORDER BY directory, domain FOR UPDATE`)
		if err != nil {
			return err
		}
		for _, row := range rows {
			name := certificateKeyName(row.Directory, row.Domain)
			key, current := d.openKey(name, row.Key)
			configured := row.Directory == directory && slices.Contains(domains, row.Domain)
			switch {
			case row.Ended && !configured:
				_, err = tx.ExecContext(ctx, `DELETE FROM acme_certificates WHERE directory = $1 AND domain = $2`, row.Directory, row.Domain)
			case current:
			case key == nil:
				if configured {
					lost = append(lost, row.Domain)
				}
				_, err = tx.ExecContext(ctx, `UPDATE acme_certificates SET renew_at = NULL WHERE directory = $1 AND domain = $2`,
					row.Directory, row.Domain)
			default:
				_, err = tx.ExecContext(ctx, `UPDATE acme_certificates SET key = $3 WHERE directory = $1 AND domain = $2`,
					row.Directory, row.Domain, d.sealSecret(name, key))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return lost, wrap(err, "encrypt certificate keys")
}

func (d *DB) encryptAccountKeys(ctx context.Context, tx *sqlx.Tx) error {
	var rows []struct {
		Directory string
		Key       []byte
	}
	if err := tx.SelectContext(ctx, &rows, `SELECT directory, key FROM acme_accounts ORDER BY directory FOR UPDATE`); err != nil {
		return err
	}
	for _, row := range rows {
		name := accountKeyName(row.Directory)
		key, current := d.openKey(name, row.Key)
		var err error
		switch {
		case current:
		case key == nil:
			_, err = tx.ExecContext(ctx, `DELETE FROM acme_accounts WHERE directory = $1`, row.Directory)
		default:
			_, err = tx.ExecContext(ctx, `UPDATE acme_accounts SET key = $2 WHERE directory = $1`, row.Directory, d.sealSecret(name, key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Challenge is an authority's challenge and the answer to it.
type Challenge struct {
	Kind   string // http-01 or tls-alpn-01.
	Name   string // The token, or the domain.
	Answer []byte // Worth nothing to anybody else: it is what the authority is shown.
}

// SaveChallenge has all replicas answer a challenge for a time. It replaces an earlier one of its kind and
// name, and deletes those that have expired.
func (d *DB) SaveChallenge(ctx context.Context, c Challenge, ttl time.Duration) error {
	return wrap(d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM acme_challenges WHERE expires_at <= now()`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO acme_challenges (kind, name, answer, expires_at) VALUES ($1, $2, $3, now() + $4 * interval '1 second')
			ON CONFLICT (kind, name) DO UPDATE SET answer = excluded.answer, expires_at = excluded.expires_at`,
			c.Kind, c.Name, c.Answer, ttl.Seconds())
		return err
	}), "save challenge")
}

// DeleteChallenge ends what SaveChallenge began.
func (d *DB) DeleteChallenge(ctx context.Context, kind, name string) error {
	_, err := d.devices.ExecContext(ctx, `DELETE FROM acme_challenges WHERE kind = $1 AND name = $2`, kind, name)
	return wrap(err, "delete challenge")
}

// ChallengeAnswer returns the answer to a challenge, or [ErrNotFound]. Anybody can ask.
func (d *DB) ChallengeAnswer(ctx context.Context, kind, name string) ([]byte, error) {
	var answer []byte
	err := d.requests.GetContext(ctx, &answer,
		`SELECT answer FROM acme_challenges WHERE kind = $1 AND name = $2 AND expires_at > now()`, kind, name)
	return answer, wrap(err, "challenge")
}
