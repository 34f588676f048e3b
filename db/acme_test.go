package db_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

const (
	acmeDirectory = "https://authority.example.com/dir"
	acmeDomain    = "panel.example.com"
)

// newAttempt returns an attempt whose failures wait 1 and 20 minutes.
func newAttempt() db.CertificateAttempt {
	return db.CertificateAttempt{
		Directory: acmeDirectory, Domain: acmeDomain, Lease: uuid.New(), For: 5 * time.Minute,
		Waits: []time.Duration{time.Minute, 20 * time.Minute},
	}
}

// certificateOf returns the certificate as a replica reads it.
func certificateOf(t *testing.T, d *db.DB) db.Certificate {
	t.Helper()
	certificates, err := d.Certificates(t.Context(), acmeDirectory, []string{acmeDomain})
	if err != nil || len(certificates) != 1 {
		t.Fatal(certificates, err)
	}
	return certificates[0]
}

// claim begins an attempt, and reports whether it was due.
func claim(t *testing.T, d *db.DB, a db.CertificateAttempt) bool {
	t.Helper()
	before, err := d.ClaimCertificate(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return before.Due
}

// passes lets a time of the certificate's row pass.
func passes(t *testing.T, d *db.DB, column string) {
	t.Helper()
	if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `UPDATE acme_certificates SET `+column+` = now()`); err != nil {
		t.Fatal(err)
	}
}

func TestClaimCertificate_OneOfManyGetsIt(t *testing.T) {
	d := dbtest.New(t)
	if row := certificateOf(t, d); !row.Due || row.Chain != nil || row.NotAfter != nil {
		t.Errorf("before the first attempt: %+v", row)
	}
	for range 20 {
		var won atomic.Int64
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			all.Go(func() {
				<-begin
				before, err := d.ClaimCertificate(t.Context(), newAttempt())
				if err != nil {
					t.Error(err)
				}
				if before.Due {
					won.Add(1)
				}
			})
		}
		close(begin)
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 8 attempts began", won.Load())
		}
		passes(t, d, "retry_at = now(), leased_until")
	}
}

func TestClaimCertificate_FailuresWaitLongerAndLonger(t *testing.T) {
	d := dbtest.New(t)
	certificateOf(t, d)
	for i, want := range []time.Duration{time.Minute, 20 * time.Minute, 20 * time.Minute} {
		a := newAttempt()
		if !claim(t, d, a) {
			t.Fatalf("attempt %d is not due", i)
		}
		if err := d.FailCertificate(t.Context(), a, "refused", 0); err != nil {
			t.Fatal(err)
		}
		row := certificateOf(t, d)
		if wait := time.Until(*row.RetryAt); row.Due || row.Failures != i+1 || row.Failure != "refused" || (wait-want).Abs() > 30*time.Second {
			t.Errorf("attempt %d: waits %v, want %v: %+v", i, wait, want, row)
		}
		if claim(t, d, newAttempt()) {
			t.Error("an attempt began before its time")
		}
		passes(t, d, "retry_at")
	}
	// The authority's own time counts where it is longer.
	a := newAttempt()
	if !claim(t, d, a) {
		t.Fatal("not due")
	}
	if err := d.FailCertificate(t.Context(), a, "rate limit", 3*time.Hour); err != nil {
		t.Fatal(err)
	}
	if wait := time.Until(*certificateOf(t, d).RetryAt); wait < 2*time.Hour {
		t.Errorf("waits %v", wait)
	}
}

func TestClaimCertificate_ReplicaThatDiesHasFailed(t *testing.T) {
	d := dbtest.New(t)
	certificateOf(t, d)
	dead, next := newAttempt(), newAttempt()
	if !claim(t, d, dead) {
		t.Fatal("not due")
	}
	passes(t, d, "retry_at")
	if claim(t, d, newAttempt()) {
		t.Error("an attempt began during another one")
	}
	passes(t, d, "leased_until")
	if !claim(t, d, next) {
		t.Fatal("not due after the lease")
	}
	if row := certificateOf(t, d); row.Failures != 2 {
		t.Errorf("%d failures", row.Failures)
	}
	// What it reports late changes nothing.
	ends := time.Now().Add(time.Hour)
	for _, err := range []error{
		d.SaveCertificate(t.Context(), dead, db.Certificate{Chain: []byte("chain"), Key: []byte("key"), NotAfter: &ends}, time.Hour),
		d.FailCertificate(t.Context(), dead, "late", time.Hour),
		d.AbandonCertificate(t.Context(), dead),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if row := certificateOf(t, d); row.Chain != nil || row.Failure != "" || row.Failures != 2 {
		t.Errorf("%+v", row)
	}
}

func TestSaveCertificate_IsReadUntilItsRenewal(t *testing.T) {
	d := dbtest.New(t)
	certificateOf(t, d)
	a, ends := newAttempt(), time.Now().Add(time.Hour).Truncate(time.Second)
	if !claim(t, d, a) {
		t.Fatal("not due")
	}
	saved := db.Certificate{Chain: []byte("chain"), Key: []byte("key"), NotAfter: &ends, Challenge: "http-01"}
	if err := d.SaveCertificate(t.Context(), a, saved, time.Minute); err != nil {
		t.Fatal(err)
	}
	row := certificateOf(t, d)
	if string(row.Chain) != "chain" || string(row.Key) != "key" || !row.NotAfter.Equal(ends) || row.Challenge != "http-01" || row.Due || row.RetryAt != nil {
		t.Errorf("%+v", row)
	}
	passes(t, d, "renew_at")
	// A shutdown ends the renewal. It is due at once, and has not failed.
	a = newAttempt()
	if !claim(t, d, a) {
		t.Fatal("not due")
	}
	if err := d.AbandonCertificate(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if row := certificateOf(t, d); !row.Due || row.Failures != 0 || string(row.Key) != "key" {
		t.Errorf("%+v", row)
	}
	// Another authority has certificates of its own.
	others, err := d.Certificates(t.Context(), "https://other.example.com/dir", []string{acmeDomain, "www.example.com"})
	if err != nil || len(others) != 2 || others[0].Chain != nil || others[1].Domain != "www.example.com" {
		t.Errorf("%+v, %v", others, err)
	}
}

func TestAccountKey_ReplicasAgreeOnOne(t *testing.T) {
	d := dbtest.New(t)
	for directory, candidates := range map[string][]string{"one": {"first", "second"}, "two": {"third"}} {
		for _, candidate := range candidates {
			if key, err := d.AccountKey(t.Context(), directory, []byte(candidate)); err != nil || string(key) != candidates[0] {
				t.Errorf("%s: %q, %v", directory, key, err)
			}
		}
	}
}

func TestChallengeAnswer_EndsWithTheChallenge(t *testing.T) {
	d := dbtest.New(t)
	answer := func(name string) string {
		got, err := d.ChallengeAnswer(t.Context(), "http-01", name)
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			t.Fatal(err)
		}
		return string(got)
	}
	save := func(name, answer string, ttl time.Duration) {
		if err := d.SaveChallenge(t.Context(), db.Challenge{Kind: "http-01", Name: name, Answer: []byte(answer)}, ttl); err != nil {
			t.Fatal(err)
		}
	}
	save("expired", "x", 0)
	save("one", "first", time.Minute)
	save("one", "second", time.Minute)
	if answer("one") != "second" || answer("expired") != "" || answer("other") != "" {
		t.Errorf("%q, %q, %q", answer("one"), answer("expired"), answer("other"))
	}
	if err := d.DeleteChallenge(t.Context(), "http-01", "one"); err != nil || answer("one") != "" {
		t.Errorf("%q, %v", answer("one"), err)
	}
}
