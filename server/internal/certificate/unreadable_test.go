package certificate_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

// unreadable is a store whose private keys another replica has encrypted with a key that this one was not given.
type unreadable struct {
	certificate.Store
	are atomic.Bool
}

func (s *unreadable) Certificates(ctx context.Context, directory string, domains []string) ([]db.Certificate, error) {
	rows, err := s.Store.Certificates(ctx, directory, domains)
	for i := range rows {
		if s.are.Load() {
			rows[i].Key = nil
		}
	}
	return rows, err
}

func TestKeeper_GoesOnWithWhatItHasWhileKeysAreUnreadable(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	keys := &unreadable{Store: d}
	r := newReplicaOf(t, keys, a)
	r.run(t)
	other := asking(t, d, a, 1)[0]
	first := r.serves(t, a, nil)
	keys.are.Store(true)
	now(t, d, "renew_at")
	second := other.serves(t, a, first)
	const said = "encrypted with a key that this replica was not given"
	if status := r.fails(t, said); !status.NotAfter.Equal(first.NotAfter) || !status.RetryAt.IsZero() {
		t.Errorf("%+v", status)
	}
	if got := r.serves(t, a, nil); !got.Equal(first) {
		t.Error("it does not go on with the certificate that it has")
	}
	// One that starts has nothing to go on with, and waits for nothing.
	late := newReplicaOf(t, keys, a)
	late.run(t)
	if status := late.fails(t, said); !status.NotAfter.IsZero() {
		t.Errorf("%+v", status)
	}
	await.Receive(t, late.Settled(), "settled")
	if got := strings.Count(r.log.String(), said); got != 1 || a.Orders() != 2 {
		t.Errorf("%d lines, %d orders", got, a.Orders())
	}
	keys.are.Store(false)
	for _, replica := range []*replica{r, late} {
		if got := replica.serves(t, a, first); !got.Equal(second) {
			t.Error("it serves another one than the other replica")
		}
	}
}
