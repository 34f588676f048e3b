// Package db is the panel's memory: everything durable, in Postgres.
//
// It returns rows and a few sentinel errors ([ErrNotFound], [ErrConflict], …); nothing above it
// knows SQL. Any number of replicas of the panel share one database: rules that must hold between
// them are constraints or row locks here, and a write that a connected device must hear of notifies
// in its own transaction (see [DB.Listen]).
//
// All times are UTC, with the microsecond precision of Postgres. Every method may be called from
// several goroutines at once.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	defaultMaxOpenConns = 16
	// A connection is replaced now and then, so that a failed-over or resized server is found.
	connMaxLifetime = 30 * time.Minute
	connMaxIdleTime = 5 * time.Minute
	// connectTimeout bounds dialling and the start-up handshake together.
	connectTimeout = 5 * time.Second
	// txAttempts bounds how often a transaction that lost a deadlock runs.
	txAttempts = 4
)

// Options configure a [DB].
type Options struct {
	// URL is a postgres:// URL or a DSN of key=value pairs, as libpq reads them; a host that
	// starts with a slash is a directory with a unix socket. Required.
	URL string
	// MaxOpenConns bounds the pool. 0 means 16. The listener has one connection besides.
	MaxOpenConns int
	// Logger hears of lost listeners and of migrations. nil discards.
	Logger *slog.Logger
}

// DB is a pool of connections to one database.
type DB struct {
	pool   *sqlx.DB
	url    string // Of the listener.
	logger *slog.Logger
	listen listenTiming
}

// Open connects to the database and checks that it answers. It does not migrate: see [DB.Migrate].
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
		// While a failover is under way the name may lead to a standby still, which answers and takes
		// no writes: a pool that has connections to it would keep them. The listener, which hears
		// nothing there, has to look where the pool does.
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
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	d := &DB{
		pool:   sqlx.NewDb(sql.OpenDB(connector{config}), "postgres"),
		url:    listenURL,
		logger: options.Logger,
		listen: defaultListenTiming,
	}
	d.pool.SetMaxOpenConns(options.MaxOpenConns)
	d.pool.SetMaxIdleConns(options.MaxOpenConns)
	d.pool.SetConnMaxLifetime(connMaxLifetime)
	d.pool.SetConnMaxIdleTime(connMaxIdleTime)
	if err := d.Ping(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// CheckURL says what is wrong with an [Options].URL, as far as that shows without connecting.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

func parseURL(text string) (pq.Config, error) {
	config, err := pq.NewConfig(text)
	var malformed *url.Error
	switch {
	case err == nil:
		return config, nil
	case errors.As(err, &malformed):
		// The parser's error quotes the URL, and with it the password.
		return config, errors.New("database URL is malformed (special characters in a password must be percent-encoded)")
	case strings.Contains(err.Error(), `missing "="`):
		// This one quotes a word, which may be part of a password.
		return config, errors.New("database URL is malformed (a value with spaces must be in single quotes)")
	default:
		return config, fmt.Errorf("database URL: %w", err)
	}
}

// withSetting adds a setting to a well-formed [Options].URL, which does not have it.
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

// Close ends the pool's connections. Listeners end with the context of their [DB.Listen].
func (d *DB) Close() error {
	if err := d.pool.Close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// Ping checks that the database answers.
func (d *DB) Ping(ctx context.Context) error {
	var one int
	// A query and not PingContext: pq answers that with a bare "bad connection", whatever is wrong.
	if err := d.pool.GetContext(ctx, &one, `SELECT 1`); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}

// tx runs fn in a transaction, which commits when fn returns nil. fn runs again when the
// transaction lost a deadlock, so it must have no effect but through tx.
func (d *DB) tx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := d.txOnce(ctx, nil, fn)
		if attempt == txAttempts || !lostDeadlock(err) {
			return err
		}
	}
}

// snapshot runs fn in a read-only transaction whose queries all see the same moment.
func (d *DB) snapshot(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return d.txOnce(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, fn)
}

func (d *DB) txOnce(ctx context.Context, options *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	tx, err := d.pool.BeginTxx(ctx, options)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// After a commit this does nothing; after an error or a panic it frees the connection.
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// stamp brings a time to the precision it will have when it is read back, so that a comparison
// before and after storing it agree.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Page selects a part of a list that is sorted newest first. The zero Page is the whole list.
type Page[K any] struct {
	// Limit is how many rows to return at most. 0 means all.
	Limit int
	// After continues behind the row with this key. nil means from the start.
	After *K
}
