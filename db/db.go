// Package db stores the panel's durable state in Postgres.
//
// It returns rows and a few sentinel errors ([ErrNotFound], [ErrConflict], …); its callers use no SQL.
// Any number of replicas of the panel share one database. Rules that must hold between replicas are
// constraints or row locks, and a write that affects a connected device sends a notification in its
// own transaction (see [DB.Listen]).
//
// All times are UTC, with the microsecond precision of Postgres. All methods are safe for concurrent
// use.
//
// Every method but [DB.Migrate], [DB.Listen] and [DB.ListenLive] returns within 3 seconds, whatever the server does,
// if its context has no deadline. With one it returns within half a second of the context's end. A
// call that shares a statement with others may wait for earlier ones, as long as the server answers
// those: its 3 seconds begin with the last answer.
package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db/atrest"
)

const (
	// Connections are replaced periodically, so that the pool moves to a new primary or server.
	connMaxLifetime = 30 * time.Minute
	connMaxIdleTime = 5 * time.Minute
	// connectTimeout bounds dialling and the start-up handshake together.
	connectTimeout = 5 * time.Second
	// txAttempts is the maximum number of attempts of a transaction that is aborted by a deadlock.
	txAttempts = 4
)

// Options configures a [DB].
type Options struct {
	// URL is a postgres:// URL or a DSN of key=value pairs, as in libpq. A host that starts with a
	// slash is a directory with a Unix socket. Required. The environment variables of libpq have no
	// effect, and [Open] removes them from the process; only PGPASSWORD and PGPASSFILE are used if the
	// URL has no password, and PGSERVICEFILE if it names a service.
	URL string
	// MaxOpenConns is the maximum number of connections, at least 4; 0 means 16. Requests can use fewer
	// than half of them, and leases and pings always have some. The listeners of [DB.Listen] and [DB.ListenLive] use one more each.
	MaxOpenConns int
	// SecretKeys encrypt the seeds of signing keys, and the private keys of certificates. Nil stores them as they
	// are, and reads no others.
	SecretKeys *atrest.Keys
	// Logger logs lost listeners and migrations; nil discards.
	Logger *slog.Logger
}

// DB is a pool of connections to one database.
type DB struct {
	*lanes
	batches batches
	wide    chan struct{} // Semaphore of maxWide.
	url     string        // The listener's URL.
	secrets *atrest.Keys
	logger  *slog.Logger
	listen  listenTiming
}

// Open connects to the database and checks that it responds. It does not migrate: see [DB.Migrate].
// It returns [ErrEncoding] where the database is not UTF-8.
func Open(ctx context.Context, options Options) (*DB, error) {
	if options.URL == "" {
		return nil, errors.New("database URL is empty")
	}
	config, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	listenURL := options.URL
	if config.TargetSessionAttrs == "" {
		// During a failover the host name may still resolve to a standby, which responds but accepts no
		// writes. The pool must not keep connections to it, and the listener, which would receive
		// nothing there, must connect where the pool does.
		config.TargetSessionAttrs = pq.TargetSessionAttrsReadWrite
		listenURL = withSetting(listenURL, "target_session_attrs="+string(pq.TargetSessionAttrsReadWrite))
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.Runtime == nil {
		config.Runtime = make(map[string]string)
	}
	config.Runtime["timezone"] = "UTC"
	if options.MaxOpenConns == 0 {
		options.MaxOpenConns = defaultMaxOpenConns
	}
	if options.MaxOpenConns < minOpenConns {
		return nil, fmt.Errorf("%d database connections are fewer than %d", options.MaxOpenConns, minOpenConns)
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	d := &DB{
		lanes:   newLanes(func(conns int) *sqlx.DB { return openPool(config, conns) }, options.MaxOpenConns),
		url:     listenURL,
		secrets: options.SecretKeys,
		logger:  options.Logger,
		listen:  defaultListenTiming,
		wide:    make(chan struct{}, maxWide),
	}
	d.batches = newBatches(d)
	if err := d.Ping(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.checkEncoding(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func openPool(config pq.Config, conns int) *sqlx.DB {
	pool := sqlx.NewDb(sql.OpenDB(connector{config}), "postgres")
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	pool.SetConnMaxLifetime(connMaxLifetime)
	pool.SetConnMaxIdleTime(connMaxIdleTime)
	return pool
}

// checkEncoding refuses a database that would store some names wrongly, or not at all.
func (d *DB) checkEncoding(ctx context.Context) error {
	var encoding, name string
	err := d.devices.QueryRowxContext(ctx, `SELECT current_setting('server_encoding'), current_database()`).Scan(&encoding, &name)
	if err != nil {
		return fmt.Errorf("encoding of the database: %w", err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w: %s has the encoding %s; use one made with: CREATE DATABASE %s ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0",
			ErrEncoding, name, encoding, pq.QuoteIdentifier(name))
	}
	return nil
}

// CheckURL checks an [Options].URL without connecting.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

// Describe says where a well-formed [Options].URL leads, without the password.
func Describe(text string) string {
	config, err := parseURL(text)
	if err != nil {
		return "the database of the URL"
	}
	return fmt.Sprintf("the database %s on %s port %d", cmp.Or(config.Database, config.User), config.Host, config.Port)
}

func parseURL(text string) (pq.Config, error) {
	ignoreEnvironment()
	if scheme, _, ok := strings.Cut(text, "://"); ok && isScheme(scheme) && scheme != "postgres" && scheme != "postgresql" {
		return pq.Config{}, fmt.Errorf("database URL starts with %s://, and not with postgres://", scheme)
	}
	config, err := pq.NewConfig(text)
	var malformed *url.Error
	var setting []string
	if err != nil {
		setting = wrongSetting.FindStringSubmatch(err.Error())
	}
	switch {
	case err == nil:
		return config, nil
	case setting != nil:
		// The driver's error quotes the value, which may be part of a password.
		hint := "see the documentation of PostgreSQL's connection strings"
		if setting[1] == "sslmode" {
			hint = "it is one of disable, allow, prefer, require, verify-ca and verify-full"
		}
		return config, fmt.Errorf("database URL has a wrong value for %s: %s", setting[1], hint)
	case errors.As(err, &malformed):
		// The parser's error contains the URL, and with it the password.
		return config, errors.New("database URL is malformed (special characters in a password must be percent-encoded)")
	case strings.Contains(err.Error(), `missing "="`):
		// This error contains a word that may be part of a password.
		return config, errors.New("database URL is malformed (a value with spaces must be in single quotes)")
	default:
		return config, fmt.Errorf("database URL: %s", strings.TrimPrefix(err.Error(), "pq: "))
	}
}

// wrongSetting matches what lib/pq says of a setting whose value it does not take.
var wrongSetting = regexp.MustCompile(`^pq: wrong value for "?([a-z_]+)"?: `)

// isScheme reports whether text looks like the scheme of a URL, and so holds no secret.
func isScheme(text string) bool {
	return text != "" && len(text) < 20 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz+") == ""
}

// withSetting adds a setting to a well-formed [Options].URL that does not have it.
func withSetting(text, setting string) string {
	switch {
	case !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://"):
		return text + " " + setting
	case strings.Contains(text, "?"):
		return text + "&" + setting
	default:
		return text + "?" + setting
	}
}

// Close closes the pool's connections. A listener ends with the context of its [DB.Listen].
func (d *DB) Close() error {
	err := errors.Join(d.requests.Close(), d.devices.Close()) // leases has the pool of devices.
	d.batches.close()
	if err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// Ping checks that the database responds. Concurrent calls share a statement, which no other call keeps
// waiting.
func (d *DB) Ping(ctx context.Context) error {
	if _, err := d.batches.pings.Do(ctx, struct{}{}); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}

func (d *DB) ping(ctx context.Context, _ []struct{}) error {
	var one int
	// Not PingContext, for which pq returns just "bad connection", whatever the cause.
	return d.leases.GetContext(ctx, &one, `SELECT 1`)
}

// stamp returns t with the precision of Postgres, so that a time compares equal before and after it
// is stored.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Page selects a part of a list that is sorted newest first. The zero Page selects the whole list.
type Page[K any] struct {
	// Limit is the maximum number of rows to return; 0 means all.
	Limit int
	// After is the key of the row after which to continue; nil means from the start.
	After *K
}
