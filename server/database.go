package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/postgres"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

// stopPostgres bounds a clean stop of the embedded Postgres. Cut short it
// recovers at its next start, which takes longer than stopping would have.
const stopPostgres = 30 * time.Second

// addressName is the file in the data directory that says where the embedded
// Postgres listens while it runs, for commands beside the panel.
const addressName = "database.url"

// Migrate brings the database to the schema of this version. It is safe while
// panels run on it, and several may do it at once.
func Migrate(ctx context.Context, database Database, logger *slog.Logger) error {
	_, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return err
	}
	return closeDB()
}

// open opens and migrates the database for a moment's work. An embedded one that
// a running panel holds is shared with it, and otherwise started.
func open(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	if err := database.Check(); err != nil {
		return nil, nil, err
	}
	url := database.URL
	stop := func() error { return nil }
	if url == "" {
		if url, stop, err = borrow(ctx, database, logger); err != nil {
			return nil, nil, err
		}
	}
	d, err := openDB(ctx, url, logger)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return d, func() error { return errors.Join(d.Close(), stop()) }, nil
}

// borrow returns where the embedded Postgres listens, and starts it where no
// panel runs it.
func borrow(ctx context.Context, database Database, logger *slog.Logger) (url string, stop func() error, err error) {
	server, err := startPostgres(ctx, database, logger)
	if errors.Is(err, postgres.ErrInUse) {
		url, err := os.ReadFile(filepath.Join(database.DataDir, addressName))
		if err != nil {
			return "", nil, fmt.Errorf("the panel on %s is starting or stopping; try again", database.DataDir)
		}
		return string(url), func() error { return nil }, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.URL(), func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgres)
		defer cancel()
		return stopEmbedded(ctx, database, server)
	}, nil
}

// startPostgres starts the embedded Postgres and leaves a note of where it
// listens.
func startPostgres(ctx context.Context, database Database, logger *slog.Logger) (*postgres.Server, error) {
	server, err := postgres.Start(ctx, postgres.Options{DataDir: database.DataDir, BinDir: database.PostgresBinDir, Logger: logger})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(database.DataDir, addressName), []byte(server.URL()), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("note where the database listens: %w", err), server.Stop(ctx))
	}
	return server, nil
}

// stopEmbedded also frees the data directory where the server has ended by itself.
func stopEmbedded(ctx context.Context, database Database, server *postgres.Server) error {
	// Whoever finds it missing is told to try again; a note that stays behind is
	// read by nobody until the next start has written it anew.
	_ = os.Remove(filepath.Join(database.DataDir, addressName))
	return server.Stop(ctx)
}

// startDatabase starts the embedded Postgres, where there is no other, and opens
// the database.
func (s *Server) startDatabase(ctx, life context.Context) error {
	url := s.opts.Database.URL
	if url == "" {
		server, err := startPostgres(ctx, s.opts.Database, s.logger)
		if err != nil {
			return err
		}
		url = server.URL()
		s.background(life, "database", func(ctx context.Context) error { return s.keepPostgres(ctx, server) })
	}
	d, err := s.awaitDB(ctx, url)
	if err != nil {
		return err
	}
	s.db = d
	s.started("database connections", func(context.Context) error { return d.Close() })
	return nil
}

// awaitDB opens the database, and tries for as long as it is out of reach. Supervisors
// would try too, but some of them wait minutes between.
func (s *Server) awaitDB(ctx context.Context, url string) (*db.DB, error) {
	retry := backoff.Exponential{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for said := ""; ; {
		d, err := openDB(ctx, url, s.logger)
		if err == nil || !db.Unavailable(err) || ctx.Err() != nil {
			return d, err
		}
		// Once for each reason: of a wrong setting this is all that tells.
		if reason := err.Error(); reason != said {
			said = reason
			s.logger.WarnContext(ctx, "waiting for the database", slog.Any("error", err))
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func openDB(ctx context.Context, url string, logger *slog.Logger) (*db.DB, error) {
	d, err := db.Open(ctx, db.Options{URL: url, Logger: logger})
	if err != nil {
		return nil, err
	}
	if err := d.Migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), d.Close())
	}
	return d, nil
}

// keepPostgres stops server when ctx ends, and starts Postgres again when it dies
// by itself. That is better than ending the panel for a supervisor to restart:
// players' connections and control channels outlive the database, but not the
// process. It returns an error where the panel can no longer reach it.
func (s *Server) keepPostgres(ctx context.Context, server *postgres.Server) error {
	url := server.URL()
	for {
		select {
		case <-server.Done():
			s.logger.ErrorContext(ctx, "database ended", slog.Any("error", server.Err()))
		case <-ctx.Done():
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgres)
		err := stopEmbedded(stopping, s.opts.Database, server)
		cancel()
		if ctx.Err() != nil {
			return err
		}
		if server, err = s.restartPostgres(ctx); err != nil {
			return nil // ctx has ended, and nothing runs.
		}
		if server.URL() != url {
			// Only where the path of the data directory is too long for a socket.
			return errors.Join(errors.New("it came back under another address"), server.Stop(ctx))
		}
	}
}

// restartPostgres tries until ctx ends, whose error is its only one.
func (s *Server) restartPostgres(ctx context.Context) (*postgres.Server, error) {
	retry := backoff.Exponential{Min: time.Second, Max: 30 * time.Second}
	for {
		server, err := startPostgres(ctx, s.opts.Database, s.logger)
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
