package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/acme"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// attemptTimeout bounds an attempt, and leaseTime lets another replica begin one if
	// this one does not report its end.
	attemptTimeout = 4 * time.Minute
	leaseTime      = 5 * time.Minute
	// reportTimeout bounds what is left to do after an attempt, which a shutdown may have
	// ended: its report, and requests that clean up.
	reportTimeout = 3 * time.Second
)

// waits are the pauses after failed attempts, of all replicas together. In any hour four
// attempts fail at most, each with one challenge: Let's Encrypt permits five failed
// validations of a name in an hour. The second attempt comes soon, because it uses the
// other type of challenge.
var waits = []time.Duration{
	time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 12 * time.Hour,
}

// Store is the part of the database that a Keeper uses. It holds private keys: of the
// account and of the certificates.
type Store interface {
	Certificates(ctx context.Context, directory string, domains []string) ([]db.Certificate, error)
	ClaimCertificate(ctx context.Context, attempt db.CertificateAttempt) (db.Certificate, error)
	SaveCertificate(ctx context.Context, attempt db.CertificateAttempt, certificate db.Certificate, renewIn time.Duration) error
	FailCertificate(ctx context.Context, attempt db.CertificateAttempt, failure string, notBefore time.Duration) error
	AbandonCertificate(ctx context.Context, attempt db.CertificateAttempt) error
	AccountKey(ctx context.Context, directory string, candidate []byte) ([]byte, error)
	SaveChallenge(ctx context.Context, challenge db.Challenge, ttl time.Duration) error
	DeleteChallenge(ctx context.Context, kind, name string) error
	ChallengeAnswer(ctx context.Context, kind, name string) ([]byte, error)
}

// Options configures a Keeper.
type Options struct {
	Store Store // Required.
	// Directory is the URL of the authority's directory. Required.
	Directory string
	// Email is where the authority may reach the operator; empty gives it none.
	Email string
	// Domains are the names to get certificates for, in lower case. The first one's
	// certificate is served to callers that name no other. Required.
	Domains []string
	// HTTP says that the authority reaches ServeHTTP on port 80 of the domains, so that
	// http-01 is tried in turn with tls-alpn-01.
	HTTP bool
	// Client sends the requests to the authority; nil is http.DefaultClient.
	Client *http.Client
	Logger *slog.Logger // nil is slog.Default.
	// Every is how often the certificates are read; 0 is 5 seconds.
	Every time.Duration
}

// Keeper gets, renews and serves certificates. It is safe for concurrent use.
type Keeper struct {
	opts   Options
	served atomic.Pointer[map[string]*served] // By domain.

	mu      sync.Mutex
	state   []Status
	settled chan struct{} // Closed when every domain has a certificate, or failed to get one.

	attempts sync.WaitGroup
	running  sync.Map      // Domains of this replica's attempts.
	ended    chan struct{} // An attempt has ended.
}

// ErrNone is returned while there is no certificate.
var ErrNone = errors.New("the panel has no certificate yet")

// served is the content of a row that is served.
type served struct {
	chain       string
	certificate *tls.Certificate
}

// New returns a Keeper for Run.
func New(opts Options) (*Keeper, error) {
	if opts.Store == nil || opts.Directory == "" || len(opts.Domains) == 0 {
		return nil, errors.New("certificate: Store, Directory and Domains are required")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Every == 0 {
		opts.Every = every
	}
	k := &Keeper{opts: opts, settled: make(chan struct{}), ended: make(chan struct{}, 1)}
	k.served.Store(&map[string]*served{})
	return k, nil
}

// Status returns what is known of each domain's certificate, as of the last read.
func (k *Keeper) Status() []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.state)
}

// Settled returns a channel that is closed once every domain has a certificate, or an
// attempt to get it has failed.
func (k *Keeper) Settled() <-chan struct{} { return k.settled }

// Run gets and renews certificates until ctx ends, and then returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.attempts.Wait()
	ticker := time.NewTicker(k.opts.Every)
	defer ticker.Stop()
	for failing := false; ; {
		err := k.round(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			k.opts.Logger.WarnContext(ctx, "certificates not read; those read before are served", slog.Any("error", err))
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-k.ended:
		case <-ctx.Done():
			return nil
		}
	}
}

// round reads the certificates and begins the attempts that are due.
func (k *Keeper) round(ctx context.Context) error {
	rows, err := k.opts.Store.Certificates(ctx, k.opts.Directory, k.opts.Domains)
	if err != nil {
		return err
	}
	k.apply(ctx, rows)
	for _, row := range rows {
		if !row.Due {
			continue
		}
		if _, already := k.running.LoadOrStore(row.Domain, nil); already {
			continue
		}
		k.attempts.Go(func() {
			k.attempt(ctx, row.Domain)
			k.running.Delete(row.Domain)
			select {
			case k.ended <- struct{}{}:
			default: // The next round is due anyway.
			}
		})
	}
	return nil
}

// apply serves the certificates of rows.
func (k *Keeper) apply(ctx context.Context, rows []db.Certificate) {
	now := maps.Clone(*k.served.Load())
	before := k.Status()
	state := make([]Status, len(rows))
	for i, row := range rows {
		state[i] = Status{Name: row.Domain, Failure: row.Failure}
		if row.RetryAt != nil {
			state[i].RetryAt = *row.RetryAt
		}
		if s := now[row.Domain]; len(row.Chain) > 0 && (s == nil || s.chain != string(row.Chain)) {
			certificate, err := parse(row)
			if err == nil {
				now[row.Domain] = &served{string(row.Chain), certificate}
			} else {
				state[i].Failure, state[i].RetryAt = err.Error(), time.Time{}
				if !slices.ContainsFunc(before, func(b Status) bool { return b.Name == row.Domain && b.Failure == err.Error() }) {
					k.opts.Logger.ErrorContext(ctx, "stored certificate cannot be used", slog.String("domain", row.Domain), slog.Any("error", err))
				}
			}
		}
		if s := now[row.Domain]; s != nil {
			state[i].NotAfter = s.certificate.Leaf.NotAfter
		}
	}
	k.served.Store(&now)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = state
	open := func(s Status) bool { return s.NotAfter.IsZero() && s.Failure == "" }
	select {
	case <-k.settled:
	default:
		if len(state) > 0 && !slices.ContainsFunc(state, open) {
			close(k.settled)
		}
	}
}

// attempt gets or renews the certificate of a domain, unless another replica does.
func (k *Keeper) attempt(ctx context.Context, domain string) {
	a := db.CertificateAttempt{Directory: k.opts.Directory, Domain: domain, Lease: uuid.New(), For: leaseTime, Waits: waits}
	before, err := k.opts.Store.ClaimCertificate(ctx, a)
	log := k.opts.Logger.With(slog.String("domain", domain))
	if err != nil && ctx.Err() == nil {
		log.WarnContext(ctx, "attempt to get a certificate not begun", slog.Any("error", err))
	}
	if err != nil || !before.Due {
		return
	}
	log.InfoContext(ctx, "asking for a certificate", slog.String("authority", k.opts.Directory))
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	certificate, renewIn, counted, err := k.obtain(attempt, before)
	cancel()
	err = k.withoutPage(err)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("the panel was stopped during the attempt: %w", err)
	}

	// A shutdown must not leave the lease to others, or count as a failure where the authority
	// counts nothing.
	report, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	var reported error
	switch {
	case err == nil:
		if reported = k.save(ctx, a, certificate, renewIn); reported == nil {
			log.InfoContext(ctx, "certificate obtained", slog.Time("notAfter", *certificate.NotAfter), slog.Duration("renewIn", renewIn))
		}
	case ctx.Err() != nil && !counted:
		reported = k.opts.Store.AbandonCertificate(report, a)
	default:
		attrs := []any{slog.Any("error", err), slog.Duration("retryIn", max(waits[min(before.Failures, len(waits)-1)], retryAfter(err)))}
		if before.NotAfter == nil {
			log.ErrorContext(report, "certificate not obtained; nobody can use the panel over TLS at this name", attrs...)
		} else {
			log.WarnContext(report, "certificate not renewed; it is served until it ends", append(attrs, slog.Time("notAfter", *before.NotAfter))...)
		}
		reported = k.opts.Store.FailCertificate(report, a, failure(err), retryAfter(err))
	}
	if reported != nil {
		log.WarnContext(report, "outcome of the attempt not stored", slog.Any("error", reported))
	}
}

// save stores a certificate. It tries again for the rest of the lease: an authority issues
// few for one name.
func (k *Keeper) save(ctx context.Context, a db.CertificateAttempt, certificate db.Certificate, renewIn time.Duration) error {
	for end := time.Now().Add(leaseTime - attemptTimeout); ; {
		report, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
		err := k.opts.Store.SaveCertificate(report, a, certificate, renewIn)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(k.opts.Every):
		case <-ctx.Done():
		}
	}
}

// Get is tls.Config.GetCertificate. It answers the authority's tls-alpn-01 challenges, too,
// whichever replica they are for. To other callers it returns [ErrNone] while there is no
// certificate.
func (k *Keeper) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		return k.challengeCertificate(withCaller(hello.Context(), hello.Conn.RemoteAddr().String()), name)
	}
	served := *k.served.Load()
	if s := served[name]; s != nil {
		return s.certificate, nil
	}
	for _, domain := range k.opts.Domains {
		if s := served[domain]; s != nil {
			return s.certificate, nil
		}
	}
	return nil, ErrNone
}

func parse(row db.Certificate) (*tls.Certificate, error) {
	if len(row.Key) == 0 {
		return nil, errors.New("its private key is encrypted with a key that this replica was not given; restart it with the same file of secret keys")
	}
	key, err := x509.ParsePKCS8PrivateKey(row.Key)
	if err != nil {
		return nil, err
	}
	return pair(row.Chain, key)
}
