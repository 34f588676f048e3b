package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/atrest"
	"github.com/eclitunnel/eclitunnel/db/postgres"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

// stopPostgresTimeout bounds a clean shutdown of the embedded Postgres. If it is cut
// short, Postgres recovers at its next start, which takes longer.
const stopPostgresTimeout = 30 * time.Second

// addressFile is the file in the data directory that contains the URL of the running
// embedded Postgres, for commands that run beside the panel.
const addressFile = "database.url"

// ErrNoDatabase means that a command that works on a panel's database found none.
var ErrNoDatabase = errors.New("there is no database of a panel")

// Migrate brings the database to the schema of this version. It is safe while
// panels run on it, and several may do it at once. It fills an empty database that
// the URL names; where there is no database it returns ErrNoDatabase.
func Migrate(ctx context.Context, database Database, logger *slog.Logger) error {
	_, closeDB, err := openAny(ctx, database, logger)
	if err != nil {
		return err
	}
	return closeDB()
}

// open opens the database of a panel for a moment's work. It returns ErrNoDatabase
// where no panel has used it, and creates nothing then: a mistaken setting must not
// look like an empty panel.
func open(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	d, closeDB, err := connect(ctx, database, logger)
	if err != nil {
		return nil, nil, err
	}
	version, err := d.SchemaVersion(ctx)
	if err == nil && version == 0 {
		err = fmt.Errorf("%w in %s: it is empty; check the settings, or fill it with `eclitunneld serve` or `eclitunneld migrate`",
			ErrNoDatabase, database)
	}
	if err == nil {
		err = d.Migrate(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, closeDB())
	}
	return d, closeDB, nil
}

// openAny is open for an empty database too.
func openAny(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	d, closeDB, err := connect(ctx, database, logger)
	if err != nil {
		return nil, nil, err
	}
	if err := d.Migrate(ctx); err != nil {
		return nil, nil, errors.Join(err, closeDB())
	}
	return d, closeDB, nil
}

// connect connects to the database. An embedded one that a running panel holds is
// shared with it, and otherwise started.
func connect(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	if err := database.Check(); err != nil {
		return nil, nil, err
	}
	if database.URL != "" {
		d, err := openPool(ctx, database, database.URL, logger)
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}
	return connectEmbedded(ctx, database, logger)
}

// connectEmbedded waits for a panel that is starting or stopping.
func connectEmbedded(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	retry := backoff.Exponential{Min: 100 * time.Millisecond, Max: time.Second}
	waiting, cancel := context.WithTimeout(ctx, panelPatience)
	defer cancel()
	for said := false; ; said = true {
		d, stop, err := tryEmbedded(ctx, database, logger)
		if err == nil {
			return d, func() error { return errors.Join(d.Close(), stop()) }, nil
		}
		if !errors.Is(err, errPanelBusy) {
			return nil, nil, err
		}
		if !said {
			logger.InfoContext(ctx, "waiting for the panel, which is starting or stopping", slog.String("dir", database.DataDir))
		}
		if retry.Wait(waiting) != nil {
			return nil, nil, errors.Join(err, ctx.Err())
		}
	}
}

func tryEmbedded(ctx context.Context, database Database, logger *slog.Logger) (*db.DB, func() error, error) {
	url, stop, err := borrow(ctx, database, logger)
	if err != nil {
		return nil, nil, err
	}
	d, err := openPool(ctx, database, url, logger)
	if db.Unavailable(err) && ctx.Err() == nil {
		// The note is of an earlier run, or Postgres is stopping.
		err = fmt.Errorf("%w: %w", busy(database), err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return d, stop, nil
}

// panelPatience bounds how long a command waits for a panel that starts or stops.
const panelPatience = time.Minute

// errPanelBusy means that a panel has the database and cannot share it now.
var errPanelBusy = errors.New("the panel is starting or stopping; try again")

func busy(database Database) error {
	return fmt.Errorf("%s: %w", database.DataDir, errPanelBusy)
}

// borrow returns where the embedded Postgres listens, and starts it where no
// panel runs it.
func borrow(ctx context.Context, database Database, logger *slog.Logger) (url string, stop func() error, err error) {
	server, err := startPostgres(ctx, database, logger, findOnly)
	if errors.Is(err, postgres.ErrNoDatabase) {
		return "", nil, fmt.Errorf("%w in %s: give the panel's own settings, with --data-dir or ECLITUNNEL_DATABASE_URL; "+
			"`eclitunneld serve` creates a database", ErrNoDatabase, database.DataDir)
	}
	if errors.Is(err, postgres.ErrInUse) {
		url, err := os.ReadFile(filepath.Join(database.DataDir, addressFile))
		// A panel writes it after the start of its Postgres, and not at once.
		if err != nil || db.CheckURL(string(url)) != nil || strings.TrimSpace(string(url)) == "" {
			return "", nil, busy(database)
		}
		return string(url), func() error { return nil }, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.URL(), func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgresTimeout)
		defer cancel()
		return stopEmbedded(ctx, database, server)
	}, nil
}

// startMode says what startPostgres does where there is no database.
type startMode int

const (
	mayCreate startMode = iota
	findOnly            // It fails with postgres.ErrNoDatabase.
)

// startPostgres starts the embedded Postgres and leaves a note of where it
// listens.
func startPostgres(ctx context.Context, database Database, logger *slog.Logger, mode startMode) (*postgres.Server, error) {
	server, err := postgres.Start(ctx, postgres.Options{
		DataDir: database.DataDir, BinDir: database.PostgresBinDir, MustExist: mode == findOnly, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	if err := server.NoteURL(addressFile); err != nil {
		return nil, errors.Join(fmt.Errorf("note where the database listens: %w", err), server.Stop(ctx))
	}
	return server, nil
}

// stopEmbedded stops the embedded Postgres and releases the data directory, also if the
// server has already ended.
func stopEmbedded(ctx context.Context, database Database, server *postgres.Server) error {
	// Without the file, acquirePostgres asks to try again. If it stays behind, it is
	// not read before the next start has rewritten it.
	_ = os.Remove(filepath.Join(database.DataDir, addressFile))
	return server.Stop(ctx)
}

// startDatabase opens the database. It starts the embedded Postgres if the options do
// not name another.
func (s *Server) startDatabase(ctx, life context.Context) error {
	url := s.opts.Database.URL
	if url == "" {
		server, err := startPostgres(ctx, s.opts.Database, s.logger, mayCreate)
		if err != nil {
			return err
		}
		url = server.URL()
		s.background(life, "database", func(ctx context.Context) error { return s.supervisePostgres(ctx, server) })
	}
	d, err := s.awaitDB(ctx, url)
	if err != nil {
		return err
	}
	s.db = d
	s.addPart("database connections", func(context.Context) error { return d.Close() })
	return nil
}

// awaitDB opens the database and retries while it is unavailable. Process supervisors
// would retry too, but some wait minutes in between.
func (s *Server) awaitDB(ctx context.Context, url string) (*db.DB, error) {
	keys, err := s.opts.Database.secretKeys()
	if err != nil {
		return nil, err // Waiting would not help.
	}
	retry := backoff.Exponential{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for logged := ""; ; {
		d, err := openDB(ctx, db.Options{URL: url, SecretKeys: keys, Logger: s.logger})
		// A server without TLS will not have it later: that is a wrong setting.
		if err == nil || !db.Unavailable(err) || errors.Is(err, db.ErrNoTLS) || ctx.Err() != nil {
			return d, err
		}
		// Log each reason once. It may be the only hint at a wrong setting.
		if reason := err.Error(); reason != logged {
			logged = reason
			s.logger.WarnContext(ctx, "waiting for the database", slog.Any("error", err))
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// openPool connects to the database at the URL, which is that of an embedded one too.
func openPool(ctx context.Context, database Database, url string, logger *slog.Logger) (*db.DB, error) {
	keys, err := database.secretKeys()
	if err != nil {
		return nil, err
	}
	return db.Open(ctx, db.Options{URL: url, SecretKeys: keys, Logger: logger})
}

func (d Database) secretKeys() (*atrest.Keys, error) {
	if d.SecretKeyFile == "" {
		return nil, nil
	}
	text, err := files.ReadSecret(d.SecretKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the secret keys: %w", err)
	}
	keys, err := atrest.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read the secret keys in %s: %w", d.SecretKeyFile, err)
	}
	return keys, nil
}

func openDB(ctx context.Context, options db.Options) (*db.DB, error) {
	d, err := db.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := d.Migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), d.Close())
	}
	return d, nil
}

// supervisePostgres stops server when ctx ends, and restarts Postgres if it dies.
// Ending the panel instead, for a process supervisor to restart, would end players'
// connections and control channels, which outlive the database but not the process. It
// returns an error if the panel can no longer reach the database.
func (s *Server) supervisePostgres(ctx context.Context, server *postgres.Server) error {
	url := server.URL()
	for {
		select {
		case <-server.Done():
			s.logger.ErrorContext(ctx, "database ended", slog.Any("error", server.Err()))
		case <-ctx.Done():
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgresTimeout)
		err := stopEmbedded(stopping, s.opts.Database, server)
		cancel()
		if ctx.Err() != nil {
			return err
		}
		if server, err = s.restartPostgres(ctx); err != nil {
			return nil // ctx has ended, and nothing runs.
		}
		if server.URL() != url {
			// Happens only if the path of the data directory is too long for a socket.
			return errors.Join(errors.New("it restarted with another address"), server.Stop(ctx))
		}
	}
}

// restartPostgres starts Postgres. It retries until ctx ends, and returns no other
// error than ctx's.
func (s *Server) restartPostgres(ctx context.Context) (*postgres.Server, error) {
	retry := backoff.Exponential{Min: time.Second, Max: 30 * time.Second}
	for {
		server, err := startPostgres(ctx, s.opts.Database, s.logger, findOnly)
		if err == nil {
			return server, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.logger.ErrorContext(ctx, "database not started", slog.Any("error", err))
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}
