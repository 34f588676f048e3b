package certificate_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
)

func TestKeeper_ReplicasAskOnceAndAnswerForEachOther(t *testing.T) {
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			d := dbtest.New(t)
			answers := answering(t, d)
			addresses := acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour}
			if challenge == "http-01" {
				addresses.TLS = acmetest.Free(t)
			}
			a := acmetest.Start(t, addresses)
			asks := asking(t, d, a, 3)
			want := 1
			if challenge == "http-01" { // tls-alpn-01 comes first, and the other type is the next attempt's.
				if status := asks[0].fails(t, "tls-alpn-01"); a.Orders() != 1 {
					t.Errorf("%+v after %d orders", status, a.Orders())
				}
				now(t, d, "retry_at")
				want = 2
			}
			first := asks[0].serves(t, a, nil)
			for _, r := range asks[1:] {
				if other := r.serves(t, a, nil); !other.Equal(first) {
					t.Error("replicas serve different certificates")
				}
			}
			if a.Orders() != want {
				t.Errorf("%d orders, want %d", a.Orders(), want)
			}
		})
	}
}

// now has what is to happen later happen now.
func now(t *testing.T, d *db.DB, column string) {
	t.Helper()
	if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `UPDATE acme_certificates SET `+column+` = now()`); err != nil {
		t.Fatal(err)
	}
}

func TestKeeper_RenewsWhenAThirdOfTheTimeIsLeft(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	const lifetime = time.Hour
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: lifetime})
	replicas := asking(t, d, a, 2)
	one, other := replicas[0], replicas[1]
	first := one.serves(t, a, nil)
	var due time.Time
	err := dbtest.SQL(t, d).QueryRowContext(t.Context(), `SELECT renew_at FROM acme_certificates`).Scan(&due)
	if left := first.NotAfter.Sub(due); err != nil || (left-lifetime/3).Abs() > lifetime/10 {
		t.Errorf("renewed when %v of %v are left, %v", left, lifetime, err)
	}
	now(t, d, "renew_at")
	one.serves(t, a, first)
	other.serves(t, a, first)
	if a.Orders() != 2 {
		t.Errorf("%d orders", a.Orders())
	}
}

func TestKeeper_ServesWhatItHasWhileRenewalFails(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	replicas := asking(t, d, a, 2)
	one, other := replicas[0], replicas[1]
	first := one.serves(t, a, nil)
	a.Refuse(3 * time.Hour)
	now(t, d, "renew_at")
	for _, r := range []*replica{one, other} {
		status := r.fails(t, "")
		if status.Failure != "too many certificates" || !status.NotAfter.Equal(first.NotAfter) || time.Until(status.RetryAt) < 2*time.Hour {
			t.Errorf("status %+v", status)
		}
		if served, err := a.Served(t, r.tls, domain); err != nil || !served.Equal(first) {
			t.Errorf("served %v, %v", served, err)
		}
	}
	// A restart does not forget it.
	if status := asking(t, d, a, 1)[0].fails(t, ""); status.Failure != "too many certificates" || a.Orders() != 2 {
		t.Errorf("status %+v after %d orders", status, a.Orders())
	}
	if log := one.log.String() + other.log.String(); strings.Count(log, "certificate not renewed; it is served until it ends") != 1 {
		t.Errorf("the log is %s", log)
	}
	// What was wrong is forgotten with the next success.
	a.Refuse(0)
	now(t, d, "retry_at")
	one.serves(t, a, first)
	await.Until(t, "no failure", func() bool { return one.Status()[0].Failure == "" && other.Status()[0].Failure == "" })
}

func TestKeeper_RestartServesWhatIsStored(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	var first *x509.Certificate
	t.Run("before", func(t *testing.T) { first = asking(t, d, a, 1)[0].serves(t, a, nil) })
	r := asking(t, d, a, 1)[0]
	if second := r.serves(t, a, nil); !second.Equal(first) {
		t.Error("it serves another certificate after a restart")
	}
	await.Receive(t, r.Settled(), "settled")
	if log := r.log.String(); a.Orders() != 1 || strings.Contains(log, "asking") {
		t.Errorf("%d orders: %s", a.Orders(), log)
	}
}

func TestKeeper_FailedValidationsBackOff(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	r := asking(t, d, a, 1)[0]
	first := r.serves(t, a, nil)
	answers.close()
	now(t, d, "renew_at")
	for i, failed := range []struct {
		reason string
		wait   time.Duration
	}{{"tls-alpn-01", time.Minute}, {"http", 20 * time.Minute}, {"tls-alpn-01", 40 * time.Minute}} {
		if i > 0 {
			now(t, d, "retry_at")
		}
		status := r.fails(t, failed.reason)
		if wait := time.Until(status.RetryAt); wait > failed.wait || wait < failed.wait-50*time.Second {
			t.Errorf("failure %d: the next attempt is in %v, want %v: %+v", i, wait, failed.wait, status)
		}
		if served, err := a.Served(t, r.tls, domain); err != nil || !served.Equal(first) {
			t.Errorf("served %v, %v", served, err)
		}
		log := r.log.String()
		if got := strings.Count(log, "certificate not renewed; it is served until it ends"); got != i+1 || !strings.Contains(log, "retryIn="+failed.wait.String()) {
			t.Errorf("%d failures logged of %d: %s", got, i+1, log)
		}
		if got := a.Orders(); got != i+2 {
			t.Errorf("%d orders after %d failures", got, i+1)
		}
	}
}

// stopping is a transport that ends a context when a request to some path begins.
type stopping struct {
	http.RoundTripper
	at   string
	stop context.CancelFunc
}

func (s *stopping) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Path, s.at) {
		s.stop()
	}
	return s.RoundTripper.RoundTrip(r)
}

// TestKeeper_RestartsDoNotUndoPauses: a panel that is stopped again and again must not have the authority validate or
// issue more often than its limits permit.
func TestKeeper_RestartsDoNotUndoPauses(t *testing.T) {
	d := dbtest.New(t)
	answers := answering(t, d)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	for _, c := range []struct {
		at       string
		failures int
	}{{"/order-plz", 0}, {"/authZ/", 0}, {"/chalZ/", 1}, {"/finalize-order/", 1}} {
		t.Run(c.at, func(t *testing.T) {
			if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `DELETE FROM acme_certificates`); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			client := *a.Client
			client.Transport = &stopping{a.Client.Transport, c.at, stop}
			r := newReplica(t, d, &acmetest.Authority{Directory: a.Directory, Client: &client})
			if err := r.Run(ctx); err != nil {
				t.Fatal(err)
			}
			rows, err := d.Certificates(t.Context(), a.Directory, []string{domain})
			if err != nil {
				t.Fatal(err)
			}
			if row := rows[0]; row.Failures != c.failures || row.Due == (c.failures > 0) || (row.Failure == "") == (c.failures > 0) {
				t.Errorf("%+v: %s", row, r.log.String())
			}
		})
	}
}

func TestKeeper_GetsACertificateForEachDomain(t *testing.T) {
	d := dbtest.New(t)
	const second = "www.example.com"
	answers := answering(t, d, second)
	a := acmetest.Start(t, acmetest.Options{TLS: answers.tls, HTTP: answers.http, Lifetime: time.Hour})
	r := newReplica(t, d, a, second)
	r.run(t)
	r.serves(t, a, nil)
	await.Within(t, patience, "the second certificate", func(context.Context) (bool, error) {
		_, err := a.Served(t, r.tls, second)
		return err == nil, err
	})
	if _, err := a.Served(t, r.tls, "other.example.com"); err == nil || !strings.Contains(err.Error(), domain) {
		t.Errorf("to a caller of another name it serves %v", err)
	}
	if a.Orders() != 2 {
		t.Errorf("%d orders", a.Orders())
	}
}

func TestKeeper_SaysWhatIsWrongWithTheAuthority(t *testing.T) {
	d := dbtest.New(t)
	authority := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page":
			_, _ = w.Write([]byte("<html>welcome</html>"))
		case "/old":
			_, _ = w.Write([]byte(`{"new-reg":"https://authority.test"}`))
		case "/customers":
			_, _ = w.Write([]byte(`{"newOrder":"https://authority.test","meta":{"externalAccountRequired":true}}`))
		case "/proxied":
			_, _ = w.Write([]byte(strings.ReplaceAll(`{"newNonce":"HOST/nonce","newAccount":"HOST/account","newOrder":"HOST/order"}`, "HOST", "https://"+r.Host)))
		case "/nonce":
			w.Header().Set("Replay-Nonce", "bm9uY2U")
		default:
			http.Error(w, "<html>nothing here</html>", http.StatusNotFound)
		}
	}))
	t.Cleanup(authority.Close)
	authority.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	client := authority.Client()
	t.Cleanup(client.CloseIdleConnections)
	for directory, said := range map[string]string{
		authority.URL + "/page":                "it is no directory of a certificate authority",
		authority.URL + "/old":                 "RFC 8555",
		authority.URL + "/customers":           "bound to one of its customers",
		authority.URL + "/nothing":             "answers 404 Not Found",
		authority.URL + "/proxied":             "answers 404 Not Found",
		"https://" + acmetest.Free(t) + "/dir": "refused",
	} {
		r := newReplica(t, d, &acmetest.Authority{Directory: directory, Client: client})
		r.run(t)
		status := r.fails(t, said)
		if log := r.log.String(); !strings.Contains(status.Failure, directory) || strings.Contains(status.Failure, "<html>") ||
			!strings.Contains(log, "certificate not obtained") || strings.Contains(log, "<html>") || !strings.Contains(log, directory) {
			t.Errorf("%s: %s", directory, log)
		}
	}
}
